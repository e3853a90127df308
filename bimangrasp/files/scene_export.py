"""Makes bodies of a grasp of a file: triangle meshes of trimesh, or an MJCF scene. In the object's frame, m."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import mujoco
import numpy as np
import torch
import trimesh

from bimangrasp.errors import InputError
from bimangrasp.files.provenance import MadeWith, check_hands, mesh_made_with
from bimangrasp.files.reader import RowFile
from bimangrasp.grasp import LEFT, RIGHT
from bimangrasp.hands.collision_shapes import shape_surface
from bimangrasp.hands.description import HandDescription
from bimangrasp.hands.model import HandModel
from bimangrasp.hands.mujoco_bodies import (
    add_couplings,
    add_links,
    add_mesh,
    add_shape,
    link_name,
    quaternion,
    weigh_shapeless,
)

COLUMNS = ("hand/translation", "hand/rotation", "hand/joints", "object_scale")
SIDES = ("left", "right")
COLORS = ((0.93, 0.79, 0.62, 1.0), (0.84, 0.56, 0.40, 1.0), (0.30, 0.60, 0.76, 1.0))
"""Of the left hand, the right hand and the object."""


class GraspMeshes(NamedTuple):
    """The collision shapes of both hands, and the object at the grasp's size."""

    left: trimesh.Trimesh
    right: trimesh.Trimesh
    object: trimesh.Trimesh


class Placed(NamedTuple):
    """One grasp with what it is of.

    Attributes:
        hands: the left and the right one.
        translation, rotation, joints: of both, as a file has them.
        vertices, faces: the object at the grasp's size.
    """

    hands: tuple[HandDescription, HandDescription]
    translation: np.ndarray
    rotation: np.ndarray
    joints: np.ndarray
    vertices: np.ndarray
    faces: np.ndarray


def placed(
    file: RowFile,
    grasp: Mapping[str, Any],
    hands: tuple[HandDescription, HandDescription],
    object_root: Path | str,
) -> Placed:
    """Returns a grasp with its hands and its object.

    Raises:
        InputError: hands or mesh are not those of the file, or the grasp is not finite.
    """
    made_with = MadeWith(file.path, file.hand_name, file.hand_sha256, file.object_code, file.mesh_sha256)
    check_hands(made_with, hands)
    mesh = mesh_made_with(made_with, object_root)
    poses = [np.asarray(grasp[name], np.float64) for name in COLUMNS]
    if not all(np.isfinite(part).all() for part in poses):
        raise InputError(f"a grasp of {file.path} has numbers that are not finite; it failed and has no pose")
    return Placed(hands, *poses[:3], mesh.vertices * float(poses[3]), mesh.faces)


def grasp_meshes(grasp: Placed) -> GraspMeshes:
    """Returns both hands and the object as triangle meshes; a hand's are the shapes of its links, side by side."""
    model = HandModel(*grasp.hands, surface_points=1)
    pose = (torch.as_tensor(part)[None] for part in (grasp.rotation, grasp.translation, grasp.joints))
    frames = model.frames_from_root(*pose)
    bodies = []
    for side in (LEFT, RIGHT):
        shapes = []
        for shape in grasp.hands[side].primitives:
            T_object_link = np.eye(4)
            T_object_link[:3, :3] = frames.rotation[0, side, shape.link]
            T_object_link[:3, 3] = frames.translation[0, side, shape.link]
            shapes.append(shape_surface(shape).apply_transform(T_object_link))
        bodies.append(trimesh.util.concatenate(shapes))
    bodies.append(trimesh.Trimesh(grasp.vertices, grasp.faces, process=False))
    for body, color in zip(bodies, COLORS, strict=True):
        body.visual.face_colors = np.round(np.array(color) * 255).astype(np.uint8)
    return GraspMeshes(*bodies)


def grasp_scene(grasp: Placed) -> mujoco.MjSpec:
    """Returns an MJCF scene: bodies `left/<link>`, `right/<link>` with their joints, and `object`.

    The roots of the hands and the object are fixed; joints move as their couplings let them and have no actuators. The
    keyframe `grasp` holds their values. Meshes are drawn as they are, and collide, as ever in MuJoCo, as their hulls.
    """
    spec = mujoco.MjSpec()
    spec.compiler.degree = False
    spec.worldbody.add_light(pos=(0.5, -0.5, 1.5), dir=(-0.3, 0.3, -1.0))
    body = spec.worldbody.add_body(name="object")
    add_mesh(spec, body, "object", grasp.vertices, grasp.faces, rgba=COLORS[2])
    for side in (LEFT, RIGHT):
        _add_hand(spec, grasp, side)
    spec.add_key(name="grasp", qpos=grasp.joints.ravel())
    return spec


def _add_hand(spec: mujoco.MjSpec, grasp: Placed, side: int) -> None:
    hand, name = grasp.hands[side], SIDES[side]
    root = spec.worldbody.add_body(
        name=link_name(hand, name, 0), pos=grasp.translation[side], quat=quaternion(grasp.rotation[side])
    )
    bodies = add_links(root, hand, name)
    for joint, link in enumerate(hand.joint_link):
        bodies[link].add_joint(
            name=f"{name}/{hand.joint_names[joint]}",
            type=mujoco.mjtJoint.mjJNT_HINGE,
            axis=hand.joint_axis[joint],
            limited=True,
            range=(hand.joint_lower[joint], hand.joint_upper[joint]),
            armature=1e-4,  # kg m2: links without a shape have no inertia of their own
        )
    for number, shape in enumerate(hand.primitives):
        add_shape(spec, bodies[shape.link], f"{name}/{number}", shape, shape.T_link_shape, rgba=COLORS[side])
    add_couplings(spec, hand, name)
    weigh_shapeless(bodies, hand, mass=1e-3, inertia=1e-7)
