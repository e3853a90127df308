"""Converts Euler angles in sxyz order (rotations about the fixed axes x, y, z) to matrices and back."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float


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
