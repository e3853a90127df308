"""Makes the built-in objects anew: `python benchmarks/make_objects.py [folder]`, in the package by default.

Each object is built of rings: a profile in the plane of radius and height, whose corners are in profiles.csv, is swept
around the z axis along a circle or a rounded rectangle, and neighboring rings are joined by triangles as even as their
spacing allows.
Convex pieces for the simulator are CoACD's by the default settings, in some minutes. Those in the package are older and
coarser, of pieces.threshold=0.05 with CoACD's own remeshing, so writing them anew changes them.
Needs trimesh, CoACD and, for the mug's handle, manifold3d; the package itself reads only the OBJ files.
"""

from __future__ import annotations

import csv
import sys
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import trimesh
from scipy.spatial import Delaunay

import conf
from bimangrasp.builtin import OBJECT_ROOT
from bimangrasp.objects.convex_pieces import is_convex
from bimangrasp.objects.decomposition import decomposed
from bimangrasp.objects.model import read_mesh

FOLDER = Path(__file__).parent
Ring = np.ndarray  # (n, 3), counter-clockwise seen from above; n = 1 is a pole on the axis
Section = Callable[[float, float], np.ndarray]  # (radius, edge length) -> (n, 2) closed curve


def circle(radius: float, edge: float) -> np.ndarray:
    """Returns the points of a circle."""
    count = max(6, round(2 * np.pi * radius / edge))
    angle = 2 * np.pi * np.arange(count) / count
    return radius * np.stack((np.cos(angle), np.sin(angle)), axis=1)


def rounded_rectangle(aspect: float, corner: float) -> Section:
    """Returns the section whose half width is `radius` along y, `aspect` times that along x.

    The corners are rounded by `corner` times the radius.
    """

    def section(radius: float, edge: float) -> np.ndarray:
        half = radius * np.array([aspect, 1.0])
        inner, turn = half - radius * corner, radius * corner
        arc = max(2 if radius > edge else 1, round(turn * np.pi / 2 / edge * 1.5))
        points: list[np.ndarray] = []
        for quarter, signs in enumerate(((1, 1), (-1, 1), (-1, -1), (1, -1))):
            angle = np.pi / 2 * (quarter + np.arange(arc + 1) / arc)
            points.extend(inner * signs + turn * np.stack((np.cos(angle), np.sin(angle)), axis=1))
        return _subdivided(np.array(points), edge)

    return section


def _subdivided(loop: np.ndarray, edge: float) -> np.ndarray:
    """Returns the closed loop with long sides cut into pieces of about `edge`."""
    sides = zip(loop, np.roll(loop, -1, axis=0), strict=True)
    return np.concatenate([_spaced(start, end, edge)[:-1] for start, end in sides])


def _spaced(start: np.ndarray, end: np.ndarray, edge: float) -> np.ndarray:
    """Returns points from start to end, both included, in steps of about `edge`."""
    count = max(1, round(np.linalg.norm(end - start) / edge))
    return start + (end - start) * np.arange(count + 1)[:, None] / count


def rounded_profile(corners: Sequence[tuple[float, float, float]], edge: float) -> np.ndarray:
    """Returns points along a polyline of (radius, height, fillet) corners, spaced by about `edge`."""
    vertices = np.array(corners, np.float64)
    path: list[np.ndarray] = [vertices[0, :2]]
    for before, corner, after in zip(vertices, vertices[1:], vertices[2:], strict=False):
        path.extend(_fillet(before[:2], corner[:2], after[:2], corner[2], edge))
    path.append(vertices[-1, :2])
    sides = [ends for ends in pairwise(path) if np.linalg.norm(ends[1] - ends[0]) >= 1e-9]  # fillets may meet
    return np.concatenate([path[0][None], *(_spaced(start, end, edge)[1:] for start, end in sides)])


def _fillet(before: np.ndarray, corner: np.ndarray, after: np.ndarray, radius: float, edge: float) -> np.ndarray:
    """Returns the arc of this radius in place of a corner; its sides are at most 0.7 edge and 45 degrees."""
    if radius == 0.0:
        return corner[None]
    back, ahead = (v / np.linalg.norm(v) for v in (before - corner, after - corner))
    half = np.arccos(np.clip(back @ ahead, -1.0, 1.0)) / 2
    middle = (back + ahead) / np.linalg.norm(back + ahead)
    center = corner + middle * radius / np.sin(half)
    first, turn = corner + back * radius / np.tan(half) - center, np.pi - 2 * half
    sign = np.sign(first[1] * back[0] - first[0] * back[1])
    count = max(1, int(np.ceil(turn * radius / (0.7 * edge))), int(np.ceil(turn / np.radians(45))))
    angle = sign * turn * np.arange(count + 1) / count
    cos, sin = np.cos(angle), np.sin(angle)
    return center + np.stack((cos * first[0] - sin * first[1], sin * first[0] + cos * first[1]), axis=1)


def sweep(profile: np.ndarray, section: Section, edge: float) -> trimesh.Trimesh:
    """Returns the closed solid whose profile runs from the axis below, outside, to the axis above or inside.

    The flat pieces at the profile's two ends become caps.
    """
    flat_below, flat_above = (np.abs(profile[:, 1] - profile[end, 1]) < 1e-9 for end in (0, -1))
    walls = profile[np.flatnonzero(flat_below)[-1] : np.flatnonzero(flat_above)[0] + 1]
    rings = [_lifted(section(radius, edge), height) for radius, height in walls]
    wall = _joined(rings)
    below, above = _cap(rings[0], edge), _cap(rings[-1], edge)
    below.invert()
    mesh = trimesh.util.concatenate([below, wall, above])
    mesh.merge_vertices()
    assert mesh.is_watertight and mesh.is_winding_consistent and mesh.volume > 0
    return mesh


def _lifted(flat: np.ndarray, height: float) -> Ring:
    return np.column_stack((flat, np.full(len(flat), height)))


def _cap(ring: Ring, edge: float) -> trimesh.Trimesh:
    """Returns a flat convex cap within a ring, facing up, filled with nearly equilateral triangles."""
    outline, reach = ring[:, :2], np.abs(ring[:, :2]).max() + edge
    rows = np.arange(-reach, reach, edge * np.sqrt(0.75))
    lattice = [[x + edge / 2 * (k % 2), y] for k, y in enumerate(rows) for x in np.arange(-reach, reach, edge)]
    sides = np.roll(outline, -1, axis=0) - outline
    inward = np.stack((-sides[:, 1], sides[:, 0]), axis=1) / np.linalg.norm(sides, axis=1, keepdims=True)
    depth = np.einsum("nkd,kd->nk", np.array(lattice)[:, None] - outline, inward).min(axis=1)
    points = np.concatenate((outline, np.array(lattice)[depth > 0.55 * edge]))
    corners = points[faces := Delaunay(points).simplices]
    area = np.linalg.det(corners[:, 1:] - corners[:, :1])
    faces = np.where(area[:, None] > 0, faces, faces[:, ::-1])[np.abs(area) > 1e-6 * edge**2]
    return trimesh.Trimesh(_lifted(points, ring[0, 2]), faces, process=False)


def _joined(rings: Sequence[Ring]) -> trimesh.Trimesh:
    """Returns the open surface of bands between neighboring rings."""
    first = np.cumsum([0, *(len(ring) for ring in rings)])
    bands = zip(rings, rings[1:], first, first[1:], strict=False)
    faces = [face for lower, upper, a, b in bands for face in _band(lower, upper, a, b)]
    return trimesh.Trimesh(np.concatenate(rings), np.array(faces), process=False)


def _band(lower: Ring, upper: Ring, first_lower: int, first_upper: int) -> list[tuple[int, int, int]]:
    """Returns the triangles between two rings; each step takes the shorter of the two possible diagonals."""
    i = j = 0
    start = int(np.argmin(np.linalg.norm(upper - lower[0], axis=1)))
    count_lower, count_upper = (len(ring) if len(ring) > 1 else 0 for ring in (lower, upper))
    faces = []
    while i < count_lower or j < count_upper:
        at_lower, next_lower = i % len(lower), (i + 1) % len(lower)
        at_upper, next_upper = (start + j) % len(upper), (start + j + 1) % len(upper)
        along_lower = np.linalg.norm(lower[next_lower] - upper[at_upper])
        along_upper = np.linalg.norm(upper[next_upper] - lower[at_lower])
        if j >= count_upper or (i < count_lower and along_lower <= along_upper):
            faces.append((first_lower + at_lower, first_lower + next_lower, first_upper + at_upper))
            i += 1
        else:
            faces.append((first_lower + at_lower, first_upper + next_upper, first_upper + at_upper))
            j += 1
    return faces


def tube(path: np.ndarray, width: float, depth: float, count: int) -> trimesh.Trimesh:
    """Returns a closed tube of elliptic section along a path in the plane y = 0."""
    tangent = np.gradient(path, axis=0)
    tangent /= np.linalg.norm(tangent, axis=1, keepdims=True)
    angle = 2 * np.pi * np.arange(count) / count
    across = np.stack((-tangent[:, 1], tangent[:, 0]), axis=1)
    rings = [
        np.column_stack(
            (p[0] + depth * np.cos(angle) * n[0], width * np.sin(angle), p[1] + depth * np.cos(angle) * n[1])
        )
        for p, n in zip(path, across, strict=True)
    ]
    poles = [np.array([[p[0], 0.0, p[1]]]) for p in (path[0], path[-1])]
    mesh = _joined([poles[0], *rings, poles[1]])
    mesh.fix_normals()
    return mesh


SECTIONS: dict[str, tuple[Section, float]] = {
    "storage_bin": (rounded_rectangle(1.4, 0.3), 0.105),
    "bowl": (circle, 0.115),
    "bottle": (circle, 0.085),
    "mug": (circle, 0.11),
    "box": (rounded_rectangle(1.45, 0.15), 0.105),
}
"""Object -> section and edge length."""


def corners_of(name: str) -> list[tuple[float, float, float]]:
    """Returns the corners (radius, height, fillet) of an object's profile, from profiles.csv but for the bowl's."""
    if name == "bowl":
        return bowl_corners()
    with (FOLDER / "profiles.csv").open(encoding="ascii", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["object"] == name]
    return [(float(row["radius"]), float(row["height"]), float(row["fillet"])) for row in rows]


def bowl_corners() -> list[tuple[float, float, float]]:
    """Returns the corners of a bowl on a foot, a ninth of its radius thick."""
    outside, inside = np.radians(np.linspace(24, 90, 12)), np.radians(np.linspace(90, 15, 12))
    outer = np.stack((np.sin(outside), 1.08 - np.cos(outside)), axis=1)
    inner = np.stack((0.9 * np.sin(inside), 1.08 - 0.88 * np.cos(inside)), axis=1)
    corners = [(0.0, 0.02, 0.0), (0.4, 0.02, 0.03), *((r, z, 0.0) for r, z in outer), (1.0, 1.17, 0.05)]
    return [*corners, (0.9, 1.17, 0.05), *((r, z, 0.0) for r, z in inner), (0.0, inner[-1, 1], 0.0)]


def make(name: str) -> trimesh.Trimesh:
    """Returns an object, in the unit of its profile."""
    section, edge = SECTIONS[name]
    body = sweep(rounded_profile(corners_of(name), edge), section, edge)
    if name != "mug":
        return body
    handle = tube(rounded_profile(corners_of("handle"), 0.09), 0.1, 0.07, 10)
    return trimesh.boolean.union([body, handle], engine="manifold")


def unit(mesh: trimesh.Trimesh) -> trimesh.Trimesh:
    """Returns the mesh with its bounding box about the origin and its farthest vertex at distance 1."""
    centered = mesh.vertices - mesh.bounds.mean(axis=0)
    return trimesh.Trimesh(centered / np.linalg.norm(centered, axis=1).max(), mesh.faces, process=False)


def write(mesh: trimesh.Trimesh, path: Path) -> None:
    """Writes a text OBJ with six significant digits."""
    lines = [f"# {path.stem}, a built-in object; made by make_objects.py; unit size, z up"]
    lines += ["v " + " ".join(f"{x + 0.0:.6g}" for x in np.round(vertex, 6)) for vertex in mesh.vertices]
    lines += ["f " + " ".join(str(i + 1) for i in face) for face in mesh.faces]
    path.write_text("\n".join(lines) + "\n", encoding="ascii")


def write_pieces(path: Path) -> None:
    """Writes CoACD's convex pieces of a written mesh, by the default settings, into the folder of its name."""
    mesh, config = read_mesh(str(path)), conf.load().pieces
    if is_convex(mesh, config):
        return
    folder = path.with_suffix("")
    folder.mkdir(exist_ok=True)
    for number, piece in enumerate(decomposed(str(path), mesh, config).pieces):
        write(trimesh.Trimesh(*piece, process=False), folder / f"coacd_convex_piece_{number}.obj")


if __name__ == "__main__":
    root = Path(sys.argv[1]) if len(sys.argv) > 1 else OBJECT_ROOT
    for name in SECTIONS:
        write(unit(make(name)), root / f"{name}.obj")
        write_pieces(root / f"{name}.obj")
