"""Contacts for grasps without: the nearest candidates by a slow walk over all of them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import trimesh
from scene import grasps_near, shadow_hands, solid

from bimangrasp.geometry.rotation import rot6d_to_matrix
from bimangrasp.interop import bimangrasp_results as module
from bimangrasp.interop.bimangrasp_results import nearest_contacts
from bimangrasp.poses import Poses

HALF = np.array([0.5, 0.3, 0.4])
BOX = solid(trimesh.creation.box(2 * HALF))
SCALE = np.array([0.15, 0.16, 0.17, 0.15, 0.2])


def grasps(count: int = 5) -> Poses:
    given = grasps_near(shadow_hands(), count, seed=3)
    return Poses(given.translation.numpy(), rot6d_to_matrix(given.rotation).numpy(), given.joints.numpy())


def candidates(poses: Poses) -> np.ndarray:
    """The places of all candidates, (grasp, 2, candidate, 3)."""
    hands = shadow_hands()
    frames = hands.frames_from_root(*(torch.as_tensor(poses[part]) for part in (1, 0, 2)))
    every = torch.arange(hands.candidate_count).expand(poses.count, 2, -1)
    return hands.contact_points(frames, every).numpy()


def distance_to_box(point: np.ndarray, half: np.ndarray) -> float:
    """How far a point is from the surface of a box."""
    beyond = np.abs(point) - half
    return float(np.linalg.norm(np.maximum(beyond, 0)) if (beyond > 0).any() else -beyond.max())


def slow(points: np.ndarray, links: np.ndarray, half: np.ndarray, count: int) -> list[int]:
    """The candidates of one hand, nearest first, one of each link."""
    away = np.array([distance_to_box(point, half) for point in points])
    chosen: list[int] = []
    for candidate in np.argsort(away, kind="stable"):
        if links[candidate] not in links[chosen]:
            chosen.append(int(candidate))
    return chosen[:count]


def test_they_are_those_of_a_slow_walk():
    poses = grasps()
    found, _ = nearest_contacts(shadow_hands(), BOX, poses, SCALE, 4)
    points, links = candidates(poses), shadow_hands().candidate_link.numpy()
    for row in range(poses.count):
        for hand in range(2):
            wanted = slow(points[row, hand], links[hand], SCALE[row] * HALF, 4)
            assert found[row, hand].tolist() == wanted, (row, hand)


def test_normals_look_outward_from_the_object():
    poses = grasps()
    found, normal = nearest_contacts(shadow_hands(), BOX, poses, SCALE, 4)
    np.testing.assert_allclose(np.linalg.norm(normal, axis=-1), 1, atol=1e-3)
    points = np.take_along_axis(candidates(poses), found[..., None], axis=2)
    for row, hand, contact in np.ndindex(found.shape):
        point, outward, half = points[row, hand, contact], normal[row, hand, contact], SCALE[row] * HALF
        here, there = (np.maximum(np.abs(point + step * outward) - half, -np.inf).max() for step in (0.0, 0.01))
        assert there > here, (row, hand, contact)


def test_no_two_are_on_one_link_and_there_are_as_many_as_links_at_most():
    links = shadow_hands().candidate_link[0].numpy()
    touching = len(np.unique(links))
    for count in (1, touching, touching + 9):
        found, normal = nearest_contacts(shadow_hands(), BOX, grasps(2), SCALE[:2], count)
        assert found.shape == (2, 2, min(count, touching)) and normal.shape == (*found.shape, 3)
        for chosen in found.reshape(4, -1):
            assert len(np.unique(links[chosen])) == len(chosen)


@pytest.mark.parametrize("at_once", [1, 2, 5])
def test_in_parts_they_are_the_same(monkeypatch, at_once):
    whole = nearest_contacts(shadow_hands(), BOX, grasps(), SCALE, 3)
    monkeypatch.setattr(module, "_ROWS", at_once)
    for one, other in zip(whole, nearest_contacts(shadow_hands(), BOX, grasps(), SCALE, 3), strict=True):
        np.testing.assert_array_equal(one, other)


def test_no_grasps_have_none():
    found, normal = nearest_contacts(shadow_hands(), BOX, grasps().select(slice(0)), SCALE[:0], 4)
    assert found.shape == (0, 2, 4) and normal.shape == (0, 2, 4, 3)


@pytest.mark.parametrize("part", Poses._fields)
def test_a_grasp_with_nan_has_some_and_the_others_do_not_notice(part):
    broken = Poses(*(column.copy() for column in grasps()))
    getattr(broken, part)[2, 0].flat[0] = np.nan
    found, normal = nearest_contacts(shadow_hands(), BOX, broken, SCALE, 4)
    wanted, outward = nearest_contacts(shadow_hands(), BOX, grasps(), SCALE, 4)
    others = [0, 1, 3, 4]
    np.testing.assert_array_equal(found[others], wanted[others])
    np.testing.assert_array_equal(normal[others], outward[others])
    assert ((found[2] >= 0) & (found[2] < shadow_hands().candidate_count)).all()
