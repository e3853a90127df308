"""Measures the signed distance of points to a mesh, with its gradient."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

from bimangrasp.geometry.triangle_mesh import TriangleMesh

SQUARED_DISTANCE_FLOOR = 1e-8
"""Added under the root of a mesh distance, m^2, so that its gradient exists on the surface (released code)."""

SQUARED_NORMAL_FLOOR = 1e-16
"""The same for the normal, m^2: on the surface it is 0 and not NaN (released code)."""


def mesh_distance(
    mesh: TriangleMesh, points: Float[Tensor, "point 3"]
) -> tuple[Float[Tensor, " point"], Float[Tensor, "point 3"]]:
    """Returns sign * sqrt(d^2 + 1e-8) and the outward normal sign * (x - c) / sqrt(d^2 + 1e-16).

    d is the exact distance to the nearest triangle. Nearest point, sign and normal are constant in the gradient.
    """
    nearest = mesh.nearest(points.detach())
    squared = (points - nearest.point).square().sum(-1)
    offset = points.detach() - nearest.point
    normal = offset * (nearest.sign / (squared.detach() + SQUARED_NORMAL_FLOOR).sqrt())[:, None]
    return nearest.sign * (squared + SQUARED_DISTANCE_FLOOR).sqrt(), normal
