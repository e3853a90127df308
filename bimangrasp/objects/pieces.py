"""Represents the convex pieces of an object, and writes and reads their file."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int
from scipy.spatial import ConvexHull, QhullError

from bimangrasp.errors import InputError


class Piece(NamedTuple):
    """One convex body, unit scale.

    Attributes:
        vertices: corners of its hull, m.
        faces: triangles, outward.
    """

    vertices: Float[np.ndarray, "vertex 3"]
    faces: Int[np.ndarray, "face 3"]


class PiecesFit(NamedTuple):
    """How far pieces are from their mesh, unit scale.

    Attributes:
        distance: 95 % of the outer surface of either are at most this far from that of the other, m.
        largest: of all points that were tried, m.
        uncovered: the farthest that the mesh stands out of the pieces, m; CoACD's hulls leave nothing out.
        volume_ratio: volume of the union of the pieces over that of the mesh, whose overlapping bodies count twice;
            None where the mesh encloses nothing.
    """

    distance: float
    largest: float
    uncovered: float
    volume_ratio: float | None

    def at(self, object_scale: float) -> str:
        """Returns the figures at a size, as text."""
        ratio = "" if self.volume_ratio is None else f", volume x {self.volume_ratio:.3f}"
        near, far = 1000 * object_scale * self.distance, 1000 * object_scale * self.largest
        return f"95 % of the surface within {near:.2f} mm, all within {far:.2f} mm{ratio}"


class Pieces(NamedTuple):
    """The convex pieces of an object.

    Attributes:
        pieces: in the order of their source.
        source: "coacd files", "convex" or "decomposed".
        dropped: how many pieces were flat or too small to simulate.
        sha256: of the corners and faces of all pieces.
        fit: how far they are from their mesh; None where manifold3d was not there to measure it.
        fallback: what CoACD was run with in place of the settings, where these failed; empty where they did not.
    """

    pieces: tuple[Piece, ...]
    source: str
    dropped: int
    sha256: str
    fit: PiecesFit | None = None
    fallback: str = ""

    def record(self) -> dict[str, Any]:
        """Returns what JSON files say of the pieces."""
        about = {name: getattr(self, name) for name in ("source", "dropped", "sha256", "fallback")}
        return {"count": len(self.pieces), **about, "fit": self.fit._asdict() if self.fit else None}


def hull(points: Float[np.ndarray, "point 3"], smallest: float) -> Piece | None:
    """Returns the convex hull of points, or None where its volume is below `smallest`, m3."""
    try:
        convex = ConvexHull(points)
    except (QhullError, ValueError):  # fewer than four points, or all in one plane
        return None
    if convex.volume < smallest:
        return None
    new_index = np.zeros(len(points), np.int64)
    new_index[convex.vertices] = np.arange(len(convex.vertices))
    corners = points[convex.simplices]
    normal = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    inward = np.einsum("fi,fi->f", normal, convex.equations[:, :3]) < 0
    faces = new_index[convex.simplices]
    faces[inward] = faces[inward, ::-1]
    return Piece(points[convex.vertices].astype(np.float64), faces)


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
        fit=np.array(json.dumps(pieces.fit)),
        fallback=np.array(pieces.fallback),
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
            fit = json.loads(str(file["fit"]))
            pieces = Pieces(
                pieces=parts,
                source=str(file["source"]),
                dropped=int(file["dropped"]),
                sha256=str(file["sha256"]),
                fit=fit and PiecesFit(*fit),
                fallback=str(file["fallback"]),
            )
    except FileNotFoundError as error:
        raise InputError(f"pieces {path} are not there; convex_pieces makes them from the mesh") from error
    except Exception as error:  # NumPy and zipfile raise many kinds on a damaged file
        raise InputError(f"pieces {path} are damaged: {error}; delete the file to have it made again") from error
    sha256 = sha256_of(pieces.pieces)
    if sha256 != pieces.sha256:
        raise InputError(
            f"pieces {path} are damaged: they say sha256 {pieces.sha256} and have {sha256}; delete the file to have "
            "it made again"
        )
    return pieces


def sha256_of(pieces: Sequence[Piece]) -> str:
    """Returns the hash of the shapes and bytes of all corners and faces."""
    whole = hashlib.sha256()
    for piece in pieces:
        whole.update(f"{len(piece.vertices)} {len(piece.faces)}\n".encode())
        whole.update(np.ascontiguousarray(piece.vertices, "<f8").tobytes())
        whole.update(np.ascontiguousarray(piece.faces, "<i8").tobytes())
    return whole.hexdigest()
