"""Loads the pair of hands that a config describes; a left hand with a file of its own is matched with the right one."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from bimangrasp.errors import InputError
from bimangrasp.hand_files.bimangrasp_release import read_release_hands
from bimangrasp.hand_files.config import HandConfig
from bimangrasp.hand_files.read_hand import read_bare_hand, read_mjcf_hand
from bimangrasp.hand_files.tables import place_candidates, unit_vector
from bimangrasp.hands.description import HandDescription, frames_at, mirror, points_of_links

SIDE = re.compile(r"(?<![a-z])(left|right|lh|rh|l|r)(?![a-z])[_:./-]*", re.IGNORECASE)
"""Marks of the side in names of links and joints, which are dropped before names of two hands are compared."""

MAX_JOINT_OFFSET = 0.005
"""Largest distance of a joint from the mirror image of the right hand's, m."""

MIN_AXIS_COSINE = 0.98
"""Least cosine of a joint's axis with the mirror image of the right hand's: 11 degrees."""


def load_hands(config: HandConfig) -> tuple[HandDescription, HandDescription]:
    """Returns the left and the right hand.

    Raises:
        InputError: a value of the config or a file that it names cannot be used.
    """
    _check(config)
    if config.format == "bimangrasp":
        return read_release_hands(config)
    hand = read_mjcf_hand(config)
    if config.side == "left":
        return hand, mirror(hand)
    if config.left_mjcf:
        return read_left_hand(hand, config), hand
    return mirror(hand), hand


def _check(config: HandConfig) -> None:
    """Refuses values that contradict each other, and those that only `mode=hand` may leave out."""
    if not config.side:
        raise InputError(f"hand.side={config.side!r}; wanted right or left: which hand is in {config.mjcf!r}?")
    if config.side == "left" and config.left_mjcf:
        raise InputError("hand.left_mjcf goes with hand.side=right: hand.mjcf is then the right hand's file")
    palm = unit_vector(config.palm_normal, "hand.palm_normal")
    fingers = unit_vector(config.finger_direction, "hand.finger_direction")
    if abs(palm @ fingers) > 1e-3:
        raise InputError(
            f"hand.palm_normal={list(config.palm_normal)} and hand.finger_direction="
            f"{list(config.finger_direction)} are not perpendicular; fingers are stretched along the palm."
        )
    if config.format != "mjcf":
        return
    if config.candidates.per_link < 1:
        raise InputError(f"hand.candidates.per_link={config.candidates.per_link}; wanted at least 1.")
    if not config.candidates.palmar:
        raise InputError("hand.candidates.palmar is empty; name each link that may touch and its palmar direction.")


def read_left_hand(right: HandDescription, config: HandConfig) -> HandDescription:
    """Returns the hand of `hand.left_mjcf` as the twin of the right one, in the frame of its own root.

    It has the right hand's names, order and directions of joints: where a joint of the file turns against the right
    hand's mirror image, its axis and limits are reversed, so that equal values bend both hands alike. Candidates are
    placed on its own shapes, by the rule for the right hand.

    Raises:
        InputError: the file has other links or joints, or its hand is not close to the mirror image.
    """
    left = _reordered(right, read_bare_hand(config.left_mjcf), config.left_mjcf)
    reflection, shift = _reflection(right, left, config.left_mjcf)
    left = _with_aligned_axes(right, left, reflection, config.left_mjcf)
    frames_right, frames_left = _frames_at_zero(right), _frames_at_zero(left)
    # entry [l] takes directions in the frame of the right hand's link l to the frame of the left hand's
    turns = np.swapaxes(frames_left[:, :3, :3], 1, 2) @ reflection @ frames_right[:, :3, :3]
    names = list(right.link_names)
    palmar = {
        name: (turns[names.index(name)] @ np.array(direction)).tolist()
        for name, direction in config.candidates.palmar.items()
    }
    links, positions = place_candidates(left.primitives, names, replace(config.candidates, palmar=palmar))
    keypoints = points_of_links(frames_right, right.keypoint_link, right.keypoint_position) @ reflection.T + shift
    T_link_hand = np.linalg.inv(frames_left)
    return replace(
        left,
        side="left",
        joint_mean=np.clip(right.joint_mean, left.joint_lower, left.joint_upper),
        candidate_link=links,
        candidate_position=positions,
        keypoint_link=right.keypoint_link,
        keypoint_position=points_of_links(T_link_hand, right.keypoint_link, keypoints),
        palm_normal=reflection @ right.palm_normal,
        finger_direction=reflection @ right.finger_direction,
    )


def _reordered(right: HandDescription, left: HandDescription, source: str) -> HandDescription:
    """Returns the left hand with links and joints in the right one's order, and with its names."""
    links = _order(right.link_names, left.link_names, "links", source)
    joints = _order(right.joint_names, left.joint_names, "joints", source)
    new_index = np.argsort(links)
    parent = np.array([-1 if left.parent[old] < 0 else new_index[left.parent[old]] for old in links])
    joint_link = new_index[left.joint_link[joints]]
    if not (np.array_equal(parent, right.parent) and np.array_equal(joint_link, right.joint_link)):
        raise InputError(f"hand.left_mjcf={source!r}: its links hang together in another way than the right hand's")
    shapes = [replace(shape, link=int(new_index[shape.link])) for shape in left.primitives]
    return replace(
        left,
        link_names=right.link_names,
        parent=parent,
        T_parent_link=left.T_parent_link[links],
        joint_names=right.joint_names,
        joint_link=joint_link,
        joint_axis=left.joint_axis[joints],
        joint_lower=left.joint_lower[joints],
        joint_upper=left.joint_upper[joints],
        primitives=tuple(sorted(shapes, key=lambda shape: shape.link)),
    )


def _order(right: Sequence[str], left: Sequence[str], kind: str, source: str) -> np.ndarray:
    """Returns for each of the right hand's names its counterpart's index in the left hand: by name, or by order."""
    if len(right) != len(left):
        raise InputError(
            f"hand.left_mjcf={source!r} has {len(left)} {kind}, the right hand {len(right)}; wanted the same hand for "
            "the other side. Leave hand.left_mjcf out for the mirror image"
        )
    plain = [[SIDE.sub("", name) for name in names] for names in (right, left)]
    if sorted(plain[0]) == sorted(plain[1]) and len(set(plain[0])) == len(right):
        return np.array([plain[1].index(name) for name in plain[0]])
    return np.arange(len(right))


def _reflection(right: HandDescription, left: HandDescription, source: str) -> tuple[np.ndarray, np.ndarray]:
    """Returns matrix and shift that take the right hand's joint origins, joints at 0, to the left hand's."""
    origins = [_frames_at_zero(hand)[hand.joint_link, :3, 3] for hand in (right, left)]
    middles = [points.mean(axis=0) for points in origins]
    # orthogonal Procrustes problem for reflections: the last singular direction gets the sign that makes det = -1
    u, _, vt = np.linalg.svd((origins[1] - middles[1]).T @ (origins[0] - middles[0]))
    reflection = u @ np.diag([1.0, 1.0, -np.linalg.det(u @ vt)]) @ vt
    shift = middles[1] - reflection @ middles[0]
    offset = np.linalg.norm(origins[0] @ reflection.T + shift - origins[1], axis=1)
    if offset.max() > MAX_JOINT_OFFSET:
        raise InputError(
            f"hand.left_mjcf={source!r} is no mirror image of the right hand: with all joints at 0 its joint "
            f"{right.joint_names[int(offset.argmax())]!r} is {1000 * offset.max():.0f} mm off. Two right hands? "
            "Leave hand.left_mjcf out for the mirror image"
        )
    return reflection, shift


def _with_aligned_axes(
    right: HandDescription, left: HandDescription, reflection: np.ndarray, source: str
) -> HandDescription:
    """Returns the left hand with the axes reversed of joints that turn against the right hand's mirror image."""
    axes = [
        np.einsum("jik,jk->ji", _frames_at_zero(hand)[hand.joint_link, :3, :3], hand.joint_axis)
        for hand in (right, left)
    ]
    cosine = np.einsum("ji,ji->j", -axes[0] @ reflection.T, axes[1])  # a rotation vector mirrors with the other sign
    if (np.abs(cosine) < MIN_AXIS_COSINE).any():
        worst = int(np.argmin(np.abs(cosine)))
        raise InputError(
            f"hand.left_mjcf={source!r}: joint {right.joint_names[worst]!r} turns about another axis than the mirror "
            "image of the right hand's. Leave hand.left_mjcf out for the mirror image"
        )
    turned = cosine < 0
    return replace(
        left,
        joint_axis=np.where(turned[:, None], -left.joint_axis, left.joint_axis),
        joint_lower=np.where(turned, -left.joint_upper, left.joint_lower),
        joint_upper=np.where(turned, -left.joint_lower, left.joint_upper),
    )


def _frames_at_zero(hand: HandDescription) -> np.ndarray:
    """Returns the (L, 4, 4) poses of the links in the hand's frame with all joints at 0."""
    return frames_at(hand, np.zeros(len(hand.joint_names)))
