"""Guesses where palm and fingers of a hand point, and which hand it is, from what its file says."""

from __future__ import annotations

import json
from typing import NamedTuple

import numpy as np

from bimangrasp.hand_setup.inspection import HandInspection, base_of, direction_of, farther_limit, fingers_of, tip_at
from bimangrasp.hands.description import frames_at

AXIS_SNAP_RAD = 0.39
"""A guessed direction within this angle (22 degrees) of an axis of the hand's root becomes that axis."""

CLOSING_SHARE = 0.5
"""Fraction of the range to their farther limits by which joints are bent to see where the fingertips move."""

MIN_THUMB_OFFSET = 0.1
"""A thumb whose sideways offset is less than this fraction of the hand's size does not determine the side."""

LEAST_LENGTH = 0.3
"""Fingers whose unit directions have a mean shorter than this point to all sides."""

ALONG_NORMAL = 0.7
"""Fingers whose mean direction has a cosine with the palm normal above this point out of the palm."""

RING_SHARE = 0.3
"""Fingers stand around an axis if their bases spread across it, in the narrower direction, by more than this fraction
of the spread (a variance) in the wider one; in a row it is near 0."""

SAME_DIRECTION = 1e-4
"""Angle, rad, which the four decimals of a guess cannot tell from 0."""


class Guess(NamedTuple):
    """A guess at a value that the file does not state, and the reason for it; both empty without a guess."""

    value: str
    reason: str


NO_GUESS = Guess("", "")


def vector_of(guess: Guess) -> np.ndarray | None:
    """Returns the guessed direction; None without a guess."""
    return np.array(json.loads(guess.value)) if guess.value else None


def ring_axis(inspection: HandInspection) -> np.ndarray | None:
    """Returns the unit vector along fingers that stand around an axis, as in a claw or a pair of jaws; else None."""
    fingers = fingers_of(inspection)
    along = _mean_direction(inspection)
    length = np.linalg.norm(along)
    if inspection.thumb is not None or len(fingers) < 2 or length < LEAST_LENGTH:
        return None
    axis = along / length
    if len(fingers) == 2:
        first, second = (_closing_motion(inspection, number, axis) for number in fingers)
        return axis if first @ second < 0 else None
    bases = np.stack([base_of(inspection, number) for number in fingers])
    across = bases - bases.mean(axis=0)
    across -= np.outer(across @ axis, axis)
    widths = np.linalg.svd(across, compute_uv=False)[:2] ** 2
    return axis if widths[1] > RING_SHARE * widths[0] else None


def guess_palm_normal(inspection: HandInspection, finger_direction: np.ndarray | None = None) -> Guess:
    """Returns a guess at the palm normal, perpendicular to the finger direction that is given or guessed.

    It is the direction in which the fingertips move when the joints close, or the axis that the fingers stand around.
    """
    axis = ring_axis(inspection)
    if axis is not None:
        return _guess(axis, "the fingers stand around that axis and hold what is between them", finger_direction)
    if finger_direction is None and np.linalg.norm(_mean_direction(inspection)) > LEAST_LENGTH:
        finger_direction = vector_of(guess_finger_direction(inspection))
    along = np.zeros(3) if finger_direction is None else _unit(finger_direction)
    motion = sum((_closing_motion(inspection, number, along) for number in fingers_of(inspection)), np.zeros(3))
    reason = "the fingertips move there when their joints turn towards their farther limits"
    return _guess(motion, reason, finger_direction)


def guess_finger_direction(inspection: HandInspection, palm_normal: np.ndarray | None = None) -> Guess:
    """Returns a guess at the direction of the stretched fingers, perpendicular to a palm normal that is given.

    Fingers that point out of the palm, or to all sides, have none of their own: an axis across the palm is chosen.
    """
    along = _mean_direction(inspection)
    points_nowhere = np.linalg.norm(along) <= LEAST_LENGTH
    if palm_normal is None and (points_nowhere or ring_axis(inspection) is not None):
        palm_normal = vector_of(guess_palm_normal(inspection))
    if palm_normal is None:
        return _guess(along, "the fingers point there with their joints at 0")
    normal = _unit(palm_normal)
    if points_nowhere or abs(_unit(along) @ normal) > ALONG_NORMAL:
        across = np.eye(3)[np.argmin(np.abs(normal))]
        where = "to all sides" if points_nowhere else "along the palm normal"
        reason = f"chosen, as good as any direction across the palm: the fingers point {where}"
        return _guess(across, reason, normal)
    return _guess(along, "the fingers point there with their joints at 0", normal)


def point_along(inspection: HandInspection, palm_normal: np.ndarray) -> bool:
    """Whether the fingers point out of the palm, as those of a claw do, and not along it."""
    along = _mean_direction(inspection)
    return np.linalg.norm(along) > LEAST_LENGTH and float(_unit(along) @ _unit(palm_normal)) > ALONG_NORMAL


def guess_side(inspection: HandInspection, palm_normal: np.ndarray, finger_direction: np.ndarray) -> Guess:
    """Returns "right" or "left": fingers up and the palm to the viewer, a right hand's thumb is on the left."""
    if inspection.thumb is None:
        return NO_GUESS
    numbers = range(len(inspection.chains))
    middles = [(base_of(inspection, i) + tip_at(inspection, i, inspection.frames)) / 2 for i in numbers]
    others = np.delete(middles, inspection.thumb, axis=0)
    aside = (middles[inspection.thumb] - others.mean(axis=0)) @ np.cross(finger_direction, palm_normal)
    if abs(aside) < MIN_THUMB_OFFSET * inspection.size.max():
        return NO_GUESS
    name = inspection.hand.link_names[inspection.chains[inspection.thumb].tip]
    return Guess("right" if aside > 0 else "left", f"the thumb, which ends in {name!r}, stands on that side")


def _mean_direction(inspection: HandInspection) -> np.ndarray:
    """Returns the mean of the fingers' directions: of length 1 for parallel ones, near 0 where they point away."""
    return np.mean([direction_of(inspection, number) for number in fingers_of(inspection)], axis=0)


def _closing_motion(inspection: HandInspection, finger: int, along: np.ndarray) -> np.ndarray:
    """Returns how far a fingertip moves across `along` when its joints turn toward their farther limits, m."""
    closed = inspection.hand.joint_mean.copy()
    for joint in inspection.chains[finger].joints:
        closed[joint] += CLOSING_SHARE * farther_limit(inspection, joint)
    frames = frames_at(inspection.hand, closed)
    moved = tip_at(inspection, finger, frames) - tip_at(inspection, finger, inspection.frames)
    return moved - (moved @ along) * along


def _unit(vector: np.ndarray) -> np.ndarray:
    """Returns the vector at length 1."""
    return np.asarray(vector, float) / np.linalg.norm(vector)


def _guess(vector: np.ndarray, reason: str, perpendicular: np.ndarray | None = None) -> Guess:
    """Returns the unit vector as a guess; none where there is no direction in it.

    It becomes an axis of the root that is near to it, unless it must be perpendicular to a direction that the axis is
    not perpendicular to.
    """
    across = np.zeros(3) if perpendicular is None else _unit(perpendicular)
    vector = vector - (vector @ across) * across
    if np.linalg.norm(vector) < 1e-3:
        return NO_GUESS
    unit = _unit(vector)
    number = np.argmax(np.abs(unit))
    axis = np.sign(unit[number]) * np.eye(3)[number]
    angle = float(np.arccos(np.clip(unit @ axis, -1, 1)))
    if angle > AXIS_SNAP_RAD or abs(axis @ across) > SAME_DIRECTION:
        return Guess(_text(unit), reason)
    if angle > SAME_DIRECTION:
        reason += f" (snapped to this axis of the root, {np.degrees(angle):.2g} degrees from {_text(unit, 2)})"
    return Guess(_text(axis), reason)


def _text(vector: np.ndarray, digits: int = 4) -> str:
    """Returns a vector as it is typed."""
    return "[" + ",".join(f"{round(float(x), digits) + 0.0:g}" for x in vector) + "]"
