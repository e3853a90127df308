"""Chooses the rows of a grasp file that `mode=view` shows, each accepted or why not, with the verdicts on them."""

from __future__ import annotations

import hashlib
from pathlib import Path

import h5py
import numpy as np

from bimangrasp.errors import InputError
from bimangrasp.files.dataset import GraspDataset, load
from bimangrasp.files.header import text
from bimangrasp.files.provenance import made_with
from bimangrasp.files.schema import FormatError
from bimangrasp.files.shard_format import read_verdict
from scale.settings.filters import acceptance
from scale.settings.schema import Config, ViewConfig
from scale.store.run_folder import RunFolder
from scale.viewer.cards import ACCEPTED, Columns, FileGrasps, labels_of


def of_file(path: Path, root: Path, config: Config, view: ViewConfig, notes: list[str]) -> FileGrasps | None:
    """Returns the grasps of a file that are shown, None where it has none.

    Args:
        path: a final file, a file of rejected grasps, or one with all grasps of a round.
        root: folder that the page's names of files begin below.
        config: the filter, and under which protocol verdicts are looked for.
        view: which rows to choose.
        notes: gains what a reader of the page must know.

    Raises:
        InputError: the file cannot be read, or has no such rows.
    """
    grasps = load(path)
    chosen = _chosen(path, grasps, view)
    if not len(grasps):
        return None
    columns = grasps[chosen].arrays()
    columns |= _verdicts_on(path, chosen, config.validation.name, notes)
    source = path.relative_to(root).as_posix() if path.is_relative_to(root) else path.name
    return FileGrasps(made_with(path, grasps.header(0)), source, chosen, columns, _labels(path, columns, config))


def _labels(path: Path, columns: Columns, config: Config) -> list[tuple[str, ...]]:
    """Returns what became of each row: by what its file is, else by the filter of the settings."""
    with h5py.File(path, "r") as file:
        if "quota" in file.attrs:
            return [(ACCEPTED,)] * len(columns["row"])
        if "reject_reasons" in file.attrs:
            reasons = [text(reason) for reason in file.attrs["reject_reasons"]]
            return [(reasons[reason],) for reason in columns["reject/reason"]]
    return labels_of(columns, acceptance(config.filter))


def _chosen(path: Path, grasps: GraspDataset, view: ViewConfig) -> np.ndarray:
    """Returns the rows of a file that are shown, in the order in which they are."""
    rows = len(grasps)
    if view.rows is not None:
        outside = [row for row in view.rows if not 0 <= row < rows]
        if outside:
            raise InputError(f"view.rows has {outside[0]}; {path} has rows 0 to {rows - 1}: choose among these")
        return np.array(view.rows, np.int64)
    order = np.argsort(grasps["energy/total"], kind="stable")  # NaN last
    count = min(view.count, rows)
    if view.choose == "best":
        return order[:count]
    if view.choose == "first":
        return np.arange(count)
    return order[np.linspace(0, rows - 1, count).round().astype(int)] if rows else order


def _verdicts_on(path: Path, rows: np.ndarray, protocol: str, notes: list[str]) -> Columns:
    """Returns what `mode=validate` found of these rows of a file; nothing where it was not asked, or of other bytes."""
    run = RunFolder(path.parent.parent)
    places = [path.with_name(f"{path.stem}.{protocol}.h5")]
    if path.parent == run.finals:
        places.insert(0, run.judgment(protocol, path.stem))
    for place in filter(Path.is_file, places):
        try:
            attributes, columns = read_verdict(place.read_bytes())
        except FormatError as error:
            notes.append(f"{place} cannot be read and is left out: {error}")
            continue
        if text(attributes["grasps_sha256"]) != hashlib.sha256(path.read_bytes()).hexdigest():
            notes.append(f"{place} is about another state of {path.name} and is left out: run mode=validate again")
            continue
        return {name: column[rows] for name, column in columns.items()}
    return {}
