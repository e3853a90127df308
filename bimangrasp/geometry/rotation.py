"""Converts rotations: six numbers, matrices, Euler angles."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

SMALLEST_NORM = 1e-8
"""Norms are clamped to at least this, so that a zero vector gives zeros and not NaN (released code)."""


def rot6d_to_matrix(rot6d: Float[Tensor, "*batch 6"]) -> Float[Tensor, "*batch 3 3"]:
    """Returns the rotation matrix of two vectors (a, b), orthonormalized symmetrically.

    The first two columns span the plane of a and b and deviate equally from them (Zhou et al. 2019 give the 6D
    form; the symmetric variant is BimanGrasp's). Proper for every pair of vectors that are not parallel.

    Args:
        rot6d: a followed by b; their lengths do not matter.
    """
    x, y = _normalize(rot6d[..., :3]), _normalize(rot6d[..., 3:])
    middle, across = _normalize(x + y), _normalize(x - y)
    first, second = _normalize(middle + across), _normalize(middle - across)
    third = _normalize(torch.linalg.cross(first, second, dim=-1))
    return torch.stack((first, second, third), dim=-1)


def matrix_to_rot6d(matrix: Float[Tensor, "*batch 3 3"]) -> Float[Tensor, "*batch 6"]:
    """Returns the first column followed by the second; `rot6d_to_matrix` maps them back to the matrix."""
    return torch.cat((matrix[..., 0], matrix[..., 1]), dim=-1)


def turn_x(angle: Float[Tensor, "*batch"]) -> Float[Tensor, "*batch 3 3"]:
    """Returns the rotation by `angle` (rad) about the x axis."""
    ones, zeros = torch.ones_like(angle), torch.zeros_like(angle)
    cos, sin = angle.cos(), angle.sin()
    return _rows((ones, zeros, zeros), (zeros, cos, -sin), (zeros, sin, cos))


def turn_z(angle: Float[Tensor, "*batch"]) -> Float[Tensor, "*batch 3 3"]:
    """Returns the rotation by `angle` (rad) about the z axis."""
    ones, zeros = torch.ones_like(angle), torch.zeros_like(angle)
    cos, sin = angle.cos(), angle.sin()
    return _rows((cos, -sin, zeros), (sin, cos, zeros), (zeros, zeros, ones))


def cross_matrix(vector: Float[Tensor, "*batch 3"]) -> Float[Tensor, "*batch 3 3"]:
    """Returns the matrix K with K x = vector x x."""
    x, y, z = vector.unbind(-1)
    zeros = torch.zeros_like(x)
    return _rows((zeros, -z, y), (z, zeros, -x), (-y, x, zeros))


def _rows(*rows: tuple[Tensor, Tensor, Tensor]) -> Tensor:
    return torch.stack([torch.stack(row, dim=-1) for row in rows], dim=-2)


def _normalize(vector: Float[Tensor, "*batch 3"]) -> Float[Tensor, "*batch 3"]:
    return vector / torch.linalg.vector_norm(vector, dim=-1, keepdim=True).clamp_min(SMALLEST_NORM)


def euler_to_matrix(angles: Float[np.ndarray, "*batch 3"]) -> Float[np.ndarray, "*batch 3 3"]:
    """Returns R = Rz(c) Ry(b) Rx(a) for angles (a, b, c), rad, in float64."""
    sa, sb, sc = np.moveaxis(np.sin(angles), -1, 0)
    ca, cb, cc = np.moveaxis(np.cos(angles), -1, 0)
    rows = (
        (cc * cb, cc * sb * sa - sc * ca, cc * sb * ca + sc * sa),
        (sc * cb, sc * sb * sa + cc * ca, sc * sb * ca - cc * sa),
        (-sb, cb * sa, cb * ca),
    )
    return np.stack([np.stack(row, axis=-1) for row in rows], axis=-2)


def matrix_to_euler(matrix: Float[np.ndarray, "*batch 3 3"]) -> Float[np.ndarray, "*batch 3"]:
    """Returns angles (a, b, c), rad, that `euler_to_matrix` takes to the matrix; b within a quarter turn of 0.

    Where b is a quarter turn (gimbal lock) the matrix determines only the sum or the difference of a and c. There c
    is what rounding leaves, 0 for an exact matrix, and a is found from Rz(-c) R, so that they always fit each other.
    """
    r = np.asarray(matrix, np.float64)
    last = np.arctan2(r[..., 1, 0], r[..., 0, 0])
    s, c = np.sin(last)[..., None], np.cos(last)[..., None]
    # the first two rows of Rz(-c) R, which is Ry(b) Rx(a)
    x = c * r[..., 0, :] + s * r[..., 1, :]
    y = c * r[..., 1, :] - s * r[..., 0, :]
    first = np.arctan2(-y[..., 2], y[..., 1])
    middle = np.arctan2(-r[..., 2, 0], x[..., 0])
    return np.stack((first, middle, last), axis=-1)
