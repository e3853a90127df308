"""Measures how well contacts close around the object, by the singular values of their grasp matrix.

Without friction (Shao and Xiao, RA-L 2024, section III, as the released code computes it).
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
