"""Places the first grasps: both hands around the inflated convex hull of the object, opposite to each other."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from scipy.spatial import ConvexHull
from torch import Tensor

from bimangrasp.config import InitializationConfig
from bimangrasp.geometry.convex_hull import BLOCK, HullSurface
from bimangrasp.geometry.farthest_point_sampling import farthest_of, farthest_of_each, uniform_points
from bimangrasp.geometry.rotation import matrix_to_rot6d, turn_x, turn_z
from bimangrasp.geometry.triangle_mesh import TriangleMesh
from bimangrasp.grasp import Grasps
from bimangrasp.hands.model import HandModel
from bimangrasp.objects.model import ObjectModel

TOUCHING = 1e-9
"""A point of the inflated hull nearer to the hull than this, m, has no direction to it."""

GROUP = 64
"""Starts that are spread together: the time that this takes grows with the square of their number."""

RELEASED_EXTENT = 0.3
"""Largest extent of an object at the smallest released size, m: 0.15 times a mesh that spans 2."""

LIMIT_SLACK = 1e-6
"""First joint values may exceed their limits by this, rad (released code)."""


def first_grasps(
    hands: HandModel,
    obj: ObjectModel,
    object_scale: Float[Tensor, " batch"],
    contacts_per_hand: int,
    config: InitializationConfig,
    generator: torch.Generator,
) -> Grasps:
    """Returns a starting grasp for each sample, after BimanGrasp: the right hand half a turn about z from the left.

    The samples are coupled: their places are the farthest points of one cloud, or under `follow_size` of a cloud for
    each `GROUP` of them, and the hull has the largest scale.

    Args:
        hands: both hands.
        obj: the object.
        object_scale: its size for each grasp.
        contacts_per_hand: how many contact candidates each hand chooses.
        config: ranges.
        generator: on the device of the hands.
    """
    batch, device = len(object_scale), hands.device
    clouds = (-(-batch // GROUP), GROUP) if config.follow_size else (batch,)
    samples = (*clouds[:-1], clouds[-1] * config.hull_samples_per_grasp, 3)
    cloud = torch.rand(samples, generator=generator, device=device)
    place = torch.rand((batch, 2, 4), generator=generator, device=device, dtype=hands.dtype)
    joint = torch.rand((batch, 2, hands.coordinate_count), generator=generator, device=device)
    shape = (batch, 2, contacts_per_hand)
    candidate = torch.randint(hands.candidate_count, shape, generator=generator, device=device)
    joints = first_joints(hands, joint, config)
    if config.follow_size:
        return sized_starts(hands, obj, object_scale, _Draws(cloud, place, joints, candidate), config)
    points, normals = anchors(obj.hull * float(object_scale.max()), batch, cloud.cpu(), config.hull_inflation)
    half_turn = torch.tensor([[1.0, 1.0, 1.0], [-1.0, -1.0, 1.0]], dtype=torch.float64)
    points, normals = ((half_turn * vector[:, None]).to(device, hands.dtype) for vector in (points, normals))
    translation, rotation = place_hands(points, normals, place, palm_frame(hands), config)
    return Grasps(translation, matrix_to_rot6d(rotation), joints, candidate)


class _Draws(NamedTuple):
    """What is random in the starts of a batch: samples of the hull, four turns a hand, joints, contacts."""

    cloud: Float[Tensor, "group draw 3"]
    place: Float[Tensor, "batch hand 4"]
    joints: Float[Tensor, "batch hand joint"]
    candidate: Int[Tensor, "batch hand contact"]


def sized_starts(
    hands: HandModel,
    obj: ObjectModel,
    object_scale: Float[Tensor, " batch"],
    draws: _Draws,
    config: InitializationConfig,
) -> Grasps:
    """Returns starting grasps whose gap to the object follows its size; ours, not BimanGrasp's.

    A hand looks at its foot, a place on the hull of the grasp's own size (`feet_of`), as released, and moves back
    along its approach until its nearest surface point has the gap to the plane that supports the hull there. So no
    hand starts inside an object of any shape. The gap is `distance_min` to `distance_max`, the same for both hands'
    sides of any object of the released size or larger; below that it shrinks with the size.
    """
    feet, normals = feet_of(obj.hull, draws.cloud, len(object_scale), config.hull_inflation)
    feet = feet * object_scale.double()[:, None, None]
    feet, normals = (vector.to(hands.dtype) for vector in (feet, normals))
    _, rotation = place_hands(feet, normals, draws.place, palm_frame(hands), config)
    approach = approach_frames(normals, draws.place, config)[..., 2]
    share = (object_scale * obj.extent / RELEASED_EXTENT).clamp(max=1)[:, None]
    gap = share * (config.distance_min + (config.distance_max - config.distance_min) * draws.place[..., 0])
    back = (gap + hands.reach(rotation, draws.joints, normals)) / (approach * normals).sum(-1)
    return Grasps(feet - back[..., None] * approach, matrix_to_rot6d(rotation), draws.joints, draws.candidate)


def feet_of(
    hull: np.ndarray, draws: Float[Tensor, "group draw 3"], count: int, inflation: float
) -> tuple[Float[Tensor, "foot hand 3"], Float[Tensor, "foot hand 3"]]:
    """Returns places on a hull that two hands look at from opposite sides, and unit directions to it, float64.

    The left hand's are below spread points of the hull at the released size, inflated about its center; the right
    hand's below the points where the way from there through the center leaves it.

    Args:
        hull: (V, 3) corners of the unit mesh's convex hull, m.
        draws: uniform in [0, 1), of which the farthest points are made: `GROUP` for each of the first axis, or `count`.
        count: how many places for each hand, of all groups together.
        inflation: how far each corner of a hull of the released size moves outward, m.
    """
    center, released = _hull_center(hull), RELEASED_EXTENT / np.ptp(hull, axis=0).max()
    hull = (hull - center) * released
    inflated = ConvexHull(_inflated(hull, inflation))
    cloud = uniform_points(inflated.points[inflated.simplices], draws.flatten(0, 1)).view(draws.shape)
    left = farthest_of_each(cloud, min(GROUP, count)).flatten(0, 1)[:count]
    planes = torch.as_tensor(inflated.equations, device=left.device)
    outward = planes[:, :3] / -planes[:, 3:]  # of each plane; a point on it has 1 along it
    most = [(-block @ outward.T).amax(dim=1, keepdim=True) for block in left.split(BLOCK)]
    right = -left / torch.cat(most)
    sides = torch.stack((left, right), dim=1)
    points = sides.view(-1, 3)
    feet = HullSurface(hull, left.device, torch.float32).nearest(points.float()).double()
    normals = _directions(points, feet, hull)
    center = torch.as_tensor(center, device=left.device)
    return feet.view(sides.shape) / released + center, normals.view(sides.shape)


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
    points = farthest_of(uniform_points(_hull_triangles(_inflated(hull, inflation)), draws), count)
    corners = _hull_triangles(hull).reshape(-1, 3)
    surface = TriangleMesh(corners, np.arange(len(corners)).reshape(-1, 3), points.device, torch.float64)
    return points, _directions(points, surface.nearest(points).point, hull)


def _inflated(hull: np.ndarray, inflation: float) -> np.ndarray:
    """Returns the corners of a hull, moved away from the origin."""
    length = np.linalg.norm(hull, axis=1, keepdims=True)
    return hull + inflation * hull / np.maximum(length, np.finfo(hull.dtype).tiny)


def _directions(
    points: Float[Tensor, "point 3"], feet: Float[Tensor, "point 3"], hull: np.ndarray
) -> Float[Tensor, "point 3"]:
    """Returns the unit directions to the hull's nearest points; points on the hull look at its middle."""
    offset = feet - points
    touching = torch.linalg.vector_norm(offset, dim=-1, keepdim=True) < TOUCHING
    offset = torch.where(touching, torch.as_tensor(hull.mean(axis=0), device=points.device) - points, offset)
    return offset / torch.linalg.vector_norm(offset, dim=-1, keepdim=True)


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
    approach = approach_frames(normals, draws, config)
    tilt = turn_x(torch.full_like(distance, -config.tilt_rad))
    return points - distance[..., None] * approach[..., 2], approach @ tilt @ palms


def approach_frames(
    normals: Float[Tensor, "batch hand 3"], draws: Float[Tensor, "batch hand 4"], config: InitializationConfig
) -> Float[Tensor, "batch hand 3 3"]:
    """Returns rotations that take z to the direction in which each hand comes; arguments as of `place_hands`."""
    deviation = config.cone_rad * (2 * draws[..., 1] - 1)
    alpha, gamma = 2 * torch.pi * draws[..., 2], 2 * torch.pi * draws[..., 3]
    heading = torch.atan2(normals[..., 1], normals[..., 0]) - torch.pi / 2
    towards = turn_z(heading) @ turn_x(-normals[..., 2].clamp(-1, 1).acos())
    return towards @ turn_z(alpha) @ turn_x(deviation) @ turn_z(gamma)


def palm_frame(hands: HandModel) -> Float[Tensor, "hand 3 3"]:
    """Returns the rotation that takes a hand's palm normal to -y and its fingers to z, for each hand."""
    across = torch.linalg.cross(-hands.palm_normal, hands.finger_direction, dim=-1)
    return torch.stack((across, -hands.palm_normal, hands.finger_direction), dim=-2)


def first_joints(
    hands: HandModel, draws: Float[Tensor, "batch hand coordinate"], config: InitializationConfig
) -> Float[Tensor, "batch hand joint"]:
    """Returns joint values, rad: coordinates normal about the hands' means, truncated to the limits.

    Args:
        hands: both hands.
        draws: uniform in [0, 1), taken through the inverse of the truncated distribution.
        config: spread.
    """
    lower, upper = hands.coordinate_lower.double(), hands.coordinate_upper.double()
    mean = hands.coordinate_mean.double()
    spread = config.joint_spread * (upper - lower)
    low, high = lower - LIMIT_SLACK, upper + LIMIT_SLACK
    start, end = torch.special.ndtr((low - mean) / spread), torch.special.ndtr((high - mean) / spread)
    values = mean + spread * torch.special.ndtri(start + draws.double() * (end - start))
    return hands.joints_at(values.clamp(low, high).to(hands.dtype))


def _hull_center(hull: np.ndarray) -> np.ndarray:
    """Returns the center of mass of a convex hull, which lies inside of it."""
    inner = hull.mean(axis=0)
    corners = _hull_triangles(hull) - inner
    volume = np.abs(np.linalg.det(corners))
    return inner + (volume[:, None] * corners.sum(axis=1)).sum(axis=0) / (4 * volume.sum())


def _hull_triangles(points: np.ndarray) -> np.ndarray:
    """Returns the triangles (F, 3, 3) of the convex hull, in either orientation."""
    return points[ConvexHull(points).simplices]
