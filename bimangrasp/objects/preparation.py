"""Prepares a mesh for grasping: repairs and normalizes it, checks the sign of its distance, encodes it as OBJ."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from bimangrasp.errors import InputError
from bimangrasp.geometry.farthest_point_sampling import key_generator
from bimangrasp.geometry.triangle_mesh import winding_number
from bimangrasp.objects.config import UNITS, ObjectConfig, PreparationConfig
from bimangrasp.objects.files import LARGEST_SIZE, SMALLEST_SIZE
from bimangrasp.objects.mesh_repair import Repaired, Repairs, bodies_of, joined_bodies, repaired
from bimangrasp.objects.model import Mesh, ObjectModel, checked_mesh, is_closed, load_triangles, volume_of

MAX_WRONG_SHARE = 0.05
"""Share of points with the wrong sign above which a mesh cannot be used. Meshes of DexGraspNet have up to 0.03, beside
the faces between their convex pieces."""

LARGEST_UNIT_EXTENT = 2.1
"""A mesh with a larger extent is neither in meters nor normalized, or too large for two hands."""

DEXGRASPNET_RADIUS = 1 / 1.03
"""Distance of the farthest vertex from the middle of the bounding box (asset_process/normalize.py of DexGraspNet)."""

ALREADY = 0.01
"""A mesh this close to a convention, as a share of its largest extent, stays unchanged: DexGraspNet's own files are up
to 0.9 % off, since they were decomposed after they were normalized."""

AT_FACES, IN_BOX, FAR = 300, 300, 60
"""Number of points of each kind; at faces there are as many on either side."""

STEP = 1e-3
"""Distance of points beside faces to their face, share of the mesh's diagonal."""

NOTHING = 1e-12
"""A mesh whose volume is below this share of its largest extent cubed encloses nothing: a sheet with two sides."""

SHOWN_HOLES = 5
"""Sizes of holes in a sentence."""

DECIDED = 0.25
"""Points are ignored whose winding number is farther than this from an integer: the mesh leaves their side open."""

_ONLY_DISTANCE = ObjectConfig([1.0], None, 1, 1, "keep", 8)


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
        placement: how it was moved and scaled.
        mesh: as it will be written.
    """

    path: str
    original: MeshFacts
    placement: Normalization
    mesh: Repaired


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
    mesh = repaired(vertices, faces, config.largest_hole)
    if not len(mesh.faces):
        raise InputError(f"mesh {path} has no face that can be used: {mesh.repairs}; a solid body is wanted")
    placement = normalization(mesh.vertices, config.normalize, config.unit)
    mesh = mesh._replace(vertices=as_written(placement(mesh.vertices)))
    return Draft(path, facts_of(vertices, faces), placement, mesh)


def finish_draft(draft: Draft, config: PreparationConfig) -> Preparation:
    """Returns the prepared mesh of a draft, after its inside was checked.

    Raises:
        InputError: its inside is undetermined, or its distances have the wrong sign.
    """
    mesh, image = _checked(draft, config, draft.mesh.vertices, draft.mesh.faces)
    sign = check_sign(mesh)
    repairs, warnings, failure = draft.mesh.repairs, [], ""
    bodies = _body_count(mesh.vertices, mesh.faces)
    if sign.wrong and bodies > 1 and config.interior_faces == "remove":
        try:
            mesh, image = _checked(draft, config, *joined_bodies(mesh.vertices, mesh.faces))
            remaining = _body_count(mesh.vertices, mesh.faces)
            kept = "" if _is_refused(sign) else "; prepare.interior_faces=keep leaves them"
            warnings.append(
                f"the prepared mesh had the wrong sign at {sign.wrong} of {sign.tried} points until its {bodies} "
                f"bodies became {remaining}{kept}"
            )
            sign, repairs = check_sign(mesh), repairs._replace(joined=bodies - remaining)
        except InputError as error:
            failure = f"its {bodies} bodies cannot be joined, as {getattr(error, 'reason', error)}"
            warnings.append(failure)
    if _is_refused(sign):
        raise InputError(
            f"mesh {draft.path} has the wrong sign of its distance at {sign.wrong} of {sign.tried} points (beside "
            f"faces {sign.beside_wrong}, in its box {sign.box_wrong}, far away {sign.far_wrong}), as its bodies "
            f"overlap or are inside out{f', and {failure}' if failure else ''}; {_advice_on_sign(draft, mesh, config)}"
        )
    facts = facts_of(mesh.vertices, mesh.faces)
    warnings += [*unit_warnings(draft, config), *_warnings(draft, facts, sign)]
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


def _advice_on_sign(draft: Draft, mesh: Mesh, config: PreparationConfig) -> str:
    """Returns what helps a mesh with wrong signs, of what is not in force already."""
    joins = config.interior_faces == "keep" and _helps_to_join(draft, mesh, config)
    advice = ["join them (prepare.interior_faces=remove)"] if joins else []
    advice += ["take its convex pieces (prepare.surface=pieces)"] if config.surface == "mesh" else []
    return " or ".join(advice) or "make one closed body of it in an editor of meshes"


def _is_refused(sign: SignCheck) -> bool:
    """Returns whether a mesh with these signs cannot be used."""
    return bool(sign.far_wrong) or sign.wrong > MAX_WRONG_SHARE * sign.tried


def _helps_to_join(draft: Draft, mesh: Mesh, config: PreparationConfig) -> bool:
    """Returns whether a mesh could be used with its bodies joined: an advice is tried before it is given."""
    if _body_count(mesh.vertices, mesh.faces) < 2:
        return False
    try:
        joined, _ = _checked(draft, config, *joined_bodies(mesh.vertices, mesh.faces))
    except InputError:
        return False
    return not _is_refused(check_sign(joined))


def _advice_on_holes(config: PreparationConfig, holes: tuple[float, ...]) -> str:
    """Returns what helps a mesh that stays open, of what is not in force already."""
    advice = ["take its convex pieces in its place (prepare.surface=pieces)"] if config.surface == "mesh" else []
    enough = math.ceil(100 * max(holes, default=1)) / 100
    if enough < 1:
        advice.append(f"close its holes of {_sizes(holes)} of its diagonal (prepare.largest_hole={enough:g})")
    elif holes:
        advice.append(f"close its holes of {_sizes(holes)} of its diagonal in an editor of meshes")
    return " or ".join(advice) or "close it in an editor of meshes"


def _sizes(holes: tuple[float, ...]) -> str:
    """Returns the sizes of holes as text, the largest first."""
    largest = sorted(holes, reverse=True)[:SHOWN_HOLES]
    return ", ".join(f"{size:.2g}" for size in largest) + (", ..." if len(holes) > SHOWN_HOLES else "")


def _checked(draft: Draft, config: PreparationConfig, vertices: np.ndarray, faces: np.ndarray) -> tuple[Mesh, bytes]:
    """Returns the checked mesh as it will be read back, and the bytes of its file."""
    advice = _advice_on_holes(config, draft.mesh.holes)
    mesh = checked_mesh(f"{draft.path}, as it is repaired,", as_written(vertices), faces, "", advice)
    image = obj_image([(mesh.vertices, mesh.faces)])
    return mesh._replace(sha256=hashlib.sha256(image).hexdigest()), image


def facts_of(vertices: np.ndarray, faces: np.ndarray) -> MeshFacts:
    """Returns the facts of a mesh; faces with NaN are counted and otherwise ignored."""
    good = faces[np.isfinite(vertices).all(axis=1)[faces].all(axis=1)]
    corners = vertices[good]
    extents = np.ptp(corners.reshape(-1, 3), axis=0) if len(good) else np.zeros(3)
    volume = volume_of(corners) if len(good) == len(faces) and is_closed(vertices, faces) else 0.0
    closed = bool(abs(volume) > NOTHING * extents.max() ** 3)
    count = _body_count(vertices, good)
    return MeshFacts(len(vertices), len(faces), closed, count, tuple(extents.tolist()), volume if closed else 0.0)


def _body_count(vertices: np.ndarray, faces: np.ndarray) -> int:
    return int(bodies_of(vertices, faces).max(initial=-1)) + 1


def unit_warnings(draft: Draft, config: PreparationConfig) -> list[str]:
    """Returns a warning about a file whose size is that of no normalized mesh; none of any other."""
    extent = max(draft.original.extents)
    if config.normalize == "keep" or extent <= LARGEST_UNIT_EXTENT:
        return []
    fits = " or ".join(fitting_units(extent)) or "none of m, cm, mm, in"
    return [
        f"the file spans {extent:.4g}: its unit may be {fits}. That size is not kept; prepare.normalize=keep "
        "prepare.unit=<unit> with object.scales=[1.0] keeps it"
    ]


def _warnings(draft: Draft, facts: MeshFacts, sign: SignCheck) -> list[str]:
    """Returns warnings about a mesh that can be used: each says that it is about the prepared one."""
    warnings = []
    if not facts.closed:
        holes = draft.mesh.holes
        which = f"with holes of {_sizes(holes)} of its diagonal" if holes else "with edges that no hole's rim explains"
        file = (
            "that of the file is closed, with walls of two sides of which one stays"
            if draft.original.closed
            else "as is that of the file"
        )
        warnings.append(
            f"the prepared mesh is open ({file}), {which}: sides are told by the winding number, which is slow"
        )
    if sign.wrong:
        warnings.append(
            f"the prepared mesh has the wrong sign at {sign.wrong} of {sign.tried} points, beside faces inside of it"
        )
    return warnings


class Normalization(NamedTuple):
    """x_prepared = factor * (x_file - center).

    Attributes:
        center: in the file's coordinates.
        factor: lengths of the prepared mesh over those of the file.
    """

    center: Float[np.ndarray, "3"]
    factor: float

    def __call__(self, vertices: Float[np.ndarray, "vertex 3"]) -> Float[np.ndarray, "vertex 3"]:
        """Returns vertices of the file where the prepared mesh has them; bitwise the same where nothing changes."""
        return self.factor * (vertices - self.center)


def normalization(vertices: Float[np.ndarray, "vertex 3"], convention: str, unit: str) -> Normalization:
    """Returns the map that takes a mesh to a convention.

    `dexgraspnet` puts the middle of the bounding box at the origin and the farthest vertex 1/1.03 from it; `plain` puts
    it at the origin, too, and makes the largest extent along an axis 1; `keep` only converts the unit of the file to
    meters. Repeating a normalization changes nothing.

    Args:
        vertices: the vertices of the file that faces use.
        convention: one of `CONVENTIONS`.
        unit: unit of the file, one of `UNITS`; only for `keep`.
    """
    origin = np.zeros(3)
    if convention == "keep":
        return Normalization(origin, UNITS[unit])
    low, high = vertices.min(axis=0), vertices.max(axis=0)
    middle, extent = (low + high) / 2, float((high - low).max())
    if not extent:
        raise InputError(f"all {len(vertices)} vertices are at one place, {low.tolist()}; a solid body is wanted")
    radius = float(np.linalg.norm(vertices - middle, axis=1).max())
    factor = DEXGRASPNET_RADIUS / radius if convention == "dexgraspnet" else 1 / extent
    if abs(factor - 1) <= ALREADY and np.linalg.norm(middle) <= ALREADY * extent:
        return Normalization(origin, 1.0)
    return Normalization(middle, factor)


def fitting_units(extent: float) -> list[str]:
    """Returns the units in which an object of this largest extent has a size that two hands can hold."""
    return [name for name, length in UNITS.items() if SMALLEST_SIZE <= extent * length <= LARGEST_SIZE]


class SignCheck(NamedTuple):
    """Numbers of points that were tried, and of points with the wrong sign.

    Attributes:
        beside, beside_wrong: just inside and just outside of faces.
        box, box_wrong: in the bounding box.
        far, far_wrong: far outside.
    """

    beside: int
    beside_wrong: int
    box: int
    box_wrong: int
    far: int
    far_wrong: int

    @property
    def tried(self) -> int:
        """Number of points that were tried."""
        return self.beside + self.box + self.far

    @property
    def wrong(self) -> int:
        """Number of points with the wrong sign."""
        return self.beside_wrong + self.box_wrong + self.far_wrong


def check_sign(mesh: Mesh) -> SignCheck:
    """Returns how often `ObjectModel.signed_distance` has the wrong sign, at points that are keyed by the mesh."""
    generator = key_generator(mesh.sha256, "sign")
    corners = torch.as_tensor(mesh.vertices[mesh.faces])
    obj = ObjectModel(mesh, _ONLY_DISTANCE)
    counts: list[int] = []
    for points in _test_points(corners, generator):
        number = winding_number(points, corners)
        is_decided, inside = (number - number.round()).abs() <= DECIDED, number.round() != 0
        distance, _ = obj.signed_distance(points[None].float(), torch.ones(1))
        counts += [int(is_decided.sum()), int(((distance[0] < 0) != inside)[is_decided].sum())]
    return SignCheck(*counts)


def _test_points(
    corners: Float[Tensor, "face 3 3"], generator: torch.Generator
) -> tuple[Float[Tensor, "beside 3"], Float[Tensor, "box 3"], Float[Tensor, "far 3"]]:
    """Returns points on both sides of faces, chosen by area; in the bounding box; and a diagonal from its middle."""
    low, high = corners.amin(dim=(0, 1)), corners.amax(dim=(0, 1))
    diagonal = torch.linalg.vector_norm(high - low)
    normal = torch.linalg.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0], dim=-1)
    face = torch.multinomial(torch.linalg.vector_norm(normal, dim=-1), AT_FACES, replacement=True, generator=generator)
    draws = torch.rand((AT_FACES, 3), generator=generator, dtype=corners.dtype)
    weights = draws.log() / draws.log().sum(dim=1, keepdim=True)  # uniform on the triangle
    on_face = (weights[..., None] * corners[face]).sum(dim=1)
    step = STEP * diagonal * torch.nn.functional.normalize(normal[face], dim=-1)
    in_box = low + (high - low) * torch.rand((IN_BOX, 3), generator=generator, dtype=corners.dtype)
    away = torch.nn.functional.normalize(torch.randn((FAR, 3), generator=generator, dtype=corners.dtype), dim=-1)
    return torch.cat((on_face + step, on_face - step)), in_box, (low + high) / 2 + away * diagonal
