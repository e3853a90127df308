"""Describes one hand as a plain NumPy record, before any tensor is made of it, and mirrors it exactly."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, fields, replace
from typing import Literal, NamedTuple

import numpy as np
from scipy.spatial.transform import Rotation

from bimangrasp.hands.couplings import CoordinateTable, Couplings, coordinate_table

Shape = Literal["capsule", "box", "cylinder", "mesh"]

_POSITION = np.array([1.0, -1.0, 1.0])

_AXIS = np.array([-1.0, 1.0, -1.0])  # a rotation vector is an axial vector: it mirrors with the other sign

_POSE = np.array([[1.0, -1.0, 1.0, 1.0], [-1.0, 1.0, -1.0, -1.0], [1.0, -1.0, 1.0, 1.0], [1.0, 1.0, 1.0, 1.0]])

_OTHER = {"right": "left", "left": "right"}


@dataclass(frozen=True)
class Primitive:
    """One collision shape, fixed to a link.

    Attributes:
        link: index of the link that carries it.
        shape: a sphere is a capsule of length 0.
        T_link_shape: (4, 4) pose of the shape in its link; capsules and cylinders lie along z, centered at 0.
        size: (3,) m. Capsule and cylinder: radius, half length between the end centers, 0. Box: half extents.
            Mesh: zeros.
        vertices: (V, 3) m in the shape's frame, empty unless it is a mesh.
        faces: (F, 3) vertex indices, counter-clockwise seen from outside, empty unless it is a mesh.
    """

    link: int
    shape: Shape
    T_link_shape: np.ndarray
    size: np.ndarray
    vertices: np.ndarray
    faces: np.ndarray


@dataclass(frozen=True)
class HandDescription:
    """All constants of one hand. Meters and radians; L links in depth-first order, J joints in tree order.

    Attributes:
        side: "left" or "right".
        link_names: L names; link 0 is the root, whose frame is the hand's frame.
        parent: (L,) index of the parent link, -1 for the root; a parent stands before its children.
        T_parent_link: (L, 4, 4) pose of the link in its parent at joint value 0; identity for the root.
        joint_names: J names.
        joint_link: (J,) the link that the joint moves; a link has at most one joint.
        joint_axis: (J, 3) unit axis in the link's frame, through the link's origin.
        joint_lower, joint_upper: (J,) limits.
        joint_mean: (J,) mean of the joints' first values.
        primitives: the collision shapes, in link order.
        candidate_link, candidate_position: (K,), (K, 3) contact candidates in link coordinates.
        keypoint_link, keypoint_position: (P,), (P, 3) penetration keypoints in link coordinates.
        palm_normal: (3,) unit vector in the hand's frame, out of the palm towards what is held.
        finger_direction: (3,) unit vector in the hand's frame, along the stretched fingers.
        couplings: which joints move together.
    """

    side: str
    link_names: tuple[str, ...]
    parent: np.ndarray
    T_parent_link: np.ndarray
    joint_names: tuple[str, ...]
    joint_link: np.ndarray
    joint_axis: np.ndarray
    joint_lower: np.ndarray
    joint_upper: np.ndarray
    joint_mean: np.ndarray
    primitives: tuple[Primitive, ...]
    candidate_link: np.ndarray
    candidate_position: np.ndarray
    keypoint_link: np.ndarray
    keypoint_position: np.ndarray
    palm_normal: np.ndarray
    finger_direction: np.ndarray
    couplings: Couplings = Couplings()

    @property
    def coordinates(self) -> CoordinateTable:
        """How all joints follow from the values that are free; without couplings these are the joints themselves."""
        return coordinate_table(self.couplings, tuple(self.joint_lower.tolist()), tuple(self.joint_upper.tolist()))

    @property
    def sha256(self) -> str:
        """Hash of all attributes: two hands with equal hashes make the same grasps."""
        digest = hashlib.sha256()
        _update(digest, self)
        return digest.hexdigest()


def pair_sha256(left: HandDescription, right: HandDescription) -> str:
    """Returns the hash by which grasp files name a pair of hands."""
    return hashlib.sha256(f"{left.sha256} {right.sha256}".encode()).hexdigest()


def _update(digest: hashlib._Hash, value: object) -> None:
    """Feeds a record's names, dtypes, shapes and bytes into `digest`."""
    if isinstance(value, (HandDescription, Primitive)):
        for field in fields(value):
            if field.name == "couplings" and not value.couplings:
                continue  # a hand without has the hash that it had before there were any
            digest.update(field.name.encode())
            _update(digest, getattr(value, field.name))
    elif isinstance(value, tuple):
        digest.update(str(len(value)).encode())
        for item in value:
            _update(digest, item)
    elif isinstance(value, np.ndarray):
        digest.update(f"{value.dtype.str}{value.shape}".encode())
        digest.update(np.ascontiguousarray(value).tobytes())
    else:
        digest.update(repr(value).encode())


def mirror(hand: HandDescription) -> HandDescription:
    """Returns the other hand: the mirror image at the same joint values, with the same names and limits.

    With M = diag(1, -1, 1): positions M p, rotations M R M, joint axes -M a; the faces of meshes are
    reversed, so that outside stays outside. Only signs change: mirroring twice gives the same bits.
    """
    # capsules, boxes and cylinders are symmetric in their own frames
    primitives = [
        replace(
            shape,
            T_link_shape=shape.T_link_shape * _POSE,
            vertices=shape.vertices * _POSITION,
            faces=np.ascontiguousarray(shape.faces[:, ::-1]),
        )
        for shape in hand.primitives
    ]
    return replace(
        hand,
        side=_OTHER[hand.side],
        T_parent_link=hand.T_parent_link * _POSE,
        joint_axis=hand.joint_axis * _AXIS,
        primitives=tuple(primitives),
        candidate_position=hand.candidate_position * _POSITION,
        keypoint_position=hand.keypoint_position * _POSITION,
        palm_normal=mirror_direction(hand.palm_normal),
        finger_direction=mirror_direction(hand.finger_direction),
    )


def mirror_direction(direction: np.ndarray) -> np.ndarray:
    """Returns the mirror image of a direction of the hand's frame."""
    return direction * _POSITION


def on_couplings(hand: HandDescription, joints: np.ndarray) -> np.ndarray:
    """Returns joint values (..., J), rad, within limits as their couplings have them; without couplings as they are."""
    if not hand.couplings:
        return joints
    table = hand.coordinates
    return table.joints_at(np.clip(table.coordinates_of(joints), table.lower, table.upper))


class Chain(NamedTuple):
    """A finger: the links and joints from the palm to one tip.

    Attributes:
        links: every link from the palm, exclusive, to the tip, then the links that are fixed to the tip.
        joints: the joints of these links, in the same order.
        tip: the last link with a joint, which carries the fingertip.
    """

    links: tuple[int, ...]
    joints: tuple[int, ...]
    tip: int


def frames_at(hand: HandDescription, joints: np.ndarray) -> np.ndarray:
    """Returns the (L, 4, 4) poses of the links in the hand's frame at joint values, (J,) rad."""
    local = hand.T_parent_link.copy()
    turns = np.broadcast_to(np.eye(4), (len(joints), 4, 4)).copy()
    turns[:, :3, :3] = Rotation.from_rotvec(hand.joint_axis * joints[:, None]).as_matrix()
    local[hand.joint_link] = local[hand.joint_link] @ turns
    for link, parent in enumerate(hand.parent[1:], start=1):
        local[link] = local[parent] @ local[link]
    return local


def points_of_links(frames: np.ndarray, links: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Returns points (N, 3) in link coordinates of the `links` (N,), m, in the hand's frame, for `frames` (L, 4, 4)."""
    return np.einsum("nij,nj->ni", frames[links][:, :3, :3], points) + frames[links][:, :3, 3]


def rigid_parts(hand: HandDescription) -> list[int]:
    """Returns for each link the topmost link that it is fixed to."""
    parts: list[int] = []
    for link, parent in enumerate(hand.parent):
        parts.append(link if link == 0 or link in hand.joint_link else parts[parent])
    return parts


def find_palm(hand: HandDescription) -> int:
    """Returns the last link, from the root on, that carries all fingers: the palm.

    A part without collision shapes below it, such as a frame for a sensor, is no finger.
    """
    paths = [path_from_root(hand, tip) for tip in _fingertip_parts(hand)]
    if len(paths) == 1:
        return 0
    shared = [links[0] for links in zip(*paths, strict=False) if len(set(links)) == 1]
    return shared[-1]


def find_chains(hand: HandDescription) -> list[Chain]:
    """Returns the fingers, in the order of the tree."""
    palm, parts = find_palm(hand), rigid_parts(hand)
    chains = []
    for tip in _fingertip_parts(hand):
        path = path_from_root(hand, tip)
        below = path[path.index(palm) + 1 :]
        links = below + [link for link, part in enumerate(parts) if part == tip and link != tip]
        joints = [int(np.flatnonzero(hand.joint_link == link)[0]) for link in below if link in hand.joint_link]
        chains.append(Chain(tuple(links), tuple(joints), tip))
    return chains


def _fingertip_parts(hand: HandDescription) -> list[int]:
    """Returns the rigid parts that have shapes and no other part with shapes below them."""
    parts = rigid_parts(hand)
    shaped = {parts[shape.link] for shape in hand.primitives} - {0}
    carrying = {parts[link] for part in shaped for link in path_from_root(hand, part)[:-1]}
    return sorted(shaped - carrying)


def path_from_root(hand: HandDescription, link: int) -> list[int]:
    """Returns the links from the root to a link, both included."""
    path = [link]
    while path[-1]:
        path.append(int(hand.parent[path[-1]]))
    return path[::-1]
