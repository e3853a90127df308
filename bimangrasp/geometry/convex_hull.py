"""Finds the nearest point of a convex hull for many points around it, by walking over its surface."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float, Int
from scipy.spatial import ConvexHull
from torch import Tensor

from bimangrasp.geometry.triangle_mesh import closest_on_triangle

FACING_SLACK = 1e-6
"""A point may lie below a triangle's plane by this share of the hull's largest extent and still face it: rounding."""

BLOCK = 256
"""Points whose heights above all planes are computed at once: they stay in the cache."""

INSIDE = 6
"""Part of a triangle that is neither edge nor corner, as `closest_on_triangle` counts."""


class HullSurface:
    """The triangles of a convex hull, with those that meet at each corner.

    From outside of a convex body the distance has no local minimum but the least one, among the triangles that face
    the point. So it suffices to look at the triangles around a corner, and to go on to a corner nearer to what was
    found until nothing nearer is there. The triangle whose plane the point is highest above is a good start: where its
    nearest point lies inside of it, there is none nearer.
    """

    def __init__(self, points: np.ndarray, device: torch.device | str, dtype: torch.dtype):
        """Takes the hull of points (V, 3), m, to a device."""
        hull = ConvexHull(points)
        corner = hull.simplices.astype(np.int64)
        triangles = np.argsort(corner.ravel(), kind="stable") // 3  # those at the first corner, at the second, ...
        count = np.bincount(corner.ravel(), minlength=len(points))

        def table(values: np.ndarray) -> Tensor:
            return torch.as_tensor(values, device=device)

        self._corners = table(points[corner]).to(dtype)
        self._corner, self._triangles = table(corner), table(triangles)
        self._count, self._first = table(count), table(count.cumsum() - count)
        self._normal, self._offset = (table(part).to(dtype) for part in np.split(hull.equations, [3], axis=1))
        self._slack = FACING_SLACK * float(np.ptp(points, axis=0).max())

    def nearest(self, points: Float[Tensor, "point 3"]) -> Float[Tensor, "point 3"]:
        """Returns the nearest point of the hull for each point, none of which lies deeper in it than rounding."""
        triangle = torch.cat([self._highest_above(block) for block in points.split(BLOCK)])
        foot, part = closest_on_triangle(points, self._corners[triangle])
        squared, corner = (points - foot).square().sum(-1), self._corner_of(triangle, part)
        row = torch.nonzero(part != INSIDE)[:, 0]
        while len(row):
            pair, triangle = self._around(corner[row])
            pair = row[pair]
            height = (points[pair] * self._normal[triangle]).sum(-1) + self._offset[triangle, 0]
            may_be_nearer = (height >= -self._slack) & (height * height.abs() < squared[pair])
            pair, triangle = pair[may_be_nearer], triangle[may_be_nearer]
            on_triangle, part = closest_on_triangle(points[pair], self._corners[triangle])
            reach = (points[pair] - on_triangle).square().sum(-1)
            least = squared.scatter_reduce(0, pair, reach, "amin")
            nearer = torch.nonzero((reach == least[pair]) & (reach < squared[pair]))[:, 0]
            first = torch.full_like(corner, len(pair)).scatter_reduce(0, pair[nearer], nearer, "amin")
            moved = torch.nonzero(first < len(pair))[:, 0]
            nearer = first[moved]
            foot[moved], squared = on_triangle[nearer], least
            before, corner = corner, corner.index_copy(0, moved, self._corner_of(triangle[nearer], part[nearer]))
            row = torch.nonzero(corner != before)[:, 0]
        return foot

    def _highest_above(self, points: Float[Tensor, "point 3"]) -> Int[Tensor, " point"]:
        """Returns the triangle above whose plane each point is highest."""
        height = torch.addmm(self._offset.T, points, self._normal.T)
        return torch.as_tensor(height.cpu().numpy().argmax(axis=1), device=points.device)  # torch's takes longer

    def _corner_of(self, triangle: Int[Tensor, " pair"], part: Int[Tensor, " pair"]) -> Int[Tensor, " pair"]:
        """Returns a corner of each triangle that the part of it where a point lies touches."""
        own = torch.where(part < INSIDE, part % 3, 0)  # edge k begins at corner k
        return self._corner[triangle, own]

    def _around(self, corner: Int[Tensor, " row"]) -> tuple[Int[Tensor, " pair"], Int[Tensor, " pair"]]:
        """Returns the triangles that meet at each corner, each with the row it belongs to."""
        count = self._count[corner]
        row = torch.repeat_interleave(torch.arange(len(corner), device=corner.device), count)
        begin = self._first[corner] - (count.cumsum(0) - count)
        return row, self._triangles[torch.arange(len(row), device=corner.device) + begin[row]]
