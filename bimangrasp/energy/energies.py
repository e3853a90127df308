"""Computes the terms of the energy in PyTorch, one short function each, their weighted total, and its gradient.

The first six are BimanGrasp's (Shao and Xiao, RA-L 2024, arXiv 2411.15903) as its released code computes them; the
optional ones are ours. `Evaluator` declares what the fused kernels do as well.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from bimangrasp.energy import wrench
from bimangrasp.energy.config import EnergyConfig
from bimangrasp.energy_terms import ENERGY_TERMS, TERMS
from bimangrasp.grasp import LEFT, RIGHT, Grasps
from bimangrasp.hands.collision_shapes import LinkFrames, penetration_depth
from bimangrasp.hands.model import HandModel
from bimangrasp.objects.model import ObjectModel
from bimangrasp.sampler.mala import Evaluation

COINCIDENT_KEYPOINTS = 1e-6
"""Keypoints closer than this, m, are one point of the hand and repel nothing (released code)."""


class Energies(NamedTuple("Energies", [(name, Float[Tensor, " batch"]) for name in TERMS])):
    """The terms of each grasp, unweighted, and their weighted total; the fields are the rows of `energy_terms`."""

    __slots__ = ()


class Contacts(NamedTuple):
    """The chosen contacts in the object's frame: points on the hands, object's outward normals, signed distances.

    In float64; see `HandModel.link_frames`.
    """

    point: Float[Tensor, "batch hand contact 3"]
    normal: Float[Tensor, "batch hand contact 3"]
    distance: Float[Tensor, "batch hand contact"]


class PlacedGrasps(NamedTuple):
    """Grasps around an object, with what several terms need of them.

    Attributes:
        hands, obj, object_scale, grasps, config, hand_points: see `energies`.
        frames: of the links.
        contacts: the chosen ones.
        singular_values: of the grasp matrix, descending; None where the contacts are too few for the wrench terms.
    """

    hands: HandModel
    obj: ObjectModel
    object_scale: Float[Tensor, " batch"]
    grasps: Grasps
    config: EnergyConfig
    hand_points: Float[Tensor, "batch hand point 3"] | None
    frames: LinkFrames
    contacts: Contacts
    singular_values: Float[Tensor, "batch 6"] | None


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
    wrench volume and the inter-hand term steer only through what is left. With `normal_step` normals do so in the
    residual wrench.

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
    placed = PlacedGrasps(
        hands, obj, object_scale, grasps, config, hand_points, frames, contacts, _singular_values(contacts)
    )
    nothing = torch.zeros_like(object_scale)
    total, values = 0, {}
    for term in ENERGY_TERMS:
        value = TERM_FUNCTIONS[term.name](placed).to(grasps.joints.dtype) if config.computes(term) else nothing
        values[term.name] = value
        total = total + config.weight(term) * value
    return Energies(**values, total=total)


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
    """Returns the sum over the joints of max(0, q - upper) + max(0, lower - q), rad."""
    return ((joints - upper).clamp_min(0) + (lower - joints).clamp_min(0)).sum(dim=(1, 2))


def _singular_values(contacts: Contacts) -> Float[Tensor, "batch 6"] | None:
    point, normal = contacts.point.flatten(1, 2), contacts.normal.flatten(1, 2)
    if point.shape[1] < wrench.FEWEST_CONTACTS:
        return None
    return wrench.singular_values(wrench.grasp_matrix(point, normal))


def _force_closure(placed: PlacedGrasps) -> Float[Tensor, " batch"]:
    values = placed.singular_values
    return torch.zeros_like(placed.object_scale) if values is None else wrench.force_closure(values)


def _distance(placed: PlacedGrasps) -> Float[Tensor, " batch"]:
    """Returns the sum over the contacts of |signed distance to the object|, m."""
    return placed.contacts.distance.abs().sum(dim=(1, 2))


def _penetration(placed: PlacedGrasps) -> Float[Tensor, " batch"]:
    """Returns the sum over both hands and the object's surface points of the depth in the hand, m."""
    points = placed.obj.scaled_surface_points(placed.object_scale)
    return penetration_depth(placed.hands.shapes, placed.frames, points).sum(-1)


def _self_penetration(placed: PlacedGrasps) -> Float[Tensor, " batch"]:
    """Returns how much each hand overlaps itself, by keypoints, and the other, by surface points, m."""
    hands, frames, config = placed.hands, placed.frames, placed.config
    within_hands = keypoint_penetration(hands.keypoints(frames), config.keypoint_distance)
    return within_hands + inter_hand_penetration(hands, frames, config.inter_hand, placed.hand_points)


def _joint_limits(placed: PlacedGrasps) -> Float[Tensor, " batch"]:
    return joint_limits(placed.grasps.joints, placed.hands.joint_lower, placed.hands.joint_upper)


def _wrench_volume(placed: PlacedGrasps) -> Float[Tensor, " batch"]:
    values = placed.singular_values
    return torch.zeros_like(placed.object_scale) if values is None else wrench.wrench_volume(values)


def _depth(placed: PlacedGrasps) -> Float[Tensor, " batch"]:
    return object_depth(placed.hands, placed.obj, placed.object_scale, placed.frames)


def _equilibrium(placed: PlacedGrasps) -> Float[Tensor, " batch"]:
    point, normal = (part.flatten(1, 2) for part in placed.contacts[:2])
    turn, step = None, placed.config.normal_step
    if step and point.requires_grad:
        scale = placed.object_scale
        unit_points = (point / scale[:, None, None]).to(scale.dtype)
        turn = (placed.obj.grid.normal_turn(unit_points, step / scale) / scale[:, None, None, None]).to(point.dtype)
    return wrench.residual_wrench(point, normal, placed.config.friction, turn)


TERM_FUNCTIONS: dict[str, Callable[[PlacedGrasps], Float[Tensor, " batch"]]] = {
    "force_closure": _force_closure,
    "distance": _distance,
    "penetration": _penetration,
    "self_penetration": _self_penetration,
    "joint_limits": _joint_limits,
    "wrench_volume": _wrench_volume,
    "depth": _depth,
    "equilibrium": _equilibrium,
}
"""What computes each term of `energy_terms`, by name; the order is the table's."""


@runtime_checkable
class Evaluator(Protocol):
    """The energies of one batch; `rows` says which grasps of it are given.

    Attributes:
        is_recordable: whether a CUDA graph can record an evaluation.
    """

    is_recordable: bool

    def terms(self, grasps: Grasps, rows: slice) -> Energies:
        """Returns all terms of each grasp, without gradient."""
        ...

    def evaluation(
        self, pose: Float[Tensor, "batch hand dof"], candidate: Int[Tensor, "batch hand contact"], rows: slice
    ) -> Evaluation:
        """Returns the total of each grasp and its gradient by the pose, in which `HandModel.grasps_at` reads joints."""
        ...


class PlainEvaluator:
    """PyTorch and its autograd: the oracle, and the path for machines without Warp. Its shapes depend on data."""

    is_recordable = False

    def __init__(self, hands: HandModel, obj: ObjectModel, object_scale: Tensor, config: EnergyConfig):
        self._hands, self._obj, self._scale, self._config = hands, obj, object_scale, config

    def terms(self, grasps: Grasps, rows: slice) -> Energies:
        """See `Evaluator`."""
        with torch.no_grad():
            return energies(self._hands, self._obj, self._scale[rows], grasps, self._config)

    def evaluation(self, pose: Tensor, candidate: Tensor, rows: slice) -> Evaluation:
        """See `Evaluator`."""
        pose = pose.detach().requires_grad_()
        grasps = self._hands.grasps_at(pose, candidate)
        total = energies(self._hands, self._obj, self._scale[rows], grasps, self._config).total
        (gradient,) = torch.autograd.grad(total.sum(), pose)
        return Evaluation(total.detach(), gradient)
