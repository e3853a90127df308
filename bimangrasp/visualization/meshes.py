"""Prepares triangles for a browser: few, and with edges where the surface has edges."""

from __future__ import annotations

import importlib
from typing import NamedTuple

import numpy as np
import trimesh

from bimangrasp.builtin import install_command
from bimangrasp.hands.description import Primitive
from bimangrasp.hands.shape_surface import shape_surface

MAX_FACES = 20_000
"""Of an object on a page: 250 kB."""
EDGE = np.radians(35)
"""Faces that meet at a larger angle have an edge between them."""
ROUND_SECTIONS = 20
"""Corners of the circles of a hand's round shapes: a finger is 60 pixels wide at most."""


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


def hand_mesh(shape: Primitive) -> Drawable:
    """Returns a collision shape of a hand in its own frame."""
    here = Primitive(shape.link, shape.shape, np.eye(4), shape.size, shape.vertices, shape.faces)
    surface = shape_surface(here, ROUND_SECTIONS)
    return _shaded(trimesh.Trimesh(surface.vertices, surface.faces))


def _shaded(mesh: trimesh.Trimesh, note: str = "") -> Drawable:
    """Returns the mesh with its vertices split along edges, so that a normal for each vertex is right."""
    split = trimesh.graph.smooth_shade(mesh, angle=EDGE)
    return Drawable(np.asarray(split.vertices, np.float32), np.asarray(split.faces, np.uint32), note)
