"""Decides the verdict on a simulated grasp from its measurements and the limits of a protocol."""

from __future__ import annotations

from enum import IntEnum
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float

from bimangrasp.validation.config import LimitsConfig, PhysicsConfig, ProtocolConfig

DIRECTIONS = np.array([[1, 0, 0], [-1, 0, 0], [0, 1, 0], [0, -1, 0], [0, 0, 1], [0, 0, -1]], dtype=np.float64)
"""(6, 3) the directions in which the object is pushed, in its frame, in the order of a verdict's columns."""


class Reason(IntEnum):
    """Reasons why a grasp fails. Files hold the numbers: only append new ones."""

    HELD = 0
    NOT_FINITE = 1
    PENETRATION = 2
    SIMULATION_FAILED = 3
    MOVED = 4
    TURNED = 5
    LOST_CONTACT = 6
    UNBALANCED = 7


class Penetration(NamedTuple):
    """Greatest depths, m, 0 where nothing overlaps: of a hand in the object, in the other hand, in itself."""

    hand_object: float
    hand_hand: float
    self_hand: float

    @property
    def total(self) -> float:
        """The sum of the three, m."""
        return sum(self)


class PushEnd(NamedTuple):
    """The state of the object at the end of a push; NaN and zeros where the simulation diverged.

    Attributes:
        displacement: of the object's frame from its place at the start of the trial, m.
        rotation: of the object since then, rad.
        force: normal force of each hand on the object, N.
    """

    displacement: float
    rotation: float
    force: Float[np.ndarray, "hand"]


class Pushes(NamedTuple):
    """In which order a grasp is pushed.

    Attributes:
        order: all indices of `DIRECTIONS`, the likeliest to fail first; the first that fails is the reason.
        until_lost: no push comes after the first that fails. It changes neither whether a grasp holds nor the reason.
    """

    order: tuple[int, ...] = tuple(range(len(DIRECTIONS)))
    until_lost: bool = False


class Verdict(NamedTuple):
    """The verdict of a protocol on a grasp. Directions are those of `DIRECTIONS`.

    Attributes:
        reason: why it failed, of the first push that did; HELD if it holds.
        penetration: depths at the protocol's first waypoint; NaN for a pose that is not finite.
        displacement: displacement of the object at the end of each push, m; NaN if it was not tried or diverged.
        rotation: rotation of the object at the end of each push, rad; NaN likewise.
        held: the directions in which the grasp held; not those that were not tried.
        bears_load: the hands that pressed on the object at the end of all six pushes; none where not all were tried.
    """

    reason: Reason
    penetration: Penetration
    displacement: Float[np.ndarray, "direction"]
    rotation: Float[np.ndarray, "direction"]
    held: Bool[np.ndarray, "direction"]
    bears_load: Bool[np.ndarray, "hand"]


def too_deep(depth: Penetration, limits: LimitsConfig) -> bool:
    """Returns whether a start penetrates too much; at exactly a limit it does not."""
    return (
        depth.hand_object > limits.hand_object_penetration
        or depth.hand_hand > limits.hand_hand_penetration
        or depth.total > limits.total_penetration
    )


def reason_of(end: PushEnd, limits: LimitsConfig) -> Reason:
    """Returns why a direction failed, or HELD; an object that moved or turned by exactly a limit is lost."""
    if np.isnan(end.displacement):
        return Reason.SIMULATION_FAILED
    if end.displacement >= limits.displacement:
        return Reason.MOVED
    if end.rotation >= limits.rotation:
        return Reason.TURNED
    if limits.touch and not (end.force > 0).any():
        return Reason.LOST_CONTACT
    return Reason.HELD


def verdict_of(penetration: Penetration, ends: dict[int, PushEnd], limits: LimitsConfig) -> Verdict:
    """Returns the verdict on a simulated grasp; its reason is that of the first push that failed.

    Args:
        penetration: depths at the start.
        ends: the ends of the pushes by their index in `DIRECTIONS`, in the order in which they were tried.
        limits: limits of the protocol.
    """
    reasons = {direction: reason_of(end, limits) for direction, end in ends.items()}
    failed = [reason for reason in reasons.values() if reason is not Reason.HELD]
    verdict = not_simulated(failed[0] if failed else Reason.HELD, penetration)
    for direction, end in ends.items():
        verdict.displacement[direction], verdict.rotation[direction] = end.displacement, end.rotation
        verdict.held[direction] = reasons[direction] is Reason.HELD
    if len(ends) == len(DIRECTIONS):
        verdict.bears_load[:] = np.all([end.force > limits.bearing_force for end in ends.values()], axis=0)
    return verdict


def fails_narrowly(verdict: Verdict, order: tuple[int, ...], physics: PhysicsConfig) -> bool:
    """Returns whether a grasp lost the object so slowly that undoing slip might have held it.

    Args:
        verdict: without undoing slip.
        order: of its pushes; the first that failed decides, the only one that is known where it was the last.
        physics: its `near_displacement` and `near_rotation`.
    """
    first = next((direction for direction in order if not verdict.held[direction]), None)
    if first is None:
        return False
    moved, turned = float(verdict.displacement[first]), float(verdict.rotation[first])
    return moved < physics.near_displacement and turned < physics.near_rotation


def holds_clearly(verdict: Verdict, protocol: ProtocolConfig) -> bool:
    """Returns whether a grasp that holds kept the object so far from the limits that rounding does not matter."""
    certain, limits = 1 - protocol.simulator.doubt, protocol.limits
    is_near = (verdict.displacement > certain * limits.displacement) | (verdict.rotation > certain * limits.rotation)
    return not is_near.any()


def not_simulated(reason: Reason, penetration: Penetration) -> Verdict:
    """Returns the verdict on a grasp of which no direction was tried."""
    unknown = np.full(len(DIRECTIONS), np.nan)
    nothing = np.zeros(len(DIRECTIONS), dtype=bool)
    return Verdict(reason, penetration, unknown, unknown.copy(), nothing, np.zeros(2, dtype=bool))
