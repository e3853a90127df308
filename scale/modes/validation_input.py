"""Reads the grasps of a file for a validation, and checks hands, mesh and numbers before hours of work."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import h5py
import numpy as np

from bimangrasp.errors import InputError
from bimangrasp.files.header import read_header
from bimangrasp.files.provenance import check_hand_table, made_with, mesh_made_with, mesh_named
from bimangrasp.files.schema import GRASP_FIELDS, FormatError, sizes_of
from bimangrasp.interop import bimangrasp_results
from bimangrasp.interop.nearest_contacts import nearest_contacts
from bimangrasp.objects.model import ObjectModel
from bimangrasp.poses import Poses
from bimangrasp.validation.evaluate import ObjectGrasps
from bimangrasp.validation.scene import ROTATION_TOLERANCE
from scale.engine.synthesizer import Synthesizer
from scale.settings.schema import Config

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
    try:
        with h5py.File(path, "r") as file:
            header = read_header(file)
            sizes_of({field.name: file[field.name] for field in GRASP_FIELDS}, GRASP_FIELDS)
            poses = Poses(*(file[f"hand/{part}"][...] for part in Poses._fields))
            names = ("contact/candidate", "contact/normal", "object_scale")
            subject = ObjectGrasps(poses, *(file[name][...] for name in names))
    except InputError:
        raise
    except (FormatError, OSError, LookupError, RuntimeError, ValueError, TypeError, AttributeError) as error:
        raise InputError(f"{path} is not a readable grasp file: {error}; wanted one that is whole") from error
    check_hand_table(path, header.hand, Synthesizer(config.hand, config.synthesis).hand_table())
    mesh = mesh_made_with(made_with(path, header), config.object_root)
    return Given(header.object_code, subject, {"mesh_sha256": mesh.sha256})


def _released(path: Path, hands: HandModel, config: Config) -> Given:
    """Returns the grasps of a result file of BimanGrasp; its name is the object's code.

    The file does not tell which contacts were chosen: those nearest to the object are taken.
    """
    results = bimangrasp_results.read_results(str(path))
    if not results.poses.count:
        raise InputError(f"{path} has no grasps; wanted a list with a dict for each")
    if set(results.joint_names) != set(hands.joint_names):
        raise InputError(
            f"{path} has the joints {', '.join(results.joint_names)}; those of hand={config.hand.name} are "
            f"{', '.join(hands.joint_names)}: such a file wants hand=release hand.root=<its mjcf folder>"
        )
    order = [results.joint_names.index(name) for name in hands.joint_names]
    poses = results.poses._replace(joints=results.poses.joints[:, :, order])
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
