"""Hulls of a hand's meshes: small ones stay as they are, large ones are simplified within the tolerance."""

from __future__ import annotations

import numpy as np
import pytest
import trimesh

from bimangrasp.hand_files import hulls
from bimangrasp.hand_files.hulls import MAX_FACES, SHARE, TOLERANCE, hand_hull


def ball(count: int, radius: float, squeeze: float = 1.0) -> np.ndarray:
    """Points on an ellipsoid, m; all of them are corners of its hull."""
    points = np.random.default_rng(count).normal(size=(count, 3))
    return radius * points / np.linalg.norm(points, axis=1, keepdims=True) * (1, 1, squeeze)


def test_a_hull_of_few_faces_is_the_hull_itself():
    points = ball(200, 0.02)
    whole, hull = trimesh.convex.convex_hull(points), hand_hull(points)
    assert len(whole.faces) == hull.whole <= MAX_FACES
    np.testing.assert_array_equal(hull.vertices, whole.vertices)
    np.testing.assert_array_equal(hull.faces, whole.faces)


@pytest.mark.parametrize("squeeze", [1.0, 0.2, 1e-3])
@pytest.mark.parametrize("radius", [0.008, 0.05])
def test_a_large_hull_keeps_some_of_its_points_and_has_all_others_within_the_tolerance(radius: float, squeeze: float):
    points = ball(2000, radius, squeeze)
    hull = hand_hull(points)
    assert 1.5 * len(hull.faces) < hull.whole == len(trimesh.convex.convex_hull(points).faces) > MAX_FACES
    assert {tuple(point) for point in hull.vertices} <= {tuple(point) for point in points}
    mesh = trimesh.Trimesh(hull.vertices, hull.faces, process=False)
    assert mesh.is_watertight and mesh.volume > 0, "faces look outward"
    corner = mesh.triangles[:, 0]
    outside = np.max(np.einsum("pfi,fi->pf", points[:, None] - corner, mesh.face_normals), axis=1)
    assert outside.max() <= max(TOLERANCE, SHARE * np.ptp(points, axis=0).max()) + 1e-9


def test_the_smaller_the_mesh_the_fewer_faces_stand_for_it():
    faces = [len(hand_hull(ball(2000, radius)).faces) for radius in (0.1, 0.02, 0.005)]
    assert faces[0] > faces[1] > faces[2]


@pytest.mark.parametrize("unit", [1.0, 1000.0])
def test_a_large_mesh_takes_few_hulls_whatever_its_unit(unit: float, monkeypatch: pytest.MonkeyPatch):
    steps = []

    class Counted(hulls.ConvexHull):
        def add_points(self, points: np.ndarray, **options) -> None:
            steps.append(len(points))
            super().add_points(points, **options)

    monkeypatch.setattr(hulls, "ConvexHull", Counted)
    hull = hand_hull(unit * ball(10_000, 0.05, 0.7))
    assert len(steps) < 80 and len(hull.faces) < 2500 < hull.whole


def test_points_in_any_order_make_the_same_corners():
    points = ball(1500, 0.03)
    first, second = hand_hull(points), hand_hull(points[::-1])
    assert {tuple(point) for point in first.vertices} == {tuple(point) for point in second.vertices}
