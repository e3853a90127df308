"""Which rows count towards the quota. Decided by the parent from sealed rows, never by a worker."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from bimangrasp.grasp_fields import GRASP_FIELDS, Columns
from scale.config import FilterConfig

Accept = Callable[[Columns], np.ndarray]


def acceptance(config: FilterConfig) -> Accept:
    """Returns the function from columns to the mask of accepted rows, which are always finite."""
    rule = _RULES[config.name]
    return lambda columns: finite_rows(columns) & rule(columns, config)


def finite_rows(columns: Columns) -> np.ndarray:
    """Returns the mask of rows in which every number is finite."""
    floats = [columns[f.name] for f in GRASP_FIELDS if np.dtype(f.dtype).kind == "f"]
    return np.logical_and.reduce([np.isfinite(c.reshape(len(c), -1)).all(axis=1) for c in floats])


def _all(columns: Columns, _config: FilterConfig) -> np.ndarray:
    return np.ones(len(columns["row"]), bool)


def _by_energy(columns: Columns, config: FilterConfig) -> np.ndarray:
    terms = ("force_closure", "distance", "penetration")
    return np.logical_and.reduce([columns[f"energy/{term}"] < getattr(config, term) for term in terms])


_RULES = {"none": _all, "energy": _by_energy}
