"""`mode=validate`: the grasps of files in a simulator, verdicts beside them, and a table."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import h5py
from rich.progress import Progress

from bimangrasp import released_results
from bimangrasp.errors import InputError
from bimangrasp.grasp_fields import FormatError
from bimangrasp.grasp_file import verdict_image
from bimangrasp.grasp_header import read_header
from bimangrasp.object_model import ObjectModel, read_mesh
from bimangrasp.poses import Poses
from bimangrasp.validation.judging import Judged, Subject, judge
from bimangrasp.validation.metrics import object_success_rate
from bimangrasp.validation.nearest_contacts import nearest_contacts
from bimangrasp.validation.pieces import Pieces
from bimangrasp.validation.summary import HEADINGS, Summary, cells, summary_of
from bimangrasp.validation.verdict import Reason
from bimangrasp.validation.verdict_file import reading, verdict_columns
from scale.config import Config
from scale.objects import resolve_objects
from scale.piece_store import pieces_of
from scale.platforms import platform
from scale.report import table
from scale.run_folder import RunFolder

if TYPE_CHECKING:
    from bimangrasp.hand_model import HandModel

RELEASED_SUFFIX = ".npy"


class Target(NamedTuple):
    """A file to validate and where its verdicts go."""

    grasps: Path
    verdicts: Path


class Given(NamedTuple):
    """The grasps of a file.

    Attributes:
        code: the object.
        subject: the grasps.
        about: what the verdict file says of them.
    """

    code: str
    subject: Subject
    about: dict[str, Any]


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
    given = {target: _read(target.grasps, hands, config) for target in targets}  # all doors before hours of work
    pieces = {one.code: pieces_of(_mesh(config, one.code), config.pieces) for one in given.values()}
    summaries = []
    with Progress(transient=True) as bar:
        for target, one in given.items():
            at = bar.add_task(one.code, total=one.subject.poses.count)
            judged = judge(
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
    from bimangrasp.hand_model import HandModel  # torch, which the other modes' parent does without
    from bimangrasp.hands import load_hands

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
        yield Target(final, folder.judgement(protocol, final.stem))


def _read(path: Path, hands: HandModel, config: Config) -> Given:
    """Returns the grasps of a file, whose hands and mesh are those of the settings."""
    if path.suffix == RELEASED_SUFFIX:
        return _read_released(path, hands, config)
    try:
        with h5py.File(path, "r") as file:
            header = read_header(file)
            if tuple(header.hand.joint_names) != tuple(hands.joint_names) or header.hand.name != config.hand.name:
                raise InputError(
                    f"{path} has grasps of the hand {header.hand.name!r}, this call has hand={config.hand.name}; name "
                    f"the hand of the file"
                )
            poses = Poses(*(file[f"hand/{part}"][...] for part in Poses._fields))
            names = ("contact/candidate", "contact/normal", "object_scale")
            subject = Subject(poses, *(file[name][...] for name in names))
    except (FormatError, OSError, KeyError) as error:
        raise InputError(f"{path} is not a readable grasp file: {error}") from error
    mesh = read_mesh(str(_mesh(config, header.object_code)))
    if mesh.sha256 != header.mesh_sha256:
        raise InputError(
            f"{path} was made with another mesh of {header.object_code!r} (sha256 {header.mesh_sha256[:16]}...) than "
            f"object_root has ({mesh.sha256[:16]}...); set object_root to the folder it was made with"
        )
    return Given(header.object_code, subject, {"mesh_sha256": mesh.sha256})


def _read_released(path: Path, hands: HandModel, config: Config) -> Given:
    """Returns the grasps of a result file of BimanGrasp; its name is the object's code.

    The file does not tell which contacts were chosen: those nearest to the object are taken.
    """
    results = released_results.read_results(str(path))
    if set(results.joint_names) != set(hands.joint_names):
        raise InputError(
            f"{path} has the joints {', '.join(results.joint_names)}; those of hand={config.hand.name} are "
            f"{', '.join(hands.joint_names)}: such a file wants hand=release hand.root=<its mjcf folder>"
        )
    order = [results.joint_names.index(name) for name in hands.joint_names]
    poses = results.poses._replace(joints=results.poses.joints[:, :, order])
    mesh = _mesh(config, path.stem)
    obj = ObjectModel(read_mesh(str(mesh)), config.object)
    candidate, normal = nearest_contacts(hands, obj, poses, results.scale, config.contacts_per_hand)
    return Given(path.stem, Subject(poses, candidate, normal, results.scale), {"mesh_sha256": obj.sha256})


def _mesh(config: Config, code: str) -> Path:
    return resolve_objects(config.object_root, [code])[0].path


def _write(config: Config, hands: HandModel, pieces: Pieces, target: Target, given: Given, judged: Judged) -> None:
    """Writes the verdict file."""
    about = given.about | {
        "object_code": given.code,
        "grasps_sha256": hashlib.sha256(target.grasps.read_bytes()).hexdigest(),
        "hand_name": config.hand.name,
        "hand_sha256": list(hands.sha256),
        "joint_names": list(hands.joint_names),
        "judging": reading(hands.names),
        "protocol": asdict(config.validation),
        "pose_rule": asdict(config.poses),
        "pieces_source": pieces.source,
        "pieces_sha256": pieces.sha256,
        "platform": platform("cpu", "none"),
    }
    RunFolder(target.verdicts.parent).write(target.verdicts, verdict_image(about, verdict_columns(judged)))
