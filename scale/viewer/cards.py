"""Describes the grasps of files for the page of mode=view: their labels, verdicts, poses and numbers."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from bimangrasp.energy_terms import TERMS
from bimangrasp.files.provenance import MadeWith
from bimangrasp.files.schema import VERDICT_FIELDS
from bimangrasp.poses import Poses
from bimangrasp.validation.verdict import Reason
from bimangrasp.visualization.gallery import NOT_TESTED, STAGES, ShownGrasp
from scale.settings.filters import Accept

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


@dataclass
class PageContents:
    """What a page shows.

    Attributes:
        files: the chosen grasps of each file that has some.
        notes: what a reader must know.
    """

    files: list[FileGrasps] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def add(self, grasps: FileGrasps | None) -> None:
        """Adds the grasps of a file, if it has any."""
        if grasps is not None:
            self.files.append(grasps)


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
    row = {f.name.partition("/")[2]: columns[f.name][i] for f in VERDICT_FIELDS if f.name.startswith("verdict/")}
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
