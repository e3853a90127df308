"""Makes the page of a gallery: one HTML file with everything in it, which asks nothing of any network.

Long columns of numbers are base64 of little-endian arrays. A hand is its tree: the page bends it by the joint values,
as `HandModel` does. So a pose is 7 + J numbers a hand, each link's mesh is there once, and between two poses the
fingers turn about their joints.
"""

from __future__ import annotations

import base64
import importlib
import json
import math
import re
from dataclasses import dataclass, field, replace
from importlib.resources import files
from typing import Any, NamedTuple

import numpy as np
import trimesh
from scipy.spatial.transform import Rotation

from bimangrasp.builtin import install_command
from bimangrasp.energy_terms import TERMS
from bimangrasp.files.scene_export import COLORS, SIDES
from bimangrasp.hands.collision_shapes import shape_surface
from bimangrasp.hands.description import HandDescription
from bimangrasp.poses import Poses
from bimangrasp.visualization.renderer import BACKGROUND, LinkPoses, link_poses

Json = dict[str, Any]

MAX_FACES = 20_000
"""Of an object on a page: 250 kB."""

EDGE = np.radians(35)
"""Faces that meet at a larger angle have an edge between them."""

ROUND_SECTIONS = 20
"""Corners of the circles of a hand's round shapes: a finger is 60 pixels wide at most."""

STAGES = ("start", "pre-grasp", "grasp", "squeeze")
"""Poses of a grasp, in the order in which the hands come by."""

GRASP = STAGES.index("grasp")
NOT_TESTED = "not tested"
"""The verdict on a grasp that no simulator has seen."""


class Shape(NamedTuple):
    """An object.

    Attributes:
        code: its name.
        vertices, faces: its mesh at size 1.
    """

    code: str
    vertices: np.ndarray
    faces: np.ndarray


class Thumbnail(NamedTuple):
    """A small picture of a grasp.

    Attributes:
        image: a WebP file.
        azimuth, elevation: degrees, from where it was drawn.
    """

    image: bytes
    azimuth: float
    elevation: float


@dataclass(frozen=True)
class ShownGrasp:
    """A grasp with all that is known of it.

    Attributes:
        shape: which of the gallery's shapes it holds.
        source, number: file and row in it.
        origin: seed, round and row in the round.
        scale: of the object.
        energies: term -> value, unweighted but for `total`.
        labels: "accepted", or why it does not count; several where several thresholds are missed.
        verdict: what a simulator says of it, or `NOT_TESTED`.
        physics: what else the simulator says, name -> text.
        stages: the poses of `STAGES`, (stage, ...); NaN where one is not known.
        contact_point, contact_normal: (hand, contact, 3), of the grasp; m, outward from the object.
    """

    shape: int
    source: str
    number: int
    origin: dict[str, int]
    scale: float
    energies: dict[str, float]
    labels: tuple[str, ...]
    verdict: str
    physics: dict[str, str]
    stages: Poses
    contact_point: np.ndarray
    contact_normal: np.ndarray

    @property
    def has_pose(self) -> bool:
        """Whether it can be drawn: the pose of the grasp is known, and so is its object's size."""
        finite = (np.isfinite(part[GRASP]).all() for part in self.stages)
        return all(finite) and bool(np.isfinite(self.scale))


@dataclass(frozen=True)
class Gallery:
    """Grasps to show.

    Attributes:
        title: of what.
        notes: what else a reader of the page must know.
        hands: the left and the right one.
        shapes: the objects.
        grasps: in the order in which they are shown.
        thumbnails: of each of them; None where the browser is to draw it.
    """

    title: str
    notes: tuple[str, ...]
    hands: tuple[HandDescription, HandDescription]
    shapes: tuple[Shape, ...]
    grasps: tuple[ShownGrasp, ...]
    thumbnails: tuple[Thumbnail | None, ...] = field(default=())

    def link_poses(self, grasps: list[ShownGrasp]) -> list[LinkPoses]:
        """Returns the poses of all links at the grasp, for a renderer; all grasps must have a pose."""
        if not grasps:
            return []
        # from (grasp, part, stage) to the parts of all grasps at one stage
        at_grasp = [[part[GRASP] for part in grasp.stages] for grasp in grasps]
        poses = Poses(*(np.stack(parts) for parts in zip(*at_grasp, strict=True)))
        contacts = np.stack([grasp.contact_point.reshape(-1, 3) for grasp in grasps])
        return link_poses(self.hands, poses, contacts)


def page(data: Json) -> str:
    """Returns the HTML.

    Args:
        data: see `page_data`.
    """
    parts = {
        "style": _asset("page.css"),
        "library": three_library(),
        "data": json.dumps(data, ensure_ascii=False, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c"),
        "script": "\n".join(_asset(name) for name in ("scene.js", "gallery.js")),
    }
    pieces = re.split(r"\{\{(\w+)\}\}", _asset("page.html"))
    return "".join(parts[piece] if i % 2 else piece for i, piece in enumerate(pieces))


def three_library() -> str:
    """Returns three.js with its trackball controls, behind a comment with its version and its license."""
    notice = _asset("three.VERSION") + "\n" + _asset("three.LICENSE")
    return "\n".join([f"/*\n{notice}*/", _asset("three.min.js"), _asset("TrackballControls.js")])


def _asset(name: str) -> str:
    """Returns the text of a file that the package brings."""
    return (files("bimangrasp.visualization") / "assets" / name).read_text(encoding="utf-8")


def page_data(gallery: Gallery) -> Json:
    """Returns all that the page shows."""
    objects = [_object(shape) for shape in gallery.shapes]
    notes = [f"{shape['code']}: {shape['note']}" for shape in objects if shape["note"]]
    thumbnails = gallery.thumbnails or (None,) * len(gallery.grasps)
    return {
        "title": gallery.title,
        "notes": [*gallery.notes, *notes],
        "stages": list(STAGES),
        "terms": [term for term in TERMS if any(term in grasp.energies for grasp in gallery.grasps)],
        "sides": list(SIDES),
        "colors": [list(color[:3]) for color in COLORS],
        "background": list(BACKGROUND),
        "hands": hands_data(gallery.hands),
        "objects": objects,
        "poses": packed(_poses(gallery), "<f4"),
        "contacts": packed(_contacts(gallery.grasps), "<f4"),
        "grasps": [_grasp(grasp) for grasp in gallery.grasps],
        "views": [picture and [picture.azimuth, picture.elevation] for picture in thumbnails],
        "thumbnails": [picture and base64.b64encode(picture.image).decode() for picture in thumbnails],
    }


def packed(array: np.ndarray, dtype: str) -> Json:
    """Returns an array as JSON: dtype, shape, and its bytes in base64."""
    data = np.ascontiguousarray(array, dtype)
    return {"dtype": dtype, "shape": list(data.shape), "data": base64.b64encode(data.tobytes()).decode()}


def hands_data(hands: tuple[HandDescription, HandDescription]) -> Json:
    """Returns the trees of both hands and their shapes; equal meshes are there once."""
    meshes: list[Json] = []
    sides = []
    for hand in hands:
        shapes = []
        for shape in hand.primitives:
            surface = shape_surface(replace(shape, T_link_shape=np.eye(4)), ROUND_SECTIONS)
            mesh = _mesh(_shaded(trimesh.Trimesh(surface.vertices, surface.faces)))
            if mesh not in meshes:
                meshes.append(mesh)
            pose = _pose7(shape.T_link_shape).tolist()
            shapes.append({"link": shape.link, "mesh": meshes.index(mesh), "pose": pose})
        sides.append(
            {
                "fixed": packed(np.stack([_pose7(T) for T in hand.T_parent_link]), "<f4"),
                "axis": packed(hand.joint_axis, "<f4"),
                "shapes": shapes,
            }
        )
    left = hands[0]
    return {
        "links": list(left.link_names),
        "parent": left.parent.tolist(),
        "joints": list(left.joint_names),
        "joint_link": left.joint_link.tolist(),
        "sides": sides,
        "meshes": meshes,
    }


def _object(shape: Shape) -> Json:
    mesh = object_mesh(shape.vertices, shape.faces)
    return {"code": shape.code, "note": mesh.note} | _mesh(mesh)


def _mesh(mesh: Drawable) -> Json:
    small = len(mesh.vertices) <= np.iinfo(np.uint16).max
    return {"vertices": packed(mesh.vertices, "<f4"), "faces": packed(mesh.faces, "<u2" if small else "<u4")}


def _pose7(T: np.ndarray) -> np.ndarray:
    """Returns a pose as place and quaternion xyzw."""
    return np.concatenate([T[:3, 3], Rotation.from_matrix(T[:3, :3]).as_quat()])


def _poses(gallery: Gallery) -> np.ndarray:
    """Returns (grasp, stage, hand, 7 + J): place, quaternion xyzw, joints; NaN where a stage is not known."""
    shape = (len(gallery.grasps), len(STAGES), len(SIDES), 7 + len(gallery.hands[0].joint_names))
    table = np.full(shape, np.nan, np.float32)
    for row, grasp in zip(table, gallery.grasps, strict=True):
        known = np.logical_and.reduce([np.isfinite(part).reshape(len(STAGES), -1).all(axis=1) for part in grasp.stages])
        translation, rotation, joints = (part[known] for part in grasp.stages)
        turns = Rotation.from_matrix(rotation.reshape(-1, 3, 3)).as_quat() if known.any() else np.zeros((0, 4))
        row[known] = np.concatenate([translation, turns.reshape(-1, len(SIDES), 4), joints], axis=-1)
    return table


def _contacts(grasps: tuple[ShownGrasp, ...]) -> np.ndarray:
    """Returns (grasp, hand, contact, 6): point and normal; NaN where a grasp has fewer contacts."""
    longest = max((grasp.contact_point.shape[1] for grasp in grasps), default=0)
    table = np.full((len(grasps), len(SIDES), longest, 6), np.nan, np.float32)
    for row, grasp in zip(table, grasps, strict=True):
        count = grasp.contact_point.shape[1]
        row[:, :count] = np.concatenate([grasp.contact_point, grasp.contact_normal], axis=-1)
    return table


def _grasp(grasp: ShownGrasp) -> Json:
    return {
        "object": grasp.shape,
        "source": grasp.source,
        "number": grasp.number,
        **grasp.origin,
        "scale": _number(grasp.scale),
        "energies": {term: _number(value) for term, value in grasp.energies.items()},
        "labels": list(grasp.labels),
        "verdict": grasp.verdict,
        "physics": grasp.physics,
    }


def _number(value: float) -> float | None:
    """Returns a number as JSON can have it; None where it is not finite."""
    return float(value) if math.isfinite(value) else None


class Drawable(NamedTuple):
    """A mesh for a browser.

    Attributes:
        vertices, faces: an edge's vertices stand there once for each side.
        note: what was done to the mesh; empty where nothing was.
    """

    vertices: np.ndarray
    faces: np.ndarray
    note: str


def object_mesh(vertices: np.ndarray, faces: np.ndarray) -> Drawable:
    """Returns an object's mesh with `MAX_FACES` triangles at most, where the package that decimates is there."""
    if len(faces) <= MAX_FACES:
        return _shaded(trimesh.Trimesh(vertices, faces))
    try:
        decimate = importlib.import_module("fast_simplification")
    except ImportError:
        note = f"shown with all its {len(faces)} triangles: {install_command('view')} shows {MAX_FACES} of them"
        return _shaded(trimesh.Trimesh(vertices, faces), note)
    welded = trimesh.Trimesh(vertices, faces)
    points, triangles = decimate.simplify(
        np.asarray(welded.vertices, np.float32), welded.faces.astype(np.int32), target_count=MAX_FACES
    )
    note = f"decimated for this page from {len(faces)} to {len(triangles)} triangles"
    return _shaded(trimesh.Trimesh(points, triangles), note)


def _shaded(mesh: trimesh.Trimesh, note: str = "") -> Drawable:
    """Returns the mesh with its vertices split along edges, so that a normal for each vertex is right."""
    split = trimesh.graph.smooth_shade(mesh, angle=EDGE)
    return Drawable(np.asarray(split.vertices, np.float32), np.asarray(split.faces, np.uint32), note)
