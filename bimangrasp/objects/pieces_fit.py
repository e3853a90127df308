"""Measures how far the convex pieces of an object, which a simulator holds, are from the mesh, which is optimized."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from itertools import product

import numpy as np
import torch
import trimesh
from jaxtyping import Float
from torch import Tensor

from bimangrasp.errors import InputError
from bimangrasp.geometry.farthest_point_sampling import key_generator, uniform_points
from bimangrasp.geometry.triangle_mesh import TriangleMesh, outer_surface, winding_number
from bimangrasp.objects.config import PiecesConfig
from bimangrasp.objects.mesh_repair import bodies_of
from bimangrasp.objects.model import Mesh, is_closed, volume_of
from bimangrasp.objects.pieces import Piece, Pieces, PiecesFit, hull, sha256_of

SAMPLES = 3000
"""Points on each surface."""

SHARE = 0.95
"""Share of each surface that is at most `PiecesFit.distance` from the other."""

CRACK = 1e-4
"""Pieces are grown by this share of the mesh's diagonal before their union is taken: CoACD leaves cracks between them,
up to 2e-4 wide in the meshes that were measured, whose walls would count as outer surface."""


def measured_pieces(mesh: str, body: Mesh, clouds: Sequence[np.ndarray], source: str, config: PiecesConfig) -> Pieces:
    """Returns the convex hulls of point clouds; flat and tiny ones are dropped, as no simulator can weigh them.

    Args:
        mesh: what messages call the mesh.
        body: the mesh, unit scale.
        clouds: corners of each piece, unit scale.
        source: see `Pieces`.
        config: has the smallest volume.

    Raises:
        InputError: no cloud has a solid hull.
    """
    smallest = config.smallest_volume * body.diagonal**3
    pieces = tuple(piece for cloud in clouds if (piece := hull(cloud, smallest)))
    if not pieces:
        raise InputError(
            f"mesh {mesh} has {len(clouds)} convex pieces ({source}) and none is a solid body; repair the mesh, or lay "
            "coacd_convex_piece_<k>.obj beside it"
        )
    return Pieces(pieces, source, len(clouds) - len(pieces), sha256_of(pieces), pieces_fit(body, pieces))


def pieces_fit(mesh: Mesh, pieces: Sequence[Piece]) -> PiecesFit | None:
    """Returns how far the outer surface of the union of pieces is from that of their mesh; None without manifold3d.

    Points on either surface, uniform by area and drawn by the hash of the mesh, are measured to the other one. Pieces
    are grown to close cracks, and distances corrected by as much, so that they are right to `CRACK`. Walls between
    bodies of the mesh are left out. It takes about a second.

    Args:
        mesh: unit scale.
        pieces: unit scale.
    """
    if find_spec("manifold3d") is None:
        return None
    growth = CRACK * mesh.diagonal
    union = Mesh(*joined_pieces(pieces, growth), "normal", "")
    generator = key_generator(mesh.sha256, "pieces")
    on_mesh = _outer_points(mesh, generator, 3 * growth)  # beyond a crack, too
    on_union = uniform_points(union.vertices[union.faces], _draws(generator))
    # the grown surface is `growth` farther out than that of the pieces
    from_mesh = _signed_distance(union, on_mesh) + growth
    from_union = _signed_distance(mesh, on_union) - growth
    both = from_mesh.abs(), from_union.abs()
    return PiecesFit(
        distance=max(float(part.quantile(SHARE)) for part in both),
        largest=max(float(part.max()) for part in both),
        uncovered=float(from_mesh.max().clamp_min(0)),
        volume_ratio=_volume_ratio(mesh, pieces),
    )


def joined_pieces(pieces: Sequence[Piece], growth: float) -> tuple[np.ndarray, np.ndarray]:
    """Returns vertices (V, 3), m, and faces (F, 3) of the union of pieces, each grown to close cracks between them.

    Args:
        pieces: unit scale.
        growth: half the edge of the cube along the axes that is added to each piece, m; 0 leaves them as they are.

    Raises:
        InputError: manifold3d is not there.
    """
    corners = growth * np.array(list(product((-1.0, 1.0), repeat=3)))
    grown = [hull((piece.vertices[:, None] + corners).reshape(-1, 3), 0.0) for piece in pieces] if growth else pieces
    return outer_surface(*trimesh.util.append_faces(*zip(*grown, strict=True)))


def _outer_points(mesh: Mesh, generator: torch.Generator, step: float) -> Float[Tensor, "point 3"]:
    """Returns points on a mesh, but for those on walls within other bodies: a step, m, outward is inside there."""
    points = uniform_points(mesh.vertices[mesh.faces], _draws(generator))
    body = bodies_of(mesh.vertices, mesh.faces)
    if body.max() == 0:
        return points
    surface = TriangleMesh(mesh.vertices, mesh.faces, dtype=torch.float64)
    face = surface.nearest(points).face
    beyond = points + step * surface.normals[face, -1]
    is_within = torch.zeros(len(points), dtype=torch.bool)
    for number in range(body.max() + 1):
        corners = mesh.vertices[mesh.faces[body == number]].reshape(-1, 3)
        low, high = torch.as_tensor(corners.min(axis=0)), torch.as_tensor(corners.max(axis=0))
        is_of_other = torch.as_tensor(body != number)[face]
        is_within |= is_of_other & ((beyond >= low) & (beyond <= high)).all(dim=1)
    is_within[is_within.clone()] = winding_number(beyond[is_within], surface.corners) > 0.5
    return points[~is_within]


def _draws(generator: torch.Generator) -> Float[Tensor, "point 3"]:
    return torch.rand((SAMPLES, 3), generator=generator, dtype=torch.float64)


def _signed_distance(mesh: Mesh, points: Float[Tensor, "point 3"]) -> Float[Tensor, " point"]:
    """Returns the exact signed distance of points to a mesh, m."""
    nearest = TriangleMesh(mesh.vertices, mesh.faces, dtype=torch.float64, sign=mesh.sign).nearest(points)
    return nearest.sign * torch.linalg.vector_norm(points - nearest.point, dim=-1)


def _volume_ratio(mesh: Mesh, pieces: Sequence[Piece]) -> float | None:
    """Returns the volume of the pieces' union over that of the mesh; None where it encloses nothing."""
    enclosed = volume_of(mesh.vertices[mesh.faces]) if is_closed(mesh.vertices, mesh.faces) else 0.0
    if not enclosed:
        return None
    vertices, faces = joined_pieces(pieces, 0.0)
    return volume_of(vertices[faces]) / enclosed
