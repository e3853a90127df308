"""Makes pre-grasp and squeeze of grasps: opens the hands, and sets targets beyond the object's surface."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from bimangrasp.hands.collision_shapes import LinkFrames
from bimangrasp.hands.model import HandModel
from bimangrasp.poses import Poses
from bimangrasp.validation.config import HandDynamicsConfig, PoseConfig
from bimangrasp.validation.contact_forces import balanced_forces
from bimangrasp.validation.piece_surface import PieceSurface

LARGEST_GAP = 0.03
"""A contact farther from the surface, or deeper, is closed as if it were this far, m: it will not get there."""
NOT_BALANCED = -1.0
"""The residual where a rule balances no forces."""


class ObjectGrasps(NamedTuple):
    """Grasps of one object as the optimizer left them.

    Attributes:
        poses: the poses of N grasps.
        candidate: indices of the chosen contact candidates.
        normal: outward normal of the object at the contacts.
        object_scale: factor on the object's mesh.
    """

    poses: Poses
    candidate: Int[np.ndarray, "grasp 2 contact"]
    normal: Float[np.ndarray, "grasp 2 contact 3"]
    object_scale: Float[np.ndarray, " grasp"]


class Stages(NamedTuple):
    """The poses by which the hands take an object, for N grasps, in float64.

    Attributes:
        pre_grasps: hands open, beside the object; one for each opening of the rule, in the order of preference.
        grasp: hands on the object, joints within their limits.
        squeeze: targets that press on the object; those of rule "forces" may be beyond the joints' limits.
        force: of each contact on the object, which the squeeze is made for, those of the left hand first, N; NaN where
            the rule balances none.
        residual: what the forces of the squeeze leave of a net wrench, see `contact_forces.Balance`; NaN where they
            cannot be computed, `NOT_BALANCED` under other rules.
    """

    pre_grasps: tuple[Poses, ...]
    grasp: Poses
    squeeze: Poses
    force: Float[np.ndarray, "grasp contact 3"]
    residual: Float[np.ndarray, " grasp"]


class _Posed(NamedTuple):
    """Grasps in float64, joints within their limits, and how their contacts move with the coordinates of the joints.

    `coordinates` are what motors command; without couplings they are the joints.
    """

    translation: Float[Tensor, "grasp 2 3"]
    rotation: Float[Tensor, "grasp 2 3 3"]
    coordinates: Float[Tensor, "grasp 2 coordinate"]
    point: Float[Tensor, "grasp 2 contact 3"]
    jacobian: Float[Tensor, "grasp 2 contact 3 coordinate"]
    normal: Float[Tensor, "grasp 2 contact 3"]

    def poses(self, hands: HandModel) -> Poses:
        """Returns the poses as arrays, with all joints."""
        return Poses(self.translation.numpy(), self.rotation.numpy(), hands.joints_at(self.coordinates).numpy())


def stages_of(
    hands: HandModel,
    grasps: ObjectGrasps,
    rule: PoseConfig,
    dynamics: HandDynamicsConfig,
    surface: PieceSurface | None = None,
) -> Stages:
    """Returns pre-grasps, grasp and squeeze of each grasp.

    Args:
        hands: both hands, on the CPU.
        grasps: the optimized grasps; NaN stays NaN.
        rule: the rule.
        dynamics: gains of the hands that will squeeze, for rule "forces".
        surface: of the object, for rule "forces"; without it contacts count as on the surface, with the normals of
            `grasps`.
    """
    posed = _posed(hands, grasps)
    lower, upper = hands.coordinate_lower.double(), hands.coordinate_upper.double()
    if rule.rule == "forces":
        opened = [(posed.coordinates + _off_contacts(posed, c, rule.damping), retreat) for c, retreat in rule.openings]
    elif rule.rule == "contacts":
        opened = [(posed.coordinates + _off_contacts(posed, rule.clearance, rule.damping), rule.retreat)]
    else:
        turn = (
            -rule.opening * closing_coordinates(hands) if rule.rule == "palm" else torch.zeros_like(posed.coordinates)
        )
        opened = [(posed.coordinates + turn, rule.retreat)]
    palm = (posed.rotation @ hands.palm_normal.double()[..., None]).squeeze(-1)
    within = [coordinates.clamp(lower, upper) for coordinates, _ in opened]
    pre_grasps = tuple(
        posed._replace(translation=posed.translation - retreat * palm, coordinates=coordinates).poses(hands)
        for coordinates, (_, retreat) in zip(within, opened, strict=True)
    )
    if rule.rule == "forces":
        contacts = _contacts_of(posed, grasps, surface)
        force, residual = _balanced(posed, contacts, rule)
        squeeze = _forced_squeeze(posed, contacts, torch.as_tensor(force), rule, dynamics).poses(hands)
        return Stages(pre_grasps, posed.poses(hands), squeeze, force, residual)
    beyond = posed.coordinates + rule.squeeze * (posed.coordinates - within[0])
    squeeze = posed._replace(coordinates=beyond.clamp(lower, upper)).poses(hands)
    no_force = np.full((len(beyond), 2 * posed.point.shape[2], 3), np.nan)
    return Stages(pre_grasps, posed.poses(hands), squeeze, no_force, np.full(len(beyond), NOT_BALANCED))


def _posed(hands: HandModel, grasps: ObjectGrasps) -> _Posed:
    translation, rotation, joints, normal = (torch.as_tensor(part).double() for part in (*grasps.poses, grasps.normal))
    coordinates = hands.coordinates_of(joints)
    coordinates = coordinates.clamp(hands.coordinate_lower.double(), hands.coordinate_upper.double())
    frames = hands.frames_from_root(rotation, translation, hands.joints_at(coordinates))
    candidate = torch.as_tensor(grasps.candidate).long()
    point = hands.contact_points(frames, candidate)
    link = hands.candidate_link[torch.arange(2)[:, None], candidate]
    jacobian = _by_coordinates(hands, coordinates, _jacobian(hands, frames, point, link))
    return _Posed(translation, rotation, coordinates, point, jacobian, normal)


def closing_coordinates(hands: HandModel) -> Float[Tensor, "2 coordinate"]:
    """Returns 1 or -1 for coordinates that close the hand in that direction, 0 for those that spread the fingers.

    A joint closes if it moves the contact candidates along the palm normal, seen from the hand with its joints at 0
    (or at the limit nearest to 0): bent fingers move along the palm.
    """
    lower, upper = hands.coordinate_lower, hands.coordinate_upper
    coordinates = torch.zeros_like(lower).clamp(lower, upper)[None].double()
    joints = hands.joints_at(coordinates)
    root = torch.eye(3, dtype=torch.float64).expand(1, 2, 3, 3)
    frames = hands.frames_from_root(root, torch.zeros((1, 2, 3), dtype=torch.float64), joints)
    every = torch.arange(hands.candidate_count).expand(1, 2, -1)
    motion = _jacobian(hands, frames, hands.contact_points(frames, every), hands.candidate_link[None])
    motion = _by_coordinates(hands, coordinates, motion)
    closing = (hands.palm_normal.double()[:, None, None] @ motion).squeeze(-2).sum(dim=2)[0]
    return torch.where(closing.abs() > motion.norm(dim=-2).sum(dim=2)[0] / 2, closing.sign(), 0)


def _off_contacts(posed: _Posed, clearance: float, damping: float) -> Float[Tensor, "grasp 2 coordinate"]:
    """Returns the least turn that moves the contacts by the clearance along their normals, damped."""
    along = (posed.normal[..., None, :] @ posed.jacobian).squeeze(-2)
    return _damped(along, torch.full_like(along[..., 0], clearance), damping)


def _damped(
    along: Float[Tensor, "grasp 2 contact coordinate"], wanted: Float[Tensor, "grasp 2 contact"], damping: float
) -> Float[Tensor, "grasp 2 coordinate"]:
    """Returns the least turn that moves each contact as wanted: A^T (A A^T + damping^2)^-1 wanted.

    Args:
        along: A, how far each contact moves with each coordinate, m/rad.
        wanted: motion of each contact, m.
        damping: m/rad.
    """
    square = along @ along.mT + damping**2 * torch.eye(along.shape[2], dtype=along.dtype)
    return (along.mT @ torch.linalg.solve(square, wanted[..., None])).squeeze(-1)


class _SurfaceContacts(NamedTuple):
    """Contacts as the squeeze sees them: distance to the object's surface, m, and its outward normal."""

    gap: Float[Tensor, "grasp 2 contact"]
    normal: Float[Tensor, "grasp 2 contact 3"]


def _contacts_of(posed: _Posed, grasps: ObjectGrasps, surface: PieceSurface | None) -> _SurfaceContacts:
    """Returns gap and normal of each contact by the surface, or 0 and the normal of the grasp without one."""
    if surface is None:
        return _SurfaceContacts(torch.zeros_like(posed.point[..., 0]), posed.normal)
    size = np.repeat(grasps.object_scale.astype(np.float64), 2 * posed.point.shape[2])
    measured = surface.at(posed.point.reshape(-1, 3).numpy(), size)
    gap, normal = (torch.as_tensor(part) for part in measured)
    return _SurfaceContacts(gap.reshape(posed.point.shape[:-1]), normal.reshape(posed.point.shape))


def _balanced(
    posed: _Posed, contacts: _SurfaceContacts, rule: PoseConfig
) -> tuple[Float[np.ndarray, "grasp contact 3"], Float[np.ndarray, " grasp"]]:
    """Returns balanced forces at the feet of the contacts on the surface, N, and what they leave of a wrench."""
    foot = (posed.point - contacts.gap[..., None] * contacts.normal).flatten(1, 2)
    pairs = zip(foot.numpy(), contacts.normal.flatten(1, 2).numpy(), strict=True)
    balances = [balanced_forces(point, normal, rule.friction, rule.evenness) for point, normal in pairs]
    shares = np.array([balance.force for balance in balances]).reshape(foot.shape)
    return rule.total_force * shares, np.array([balance.residual for balance in balances])


def _forced_squeeze(
    posed: _Posed,
    contacts: _SurfaceContacts,
    force: Float[Tensor, "grasp both_contacts 3"],
    rule: PoseConfig,
    dynamics: HandDynamicsConfig,
) -> _Posed:
    """Returns targets that close the gaps and then press with the forces.

    coordinates = grasp + closing + J^T f / kp, where f are the forces and J the contacts' Jacobian by the coordinates,
    and the last part is within the actuators' limit. A floating root yields to the force on its hand, so its target
    goes beyond it as far.
    """
    force = force.reshape(posed.point.shape)
    inward = -(contacts.normal[..., None, :] @ posed.jacobian).squeeze(-2)
    closing = _damped(inward, contacts.gap.clamp(-LARGEST_GAP, LARGEST_GAP), rule.closing_damping)
    torque = _torques(posed, force)
    pressing = torque.clamp(-dynamics.force_limit, dynamics.force_limit) / dynamics.kp
    yielding = rule.root_compliance * force.sum(dim=2) if dynamics.floating else 0.0
    coordinates = posed.coordinates + closing + pressing
    return posed._replace(translation=posed.translation + yielding, coordinates=coordinates)


def _jacobian(
    hands: HandModel,
    frames: LinkFrames,
    point: Float[Tensor, "grasp 2 point 3"],
    link: Int[Tensor, "grasp 2 point"],
) -> Float[Tensor, "grasp 2 point 3 joint"]:
    """Returns how points that are fixed to links move with each joint, m/rad."""
    joint_link = torch.as_tensor(hands.descriptions[0].joint_link)
    axis = torch.as_tensor(np.stack([hand.joint_axis for hand in hands.descriptions]))
    axis = (frames.rotation[:, :, joint_link] @ axis[..., None]).squeeze(-1)
    arm = point[:, :, :, None] - frames.translation[:, :, None, joint_link]
    motion = torch.linalg.cross(axis[:, :, None], arm, dim=-1)
    return (motion * moved_links(hands).T[link][..., None]).mT


def _by_coordinates(
    hands: HandModel,
    coordinates: Float[Tensor, "grasp 2 coordinate"],
    by_joints: Float[Tensor, "grasp 2 point 3 joint"],
) -> Float[Tensor, "grasp 2 point 3 coordinate"]:
    """Returns how points move with each coordinate, m/rad, from how they move with each joint."""
    return by_joints @ hands.coupled.jacobian(coordinates)[:, :, None] if hands.coupled else by_joints


def moved_links(hands: HandModel) -> Bool[Tensor, "joint link"]:
    """Returns which links each joint moves."""
    hand = hands.descriptions[0]
    moves = np.zeros((len(hand.joint_link), len(hand.parent)), dtype=bool)
    moves[np.arange(len(hand.joint_link)), hand.joint_link] = True
    for link, parent in enumerate(hand.parent[1:], start=1):
        moves[:, link] |= moves[:, parent]
    return torch.as_tensor(moves)


def motor_torques(
    hands: HandModel, grasps: ObjectGrasps, force: Float[np.ndarray, "grasp both_contacts 3"]
) -> Float[np.ndarray, "grasp 2 coordinate"]:
    """Returns what motors have to do for forces of the contacts on the object, N m: J^T f at the grasp, no limit.

    Args:
        hands: both hands, on the CPU.
        grasps: the grasps.
        force: as in `Stages`, N.
    """
    posed = _posed(hands, grasps)
    forces = torch.as_tensor(force).double().reshape(posed.point.shape)
    return _torques(posed, forces).numpy()


def _torques(posed: _Posed, force: Float[Tensor, "grasp 2 contact 3"]) -> Float[Tensor, "grasp 2 coordinate"]:
    """Returns J^T f of each hand's contacts, N m."""
    return (posed.jacobian.mT @ force[..., None]).squeeze(-1).sum(dim=2)
