"""Describes which joints of a hand move together, and computes all joints from the values that are free.

A node is a joint, or a tendon that several joints share. A free node has a coordinate of its own; any other is computed
from one node, and so in the end from one coordinate.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

FIXED = -1
"""The leader of a node that has one value for good."""

DEGREES = 5
"""Coefficients of a polynomial, in ascending degree; MuJoCo's joint equalities have as many."""

SAMPLES = 4097
"""Values of a coordinate at which the limits of all that follow it are looked at; their ends are found exactly."""

BEYOND = 1e-9
"""A joint counts as within its limits up to this, rad: a limit may be its leader's, times a rounded number."""


class Tendon(NamedTuple):
    """What a motor pulls on that moves several joints: its value is the sum of coefficient times joint value.

    Attributes:
        name: unique, and no joint's.
        joints: of the hand.
        coefficients: of these joints; their sizes add up to 1, so that the value is an angle, rad.
    """

    name: str
    joints: tuple[int, ...]
    coefficients: tuple[float, ...]


class Follower(NamedTuple):
    """A node whose value is a polynomial of another's: sum of polynomial[k] * leader ** k.

    Attributes:
        node, leader: J joints come first, then the tendons; the leader may be `FIXED`.
        polynomial: five coefficients, rad.
    """

    node: int
    leader: int
    polynomial: tuple[float, ...]


class Couplings(NamedTuple):
    """All couplings of a hand; false where every joint moves by itself."""

    tendons: tuple[Tendon, ...] = ()
    followers: tuple[Follower, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.tendons or self.followers)


def coupling_rules(couplings: Couplings, joint_names: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Returns couplings by name, as a hand's YAML and grasp files have them.

    A joint that follows has `follows` and `polynomial`, a tendon has `tendon`: joint -> coefficient.
    """
    names = [*joint_names, *(tendon.name for tendon in couplings.tendons)]
    rules: dict[str, dict[str, Any]] = {}
    for tendon in couplings.tendons:
        members = zip(tendon.joints, tendon.coefficients, strict=True)
        rules[tendon.name] = {"tendon": {joint_names[joint]: coefficient for joint, coefficient in members}}
    for follower in couplings.followers:
        leader = "" if follower.leader == FIXED else names[follower.leader]
        kept = max(np.flatnonzero(follower.polynomial), default=0) + 1
        rule = {"follows": leader, "polynomial": list(follower.polynomial[:kept])}
        rules[names[follower.node]] = rules.get(names[follower.node], {}) | rule
    return rules


class CoordinateTable(NamedTuple):
    """How the N nodes of a hand with J joints follow from its F coordinates.

    A node's value is a polynomial of its parent's, another one in each piece between two knots. All is continuous.

    Attributes:
        order: the nodes, each behind the one that it is computed from.
        parent: (N,) node from which a node is computed; -1 for the coordinate.
        coordinate: (N,) the coordinate that decides a node.
        knots: (N, S - 1) where pieces of the polynomials meet, ascending, filled up with infinity.
        polynomial: (N, S, 5) coefficients in ascending degree.
        free: (F,) the nodes that are coordinates, in the order of the first joint that each moves.
        weights: (F, J) what the joints are multiplied by to give the coordinates.
        lower, upper: (F,) range of a coordinate in which all joints that follow it are within their limits.
    """

    order: tuple[int, ...]
    parent: np.ndarray
    coordinate: np.ndarray
    knots: np.ndarray
    polynomial: np.ndarray
    free: np.ndarray
    weights: np.ndarray
    lower: np.ndarray
    upper: np.ndarray

    @property
    def moved(self) -> list[list[int]]:
        """The joints that each coordinate moves; joints that are fixed are nowhere."""
        fixed = np.zeros(len(self.parent), bool)
        for node in self.order:
            fixed[node] = not self.polynomial[node, :, 1:].any() or (
                self.parent[node] >= 0 and fixed[self.parent[node]]
            )
        own = np.where(fixed, -1, self.coordinate)[: self.weights.shape[1]]
        return [np.flatnonzero(own == number).tolist() for number in range(len(self.free))]

    def joints_at(self, coordinates: np.ndarray) -> np.ndarray:
        """Returns the values of all joints, (..., J), at coordinates (..., F)."""
        value = np.zeros((*coordinates.shape[:-1], len(self.parent)))
        for node in self.order:
            given = coordinates[..., self.coordinate[node]] if self.parent[node] < 0 else value[..., self.parent[node]]
            piece = np.searchsorted(self.knots[node], given)
            value[..., node] = sum(self.polynomial[node, piece, k] * given**k for k in range(DEGREES))
        return value[..., : self.weights.shape[1]]

    def coordinates_of(self, joints: np.ndarray) -> np.ndarray:
        """Returns the coordinates, (..., F), of joints (..., J): leaders as they are, and the tendons' values."""
        return joints @ self.weights.T


@lru_cache(64)
def coordinate_table(couplings: Couplings, lower: tuple[float, ...], upper: tuple[float, ...]) -> CoordinateTable:
    """Returns how all joints follow from the coordinates of a hand.

    The joints of a tendon share its value by their coefficients: each turns from 0, or its limit nearest to 0, in
    proportion to its own until it meets a limit, and then the others go on. Beyond the limits of all of them they go on
    together, so that a value out of range shows in the joints.

    Args:
        couplings: without rings, and each node computed from one other.
        lower: J limits, rad.
        upper: the same.

    Raises:
        ValueError: no value of a coordinate leaves all that follow it within their limits; it names a joint of each.
    """
    parent, pieces = _nodes(couplings, lower, upper)
    order, joints = _order(parent), len(lower)
    fixed = {follower.node for follower in couplings.followers if follower.leader == FIXED}
    places = [*range(joints), *(min(tendon.joints) for tendon in couplings.tendons)]
    free = sorted((node for node in order if parent[node] < 0 and node not in fixed), key=places.__getitem__)
    coordinate = np.zeros(len(parent), np.int64)
    for node in order:
        if parent[node] >= 0:
            coordinate[node] = coordinate[parent[node]]
        elif node not in fixed:
            coordinate[node] = free.index(node)
    weights = np.zeros((len(free), joints))
    for row, node in enumerate(free):
        tendon = couplings.tendons[node - joints] if node >= joints else Tendon("", (node,), (1.0,))
        weights[row, list(tendon.joints)] = tendon.coefficients
    nothing, numbers = np.zeros(len(free)), np.array(free, np.int64)
    table = CoordinateTable(order, parent, coordinate, *_filled(pieces), numbers, weights, nothing, nothing)
    low, high = _ranges(table, np.array(lower), np.array(upper))
    return table._replace(lower=low, upper=high)


Pieces = list[tuple[float, np.ndarray]]
"""The polynomials of a node, each with the value of the parent up to which it holds."""


def _nodes(couplings: Couplings, lower: tuple[float, ...], upper: tuple[float, ...]) -> tuple[np.ndarray, list[Pieces]]:
    """Returns the parents and the pieces of all nodes."""
    joints, count = len(lower), len(lower) + len(couplings.tendons)
    parent = np.full(count, -1)
    pieces: list[Pieces] = [[(np.inf, np.eye(DEGREES)[1])] for _ in range(count)]
    for follower in couplings.followers:
        parent[follower.node] = follower.leader
        pieces[follower.node] = [(np.inf, np.array(follower.polynomial, float))]
    for number, tendon in enumerate(couplings.tendons, start=joints):
        for joint, own in zip(tendon.joints, _shares(tendon, lower, upper), strict=True):
            parent[joint], pieces[joint] = number, own
    return parent, pieces


def _filled(pieces: list[Pieces]) -> tuple[np.ndarray, np.ndarray]:
    """Returns knots and polynomials of all nodes as tables."""
    most = max(len(own) for own in pieces)
    knots, polynomial = np.full((len(pieces), most - 1), np.inf), np.zeros((len(pieces), most, DEGREES))
    for node, own in enumerate(pieces):
        knots[node, : len(own) - 1] = [end for end, _ in own[:-1]]
        polynomial[node, : len(own)] = [coefficients for _, coefficients in own]
    return knots, polynomial


def _order(parent: np.ndarray) -> tuple[int, ...]:
    """Returns the nodes, each behind its parent; those of a ring have no place and are left out."""
    order: list[int] = []
    while ready := [node for node in range(len(parent)) if node not in order and parent[node] in (-1, *order)]:
        order += ready
    return tuple(order)


def _shares(tendon: Tendon, lower: tuple[float, ...], upper: tuple[float, ...]) -> list[Pieces]:
    """Returns for each joint of a tendon the pieces of its share."""
    coefficient = np.array(tendon.coefficients)
    low, high = (np.array([limits[joint] for joint in tendon.joints]) for limits in (lower, upper))
    # with all joints at clip(coefficient * pull, low, high) the value rises with the pull, in straight pieces
    pulls = np.unique(np.concatenate((low / coefficient, high / coefficient)))
    angles = np.clip(coefficient * pulls[:, None], low, high)
    values, places = np.unique(angles @ coefficient, return_index=True)
    angles = angles[places]
    beyond = coefficient / (coefficient @ coefficient)
    slopes = np.concatenate((beyond[None], np.diff(angles, axis=0) / np.diff(values)[:, None], beyond[None]))
    corners = np.concatenate(([0], np.arange(len(values))))  # a corner of each piece: its own first, but for the first
    offsets = angles[corners] - slopes * values[corners, None]
    ends = [*values, np.inf]
    unit = np.eye(DEGREES)
    return [
        [(end, offset * unit[0] + slope * unit[1]) for end, offset, slope in zip(ends, *columns, strict=True)]
        for columns in zip(offsets.T, slopes.T, strict=True)
    ]


def _ranges(table: CoordinateTable, lower: np.ndarray, upper: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns lower and upper ends of all coordinates."""
    ends, beyond = [], []
    for number in range(len(table.free)):
        moved = np.flatnonzero(table.coordinate[: len(lower)] == number)
        own = np.sort([(table.weights[number] * limit).sum() for limit in _own_limits(table, number, lower, upper)])
        is_alone = moved.tolist() == [table.free[number]]
        try:
            ends.append(own if is_alone else _range(table, number, own, (moved, lower[moved], upper[moved])))
        except ValueError as error:
            beyond += error.args
    if beyond:
        raise ValueError(*beyond)
    return tuple(np.array(ends).reshape(-1, 2).T)


def _own_limits(
    table: CoordinateTable, number: int, lower: np.ndarray, upper: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Returns the joint values at which a coordinate is least and greatest."""
    is_pulled = table.weights[number] >= 0
    return np.where(is_pulled, lower, upper), np.where(is_pulled, upper, lower)


def _range(
    table: CoordinateTable, number: int, own: np.ndarray, limits: tuple[np.ndarray, np.ndarray, np.ndarray]
) -> tuple[float, float]:
    """Returns the part of a coordinate's own range in which these joints are within limits; of several the widest."""
    moved, lower, upper = limits

    def excess(values: np.ndarray) -> np.ndarray:
        coordinates = np.zeros((len(values), len(table.free)))
        coordinates[:, number] = values
        joints = table.joints_at(coordinates)[:, moved]
        return np.maximum(joints - upper, lower - joints)

    values = np.linspace(*own, SAMPLES)
    good = (excess(values) <= BEYOND).all(axis=1)
    if not good.any():
        worst = int(moved[excess(values).min(axis=0).argmax()])
        raise ValueError(worst)
    edges = np.flatnonzero(np.diff(np.concatenate(([False], good, [False])).astype(int)))
    runs = edges.reshape(-1, 2) - [0, 1]
    first, last = runs[np.argmax(runs[:, 1] - runs[:, 0])]
    ends = []
    for inside, outside in ((first, first - 1), (last, last + 1)):
        good_end, bad_end = values[inside], values[min(max(outside, 0), SAMPLES - 1)]
        while abs(bad_end - good_end) > BEYOND:
            middle = (good_end + bad_end) / 2
            if (excess(np.array([middle])) <= BEYOND).all():
                good_end = middle
            else:
                bad_end = middle
        ends.append(float(good_end))
    return ends[0], ends[1]
