"""Measures on the grasps that a run kept why its objects fall short: those of the files that have a verdict on each."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import h5py
import numpy as np

from bimangrasp.errors import InputError
from bimangrasp.objects.files import mesh_of
from scale.report.summary import ObjectLine
from scale.settings.parsing import ObjectEntry
from scale.settings.schema import Config, as_config
from scale.store.run_folder import RunFolder

if TYPE_CHECKING:
    from bimangrasp.diagnosis.causes import Diagnosis
    from bimangrasp.validation.evaluate import Evaluation
    from bimangrasp.validation.pose_rules import ObjectGrasps

OBJECTS = 4  # that are measured; the others have their causes by reason
GRASPS = 128  # of a file, evenly chosen

Columns = dict[str, np.ndarray]


def diagnoses_of(folders: Iterable[RunFolder], objects: Sequence[ObjectLine]) -> dict[str, Diagnosis]:
    """Returns object code -> why it is not held, for some that fall short, of which the run kept rejected grasps.

    Args:
        folders: the run's, or those of its parts.
        objects: all of the run; the first that fall short are measured.
    """
    short = [line.code for line in objects if line.is_short]
    files = [(folder, code, _rejected(folder, code)) for folder in folders for code in short]
    diagnoses = {}
    for folder, code, rejected in [each for each in files if each[2].exists()][:OBJECTS]:
        try:
            diagnoses[code] = _diagnosis(folder, code, rejected)
        except (InputError, OSError, KeyError, ValueError):  # other hands, a mesh that is gone, no verdicts: no figures
            continue
    return diagnoses


def _rejected(folder: RunFolder, code: str) -> Path:
    """Returns the file of an object's rejected grasps, the later one of those that are there."""
    paths = folder.failed(code), folder.rejected(code)
    return max(paths, key=lambda path: path.stat().st_mtime if path.exists() else 0.0)


def _diagnosis(folder: RunFolder, code: str, rejected: Path) -> Diagnosis:
    """Returns why grasps of one object do not hold. Raises what `diagnoses_of` knows where that cannot be measured."""
    from bimangrasp.diagnosis.diagnose import diagnose  # PyTorch, which other pages do without
    from bimangrasp.hand_files.loading import load_hands
    from bimangrasp.hands.description import pair_sha256
    from bimangrasp.hands.model import HandModel
    from bimangrasp.objects.pieces import read_pieces
    from scale.engine.synthesizer import UNUSED_POINTS
    from scale.store.convex_pieces import present_pieces

    config = _settings(folder.config)
    pair = load_hands(config.hand)
    paths = [path for path in (rejected, folder.final(code)) if path.exists()]
    parts = [_columns(path, pair_sha256(*pair)) for path in paths]
    columns = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    entry = ObjectEntry(code, mesh_of(config.object_root, code))
    sealed = present_pieces(folder, [entry], config.pieces)
    pieces = [piece.vertices for piece in read_pieces(str(sealed[code].path)).pieces]
    hands = HandModel(*pair, UNUSED_POINTS)
    return diagnose(code, hands, pieces, _grasps(columns), _evaluation(columns), config.validation, config.poses)


def _settings(path: Path) -> Config:
    """Returns the settings of a run.

    Raises:
        ValueError: they are of another version, or cut short.
    """
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException
    from yaml import YAMLError

    try:
        return as_config(OmegaConf.load(path))
    except (OmegaConfBaseException, YAMLError) as error:
        raise ValueError(f"{path}: {error}") from error


def _columns(path: Path, hand_sha256: str) -> Columns:
    """Returns columns of some grasps of a file. Raises ValueError for other hands, KeyError without verdicts."""
    from bimangrasp.files.header import read_header
    from bimangrasp.files.schema import VERDICT_FIELDS

    poses = [f"hand/{part}" for part in ("translation", "rotation", "joints")]
    names = [*poses, "contact/candidate", "contact/normal", "object_scale", *(field.name for field in VERDICT_FIELDS)]
    with h5py.File(path, "r") as file:
        if read_header(file).hand.sha256 != hand_sha256:
            raise ValueError(f"{path} is of other hands than its settings")
        rows = len(file["object_scale"])
        chosen = np.unique(np.linspace(0, rows - 1, min(rows, GRASPS)).round().astype(int))
        return {name: file[name][:][chosen] for name in names}


def _grasps(columns: Columns) -> ObjectGrasps:
    """Returns the grasps that columns have."""
    from bimangrasp.poses import Poses
    from bimangrasp.validation.pose_rules import ObjectGrasps

    poses = Poses(*(columns[f"hand/{part}"] for part in Poses._fields))
    return ObjectGrasps(poses, *(columns[name] for name in ("contact/candidate", "contact/normal", "object_scale")))


def _evaluation(columns: Columns) -> Evaluation:
    """Returns the verdicts that columns have."""
    from bimangrasp.poses import Poses
    from bimangrasp.validation.evaluate import Evaluation

    stages = tuple(Poses(*(columns[f"pose/{part}"][:, stage] for part in Poses._fields)) for stage in range(3))
    verdict = {name: columns[f"verdict/{name}"] for name in Evaluation._fields[2:]}
    verdict |= {name: verdict[name].astype(bool) for name in ("held", "bears_load")}
    return Evaluation(stages=stages, opening=columns["pose/opening"], **verdict)
