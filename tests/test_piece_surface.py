"""Gaps and normals of points beside and inside convex pieces, in closed form."""

from __future__ import annotations

import numpy as np
import pytest
import trimesh

from bimangrasp.validation.piece_surface import PieceSurface

BOX = trimesh.creation.box((0.2, 0.2, 0.2)).vertices
SLAB = trimesh.creation.box((0.4, 0.1, 0.1)).vertices + [0.25, 0, 0]
"""It begins inside the box, and stands out of it along x."""


def at(points: list[list[float]], pieces: list[np.ndarray], size: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    return PieceSurface(pieces).at(np.array(points), np.full(len(points), size))


@pytest.mark.parametrize("size", [1.0, 0.15])
def test_outside_it_is_the_distance_and_the_direction_from_the_nearest_point(size):
    points = [[0.15, 0.02, 0.01], [0.13, 0.14, 0.0], [-0.03, 0.01, -0.1001]]
    gap, normal = at((size * np.array(points)).tolist(), [BOX], size)
    np.testing.assert_allclose(gap, size * np.array([0.05, 0.05, 1e-4]), atol=1e-12)
    np.testing.assert_allclose(normal, [[1, 0, 0], [0.6, 0.8, 0], [0, 0, -1]], atol=1e-9)


def test_inside_it_is_the_depth_below_the_nearest_plane():
    gap, normal = at([[0.09, 0.02, 0.01], [0.0, -0.07, 0.01]], [BOX])
    np.testing.assert_allclose(gap, [-0.01, -0.03], atol=1e-12)
    np.testing.assert_allclose(normal, [[1, 0, 0], [0, -1, 0]], atol=1e-12)


def test_on_the_surface_the_normal_is_the_face_s():
    gap, normal = at([[0.1, 0.02, 0.01], [0.1 + 1e-13, 0.02, 0.01], [0.1 - 1e-13, 0.02, 0.01]], [BOX])
    np.testing.assert_allclose(gap, 0, atol=1e-12)
    np.testing.assert_allclose(normal, np.tile([1, 0, 0], (3, 1)), atol=1e-12)


@pytest.mark.parametrize("order", [[BOX, SLAB], [SLAB, BOX]])
def test_pieces_are_a_union(order):
    points = [[0.3, 0.06, 0.0], [0.3, 0.04, 0.0], [0.099, 0.0, 0.001], [-0.12, 0.0, 0.0]]
    gap, normal = at(points, order)
    np.testing.assert_allclose(gap, [0.01, -0.01, -0.049, 0.02], atol=1e-12)
    np.testing.assert_allclose(normal[[0, 1, 3]], [[0, 1, 0], [0, 1, 0], [-1, 0, 0]], atol=1e-12)


def test_what_is_not_finite_is_nowhere():
    gap, _ = at([[np.nan, 0, 0], [0.15, 0, 0]], [BOX])
    assert np.isnan(gap[0]) and gap[1] == pytest.approx(0.05)
