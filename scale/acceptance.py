"""Which rows count towards the quota. Decided by the parent from sealed rows, never by a worker."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bimangrasp.grasp_fields import GRASP_FIELDS, Columns
from bimangrasp.validation.verdict import Reason
from scale.config import FILTERS, PHYSICS, FilterConfig

NOT_FINITE = "not_finite"


@dataclass(frozen=True)
class Accept:
    """The run's filter."""

    config: FilterConfig

    @property
    def needs_verdict(self) -> bool:
        """Whether rows count by what the simulator says of them: then columns are a shard's and its verdict's."""
        return self.config.name == PHYSICS

    def __call__(self, columns: Columns) -> np.ndarray:
        """Returns the mask of accepted rows, which are always finite."""
        return np.logical_and.reduce([finite_rows(columns), *(~failed for failed in self._failed(columns).values())])

    def rejected(self, columns: Columns) -> dict[str, int]:
        """Returns reason -> rows that do not count for that.

        A row that is not finite has that reason alone; a finite one fails each threshold that it does not stay below,
        or the simulation for one reason.
        """
        finite = finite_rows(columns)
        failed = {why: int((finite & rows).sum()) for why, rows in self._failed(columns).items()}
        return {NOT_FINITE: int((~finite).sum())} | failed

    def _failed(self, columns: Columns) -> dict[str, np.ndarray]:
        """Returns reason -> mask of the rows that do not pass for that."""
        terms = FILTERS[self.config.name]
        failed = {f"energy/{term}": ~(columns[f"energy/{term}"] < getattr(self.config, term)) for term in terms}
        if self.needs_verdict:
            reasons = [one for one in Reason if one is not Reason.HELD]
            failed |= {f"{PHYSICS}/{one.name.lower()}": columns["verdict/reason"] == one for one in reasons}
        return failed


def acceptance(config: FilterConfig) -> Accept:
    """Returns the filter of a run."""
    return Accept(config)


def finite_rows(columns: Columns) -> np.ndarray:
    """Returns the mask of rows in which every number is finite."""
    floats = [columns[f.name] for f in GRASP_FIELDS if np.dtype(f.dtype).kind == "f"]
    return np.logical_and.reduce([np.isfinite(c.reshape(len(c), -1)).all(axis=1) for c in floats])
