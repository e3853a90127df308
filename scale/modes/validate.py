"""Runs `mode=validate`: tests the grasps of files in a simulator, writes verdicts beside them, returns a table."""

from __future__ import annotations

import hashlib
import os
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from rich.console import Console

from bimangrasp.errors import InputError
from bimangrasp.files.formats import verdict_image
from bimangrasp.files.header import read_header
from bimangrasp.files.provenance import check_hand_table, made_with, mesh_made_with, mesh_named
from bimangrasp.files.reader import opened
from bimangrasp.files.schema import GRASP_FIELDS, sizes_of
from bimangrasp.interop import bimangrasp_results
from bimangrasp.interop.bimangrasp_results import nearest_contacts
from bimangrasp.objects.files import mesh_of
from bimangrasp.objects.model import ObjectModel
from bimangrasp.objects.pieces import Pieces
from bimangrasp.poses import Poses
from bimangrasp.validation import evaluate
from bimangrasp.validation.config import check_installed
from bimangrasp.validation.pose_rules import ObjectGrasps
from bimangrasp.validation.scene import ROTATION_TOLERANCE
from bimangrasp.validation.summary import HEADINGS, Summary, cells, object_success_rate, summary_of
from bimangrasp.validation.verdict import Reason
from scale.engine.devices import resolve_devices, visible_gpus
from scale.engine.synthesizer import Synthesizer, simulating_on, simulator_platform
from scale.formatting import table
from scale.modes.paths import ValidationTarget
from scale.screen import stage
from scale.settings.schema import Config
from scale.store.convex_pieces import pieces_of
from scale.store.run_folder import RunFolder

if TYPE_CHECKING:
    from bimangrasp.hands.model import HandModel


RELEASED_SUFFIX = ".npy"


class Given(NamedTuple):
    """The grasps of a file.

    Attributes:
        code: the object.
        subject: the grasps.
        about: what the verdict file says of them.
    """

    code: str
    subject: ObjectGrasps
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
    check_installed(config.validation)
    hands = _hands(config)
    given = {target: read_grasps(target.grasps, hands, config) for target in targets}  # all doors before hours of work
    codes = [grasps.code for grasps in given.values()]
    pieces = {}
    with stage("convex pieces", len(codes), "objects") as decomposing:
        for code in codes:
            with decomposing.on(code):
                pieces[code] = pieces_of(mesh_of(config.object_root, code), config.pieces)
    device = _device(config)  # last, for it judges recorded grasps
    together = simulating_on(device) if config.validation.simulator.is_on_device else None
    summaries, holds = [], []
    for target, grasps in given.items():
        with stage(f"testing {grasps.code}", grasps.subject.poses.count, "grasps") as tests:
            judged = evaluate.evaluate_grasps(
                hands,
                [piece.vertices for piece in pieces[grasps.code].pieces],
                grasps.subject,
                config.validation,
                config.poses,
                evaluate.Simulations(
                    config.validators or len(os.sched_getaffinity(0)),
                    on_grasp=lambda row, tests=tests: tests.advance(),  # noqa: ARG005 - the protocol's
                    together=together,
                ),
            )
            _write(config, hands, pieces[grasps.code], target, grasps, judged, device)
            summaries.append(summary_of(grasps.code, judged, hands.descriptions[0]))
            holds.append(judged.reason == Reason.HELD)
    verdicts = [target.verdicts for target in targets]
    return ValidationReport(config.validation.name, summaries, object_success_rate(holds), verdicts)


def _hands(config: Config) -> HandModel:
    from bimangrasp.hand_files.loading import load_hands
    from bimangrasp.hands.model import HandModel  # torch, which the other modes' parent does without

    return HandModel(*load_hands(config.hand), config.hand.surface_points)


def _device(config: Config) -> str:
    """Returns where this process simulates: the CPU, or under a protocol of a device the first of `gpus`, once checked.

    Raises:
        InputError: a device that this process cannot number.
    """
    if not config.validation.simulator.is_on_device:
        return "cpu"
    first, visible = resolve_devices(config.gpus)[0], visible_gpus()
    if first.visible and first.visible not in visible:
        raise InputError(f"gpus={config.gpus}: mode=validate wants the number of a device, 0 to {len(visible) - 1}")
    device = f"cuda:{visible.index(first.visible)}" if first.visible else "cpu"
    from bimangrasp.validation.on_device.self_check import check_device  # MuJoCo Warp is an extra

    Console(stderr=True).print(f"{device} judges {config.validation.simulator.self_check} recorded grasps first")
    check_device(device, config.validation.simulator)
    return device


def _write(
    config: Config,
    hands: HandModel,
    pieces: Pieces,
    target: ValidationTarget,
    given: Given,
    judged: evaluate.Evaluation,
    device: str,
) -> None:
    """Writes the verdict file."""
    about = given.about | {
        "object_code": given.code,
        "grasps_sha256": hashlib.sha256(target.grasps.read_bytes()).hexdigest(),
        "hand_name": config.hand.name,
        "hand_sha256": list(hands.sha256),
        "joint_names": list(hands.joint_names),
        "judging": evaluate.verdict_attributes(hands.names),
        "protocol": asdict(config.validation),
        "pose_rule": asdict(config.poses),
        "pieces_source": pieces.source,
        "pieces_sha256": pieces.sha256,
        "platform": simulator_platform(config.validation, device),
    }
    RunFolder(target.verdicts.parent).write(target.verdicts, verdict_image(about, evaluate.verdict_columns(judged)))


# ---- reading grasps: everything is checked before hours of work


def read_grasps(path: Path, hands: HandModel, config: Config) -> Given:
    """Returns the grasps of a file of ours, or of a result file of BimanGrasp (.npy).

    Raises:
        InputError: a damaged file, other hands, an object without mesh or with another one.
    """
    given = _released(path, hands, config) if path.suffix == RELEASED_SUFFIX else _ours(path, config)
    _check_values(path, given.subject, hands.candidate_count)
    return given


def _ours(path: Path, config: Config) -> Given:
    """Returns the grasps of a shard or a final file."""
    with opened(path) as file:
        header = read_header(file)
        sizes_of({field.name: file[field.name] for field in GRASP_FIELDS}, GRASP_FIELDS)
        poses = Poses(*(file[f"hand/{part}"][...] for part in Poses._fields))
        names = ("contact/candidate", "contact/normal", "object_scale")
        subject = ObjectGrasps(poses, *(file[name][...] for name in names))
    check_hand_table(path, header.hand, Synthesizer(config.hand, config.synthesis).hand_table())
    mesh = mesh_made_with(made_with(path, header), config.object_root)
    return Given(header.object_code, subject, {"mesh_sha256": mesh.sha256})


def _released(path: Path, hands: HandModel, config: Config) -> Given:
    """Returns the grasps of a result file of BimanGrasp; its name is the object's code.

    The file does not tell which contacts were chosen: those nearest to the object are taken.
    """
    results = bimangrasp_results.read_results(str(path))
    if not results.poses.count:
        raise bimangrasp_results.no_grasps(path)
    if set(results.joint_names) != set(hands.joint_names):
        raise InputError(
            f"{path} has other joints than hand={config.hand.name}: it "
            f"{bimangrasp_results.unlike(results.joint_names, hands.joint_names)}; such a file wants hand=release "
            "hand.root=<its mjcf folder>, or mode=import first"
        )
    order = [results.joint_names.index(name) for name in hands.joint_names]
    poses = results.poses._replace(joints=results.poses.joints[:, :, order])
    poses = poses._replace(joints=hands.onto_couplings(torch.as_tensor(poses.joints), str(path)).numpy())
    obj = ObjectModel(mesh_named(path, path.stem, config.object_root), config.object)
    candidate, normal = nearest_contacts(hands, obj, poses, results.scale, config.contacts_per_hand)
    return Given(path.stem, ObjectGrasps(poses, candidate, normal, results.scale), {"mesh_sha256": obj.sha256})


def _check_values(path: Path, subject: ObjectGrasps, candidates: int) -> None:
    """Refuses grasps that no optimizer writes; what is not finite is left for the verdict."""
    rotation = np.where(subject.poses.finite[:, None, None, None], subject.poses.rotation, np.eye(3))
    skew = np.abs(rotation @ rotation.swapaxes(-1, -2) - np.eye(3)).max(axis=(1, 2, 3), initial=0)
    mirrored = (np.linalg.det(rotation) < 0).any(axis=1)
    chosen, size = subject.candidate, subject.object_scale
    faults = {
        "hand/rotation is no proper rotation": (skew > ROTATION_TOLERANCE) | mirrored,
        f"contact/candidate is not among 0 to {candidates - 1}": ((chosen < 0) | (chosen >= candidates)).any(
            axis=(1, 2)
        ),
        "object_scale is not a size above 0": ~((size > 0) & np.isfinite(size)),
    }
    for fault, rows in faults.items():
        if rows.any():
            raise InputError(
                f"{path}: {fault} in {rows.sum()} of {len(rows)} grasps, first in grasp {int(rows.argmax())}; the "
                "file is damaged or of another origin: make it again, or leave these grasps out"
            )
