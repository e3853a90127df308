"""Which rows count towards the quota. Decided by the parent from sealed rows, never by a worker."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bimangrasp.grasp_fields import GRASP_FIELDS, Columns
from scale.config import FILTERS, FilterConfig

NOT_FINITE = "not_finite"


@dataclass(frozen=True)
class Accept:
    """The run's filter."""

    config: FilterConfig

    def __call__(self, columns: Columns) -> np.ndarray:
        """Returns the mask of accepted rows, which are always finite."""
        return np.logical_and.reduce([finite_rows(columns), *self._passed(columns).values()])

    def rejected(self, columns: Columns) -> dict[str, int]:
        """Returns reason -> rows that do not count for that.

        A row that is not finite has that reason alone; a finite one fails each threshold that it does not stay below.
        """
        finite = finite_rows(columns)
        failed = {f"energy/{term}": int((finite & ~passed).sum()) for term, passed in self._passed(columns).items()}
        return {NOT_FINITE: int((~finite).sum())} | failed

    def _passed(self, columns: Columns) -> dict[str, np.ndarray]:
        """Returns term -> mask of the rows below its threshold."""
        terms = FILTERS[self.config.name]
        return {term: columns[f"energy/{term}"] < getattr(self.config, term) for term in terms}


def acceptance(config: FilterConfig) -> Accept:
    """Returns the filter of a run."""
    return Accept(config)


def finite_rows(columns: Columns) -> np.ndarray:
    """Returns the mask of rows in which every number is finite."""
    floats = [columns[f.name] for f in GRASP_FIELDS if np.dtype(f.dtype).kind == "f"]
    return np.logical_and.reduce([np.isfinite(c.reshape(len(c), -1)).all(axis=1) for c in floats])
