"""Balanced forces of contacts: cones, equilibrium, symmetry."""

from __future__ import annotations

import numpy as np
import pytest

from bimangrasp.validation.contact_forces import LEVER, balanced_forces, push_order

FRICTION, EVENNESS = 0.15, 0.3
MIRROR = np.diag([1.0, -1.0, 1.0])


def random_contacts(seed: int, count: int = 8) -> tuple[np.ndarray, np.ndarray]:
    """Contacts anywhere on a sphere of 8 cm, with normals up to a radian off: most cannot balance."""
    draw = np.random.default_rng(seed)
    outward = unit(draw.normal(size=(count, 3)))
    return 0.08 * outward, unit(outward + 0.4 * draw.normal(size=(count, 3)))


def enclosing_contacts(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Four pairs of contacts, opposite to each other on a sphere but for 0.1 rad."""
    draw = np.random.default_rng(seed)
    outward = unit(draw.normal(size=(4, 3)))
    outward = unit(np.concatenate((outward, -outward)) + 0.1 * draw.uniform(-1, 1, (8, 3)))
    return 0.08 * outward, outward


def unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


def forces(point: np.ndarray, normal: np.ndarray) -> np.ndarray:
    return balanced_forces(point, normal, FRICTION, EVENNESS).force


@pytest.mark.parametrize("seed", range(20))
def test_forces_are_in_their_cones_and_their_normal_parts_are_one_together(seed):
    point, normal = random_contacts(seed)
    force = forces(point, normal)
    pressing = -(force * normal).sum(axis=1)
    sliding = np.linalg.norm(force + pressing[:, None] * normal, axis=1)
    assert (pressing >= 0).all() and (sliding <= FRICTION * pressing + 1e-12).all()
    assert pressing.sum() == pytest.approx(1)


@pytest.mark.parametrize("seed", range(20))
def test_contacts_around_an_object_balance(seed):
    point, normal = enclosing_contacts(seed)
    found = balanced_forces(point, normal, FRICTION, EVENNESS)
    assert np.linalg.norm(found.force.sum(axis=0)) < 0.05
    assert np.linalg.norm(np.cross(point, found.force).sum(axis=0)) < 0.05 * LEVER
    assert found.residual < 0.05


def test_opposite_contacts_press_straight_and_alike():
    point = np.array([[-0.03, 0, 0.01], [0.03, 0, 0.01]])
    found = balanced_forces(point, unit(point * [1, 0, 0]), FRICTION, EVENNESS)
    np.testing.assert_allclose(found.force, [[0.5, 0, 0], [-0.5, 0, 0]], atol=1e-6)
    assert found.residual < 1e-6


def test_contacts_on_one_side_cannot_balance_and_the_residual_says_how_far():
    point = np.array([[0.0, 0.02, 0.0], [0.0, -0.02, 0.0]])
    found = balanced_forces(point, np.tile([1.0, 0, 0], (2, 1)), FRICTION, EVENNESS)
    assert found.residual == pytest.approx(1, abs=1e-3)


def test_contacts_share_by_their_levers():
    """One contact against two, 2 cm and 6 cm beside it: where even shares hardly count, the nearer one takes more."""
    point = np.array([[-0.03, 0, 0], [0.03, 0.02, 0], [0.03, -0.06, 0]])
    found = balanced_forces(point, unit(point * [1, 0, 0]), friction=0.0, evenness=0.001)
    np.testing.assert_allclose(found.force[:, 0], [0.5, -0.375, -0.125], atol=1e-3)


@pytest.mark.parametrize("seed", range(10))
def test_mirrored_and_shuffled_contacts_have_mirrored_and_shuffled_forces(seed):
    """Of the many forces that balance alike one is taken, whatever the order of the contacts."""
    point, normal = random_contacts(seed) if seed % 2 else enclosing_contacts(seed)
    force, order = forces(point, normal), np.random.default_rng(seed).permutation(8)
    np.testing.assert_allclose(forces(point @ MIRROR, normal @ MIRROR), force @ MIRROR, atol=1e-6)
    np.testing.assert_allclose(forces(point[order], normal[order]), force[order], atol=1e-6)


def test_what_is_not_finite_has_no_forces():
    point, normal = enclosing_contacts(0)
    point[3, 1] = np.nan
    found = balanced_forces(point, normal, FRICTION, EVENNESS)
    assert np.isnan(found.force).all() and np.isnan(found.residual)


def test_pushes_begin_along_the_axis_with_the_least_force():
    force = np.array([[0.4, 0.2, 0.0], [-0.4, 0.1, 0.05], [0.0, -0.3, -0.05]])
    assert push_order(force) == (4, 5, 2, 3, 0, 1)
    assert push_order(np.full((3, 3), np.nan)) == push_order(np.zeros((0, 3))) == (0, 1, 2, 3, 4, 5)
