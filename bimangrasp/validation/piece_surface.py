"""Measures where points are relative to the union of an object's convex pieces."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from scipy.spatial import ConvexHull

from bimangrasp.geometry.triangle_mesh import TriangleMesh

ON_SURFACE = 1e-4
"""Nearer to the surface than this, in units of the mesh, a point's normal is the triangle's: its own direction from
there is rounding."""


class SurfacePoints(NamedTuple):
    """Where points are relative to a surface.

    Attributes:
        gap: signed distance, m, negative inside.
        normal: outward unit normal: away from the nearest point for a point outside, of the nearest plane inside.
    """

    gap: Float[np.ndarray, " point"]
    normal: Float[np.ndarray, "point 3"]


class PieceSurface:
    """The surface of the union of convex pieces, built once an object."""

    def __init__(self, pieces: Sequence[Float[np.ndarray, "_ 3"]]) -> None:
        """Args: `pieces`: vertices of each piece at unit scale, m, not flat."""
        hulls = [ConvexHull(piece) for piece in pieces]
        corners = np.concatenate([hull.points[hull.simplices] for hull in hulls])
        self._planes = [hull.equations for hull in hulls]
        self._normals = np.concatenate(self._planes)[:, :3]
        faces = np.arange(3 * len(corners)).reshape(-1, 3)
        self._mesh = TriangleMesh(corners.reshape(-1, 3), faces, dtype=torch.float64)

    def at(self, points: Float[np.ndarray, "point 3"], size: Float[np.ndarray, " point"]) -> SurfacePoints:
        """Returns gap and normal of each point, exact outside the union.

        Inside, the depth is that below the nearest plane of the piece in which the point is deepest, which may be a cut
        between pieces. NaN for a point that is not finite.

        Args:
            points: in the object's frame, m.
            size: factor on the pieces, for each point.
        """
        unit_points = points / size[:, None]
        depth, plane_normal = self._deepest_piece(unit_points)
        nearest = self._mesh.nearest(torch.as_tensor(unit_points))
        offset = unit_points - nearest.point.numpy()
        distance = np.linalg.norm(offset, axis=1)
        away = offset / np.maximum(distance, ON_SURFACE)[:, None]
        outside_normal = np.where((distance < ON_SURFACE)[:, None], self._normals[nearest.face.numpy()], away)
        inside = depth < 0
        return SurfacePoints(
            np.where(inside, depth, distance) * size, np.where(inside[:, None], plane_normal, outside_normal)
        )

    def _deepest_piece(self, unit_points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Returns each point's signed distance to the nearest plane of its deepest piece, and that plane's normal."""
        depth, normal = np.full(len(unit_points), np.inf), np.zeros_like(unit_points)
        for planes in self._planes:
            above = unit_points @ planes[:, :3].T + planes[:, 3]
            plane = above.argmax(axis=1)
            height = np.take_along_axis(above, plane[:, None], axis=1)[:, 0]
            deeper = height < depth
            depth[deeper], normal[deeper] = height[deeper], planes[plane[deeper], :3]
        return depth, normal
