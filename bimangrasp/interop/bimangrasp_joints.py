"""Converts joint values of the built-in Shadow hands to those of BimanGrasp's release, and back.

Both have the same links, joint axes and order of joints. The release puts `robot0:` before the names; and where our
left hand mirrors the right one at the same joint values, the release's has the right hand's axes, so that its joints
have the other sign, but for those about y.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from bimangrasp.errors import InputError
from bimangrasp.poses import Poses

PREFIX = "robot0:"
_COUNTS = {"FF": 4, "MF": 4, "RF": 4, "LF": 5, "TH": 5}
SHADOW = tuple(f"{finger}J{number}" for finger, count in _COUNTS.items() for number in reversed(range(count)))
RELEASED = tuple(PREFIX + name for name in SHADOW)
ABOUT_Y = ("FFJ3", "MFJ3", "RFJ3", "LFJ3", "THJ1", "THJ0")


def left_signs(joint_names: Sequence[str]) -> Float[np.ndarray, " joint"]:
    """Returns by what a joint value of our left hand is multiplied to be one of the release's, and the other way."""
    return np.array([1.0 if name.removeprefix(PREFIX) in ABOUT_Y else -1.0 for name in joint_names])


def to_released(poses: Poses, joint_names: tuple[str, ...], what: str) -> Poses:
    """Returns poses of our hands, or of the release's, as those of the release's, joints in the order of `RELEASED`.

    Args:
        poses: of either.
        joint_names: of their joint axis.
        what: where they are from, for the message.

    Raises:
        InputError: they are of other hands.
    """
    if set(joint_names) == set(RELEASED):
        return _ordered(poses, joint_names, RELEASED)
    if set(joint_names) == set(SHADOW):
        return _flipped(_ordered(poses, joint_names, SHADOW))
    raise InputError(
        f"{what} has the joints {', '.join(joint_names)}; BimanGrasp's format is for the Shadow hands alone, with the "
        f"joints {', '.join(SHADOW)}: format=npz takes any hand"
    )


def from_released(poses: Poses, joint_names: tuple[str, ...], wanted: tuple[str, ...], what: str) -> Poses:
    """Returns poses of the release's hands as those of the hands with the joints `wanted`: the release's, or ours.

    Raises:
        InputError: they are of other hands, or other hands are wanted.
    """
    if set(joint_names) != set(RELEASED):
        raise InputError(
            f"{what} has the joints {', '.join(joint_names) or 'of no hand'}; wanted those of BimanGrasp's release, "
            f"{', '.join(RELEASED)}"
        )
    if set(wanted) == set(RELEASED):
        return _ordered(poses, joint_names, wanted)
    if set(wanted) == set(SHADOW):
        return _ordered(_flipped(_ordered(poses, joint_names, RELEASED)), SHADOW, wanted)
    raise InputError(f"{what} is of the Shadow hands; wanted hand=shadow or hand=release, not one with {wanted[0]}")


def _ordered(poses: Poses, names: tuple[str, ...], wanted: tuple[str, ...]) -> Poses:
    return poses._replace(joints=poses.joints[:, :, [names.index(name) for name in wanted]])


def _flipped(poses: Poses) -> Poses:
    """Returns poses with the other convention for the left hand, joints in the order of `SHADOW`."""
    signs = np.stack((left_signs(SHADOW), np.ones(len(SHADOW)))).astype(poses.joints.dtype)
    return poses._replace(joints=poses.joints * signs)
