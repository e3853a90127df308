"""One mesh, made ready to be grasped: repaired, at the convention's place and size, its sign tested, as an OBJ file."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from bimangrasp.errors import InputError
from bimangrasp.geometry.outer_surface import outer_surface
from bimangrasp.objects.config import PreparationConfig
from bimangrasp.objects.mesh_repair import Repairs, apart, bodies_of, repaired
from bimangrasp.objects.model import Mesh, checked_mesh, is_closed, load_triangles, volume_of
from bimangrasp.objects.normalization import Normalization, fitting_units, normalization
from bimangrasp.objects.sign_check import SignTest, sign_test

MOST_WRONG = 0.05
"""Share of points with the wrong sign from which a mesh cannot be used. Meshes of DexGraspNet have up to 0.03, beside
the faces between their convex pieces."""

UNIT_MESH = 2.1
"""A mesh with a larger extent than this is neither in meters nor normalized, or it is no thing for two hands."""


class Facts(NamedTuple):
    """What a mesh is.

    Attributes:
        vertices, faces: counts.
        closed: whether its faces enclose something.
        bodies: how many parts it has that do not touch.
        extents: along the axes.
        volume: enclosed by all bodies, of which overlapping ones count twice; 0 where it is open.
    """

    vertices: int
    faces: int
    closed: bool
    bodies: int
    extents: tuple[float, float, float]
    volume: float


class Draft(NamedTuple):
    """A mesh that is repaired and in its place; its inside is not looked at yet.

    Attributes:
        path: of its file.
        found: what the file had.
        vertices, faces: as they will be written.
        place: how it was moved.
        repairs: what was repaired.
        holes: what is open yet, see `Repaired`.
    """

    path: str
    found: Facts
    vertices: np.ndarray
    faces: np.ndarray
    place: Normalization
    repairs: Repairs
    holes: tuple[float, ...]


class Preparation(NamedTuple):
    """A mesh made ready.

    Attributes:
        found: what the file had.
        made: what the prepared mesh has, unit scale.
        mesh: the prepared mesh; its hash is that of `image`.
        image: its OBJ file.
        place: how it was moved.
        repairs: what was repaired.
        sign: how the sign of its distances fares.
        warnings: what a person should know.
    """

    found: Facts
    made: Facts
    mesh: Mesh
    image: bytes
    place: Normalization
    repairs: Repairs
    sign: SignTest
    warnings: tuple[str, ...]


def draft(path: str, config: PreparationConfig) -> Draft:
    """Returns the mesh of a file, repaired and in its place; equal files and settings give equal bits.

    Raises:
        InputError: it cannot be read, or has no face that can be used.
    """
    vertices, faces = load_triangles(path)
    fixed = repaired(vertices, faces, config.largest_hole)
    if not len(fixed.faces):
        raise InputError(f"mesh {path} has no face that can be used: {fixed.repairs}; a solid body is wanted")
    place = normalization(fixed.vertices, config.normalize, config.unit)
    placed = as_written(place(fixed.vertices))
    return Draft(path, _facts(vertices, faces), placed, fixed.faces, place, fixed.repairs, fixed.holes)


def finished(made: Draft, config: PreparationConfig) -> Preparation:
    """Returns a draft with its inside looked at: what can be grasped.

    Raises:
        InputError: its inside cannot be told, or its distances have the wrong sign.
    """
    mesh, image = _solid(made, made.vertices, made.faces)
    sign, repairs, warnings = sign_test(mesh), made.repairs, []
    bodies = _body_count(mesh.vertices, mesh.faces)
    if sign.wrong and bodies > 1 and config.interior_faces == "remove":
        try:
            mesh, image = _solid(made, *outer_surface(*apart(mesh.vertices, mesh.faces)))
            left = _body_count(mesh.vertices, mesh.faces)
            warnings.append(
                f"wrong sign at {sign.wrong} of {sign.tried} points until {bodies} bodies became {left}; "
                "prepare.interior_faces=keep leaves them"
            )
            sign, repairs = sign_test(mesh), repairs._replace(joined=bodies - left)
        except InputError as error:
            warnings.append(f"its bodies cannot be joined: {error}")
    _check_sign(made.path, sign)
    facts = _facts(mesh.vertices, mesh.faces)
    warnings += _warnings(config, made, facts, sign)
    return Preparation(made.found, facts, mesh, image, made.place, repairs, sign, tuple(warnings))


def obj_image(bodies: Iterable[tuple[np.ndarray, np.ndarray]]) -> bytes:
    """Returns an OBJ file of bodies (vertices (V, 3), faces (F, 3)); nine digits, as many as float32 needs."""
    lines, first = [], 1
    for vertices, faces in bodies:
        lines += [f"v {x:.9g} {y:.9g} {z:.9g}" for x, y, z in vertices.tolist()]
        lines += [f"f {a} {b} {c}" for a, b, c in (faces + first).tolist()]
        first += len(vertices)
    return ("\n".join(lines) + "\n").encode()


def as_written(vertices: np.ndarray) -> np.ndarray:
    """Returns vertices as `obj_image` writes them."""
    return np.array([[float(f"{value:.9g}") for value in row] for row in vertices.tolist()]).reshape(-1, 3)


def _solid(made: Draft, vertices: np.ndarray, faces: np.ndarray) -> tuple[Mesh, bytes]:
    """Returns the checked mesh as it will be read back, and its file."""
    try:
        mesh = checked_mesh(made.path, as_written(vertices), faces, "")
    except InputError as error:
        sizes = ", ".join(f"{size:.2g}" for size in made.holes)
        left = f"; it has holes of {sizes} of its diagonal, above prepare.largest_hole" if sizes else ""
        raise InputError(f"{error}{left}") from error
    image = obj_image([(mesh.vertices, mesh.faces)])
    return mesh._replace(sha256=hashlib.sha256(image).hexdigest()), image


def _check_sign(path: str, sign: SignTest) -> None:
    """Refuses a mesh whose signed distance cannot be trusted."""
    if sign.far_wrong or sign.wrong > MOST_WRONG * sign.tried:
        raise InputError(
            f"mesh {path} has the wrong sign of its distance at {sign.wrong} of {sign.tried} points (beside faces "
            f"{sign.beside_wrong}, in its box {sign.box_wrong}, far away {sign.far_wrong}): its bodies overlap or are "
            "inside out; join them (prepare.interior_faces=remove) or take its convex pieces (prepare.surface=pieces)"
        )


def _facts(vertices: np.ndarray, faces: np.ndarray) -> Facts:
    """Returns what a mesh is; faces with NaN are counted and otherwise left out."""
    good = faces[np.isfinite(vertices).all(axis=1)[faces].all(axis=1)]
    closed = len(good) == len(faces) and is_closed(vertices, faces)
    corners = vertices[good]
    extents = np.ptp(corners.reshape(-1, 3), axis=0) if len(good) else np.zeros(3)
    volume = volume_of(corners) if closed else 0.0
    return Facts(len(vertices), len(faces), closed, _body_count(vertices, good), tuple(extents.tolist()), volume)


def _body_count(vertices: np.ndarray, faces: np.ndarray) -> int:
    return int(bodies_of(vertices, faces).max(initial=-1)) + 1


def _warnings(config: PreparationConfig, made: Draft, facts: Facts, sign: SignTest) -> list[str]:
    """Returns what a person should know of a mesh that can be used."""
    said, extent = [], max(made.found.extents)
    if config.normalize != "keep" and extent > UNIT_MESH:
        fits = " or ".join(fitting_units(extent)) or "none of m, cm, mm, in"
        said.append(
            f"the file spans {extent:.4g}: its unit may be {fits}. That size is not kept; prepare.normalize=keep "
            "prepare.unit=<unit> with object.scales=[1.0] keeps it"
        )
    if not facts.closed:
        sizes = ", ".join(f"{size:.2g}" for size in made.holes) or "unknown size"
        said.append(f"open, with holes of {sizes} of its diagonal: sides are told by the winding number, which is slow")
    if sign.wrong:
        said.append(f"wrong sign at {sign.wrong} of {sign.tried} points, beside faces inside of it")
    return said
