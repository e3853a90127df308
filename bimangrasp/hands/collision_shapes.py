"""Measures how deep points lie in the collision shapes of hands, triangulates shapes, and fills them with spheres."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import torch
import trimesh
from jaxtyping import Bool, Float, Int
from torch import Tensor

from bimangrasp.geometry.distances import mesh_distance
from bimangrasp.geometry.farthest_point_sampling import RUN, key_generator, uniform_points
from bimangrasp.geometry.triangle_mesh import TriangleMesh
from bimangrasp.hands.description import HandDescription, Primitive, mirror, mirror_direction

BOUND_SLACK = 1e-5
"""Bounding boxes grow by this, m, so that float32 rounding culls no point that is inside a shape."""

OF_A_HAND = ("rotation", "translation", "extent", "radius", "bound_center", "bound_extent")
"""Columns of `HandShapes` with a hand axis."""

ROUND_SECTIONS = 64
"""Corners of the circles that approximate capsules and cylinders: the error is 0.1 % of the radius."""

UNCOVERED = 0.0005
"""Spheres are added until the mean distance from the shape's surface to the nearest sphere is below this, m."""

MAX_SPHERES = 24
"""Largest number of spheres in one shape."""

NODES = 9
"""Candidate centers along each side of the box around a shape; odd, so that they include the axis of a capsule."""

SURFACE_SAMPLES = 500


class LinkFrames(NamedTuple):
    """Poses of all links of both hands in the object's frame: x_object = rotation x_link + translation."""

    rotation: Float[Tensor, "batch hand link 3 3"]
    translation: Float[Tensor, "batch hand link 3"]

    def hand(self, side: int) -> LinkFrames:
        """Returns the frames of one hand, with a hand axis of length one."""
        return LinkFrames(self.rotation[:, side : side + 1], self.translation[:, side : side + 1])

    def to(self, dtype: torch.dtype) -> LinkFrames:
        """Returns the frames in another precision."""
        return LinkFrames(self.rotation.to(dtype), self.translation.to(dtype))


@dataclass(frozen=True)
class HandShapes:
    """The collision shapes of one or both hands: S shapes for each hand, of the same kinds in each.

    Capsules, spheres and boxes share a formula, that of a box with rounded corners: half extents `extent`, rounding
    `radius`. A cylinder is the same formula in the half plane (distance from the axis, 0, height).

    Attributes:
        link: the link that carries a shape.
        rotation, translation: pose of the shape in its link, m.
        extent, radius: half extents and rounding of the shape's rounded box, m.
        is_cylinder: which shapes are cylinders.
        bound_center, bound_extent: a box around the shape, along the shape's axes, m.
        meshes: (hand, shape) -> its triangles, in the shape's frame.
    """

    link: Int[Tensor, " shape"]
    rotation: Float[Tensor, "hand shape 3 3"]
    translation: Float[Tensor, "hand shape 3"]
    extent: Float[Tensor, "hand shape 3"]
    radius: Float[Tensor, "hand shape"]
    is_cylinder: Bool[Tensor, " shape"]
    bound_center: Float[Tensor, "hand shape 3"]
    bound_extent: Float[Tensor, "hand shape 3"]
    meshes: dict[tuple[int, int], TriangleMesh]

    @classmethod
    def from_descriptions(
        cls, hands: tuple[HandDescription, ...], device: torch.device | str, dtype: torch.dtype
    ) -> HandShapes:
        """Returns the shapes of these hands; the hands have the same kinds of shapes on the same links."""

        def table(column: list[list[np.ndarray]] | list[list[float]]) -> Tensor:
            return torch.as_tensor(np.array(column), dtype=dtype, device=device)

        shapes = [hand.primitives for hand in hands]
        bounds = [[_bound(shape) for shape in row] for row in shapes]
        return cls(
            link=torch.tensor([shape.link for shape in shapes[0]], device=device),
            rotation=table([[shape.T_link_shape[:3, :3] for shape in row] for row in shapes]),
            translation=table([[shape.T_link_shape[:3, 3] for shape in row] for row in shapes]),
            extent=table([[_rounded_box(shape)[0] for shape in row] for row in shapes]),
            radius=table([[_rounded_box(shape)[1] for shape in row] for row in shapes]),
            is_cylinder=torch.tensor([shape.shape == "cylinder" for shape in shapes[0]], device=device),
            bound_center=table([[bound[0] for bound in row] for row in bounds]),
            bound_extent=table([[bound[1] + BOUND_SLACK for bound in row] for row in bounds]),
            meshes={
                (h, s): TriangleMesh(shape.vertices, shape.faces, device, dtype)
                for h, row in enumerate(shapes)
                for s, shape in enumerate(row)
                if shape.shape == "mesh"
            },
        )

    def hand(self, side: int) -> HandShapes:
        """Returns the shapes of one hand, with a hand axis of length one."""
        own = {name: getattr(self, name)[side : side + 1] for name in OF_A_HAND}
        meshes = {(0, s): mesh for (h, s), mesh in self.meshes.items() if h == side}
        return replace(self, meshes=meshes, **own)

    def frames(self, links: LinkFrames) -> LinkFrames:
        """Returns the poses of the shapes in the object's frame, in the precision of the shapes.

        The link axis becomes the shape axis.
        """
        links = links.to(self.rotation.dtype)
        rotation, translation = links.rotation[:, :, self.link], links.translation[:, :, self.link]
        return LinkFrames(rotation @ self.rotation, translation + (rotation @ self.translation[..., None]).squeeze(-1))


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


def penetration_depth(
    shapes: HandShapes, links: LinkFrames, points: Float[Tensor, "batch point 3"]
) -> Float[Tensor, "batch hand"]:
    """Returns the sum over points of how deep each lies inside a hand, m: sum of max(0, -signed distance).

    Only the deepest shape around a point counts and carries gradient. Runs of points far from a shape are dropped by
    their bounding spheres, then points outside its bounding box; what remains is a list of (sample, hand, point,
    shape). Fast where consecutive points lie close together (`spatial_order`).

    Args:
        shapes: of H hands.
        links: poses of their links in the object's frame.
        points: in the object's frame, m; every hand is tested against all of them.
    """
    frames = shapes.frames(links)
    hands = len(shapes.radius)
    with torch.no_grad():
        b, h, n, s = _near_pairs(shapes, frames, points)
        depth = -_distance(shapes, _local(frames, points, b, h, n, s), h, s)
        deepest = _deepest(depth, (b * hands + h) * points.shape[1] + n, len(points) * hands * points.shape[1])
        b, h, n, s = b[deepest], h[deepest], n[deepest], s[deepest]
    depth = -_distance(shapes, _local(frames, points, b, h, n, s), h, s)
    return depth.new_zeros(len(points) * hands).index_add(0, b * hands + h, depth).view(len(points), hands)


def rounded_box_distance(
    points: Float[Tensor, "*batch 3"], extent: Float[Tensor, "*batch 3"], radius: Float[Tensor, "*batch"]
) -> Float[Tensor, "*batch"]:
    """Returns the exact signed distance to a box of these half extents, its surface moved out by `radius`."""
    beyond = points.abs() - extent
    outside = torch.linalg.vector_norm(beyond.clamp_min(0), dim=-1)
    return outside + beyond.amax(-1).clamp_max(0) - radius


def _near_pairs(
    shapes: HandShapes, frames: LinkFrames, points: Float[Tensor, "batch point 3"]
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Returns sample, hand, point and shape of all points that lie in the bounding box of a shape."""
    count = points.shape[1]
    runs = torch.nn.functional.pad(points.mT, (0, -count % RUN), mode="replicate").mT.unflatten(1, (-1, RUN))
    low, high = runs.amin(dim=2), runs.amax(dim=2)
    reach = torch.linalg.vector_norm(high - low, dim=-1)[:, None, :, None] / 2
    reach = reach + torch.linalg.vector_norm(shapes.bound_extent, dim=-1)[:, None]
    center = frames.translation + (frames.rotation @ shapes.bound_center[..., None]).squeeze(-1)
    offset = (low + high)[:, None, :, None] / 2 - center[:, :, None]
    b, h, run, s = torch.nonzero(torch.linalg.vector_norm(offset, dim=-1) <= reach, as_tuple=True)
    local = (runs[b, run] - center[b, h, s][:, None]) @ frames.rotation[b, h, s]
    inside = (local.abs() <= shapes.bound_extent[h, s][:, None]).all(-1)
    pair, member = torch.nonzero(inside, as_tuple=True)
    n = run[pair] * RUN + member
    kept = n < count
    return b[pair][kept], h[pair][kept], n[kept], s[pair][kept]


def _local(
    frames: LinkFrames, points: Float[Tensor, "batch point 3"], b: Tensor, h: Tensor, n: Tensor, s: Tensor
) -> Float[Tensor, "pair 3"]:
    """Returns point n of sample b in the frame of shape s of hand h, for each listed pair."""
    offset = points[b, n] - frames.translation[b, h, s]
    return (offset[:, None] @ frames.rotation[b, h, s]).squeeze(1)


def _distance(
    shapes: HandShapes, local: Float[Tensor, "pair 3"], h: Int[Tensor, " pair"], s: Int[Tensor, " pair"]
) -> Float[Tensor, " pair"]:
    """Returns the signed distance of points in their shape's frame."""
    axial = torch.linalg.vector_norm(local[:, :2], dim=-1)
    folded = torch.stack((axial, torch.zeros_like(axial), local[:, 2]), dim=-1)
    folded = torch.where(shapes.is_cylinder[s][:, None], folded, local)
    distance = rounded_box_distance(folded, shapes.extent[h, s], shapes.radius[h, s])
    for (hand, shape), mesh in shapes.meshes.items():
        rows = torch.nonzero((h == hand) & (s == shape)).squeeze(1)
        distance = distance.index_put((rows,), mesh_distance(mesh, local[rows])[0])
    return distance


def _deepest(depth: Float[Tensor, " pair"], owner: Int[Tensor, " pair"], owners: int) -> Int[Tensor, " kept"]:
    """Returns for each owner its pair of greatest depth, if that is positive; the first one of equals."""
    greatest = depth.new_zeros(owners).scatter_reduce(0, owner, depth, "amax")
    pairs = torch.arange(len(depth), device=depth.device)
    chosen = torch.where((depth > 0) & (depth == greatest[owner]), pairs, len(depth))
    first = torch.full_like(greatest, len(depth), dtype=torch.int64).scatter_reduce(0, owner, chosen, "amin")
    return first[first < len(depth)]


def _rounded_box(shape: Primitive) -> tuple[np.ndarray, float]:
    """Returns half extents and rounding of an analytic shape; of a mesh a point, never the nearest by itself."""
    radius, half_length = float(shape.size[0]), float(shape.size[1])
    match shape.shape:
        case "capsule":
            return np.array([0.0, 0.0, half_length]), radius
        case "cylinder":
            return np.array([radius, radius + half_length, half_length]), 0.0
        case "box":
            return shape.size, 0.0
    return np.zeros(3), 0.0


def _bound(shape: Primitive) -> tuple[np.ndarray, np.ndarray]:
    """Returns center and half extents of a box around the shape, along its axes."""
    if shape.shape == "mesh":
        low, high = shape.vertices.min(axis=0), shape.vertices.max(axis=0)
        return (low + high) / 2, (high - low) / 2
    extent, radius = _rounded_box(shape)
    return np.zeros(3), extent + radius


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
