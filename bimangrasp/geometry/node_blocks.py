"""Measures the exact signed distances of all nodes of a grid to a mesh, from one block of nodes down to single ones."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from bimangrasp.geometry.triangle_mesh import TriangleMesh

PAIRS_AT_ONCE = 16_384
"""Pairs of a block and a triangle that are halved at a time. Measured: a quarter takes a fifth longer on a CPU."""

ROUNDING = 3
"""Slacks of the mesh by which a distance in the frame of a triangle may be beyond the least one and yet be the least:
one for each of the two, and one for a point over the rim of a triangle."""

FLAT = 1e-10
"""A triangle whose doubled area is below this share of its longest side squared has no frame."""


Axes = tuple[Float[Tensor, " x"], Float[Tensor, " y"], Float[Tensor, " z"]]
"""Coordinates of nodes, m."""


class Frames(NamedTuple):
    """Lengths in the frames of triangles, each linear in the point.

    Length 0 is the height over the plane, 1 to 3 how far outside of each side's line a point lies, 4 to 6 how far along
    it from the side's middle.

    Attributes:
        gradient: of each length, a unit vector.
        origin: minus each length at the origin, m.
        half: of each side's length, m; minus infinity without a frame, so that the distance is infinite.
    """

    gradient: Float[Tensor, "7 3 face"]
    origin: Float[Tensor, "7 face"]
    half: Float[Tensor, "3 face"]

    @classmethod
    def of(cls, corners: Float[Tensor, "face 3 3"]) -> Frames:
        """Returns the frames of triangles, by face and corner."""
        corners = corners.permute(1, 2, 0)
        sides = corners.roll(-1, dims=0) - corners
        length = torch.linalg.vector_norm(sides, dim=1)
        normal = torch.linalg.cross(sides[0], sides[1], dim=0)
        area = torch.linalg.vector_norm(normal, dim=0)
        has_frame = area > FLAT * length.amax(dim=0).square()
        along, normal = sides / length[:, None], (normal / area)[None]
        gradient = torch.cat((normal, torch.linalg.cross(along, normal.expand_as(along), dim=1), along))
        gradient = torch.where(has_frame, gradient, 0)
        anchor = torch.cat((corners[:1], corners, corners + sides / 2))
        half = torch.where(has_frame, length / 2, -torch.inf)
        return cls(gradient, (gradient * anchor).sum(1), half)

    def lengths(self, point: Float[Tensor, "3"]) -> Float[Tensor, "7 face"]:
        """Returns the lengths of one point in all frames."""
        return (self.gradient * point[:, None]).sum(1) - self.origin

    def to(self, dtype: torch.dtype) -> Frames:
        """Returns the frames in another precision."""
        return Frames(*(part.to(dtype) for part in self))


class Blocks(NamedTuple):
    """Cubes of nodes, each with the triangles that may be the nearest of one of its nodes; pairs in order of blocks.

    Attributes:
        side: nodes along an edge, a power of two.
        first: node of least indices of each block.
        block, face: of each pair.
        lengths: of the block's center in the triangle's frame.
    """

    side: int
    first: Int[Tensor, "block 3"]
    block: Int[Tensor, " pair"]
    face: Int[Tensor, " pair"]
    lengths: Float[Tensor, "7 pair"]

    def parts(self) -> Iterator[Blocks]:
        """Yields the blocks in parts of about `PAIRS_AT_ONCE`; no block is in two parts."""
        last = torch.bincount(self.block).cumsum(0) - 1
        _, blocks = torch.unique_consecutive(last // PAIRS_AT_ONCE, return_counts=True)
        ends = last[blocks.cumsum(0) - 1] + 1
        pairs = torch.diff(ends, prepend=ends.new_zeros(1)).tolist()
        cuts = self.block.split(pairs), self.face.split(pairs), self.lengths.split(pairs, dim=1)
        for first, block, face, lengths in zip(self.first.split(blocks.tolist()), *cuts, strict=True):
            yield Blocks(self.side, first, block - block[0], face, lengths)


def signed_distances(mesh: TriangleMesh, axes: Axes, cell: float) -> Float[Tensor, "x y z"]:
    """Returns the signed distances of nodes, the same numbers as from `mesh.nearest` at each of them.

    One block that holds all nodes is halved along all axes until blocks are nodes. A triangle is left out of a block
    where none of its nodes can have it nearest: a node is at most r from the block's center and the center d from the
    mesh, so that the node's nearest triangle is at most d + 2 r from the center. This is measured in the frames of
    triangles; what is left at a node is as near as the nearest but for rounding, and `mesh.first_nearest` decides.

    Args:
        mesh: the mesh. Memory grows with its triangles by 64 numbers each.
        axes: of the nodes.
        cell: spacing of the nodes, m.
    """
    counts = torch.tensor([len(axis) for axis in axes], device=mesh.corners.device)
    values = axes[0].new_empty(counts.tolist())
    with torch.no_grad():
        frames, low = Frames.of(mesh.corners), torch.stack([axis[0] for axis in axes])
        search = _Search(mesh, frames.to(mesh.normals.dtype), counts, cell)
        root = _root(frames, low, counts, cell)
        pending = [root._replace(lengths=root.lengths.to(mesh.normals.dtype))]
        while pending:
            blocks = pending.pop()
            if blocks.side > 1:
                pending += [search.halved(part) for part in blocks.parts()]
                continue
            node = blocks.first.unbind(1)
            points = torch.stack([axis[index] for axis, index in zip(axes, node, strict=True)], dim=1)
            nearest = mesh.first_nearest(points, blocks.block, blocks.face)
            values[node] = nearest.sign * torch.linalg.vector_norm(points - nearest.point, dim=-1)
    return values


def _root(frames: Frames, low: Float[Tensor, "3"], counts: Int[Tensor, "3"], cell: float) -> Blocks:
    """Returns the one block that holds all nodes, with all triangles; `low` is the first node."""
    side = 1 << (int(counts.max()) - 1).bit_length()
    lengths = frames.lengths(low.to(frames.origin.dtype) + cell * (side - 1) / 2)
    face = torch.arange(lengths.shape[1], device=low.device)
    return Blocks(side, face.new_zeros((1, 3)), torch.zeros_like(face), face, lengths)


class _Search(NamedTuple):
    """What is the same for all blocks: see `signed_distances`; `frames` are in the precision of the culling."""

    mesh: TriangleMesh
    frames: Frames
    counts: Int[Tensor, "3"]
    cell: float

    def halved(self, blocks: Blocks) -> Blocks:
        """Returns the blocks of half the side in these, without those that hold no node, each with fewer triangles."""
        side, half = blocks.side // 2, self.frames.half.index_select(1, blocks.face)
        octants = torch.cartesian_prod(*[torch.arange(2, device=self.counts.device)] * 3)
        first = blocks.first + side * octants[:, None]
        holds_node: Bool[Tensor, "8 block"] = (first < self.counts).all(dim=-1)
        lengths = self._lengths_of_octants(blocks)
        squared = squared_distance(lengths, half, self.mesh.slack)
        least = squared.new_full(holds_node.shape, torch.inf)
        least = least.scatter_reduce(1, blocks.block.expand_as(squared), squared, "amin").sqrt_()
        limit = (least + (3**0.5 * (side - 1) * self.cell + ROUNDING * self.mesh.slack)).square_()
        limit = torch.where(holds_node, limit, -1).index_select(1, blocks.block)
        squared.masked_fill_(half[0].isinf(), 0)  # stays a candidate, wherever it is
        octant, pair = torch.nonzero(squared <= limit, as_tuple=True)
        number = (holds_node.view(-1).cumsum(0) - 1).view_as(holds_node)
        if side > 1:  # nodes are not halved
            lengths = lengths.flatten(1).index_select(1, octant * len(blocks.face) + pair)
        return Blocks(side, first[holds_node], number[octant, blocks.block[pair]], blocks.face[pair], lengths)

    def _lengths_of_octants(self, blocks: Blocks) -> Float[Tensor, "7 8 pair"]:
        """Returns the lengths of the centers of the eight halves of each block, z fastest."""
        gradient = self.frames.gradient.flatten(0, 1).gather(1, blocks.face.expand(21, -1))  # faster than indexing
        step = gradient.view(7, 3, 1, -1) * (blocks.side * self.cell / 4)
        steps = torch.stack((-step, step), dim=3)
        lengths = blocks.lengths[:, None]
        for axis in range(3):
            lengths = (lengths[:, :, None] + steps[:, axis]).flatten(1, 2)
        return lengths


def squared_distance(
    lengths: Float[Tensor, "7 point face"], half: Float[Tensor, "3 face"], slack: float
) -> Float[Tensor, "point face"]:
    """Returns squared distances to triangles, m^2.

    Args:
        lengths: of points in the frames of triangles.
        half: of the sides of these triangles, m.
        slack: a point over a triangle that is nearer to its rim than this gets the distance of the rim, m: without
            area, it cannot be told on which side of a side's line a point lies.
    """
    height, outside, along = lengths[0], lengths[1:4], lengths[4:]
    beyond = (along.abs() - half[:, None]).clamp_min_(0)
    to_sides = outside.square().addcmul_(beyond, beyond)
    to_rim = torch.minimum(torch.minimum(to_sides[0], to_sides[1]), to_sides[2])
    is_over = torch.maximum(torch.maximum(outside[0], outside[1]), outside[2]) < -slack
    return to_rim.masked_fill_(is_over, 0).addcmul_(height, height)
