"""Mirrors a hand exactly in the plane y = 0 of its own frame, driven by the same joint values."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from bimangrasp.hands.description import HandDescription, Primitive

_POSITION = np.array([1.0, -1.0, 1.0])
_AXIS = np.array([-1.0, 1.0, -1.0])  # a rotation vector is an axial vector: it mirrors with the other sign
_POSE = np.array([[1.0, -1.0, 1.0, 1.0], [-1.0, 1.0, -1.0, -1.0], [1.0, -1.0, 1.0, 1.0], [1.0, 1.0, 1.0, 1.0]])
_OTHER = {"right": "left", "left": "right"}


def mirror(hand: HandDescription) -> HandDescription:
    """Returns the other hand: the mirror image at the same joint values, with the same names and limits.

    With M = diag(1, -1, 1): positions M p, rotations M R M, joint axes -M a; the faces of meshes are
    reversed, so that outside stays outside. Only signs change: mirroring twice gives the same bits.
    """
    return replace(
        hand,
        side=_OTHER[hand.side],
        T_parent_link=hand.T_parent_link * _POSE,
        joint_axis=hand.joint_axis * _AXIS,
        primitives=tuple(_mirror_primitive(primitive) for primitive in hand.primitives),
        candidate_position=hand.candidate_position * _POSITION,
        keypoint_position=hand.keypoint_position * _POSITION,
        palm_normal=mirror_direction(hand.palm_normal),
        finger_direction=mirror_direction(hand.finger_direction),
    )


def mirror_direction(direction: np.ndarray) -> np.ndarray:
    """Returns the mirror image of a direction of the hand's frame."""
    return direction * _POSITION


def _mirror_primitive(shape: Primitive) -> Primitive:
    """Returns the mirrored shape; capsules, boxes and cylinders are symmetric in their own frames."""
    return replace(
        shape,
        T_link_shape=shape.T_link_shape * _POSE,
        vertices=shape.vertices * _POSITION,
        faces=np.ascontiguousarray(shape.faces[:, ::-1]),
    )
