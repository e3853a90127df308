"""Makes the convex hull that stands for a mesh of a hand; published meshes have far more faces than grasps need."""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np
import trimesh
from jaxtyping import Float, Int
from scipy.spatial import ConvexHull

MAX_FACES = 500
"""A hull of more faces is simplified. With 12 such meshes, of 1400 to 2400 faces, simulations are 1.3 times as fast."""

TOLERANCE, SHARE = 2e-4, 2e-3
"""A simplified hull lies inside the whole one and is nowhere farther from it, m, or share of its largest extent."""

GROWTH = 0.1
"""So many corners are added at once, as a share of those that there are: the cost is that of some fifty small hulls."""

_REMEMBERED = 64  # meshes of one hand, so that a report on its file does not simplify them again


class Hull(NamedTuple):
    """A convex hull.

    Attributes:
        vertices: m.
        faces: vertex indices, counter-clockwise seen from outside.
        whole: how many faces there were before it was simplified.
    """

    vertices: Float[np.ndarray, "vertex 3"]
    faces: Int[np.ndarray, "face 3"]
    whole: int


def hand_hull(points: Float[np.ndarray, "point 3"]) -> Hull:
    """Returns the convex hull of points, m; one of more than `MAX_FACES` faces is simplified: see `TOLERANCE`."""
    return _hand_hull(np.ascontiguousarray(points, np.float64).tobytes())


@lru_cache(_REMEMBERED)
def _hand_hull(points: bytes) -> Hull:
    """Returns the hull of the bytes of (V, 3) points."""
    hull = trimesh.convex.convex_hull(np.frombuffer(points).reshape(-1, 3))
    whole = len(hull.faces)
    if whole > MAX_FACES:
        hull = trimesh.convex.convex_hull(_corners(np.array(hull.vertices)))
    return Hull(np.array(hull.vertices), np.array(hull.faces, np.int64), whole)


def _corners(points: np.ndarray) -> Float[np.ndarray, "corner 3"]:
    """Returns those of the points whose hull has all others within the tolerance: the farthest are added."""
    tolerance = max(TOLERANCE, SHARE * float(np.ptp(points, axis=0).max()))
    hull, outside = ConvexHull(points[_first_corners(points)], incremental=True), points
    while True:
        height = outside @ hull.equations[:, :3].T + hull.equations[:, 3]
        is_out = height.max(axis=1) > tolerance  # who is within the tolerance stays there, as the hull only grows
        outside, height = outside[is_out], height[is_out]
        if not len(outside):
            corners = hull.points[hull.vertices].copy()
            hull.close()
            return corners
        farthest = np.unique(height.argmax(axis=0)[height.max(axis=0) > tolerance])  # the farthest of each face
        farthest = farthest[np.argsort(-height[farthest].max(axis=1), kind="stable")]
        hull.add_points(outside[farthest[: max(1, int(GROWTH * len(hull.vertices)))]])


def _first_corners(points: np.ndarray) -> list[int]:
    """Returns the corners of a tetrahedron among the points, each as far as it can be from those before it."""
    first = int(points[:, 0].argmin())
    away = points - points[first]
    second = int(np.linalg.norm(away, axis=1).argmax())
    third = int(np.linalg.norm(np.cross(away, away[second]), axis=1).argmax())
    fourth = int(np.abs(away @ np.cross(away[second], away[third])).argmax())
    return [first, second, third, fourth]
