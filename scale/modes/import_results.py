"""Runs `mode=import`: turns a result file of BimanGrasp into a grasp file."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from bimangrasp.energy.energies import energies
from bimangrasp.energy_terms import ENERGY_TERMS, TERMS
from bimangrasp.files import formats
from bimangrasp.files.header import Header
from bimangrasp.files.provenance import mesh_named
from bimangrasp.files.schema import CURVE_FIELDS, shape_of
from bimangrasp.geometry.rotation import matrix_to_rot6d
from bimangrasp.grasp import Grasps
from bimangrasp.hand_files.loading import load_hands
from bimangrasp.hands.model import HandModel
from bimangrasp.interop.bimangrasp_results import (
    RELEASED_TERMS,
    ReleasedResults,
    from_released,
    nearest_contacts,
    no_grasps,
    read_results,
)
from bimangrasp.objects.model import ObjectModel
from bimangrasp.poses import Poses
from scale.engine.devices import platform
from scale.engine.synthesizer import Synthesizer
from scale.modes.paths import ImportJob
from scale.screen import stage
from scale.settings.fingerprints import object_key
from scale.settings.schema import Config
from scale.store.run_folder import RunFolder
from scale.store.shards import round_columns

RELEASED_NAMES = {ours: theirs for theirs, ours in RELEASED_TERMS.items()}
AT_ONCE = 64
"""Grasps whose contacts and energies are computed at a time, which bounds memory."""


class ImportReport(NamedTuple):
    """What was imported. `str(report)` is for people.

    Attributes:
        path: the grasp file.
        code: the object.
        grasps, failed: how many it has, and how many of them have numbers that are not finite.
        computed: energies that the result file lacks.
        unread: keys of the result file that are no numbers and were left out.
    """

    path: Path
    code: str
    grasps: int
    failed: int
    computed: tuple[str, ...]
    unread: tuple[str, ...]

    def __str__(self) -> str:
        lines = [f"{self.path}: {self.grasps} grasps of {self.code}, {self.failed} of them failed"]
        lines.append(f"computed, as the file does not have them: contacts, {', '.join(self.computed)}")
        return "\n".join(lines + ([f"left out: {', '.join(self.unread)}"] if self.unread else []))


class _Imported(NamedTuple):
    """The grasps of a result file with what they are of, in the hands' own joints."""

    hands: HandModel
    obj: ObjectModel
    poses: Poses
    starts: Poses
    scale: np.ndarray


def import_results(config: Config, job: ImportJob) -> ImportReport:
    """Returns what was made of a result file: a grasp file of one round, like those of `mode=generate`.

    The file's name is the object's code. What the file lacks is computed: contacts (the candidates nearest to the
    object) and missing energies; starting poses that it lacks are NaN.

    Raises:
        InputError: other hands, or no mesh of that name.
    """
    source, target = job
    results = read_results(str(source))
    if not results.poses.count:
        raise no_grasps(source)
    given = _imported(config, source, results)
    columns, computed = _columns(config, given, results)
    table = Synthesizer(config.hand, config.synthesis).hand_table()
    origin = {
        "imported_sha256": hashlib.sha256(source.read_bytes()).hexdigest(),
        "computed_energies": list(computed),
        "contacts_per_hand": config.contacts_per_hand,
    }
    key = object_key(given.obj.sha256)
    header = Header(
        source.stem, 0, given.obj.sha256, table, config.energy.weights, origin, key, (platform("cpu", "plain"),)
    )
    RunFolder(target.parent).write(target, formats.shard_image(header, columns))
    failed = int((~(given.poses.finite & np.isfinite(given.scale))).sum())
    return ImportReport(target, source.stem, given.poses.count, failed, computed, results.unread)


def _imported(config: Config, source: Path, results: ReleasedResults) -> _Imported:
    """Returns the grasps in float32, the precision of grasp files, with their hands and their object."""
    hands = HandModel(*load_hands(config.hand), config.hand.surface_points)
    obj = ObjectModel(mesh_named(source, source.stem, config.object_root), config.object)

    def ours(poses: Poses) -> Poses:
        taken = from_released(poses, results.joint_names, hands.joint_names, f"result file {source}")
        joints = hands.onto_couplings(torch.as_tensor(taken.joints), f"result file {source}")
        taken = taken._replace(joints=joints.numpy())
        return Poses(*(part.astype(np.float32) for part in taken))

    poses = ours(results.poses)
    starts = Poses(*(np.full_like(part, np.nan) for part in poses)) if results.starts is None else ours(results.starts)
    return _Imported(hands, obj, poses, starts, results.scale.astype(np.float32))


def _columns(
    config: Config, given: _Imported, results: ReleasedResults
) -> tuple[dict[str, np.ndarray], tuple[str, ...]]:
    """Returns the columns of the grasp file, and which energies were computed."""
    count, contacts = given.poses.count, config.contacts_per_hand
    sizes = {"N": count, "J": given.hands.joint_count, "C": contacts, "R": 1, "P": 0}
    columns: dict[str, Any] = {f.name: np.zeros(shape_of(f, sizes)[1:], f.dtype) for f in CURVE_FIELDS}
    for group, poses in (("hand", given.poses), ("initial", given.starts)):
        columns |= {f"{group}/{part}": values for part, values in poses._asdict().items()}
    columns["contact/candidate"] = np.zeros((count, 2, contacts), np.int32)
    columns |= {f"contact/{name}": np.full((count, 2, contacts, 3), np.nan, np.float32) for name in ("point", "normal")}
    columns |= {f"energy/{term}": np.full(count, np.nan, np.float32) for term in TERMS}
    good = np.flatnonzero(given.poses.finite & np.isfinite(given.scale))
    with stage("contacts and energies", len(good), "grasps") as work:
        for first in range(0, len(good), AT_ONCE):
            rows = good[first : first + AT_ONCE]
            for name, values in _computed(config, given, rows).items():
                columns[name][rows] = values
            work.advance(len(rows))
    in_file = {term: key for term, key in RELEASED_NAMES.items() if key in results.energies}
    columns |= {f"energy/{term}": results.energies[key].astype(np.float32) for term, key in in_file.items()}
    columns["object_scale"] = given.scale
    without_weight = {term.name for term in ENERGY_TERMS if not config.energy.computes(term)}
    computed = tuple(term for term in TERMS if term not in in_file and term not in without_weight)
    return round_columns(columns, seed=0, round_id=0, tile_used=0), computed


@torch.no_grad()
def _computed(config: Config, given: _Imported, rows: np.ndarray) -> dict[str, np.ndarray]:
    """Returns contacts and energies of some grasps, by column."""
    poses, scale = given.poses.select(rows), given.scale[rows]
    candidate, normal = nearest_contacts(given.hands, given.obj, poses, scale, config.contacts_per_hand)
    translation, rotation, joints = (torch.as_tensor(part) for part in poses)
    chosen = torch.as_tensor(candidate)
    grasps = Grasps(translation, matrix_to_rot6d(rotation), joints, chosen)
    terms = energies(given.hands, given.obj, torch.as_tensor(scale), grasps, config.energy)
    point = given.hands.contact_points(given.hands.frames_from_root(rotation, translation, joints), chosen)
    contacts = {"contact/candidate": candidate, "contact/point": point.numpy(), "contact/normal": normal}
    return contacts | {f"energy/{term}": getattr(terms, term).numpy() for term in TERMS}
