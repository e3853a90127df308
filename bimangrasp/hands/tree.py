"""The tree of a hand as NumPy sees it: poses of its links, parts that move as one, chains of fingers."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy.spatial.transform import Rotation

from bimangrasp.hands.description import HandDescription


class Chain(NamedTuple):
    """A finger: what moves from the palm to one tip.

    Attributes:
        links: every link on the way, from the one next to the palm on; the last ones move with the tip.
        joints: those that move them, in the same order.
        tip: the last link with a joint, which carries the tip.
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
    ends = _ends(hand)
    ways = [_way(hand, end) for end in ends]
    if len(ways) == 1:
        return 0
    shared = [links[0] for links in zip(*ways, strict=False) if len(set(links)) == 1]
    return shared[-1]


def find_chains(hand: HandDescription) -> list[Chain]:
    """Returns the fingers, in the order of the tree."""
    palm, parts = find_palm(hand), rigid_parts(hand)
    chains = []
    for tip in _ends(hand):
        way = _way(hand, tip)
        below = way[way.index(palm) + 1 :]
        links = below + [link for link, part in enumerate(parts) if part == tip and link != tip]
        joints = [int(np.flatnonzero(hand.joint_link == link)[0]) for link in below if link in hand.joint_link]
        chains.append(Chain(tuple(links), tuple(joints), tip))
    return chains


def _ends(hand: HandDescription) -> list[int]:
    """Returns the parts with shapes below which no other part has any."""
    parts = rigid_parts(hand)
    shaped = {parts[shape.link] for shape in hand.primitives} - {0}
    carrying = {parts[link] for part in shaped for link in _way(hand, part)[:-1]}
    return sorted(shaped - carrying)


def _way(hand: HandDescription, link: int) -> list[int]:
    """Returns the links from the root to one link, both included."""
    way = [link]
    while way[-1]:
        way.append(int(hand.parent[way[-1]]))
    return way[::-1]
