"""Sorts points so that neighbors in the list are neighbors in space, which lets whole runs of points be culled."""

from __future__ import annotations

import numpy as np

RUN = 32
"""Points in a run. Measured: shorter runs cost more in the first pass than they save in the second."""


def spatial_order(points: np.ndarray) -> np.ndarray:
    """Returns an order (N,) of points (N, 3) in which every `RUN` consecutive points lie close together.

    Halves the points at the median of their longest extent, at a multiple of `RUN`, until one run is left.
    """
    pending, order = [np.arange(len(points))], []
    while pending:
        rows = pending.pop()
        if len(rows) <= RUN:
            order.append(rows)
            continue
        axis = np.ptp(points[rows], axis=0).argmax()
        rows = rows[np.argsort(points[rows, axis], kind="stable")]
        half = -(-len(rows) // (2 * RUN)) * RUN
        pending += [rows[half:], rows[:half]]
    return np.concatenate(order) if order else np.zeros(0, dtype=np.int64)
