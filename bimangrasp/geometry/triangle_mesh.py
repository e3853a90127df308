"""Finds the exact nearest triangle of a mesh, and the side of its surface, for many points on any device."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from torch import Tensor

from bimangrasp.errors import InputError
from bimangrasp.geometry.farthest_point_sampling import RUN, spatial_order

CULL_SLACK = 1e-5
"""Share of the mesh's diagonal by which culling is loosened against rounding."""

PAIRS_AT_ONCE = 4_000_000
"""Point-box pairs of one block of the first pass: 16 MB each for a handful of arrays."""


class Nearest(NamedTuple):
    """The nearest point of a mesh, for M points.

    Attributes:
        face: index of the nearest triangle, the first one of equally near ones.
        point: the nearest point on it.
        sign: +1 outside, -1 inside.
    """

    face: Int[Tensor, " point"]
    point: Float[Tensor, "point 3"]
    sign: Float[Tensor, " point"]


class Boxes(NamedTuple):
    """Boxes along the axes, by their corners."""

    low: Float[Tensor, "*box 3"]
    high: Float[Tensor, "*box 3"]

    def at(self, index: Int[Tensor, "*chosen"]) -> Boxes:
        """Returns the boxes of these indices."""
        return Boxes(self.low[index], self.high[index])

    def distance(self, points: Float[Tensor, "*point 3"]) -> Float[Tensor, "*pair"]:
        """Returns the distance of points to boxes, 0 inside; the shapes broadcast."""
        beyond = torch.maximum(self.low - points, points - self.high).clamp_min_(0)
        return torch.linalg.vector_norm(beyond, dim=-1)


class TriangleMesh:
    """The triangles of a mesh, in runs of nearby triangles, with the bounding boxes of runs and triangles.

    The distance to a box is a lower bound for the triangles in it; the distance to a corner of any triangle is an upper
    bound for the whole mesh. Boxes beyond the upper bound are culled; the nearest triangle never is.
    """

    def __init__(
        self,
        vertices: np.ndarray,
        faces: np.ndarray,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
        sign: str = "normal",
    ):
        """Takes a mesh to a device.

        Args:
            vertices: (V, 3) m.
            faces: (F, 3), counter-clockwise seen from outside.
            device: where queries run.
            dtype: precision of the culling; triangles that remain are measured in the precision of the points.
            sign: "normal" takes the side from the normal at the nearest point; on an edge or corner, where the
                triangles that meet there may contradict each other, from their angle-weighted mean (Baerentzen and
                Aanaes 2005). "winding" takes it from the generalised winding number (Jacobson et al. 2013), which
                also works for meshes with holes and costs a pass over all triangles.
        """
        corners = np.asarray(vertices, dtype=np.float64)[np.asarray(faces)]
        runs = _runs(corners)
        self.sign = sign
        self.corners = torch.as_tensor(corners, device=device)
        self.normals = torch.as_tensor(_pseudonormals(corners), dtype=dtype, device=device)
        self._corners = self.corners.to(dtype)
        self._runs = torch.as_tensor(runs, device=device)
        by_run = self._corners[self._runs]
        self._boxes = Boxes(by_run.amin(dim=2), by_run.amax(dim=2))  # by run and member: a run is one copy
        self._run_boxes = Boxes(self._boxes.low.amin(dim=1), self._boxes.high.amax(dim=1))
        self._first_corner = by_run[:, :, 0].contiguous()
        self.slack = CULL_SLACK * float(np.linalg.norm(np.ptp(corners.reshape(-1, 3), axis=0)))

    def nearest(self, points: Float[Tensor, "point 3"]) -> Nearest:
        """Returns the nearest triangle, its nearest point and the side of each point. Carries no gradient.

        A point that is not finite gives triangle 0 and NaN.
        """
        with torch.no_grad():
            block = max(1, PAIRS_AT_ONCE // len(self._runs))
            return Nearest(*map(torch.cat, zip(*(self._nearest(part) for part in points.split(block)), strict=True)))

    def _nearest(self, points: Float[Tensor, "point 3"]) -> Nearest:
        """Returns the nearest triangle of each point: cull runs, cull their triangles, measure the rest."""
        exact, points = points, points.to(self._corners.dtype)
        bound = torch.cdist(points, self._first_corner[:, 0], compute_mode="donot_use_mm_for_euclid_dist").amin(dim=1)
        row, run = torch.nonzero(
            self._run_boxes.distance(points[:, None]) <= bound[:, None] + self.slack, as_tuple=True
        )
        reach = torch.linalg.vector_norm(points[row, None] - self._first_corner[run], dim=-1)
        bound = bound.scatter_reduce(0, row, reach.amin(dim=1), "amin")
        near = self._boxes.at(run).distance(points[row, None]) <= bound[row, None] + self.slack
        pair, member = torch.nonzero(near, as_tuple=True)
        return self.first_nearest(exact, row[pair], self._runs[run[pair], member])

    def first_nearest(
        self, points: Float[Tensor, "point 3"], row: Int[Tensor, " pair"], face: Int[Tensor, " pair"]
    ) -> Nearest:
        """Returns for each point the triangle of least distance among the pairs, the first of equals.

        Args:
            points: the points.
            row: index of the point of each pair.
            face: index of its triangle.
        """
        on_face, part = closest_on_triangle(points[row], self.corners[face].to(points.dtype))
        squared = (points[row] - on_face).square().sum(-1)
        least = torch.full_like(points[:, 0], torch.inf).scatter_reduce(0, row, squared, "amin")
        beyond = len(self.corners)
        face = torch.where(squared == least[row], face, beyond)
        first = row.new_full((len(points),), beyond).scatter_reduce(0, row, face, "amin")
        won = torch.nonzero((face == first[row]) & (face < beyond))[:, 0]
        closest, part_of_first = torch.full_like(points, torch.nan), torch.zeros_like(first)
        closest[row[won]], part_of_first[row[won]] = on_face[won], part[won]
        first = torch.where(first < beyond, first, 0)
        return Nearest(first, closest, self._sign(points, closest, self.normals[first, part_of_first]))

    def _sign(self, points: Tensor, closest: Tensor, normal: Tensor) -> Float[Tensor, " point"]:
        if self.sign == "winding":
            outside = winding_number(points.to(self._corners.dtype), self._corners).abs() < 0.5
        else:
            outside = ((points - closest) * normal).sum(-1) >= 0
        return torch.where(outside, 1.0, -1.0).to(points.dtype)


def closest_on_triangle(
    points: Float[Tensor, "point 3"], corners: Float[Tensor, "point 3 3"]
) -> tuple[Float[Tensor, "point 3"], Int[Tensor, " point"]]:
    """Returns for each point the nearest point of its own triangle, and on what part of it that lies.

    Parts 0 to 2 are the edges from corner k to the next, 3 to 5 the corners, 6 the inside. A degenerate triangle
    counts as its edges.

    Args:
        points: one point a row.
        corners: entry [i, k] is corner k of the triangle of point i.
    """
    edges = corners.roll(-1, dims=1) - corners
    offsets = points[:, None] - corners
    along = (offsets * edges).sum(-1) / edges.square().sum(-1).clamp_min(torch.finfo(points.dtype).tiny)
    on_edges = corners + along.clamp(0, 1)[..., None] * edges
    edge = (points[:, None] - on_edges).square().sum(-1).argmin(dim=1)
    row = torch.arange(len(points), device=points.device)
    on_edge, along = on_edges[row, edge], along[row, edge]
    part = torch.where(along <= 0, 3 + edge, torch.where(along >= 1, 3 + (edge + 1) % 3, edge))
    normal = torch.linalg.cross(edges[:, 0], edges[:, 1], dim=-1)
    squared = normal.square().sum(-1, keepdim=True)
    on_plane = points - normal * (offsets[:, 0] * normal).sum(-1, keepdim=True) / squared
    over = (torch.linalg.cross(edges, offsets, dim=-1) * normal[:, None]).sum(-1) >= 0
    inside: Bool[Tensor, " point"] = over.all(dim=1) & (squared[:, 0] > 0)
    return torch.where(inside[:, None], on_plane, on_edge), torch.where(inside, 6, part)


def winding_number(points: Float[Tensor, "point 3"], corners: Float[Tensor, "face 3 3"]) -> Float[Tensor, " point"]:
    """Returns how often the triangles wrap around each point: 1 inside a closed mesh, 0 outside.

    The sum of signed solid angles over 4 pi (van Oosterom and Strackee 1983).
    """
    blocks = points.split(max(1, PAIRS_AT_ONCE // (4 * len(corners))))
    return torch.cat([_winding_number(block, corners) for block in blocks] or [points[:, 0]])


def _winding_number(points: Tensor, corners: Tensor) -> Tensor:
    a, b, c = (corners[None, :, k] - points[:, None] for k in range(3))
    la, lb, lc = (torch.linalg.vector_norm(v, dim=-1) for v in (a, b, c))
    volume = (a * torch.linalg.cross(b, c, dim=-1)).sum(-1)
    scale = la * lb * lc + (a * b).sum(-1) * lc + (b * c).sum(-1) * la + (c * a).sum(-1) * lb
    return torch.atan2(volume, scale).sum(-1) / (2 * torch.pi)


def _pseudonormals(corners: np.ndarray) -> np.ndarray:
    """Returns (F, 7, 3) outward directions at the parts of each triangle, in the order of `closest_on_triangle`.

    At an edge the sum of the normals of all triangles that share it, at a corner weighted with their angles there;
    corners at one place are one corner, so opposite coincident triangles (cuts between solids) cancel.
    """
    edges = np.roll(corners, -1, axis=1) - corners
    normals = _unit(np.cross(edges[:, 0], edges[:, 1]))
    cosines = -(_unit(edges) * _unit(np.roll(edges, 1, axis=1))).sum(axis=-1)
    weighted = np.arccos(cosines.clip(-1, 1))[..., None] * normals[:, None]
    _, corner_id = np.unique(corners.reshape(-1, 3), axis=0, return_inverse=True)
    corner_id = corner_id.reshape(-1, 3)
    ends = np.sort(np.stack((corner_id, np.roll(corner_id, -1, axis=1)), axis=-1), axis=-1)
    _, edge_id = np.unique(ends[..., 0] * (corner_id.max() + 1) + ends[..., 1], return_inverse=True)
    at_edges = _sum_by(edge_id.reshape(-1, 3), np.broadcast_to(normals[:, None], weighted.shape))
    return np.concatenate((at_edges, _sum_by(corner_id, weighted), normals[:, None]), axis=1)


def _sum_by(key: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Returns for each entry the sum of the values (..., 3) of all entries with its key."""
    sums = np.zeros((key.max() + 1, 3))
    np.add.at(sums, key.reshape(-1), values.reshape(-1, 3))
    return sums[key]


def _unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), np.finfo(np.float64).tiny)


def _runs(corners: np.ndarray) -> np.ndarray:
    """Returns (R, RUN) indices of triangles that lie close together; the last run repeats its last one."""
    order = spatial_order(corners.mean(axis=1))
    missing = -len(order) % RUN
    return np.pad(order, (0, missing), mode="edge").reshape(-1, RUN)


class NoSolidError(InputError):
    """A body of which no union can be taken.

    Attributes:
        reason: which one, and what is wrong with it; without advice.
    """

    def __init__(self, body: str, status: str) -> None:
        self.reason = f"{body}, is no closed one ({status})"
        super().__init__(
            f"object.interior_faces=remove wants closed bodies; {self.reason}: close it, or set "
            "object.interior_faces=keep"
        )


def outer_surface(vertices: np.ndarray, faces: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns vertices (V, 3) and faces (F, 3) of the boolean union of the closed bodies of a mesh.

    A body is what faces join through common vertices, as the convex pieces of a decomposition are.

    Raises:
        InputError: manifold3d is not there, or a body is not closed (`NoSolidError`).
    """
    try:
        import manifold3d
    except ImportError as error:
        raise InputError(
            "object.interior_faces=remove needs manifold3d: pip install manifold3d, or set object.interior_faces=keep"
        ) from error
    solids = []
    for body in _bodies(vertices, faces):
        corners, corner_index = np.unique(vertices[body].reshape(-1, 3), axis=0, return_inverse=True)
        mesh = manifold3d.Mesh64(corners, corner_index.reshape(-1, 3).astype(np.uint64))
        solid = manifold3d.Manifold(mesh)
        if solid.status() != manifold3d.Error.NoError:
            raise NoSolidError(f"body {len(solids)} of the mesh, with {len(body)} faces", solid.status().name)
        solids.append(solid)
    union = manifold3d.Manifold.batch_boolean(solids, manifold3d.OpType.Add).to_mesh64()
    return np.asarray(union.vert_properties, np.float64)[:, :3], np.asarray(union.tri_verts, np.int64)


def _bodies(vertices: np.ndarray, faces: np.ndarray) -> list[np.ndarray]:
    """Returns the faces (F, 3) of each body, bodies in the order of their first vertices."""
    ends = np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]]])
    adjacency = coo_array((np.ones(len(ends)), tuple(ends.T)), shape=(len(vertices), len(vertices)))
    count, body = connected_components(adjacency, directed=False)
    body_of_face = body[faces[:, 0]]
    return [faces[body_of_face == number] for number in range(count)]
