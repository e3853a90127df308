"""Prepares a mesh for grasping: repairs and normalizes it, checks the sign of its distance, encodes it as OBJ."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from bimangrasp.errors import InputError
from bimangrasp.geometry.outer_surface import outer_surface
from bimangrasp.objects.config import PreparationConfig
from bimangrasp.objects.mesh_repair import Repairs, bodies_of, repaired, split_bodies
from bimangrasp.objects.model import Mesh, checked_mesh, is_closed, load_triangles, volume_of
from bimangrasp.objects.normalization import Normalization, fitting_units, normalization
from bimangrasp.objects.sign_check import SignCheck, check_sign

MAX_WRONG_SHARE = 0.05
"""Share of points with the wrong sign above which a mesh cannot be used. Meshes of DexGraspNet have up to 0.03, beside
the faces between their convex pieces."""

LARGEST_UNIT_EXTENT = 2.1
"""A mesh with a larger extent is neither in meters nor normalized, or too large for two hands."""


class MeshFacts(NamedTuple):
    """The size and topology of a mesh.

    Attributes:
        vertices, faces: counts.
        closed: whether its faces enclose a volume.
        bodies: number of parts that do not touch.
        extents: sizes along the axes.
        volume: enclosed by all bodies, of which overlapping ones count twice; 0 where it is open.
    """

    vertices: int
    faces: int
    closed: bool
    bodies: int
    extents: tuple[float, float, float]
    volume: float


class Draft(NamedTuple):
    """A mesh that is repaired and normalized, before its inside is checked.

    Attributes:
        path: path of its file.
        original: the mesh of the file.
        vertices, faces: as they will be written.
        placement: how it was moved and scaled.
        repairs: number of repairs of each kind.
        holes: sizes of the remaining holes, see `Repaired`.
    """

    path: str
    original: MeshFacts
    vertices: np.ndarray
    faces: np.ndarray
    placement: Normalization
    repairs: Repairs
    holes: tuple[float, ...]


class Preparation(NamedTuple):
    """A mesh that is ready to be grasped.

    Attributes:
        original: what the file had.
        prepared: what the prepared mesh has, unit scale.
        mesh: the prepared mesh; its hash is that of `image`.
        image: its OBJ file.
        placement: how it was moved.
        repairs: what was repaired.
        sign: how the sign of its distances fares.
        warnings: what a person should know.
    """

    original: MeshFacts
    prepared: MeshFacts
    mesh: Mesh
    image: bytes
    placement: Normalization
    repairs: Repairs
    sign: SignCheck
    warnings: tuple[str, ...]


def make_draft(path: str, config: PreparationConfig) -> Draft:
    """Returns the mesh of a file, repaired and normalized; equal files and settings give equal bits.

    Raises:
        InputError: the file cannot be read, or has no usable face.
    """
    vertices, faces = load_triangles(path)
    repaired_mesh = repaired(vertices, faces, config.largest_hole)
    if not len(repaired_mesh.faces):
        raise InputError(f"mesh {path} has no face that can be used: {repaired_mesh.repairs}; a solid body is wanted")
    placement = normalization(repaired_mesh.vertices, config.normalize, config.unit)
    return Draft(
        path=path,
        original=_facts(vertices, faces),
        vertices=as_written(placement(repaired_mesh.vertices)),
        faces=repaired_mesh.faces,
        placement=placement,
        repairs=repaired_mesh.repairs,
        holes=repaired_mesh.holes,
    )


def finish_draft(draft: Draft, config: PreparationConfig) -> Preparation:
    """Returns the prepared mesh of a draft, after its inside was checked.

    Raises:
        InputError: its inside is undetermined, or its distances have the wrong sign.
    """
    mesh, image = _checked(draft, draft.vertices, draft.faces)
    sign = check_sign(mesh)
    repairs, warnings = draft.repairs, []
    bodies = _body_count(mesh.vertices, mesh.faces)
    if sign.wrong and bodies > 1 and config.interior_faces == "remove":
        try:
            mesh, image = _checked(draft, *outer_surface(*split_bodies(mesh.vertices, mesh.faces)))
            remaining = _body_count(mesh.vertices, mesh.faces)
            warnings.append(
                f"wrong sign at {sign.wrong} of {sign.tried} points until {bodies} bodies became {remaining}; "
                "prepare.interior_faces=keep leaves them"
            )
            sign, repairs = check_sign(mesh), repairs._replace(joined=bodies - remaining)
        except InputError as error:
            warnings.append(f"its bodies cannot be joined: {error}")
    _refuse_wrong_sign(draft.path, sign)
    facts = _facts(mesh.vertices, mesh.faces)
    warnings += _warnings(config, draft, facts, sign)
    return Preparation(draft.original, facts, mesh, image, draft.placement, repairs, sign, tuple(warnings))


def obj_image(bodies: Iterable[tuple[np.ndarray, np.ndarray]]) -> bytes:
    """Returns an OBJ file of bodies (vertices (V, 3), faces (F, 3)), with the nine digits that float32 needs."""
    lines, first = [], 1
    for vertices, faces in bodies:
        lines += [f"v {x:.9g} {y:.9g} {z:.9g}" for x, y, z in vertices.tolist()]
        lines += [f"f {a} {b} {c}" for a, b, c in (faces + first).tolist()]
        first += len(vertices)
    return ("\n".join(lines) + "\n").encode()


def as_written(vertices: np.ndarray) -> np.ndarray:
    """Returns vertices as `obj_image` writes them."""
    return np.array([[float(f"{value:.9g}") for value in row] for row in vertices.tolist()]).reshape(-1, 3)


def _checked(draft: Draft, vertices: np.ndarray, faces: np.ndarray) -> tuple[Mesh, bytes]:
    """Returns the checked mesh as it will be read back, and the bytes of its file."""
    try:
        mesh = checked_mesh(draft.path, as_written(vertices), faces, "")
    except InputError as error:
        sizes = ", ".join(f"{size:.2g}" for size in draft.holes)
        left = f"; it has holes of {sizes} of its diagonal, above prepare.largest_hole" if sizes else ""
        raise InputError(f"{error}{left}") from error
    image = obj_image([(mesh.vertices, mesh.faces)])
    return mesh._replace(sha256=hashlib.sha256(image).hexdigest()), image


def _refuse_wrong_sign(path: str, sign: SignCheck) -> None:
    """Refuses a mesh whose signed distance cannot be trusted."""
    if sign.far_wrong or sign.wrong > MAX_WRONG_SHARE * sign.tried:
        raise InputError(
            f"mesh {path} has the wrong sign of its distance at {sign.wrong} of {sign.tried} points (beside faces "
            f"{sign.beside_wrong}, in its box {sign.box_wrong}, far away {sign.far_wrong}): its bodies overlap or are "
            "inside out; join them (prepare.interior_faces=remove) or take its convex pieces (prepare.surface=pieces)"
        )


def _facts(vertices: np.ndarray, faces: np.ndarray) -> MeshFacts:
    """Returns the facts of a mesh; faces with NaN are counted and otherwise ignored."""
    good = faces[np.isfinite(vertices).all(axis=1)[faces].all(axis=1)]
    closed = len(good) == len(faces) and is_closed(vertices, faces)
    corners = vertices[good]
    extents = np.ptp(corners.reshape(-1, 3), axis=0) if len(good) else np.zeros(3)
    volume = volume_of(corners) if closed else 0.0
    return MeshFacts(len(vertices), len(faces), closed, _body_count(vertices, good), tuple(extents.tolist()), volume)


def _body_count(vertices: np.ndarray, faces: np.ndarray) -> int:
    return int(bodies_of(vertices, faces).max(initial=-1)) + 1


def _warnings(config: PreparationConfig, draft: Draft, facts: MeshFacts, sign: SignCheck) -> list[str]:
    """Returns warnings about a mesh that can be used."""
    warnings = []
    extent = max(draft.original.extents)
    if config.normalize != "keep" and extent > LARGEST_UNIT_EXTENT:
        fits = " or ".join(fitting_units(extent)) or "none of m, cm, mm, in"
        warnings.append(
            f"the file spans {extent:.4g}: its unit may be {fits}. That size is not kept; prepare.normalize=keep "
            "prepare.unit=<unit> with object.scales=[1.0] keeps it"
        )
    if not facts.closed:
        sizes = ", ".join(f"{size:.2g}" for size in draft.holes) or "unknown size"
        warnings.append(
            f"open, with holes of {sizes} of its diagonal: sides are told by the winding number, which is slow"
        )
    if sign.wrong:
        warnings.append(f"wrong sign at {sign.wrong} of {sign.tried} points, beside faces inside of it")
    return warnings
