"""Measures the signed distance of points to a mesh, with its gradient: exactly, and by a table on a grid."""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from bimangrasp.geometry.node_blocks import signed_distances
from bimangrasp.geometry.triangle_mesh import TriangleMesh

SQUARED_DISTANCE_FLOOR = 1e-8
"""Added under the root of a mesh distance, m^2, so that its gradient exists on the surface (released code)."""

SQUARED_NORMAL_FLOOR = 1e-16
"""The same for the normal, m^2: on the surface it is 0 and not NaN (released code)."""

MARGIN = 0.1
"""How far the grid reaches beyond the object, as a share of its longest side: more than the thickness of a finger."""


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


class DistanceGrid(NamedTuple):
    """Signed distances at the nodes of cubic cells, unit scale.

    Attributes:
        low: first node, m.
        cell: width, m.
        values: m, negative inside.
    """

    low: Float[Tensor, "3"]
    cell: float
    values: Float[Tensor, "x y z"]

    @classmethod
    def of(cls, mesh: TriangleMesh, cells: int, dtype: torch.dtype) -> DistanceGrid:
        """Returns the exact distances of a mesh at the nodes, `cells` along the longest side."""
        low, high = mesh.corners.amin(dim=(0, 1)), mesh.corners.amax(dim=(0, 1))
        longest = float((high - low).max())
        cell = (1 + 2 * MARGIN) * longest / cells
        low = (low - MARGIN * longest).to(dtype)
        counts = ((high + MARGIN * longest - low) / cell).ceil().long() + 1
        x, y, z = (low[k] + cell * torch.arange(int(counts[k]), dtype=dtype, device=low.device) for k in range(3))
        return cls(low, cell, signed_distances(mesh, (x, y, z), cell))

    def distance(self, points: Float[Tensor, "*batch 3"]) -> Float[Tensor, "*batch"]:
        """Returns the trilinear interpolation at points of the unit mesh, m, with its own gradient.

        Outside of the grid it is the distance at the nearest point of the grid plus the distance to that point.
        """
        last = torch.tensor(self.values.shape, device=points.device) - 1
        position = (points - self.low) / self.cell
        inside = torch.minimum(position.clamp_min(0), last)
        node = torch.minimum(inside.detach().long().clamp_min(0), last - 1)  # for NaN, whose integer is undefined
        x, y, z = node.unbind(-1)
        u, v, w = (inside - node).unbind(-1)

        def along_z(x: Tensor, y: Tensor) -> Tensor:
            return torch.lerp(self.values[x, y, z], self.values[x, y, z + 1], w)

        sides = [torch.lerp(along_z(x + i, y), along_z(x + i, y + 1), v) for i in (0, 1)]
        return torch.lerp(*sides, u) + self.cell * torch.linalg.vector_norm(position - inside, dim=-1)

    def normals(self, points: Float[Tensor, "*batch 3"]) -> Float[Tensor, "*batch 3"]:
        """Returns the direction in which the distance grows at points of the unit mesh, of unit length, constant."""
        with torch.enable_grad():
            points = points.detach().requires_grad_()
            (gradient,) = torch.autograd.grad(self.distance(points).sum(), points)
        return torch.nn.functional.normalize(gradient, dim=-1)

    def normal_turn(
        self, points: Float[Tensor, "batch point 3"], step: Float[Tensor, " batch"]
    ) -> Float[Tensor, "batch point 3 3"]:
        """Returns how the normal at points of the unit mesh changes along each axis, 1/m: row k is along axis k.

        It is a difference over `step` to both sides, m: what lies nearer together, as an edge, counts by that length.
        """
        offset = step[:, None, None, None] * torch.eye(3, dtype=points.dtype, device=points.device)
        ahead, behind = (self.normals(points[:, :, None] + sign * offset) for sign in (1, -1))
        return (ahead - behind) / (2 * step[:, None, None, None])
