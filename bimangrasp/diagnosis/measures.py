"""Measures grasps of one object by what may keep them from holding it: palms, contacts, joints, forces, motors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from scipy.spatial import ConvexHull

from bimangrasp.diagnosis.hand_shape import closing_direction, fingers_with_candidates, reach_and_opening
from bimangrasp.hands.description import find_palm
from bimangrasp.hands.model import HandModel
from bimangrasp.validation.config import PoseConfig, ProtocolConfig
from bimangrasp.validation.evaluate import Evaluation
from bimangrasp.validation.piece_surface import PieceSurface
from bimangrasp.validation.pose_rules import ObjectGrasps, motor_torques, stages_of
from bimangrasp.validation.summary import CONTACT_DISTANCE

AT_LIMIT = 0.01
"""A joint nearer to a limit than this share of its range stands at it."""

DIRECTIONS = 512
"""In which the width of an object is measured, beside the normals of its hull, in one of which it often is least."""


class Measures(NamedTuple):
    """What was measured of N grasps. NaN where a grasp is not finite.

    Attributes:
        palm_angle: of the given palm normal with the direction from the palm to the hand's contacts, seen along the
            fingers, rad.
        closing_angle: the same of the direction in which the hand closes.
        opposition: largest angle between the object's normals at two contacts of a hand, rad; pi holds from both sides.
        gap: signed distance of the contacts to the object, m.
        at_limit: which joints stand at a limit.
        residual: see `Stages`.
        torque: that the forces of the squeeze ask of each motor, N m; NaN under rules without forces.
    """

    palm_angle: Float[np.ndarray, "grasp 2"]
    closing_angle: Float[np.ndarray, "grasp 2"]
    opposition: Float[np.ndarray, "grasp 2"]
    gap: Float[np.ndarray, "grasp 2 contact"]
    at_limit: Float[np.ndarray, "grasp 2 coordinate"]
    residual: Float[np.ndarray, " grasp"]
    torque: Float[np.ndarray, "grasp 2 coordinate"]


def measures_of(
    hands: HandModel,
    pieces: Sequence[Float[np.ndarray, "_ 3"]],
    grasps: ObjectGrasps,
    protocol: ProtocolConfig,
    rule: PoseConfig,
) -> Measures:
    """Returns what can be measured of grasps without a simulation.

    Args:
        hands: both hands, on the CPU.
        pieces: vertices of the object's convex pieces at unit scale, m.
        grasps: the grasps.
        protocol: whose motors squeeze.
        rule: that makes the squeeze.
    """
    surface = PieceSurface(pieces)
    stages = stages_of(hands, grasps, rule, protocol.hand, surface if rule.rule == "forces" else None)
    translation, rotation, joints = (torch.as_tensor(part).double() for part in stages.grasp)
    frames = hands.frames_from_root(rotation, translation, joints)
    points = hands.contact_points(frames, torch.as_tensor(grasps.candidate).long()).numpy()
    size = np.repeat(grasps.object_scale.astype(np.float64), points[0, :, :, 0].size)
    at = surface.at(points.reshape(-1, 3), size)
    gap, normal = at.gap.reshape(points.shape[:-1]), at.normal.reshape(points.shape)
    palm = frames.translation[:, :, find_palm(hands.descriptions[0])].numpy()
    towards = (points - gap[..., None] * normal).mean(axis=2) - palm
    along = _in_object(stages.grasp.rotation, [hand.finger_direction for hand in hands.descriptions])
    towards = towards - (towards * along).sum(axis=-1, keepdims=True) * along
    given = _in_object(stages.grasp.rotation, [hand.palm_normal for hand in hands.descriptions])
    closing = _in_object(stages.grasp.rotation, [closing_direction(hand) for hand in hands.descriptions])
    cosine = np.einsum("ghci,ghdi->ghcd", normal, normal).min(axis=(2, 3))
    return Measures(
        _angle(given, towards),
        _angle(closing, towards),
        np.arccos(np.clip(cosine, -1, 1)),
        gap,
        _at_limit(hands, joints),
        stages.residual,
        motor_torques(hands, grasps, stages.force),
    )


def _in_object(rotation: np.ndarray, direction: Sequence[np.ndarray]) -> Float[np.ndarray, "grasp 2 3"]:
    """Returns directions of each hand's frame in the object's."""
    return np.einsum("ghij,hj->ghi", rotation, np.stack(direction).astype(np.float64))


def _angle(first: np.ndarray, second: np.ndarray) -> Float[np.ndarray, "grasp 2"]:
    """Returns the angles between vectors, rad; a right one where either is 0."""
    length = np.linalg.norm(first, axis=-1) * np.linalg.norm(second, axis=-1)
    return np.arccos(np.clip((first * second).sum(axis=-1) / np.maximum(length, 1e-12), -1, 1))


def _at_limit(hands: HandModel, joints: torch.Tensor) -> Float[np.ndarray, "grasp 2 coordinate"]:
    """Returns 1 for each free value that stands at a limit, 0 for others and for those that cannot move."""
    value = hands.coordinates_of(joints)
    lower, upper = hands.coordinate_lower.double(), hands.coordinate_upper.double()
    near = AT_LIMIT * (upper - lower)
    return (((value - lower < near) | (upper - value < near)) & (upper > lower)).double().numpy()


class ObjectSize(NamedTuple):
    """Smallest width over all directions, and largest extent along the axes, m."""

    width: float
    extent: float


def object_size(pieces: Sequence[Float[np.ndarray, "_ 3"]], scale: float) -> ObjectSize:
    """Returns how large an object is at a scale."""
    points = np.concatenate(pieces)
    hull = ConvexHull(points)
    points = scale * points[hull.vertices]
    turn = np.arange(DIRECTIONS) * np.pi * (3 - np.sqrt(5))  # a spiral over half a sphere
    z = (np.arange(DIRECTIONS) + 0.5) / DIRECTIONS
    around = np.sqrt(1 - z * z)
    spiral = np.stack((around * np.cos(turn), around * np.sin(turn), z), axis=1)
    directions = np.concatenate((spiral, hull.equations[:, :3]))
    return ObjectSize(float(np.ptp(points @ directions.T, axis=0).min()), float(np.ptp(points, axis=0).max()))


def finger_touch(hands: HandModel, evaluation: Evaluation) -> dict[str, float]:
    """Returns name of the tip -> in which share of the grasps of both hands that finger touches the object.

    Of the fingers that have contact candidates; grasps that were not measured do not count.
    """
    hand = hands.descriptions[0]
    touches = evaluation.link_distance <= CONTACT_DISTANCE
    known = np.isfinite(evaluation.link_distance).all(axis=(1, 2))
    fingers = fingers_with_candidates(hand)
    touching = {chain.tip: touches[known][:, :, list(chain.links)].any(axis=2) for chain, _ in fingers}
    return {hand.link_names[tip]: float(touch.mean()) if known.any() else 0.0 for tip, touch in touching.items()}


def hand_size(hands: HandModel) -> tuple[float, float]:
    """Returns reach and opening of the smaller hand, m, see `reach_and_opening`."""
    sizes = [reach_and_opening(hand) for hand in hands.descriptions]
    return min(reach for reach, _ in sizes), min(opening for _, opening in sizes)
