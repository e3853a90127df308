"""The built-in hands and the release's, driven by converted joint values, have their links in the same places."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import quick_conf
import torch
from scipy.spatial.transform import Rotation

from bimangrasp.errors import InputError
from bimangrasp.hand_files.loading import load_hands
from bimangrasp.hands.model import HandModel
from bimangrasp.interop.bimangrasp_results import ABOUT_Y, RELEASED, SHADOW, from_released, left_signs, to_released
from bimangrasp.poses import Poses


def drawn(count: int, seed: int = 0) -> Poses:
    """Random poses of the built-in hands, joints within their limits."""
    draw, hand = np.random.default_rng(seed), load_hands(quick_conf.load().hand)[1]
    turns = Rotation.random(2 * count, rng=draw).as_matrix().reshape(count, 2, 3, 3)
    joints = draw.uniform(hand.joint_lower, hand.joint_upper, (count, 2, len(hand.joint_names)))
    return Poses(draw.normal(size=(count, 2, 3)), turns, joints)


def test_names_are_those_of_the_built_in_hand():
    assert load_hands(quick_conf.load().hand)[1].joint_names == SHADOW


def test_signs_are_those_between_the_axes_of_the_mirrored_hand_and_of_the_right_one():
    """The release's left hand has the axes of its right one."""
    left, right = load_hands(quick_conf.load().hand)
    np.testing.assert_allclose((left.joint_axis * right.joint_axis).sum(1), left_signs(SHADOW), atol=1e-12)
    assert {name for name, axis in zip(SHADOW, right.joint_axis, strict=True) if abs(axis[1]) > 0.5} == set(ABOUT_Y)


@pytest.mark.slow
def test_links_of_both_kinds_of_hands_are_in_the_same_places(shared: Path):
    root = shared / "data" / "bimangrasp_hands"
    ours = HandModel(*load_hands(quick_conf.load().hand), surface_points=1)
    theirs = HandModel(*load_hands(quick_conf.load("hand=release", f"hand.root='{root}'").hand), surface_points=1)
    assert theirs.joint_names == RELEASED
    poses = drawn(20)
    frames = [
        hands.frames_from_root(*(torch.as_tensor(part) for part in (one.rotation, one.translation, one.joints)))
        for hands, one in ((ours, poses), (theirs, to_released(poses, SHADOW, "test")))
    ]
    plain = [name.removeprefix("robot0:") for name in theirs.names]
    assert plain == [name.replace("_", "") for name in ours.names]
    torch.testing.assert_close(frames[0].translation, frames[1].translation, atol=1e-6, rtol=0)
    torch.testing.assert_close(frames[0].rotation, frames[1].rotation, atol=1e-6, rtol=0)


def test_back_again_is_where_it_began():
    poses = drawn(5)
    back = from_released(to_released(poses, SHADOW, "test"), RELEASED, SHADOW, "test")
    assert all((one == other).all() for one, other in zip(back, poses, strict=True))


def test_joints_go_by_their_names():
    poses, order = drawn(3), np.random.default_rng(1).permutation(len(SHADOW))
    mixed = poses._replace(joints=poses.joints[:, :, order])
    names = tuple(SHADOW[i] for i in order)
    wanted = to_released(poses, SHADOW, "test").joints
    assert (to_released(mixed, names, "test").joints == wanted).all()
    released = to_released(poses, SHADOW, "test")
    released = released._replace(joints=released.joints[:, :, order])
    theirs = tuple(RELEASED[i] for i in order)
    assert (from_released(released, theirs, SHADOW, "test").joints == poses.joints).all()
    assert (from_released(released, theirs, names, "test").joints == mixed.joints).all()


def test_the_releases_own_hands_keep_their_values():
    poses = drawn(3)
    assert (to_released(poses, RELEASED, "test").joints == poses.joints).all()
    assert (from_released(poses, RELEASED, RELEASED, "test").joints == poses.joints).all()


def test_the_right_hand_keeps_its_values_and_precision():
    poses = drawn(3)._replace(joints=drawn(3).joints.astype(np.float32))
    released = to_released(poses, SHADOW, "test")
    assert released.joints.dtype == np.float32 and (released.joints[:, 1] == poses.joints[:, 1]).all()


def test_other_hands_are_refused_by_their_joints():
    poses = drawn(1)
    allegro = tuple(f"joint_{i}" for i in range(22))
    with pytest.raises(InputError, match="mug.h5 has the joints joint_0.*for the Shadow hands alone.*format=npz"):
        to_released(poses, allegro, "mug.h5")
    words = "mug.npy has other joints .*: it lacks robot0:FFJ3, .* and 17 more and has joint_0, .*; wanted the 22 from"
    with pytest.raises(InputError, match=words):
        from_released(poses, allegro, SHADOW, "mug.npy")
    with pytest.raises(InputError, match="wanted hand=shadow or hand=release, not one with joint_0"):
        from_released(poses, RELEASED, allegro, "mug.npy")


def test_a_joint_that_is_missing_is_named_alone():
    names = tuple(name for name in RELEASED if name != "robot0:RFJ1")
    poses = drawn(1)
    with pytest.raises(
        InputError, match=r"release: it lacks robot0:RFJ1; wanted the 22 from robot0:FFJ3 to robot0:THJ0"
    ):
        from_released(poses._replace(joints=poses.joints[:, :, 1:]), names, SHADOW, "mug.npy")
    with pytest.raises(InputError, match="release: it has none;"):
        from_released(poses, (), SHADOW, "mug.npy")
