"""Runs `mode=validate`: tests the grasps of files in a simulator, writes verdicts beside them, returns a table."""

from __future__ import annotations

import hashlib
import os
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from rich.console import Console
from rich.progress import Progress

from bimangrasp.files.shard_format import verdict_image
from bimangrasp.objects.convex_pieces import Pieces
from bimangrasp.objects.files import mesh_of
from bimangrasp.validation.evaluate import Evaluation, evaluate_grasps, verdict_attributes, verdict_columns
from bimangrasp.validation.summary import HEADINGS, Summary, cells, object_success_rate, summary_of
from bimangrasp.validation.verdict import Reason
from scale.engine.devices import platform
from scale.formatting import table
from scale.modes.paths import ValidationTarget
from scale.modes.validation_input import Given, read_grasps
from scale.settings.schema import Config
from scale.store.convex_pieces import pieces_of
from scale.store.run_folder import RunFolder

if TYPE_CHECKING:
    from bimangrasp.hands.model import HandModel


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
        tried = sum(summary.tried for summary in self.objects)
        held = sum(summary.held for summary in self.objects)
        gsr = f"{held / tried:.1%}" if tried else "-"
        lines = table(HEADINGS, [cells(summary) for summary in self.objects])
        lines.append(f"protocol {self.protocol}: GSR {gsr} ({held} of {tried} grasps), OSR {self.osr:.0%}")
        return "\n".join([*lines, *(f"verdicts: {path}" for path in self.paths)])


def validate(config: Config, targets: list[ValidationTarget]) -> ValidationReport:
    """Returns what the protocol of the settings says of the grasp files of `paths.validation_targets`.

    Raises:
        InputError: a damaged file, other hands, another mesh, or one that has no pieces.
    """
    hands = _hands(config)
    given = {target: read_grasps(target.grasps, hands, config) for target in targets}  # all doors before hours of work
    codes = [grasps.code for grasps in given.values()]
    pieces = {code: pieces_of(mesh_of(config.object_root, code), config.pieces) for code in codes}
    summaries, holds = [], []
    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
        for target, grasps in given.items():
            at = bar.add_task(grasps.code, total=grasps.subject.poses.count)
            judged = evaluate_grasps(
                hands,
                [piece.vertices for piece in pieces[grasps.code].pieces],
                grasps.subject,
                config.validation,
                config.poses,
                config.validators or len(os.sched_getaffinity(0)),
                lambda row, at=at: bar.advance(at),  # noqa: ARG005 - the protocol's
            )
            _write(config, hands, pieces[grasps.code], target, grasps, judged)
            summaries.append(summary_of(grasps.code, judged, hands.descriptions[0]))
            holds.append(judged.reason == Reason.HELD)
    verdicts = [target.verdicts for target in targets]
    return ValidationReport(config.validation.name, summaries, object_success_rate(holds), verdicts)


def _hands(config: Config) -> HandModel:
    from bimangrasp.hand_files.loading import load_hands
    from bimangrasp.hands.model import HandModel  # torch, which the other modes' parent does without

    return HandModel(*load_hands(config.hand), config.hand.surface_points)


def _write(
    config: Config, hands: HandModel, pieces: Pieces, target: ValidationTarget, given: Given, judged: Evaluation
) -> None:
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
