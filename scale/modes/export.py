"""Runs `mode=export`: writes the grasps of files in the formats of others."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from bimangrasp.files.dataset import GraspDataset, load
from bimangrasp.files.provenance import check_hands, made_with
from bimangrasp.files.reader import header_of
from bimangrasp.files.tables import write_csv, write_npz, write_parquet
from bimangrasp.hand_files.loading import load_hands
from bimangrasp.hands.model import HandModel
from bimangrasp.interop.bimangrasp_results import (
    RELEASED,
    RELEASED_TERMS,
    ReleasedResults,
    released_couplings,
    results_image,
    to_released,
)
from bimangrasp.interop.dexgraspbench import bench_files
from bimangrasp.poses import Poses
from bimangrasp.validation.pose_rules import ObjectGrasps, stages_of
from scale.modes.paths import ExportJob
from scale.screen import stage
from scale.settings.schema import Config
from scale.store.run_folder import RunFolder, file_name


class ExportReport(NamedTuple):
    """What was exported. `str(report)` is for people.

    Attributes:
        format: of the files.
        paths: the files, or folders of files.
        grasps: how many were written.
        left_out: failed grasps, which have no pose.
    """

    format: str
    paths: list[Path]
    grasps: int
    left_out: int

    def __str__(self) -> str:
        failed = f", {self.left_out} failed ones left out" if self.left_out else ""
        return "\n".join([f"format {self.format}: {self.grasps} grasps{failed}", *map(str, self.paths)])


def export(config: Config, jobs: list[ExportJob]) -> ExportReport:
    """Returns what was made of the grasp files of `paths.export_jobs`.

    Raises:
        InputError: grasps that the format cannot hold.
    """
    writers = {
        "npy": _npy,
        "npz": _npz,
        "csv": partial(_table, write_csv),
        "parquet": partial(_table, write_parquet),
        "dexgraspbench": partial(_bench, config),
    }
    counts = []
    with stage("writing", len(jobs), "files") as work:
        for job in jobs:
            with work.on(job.target.name):
                counts.append(writers[config.format](job))
    written, left_out = (sum(numbers) for numbers in zip(*counts, strict=True))
    return ExportReport(config.format, [job.target for job in jobs], written, left_out)


def _write(path: Path, fill: Callable[[BinaryIO], None]) -> None:
    """Writes a file, which takes its place when it is whole."""
    with RunFolder(path.parent).replacement(path, 0) as aside, os.fdopen(os.dup(aside.fd), "wb") as file:
        fill(file)


def _npz(job: ExportJob) -> tuple[int, int]:
    grasps, header = load(job.sources), header_of(job.sources[0])
    _write(job.target, lambda file: write_npz(file, grasps, header))
    return len(grasps), 0


def _table(write: Callable[[BinaryIO, GraspDataset], None], job: ExportJob) -> tuple[int, int]:
    grasps = load(job.sources)
    _write(job.target, lambda file: write(file, grasps))
    return len(grasps), 0


def _npy(job: ExportJob) -> tuple[int, int]:
    (source,) = job.sources
    good = _finite(source)
    names, starts = good.joint_names, poses_of(good.columns, "initial")
    results = ReleasedResults(
        to_released(poses_of(good.columns, "hand"), names, str(source)),
        to_released(starts, names, str(source)) if starts.finite.all() else None,
        RELEASED,
        good.columns["object_scale"].astype(float),
        {key: good.columns[f"energy/{term}"].astype(float) for key, term in RELEASED_TERMS.items()},
        couplings=released_couplings(good.couplings),
    )
    RunFolder(job.target.parent).write(job.target, results_image(results))
    return results.poses.count, good.left_out


def _bench(config: Config, job: ExportJob) -> tuple[int, int]:
    written = left_out = 0
    for source in job.sources:
        good = _finite(source)
        stages, sizes = _stages(config, source, good.columns), good.columns["object_scale"].astype(float)
        for file in bench_files(good.code, good.joint_names, stages, sizes, good.couplings):
            path = job.target / file.side / file_name(good.code) / f"{good.rows[file.number]}.npy"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(file.image)
        written, left_out = written + len(good.rows), left_out + good.left_out
    return written, left_out


def _stages(config: Config, source: Path, columns: dict[str, np.ndarray]) -> tuple[Poses, ...]:
    """Returns pre-grasp, grasp and squeeze: those of the file, else those that the settings' rule makes.

    There is no object here: a rule that chooses among openings gives the first, and contacts count as on the surface.
    """
    if all(f"pose/{part}" in columns for part in Poses._fields):
        return tuple(Poses(*(columns[f"pose/{part}"][:, stage] for part in Poses._fields)) for stage in range(3))
    hands = load_hands(config.hand)
    check_hands(made_with(source, header_of(source)), hands, config.hand.name)
    contacts = (columns[name] for name in ("contact/candidate", "contact/normal", "object_scale"))
    grasps = ObjectGrasps(poses_of(columns, "hand"), *contacts)
    stages = stages_of(HandModel(*hands, surface_points=1), grasps, config.poses, config.validation.hand)
    return stages.pre_grasps[0], stages.grasp, stages.squeeze


class _FiniteGrasps(NamedTuple):
    """The grasps of one file that did not fail.

    Attributes:
        code: the object.
        joint_names: of the hands.
        rows: which rows of the file they are.
        columns: of these rows.
        left_out: how many failed.
        couplings: of the joints, see `GraspDataset.couplings`.
    """

    code: str
    joint_names: tuple[str, ...]
    rows: np.ndarray
    columns: dict[str, np.ndarray]
    left_out: int
    couplings: dict[str, dict[str, Any]]


def _finite(source: Path) -> _FiniteGrasps:
    """Returns the grasps of a file that did not fail."""
    grasps = load(source)
    columns = grasps.arrays()
    good = poses_of(columns, "hand").finite & np.isfinite(columns["energy/total"])
    kept = {name: column[good] for name, column in columns.items()}
    left_out = int((~good).sum())
    return _FiniteGrasps(grasps.codes[0], grasps.joint_names, np.flatnonzero(good), kept, left_out, grasps.couplings)


def poses_of(columns: dict[str, np.ndarray], group: str) -> Poses:
    """Returns the poses of a group of columns."""
    return Poses(*(columns[f"{group}/{part}"] for part in Poses._fields))
