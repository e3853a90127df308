"""Where a mesh lies and how large it is: laws of the conventions."""

from __future__ import annotations

import numpy as np
import pytest
import trimesh

from bimangrasp.errors import InputError
from bimangrasp.objects.config import CONVENTIONS
from bimangrasp.objects.preparation import DEXGRASPNET_RADIUS, fitting_units, normalization

SHAPE = np.array(trimesh.creation.capsule(height=3.0, radius=0.7).vertices) * [1, 2, 1] + [5, -3, 0.2]


def changes(placement):
    return placement.factor != 1 or bool(placement.center.any())


def placed(vertices, convention, unit="m"):
    return normalization(vertices, convention, unit)(vertices)


@pytest.mark.parametrize("convention", CONVENTIONS)
def test_twice_is_once(convention):
    once = placed(SHAPE, convention)
    assert np.array_equal(placed(once, convention), once)
    assert not changes(normalization(once, convention, "m"))


def test_dexgraspnet_has_its_farthest_vertex_at_its_radius():
    made = placed(SHAPE, "dexgraspnet")
    np.testing.assert_allclose(made.min(axis=0) + made.max(axis=0), 0, atol=1e-12)
    assert np.linalg.norm(made, axis=1).max() == pytest.approx(DEXGRASPNET_RADIUS) == pytest.approx(0.970874, abs=1e-6)


def test_plain_spans_one_meter():
    made = placed(SHAPE, "plain")
    np.testing.assert_allclose(made.min(axis=0) + made.max(axis=0), 0, atol=1e-12)
    assert np.ptp(made, axis=0).max() == pytest.approx(1.0)


@pytest.mark.parametrize("convention", ["dexgraspnet", "plain"])
def test_a_moved_scaled_and_turned_copy_becomes_the_same_shape_turned(convention):
    turn = np.array([[0, -1, 0], [0, 0, 1], [-1, 0, 0]])  # by quarter turns: the box turns with it
    copy = 37 * SHAPE @ turn.T + [100, 0, -3]
    np.testing.assert_allclose(placed(copy, convention), placed(SHAPE, convention) @ turn.T, atol=1e-12)


@pytest.mark.parametrize(("unit", "length"), [("m", 1.0), ("cm", 0.01), ("mm", 0.001), ("in", 0.0254)])
def test_keep_changes_the_unit_alone(unit, length):
    assert np.array_equal(placed(SHAPE, "keep", unit), length * SHAPE)


def test_the_files_of_dexgraspnet_stay_as_they_are(shared):
    files = sorted((shared / "data" / "meshdata").glob("*/coacd/decomposed.obj"))
    assert len(files) == 3
    for path in files:
        mesh = trimesh.load_mesh(path, process=False)
        assert not changes(normalization(np.array(mesh.vertices), "dexgraspnet", "m"))
        assert np.linalg.norm(mesh.vertices, axis=1).max() == pytest.approx(DEXGRASPNET_RADIUS, abs=0.009)


def test_what_is_a_little_more_off_is_moved():
    made = placed(SHAPE, "dexgraspnet")
    assert changes(normalization(made * 1.02, "dexgraspnet", "m"))
    assert changes(normalization(made + [0.03, 0, 0], "dexgraspnet", "m"))


def test_the_units_that_fit_are_those_in_which_hands_can_hold_it():
    assert fitting_units(0.2) == ["m"]
    assert fitting_units(250.0) == ["mm"]
    assert fitting_units(40.0) == ["cm", "mm"]
    assert fitting_units(5000.0) == []


def test_vertices_at_one_place_are_refused():
    with pytest.raises(InputError, match="one place"):
        normalization(np.ones((4, 3)), "plain", "m")
