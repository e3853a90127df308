"""Triangulates the surface of a collision shape, and fills the shapes of a hand with spheres.

By the spheres a hand's depth in an object is measured.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
import trimesh

from bimangrasp.geometry.farthest_point_sampling import key_generator, uniform_points
from bimangrasp.geometry.triangle_mesh import TriangleMesh
from bimangrasp.hands.description import HandDescription, Primitive, mirror, mirror_direction

ROUND_SECTIONS = 64
"""Corners of the circles that approximate capsules and cylinders: the error is 0.1 % of the radius."""

UNCOVERED = 0.0005
"""Spheres are added until the mean distance from the shape's surface to the nearest sphere is below this, m."""

MAX_SPHERES = 24
"""Largest number of spheres in one shape."""

NODES = 9
"""Candidate centers along each side of the box around a shape; odd, so that they include the axis of a capsule."""

SURFACE_SAMPLES = 500


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


class InscribedSpheres(NamedTuple):
    """Spheres inside the shapes of one hand; the spheres of a shape are consecutive.

    Attributes:
        shape: (K,) index of the shape.
        center: (K, 3) in the link's coordinates, m.
        radius: (K,) m.
    """

    shape: np.ndarray
    center: np.ndarray
    radius: np.ndarray


def inscribed_spheres(hand: HandDescription) -> InscribedSpheres:
    """Returns spheres inside each shape of a hand, chosen greedily: each covers the most of the remaining surface.

    A left hand has the mirror image of its right twin's.
    """
    if hand.side == "left":
        twin = inscribed_spheres(mirror(hand))
        return twin._replace(center=mirror_direction(twin.center))
    spheres = [_spheres_of(shape) for shape in hand.primitives]
    return InscribedSpheres(
        np.repeat(np.arange(len(spheres)), [len(radius) for _, radius in spheres]),
        np.concatenate([center for center, _ in spheres]),
        np.concatenate([radius for _, radius in spheres]),
    )


def _spheres_of(shape: Primitive) -> tuple[np.ndarray, np.ndarray]:
    """Returns centers (K, 3), in link coordinates, and radii (K,)."""
    surface = shape_surface(shape)
    mesh = TriangleMesh(surface.vertices, surface.faces, dtype=torch.float64)
    draws = torch.rand((SURFACE_SAMPLES, 3), generator=key_generator("inscribed"), dtype=torch.float64)
    samples = uniform_points(np.asarray(surface.triangles), draws)
    centers = _lattice(shape, surface.vertices)
    nearest = mesh.nearest(centers)
    depth = -nearest.sign * torch.linalg.vector_norm(centers - nearest.point, dim=-1)
    centers, depth = centers[depth > 0], depth[depth > 0]
    gap = torch.cdist(centers, samples) - depth[:, None]
    chosen, uncovered = [], torch.full((SURFACE_SAMPLES,), torch.inf, dtype=torch.float64)
    while len(chosen) < MAX_SPHERES and not uncovered.mean() < UNCOVERED:
        chosen.append(int(torch.minimum(gap, uncovered).sum(dim=1).argmin()))
        uncovered = torch.minimum(gap[chosen[-1]], uncovered)
    return centers[chosen].numpy(), depth[chosen].numpy()


def _lattice(shape: Primitive, vertices: np.ndarray) -> torch.Tensor:
    """Returns points (N, 3) of a lattice along the shape's axes, in link coordinates."""
    rotation, origin = shape.T_link_shape[:3, :3], shape.T_link_shape[:3, 3]
    local = (vertices - origin) @ rotation
    low, high = local.min(axis=0), local.max(axis=0)
    steps = np.linspace(0.0, 1.0, NODES + 2)[1:-1]
    grid = np.stack(np.meshgrid(steps, steps, steps, indexing="ij"), axis=-1).reshape(-1, 3)
    return torch.as_tensor((low + grid * (high - low)) @ rotation.T + origin)
