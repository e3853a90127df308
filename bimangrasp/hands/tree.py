"""Walks the kinematic tree of a hand in NumPy: poses of links, rigid parts, the palm and the chains of fingers."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy.spatial.transform import Rotation

from bimangrasp.hands.description import HandDescription


class Chain(NamedTuple):
    """A finger: the links and joints from the palm to one tip.

    Attributes:
        links: every link from the palm, exclusive, to the tip, then the links that are fixed to the tip.
        joints: the joints of these links, in the same order.
        tip: the last link with a joint, which carries the fingertip.
    """

    links: tuple[int, ...]
    joints: tuple[int, ...]
    tip: int


def frames_at(hand: HandDescription, joints: np.ndarray) -> np.ndarray:
    """Returns the (L, 4, 4) poses of the links in the hand's frame at joint values, (J,) rad."""
    local = hand.T_parent_link.copy()
    turns = np.broadcast_to(np.eye(4), (len(joints), 4, 4)).copy()
    turns[:, :3, :3] = Rotation.from_rotvec(hand.joint_axis * joints[:, None]).as_matrix()
    local[hand.joint_link] = local[hand.joint_link] @ turns
    for link, parent in enumerate(hand.parent[1:], start=1):
        local[link] = local[parent] @ local[link]
    return local


def points_of_links(frames: np.ndarray, links: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Returns points (N, 3) in link coordinates of the `links` (N,), m, in the hand's frame, for `frames` (L, 4, 4)."""
    return np.einsum("nij,nj->ni", frames[links][:, :3, :3], points) + frames[links][:, :3, 3]


def at_rest(hand: HandDescription) -> np.ndarray:
    """Returns the joint values nearest to 0, (J,) rad."""
    return np.clip(0.0, hand.joint_lower, hand.joint_upper)


def rigid_parts(hand: HandDescription) -> list[int]:
    """Returns for each link the topmost link that it is fixed to."""
    parts: list[int] = []
    for link, parent in enumerate(hand.parent):
        parts.append(link if link == 0 or link in hand.joint_link else parts[parent])
    return parts


def find_palm(hand: HandDescription) -> int:
    """Returns the last link, from the root on, that carries all fingers: the palm.

    A part without collision shapes below it, such as a frame for a sensor, is no finger.
    """
    paths = [_path_from_root(hand, tip) for tip in _fingertip_parts(hand)]
    if len(paths) == 1:
        return 0
    shared = [links[0] for links in zip(*paths, strict=False) if len(set(links)) == 1]
    return shared[-1]


def find_chains(hand: HandDescription) -> list[Chain]:
    """Returns the fingers, in the order of the tree."""
    palm, parts = find_palm(hand), rigid_parts(hand)
    chains = []
    for tip in _fingertip_parts(hand):
        path = _path_from_root(hand, tip)
        below = path[path.index(palm) + 1 :]
        links = below + [link for link, part in enumerate(parts) if part == tip and link != tip]
        joints = [int(np.flatnonzero(hand.joint_link == link)[0]) for link in below if link in hand.joint_link]
        chains.append(Chain(tuple(links), tuple(joints), tip))
    return chains


def _fingertip_parts(hand: HandDescription) -> list[int]:
    """Returns the rigid parts that have shapes and no other part with shapes below them."""
    parts = rigid_parts(hand)
    shaped = {parts[shape.link] for shape in hand.primitives} - {0}
    carrying = {parts[link] for part in shaped for link in _path_from_root(hand, part)[:-1]}
    return sorted(shaped - carrying)


def _path_from_root(hand: HandDescription, link: int) -> list[int]:
    """Returns the links from the root to a link, both included."""
    path = [link]
    while path[-1]:
        path.append(int(hand.parent[path[-1]]))
    return path[::-1]
