"""Computes the net wrench that contacts leave at best under Coulomb friction.

Force closure without signs and friction does not see which way a normal points; this does.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

ROUNDS = 24
"""Corrections of the forces; each adds one contact's share."""

LEVER = 0.1
"""Torques are divided by this, m: half the width of an object that two hands hold."""

SMALLEST_RESIDUAL = 1e-9
"""Floor of lengths that are divided by."""


def residual_wrench(
    point: Float[Tensor, "batch contact 3"], normal: Float[Tensor, "batch contact 3"], friction: float
) -> Float[Tensor, " batch"]:
    """Returns how far the contacts are from holding by pressing alone: the length of the least net wrench.

    The least over forces within their friction cones whose normal parts add up to 1 N: 0 where they balance, 1 where
    all press one way. The forces are found by Frank and Wolfe's method (1956), and are constant in the gradient, as the
    normals are.

    Args:
        point: object's frame, m.
        normal: outward unit normals of the object there.
        friction: coefficient.
    """
    with torch.no_grad():
        force = _balancing_forces(point, -normal, friction)
    return torch.linalg.vector_norm(_net_wrench(point, force), dim=-1)


def _net_wrench(point: Tensor, force: Tensor) -> Float[Tensor, "batch 6"]:
    return torch.cat((force, torch.linalg.cross(point, force, dim=-1) / LEVER), dim=-1).sum(dim=1)


def _balancing_forces(point: Tensor, inward: Tensor, friction: float) -> Float[Tensor, "batch contact 3"]:
    """Returns the forces, from equal ones on; each round moves towards the one that lessens the net wrench most."""
    batch = torch.arange(len(point), device=point.device)
    force = inward / point.shape[1]
    for _ in range(ROUNDS):
        net = _net_wrench(point, force)
        slope = net[:, None, :3] + torch.linalg.cross(net[:, None, 3:].expand_as(point), point, dim=-1) / LEVER
        along = (slope * inward).sum(-1, keepdim=True)
        tangent = slope - along * inward
        length = torch.linalg.vector_norm(tangent, dim=-1, keepdim=True)
        best = inward - friction * tangent / length.clamp_min(SMALLEST_RESIDUAL)
        chosen = (along - friction * length)[..., 0].argmin(dim=1)
        only = torch.zeros_like(force)
        only[batch, chosen] = best[batch, chosen]
        change = _net_wrench(point, only) - net
        share = -(net * change).sum(-1) / change.square().sum(-1).clamp_min(SMALLEST_RESIDUAL)
        force = force + share.clamp(0, 1)[:, None, None] * (only - force)
    return force
