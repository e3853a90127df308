"""Balances the forces of contacts on an object: each in its friction cone, evenly shared, without a net wrench."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from scipy.optimize import nnls

from bimangrasp.validation.verdict import DIRECTIONS

EDGES = 8
"""Edges of the pyramid that stands for a friction cone."""
LEVER = 0.1
"""A torque of this many N m counts as much as a force of 1 N: half the extent of what two hands hold, m."""
SUM_WEIGHT = 10.0
"""Weight of the normal parts' sum, large against that of the wrench: without it no force at all would balance."""
SLIDE_WEIGHT = 0.01
"""Weight of the tangential parts: of forces that balance alike the straightest are taken, and these are unique."""


class Balance(NamedTuple):
    """Forces of contacts on an object.

    Attributes:
        force: of each contact; the normal parts are 1 together.
        residual: norm of the net force and of the net torque over `LEVER`, as a share of the normal parts' sum.
    """

    force: Float[np.ndarray, "contact 3"]
    residual: float


def balanced_forces(
    point: Float[np.ndarray, "contact 3"], normal: Float[np.ndarray, "contact 3"], friction: float, evenness: float
) -> Balance:
    """Returns the forces with the least net wrench that are in their cones and nearly evenly shared.

    Minimizes |net wrench|^2 + (evenness |shares - 1/contacts|)^2 over the edges of all friction pyramids, as
    non-negative least squares. NaN where a contact is not finite, or where the solver gives up.

    Args:
        point: the contacts in the object's frame, whose origin is the pivot of torques, m.
        normal: outward unit normals of the object there; forces press against them.
        friction: tangent of the cones' half angle.
        evenness: weight of even shares against the wrench, 1.
    """
    count = len(point)
    if not (np.isfinite(point).all() and np.isfinite(normal).all()):
        return _unknown(count)
    slide = friction * _tangents(normal)
    edge = slide - normal[:, None]
    torque = np.cross(point[:, None], edge) / LEVER
    wrench = np.concatenate((edge, torque), axis=2).reshape(-1, 6).T
    share = np.kron(np.eye(count), np.ones(EDGES))
    straight = np.concatenate([share * slide[..., axis].ravel() for axis in range(3)])
    rows = np.concatenate((wrench, evenness * share, SUM_WEIGHT * np.ones((1, count * EDGES)), SLIDE_WEIGHT * straight))
    wanted = np.concatenate((np.zeros(6), np.full(count, evenness / count), [SUM_WEIGHT], np.zeros(3 * count)))
    try:
        along_edges, _ = nnls(rows, wanted)
    except RuntimeError:  # too many changes of its active set
        return _unknown(count)
    along_edges /= along_edges.sum()
    force = (along_edges.reshape(count, EDGES, 1) * edge).sum(axis=1)
    return Balance(force, float(np.linalg.norm(wrench @ along_edges)))


def push_order(force: Float[np.ndarray, "contact 3"]) -> tuple[int, ...]:
    """Returns indices of `DIRECTIONS`, the likeliest first in which a push takes the object away.

    That is along the axis with the least of the contacts' force, whose two ends have as much of it in balance. The
    order of `DIRECTIONS` for equal ones, and for forces that are NaN.
    """
    return tuple(np.argsort(np.abs(force @ DIRECTIONS.T).sum(axis=0), kind="stable").tolist())


def _unknown(count: int) -> Balance:
    return Balance(np.full((count, 3), np.nan), np.nan)


def _tangents(normal: np.ndarray) -> Float[np.ndarray, "contact edge 3"]:
    """Returns unit vectors in the tangent planes, evenly around the normals; mirrored normals have mirrored ones."""
    beside = np.where(np.abs(normal[:, :1]) < 0.9, [[1.0, 0.0, 0.0]], [[0.0, 1.0, 0.0]])
    first = np.cross(normal, beside)
    first /= np.linalg.norm(first, axis=1, keepdims=True)
    angle = 2 * np.pi * np.arange(EDGES)[:, None] / EDGES
    return np.cos(angle) * first[:, None] + np.sin(angle) * np.cross(normal, first)[:, None]
