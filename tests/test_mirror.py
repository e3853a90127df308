from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import quick_conf
import trimesh
from tree_product import link_frames, points_in_hand, random_joints, toy_config

import conf
from bimangrasp.hand_files.loading import load_hands
from bimangrasp.hands.description import HandDescription, mirror

M = np.diag([1.0, -1.0, 1.0, 1.0])
M3 = M[:3, :3]


@pytest.fixture(params=["toy", *quick_conf.BUILT_IN])
def hands(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[HandDescription, HandDescription]:
    return load_hands(toy_config(tmp_path) if request.param == "toy" else quick_conf.load(f"hand={request.param}").hand)


def test_mirroring_twice_gives_the_same_bits(hands: tuple[HandDescription, HandDescription]):
    left, right = hands
    assert mirror(left).sha256 == right.sha256
    assert left.sha256 != right.sha256
    assert (left.side, right.side) == ("left", "right")


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_the_same_joint_values_give_the_mirror_image(hands: tuple[HandDescription, HandDescription], seed: int):
    left, right = hands
    joints = random_joints(right, seed)
    frames_left, frames_right = link_frames(left, joints), link_frames(right, joints)
    np.testing.assert_allclose(frames_left, M @ frames_right @ M, atol=1e-14)
    for table in ("candidate", "keypoint"):
        link, position = getattr(right, f"{table}_link"), getattr(right, f"{table}_position")
        mirrored = points_in_hand(frames_left, link, getattr(left, f"{table}_position"))
        np.testing.assert_allclose(mirrored, points_in_hand(frames_right, link, position) @ M3, atol=1e-14)


def test_shapes_are_mirrored_and_stay_closed_outwards(hands: tuple[HandDescription, HandDescription]):
    left, right = hands
    for ours, theirs in zip(left.primitives, right.primitives, strict=True):
        assert (ours.link, ours.shape) == (theirs.link, theirs.shape)
        assert (ours.size == theirs.size).all()
        np.testing.assert_allclose(ours.T_link_shape, M @ theirs.T_link_shape @ M, atol=0)
        assert (ours.vertices == theirs.vertices @ M3).all()
        if ours.shape == "mesh":
            volumes = [trimesh.Trimesh(s.vertices, s.faces, process=False).volume for s in (ours, theirs)]
            assert volumes[0] == pytest.approx(volumes[1])
            assert volumes[0] > 0


def test_names_limits_and_means_are_the_same(hands: tuple[HandDescription, HandDescription]):
    left, right = hands
    for name in ("link_names", "joint_names"):
        assert getattr(left, name) == getattr(right, name)
    for name in ("parent", "joint_link", "joint_lower", "joint_upper", "joint_mean", "candidate_link"):
        assert (getattr(left, name) == getattr(right, name)).all()


@pytest.mark.slow
@pytest.mark.parametrize(("name", "palms"), [("shadow", ([0, 1, 0], [0, -1, 0])), ("allegro", ([1, 0, 0], [1, 0, 0]))])
def test_palm_and_fingers_look_where_their_mirror_images_do(name: str, palms: tuple[list[int], list[int]]):
    left, right = load_hands(quick_conf.load(f"hand={name}").hand)
    assert (left.palm_normal == palms[0]).all() and (right.palm_normal == palms[1]).all()
    assert (left.finger_direction == [0, 0, 1]).all() and (right.finger_direction == [0, 0, 1]).all()


@pytest.mark.parametrize("name", quick_conf.BUILT_IN)
def test_a_right_hand_with_its_palm_to_you_has_its_thumb_on_the_left(name: str):
    for hand, sign in zip(load_hands(quick_conf.load(f"hand={name}").hand), (-1, 1), strict=True):
        frames = link_frames(hand, np.zeros(len(hand.joint_names)))
        names = [
            ("th" in link.split("_")[0], frame[:3, 3]) for link, frame in zip(hand.link_names, frames, strict=True)
        ]
        thumb = np.mean([place for is_thumb, place in names if is_thumb], axis=0)
        fingers = np.mean([place for is_thumb, place in names[1:] if not is_thumb], axis=0)
        assert sign * (thumb - fingers) @ np.cross(hand.finger_direction, hand.palm_normal) > 0.01


def test_the_left_hand_is_the_releases_in_its_joint_convention(shared: Path):
    ours = load_hands(quick_conf.load().hand)[0]
    release = [f"hand.root={shared / 'data' / 'bimangrasp_hands'}", "hand=release"]
    theirs = load_hands(conf.load(release).hand)[0]
    about_y = np.abs(theirs.joint_axis[:, 1]) > 0.5
    for seed in range(3):
        joints = random_joints(ours, seed)
        wanted = link_frames(theirs, np.where(about_y, joints, -joints))
        np.testing.assert_allclose(link_frames(ours, joints), wanted, atol=1e-12)
