"""Finds the convex pieces of an object for the simulator: those beside its mesh, its hull, or CoACD's."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float
from scipy.spatial import ConvexHull, QhullError

from bimangrasp.errors import InputError
from bimangrasp.objects.config import PiecesConfig
from bimangrasp.objects.decomposition import decomposed, too_far
from bimangrasp.objects.files import is_prepared, piece_files_of
from bimangrasp.objects.model import Mesh, read_mesh
from bimangrasp.objects.pieces import Piece, Pieces
from bimangrasp.objects.pieces_fit import measured_pieces

GIVEN, CONVEX = "coacd files", "convex"
"""Sources of pieces that are not decomposed here."""

_PIECE_FILE = re.compile(r"coacd_convex_piece_(\d+)\.obj")

_BLOCK = 2**22  # point-plane distances in memory at the same time, 32 MB


def convex_pieces(mesh: str, config: PiecesConfig) -> Pieces:
    """Returns the convex pieces of a mesh file, each its own convex hull, at unit scale.

    Files `coacd_convex_piece_<k>.obj` beside the mesh (the layout of DexGraspNet), or in a folder with the mesh's name
    beside it (that of the built-in objects), are used if there are any; else the hull of the mesh if it is convex; else
    CoACD decomposes the mesh, which takes up to minutes. Equal files and settings give equal pieces. How far they are
    from the mesh is measured, and refused above a bound: narrow for files beside a mesh, which may belong to another
    one, and wide for CoACD's pieces.

    Args:
        mesh: path of the mesh.
        config: tolerances, and CoACD's settings.

    Raises:
        InputError: the mesh cannot be read (`read_mesh`) or decomposed, CoACD is needed and not installed, or the
            files beside the mesh have gaps, are not convex or do not fill it.
    """
    body = read_mesh(mesh)
    files = piece_files(Path(mesh))
    if files:
        return _given_pieces(mesh, body, files, config)
    if is_convex(body, config):
        return measured_pieces(mesh, body, [body.vertices], CONVEX, config)
    return decomposed(mesh, body, config)


def is_convex(body: Mesh, config: PiecesConfig) -> bool:
    """Returns whether a mesh is its own convex hull; a flat one has none."""
    try:
        hull = ConvexHull(body.vertices)
    except QhullError:
        return False
    return _concavity(body.vertices[body.faces], hull) <= config.convex_tolerance * body.diagonal


def piece_files(mesh: Path) -> list[Path]:
    """Returns the piece files of a mesh in numeric order; they must be numbered 0, 1, 2, ... without a gap."""
    files = piece_files_of(mesh)
    by_number = {int(match[1]): path for path in files if (match := _PIECE_FILE.fullmatch(path.name))}
    missing = [number for number in range(max(by_number, default=-1)) if number not in by_number]
    if missing:
        raise InputError(
            f"{files[0].parent} has {len(by_number)} files coacd_convex_piece_<k>.obj up to {max(by_number)} and lacks "
            f"k = {', '.join(map(str, missing))}; copy all of them, or none to have the mesh decomposed anew"
        )
    return [by_number[number] for number in sorted(by_number)]


def _given_pieces(mesh: str, body: Mesh, files: Sequence[Path], config: PiecesConfig) -> Pieces:
    """Returns the pieces in the given files; refuses files that are not convex or do not fill the mesh.

    Those of a prepared object are known to be of this mesh, and only have to follow it as CoACD's do.
    """
    bodies = [read_mesh(str(file)) for file in files]
    diagonal = body.diagonal
    for file, piece in zip(files, bodies, strict=True):
        depth = _concavity(piece.vertices[piece.faces], ConvexHull(piece.vertices)) / diagonal
        if depth > config.convex_tolerance:
            raise InputError(
                f"{file} is not convex: it has faces {depth:.2g} of the mesh's diagonal below its hull, more than "
                f"convex_tolerance={config.convex_tolerance}; remove the coacd_convex_piece files to have the mesh "
                "decomposed anew"
            )
    pieces = measured_pieces(mesh, body, [piece.vertices for piece in bodies], GIVEN, config)
    if is_prepared(Path(mesh)):
        if reason := too_far(body, pieces, config):
            raise InputError(f"mesh {mesh}: {reason}; remove the files to have the mesh decomposed anew")
        return pieces
    gap = _gap(body.vertices, pieces.pieces) / diagonal
    if gap > config.cover_tolerance:
        raise InputError(
            f"mesh {mesh} and the {len(files)} coacd_convex_piece files beside it do not match: they are "
            f"{gap:.2g} of its diagonal apart, more than cover_tolerance={config.cover_tolerance}; remove the files "
            "to have the mesh decomposed anew"
        )
    return pieces


def _gap(points: np.ndarray, pieces: Sequence[Piece]) -> float:
    """Returns how far pieces are from filling a mesh, m.

    The larger of: the distance of its farthest vertex to the next piece (to that piece's nearest plane, a bound from
    below), and the largest difference of the bounding boxes.
    """
    corners = np.concatenate([piece.vertices for piece in pieces])
    boxes = [np.stack((cloud.min(axis=0), cloud.max(axis=0))) for cloud in (points, corners)]
    outside = np.min([_height_above_hull(points, ConvexHull(piece.vertices)) for piece in pieces], axis=0)
    return float(max(np.abs(boxes[0] - boxes[1]).max(), outside.max()))


def _concavity(corners: Float[np.ndarray, "face corner 3"], hull: ConvexHull) -> float:
    """Returns how far the deepest face lies below a convex hull, m: 0 for a convex body.

    By the faces' centers: a face whose center lies on the hull lies on it as a whole.
    """
    return float(-_height_above_hull(corners.mean(axis=1), hull).min())


def _height_above_hull(points: Float[np.ndarray, "point 3"], hull: ConvexHull) -> Float[np.ndarray, " point"]:
    """Returns each point's height above a hull's highest plane, m: minus its depth inside, at most its distance."""
    rows = max(1, _BLOCK // len(hull.equations))
    blocks = [points[first : first + rows] for first in range(0, len(points), rows)]
    normal, offset = hull.equations[:, :3], hull.equations[:, 3]
    return np.concatenate([(block @ normal.T + offset).max(axis=1) for block in blocks])
