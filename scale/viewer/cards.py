"""Describes grasps for the page of mode=view: chosen rows of files, their labels, verdicts, poses and numbers."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import h5py
import numpy as np

from bimangrasp.energy_terms import TERMS
from bimangrasp.errors import InputError
from bimangrasp.files.dataset import GraspDataset, load
from bimangrasp.files.formats import read_verdict
from bimangrasp.files.header import text
from bimangrasp.files.provenance import MadeWith, made_with
from bimangrasp.files.schema import VERDICT_FIELDS, FormatError, fields_of
from bimangrasp.poses import Poses
from bimangrasp.validation.verdict import Reason
from bimangrasp.visualization.page import NOT_TESTED, STAGES, ShownGrasp
from scale.settings.filters import Accept
from scale.settings.schema import Config, ViewConfig
from scale.store.run_folder import RunFolder

ACCEPTED, UNTESTED = "accepted", "not tested yet"
HOLDS = "holds"

Columns = dict[str, np.ndarray]


class FileGrasps(NamedTuple):
    """Grasps of one object, chosen from one file.

    Attributes:
        made_with: what the file says of their hands and their object.
        source: the file, as the page names it.
        rows: which of its rows.
        columns: of these rows, with `pose/...` and `verdict/...` where a simulator has seen them.
        labels: of each, see `ShownGrasp`.
    """

    made_with: MadeWith
    source: str
    rows: np.ndarray
    columns: Columns
    labels: list[tuple[str, ...]]

    def shown(self, shape: int) -> Iterator[ShownGrasp]:
        """Yields the grasps for a gallery; `shape` is the object's place in it."""
        for i in range(len(self.rows)):
            yield _shown_grasp(shape, self, i)


def of_file(path: Path, root: Path, config: Config, view: ViewConfig, notes: list[str]) -> list[FileGrasps]:
    """Returns the grasps of a file that are shown, if it has any.

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
        return []
    columns = grasps[chosen].arrays()
    columns |= _verdicts_on(path, chosen, config.validation.name, notes)
    source = path.relative_to(root).as_posix() if path.is_relative_to(root) else path.name
    return [FileGrasps(made_with(path, grasps.header(0)), source, chosen, columns, _labels(path, columns, config))]


def _labels(path: Path, columns: Columns, config: Config) -> list[tuple[str, ...]]:
    """Returns what became of each row: by what its file is, else by the filter of the settings."""
    with h5py.File(path, "r") as file:
        if "quota" in file.attrs:
            return [(ACCEPTED,)] * len(columns["row"])
        if "reject_reasons" in file.attrs:
            reasons = [text(reason) for reason in file.attrs["reject_reasons"]]
            return [(reasons[reason],) for reason in columns["reject/reason"]]
    return labels_of(columns, Accept(config.filter))


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


def labels_of(columns: Columns, accept: Accept) -> list[tuple[str, ...]]:
    """Returns for each row "accepted", or every reason for which it does not count, as final files name them."""
    rows = len(columns["object_scale"])
    if accept.needs_verdict and "verdict/reason" not in columns:
        return [(UNTESTED,)] * rows
    reasons = accept.failures(columns)
    return [tuple(why for why, failed in reasons.items() if failed[row]) or (ACCEPTED,) for row in range(rows)]


def _shown_grasp(shape: int, grasps: FileGrasps, i: int) -> ShownGrasp:
    """Returns one row for a gallery."""
    columns = grasps.columns
    energies = {term: float(columns[f"energy/{term}"][i]) for term in TERMS if f"energy/{term}" in columns}
    is_judged = "verdict/reason" in columns
    return ShownGrasp(
        shape=shape,
        source=grasps.source,
        number=int(grasps.rows[i]),
        origin={name: int(columns[name][i]) for name in ("seed", "round", "row")},
        scale=float(columns["object_scale"][i]),
        energies=energies,
        labels=grasps.labels[i],
        verdict=_verdict(columns, i) if is_judged else NOT_TESTED,
        physics=_physics(columns, i) if is_judged else {},
        stages=_stages(columns, i),
        contact_point=columns["contact/point"][i],
        contact_normal=columns["contact/normal"][i],
    )


def _verdict(columns: Columns, i: int) -> str:
    reason = Reason(int(columns["verdict/reason"][i]))
    return HOLDS if reason is Reason.HELD else reason.name.lower().replace("_", " ")


def _physics(columns: Columns, i: int) -> dict[str, str]:
    """Returns what the simulator found, for people."""
    fields = fields_of(columns, VERDICT_FIELDS)
    row = {f.name.partition("/")[2]: columns[f.name][i] for f in fields if f.name.startswith("verdict/")}
    axes = [name for name, held in zip(("+x", "-x", "+y", "-y", "+z", "-z"), row["held"], strict=True) if held]
    loaded = [side for side, bears in zip(("left", "right"), row["bears_load"], strict=True) if bears]
    depths = dict(zip(("hand in object", "hand in hand", "hand in itself"), row["penetration"], strict=True))
    return {
        "withstood pushes": f"{len(axes)} of 6" + (f" ({' '.join(axes)})" if 0 < len(axes) < 6 else ""),
        "object moved": _largest(1e3 * row["displacement"], "mm"),
        "object turned": _largest(np.degrees(row["rotation"]), "degrees"),
        "bears load": " and ".join(loaded) or "no hand",
        **{name: _largest(1e3 * depth, "mm") for name, depth in depths.items()},
    }


def _largest(values: np.ndarray, unit: str) -> str:
    finite = np.atleast_1d(values)[np.isfinite(np.atleast_1d(values))]
    return f"{abs(finite.max()):.2f} {unit}" if len(finite) else "not tried"


def _stages(columns: Columns, i: int) -> Poses:
    """Returns the poses of a row at all stages; NaN where one is not in the files."""
    parts = []
    for name in Poses._fields:
        grasp = columns[f"hand/{name}"][i]
        stages = np.full((len(STAGES), *grasp.shape), np.nan, np.float32)
        stages[0], stages[2] = columns[f"initial/{name}"][i], grasp
        if f"pose/{name}" in columns:
            stages[1], stages[3] = columns[f"pose/{name}"][i][0], columns[f"pose/{name}"][i][2]
        parts.append(stages)
    return Poses(*parts)
