"""Represents an object: checks its mesh, and computes surface points, signed distances and normals at any scale."""

from __future__ import annotations

import hashlib
import os
import re
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import trimesh
from jaxtyping import Float
from scipy.spatial import ConvexHull, QhullError
from torch import Tensor

from bimangrasp.errors import InputError, why_no_content
from bimangrasp.geometry.distances import DistanceGrid, mesh_distance
from bimangrasp.geometry.farthest_point_sampling import farthest_points, key_generator, spatial_order
from bimangrasp.geometry.triangle_mesh import TriangleMesh, outer_surface, winding_number
from bimangrasp.objects.config import ObjectConfig
from bimangrasp.objects.files import MeshReport

FLAT = 1e-6
"""A convex hull whose volume is less than this share of its largest extent cubed is flat."""

CLOSE_IT = (
    "close it (mode=objects fills small holes) or take convex pieces in its place (mode=objects prepare.surface=pieces)"
)
"""What to do about a mesh whose inside is not known."""

BEYOND_VERTICES = r"^index -?\d+ is out of bounds for axis 0 with size|face index outside the range of its vertices"
"""What NumPy and trimesh say of a file whose faces name vertices that it does not have."""

WINDING_TEST_POINTS = 500
MAX_UNDECIDED = 0.02
"""Share of points in the bounding box whose winding number may lie between 1/4 and 3/4 before a mesh with holes is
refused: there the mesh does not say whether they are inside."""


class Mesh(NamedTuple):
    """A checked triangle mesh, unit scale.

    Attributes:
        vertices: (V, 3) m, as in the file.
        faces: (F, 3) in the order of the file, outward.
        sign: "normal" or "winding": how the side of a point is determined (`TriangleMesh`).
        sha256: of the file.
    """

    vertices: np.ndarray
    faces: np.ndarray
    sign: str
    sha256: str

    @property
    def diagonal(self) -> float:
        """Length of the bounding box's diagonal, m."""
        return float(np.linalg.norm(np.ptp(self.vertices, axis=0)))


def check_mesh(path: str) -> MeshReport:
    """Returns what a mesh file holds.

    Raises:
        InputError: it cannot be read, is empty or degenerate, holds NaN, or its inside is undetermined.
    """
    return report_of(read_mesh(path))


def report_of(mesh: Mesh) -> MeshReport:
    """Returns what a checked mesh holds."""
    low, high = mesh.vertices.min(axis=0), mesh.vertices.max(axis=0)
    corners = tuple(low.tolist()), tuple(high.tolist())
    return MeshReport(mesh.sha256, len(mesh.vertices), len(mesh.faces), mesh.sign, *corners, mesh.diagonal)


def read_mesh(path: str) -> Mesh:
    """Returns the checked mesh of a file, in any format that trimesh reads.

    A closed mesh that is inside out is reversed. A mesh with holes gets its sign from the winding number, provided
    that this decides nearly everywhere.

    Raises:
        InputError: see `check_mesh`.
    """
    vertices, faces = load_triangles(path)
    return checked_mesh(path, vertices, faces, hashlib.sha256(Path(path).read_bytes()).hexdigest())


def checked_mesh(path: str, vertices: np.ndarray, faces: np.ndarray, sha256: str, advice: str = CLOSE_IT) -> Mesh:
    """Returns vertices and faces as a checked mesh, as `read_mesh` does.

    Args:
        path: what messages call the mesh.
        vertices: (V, 3).
        faces: (F, 3).
        sha256: of its file.
        advice: what to do where the mesh is open and does not tell its inside, for the message.
    """
    if not np.isfinite(vertices).all():
        row = int(np.flatnonzero(~np.isfinite(vertices).all(axis=1))[0])
        raise InputError(f"mesh {path}: vertex {row} is {vertices[row].tolist()}; all must be finite numbers")
    corners = vertices[faces]
    if _is_flat(vertices):
        extent = np.ptp(vertices, axis=0).tolist()
        raise InputError(f"mesh {path} is degenerate: its {len(faces)} faces span {extent} m; a solid body is wanted")
    if not is_closed(vertices, faces):
        _check_winding(path, corners, advice)
        return Mesh(vertices, faces, "winding", sha256)
    return Mesh(vertices, faces if volume_of(corners) > 0 else faces[:, ::-1].copy(), "normal", sha256)


def volume_of(corners: Float[np.ndarray, "face 3 3"]) -> float:
    """Returns the volume that triangles enclose, m3; negative where they are inside out."""
    return float(np.einsum("fi,fi->", corners[:, 0], np.cross(corners[:, 1], corners[:, 2])) / 6)


class ObjectModel:
    """One mesh, constant. It stays at the origin; grasp b sees it multiplied by `object_scale[b]`.

    Attributes:
        mesh: the unit mesh.
        surface_points: (N, 3) points spread over the unit mesh, m.
        hull: (V, 3) vertices of the unit mesh's convex hull, m, float64 on the CPU.
        extent: largest extent of the unit mesh along its axes, m.
        sha256: of the mesh file.
    """

    def __init__(
        self,
        mesh: Mesh,
        config: ObjectConfig,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
    ):
        """Takes a mesh to a device and spreads its surface points.

        The points are drawn on the CPU from a generator keyed by the mesh and their count, so that every round and
        every device sees the same ones.
        """
        self.sha256 = mesh.sha256
        self.extent = float(np.ptp(mesh.vertices, axis=0).max())
        self._grid_cells = config.grid_cells
        if config.interior_faces == "remove":
            vertices, faces = outer_surface(mesh.vertices, mesh.faces)
            mesh = mesh._replace(vertices=vertices, faces=faces)
        self.mesh = TriangleMesh(mesh.vertices, mesh.faces, device, dtype, mesh.sign)
        self.hull = mesh.vertices[ConvexHull(mesh.vertices).vertices]
        generator = key_generator(mesh.sha256, config.surface_points)
        points = farthest_points(
            mesh.vertices[mesh.faces], config.surface_points, config.surface_samples_per_point, generator
        )
        self.surface_points = torch.as_tensor(points[spatial_order(points)], dtype=dtype, device=device)

    @cached_property
    def grid(self) -> DistanceGrid:
        """Signed distances of the unit mesh on a grid, computed on first use."""
        return DistanceGrid.of(self.mesh, self._grid_cells, self.surface_points.dtype)

    @classmethod
    def load(cls, path: str, config: ObjectConfig, device: torch.device | str = "cpu") -> ObjectModel:
        """Returns the object of a mesh file; see `read_mesh` for what is refused."""
        return cls(read_mesh(path), config, device)

    def scaled_surface_points(self, object_scale: Float[Tensor, " batch"]) -> Float[Tensor, "batch point 3"]:
        """Returns the surface points of each sample's object, m."""
        return object_scale[:, None, None] * self.surface_points

    def signed_distance(
        self, points: Float[Tensor, "batch point 3"], object_scale: Float[Tensor, " batch"]
    ) -> tuple[Float[Tensor, "batch point"], Float[Tensor, "batch point 3"]]:
        """Returns signed distance, m, negative inside, and the outward unit normal at each point.

        The distance is scale * sign * sqrt(d^2 + 1e-8) with d the exact distance on the unit mesh. Sign, nearest
        point and normal are constant in the gradient; at the surface the normal is ill-conditioned.
        """
        unit = (points / object_scale[:, None, None]).view(-1, 3)
        distance, normal = mesh_distance(self.mesh, unit)
        return distance.view(points.shape[:2]) * object_scale[:, None], normal.view(points.shape)


def load_triangles(path: str) -> tuple[np.ndarray, np.ndarray]:
    """Returns vertices (V, 3) that a face uses and faces (F, 3) of a file, in its order, unchecked.

    Raises:
        InputError: it is missing, no format that is read, or has no face.
    """
    if not Path(path).is_file():
        raise InputError(f"mesh {path} is not there")
    if os.access(path, os.R_OK) and (lacks := why_no_content(Path(path))):
        raise InputError(f"mesh {path} {lacks}")
    try:
        loaded = trimesh.load_scene(path, process=False).to_mesh()
    except Exception as error:
        if re.search(BEYOND_VERTICES, str(error)):
            raise _beyond_vertices(path) from error
        raise InputError(f"mesh {path} cannot be read: {error}; trimesh reads obj, stl, ply, glb and off") from error
    if not len(loaded.faces):
        raise InputError(f"mesh {path} has {len(loaded.vertices)} vertices and no face; a triangle mesh is wanted")
    used, faces = np.unique(np.asarray(loaded.faces), return_inverse=True)
    if used[0] < 0 or used[-1] >= len(loaded.vertices):
        raise _beyond_vertices(path)
    return np.asarray(loaded.vertices, dtype=np.float64)[used], faces.reshape(-1, 3)


def _beyond_vertices(path: str) -> InputError:
    """Returns the refusal of a file whose faces name vertices that it does not have."""
    return InputError(
        f"mesh {path} is damaged: its faces name vertices that are not there; export it again, or copy it again"
    )


def _is_flat(vertices: np.ndarray) -> bool:
    """Whether the vertices span almost no volume."""
    try:
        volume = ConvexHull(vertices).volume
    except (QhullError, ValueError):  # fewer than four points, or all in one plane
        return True
    return bool(volume <= FLAT * np.ptp(vertices, axis=0).max() ** 3)


def is_closed(vertices: np.ndarray, faces: np.ndarray) -> bool:
    """Whether faces use every edge equally often in both directions; vertices at the same position count as one."""
    _, vertex_id = np.unique(vertices, axis=0, return_inverse=True)
    merged = vertex_id.reshape(-1)[faces]
    edges = np.concatenate([merged[:, [k, (k + 1) % 3]] for k in range(3)])
    edges = edges[edges[:, 0] != edges[:, 1]]
    low, high = edges.min(axis=1), edges.max(axis=1)
    direction = np.where(edges[:, 0] == low, 1, -1)
    _, edge = np.unique(low * len(vertices) + high, return_inverse=True)
    return not np.bincount(edge, weights=direction).any()


def _check_winding(path: str, corners: np.ndarray, advice: str) -> None:
    """Refuses an open mesh whose winding number leaves the side of too many points around it undecided."""
    low, high = corners.min(axis=(0, 1)), corners.max(axis=(0, 1))
    draws = torch.rand((WINDING_TEST_POINTS, 3), generator=key_generator("winding"), dtype=torch.float64)
    points = torch.as_tensor(low) + draws * torch.as_tensor(high - low)
    number = winding_number(points, torch.as_tensor(corners))
    undecided = float(((number.abs() > 0.25) & (number.abs() < 0.75)).double().mean())
    if undecided > MAX_UNDECIDED or float((number.abs() >= 0.75).double().mean()) == 0:
        raise InputError(
            f"mesh {path} is not closed, and for {undecided:.0%} of the points around it the faces do not tell inside "
            f"from outside; {advice}"
        )
