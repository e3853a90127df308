"""Makes the tables of hands and objects that kernels read."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import warp as wp
from torch import Tensor

from bimangrasp.energy.fused import records
from bimangrasp.energy.fused.geometry import Grid
from bimangrasp.energy.fused.point_kernels import Spheres
from bimangrasp.geometry.farthest_point_sampling import RUN, spatial_order
from bimangrasp.geometry.triangle_mesh import TriangleMesh
from bimangrasp.hands.model import HandModel
from bimangrasp.objects.model import ObjectModel

BALL_SLACK = 1e-5
"""Balls grow by this share, so that float32 rounding culls no point that is inside a shape."""

_SCALARS = {
    int: np.int32,
    wp.uint64: np.uint64,
    wp.float64: np.float64,
    wp.vec3d: np.float64,
    wp.mat33d: np.float64,
}


@dataclass(frozen=True)
class HandTables:
    """Both hands on a device; `meshes` keeps the structures alive that `shapes` names."""

    tree: records.Tree
    shapes: records.Shapes
    candidates: records.Candidates
    keypoints: records.Keypoints
    clouds: tuple[records.Cloud, records.Cloud]
    meshes: tuple[wp.Mesh, ...]

    @classmethod
    def of(cls, hands: HandModel) -> HandTables:
        """Returns the tables of a hand model."""
        device = wp.device_from_torch(hands.device)
        shapes, meshes = _shapes(hands, device)
        candidates, keypoints = records.Candidates(), records.Keypoints()
        candidates.link = _array(hands.candidate_link, int, device)
        candidates.position = _array(hands.candidate_position, wp.vec3d, device)
        keypoints.link = _array(hands.keypoint_link, int, device)
        keypoints.position = _array(hands.keypoint_position, wp.vec3, device)
        clouds = tuple(_hand_cloud(hands, side, device) for side in range(2))
        return cls(_tree(hands, device), shapes, candidates, keypoints, clouds, meshes)


@dataclass(frozen=True)
class ObjectTables:
    """One object on a device; `mesh` keeps the structure alive that `surface` names."""

    mesh: wp.Mesh
    surface: records.Surface
    cloud: records.Cloud

    @classmethod
    def of(cls, obj: ObjectModel) -> ObjectTables:
        """Returns the tables of an object."""
        device = wp.device_from_torch(obj.surface_points.device)
        points = obj.surface_points.cpu().numpy()
        mesh, surface = _mesh(obj.mesh, device), records.Surface()
        surface.bvh, surface.is_open = mesh.id, int(obj.mesh.sign == "winding")
        surface.corners = _array(obj.mesh.corners, wp.vec3, device)
        surface.exact = _array(obj.mesh.corners, wp.vec3d, device)
        surface.normals = _array(obj.mesh.normals, wp.vec3, device)
        return cls(mesh, surface, _cloud(np.full(len(points), -1), points, device))


def spheres_of(hands: HandModel) -> Spheres:
    """Returns the spheres inside both hands."""
    device, spheres = wp.device_from_torch(hands.device), Spheres()
    shape = hands.spheres.shape.cpu().numpy()
    count = np.bincount(shape, minlength=len(hands.shapes.link))
    spheres.first, spheres.count = _array(np.cumsum(count) - count, int, device), _array(count, int, device)
    spheres.center = _array(hands.spheres.center, wp.vec3, device)
    spheres.radius = _array(hands.spheres.radius, float, device)
    return spheres


def grid_of(obj: ObjectModel) -> Grid:
    """Returns the signed distances of an object."""
    grid = Grid()
    grid.low, grid.cell = wp.vec3(*obj.grid.low.tolist()), obj.grid.cell
    grid.values = _array(obj.grid.values, float, wp.device_from_torch(obj.grid.values.device))
    return grid


def _tree(hands: HandModel, device: wp.Device) -> records.Tree:
    left = hands.descriptions[0]
    fixed = np.stack([hand.T_parent_link for hand in hands.descriptions])
    axis = np.zeros((2, len(left.parent), 3))
    joint = np.full(len(left.parent), -1)
    joint[left.joint_link] = np.arange(len(left.joint_link))
    for side, hand in enumerate(hands.descriptions):
        axis[side, hand.joint_link] = hand.joint_axis
    tree = records.Tree()
    tree.parent, tree.joint = _array(left.parent, int, device), _array(joint, int, device)
    tree.rotation = _array(fixed[..., :3, :3], wp.mat33d, device)
    tree.translation = _array(fixed[..., :3, 3], wp.vec3d, device)
    tree.axis = _array(axis, wp.vec3d, device)
    tree.lower, tree.upper = _array(hands.joint_lower, float, device), _array(hands.joint_upper, float, device)
    return tree


def couplings_of(hands: HandModel, tile: int) -> records.Couplings | None:
    """Returns how joints follow from coordinates, with room for a tile; None where the joints are the coordinates."""
    if not hands.coupled:
        return None
    device, first = wp.device_from_torch(hands.device), hands.coupled.tables[0]
    knots, polynomial = (part.cpu().numpy() for part in (hands.coupled.knots, hands.coupled.polynomial))
    couplings = records.Couplings()
    for name in ("order", "parent", "coordinate"):
        setattr(couplings, name, _array(getattr(first, name), int, device))
    knots = np.concatenate((knots, np.full((*knots.shape[:2], 1), np.inf)), axis=2)
    couplings.knots = _array(knots, wp.float64, device)
    couplings.polynomial = _array(polynomial.reshape(*polynomial.shape[:2], -1), wp.float64, device)
    room = (tile, 2, len(first.order))
    couplings.value = wp.zeros(room, dtype=wp.float64, device=device)
    couplings.slope = wp.zeros(room, dtype=wp.float64, device=device)
    return couplings


def _shapes(hands: HandModel, device: wp.Device) -> tuple[records.Shapes, tuple[wp.Mesh, ...]]:
    """Returns the collision shapes, and what finds the nearest triangles of those that are meshes."""
    from_torch, count = hands.shapes, len(hands.shapes.link)
    kind = np.where(from_torch.is_cylinder.cpu(), records.CYLINDER, records.BOX)
    bvh, first = np.zeros((2, count), np.uint64), np.zeros((2, count), np.int32)
    meshes, corners, normals, faces = [], [np.zeros((0, 3, 3))], [np.zeros((0, 7, 3))], 0
    for (hand, shape), mesh in from_torch.meshes.items():
        meshes.append(_mesh(mesh, device))
        kind[shape], bvh[hand, shape], first[hand, shape] = records.MESH, meshes[-1].id, faces
        corners.append(mesh.corners.cpu().numpy())
        normals.append(mesh.normals.cpu().numpy())
        faces += len(mesh.corners)
    shapes = records.Shapes()
    shapes.link, shapes.kind = _array(from_torch.link, int, device), _array(kind, int, device)
    shapes.rotation = _array(from_torch.rotation, wp.mat33, device)
    for name in ("translation", "extent", "bound_center", "bound_extent"):
        setattr(shapes, name, _array(getattr(from_torch, name), wp.vec3, device))
    shapes.radius = _array(from_torch.radius, float, device)
    bound_radius = from_torch.bound_extent.norm(dim=-1) * (1 + BALL_SLACK)
    shapes.bound_radius = _array(bound_radius, float, device)
    shapes.bvh, shapes.first = _array(bvh, wp.uint64, device), _array(first, int, device)
    shapes.corners = _array(np.concatenate(corners), wp.vec3, device)
    shapes.normals = _array(np.concatenate(normals), wp.vec3, device)
    return shapes, tuple(meshes)


def _hand_cloud(hands: HandModel, side: int, device: wp.Device) -> records.Cloud:
    """Returns the surface points of one hand; the order within a link is the one in which runs are short."""
    weights = hands.surface[side].view(len(hands.surface[side]), -1, 4).cpu().numpy()
    link = weights[..., 3].argmax(axis=1)
    return _cloud(link, weights[np.arange(len(link)), link, :3], device)


def _cloud(link: np.ndarray, points: np.ndarray, device: wp.Device) -> records.Cloud:
    """Returns points in runs, each of one link, the points of a run sorted once more."""
    runs, groups = [], []
    for carrier in dict.fromkeys(link.tolist()):
        first, last = np.flatnonzero(link == carrier)[[0, -1]] + [0, 1]
        starts = range(first, last, RUN)
        groups += [
            slice(len(runs) + k, len(runs) + min(k + records.GROUP, len(starts)))
            for k in range(0, len(starts), records.GROUP)
        ]
        runs += [slice(start, min(start + RUN, last)) for start in starts]
    points = np.concatenate([points[run][spatial_order(points[run], records.LEAF)] for run in runs])
    leaves = [
        slice(k, min(k + records.LEAF, run.stop))
        for run in runs
        for k in range(run.start, run.start + RUN, records.LEAF)
    ]
    spans = [slice(runs[group.start].start, runs[group.stop - 1].stop) for group in groups]
    cloud = records.Cloud()
    cloud.link, cloud.point = _array(link, int, device), _array(points, wp.vec3, device)
    for kind, parts, balls in (("run", runs, runs), ("leaf", leaves, leaves), ("group", groups, spans)):
        setattr(cloud, f"{kind}_first", _array([part.start for part in parts], int, device))
        setattr(cloud, f"{kind}_count", _array([max(part.stop - part.start, 0) for part in parts], int, device))
        center, radius = zip(*(_ball(points[ball]) for ball in balls), strict=True)
        setattr(cloud, f"{kind}_center", _array(center, wp.vec3, device))
        setattr(cloud, f"{kind}_radius", _array(radius, float, device))
    cloud.run_of = _array(np.repeat(np.arange(len(runs)), cloud.run_count.numpy()), int, device)
    return cloud


def _ball(points: np.ndarray) -> tuple[np.ndarray, float]:
    """Returns a ball around points; of none a ball that is nowhere."""
    if not len(points):
        return np.full(3, np.nan), 0.0
    center = (points.min(axis=0) + points.max(axis=0)) / 2
    return center, np.linalg.norm(points - center, axis=1).max() * (1 + BALL_SLACK) + 1e-6


def _mesh(mesh: TriangleMesh, device: wp.Device) -> wp.Mesh:
    """Returns what finds the nearest triangle, with the faces in the order of the corners."""
    corners = mesh.corners.cpu().numpy().reshape(-1, 3)
    return wp.Mesh(_array(corners, wp.vec3, device), _array(np.arange(len(corners)), int, device))


def _array(values: object, dtype: type, device: wp.Device) -> wp.array:
    """Returns a table on the device."""
    values = values.cpu().numpy() if isinstance(values, Tensor) else np.asarray(values)
    scalar = _SCALARS.get(dtype, np.float32)
    return wp.array(np.ascontiguousarray(values, scalar), dtype=dtype, device=device)
