"""Decides which rows count towards the quota: in the parent, from sealed rows, never in a worker."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np

from bimangrasp.files.schema import GRASP_FIELDS, Columns
from bimangrasp.validation.verdict import Reason
from scale.settings.schema import FILTERS, PHYSICS, FilterConfig

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

    @property
    def reasons(self) -> tuple[str, ...]:
        """Why rows may not count."""
        return (NOT_FINITE, *self._tests)

    def first_reason(self, columns: Columns) -> np.ndarray:
        """Returns for each row the first of `reasons` for which it does not count, by number; -1 where it does."""
        failed = np.stack([~finite_rows(columns), *self._failed(columns).values()])
        return np.where(failed.any(axis=0), failed.argmax(axis=0), -1).astype(np.int32)

    def rejected(self, columns: Columns) -> dict[str, int]:
        """Returns reason -> rows that do not count for that.

        A row that is not finite has that reason alone; a finite one fails each threshold that it does not stay below,
        or the simulation for one reason.
        """
        return {why: int(rows.sum()) for why, rows in self.failures(columns).items()}

    def failures(self, columns: Columns) -> dict[str, np.ndarray]:
        """Returns reason -> mask of the rows that do not count for that, as `rejected` counts them."""
        finite = finite_rows(columns)
        return {NOT_FINITE: ~finite} | {why: finite & rows for why, rows in self._failed(columns).items()}

    def _failed(self, columns: Columns) -> dict[str, np.ndarray]:
        """Returns reason -> mask of the rows that do not pass for that."""
        return {why: fails(columns) for why, fails in self._tests.items()}

    @property
    def _tests(self) -> dict[str, Callable[[Columns], np.ndarray]]:
        """Reason -> what finds the rows that do not pass for that."""
        tests = {f"energy/{term}": partial(self._is_above, term) for term in FILTERS[self.config.name]}
        if self.needs_verdict:
            failures = [reason for reason in Reason if reason is not Reason.HELD]
            tests |= {f"{PHYSICS}/{reason.name.lower()}": partial(_is_judged, reason) for reason in failures}
        return tests

    def _is_above(self, term: str, columns: Columns) -> np.ndarray:
        return ~(columns[f"energy/{term}"] < getattr(self.config, term))


def _is_judged(reason: Reason, columns: Columns) -> np.ndarray:
    return columns["verdict/reason"] == reason


def finite_rows(columns: Columns) -> np.ndarray:
    """Returns the mask of rows in which every number is finite."""
    floats = [columns[f.name] for f in GRASP_FIELDS if np.dtype(f.dtype).kind == "f"]
    return np.logical_and.reduce([np.isfinite(c.reshape(len(c), -1)).all(axis=1) for c in floats])
