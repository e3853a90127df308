"""Lists the terms of the energy in the order of every file, tensor and kernel; imports no PyTorch.

A new term is a row here, a function in `energy.energies` and a kernel in `energy.fused`.
"""

from __future__ import annotations

from enum import IntEnum
from typing import NamedTuple


class Term(NamedTuple):
    """One term.

    Attributes:
        name: of its field in `Energies`, its columns in files and its threshold in filters.
        weight: key of its weight in `EnergyConfig`; empty for the total.
        unit: of its columns, as files have it. All say "1" so far, lengths and angles too: files keep their bytes.
        label: in charts.
        tag: in TensorBoard, `Energy/<tag>`, as BimanGrasp calls it.
        filter: the filter that has a threshold on it; empty for none.
        is_optional: whether it is computed only where its weight is above 0. BimanGrasp has none of these.
    """

    name: str
    weight: str
    unit: str
    label: str
    tag: str
    filter: str = ""
    is_optional: bool = False


ENERGY_TERMS = (
    Term("force_closure", "w_fc", "1", "force closure", "fc", filter="energy"),
    Term("distance", "w_dis", "1", "distance", "dis", filter="energy"),
    Term("penetration", "w_pen", "1", "penetration", "pen", filter="energy"),
    Term("self_penetration", "w_spen", "1", "self penetration", "spen"),
    Term("joint_limits", "w_joints", "1", "joint limits", "joints"),
    Term("wrench_volume", "w_vew", "1", "wrench volume", "vew"),
    Term("depth", "w_depth", "1", "depth", "depth", filter="firm", is_optional=True),
    Term("equilibrium", "w_equilibrium", "1", "equilibrium", "equilibrium", filter="firm", is_optional=True),
)
TOTAL = Term("total", "", "1", "total", "energy")
"""The weighted sum, which stands behind the terms."""

TERMS = tuple(term.name for term in (*ENERGY_TERMS, TOTAL))
"""The names of all, the total last."""

Slot = IntEnum("Slot", {name: slot for slot, name in enumerate(TERMS)})
"""Where a term stands in arrays of all terms, by name."""


def filtered_terms(name: str) -> tuple[str, ...]:
    """Returns the terms on which the filter of that name has a threshold."""
    return tuple(term.name for term in ENERGY_TERMS if term.filter == name)
