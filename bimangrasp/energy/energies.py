"""The six energy terms of BimanGrasp and two of ours, one short function each, and their weighted total."""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from bimangrasp.energy.config import EnergyConfig
from bimangrasp.energy.equilibrium import residual_wrench
from bimangrasp.energy.wrench import FEWEST_CONTACTS, force_closure, grasp_matrix, singular_values, wrench_volume
from bimangrasp.grasp import LEFT, RIGHT, Grasps
from bimangrasp.hands.collision_shapes import LinkFrames, penetration_depth
from bimangrasp.hands.model import HandModel
from bimangrasp.objects.model import ObjectModel

COINCIDENT_KEYPOINTS = 1e-6
"""Keypoints closer than this, m, are one point of the hand and repel nothing (released code)."""

OURS = ("depth", "equilibrium")
"""The terms that the release does not have."""


class Energies(NamedTuple):
    """The terms of each grasp, unweighted, and their weighted total."""

    force_closure: Float[Tensor, " batch"]
    distance: Float[Tensor, " batch"]
    penetration: Float[Tensor, " batch"]
    self_penetration: Float[Tensor, " batch"]
    joint_limits: Float[Tensor, " batch"]
    wrench_volume: Float[Tensor, " batch"]
    depth: Float[Tensor, " batch"]
    equilibrium: Float[Tensor, " batch"]
    total: Float[Tensor, " batch"]


class Contacts(NamedTuple):
    """The chosen contacts in the object's frame: points on the hands, object's outward normals, signed distances.

    In float64; see `HandModel.link_frames`.
    """

    point: Float[Tensor, "batch hand contact 3"]
    normal: Float[Tensor, "batch hand contact 3"]
    distance: Float[Tensor, "batch hand contact"]


def energies(
    hands: HandModel,
    obj: ObjectModel,
    object_scale: Float[Tensor, " batch"],
    grasps: Grasps,
    config: EnergyConfig,
    hand_points: Float[Tensor, "batch hand point 3"] | None = None,
) -> Energies:
    """Returns all terms of each grasp.

    Normals of the object and the surface points of the hands carry no gradient (as released), so force closure,
    wrench volume and the inter-hand term steer only through what is left.

    Args:
        hands: both hands.
        obj: the object.
        object_scale: its size for each grasp.
        grasps: B of them.
        config: weights and constants.
        hand_points: points on the hands' surfaces in the object's frame, m, instead of the hands' own.
    """
    frames = hands.link_frames(grasps)
    contacts = contacts_of(hands, obj, object_scale, frames, grasps)
    closure, volume = (term.to(grasps.joints.dtype) for term in _wrench_terms(contacts))
    nothing = torch.zeros_like(object_scale)
    terms = (
        closure,
        contacts.distance.abs().sum(dim=(1, 2)).to(grasps.joints.dtype),
        penetration_depth(hands.shapes, frames, obj.scaled_surface_points(object_scale)).sum(-1),
        keypoint_penetration(hands.keypoints(frames), config.keypoint_distance)
        + inter_hand_penetration(hands, frames, config.inter_hand, hand_points),
        joint_limits(grasps.joints, hands.joint_lower, hands.joint_upper),
        volume,
        object_depth(hands, obj, object_scale, frames) if config.w_depth else nothing,
        _equilibrium(contacts, config.friction).to(grasps.joints.dtype) if config.w_equilibrium else nothing,
    )
    return Energies(*terms, total=sum(w * term for w, term in zip(_weights(config), terms, strict=True)))


def contacts_of(
    hands: HandModel,
    obj: ObjectModel,
    object_scale: Float[Tensor, " batch"],
    frames: LinkFrames,
    grasps: Grasps,
) -> Contacts:
    """Returns points, normals and signed distances of the chosen contacts: one query of the object."""
    point = hands.contact_points(frames, grasps.candidate)
    distance, normal = obj.signed_distance(point.flatten(1, 2), object_scale)
    return Contacts(point, normal.view(point.shape), distance.view(point.shape[:3]))


def keypoint_penetration(keypoints: Float[Tensor, "batch hand keypoint 3"], least: float) -> Float[Tensor, " batch"]:
    """Returns the sum over ordered pairs of keypoints of one hand of max(0, least - distance), both hands, m."""
    first, second = torch.triu_indices(keypoints.shape[2], keypoints.shape[2], 1, device=keypoints.device)
    distance = torch.linalg.vector_norm(keypoints[:, :, first] - keypoints[:, :, second], dim=-1)
    overlap = torch.where(distance < COINCIDENT_KEYPOINTS, 0, (least - distance).clamp_min(0))
    return 2 * overlap.sum(dim=(1, 2))


def inter_hand_penetration(
    hands: HandModel,
    frames: LinkFrames,
    mode: str,
    hand_points: Float[Tensor, "batch hand point 3"] | None = None,
) -> Float[Tensor, " batch"]:
    """Returns how deep the surface points of one hand lie in the other, m.

    The points carry no gradient here, so the sum pushes only the hand whose shapes are measured.

    Args:
        hands: both hands.
        frames: of their links.
        mode: "right_points": right points in the left hand; "symmetric": the mean of both directions.
        hand_points: see `energies`.
    """

    def depth(inside: int, of: int) -> Tensor:
        points = hands.surface_points(frames, of) if hand_points is None else hand_points[:, of]
        return penetration_depth(hands.shapes.hand(inside), frames.hand(inside), points.detach())[:, 0]

    right_in_left = depth(LEFT, RIGHT)
    return right_in_left if mode == "right_points" else (right_in_left + depth(RIGHT, LEFT)) / 2


def object_depth(
    hands: HandModel, obj: ObjectModel, object_scale: Float[Tensor, " batch"], frames: LinkFrames
) -> Float[Tensor, " batch"]:
    """Returns the sum over the hands' inscribed spheres of max(0, radius - signed distance of the center), m.

    What `penetration_depth` cannot see: between the object's points a finger can stand in the object. A finger that
    touches costs nothing.
    """
    center = hands.sphere_centers(frames)
    scale = object_scale[:, None, None]
    distance = scale * obj.grid.distance(center / scale[..., None])
    return (hands.spheres.radius - distance).clamp_min(0).sum(dim=(1, 2))


def joint_limits(
    joints: Float[Tensor, "batch hand joint"],
    lower: Float[Tensor, "hand joint"],
    upper: Float[Tensor, "hand joint"],
) -> Float[Tensor, " batch"]:
    """Returns by how much all joints together exceed their limits, rad."""
    return ((joints - upper).clamp_min(0) + (lower - joints).clamp_min(0)).sum(dim=(1, 2))


def _wrench_terms(contacts: Contacts) -> tuple[Float[Tensor, " batch"], Float[Tensor, " batch"]]:
    """Returns force closure and wrench volume; zeros where the contacts are too few for either."""
    point, normal = contacts.point.flatten(1, 2), contacts.normal.flatten(1, 2)
    if point.shape[1] < FEWEST_CONTACTS:
        zero = point.new_zeros(len(point))
        return zero, zero
    values = singular_values(grasp_matrix(point, normal))
    return force_closure(values), wrench_volume(values)


def _equilibrium(contacts: Contacts, friction: float) -> Float[Tensor, " batch"]:
    return residual_wrench(contacts.point.flatten(1, 2), contacts.normal.flatten(1, 2), friction)


def _weights(config: EnergyConfig) -> tuple[float, ...]:
    """Returns the weights in the order of `Energies`."""
    released = (config.w_fc, config.w_dis, config.w_pen, config.w_spen, config.w_joints, config.w_vew)
    return *released, config.w_depth, config.w_equilibrium
