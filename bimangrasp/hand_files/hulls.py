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

TOLERANCE = 2e-4
"""A simplified hull lies inside the whole one and is nowhere farther from it, m: a fifteenth of the penetration that
tests of grasps allow."""

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
    """Returns the convex hull of points, m; one of more than `MAX_FACES` faces is simplified to within `TOLERANCE`."""
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
    """Returns those of the points whose hull has all others within `TOLERANCE`: always the farthest one is added."""
    hull = ConvexHull(points[_first_corners(points)], incremental=True)
    while True:
        outside = (points @ hull.equations[:, :3].T + hull.equations[:, 3]).max(axis=1)
        farthest = int(outside.argmax())
        if outside[farthest] <= TOLERANCE:
            corners = hull.points[hull.vertices].copy()
            hull.close()
            return corners
        hull.add_points(points[farthest : farthest + 1])


def _first_corners(points: np.ndarray) -> list[int]:
    """Returns the corners of a tetrahedron among the points, each as far as it can be from those before it."""
    first = int(points[:, 0].argmin())
    away = points - points[first]
    second = int(np.linalg.norm(away, axis=1).argmax())
    third = int(np.linalg.norm(np.cross(away, away[second]), axis=1).argmax())
    fourth = int(np.abs(away @ np.cross(away[second], away[third])).argmax())
    return [first, second, third, fourth]
