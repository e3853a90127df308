"""Computes link frames, contact points and penetration keypoints of both hands from their poses, in batches."""

from __future__ import annotations

from dataclasses import replace
from functools import cached_property
from typing import NamedTuple

import numpy as np
import torch
import trimesh
from jaxtyping import Float, Int
from torch import Tensor

from bimangrasp.errors import InputError
from bimangrasp.geometry.farthest_point_sampling import farthest_points, key_generator, spatial_order
from bimangrasp.geometry.rotation import cross_matrix, rot6d_to_matrix
from bimangrasp.grasp import Grasps
from bimangrasp.hands.collision_shapes import HandShapes, LinkFrames, inscribed_spheres, shape_surface
from bimangrasp.hands.coupled_joints import CoupledJoints
from bimangrasp.hands.description import HandDescription, mirror, mirror_direction
from bimangrasp.hands.reach import HandReach

SURFACE_SAMPLES_PER_POINT = 100
"""Area-uniform samples from which each surface point is chosen as one of the farthest (released code)."""

OFF_COUPLING = 1e-3
"""Joint values of other programs may be off their couplings by this, rad: they are rounded, or of another simulator."""


class Spheres(NamedTuple):
    """Spheres inside the collision shapes of both hands; the spheres of a shape are consecutive.

    Attributes:
        shape: index of the shape that contains the sphere.
        center: in link coordinates, m.
        radius: m.
    """

    shape: Int[Tensor, " sphere"]
    center: Float[Tensor, "hand sphere 3"]
    radius: Float[Tensor, "hand sphere"]


class HandModel:
    """Both hands, constant. Every table has a hand axis, 0 = left, 1 = right; the hands have one tree.

    Attributes:
        names: link names.
        joint_names: joint names, in the order of the joint axis.
        joint_lower, joint_upper, joint_mean: (hand, joint) rad.
        coupled: how all joints follow from the coordinates; None where the joints are the coordinates.
        coordinate_lower, coordinate_upper, coordinate_mean: (hand, coordinate) rad; see `CoordinateTable`.
        candidate_link, candidate_position: contact candidates in link coordinates, float64.
        keypoint_link, keypoint_position: penetration keypoints in link coordinates.
        palm_normal, finger_direction: (hand, 3) unit vectors in the hand's frame.
        shapes: the collision shapes.
        surface: (hand, point, 4 link) the weights with which the link frames make points on the collision shapes.
        sha256: hash of both descriptions.
    """

    def __init__(
        self,
        left: HandDescription,
        right: HandDescription,
        surface_points: int,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
    ):
        """Takes two hands to a device.

        Args:
            left: the left hand.
            right: a hand with the same links, joints and kinds of shapes.
            surface_points: how many points stand for each hand's surface in the inter-hand term.
            device: where the tables live.
            dtype: of the tables.

        Raises:
            InputError: the hands have different trees.
        """
        _check_same_tree(left, right)
        hands = (left, right)

        def table(name: str, dtype: torch.dtype | None = dtype) -> Tensor:
            column = np.stack([getattr(hand, name) for hand in hands])
            return torch.as_tensor(column, dtype=dtype, device=device)

        self.descriptions = hands
        self.names, self.joint_names = left.link_names, left.joint_names
        self.joint_lower, self.joint_upper = table("joint_lower"), table("joint_upper")
        self.device, self.dtype = self.joint_lower.device, dtype  # a tensor's device has an index, which Warp asks for
        self.joint_mean = table("joint_mean")
        self.coupled = CoupledJoints(hands, device) if left.couplings else None
        self.coordinate_lower, self.coordinate_upper = self.joint_lower, self.joint_upper
        self.coordinate_mean = self.joint_mean
        if self.coupled:
            ranges = [np.stack([getattr(t, name) for t in self.coupled.tables]) for name in ("lower", "upper")]
            self.coordinate_lower, self.coordinate_upper = (
                torch.as_tensor(end, dtype=dtype, device=device) for end in ranges
            )
            self.coordinate_mean = self.coupled.coordinates_of(self.joint_mean[None])[0]
        self.candidate_link = table("candidate_link", None)
        self.candidate_position = table("candidate_position", torch.float64)
        self.keypoint_link = table("keypoint_link", None)
        self.keypoint_position = table("keypoint_position")
        self.palm_normal, self.finger_direction = table("palm_normal"), table("finger_direction")
        self.shapes = HandShapes.from_descriptions(hands, device, dtype)
        self.surface = torch.stack([self._surface_weights(hand, surface_points) for hand in hands])
        self._plan_tree(left, table("T_parent_link", torch.float64), table("joint_axis", torch.float64))

    @property
    def joint_count(self) -> int:
        """Number of joints of one hand."""
        return len(self.joint_names)

    @property
    def coordinate_count(self) -> int:
        """Number of values of one hand that are free: joints that follow no other, and tendons."""
        return self.coordinate_lower.shape[1]

    @property
    def candidate_count(self) -> int:
        """Number of contact candidates of one hand."""
        return self.candidate_link.shape[1]

    @property
    def sha256(self) -> tuple[str, str]:
        """Hashes of the left and the right description."""
        return self.descriptions[0].sha256, self.descriptions[1].sha256

    def _plan_tree(self, hand: HandDescription, fixed: Tensor, axis: Tensor) -> None:
        """Groups links by their depth in the tree: the frames of each depth are then one batched product."""
        depth = np.zeros(len(hand.parent), dtype=np.int64)
        for link, parent in enumerate(hand.parent[1:], start=1):
            depth[link] = depth[parent] + 1
        joint = np.full(len(depth), len(hand.joint_link))
        joint[hand.joint_link] = np.arange(len(hand.joint_link))
        order = np.argsort(depth, kind="stable")
        tree_position = np.argsort(order)

        def on_device(values: np.ndarray) -> Tensor:
            return torch.as_tensor(values, device=self.device)

        first = np.searchsorted(depth[order], np.arange(int(depth.max()) + 1))
        self._levels = [
            (on_device(tree_position[hand.parent[links]] - first[d]), on_device(links))
            for d, links in enumerate(np.flatnonzero(depth == d + 1) for d in range(int(depth.max())))
        ]
        self._tree_position = on_device(tree_position)
        self._joint_of_link = on_device(joint)
        self._fixed_rotation, self._fixed_translation = fixed[..., :3, :3], fixed[..., :3, 3]
        turn = cross_matrix(torch.nn.functional.pad(axis, (0, 0, 0, 1)))
        self._turn, self._turn_squared = turn, turn @ turn

    def joints_at(self, coordinates: Float[Tensor, "batch hand coordinate"]) -> Float[Tensor, "batch hand joint"]:
        """Returns the values of all joints, rad, at these coordinates."""
        return self.coupled.joints_at(coordinates) if self.coupled else coordinates

    def coordinates_of(self, joints: Float[Tensor, "batch hand joint"]) -> Float[Tensor, "batch hand coordinate"]:
        """Returns the coordinates of joint values that are on their couplings."""
        return self.coupled.coordinates_of(joints) if self.coupled else joints

    def onto_couplings(self, joints: Float[Tensor, "batch hand joint"], what: str) -> Float[Tensor, "batch hand joint"]:
        """Returns joint values of another program on the couplings, of which they may be off by rounding; NaN passes.

        Raises:
            InputError: naming the joint that is farthest off.
        """
        placed = self.joints_at(self.coordinates_of(joints))
        off = (joints - placed).abs().nan_to_num(0.0)
        if off.numel() and off.max() > OFF_COUPLING:
            row, _, joint = np.unravel_index(int(off.argmax()), off.shape)
            raise InputError(
                f"{what} has joints off the couplings of these hands: {self.joint_names[joint]!r} of grasp {row} by "
                f"{off.max():.3g} rad, so that no motors can command it; take hands whose joints are free"
            )
        return placed

    def grasps_at(self, pose: Float[Tensor, "batch hand dof"], candidate: Int[Tensor, "batch hand contact"]) -> Grasps:
        """Returns the grasps whose translation, rotation and coordinates are in a row."""
        grasps = Grasps.from_pose(pose, candidate)
        return replace(grasps, joints=self.joints_at(grasps.joints)) if self.coupled else grasps

    def pose_of(self, grasps: Grasps) -> Float[Tensor, "batch hand dof"]:
        """Returns what the sampler moves: translation, rotation and coordinates of each hand in a row."""
        return replace(grasps, joints=self.coordinates_of(grasps.joints)).pose if self.coupled else grasps.pose

    def link_frames(self, grasps: Grasps) -> LinkFrames:
        """Returns the poses of all links in the object's frame, entry [b, h, l] of link l of hand h of sample b.

        In float64: normals at contacts are small differences of positions, below the rounding errors of float32.
        """
        return self.frames_from_root(rot6d_to_matrix(grasps.rotation.double()), grasps.translation, grasps.joints)

    def frames_from_root(
        self,
        rotation: Float[Tensor, "batch hand 3 3"],
        translation: Float[Tensor, "batch hand 3"],
        joints: Float[Tensor, "batch hand joint"],
    ) -> LinkFrames:
        """Returns the poses of all links in the frame in which the root's pose is given, m, in float64."""
        rotation, translation, joints = rotation.double(), translation.double(), joints.double()
        angle = torch.nn.functional.pad(joints, (0, 1))[..., None, None]
        eye = torch.eye(3, dtype=joints.dtype, device=joints.device)
        turned = eye + angle.sin() * self._turn + (1 - angle.cos()) * self._turn_squared
        local = self._fixed_rotation @ turned[:, :, self._joint_of_link]
        rotations, translations = [rotation[:, :, None]], [translation[:, :, None]]
        for parent, links in self._levels:
            above = rotations[-1][:, :, parent]
            offset = (above @ self._fixed_translation[:, links, :, None]).squeeze(-1)
            translations.append(translations[-1][:, :, parent] + offset)
            rotations.append(above @ local[:, :, links])
        return LinkFrames(
            torch.cat(rotations, dim=2)[:, :, self._tree_position],
            torch.cat(translations, dim=2)[:, :, self._tree_position],
        )

    def contact_points(
        self, frames: LinkFrames, candidate: Int[Tensor, "batch hand contact"]
    ) -> Float[Tensor, "batch hand contact 3"]:
        """Returns the chosen contact candidates in the object's frame, m, in float64."""
        hand = torch.arange(2, device=self.device)[:, None]
        return self._carry(frames, self.candidate_link[hand, candidate], self.candidate_position[hand, candidate])

    def keypoints(self, frames: LinkFrames) -> Float[Tensor, "batch hand keypoint 3"]:
        """Returns the penetration keypoints in the object's frame, m."""
        return self._carry(frames, self.keypoint_link, self.keypoint_position)

    @cached_property
    def reach(self) -> HandReach:
        """How far the surface points reach along a direction."""
        return HandReach(self.descriptions, self.surface)

    @cached_property
    def spheres(self) -> Spheres:
        """Spheres inside the collision shapes, computed on first use (one to two seconds)."""
        per_hand = [inscribed_spheres(hand) for hand in self.descriptions]
        if not np.array_equal(per_hand[0].shape, per_hand[1].shape):
            raise InputError(
                "energy.w_depth wants hands whose shapes are mirror images; theirs take different numbers of inscribed "
                "spheres: leave hand.left_mjcf out"
            )

        def table(name: str) -> Tensor:
            column = np.stack([getattr(spheres, name) for spheres in per_hand])
            return torch.as_tensor(column, dtype=self.dtype, device=self.device)

        return Spheres(torch.as_tensor(per_hand[0].shape, device=self.device), table("center"), table("radius"))

    def sphere_centers(self, frames: LinkFrames) -> Float[Tensor, "batch hand sphere 3"]:
        """Returns the centers of the inscribed spheres in the object's frame, m."""
        return self._carry(frames, self.shapes.link[self.spheres.shape].expand(2, -1), self.spheres.center)

    def surface_points(self, frames: LinkFrames, side: int) -> Float[Tensor, "batch point 3"]:
        """Returns the points on one hand's collision shapes in the object's frame, m: one matrix product."""
        frames = frames.to(self.dtype)
        frame = torch.cat((frames.rotation[:, side].mT, frames.translation[:, side, :, None]), dim=-2)
        return self.surface[side] @ frame.flatten(1, 2)

    def _surface_weights(self, hand: HandDescription, count: int) -> Float[Tensor, "point weight"]:
        """Returns for each surface point its link coordinates and a 1 in its link's columns, zeros elsewhere."""
        link, position = surface_of(hand, count)
        weights = np.zeros((count, len(hand.link_names), 4))
        weights[np.arange(count), link] = np.concatenate((position, np.ones((count, 1))), axis=1)
        return torch.as_tensor(weights.reshape(count, -1), dtype=self.dtype, device=self.device)

    def _carry(self, frames: LinkFrames, link: Tensor, position: Tensor) -> Float[Tensor, "batch hand point 3"]:
        """Returns points given in link coordinates in the object's frame, in the precision of their table.

        Tables may lack the batch axis.
        """
        frames = frames.to(position.dtype)
        batch = torch.arange(len(frames.translation), device=self.device)[:, None, None]
        hand = torch.arange(2, device=self.device)[:, None]
        rotation, translation = frames.rotation[batch, hand, link], frames.translation[batch, hand, link]
        return translation + (rotation @ position[..., None]).squeeze(-1)


def surface_of(hand: HandDescription, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns link (N,) and position (N, 3) of `count` points spread over the hand's collision shapes.

    Each link gets its share of the area, rounded down; the remainder goes to the first link with a shape. Drawn on the
    CPU from a generator keyed by the hand and the count, so that every round and device sees the same points.
    A left hand has the mirror image of its right twin's points, so that mirrored scenes have equal energies.
    """
    if hand.side == "left":
        link, position = surface_of(mirror(hand), count)
        return link, mirror_direction(position)
    links = sorted({shape.link for shape in hand.primitives})
    surfaces = [
        trimesh.util.concatenate([shape_surface(s) for s in hand.primitives if s.link == link]) for link in links
    ]
    areas = np.array([surface.area for surface in surfaces])
    counts = [int(count * area / areas.sum()) for area in areas]
    counts[0] += count - sum(counts)
    generator = key_generator(hand.sha256, count)
    chosen = [
        farthest_points(surface.triangles, n, SURFACE_SAMPLES_PER_POINT, generator)
        for surface, n in zip(surfaces, counts, strict=True)
    ]
    return np.repeat(links, counts), np.concatenate([points[spatial_order(points)] for points in chosen])


def _check_same_tree(left: HandDescription, right: HandDescription) -> None:
    """Refuses two hands whose kinematic trees differ."""
    for name in ("link_names", "joint_names"):
        if getattr(left, name) != getattr(right, name):
            raise InputError(
                f"the left hand's {name} are {getattr(left, name)}, the right hand's {getattr(right, name)}; "
                "both hands must have the same, in the same order: use the mirror of one hand for the other"
            )
    for name in ("parent", "joint_link"):
        if not np.array_equal(getattr(left, name), getattr(right, name)):
            raise InputError(f"the hands' trees differ in {name}; use the mirror of one hand for the other")
    for name in ("candidate_link", "keypoint_link"):
        counts = len(getattr(left, name)), len(getattr(right, name))
        if counts[0] != counts[1]:
            raise InputError(f"{name} has {counts[0]} entries for the left hand and {counts[1]} for the right one")
    couplings = [
        ([t.joints for t in hand.couplings.tendons], [f[:2] for f in hand.couplings.followers])
        for hand in (left, right)
    ]
    if couplings[0] != couplings[1]:
        raise InputError("the hands' couplings join other joints; state them for both in hand.couplings")
    kinds = [[(shape.link, shape.shape) for shape in hand.primitives] for hand in (left, right)]
    if kinds[0] != kinds[1]:
        raise InputError("the hands' collision shapes differ in kind or link; use the mirror of one hand")
