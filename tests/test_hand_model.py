from dataclasses import replace

import numpy as np
import pytest
import quick_conf
import torch
from scene import built_in_hands, grasps_near, shadow_hands
from shape_distance import signed_distance
from tree_product import link_frames, points_in_hand, toy_config

from bimangrasp.errors import InputError
from bimangrasp.geometry.rotation import rot6d_to_matrix
from bimangrasp.hand_files.loading import load_hands
from bimangrasp.hands.description import mirror
from bimangrasp.hands.model import HandModel, surface_of

M = torch.diag(torch.tensor([1.0, -1.0, 1.0], dtype=torch.float64))


@pytest.fixture(params=["toy", *quick_conf.BUILT_IN])
def hands(request, tmp_path):
    if request.param != "toy":
        return built_in_hands(request.param)
    return HandModel(*load_hands(toy_config(tmp_path)), surface_points=60, dtype=torch.float64)


def reference_frames(hands, grasps, sample, side):
    """Link frames in the object's frame, from the slow tree product."""
    T = np.eye(4)
    T[:3, :3], T[:3, 3] = rot6d_to_matrix(grasps.rotation)[sample, side], grasps.translation[sample, side]
    return T @ link_frames(hands.descriptions[side], grasps.joints[sample, side].numpy())


@pytest.mark.slow
@pytest.mark.parametrize("side", [0, 1])
def test_link_frames_and_points_equal_the_tree_product(hands, side):
    grasps = grasps_near(hands, 3, seed=1)
    frames = hands.link_frames(grasps)
    expected = reference_frames(hands, grasps, 2, side)
    np.testing.assert_allclose(frames.rotation[2, side], expected[:, :3, :3], atol=1e-12)
    np.testing.assert_allclose(frames.translation[2, side], expected[:, :3, 3], atol=1e-12)
    hand = hands.descriptions[side]
    chosen = grasps.candidate[2, side]
    contacts = points_in_hand(expected, hand.candidate_link[chosen], hand.candidate_position[chosen])
    np.testing.assert_allclose(hands.contact_points(frames, grasps.candidate)[2, side], contacts, atol=1e-12)
    keypoints = points_in_hand(expected, hand.keypoint_link, hand.keypoint_position)
    np.testing.assert_allclose(hands.keypoints(frames)[2, side], keypoints, atol=1e-12)
    surface = points_in_hand(expected, *surface_of(hand, hands.surface.shape[1]))
    np.testing.assert_allclose(hands.surface_points(frames, side)[2], surface, atol=1e-12)


def test_surface_points_lie_on_the_shapes(hands):
    grasps = grasps_near(hands, 1, seed=2)
    frames = hands.link_frames(grasps)
    for side in (0, 1):
        points = hands.surface_points(frames, side)
        distance = signed_distance(hands.shapes, frames, points)[0, side]
        on_a_shape = distance.abs() < 1.2e-4  # facets of round shapes, and the floor under a mesh's root
        inside_another = distance < 0
        assert (on_a_shape | inside_another).all() and on_a_shape.double().mean() > 0.5


def test_links_share_the_surface_by_area():
    hand = shadow_hands().descriptions[1]
    link, _ = surface_of(hand, 1000)
    counts = np.bincount(link, minlength=len(hand.link_names))
    names = dict(zip(hand.link_names, counts, strict=True))
    capsule = 2 * np.pi * 0.01 * 0.045 + 4 * np.pi * 0.01**2
    thumb = 2 * np.pi * 0.013 * 0.038 + 4 * np.pi * 0.013**2
    assert names["th_proximal"] / names["ff_proximal"] == pytest.approx(thumb / capsule, rel=0.05)
    assert names["ff_knuckle"] == 0 and counts.sum() == 1000


def test_a_mirrored_grasp_has_mirrored_frames_and_points(hands):
    grasps = grasps_near(hands, 4, seed=3)
    R = rot6d_to_matrix(grasps.rotation).flip(1)
    mirrored = type(grasps)(
        grasps.translation.flip(1) @ M,
        torch.cat(((M @ R @ M)[..., 0], (M @ R @ M)[..., 1]), dim=-1),
        grasps.joints.flip(1),
        grasps.candidate.flip(1),
    )
    frames, other = hands.link_frames(grasps), hands.link_frames(mirrored)
    torch.testing.assert_close(other.translation, frames.translation.flip(1) @ M)
    torch.testing.assert_close(other.rotation, M @ frames.rotation.flip(1) @ M)
    points = hands.contact_points(other, mirrored.candidate)
    torch.testing.assert_close(points, hands.contact_points(frames, grasps.candidate).flip(1) @ M)
    for side in (0, 1):
        torch.testing.assert_close(hands.surface_points(other, side), hands.surface_points(frames, 1 - side) @ M)


def test_surface_points_are_the_same_every_time():
    left, right = load_hands(quick_conf.load().hand)
    assert np.array_equal(surface_of(right, 50)[1], surface_of(right, 50)[1])
    moved = replace(right, joint_upper=right.joint_upper + 1)
    assert not np.array_equal(surface_of(right, 50)[1], surface_of(moved, 50)[1])


def test_the_device_is_that_of_the_tables_however_it_was_named():
    """Warp finds no device "cuda"; tensors that were put there are on "cuda:0", as those on "cpu:0" are on "cpu"."""
    hands = HandModel(*load_hands(quick_conf.load().hand), surface_points=1, device="cpu:0")
    assert hands.device == hands.joint_lower.device == torch.device("cpu")


def test_two_hands_of_different_trees_are_refused():
    left, right = load_hands(quick_conf.load().hand)
    renamed = replace(left, joint_names=("other", *left.joint_names[1:]))
    with pytest.raises(InputError, match="joint_names"):
        HandModel(renamed, right, surface_points=1)
    with pytest.raises(InputError, match="collision shapes"):
        HandModel(replace(left, primitives=left.primitives[:-1]), mirror(left), surface_points=1)


def test_hand_points_are_spread():
    hand = shadow_hands().descriptions[1]
    link, position = surface_of(hand, 500)
    one = position[link == hand.link_names.index("th_proximal")]
    gap = np.linalg.norm(one[:, None] - one[None], axis=-1) + np.eye(len(one))
    assert gap.min() > 0.5 * gap.min(axis=1).mean()


@pytest.mark.slow
def test_every_link_but_the_root_has_its_share_rounded_down():
    hand = shadow_hands().descriptions[1]
    few, many = (np.bincount(surface_of(hand, n)[0], minlength=len(hand.link_names)) for n in (37, 3700))
    share = (many[1:] + 0.999) / 3700
    assert (few[1:] <= share * 37).all() and few.sum() == 37


def test_a_hand_reaches_as_far_along_a_direction_as_its_farthest_surface_point():
    hands = HandModel(*shadow_hands().descriptions, 500)
    direction = torch.nn.functional.normalize(torch.randn(6, 2, 3, generator=torch.Generator().manual_seed(4)), dim=-1)
    grasps = grasps_near(hands, 6, 3)
    frames = hands.link_frames(grasps)
    points = torch.stack([hands.surface_points(frames, side) for side in (0, 1)], dim=1)
    farthest = ((points - grasps.translation[:, :, None]) * direction[:, :, None]).sum(-1).amax(-1)
    reach = hands.reach(rot6d_to_matrix(grasps.rotation), grasps.joints, direction.to(hands.dtype))
    torch.testing.assert_close(reach, farthest, atol=1e-6, rtol=0)
