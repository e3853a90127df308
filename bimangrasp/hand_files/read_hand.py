"""Reads a hand from an MJCF or URDF file and its YAML, through MuJoCo."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import mujoco
import numpy as np

from bimangrasp.hand_files.collision_geometry import read_primitives
from bimangrasp.hand_files.compile import compile_hand
from bimangrasp.hand_files.config import HandConfig, find_mjcf
from bimangrasp.hand_files.contact_candidates import place_candidates
from bimangrasp.hand_files.kinematic_tree import KinematicTree, read_tree
from bimangrasp.hand_files.tables import joint_mean, keypoints, unit_vector
from bimangrasp.hands.description import HandDescription


def read_mjcf_hand(config: HandConfig) -> HandDescription:
    """Returns the hand of `config.mjcf`.

    `read_tree` and `read_primitives` define what is a link, a joint and a collision shape. Tendons, equalities and
    actuators of the file are ignored: every hinge moves independently.

    Raises:
        InputError: the file is missing, MuJoCo refuses it, it holds something that a hand cannot have, or the
            YAML names a link or joint that it does not have.
    """
    hand = read_bare_hand(config.mjcf)
    candidate_link, candidate_position = place_candidates(hand.primitives, hand.link_names, config.candidates)
    keypoint_link, keypoint_position = keypoints(config, hand.link_names)
    return replace(
        hand,
        side=config.side,
        joint_mean=joint_mean(config, hand.joint_names, hand.joint_lower, hand.joint_upper),
        candidate_link=candidate_link,
        candidate_position=candidate_position,
        keypoint_link=keypoint_link,
        keypoint_position=keypoint_position,
        palm_normal=unit_vector(config.palm_normal, "hand.palm_normal"),
        finger_direction=unit_vector(config.finger_direction, "hand.finger_direction"),
    )


def read_bare_hand(mjcf: str) -> HandDescription:
    """Returns tree and shapes of a file: all that can be read from it.

    Side, palm normal and finger direction are empty, there are no candidates and keypoints, and the means are the joint
    values nearest to 0. Such a hand can be inspected and drawn, but cannot grasp.

    Raises:
        InputError: see `read_mjcf_hand`.
    """
    path = find_mjcf(mjcf)
    with quiet_mujoco():
        model = compile_hand(path)
    tree = read_tree(model, str(path))
    fields = tree_fields(tree)
    return HandDescription(
        side="",
        **fields,
        joint_mean=np.clip(0.0, fields["joint_lower"], fields["joint_upper"]),
        primitives=read_primitives(model, tree.body_link, str(path)),
        candidate_link=np.zeros(0, np.int64),
        candidate_position=np.zeros((0, 3)),
        keypoint_link=np.zeros(0, np.int64),
        keypoint_position=np.zeros((0, 3)),
        palm_normal=np.zeros(3),
        finger_direction=np.zeros(3),
    )


@contextmanager
def quiet_mujoco() -> Iterator[None]:
    """Keeps MuJoCo from writing its warnings into MUJOCO_LOG.TXT in the current folder."""
    before = mujoco.get_mju_user_warning()
    mujoco.set_mju_user_warning(lambda message: None)  # noqa: ARG005 - a hand is only measured, never simulated here
    try:
        yield
    finally:
        mujoco.set_mju_user_warning(before)


def tree_fields(tree: KinematicTree) -> dict[str, object]:
    """Returns the tree as the fields of a HandDescription."""
    return {
        "link_names": tuple(link.name for link in tree.links),
        "parent": np.array([link.parent for link in tree.links], np.int64),
        "T_parent_link": np.stack([link.T_parent_link for link in tree.links]),
        "joint_names": tuple(joint.name for joint in tree.joints),
        "joint_link": np.array([joint.link for joint in tree.joints], np.int64),
        "joint_axis": np.stack([joint.axis for joint in tree.joints]),
        "joint_lower": np.array([joint.lower for joint in tree.joints]),
        "joint_upper": np.array([joint.upper for joint in tree.joints]),
    }
