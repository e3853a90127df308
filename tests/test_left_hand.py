"""A left hand from a file of its own is the right hand's twin, whatever its file calls and turns."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import mujoco
import numpy as np
import pytest
import quick_conf
import torch
from scipy.spatial.transform import Rotation
from shape_distance import signed_distance
from tree_product import link_frames, points_in_hand, random_joints

from bimangrasp.errors import InputError
from bimangrasp.hand_files.config import HandConfig, find_mjcf
from bimangrasp.hand_files.loading import load_hands
from bimangrasp.hands import model
from bimangrasp.hands.collision_shapes import InscribedSpheres
from bimangrasp.hands.description import HandDescription, mirror
from bimangrasp.hands.model import HandModel
from bimangrasp.hands.mujoco_bodies import quaternion

TURNED = ("index_0", "thumb_1", "thumb_3")
ROOT = Rotation.from_rotvec([0.4, -0.9, 0.3])
SHIFT = np.array([0.02, -0.01, 0.03])


def write_hand(path: Path, hand: HandDescription, turned: tuple[str, ...] = TURNED, skip: str = "") -> Path:
    """A file of a hand as others write it: its own root frame, prefixed names, other fingers first, joints turned."""
    spec = mujoco.MjSpec()
    spec.compiler.degree = False
    bodies = {0: spec.worldbody.add_body(name="left_palm")}
    children = [link for link in range(1, len(hand.parent)) if hand.link_names[link] != skip]
    tops = [link for link in children if hand.parent[link] == 0][::-1]
    order = sorted(children, key=lambda link: (tops.index(top(hand, link)), link))
    for link in order:
        T = hand.T_parent_link[link].copy()
        if hand.parent[link] == 0:
            T[:3, :3], T[:3, 3] = ROOT.as_matrix() @ T[:3, :3], ROOT.apply(T[:3, 3]) + SHIFT
        parent = bodies[int(hand.parent[link])]
        bodies[link] = parent.add_body(name=f"left_{hand.link_names[link]}", pos=T[:3, 3], quat=quaternion(T[:3, :3]))
    for joint, link in enumerate(hand.joint_link):
        if link in bodies:
            name, sign = hand.joint_names[joint], -1.0 if hand.joint_names[joint] in turned else 1.0
            limits = sorted((sign * hand.joint_lower[joint], sign * hand.joint_upper[joint]))
            bodies[link].add_joint(name=f"left_{name}", axis=sign * hand.joint_axis[joint], range=limits, limited=True)
    for shape in hand.primitives:
        if shape.link not in bodies:
            continue
        T = shape.T_link_shape.copy()
        if shape.link == 0:
            T[:3, :3], T[:3, 3] = ROOT.as_matrix() @ T[:3, :3], ROOT.apply(T[:3, 3]) + SHIFT
        kind = getattr(mujoco.mjtGeom, f"mjGEOM_{shape.shape.upper()}")
        bodies[shape.link].add_geom(type=kind, size=shape.size, pos=T[:3, 3], quat=quaternion(T[:3, :3]))
    spec.compile()
    path.write_text(spec.to_xml())
    return path


def top(hand: HandDescription, link: int) -> int:
    while hand.parent[link]:
        link = int(hand.parent[link])
    return link


@pytest.fixture(scope="module")
def config() -> HandConfig:
    return quick_conf.load("hand=allegro").hand


@pytest.fixture(scope="module")
def pair(config: HandConfig, tmp_path_factory: pytest.TempPathFactory) -> tuple[HandDescription, HandDescription]:
    path = write_hand(tmp_path_factory.mktemp("left") / "left.xml", mirror(load_hands(config)[1]))
    return load_hands(replace(config, left_mjcf=str(path)))


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_equal_joint_values_bend_both_hands_alike(pair, seed: int):
    left, right = pair
    assert (left.side, right.side) == ("left", "right")
    joints = random_joints(right, seed)
    turn = np.eye(4)
    turn[:3, :3], turn[:3, 3] = ROOT.as_matrix(), SHIFT
    wanted = turn @ link_frames(mirror(right), joints)
    frames = link_frames(left, joints)
    np.testing.assert_allclose(frames[1:], wanted[1:], atol=1e-5)  # a file has six digits
    points = points_in_hand(frames, left.keypoint_link, left.keypoint_position)
    twins = points_in_hand(link_frames(mirror(right), joints), right.keypoint_link, mirror(right).keypoint_position)
    np.testing.assert_allclose(points, ROOT.apply(twins) + SHIFT, atol=1e-5)


def test_names_limits_and_directions_are_the_twins(pair):
    left, right = pair
    assert left.link_names == right.link_names and left.joint_names == right.joint_names
    for name in ("joint_lower", "joint_upper", "joint_mean"):
        np.testing.assert_allclose(getattr(left, name), getattr(right, name), atol=1e-9)
    np.testing.assert_allclose(left.palm_normal, ROOT.apply(mirror(right).palm_normal), atol=1e-6)
    np.testing.assert_allclose(left.finger_direction, ROOT.apply(mirror(right).finger_direction), atol=1e-6)


def test_candidates_lie_on_the_palmar_side_of_its_own_shapes(pair):
    left, right = pair
    hands = HandModel(left, right, surface_points=20)
    assert np.array_equal(left.candidate_link, right.candidate_link)
    rest = np.zeros(len(right.joint_names))
    ours, twins = link_frames(left, rest), link_frames(mirror(right), rest)
    points = points_in_hand(ours, left.candidate_link, left.candidate_position)
    mirrored = (
        points_in_hand(twins, right.candidate_link, mirror(right).candidate_position) @ ROOT.as_matrix().T + SHIFT
    )
    for link in set(left.candidate_link.tolist()):
        here, there = (cloud[left.candidate_link == link].mean(axis=0) for cloud in (points, mirrored))
        assert np.linalg.norm(here - there) < 0.004
    pose = torch.eye(3).expand(1, 2, 3, 3), torch.zeros((1, 2, 3)), torch.zeros((1, 2, len(rest)))
    distance = signed_distance(
        hands.shapes, hands.frames_from_root(*pose).to(torch.float32), torch.as_tensor(points[None]).float()
    )
    assert distance[0, 0].max() < 1e-5


def test_depth_wants_shapes_that_are_mirror_images(pair, monkeypatch: pytest.MonkeyPatch):
    def spheres(hand: HandDescription) -> InscribedSpheres:
        count = {"left": 2, "right": 3}[hand.side]
        return InscribedSpheres(np.zeros(count, np.int64), np.zeros((count, 3)), np.ones(count))

    monkeypatch.setattr(model, "inscribed_spheres", spheres)
    with pytest.raises(InputError, match="energy.w_depth wants hands whose shapes are mirror images"):
        _ = HandModel(*pair, surface_points=20).spheres


REFUSED = {
    "a finger less": (lambda right: (mirror(right), (), "ring_distal"), ["16 links", "the right hand 17"]),
    "two right hands": (lambda right: (right, (), ""), ["no mirror image", "mm off", "Two right hands?"]),
    "another axis": (
        lambda right: (replace(mirror(right), joint_axis=mirror(right).joint_axis[:, [1, 2, 0]]), (), ""),
        ["turns about another axis"],
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("case", REFUSED)
def test_a_file_of_another_hand_is_refused(config: HandConfig, tmp_path: Path, case: str):
    change, words = REFUSED[case]
    hand, turned, skip = change(load_hands(config)[1])
    path = write_hand(tmp_path / "left.xml", hand, turned, skip)
    with pytest.raises(InputError) as error:
        load_hands(replace(config, left_mjcf=str(path)))
    for word in [str(path), *words]:
        assert word in str(error.value)


def test_a_left_file_wants_a_right_one(config: HandConfig):
    with pytest.raises(InputError, match="hand.left_mjcf goes with hand.side=right"):
        load_hands(replace(config, side="left", left_mjcf="left.xml"))


@pytest.mark.slow
def test_a_left_hands_file_gives_the_same_pair(config: HandConfig, tmp_path: Path):
    left, right = load_hands(config)
    turn = left.palm_normal.tolist(), left.finger_direction.tolist()
    text = find_mjcf(config.mjcf).read_text()
    given = replace(config, side="left", palm_normal=turn[0], finger_direction=turn[1], mjcf=str(tmp_path / "l.xml"))
    (tmp_path / "l.xml").write_text(text)
    first, second = load_hands(given)
    assert first.side == "left" and second.side == "right"
    assert mirror(first).sha256 == second.sha256
    np.testing.assert_allclose(first.T_parent_link, right.T_parent_link)
