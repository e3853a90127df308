"""Finds the convex pieces of an object for the simulator (given, its hull, or from CoACD) and reads their file."""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int
from scipy.spatial import ConvexHull, QhullError

from bimangrasp.builtin import install_command
from bimangrasp.errors import InputError
from bimangrasp.objects.config import PiecesConfig
from bimangrasp.objects.model import Mesh, read_mesh

GIVEN, CONVEX, DECOMPOSED = "coacd files", "convex", "decomposed"
"""Sources of convex pieces."""

PIECE_FILES = "coacd_convex_piece_*.obj"
_PIECE_FILE = re.compile(r"coacd_convex_piece_(\d+)\.obj")
_NOT_FOR_COACD = ("convex_tolerance", "cover_tolerance", "smallest_volume")
DECOMPOSE_TIMEOUT_S = 3600.0
"""CoACD is stopped after this time, s; scanned objects take seconds to minutes."""

_BLOCK = 2**22  # point-plane distances in memory at the same time, 32 MB


class Piece(NamedTuple):
    """One convex body, unit scale.

    Attributes:
        vertices: corners of its hull, m.
        faces: triangles, outward.
    """

    vertices: Float[np.ndarray, "vertex 3"]
    faces: Int[np.ndarray, "face 3"]


class Pieces(NamedTuple):
    """The convex pieces of an object.

    Attributes:
        pieces: in the order of their source.
        source: "coacd files", "convex" or "decomposed".
        dropped: how many pieces were flat or too small to simulate.
        sha256: of the corners and faces of all pieces.
    """

    pieces: tuple[Piece, ...]
    source: str
    dropped: int
    sha256: str


def convex_pieces(mesh: str, config: PiecesConfig) -> Pieces:
    """Returns the convex pieces of a mesh file, each its own convex hull, at unit scale.

    Files `coacd_convex_piece_<k>.obj` beside the mesh (the layout of DexGraspNet), or in a folder with the mesh's name
    beside it (that of the built-in objects), are used if there are any; else the hull of the mesh if it is convex; else
    CoACD decomposes the mesh, which takes up to a minute. Equal files and settings give equal pieces.

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
        return _hulls(mesh, body, [body.vertices], CONVEX, config)
    return decomposed(mesh, body, config)


def is_convex(body: Mesh, config: PiecesConfig) -> bool:
    """Returns whether a mesh is its own convex hull."""
    depth = _concavity(body.vertices[body.faces], ConvexHull(body.vertices))
    return depth <= config.convex_tolerance * _diagonal(body)


def pieces_image(pieces: Pieces) -> bytes:
    """Returns the bytes of a file of these pieces, for `read_pieces`; equal pieces give equal bytes."""
    corners = [piece.vertices for piece in pieces.pieces]
    faces = [piece.faces for piece in pieces.pieces]
    image = io.BytesIO()
    np.savez(
        image,
        vertices=np.concatenate(corners),
        faces=np.concatenate(faces),
        vertex_count=np.array([len(part) for part in corners]),
        face_count=np.array([len(part) for part in faces]),
        source=np.array(pieces.source),
        dropped=np.array(pieces.dropped),
        sha256=np.array(pieces.sha256),
    )
    return image.getvalue()


def read_pieces(path: str) -> Pieces:
    """Returns the pieces of a file that holds a `pieces_image`.

    Raises:
        InputError: the file is missing, damaged, or does not have the sha256 that it states.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            corners = np.split(file["vertices"], np.cumsum(file["vertex_count"])[:-1])
            faces = np.split(file["faces"], np.cumsum(file["face_count"])[:-1])
            parts = tuple(Piece(*part) for part in zip(corners, faces, strict=True))
            pieces = Pieces(parts, str(file["source"]), int(file["dropped"]), str(file["sha256"]))
    except FileNotFoundError as error:
        raise InputError(f"pieces {path} are not there; convex_pieces makes them from the mesh") from error
    except Exception as error:  # NumPy and zipfile raise many kinds on a damaged file
        raise InputError(f"pieces {path} are damaged: {error}; delete the file to have it made again") from error
    sha256 = _sha256(pieces.pieces)
    if sha256 != pieces.sha256:
        raise InputError(
            f"pieces {path} are damaged: they say sha256 {pieces.sha256} and have {sha256}; delete the file to have "
            "it made again"
        )
    return pieces


def piece_files(mesh: Path) -> list[Path]:
    """Returns the piece files of a mesh in numeric order; they must be numbered 0, 1, 2, ... without a gap.

    They are those in its own folder, or else those in `<folder>/<name of the mesh>`.
    """
    beside, below = mesh.parent, mesh.with_suffix("")
    folder = beside if any(beside.glob(PIECE_FILES)) or not below.is_dir() else below
    by_number = {int(match[1]): path for path in folder.iterdir() if (match := _PIECE_FILE.fullmatch(path.name))}
    missing = [number for number in range(max(by_number, default=-1)) if number not in by_number]
    if missing:
        raise InputError(
            f"{folder} has {len(by_number)} files coacd_convex_piece_<k>.obj up to {max(by_number)} and lacks "
            f"k = {', '.join(map(str, missing))}; copy all of them, or none to have the mesh decomposed anew"
        )
    return [by_number[number] for number in sorted(by_number)]


def _given_pieces(mesh: str, body: Mesh, files: Sequence[Path], config: PiecesConfig) -> Pieces:
    """Returns the pieces in the given files; refuses files that are not convex or do not fill the mesh."""
    bodies = [read_mesh(str(file)) for file in files]
    diagonal = _diagonal(body)
    for file, piece in zip(files, bodies, strict=True):
        depth = _concavity(piece.vertices[piece.faces], ConvexHull(piece.vertices)) / diagonal
        if depth > config.convex_tolerance:
            raise InputError(
                f"{file} is not convex: it has faces {depth:.2g} of the mesh's diagonal below its hull, more than "
                f"convex_tolerance={config.convex_tolerance}; remove the coacd_convex_piece files to have the mesh "
                "decomposed anew"
            )
    pieces = _hulls(mesh, body, [piece.vertices for piece in bodies], GIVEN, config)
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


def decomposed(mesh: str, body: Mesh, config: PiecesConfig) -> Pieces:
    """Returns CoACD's pieces of a mesh, computed by one thread; it remeshes what is no manifold.

    Args:
        mesh: what messages call the mesh.
        body: the mesh.
        config: tolerances, and CoACD's settings.

    Raises:
        InputError: CoACD is not installed or cannot decompose the mesh.
    """
    if find_spec("coacd") is None:
        raise InputError(
            f"mesh {mesh} is not convex and has no coacd_convex_piece_<k>.obj beside it; to decompose it, "
            f"{install_command('objects')}"
        )
    settings = {name: value for name, value in asdict(config).items() if name not in _NOT_FOR_COACD}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        np.savez(folder / "mesh.npz", vertices=body.vertices, faces=body.faces.astype(np.int32))
        (folder / "settings.json").write_text(json.dumps(settings), encoding="utf-8")
        command = [sys.executable, "-P", str(Path(__file__).with_name("coacd_process.py")), name]
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        try:
            process = subprocess.run(
                command, env=environment, capture_output=True, text=True, errors="replace", timeout=DECOMPOSE_TIMEOUT_S
            )
        except subprocess.TimeoutExpired as error:
            raise InputError(
                f"mesh {mesh} is not decomposed after {DECOMPOSE_TIMEOUT_S:g} s; wanted one that CoACD can take: "
                "simplify it, raise pieces.threshold, or lay coacd_convex_piece_<k>.obj beside it"
            ) from error
        if process.returncode:
            message = (process.stderr.strip() or process.stdout.strip() or "nothing").splitlines()[-1]
            raise InputError(
                f"mesh {mesh} cannot be decomposed: CoACD ended with {process.returncode} and said: {message}; "
                "repair the mesh, or lay coacd_convex_piece_<k>.obj beside it"
            )
        with np.load(folder / "pieces.npz", allow_pickle=False) as pieces:
            clouds = [pieces[f"vertices_{number}"] for number in range(len(pieces.files))]
    return _hulls(mesh, body, clouds, DECOMPOSED, config)


def _hulls(mesh: str, body: Mesh, clouds: Sequence[np.ndarray], source: str, config: PiecesConfig) -> Pieces:
    """Returns the convex hulls of point clouds; flat and tiny ones are dropped, as no simulator can weigh them."""
    smallest = config.smallest_volume * _diagonal(body) ** 3
    pieces = tuple(piece for cloud in clouds if (piece := _hull(cloud, smallest)))
    if not pieces:
        raise InputError(
            f"mesh {mesh} has {len(clouds)} convex pieces ({source}) and none is a solid body; repair the mesh, or lay "
            "coacd_convex_piece_<k>.obj beside it"
        )
    return Pieces(pieces, source, len(clouds) - len(pieces), _sha256(pieces))


def _hull(points: np.ndarray, smallest: float) -> Piece | None:
    """Returns the convex hull of points, or None where its volume is below `smallest`."""
    try:
        hull = ConvexHull(points)
    except (QhullError, ValueError):  # fewer than four points, or all in one plane
        return None
    if hull.volume < smallest:
        return None
    new_index = np.zeros(len(points), np.int64)
    new_index[hull.vertices] = np.arange(len(hull.vertices))
    corners = points[hull.simplices]
    normal = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    inward = np.einsum("fi,fi->f", normal, hull.equations[:, :3]) < 0
    faces = new_index[hull.simplices]
    faces[inward] = faces[inward, ::-1]
    return Piece(points[hull.vertices].astype(np.float64), faces)


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


def _diagonal(body: Mesh) -> float:
    """Returns the length of the bounding box's diagonal, m."""
    return float(np.linalg.norm(np.ptp(body.vertices, axis=0)))


def _sha256(pieces: Sequence[Piece]) -> str:
    """Returns the hash of the shapes and bytes of all corners and faces."""
    whole = hashlib.sha256()
    for piece in pieces:
        whole.update(f"{len(piece.vertices)} {len(piece.faces)}\n".encode())
        whole.update(np.ascontiguousarray(piece.vertices, "<f8").tobytes())
        whole.update(np.ascontiguousarray(piece.faces, "<i8").tobytes())
    return whole.hexdigest()
