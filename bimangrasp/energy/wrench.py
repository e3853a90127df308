"""Measures how well contacts close around the object.

Without friction by the singular values of their grasp matrix (Shao and Xiao, RA-L 2024, section III, as the released
code computes it), and by the net wrench that they leave at best under Coulomb friction. Force closure without signs and
friction does not see which way a normal points; the residual wrench does.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

FEWEST_CONTACTS = 6
"""Below six frictionless contacts the grasp matrix has no rank 6 and both wrench terms are 0 (released code)."""

SMALLEST_SINGULAR_VALUE = 1e-8
"""Added under the quotient of force closure, and the least that enters the volume (released code)."""

SMALLEST_NORMAL = 1e-8
"""Added to the length of a normal that is divided by it (released code)."""

ROUNDS = 24
"""Corrections of the forces; each adds one contact's share."""

LEVER = 0.1
"""Torques are divided by this, m: half the width of an object that two hands hold."""

SMALLEST_RESIDUAL = 1e-9
"""Floor of lengths that are divided by."""


def grasp_matrix(
    contact_point: Float[Tensor, "batch contact 3"], contact_normal: Float[Tensor, "batch contact 3"]
) -> Float[Tensor, "batch 6 contact"]:
    """Returns the wrenches of unit forces along the normals: column i is (n_i ; x_i cross n_i).

    Args:
        contact_point: in the object's frame, m; torques are taken about its origin.
        contact_normal: outward from the object; divided by its length (and a little).
    """
    length = torch.linalg.vector_norm(contact_normal, dim=-1, keepdim=True)
    normal = contact_normal / (length + SMALLEST_NORMAL)
    torque = torch.linalg.cross(contact_point, normal, dim=-1)
    return torch.cat((normal, torque), dim=-1).transpose(-1, -2)


def singular_values(matrix: Float[Tensor, "batch 6 contact"]) -> Float[Tensor, "batch 6"]:
    """Returns the singular values, descending; NaN for a sample that is not finite or cannot be decomposed.

    Taken in float64: the smallest value of a grasp near singularity drowns in float32's rounding of the largest.
    The gradient is u v^T per value, which stays finite where values coincide.
    """
    finite = matrix.isfinite().all(dim=-1).all(dim=-1)[:, None, None]
    safe = torch.where(finite, matrix, torch.eye(*matrix.shape[-2:], dtype=matrix.dtype, device=matrix.device))
    values = _decomposed(safe.double()).to(matrix.dtype)
    return torch.where(finite[..., 0], values, torch.nan)


def _decomposed(matrix: Float[Tensor, "batch 6 contact"]) -> Float[Tensor, "batch 6"]:
    """Returns the singular values, NaN for a sample whose decomposition does not converge."""
    try:
        return torch.linalg.svdvals(matrix)
    except torch.linalg.LinAlgError:
        if len(matrix) == 1:
            return torch.full_like(matrix[..., 0], torch.nan)
        return torch.cat([_decomposed(sample) for sample in matrix.split(1)])


def force_closure(values: Float[Tensor, "batch 6"]) -> Float[Tensor, " batch"]:
    """Returns ln(s_1 / (s_6 + 1e-8) + 1) / 10: how unevenly the contacts resist wrenches (BimanGrasp)."""
    return torch.log(values[:, 0] / (values[:, -1] + SMALLEST_SINGULAR_VALUE) + 1) / 10


def wrench_volume(values: Float[Tensor, "batch 6"]) -> Float[Tensor, " batch"]:
    """Returns (s_1 ... s_6)^(-1/10): small where the wrench ellipsoid is large (BimanGrasp)."""
    return torch.exp(-values.clamp_min(SMALLEST_SINGULAR_VALUE).log().sum(dim=-1) / 10)


def residual_wrench(
    point: Float[Tensor, "batch contact 3"],
    normal: Float[Tensor, "batch contact 3"],
    friction: float,
    normal_turn: Float[Tensor, "batch contact 3 3"] | None = None,
) -> Float[Tensor, " batch"]:
    """Returns how far the contacts are from holding by pressing alone: the length of the least net wrench.

    The least over forces within their friction cones whose normal parts add up to 1 N: 0 where they balance, 1 where
    all press one way. The forces are found by Frank and Wolfe's method (1956). In the gradient they turn with the
    normals, and so keep their places in the cones: others would change the least only in second order.

    Args:
        point: object's frame, m.
        normal: outward unit normals of the object there.
        friction: coefficient.
        normal_turn: change of each normal as its point moves along each axis, 1/m; without it normals are constant in
            the gradient.
    """
    with torch.no_grad():
        force = _balancing_forces(point, -normal, friction)
    if normal_turn is not None:
        change = ((point - point.detach())[..., None, :] @ normal_turn).squeeze(-2)
        force = (
            force + change * (normal * force).sum(-1, keepdim=True) - normal * (change * force).sum(-1, keepdim=True)
        )
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
