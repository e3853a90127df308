"""Repairs a triangle mesh so that it becomes a closed solid of the same shape, and counts each repair."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
import trimesh
from jaxtyping import Bool, Float, Int
from trimesh.graph import connected_component_labels, face_adjacency

from bimangrasp.geometry.triangle_mesh import NoSolidError, outer_surface, winding_number
from bimangrasp.objects.model import is_closed

MERGE = 1e-6
"""Vertices of an open mesh that agree up to this share of its diagonal are merged."""


class Repairs(NamedTuple):
    """How often each repair was made.

    Attributes:
        not_finite: faces with a vertex that is no finite number, left out.
        merged: vertices that became one with another.
        degenerate: faces with two corners at one vertex, left out.
        repeated: duplicate faces, left out, and walls between touching bodies.
        turned: faces whose corners were in the wrong order.
        filled: faces that close holes.
        joined: bodies that became one with others.
    """

    not_finite: int = 0
    merged: int = 0
    degenerate: int = 0
    repeated: int = 0
    turned: int = 0
    filled: int = 0
    joined: int = 0

    def __str__(self) -> str:
        words = {
            "not_finite": "faces with NaN left out",
            "merged": "vertices merged",
            "degenerate": "faces without area left out",
            "repeated": "repeated faces left out",
            "turned": "faces turned",
            "filled": "faces added over holes",
            "joined": "bodies joined",
        }
        return ", ".join(f"{word}: {getattr(self, name)}" for name, word in words.items() if getattr(self, name))


class Repaired(NamedTuple):
    """A mesh after its repairs.

    Attributes:
        vertices: (V, 3), those that faces use.
        faces: (F, 3).
        repairs: number of repairs of each kind.
        holes: size of each hole that remains, share of the mesh's diagonal.
    """

    vertices: Float[np.ndarray, "vertex 3"]
    faces: Int[np.ndarray, "face 3"]
    repairs: Repairs
    holes: tuple[float, ...]


def repaired(
    vertices: Float[np.ndarray, "vertex 3"], faces: Int[np.ndarray, "face 3"], largest_hole: float
) -> Repaired:
    """Returns a mesh after all possible repairs; a mesh that needs none comes back unchanged.

    Args:
        vertices: in any unit.
        faces: in any orientation.
        largest_hole: holes up to this share of the mesh's diagonal are closed; single missing faces always are.
    """
    finite = np.isfinite(vertices).all(axis=1)[faces].all(axis=1)
    vertices, faces = used_vertices(vertices, faces[finite])
    counts = {"not_finite": int((~finite).sum())}
    if not len(faces):
        return Repaired(vertices, faces, Repairs(**counts), ())
    vertices, faces, counts["merged"] = _merged(vertices, faces)
    distinct = (faces != np.roll(faces, 1, axis=1)).all(axis=1)
    counts["degenerate"] = int((~distinct).sum())
    if not distinct.any():
        return Repaired(*used_vertices(vertices, faces[distinct]), Repairs(**counts), ())
    single = _without_repeats(faces[distinct])
    counts["repeated"] = int(distinct.sum()) - len(single)
    wound, turned = _outward(vertices, single)
    closed, holes = _filled(vertices, wound, largest_hole)
    counts["filled"] = len(closed) - len(wound)
    closed, again = _outward(vertices, closed)
    counts["turned"] = int((turned ^ again[: len(turned)]).sum())
    return Repaired(*used_vertices(vertices, closed), Repairs(**counts), holes)


def used_vertices(vertices: np.ndarray, faces: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns the vertices that faces use, in their order, and the faces with renumbered vertices."""
    kept, number = np.unique(faces, return_inverse=True)
    return vertices[kept], number.reshape(-1, 3)


def bodies_of(vertices: np.ndarray, faces: np.ndarray) -> Int[np.ndarray, " face"]:
    """Returns the number of the body that each face belongs to, numbered by their first faces.

    Faces of a body are connected by edges that exactly two faces share; vertices at the same position count as one.
    Bodies that touch in a point, or in an edge of four faces, are separate.
    """
    _, vertex_id = np.unique(vertices, axis=0, return_inverse=True)
    return _joined_by_edges(vertex_id.reshape(-1)[faces])


def split_bodies(vertices: np.ndarray, faces: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns the mesh with its bodies one after the other; bodies share no vertices."""
    body = bodies_of(vertices, faces)
    parts = np.split(faces[np.argsort(body, kind="stable")], np.cumsum(np.bincount(body))[:-1])
    parts = [used_vertices(vertices, part) for part in parts]
    return trimesh.util.append_faces(*zip(*parts, strict=True))


def joined_bodies(vertices: np.ndarray, faces: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns the outer surface of the bodies of a mesh: as `bodies_of` has them, else as they share vertices.

    Boxes that stand side by side are not closed where their rims are the same edges, but each has its own vertices.

    Raises:
        NoSolidError: a body is not closed, whichever way bodies are told apart.
    """
    try:
        return outer_surface(*split_bodies(vertices, faces))
    except NoSolidError as error:
        try:
            return outer_surface(vertices, faces)
        except NoSolidError:
            raise error from None


def body_volumes(vertices: np.ndarray, faces: np.ndarray, body: np.ndarray) -> Float[np.ndarray, " body"]:
    """Returns the volume of each body, negative where it is inside out; `body` is the number of each face's."""
    corners = vertices[faces]
    shares = np.einsum("fi,fi->f", corners[:, 0], np.cross(corners[:, 1], corners[:, 2])) / 6
    return np.bincount(body, weights=shares)


def _joined_by_edges(faces: np.ndarray) -> Int[np.ndarray, " face"]:
    """Returns the number of each face's component, faces joined by edges that exactly two of them have."""
    return connected_component_labels(face_adjacency(faces), len(faces))


def _merged(vertices: np.ndarray, faces: np.ndarray) -> tuple[np.ndarray, np.ndarray, int]:
    """Returns the mesh and a count of merged vertices: those at the same position, where the mesh is not closed."""
    if not _odd_edges(faces).any():
        return vertices, faces, 0
    step = MERGE * float(np.linalg.norm(np.ptp(vertices, axis=0)))
    exact, vertex_id = np.unique(vertices, axis=0, return_inverse=True)
    faces = vertex_id.reshape(-1)[faces]
    merged = len(vertices) - len(exact)
    if step and _odd_edges(faces).any():
        grid = np.round((exact - exact.min(axis=0)) / step).astype(np.int64)
        _, first, vertex_id = np.unique(grid, axis=0, return_index=True, return_inverse=True)
        faces, merged = vertex_id.reshape(-1)[faces], merged + len(exact) - len(first)
        exact = exact[first]
    return exact, faces, merged


def _odd_edges(faces: np.ndarray) -> Bool[np.ndarray, " edge"]:
    """Returns for each edge whether an odd number of faces has it, which means a hole."""
    ends = np.sort(np.concatenate([faces[:, [k, (k + 1) % 3]] for k in range(3)]), axis=1)
    _, count = np.unique(ends, axis=0, return_counts=True)
    return count % 2 == 1


def _without_repeats(faces: np.ndarray) -> np.ndarray:
    """Returns faces without duplicates.

    A face that occurs in both directions belongs either to a solid that was written twice, of which one copy remains,
    or to a wall between two bodies, which is removed. The choice that leaves the mesh closed is taken.
    """
    _, first, kind = np.unique(np.sort(faces, axis=1), axis=0, return_index=True, return_inverse=True)
    if len(first) == len(faces):
        return faces
    once = faces[np.sort(first)]
    if not _odd_edges(once).any():
        return once
    even = np.bincount(kind.reshape(-1)) % 2 == 0
    without_walls = faces[np.sort(first[~even])]
    return once if _odd_edges(without_walls).any() or not len(without_walls) else without_walls


def _outward(vertices: np.ndarray, faces: np.ndarray) -> tuple[np.ndarray, Bool[np.ndarray, " face"]]:
    """Returns faces wound consistently within each body, closed bodies outward, and which faces were turned.

    A closed body inside another body keeps its direction: it may be a cavity.
    """
    wound = faces
    if not is_closed(vertices, faces):  # one that is closed is consistent, and where bodies touch no walk would be
        mesh = trimesh.Trimesh(vertices, faces, process=False)
        trimesh.repair.fix_winding(mesh)
        wound = np.array(mesh.faces, dtype=np.int64)
    body = _joined_by_edges(wound)
    volumes = body_volumes(vertices, wound, body)
    if volumes.sum() < 0 and is_closed(vertices, wound):
        wound, volumes = wound[:, ::-1].copy(), -volumes
    for number in np.flatnonzero(volumes < 0):
        own = body == number
        if is_closed(vertices, wound[own]) and not _is_within(vertices, wound, own):
            wound[own] = wound[own][:, ::-1]
    return wound, ~_same_order(faces, wound)


def _same_order(first: np.ndarray, second: np.ndarray) -> Bool[np.ndarray, " face"]:
    """Returns which faces list their corners in the same direction."""
    start = (second == first[:, :1]).argmax(axis=1)
    rows = np.arange(len(first))
    return second[rows, (start + 1) % 3] == first[:, 1]


def _is_within(vertices: np.ndarray, faces: np.ndarray, own: np.ndarray) -> bool:
    """Whether a body lies inside the other bodies."""
    others = torch.as_tensor(vertices[faces[~own]], dtype=torch.float64)
    if not len(others):
        return False
    point = torch.as_tensor(vertices[faces[own][:1, 0]], dtype=torch.float64)
    return bool(winding_number(point, others).abs() > 0.5)


def _filled(vertices: np.ndarray, faces: np.ndarray, largest: float) -> tuple[np.ndarray, tuple[float, ...]]:
    """Returns the faces followed by faces that close small holes, and the sizes of the remaining holes.

    A hole with three corners can only be a missing face: it is closed whatever its size.
    """
    mesh = trimesh.Trimesh(vertices, faces, process=False)
    trimesh.repair.fill_holes(mesh, use_fan=True)
    added = np.array(mesh.faces[len(faces) :], dtype=np.int64)
    if not len(added):
        return faces, ()
    # a patch is what is joined by any vertex
    pairs = np.stack((np.repeat(np.arange(len(added)), 3), len(added) + added.reshape(-1)), axis=1)
    patch = connected_component_labels(pairs, len(added) + int(added.max()) + 1)[: len(added)]
    diagonal = float(np.linalg.norm(np.ptp(vertices, axis=0)))
    sizes = np.array(
        [np.linalg.norm(np.ptp(vertices[added[patch == n]].reshape(-1, 3), axis=0)) for n in range(patch.max() + 1)]
    )
    small = (sizes <= largest * diagonal) | (np.bincount(patch) == 1)
    return np.concatenate((faces, added[small[patch]])), tuple((sizes[~small] / diagonal).tolist())
