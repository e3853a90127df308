"""First grasps: both hands around the inflated convex hull of the object, opposite to each other."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from scipy.spatial import ConvexHull
from torch import Tensor

from bimangrasp.farthest_points import farthest_of, uniform_points
from bimangrasp.grasp import Grasps
from bimangrasp.hand_model import HandModel
from bimangrasp.object_model import ObjectModel
from bimangrasp.rotation import matrix_to_rot6d, turn_x, turn_z
from bimangrasp.triangle_mesh import TriangleMesh

TOUCHING = 1e-9
"""A point of the inflated hull nearer to the hull than this, m, has no direction to it."""

LIMIT_SLACK = 1e-6
"""First joint values may exceed their limits by this, rad (released code)."""


@dataclass
class InitializationConfig:
    """Where the hands start.

    Attributes:
        hull_inflation: every hull vertex moves outward from the origin by this much, m.
        distance_min, distance_max: range of the hand's distance to its point on the inflated hull, m.
        cone_rad: the approach direction deviates from the hull's normal by up to this angle.
        tilt_rad: the hand is turned back by this angle about its knuckle axis.
        joint_spread: standard deviation of the joints as a share of their range.
        hull_samples_per_grasp: area-uniform samples per grasp from which the farthest points are chosen.
    """

    hull_inflation: float
    distance_min: float
    distance_max: float
    cone_rad: float
    tilt_rad: float
    joint_spread: float
    hull_samples_per_grasp: int


def first_grasps(
    hands: HandModel,
    obj: ObjectModel,
    object_scale: Float[Tensor, " batch"],
    contacts_per_hand: int,
    config: InitializationConfig,
    generator: torch.Generator,
) -> Grasps:
    """Returns a starting grasp for each sample, after BimanGrasp: the right hand half a turn about z from the left.

    The samples are coupled: their places are the farthest points of one cloud, and the hull has the largest scale.

    Args:
        hands: both hands.
        obj: the object.
        object_scale: its size for each grasp.
        contacts_per_hand: how many contact candidates each hand chooses.
        config: ranges.
        generator: on the device of the hands.
    """
    batch, device = len(object_scale), hands.device
    cloud = torch.rand((batch * config.hull_samples_per_grasp, 3), generator=generator, device=device)
    place = torch.rand((batch, 2, 4), generator=generator, device=device, dtype=hands.dtype)
    joint = torch.rand((batch, 2, hands.joint_count), generator=generator, device=device)
    shape = (batch, 2, contacts_per_hand)
    candidate = torch.randint(hands.candidate_count, shape, generator=generator, device=device)
    points, normals = anchors(obj.hull * float(object_scale.max()), batch, cloud, config.hull_inflation)
    half_turn = torch.tensor([[1.0, 1.0, 1.0], [-1.0, -1.0, 1.0]], dtype=torch.float64)
    points, normals = ((half_turn * vector[:, None]).to(device, hands.dtype) for vector in (points, normals))
    translation, rotation = place_hands(points, normals, place, palm_frame(hands), config)
    return Grasps(translation, matrix_to_rot6d(rotation), first_joints(hands, joint, config), candidate)


def anchors(
    hull: np.ndarray, count: int, draws: Float[Tensor, "draw 3"], inflation: float
) -> tuple[Float[Tensor, "anchor 3"], Float[Tensor, "anchor 3"]]:
    """Returns spread points on the inflated hull and the unit directions from there to the hull, float64, CPU.

    A face of the hull through the origin does not move, so points on it touch the hull; they look at its middle.

    Args:
        hull: (V, 3) corners of the object's convex hull, m.
        count: how many points.
        draws: uniform in [0, 1), of which the farthest `count` points are made.
        inflation: how far each corner moves away from the origin, m.
    """
    length = np.linalg.norm(hull, axis=1, keepdims=True)
    inflated = hull + inflation * hull / np.maximum(length, np.finfo(hull.dtype).tiny)
    points = farthest_of(uniform_points(_hull_triangles(inflated), draws), count)
    corners = _hull_triangles(hull).reshape(-1, 3)
    surface = TriangleMesh(corners, np.arange(len(corners)).reshape(-1, 3), dtype=torch.float64)
    offset = surface.nearest(points).point - points
    touching = torch.linalg.vector_norm(offset, dim=-1, keepdim=True) < TOUCHING
    offset = torch.where(touching, torch.as_tensor(hull.mean(axis=0)) - points, offset)
    return points, offset / torch.linalg.vector_norm(offset, dim=-1, keepdim=True)


def place_hands(
    points: Float[Tensor, "batch hand 3"],
    normals: Float[Tensor, "batch hand 3"],
    draws: Float[Tensor, "batch hand 4"],
    palms: Float[Tensor, "hand 3 3"],
    config: InitializationConfig,
) -> tuple[Float[Tensor, "batch hand 3"], Float[Tensor, "batch hand 3 3"]]:
    """Returns translation, m, and rotation of hands that look along `normals` from behind `points`.

    Args:
        points: where the approach starts, object's frame, m.
        normals: unit vectors towards the object.
        draws: uniform in [0, 1): distance, deviation from the normal, and two turns.
        palms: rotation of each hand's frame to the one with the palm towards -y and the fingers along z.
        config: ranges of distance and deviation, tilt.
    """
    distance = config.distance_min + (config.distance_max - config.distance_min) * draws[..., 0]
    deviation = config.cone_rad * (2 * draws[..., 1] - 1)
    alpha, gamma = 2 * torch.pi * draws[..., 2], 2 * torch.pi * draws[..., 3]
    heading = torch.atan2(normals[..., 1], normals[..., 0]) - torch.pi / 2
    towards = turn_z(heading) @ turn_x(-normals[..., 2].clamp(-1, 1).acos())
    approach = towards @ turn_z(alpha) @ turn_x(deviation) @ turn_z(gamma)
    tilt = turn_x(torch.full_like(distance, -config.tilt_rad))
    return points - distance[..., None] * approach[..., 2], approach @ tilt @ palms


def palm_frame(hands: HandModel) -> Float[Tensor, "hand 3 3"]:
    """Returns the rotation that takes a hand's palm normal to -y and its fingers to z, for each hand."""
    across = torch.linalg.cross(-hands.palm_normal, hands.finger_direction, dim=-1)
    return torch.stack((across, -hands.palm_normal, hands.finger_direction), dim=-2)


def first_joints(
    hands: HandModel, draws: Float[Tensor, "batch hand joint"], config: InitializationConfig
) -> Float[Tensor, "batch hand joint"]:
    """Returns joint values, rad: normal about the hands' means, truncated to the limits.

    Args:
        hands: both hands.
        draws: uniform in [0, 1), taken through the inverse of the truncated distribution.
        config: spread.
    """
    lower, upper, mean = (t.double() for t in (hands.joint_lower, hands.joint_upper, hands.joint_mean))
    spread = config.joint_spread * (upper - lower)
    low, high = lower - LIMIT_SLACK, upper + LIMIT_SLACK
    start, end = torch.special.ndtr((low - mean) / spread), torch.special.ndtr((high - mean) / spread)
    values = mean + spread * torch.special.ndtri(start + draws.double() * (end - start))
    return values.clamp(low, high).to(hands.dtype)


def _hull_triangles(points: np.ndarray) -> np.ndarray:
    """Returns the triangles (F, 3, 3) of the convex hull, in either orientation."""
    return points[ConvexHull(points).simplices]
