"""Makes pre-grasp and squeeze of a grasp: opens the hands, and sets targets beyond the object's surface."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from bimangrasp.hands.collision_shapes import LinkFrames
from bimangrasp.hands.model import HandModel
from bimangrasp.poses import Poses
from bimangrasp.validation.config import PoseConfig


def stages_of(
    hands: HandModel,
    grasps: Poses,
    candidate: Int[np.ndarray, "grasp 2 contact"],
    normal: Float[np.ndarray, "grasp 2 contact 3"],
    config: PoseConfig,
) -> tuple[Poses, Poses, Poses]:
    """Returns pre-grasp, grasp and squeeze of each grasp, joints within their limits, in float64.

    Args:
        hands: both hands, on the CPU.
        grasps: the optimized poses; NaN stays NaN.
        candidate: indices of the chosen contact candidates.
        normal: outward normal of the object at the contacts.
        config: the rule.
    """
    translation, rotation, joints, normal = (torch.as_tensor(part).double() for part in (*grasps, normal))
    candidate = torch.as_tensor(candidate).long()
    lower, upper = hands.joint_lower.double(), hands.joint_upper.double()
    joints = joints.clamp(lower, upper)
    if config.rule == "contacts":
        frames = hands.frames_from_root(rotation, translation, joints)
        opening = _off_contacts(hands, frames, candidate, normal, config)
    else:
        opening = -config.opening * closing_joints(hands) if config.rule == "palm" else torch.zeros_like(joints)
    opened = (joints + opening).clamp(lower, upper)
    squeezed = (joints + config.squeeze * (joints - opened)).clamp(lower, upper)
    palm = (rotation @ hands.palm_normal.double()[..., None]).squeeze(-1)
    translations = (translation - config.retreat * palm, translation, translation)
    stages = zip(translations, (opened, joints, squeezed), strict=True)
    pre_grasp, grasp, squeeze = (
        Poses(position.numpy(), rotation.numpy(), joint_values.numpy()) for position, joint_values in stages
    )
    return pre_grasp, grasp, squeeze


def closing_joints(hands: HandModel) -> Float[Tensor, "2 joint"]:
    """Returns 1 or -1 for joints that close the hand in that direction, 0 for those that spread the fingers.

    A joint closes if it moves the contact candidates along the palm normal, seen from the hand with its joints at 0
    (or at the limit nearest to 0): bent fingers move along the palm.
    """
    joints = torch.zeros_like(hands.joint_lower).clamp(hands.joint_lower, hands.joint_upper)[None].double()
    root = torch.eye(3, dtype=torch.float64).expand(1, 2, 3, 3)
    frames = hands.frames_from_root(root, torch.zeros((1, 2, 3), dtype=torch.float64), joints)
    every = torch.arange(hands.candidate_count).expand(1, 2, -1)
    motion = _jacobian(hands, frames, hands.contact_points(frames, every), hands.candidate_link[None])
    closing = (hands.palm_normal.double()[:, None, None] @ motion).squeeze(-2).sum(dim=2)[0]
    return torch.where(closing.abs() > motion.norm(dim=-2).sum(dim=2)[0] / 2, closing.sign(), 0)


def _off_contacts(
    hands: HandModel, frames: LinkFrames, candidate: Tensor, normal: Tensor, config: PoseConfig
) -> Float[Tensor, "grasp 2 joint"]:
    """Returns the least turn of the joints that moves the contacts by the clearance along their normals, damped."""
    side = torch.arange(2)[:, None]
    point = hands.contact_points(frames, candidate)
    link = hands.candidate_link[side, candidate]
    along = (normal[..., None, :] @ _jacobian(hands, frames, point, link)).squeeze(-2)
    square = along @ along.mT + config.damping**2 * torch.eye(along.shape[2], dtype=along.dtype)
    wanted = torch.full_like(along[..., :1], config.clearance)
    return (along.mT @ torch.linalg.solve(square, wanted)).squeeze(-1)


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


def moved_links(hands: HandModel) -> Bool[Tensor, "joint link"]:
    """Returns which links each joint moves."""
    hand = hands.descriptions[0]
    moves = np.zeros((len(hand.joint_link), len(hand.parent)), dtype=bool)
    moves[np.arange(len(hand.joint_link)), hand.joint_link] = True
    for link, parent in enumerate(hand.parent[1:], start=1):
        moves[:, link] |= moves[:, parent]
    return torch.as_tensor(moves)
