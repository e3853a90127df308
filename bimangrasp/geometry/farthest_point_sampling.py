"""Spreads points evenly over triangles and sorts points so that neighbors in the list are neighbors in space."""

from __future__ import annotations

import hashlib

import numpy as np
import torch
from jaxtyping import Float
from scipy.spatial import cKDTree
from torch import Tensor

RUN = 32
"""Points in a run. Measured: shorter runs cost more in the first pass than they save in the second."""

REACH_SLACK = 1e-5
"""Share by which a reach is widened against the rounding of distances to float32."""


def key_generator(*key: object) -> torch.Generator:
    """Returns a CPU generator whose seed is a hash of `key`: equal keys draw equal numbers everywhere."""
    digest = hashlib.sha256(repr(key).encode()).digest()
    return torch.Generator("cpu").manual_seed(int.from_bytes(digest[:4], "big"))


def uniform_points(corners: np.ndarray, draws: Float[Tensor, "point 3"]) -> Float[Tensor, "point 3"]:
    """Returns area-uniform points on triangles, in float64, on the device of the draws.

    Args:
        corners: (F, 3, 3) m, entry [f, k] is corner k of triangle f.
        draws: uniform in [0, 1): the first chooses the triangle, the others the place on it.
    """
    areas = np.linalg.norm(np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]), axis=1)
    u = draws.double()
    edges = torch.as_tensor(areas.cumsum() / areas.sum(), device=u.device)
    face = torch.searchsorted(edges, u[:, 0].contiguous(), right=True).clamp_max(len(corners) - 1)
    a, b, c = torch.tensor(corners, device=u.device)[face].unbind(1)
    root = u[:, 1:2].sqrt()
    return a + root * (1 - u[:, 2:3]) * (b - a) + root * u[:, 2:3] * (c - a)


def farthest_of(points: Float[Tensor, "point 3"], count: int) -> Float[Tensor, "chosen 3"]:
    """Returns `count` of the points, each the farthest from all chosen before it, starting with the first.

    All points lie within reach of a chosen one, the distance of the farthest, so that a new one is the nearest at most
    of those within reach of it.
    """
    columns = points.float().T.contiguous()
    tree = cKDTree(columns.T.numpy(), balanced_tree=False, compact_nodes=False)  # so it is built in a tenth of the time
    chosen = torch.zeros(count, dtype=torch.int64)
    nearest, near = torch.full((len(points),), torch.inf), torch.arange(len(points))
    for k in range(1, count):
        x, y, z = columns.index_select(1, near) - columns[:, chosen[k - 1], None]
        nearest[near] = torch.minimum(nearest[near], x.square_().addcmul_(y, y).addcmul_(z, z))
        farthest = int(nearest.numpy().argmax())  # torch's takes ten times as long
        chosen[k], reach = farthest, (1 + REACH_SLACK) * float(nearest[farthest]) ** 0.5
        near = torch.as_tensor(np.array(tree.query_ball_point(tree.data[farthest], reach, return_sorted=False)))
    return points[chosen]


def farthest_of_each(points: Float[Tensor, "group point 3"], count: int) -> Float[Tensor, "group chosen 3"]:
    """Returns `count` points of each group, as `farthest_of` does of one, all groups at once and on their device."""
    columns = points.float().permute(2, 0, 1).contiguous()
    chosen = torch.zeros((len(points), count), dtype=torch.int64, device=points.device)
    nearest = torch.full(points.shape[:2], torch.inf, device=points.device)
    for k in range(1, count):
        last = chosen[:, k - 1, None]
        x, y, z = columns - columns.gather(2, last.expand(3, -1, -1))
        nearest = torch.minimum(nearest, x.square_().addcmul_(y, y).addcmul_(z, z))
        chosen[:, k] = nearest.argmax(dim=1)
    return points.gather(1, chosen[..., None].expand(-1, -1, 3))


def farthest_points(corners: np.ndarray, count: int, samples_per_point: int, generator: torch.Generator) -> np.ndarray:
    """Returns (count, 3) points spread over triangles: the farthest of `count * samples_per_point` uniform ones."""
    draws = torch.rand((count * samples_per_point, 3), generator=generator, dtype=torch.float64)
    if count == 0:
        return np.zeros((0, 3))
    return farthest_of(uniform_points(corners, draws), count).numpy()


def spatial_order(points: np.ndarray, length: int = RUN) -> np.ndarray:
    """Returns an order (N,) of points (N, 3) in which every `length` consecutive points lie close together.

    Halves the points at the median of their longest extent, at a multiple of `length`, until so many are left.
    """
    pending, order = [np.arange(len(points))], []
    while pending:
        rows = pending.pop()
        if len(rows) <= length:
            order.append(rows)
            continue
        axis = np.ptp(points[rows], axis=0).argmax()
        rows = rows[np.argsort(points[rows, axis], kind="stable")]
        half = -(-len(rows) // (2 * length)) * length
        pending += [rows[half:], rows[:half]]
    return np.concatenate(order) if order else np.zeros(0, dtype=np.int64)
