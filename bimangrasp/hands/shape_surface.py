"""Triangulates the surface of a collision shape."""

from __future__ import annotations

import trimesh

from bimangrasp.hands.description import Primitive

ROUND_SECTIONS = 64
"""Corners of the circles that approximate capsules and cylinders: the error is 0.1 % of the radius."""


def shape_surface(shape: Primitive, sections: int = ROUND_SECTIONS) -> trimesh.Trimesh:
    """Returns the shape's surface as triangles in link coordinates; circles have `sections` corners."""
    radius, half_length = float(shape.size[0]), float(shape.size[1])
    match shape.shape:
        case "capsule":
            count = [sections // 2, sections]
            mesh = trimesh.creation.capsule(height=2 * half_length, radius=radius, count=count)
        case "cylinder":
            mesh = trimesh.creation.cylinder(radius, 2 * half_length, sections=sections)
        case "box":
            mesh = trimesh.creation.box(2 * shape.size)
        case _:
            mesh = trimesh.Trimesh(shape.vertices, shape.faces, process=False)
    return mesh.apply_transform(shape.T_link_shape)
