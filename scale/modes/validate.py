"""`mode=validate`: the grasps of files in a simulator, verdicts beside them, and a table."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from rich.console import Console
from rich.progress import Progress

from bimangrasp.errors import InputError
from bimangrasp.files.shard_format import verdict_image
from bimangrasp.objects.convex_pieces import Pieces
from bimangrasp.validation.evaluate import Evaluation, evaluate_grasps, verdict_attributes, verdict_columns
from bimangrasp.validation.metrics import object_success_rate
from bimangrasp.validation.summary import HEADINGS, Summary, cells, summary_of
from bimangrasp.validation.verdict import Reason
from scale.engine.devices import platform
from scale.formatting import table
from scale.modes.validation_input import Given, mesh_path, read_grasps
from scale.settings.schema import Config
from scale.store.convex_pieces import pieces_of
from scale.store.run_folder import RunFolder

if TYPE_CHECKING:
    from bimangrasp.hands.model import HandModel


class Target(NamedTuple):
    """A file to validate and where its verdicts go."""

    grasps: Path
    verdicts: Path


class ValidationReport(NamedTuple):
    """What a validation found. `str(report)` is the table.

    Attributes:
        protocol: under which.
        objects: file by file.
        osr: share of the objects with a grasp that holds.
        paths: the verdict files.
    """

    protocol: str
    objects: list[Summary]
    osr: float
    paths: list[Path]

    def __str__(self) -> str:
        tried, held = (sum(getattr(one, name) for one in self.objects) for name in ("tried", "held"))
        gsr = f"{held / tried:.1%}" if tried else "-"
        lines = table(HEADINGS, [cells(one) for one in self.objects])
        lines.append(f"protocol {self.protocol}: GSR {gsr} ({held} of {tried} grasps), OSR {self.osr:.0%}")
        return "\n".join([*lines, *(f"verdicts: {path}" for path in self.paths)])


def validate(config: Config) -> ValidationReport:
    """Returns what the protocol of the settings says of a grasp file or of all final files of a run.

    Raises:
        InputError: nothing to validate, a damaged file, other hands, another mesh, or one that has no pieces.
    """
    hands = _hands(config)
    targets = list(_targets(config))
    given = {target: read_grasps(target.grasps, hands, config) for target in targets}  # all doors before hours of work
    pieces = {one.code: pieces_of(mesh_path(config, one.code), config.pieces) for one in given.values()}
    summaries = []
    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
        for target, one in given.items():
            at = bar.add_task(one.code, total=one.subject.poses.count)
            judged = evaluate_grasps(
                hands,
                [piece.vertices for piece in pieces[one.code].pieces],
                one.subject,
                config.validation,
                config.poses,
                config.validators or len(os.sched_getaffinity(0)),
                lambda row, at=at: bar.advance(at),  # noqa: ARG005 - the protocol's
            )
            _write(config, hands, pieces[one.code], target, one, judged)
            summaries.append((summary_of(one.code, judged, hands.descriptions[0]), judged.reason == Reason.HELD))
    osr = object_success_rate([holds for _, holds in summaries])
    return ValidationReport(config.validation.name, [one for one, _ in summaries], osr, [t.verdicts for t in targets])


def _hands(config: Config) -> HandModel:
    from bimangrasp.hand_files.loading import load_hands
    from bimangrasp.hands.model import HandModel  # torch, which the other modes' parent does without

    return HandModel(*load_hands(config.hand), config.hand.surface_points)


def _targets(config: Config) -> Iterator[Target]:
    """Yields the files: one, or all final files of a run."""
    run = Path(config.output_root) / config.exp_name
    path = Path(config.path) if config.path else run
    protocol = config.validation.name
    if path.is_file():
        yield Target(path, path.with_name(f"{path.stem}.{protocol}.h5"))
        return
    folder = RunFolder(path)
    finals = folder.final_files() if folder.finals.is_dir() else []
    if not finals:
        raise InputError(
            f"{path} is no grasp file and no run folder with final files; set path= to a file of ours (.h5), a result "
            f"file of BimanGrasp (.npy) or a run's folder, or exp_name= to a run"
        )
    for final in finals:
        yield Target(final, folder.judgment(protocol, final.stem))


def _write(config: Config, hands: HandModel, pieces: Pieces, target: Target, given: Given, judged: Evaluation) -> None:
    """Writes the verdict file."""
    about = given.about | {
        "object_code": given.code,
        "grasps_sha256": hashlib.sha256(target.grasps.read_bytes()).hexdigest(),
        "hand_name": config.hand.name,
        "hand_sha256": list(hands.sha256),
        "joint_names": list(hands.joint_names),
        "judging": verdict_attributes(hands.names),
        "protocol": asdict(config.validation),
        "pose_rule": asdict(config.poses),
        "pieces_source": pieces.source,
        "pieces_sha256": pieces.sha256,
        "platform": platform("cpu", "none"),
    }
    RunFolder(target.verdicts.parent).write(target.verdicts, verdict_image(about, verdict_columns(judged)))
