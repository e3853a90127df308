"""Reads the collision shapes of a compiled MuJoCo model as primitives of links."""

from __future__ import annotations

import mujoco
import numpy as np
import trimesh

from bimangrasp.errors import InputError
from bimangrasp.hand_files.kinematic_tree import pose
from bimangrasp.hands.description import Primitive

NO_VERTICES, NO_FACES = np.zeros((0, 3)), np.zeros((0, 3), np.int64)
_GEOM = mujoco.mjtGeom


def read_primitives(model: mujoco.MjModel, body_link: dict[int, int], source: str) -> tuple[Primitive, ...]:
    """Returns the collision shapes of the bodies in `body_link`, in link order.

    A geom is a collision shape if it can touch anything: `contype` or `conaffinity` is not 0, or a contact
    pair names it. A mesh stands for its convex hull, which is what MuJoCo collides.

    Raises:
        InputError: a shape of an unknown type, or no collision shape at all.
    """
    geoms = [g for g in range(model.ngeom) if int(model.geom_bodyid[g]) in body_link and _collides(model, g)]
    if not geoms:
        raise InputError(
            f"{source}: the hand has no collision geometry (every geom has contype=0 and conaffinity=0). "
            "Give contype=1 to the geoms that may touch something."
        )
    shapes = [_primitive(model, geom, body_link[int(model.geom_bodyid[geom])], source) for geom in geoms]
    return tuple(sorted(shapes, key=lambda shape: shape.link))


def _collides(model: mujoco.MjModel, geom: int) -> bool:
    paired = geom in model.pair_geom1 or geom in model.pair_geom2
    return bool(model.geom_contype[geom] or model.geom_conaffinity[geom] or paired)


def _primitive(model: mujoco.MjModel, geom: int, link: int, source: str) -> Primitive:
    """Returns a geom as a primitive of its link."""
    kind = _GEOM(int(model.geom_type[geom]))
    a, b, c = model.geom_size[geom]
    T_link_shape = pose(model.geom_pos[geom], model.geom_quat[geom])
    if kind == _GEOM.mjGEOM_MESH:
        hull = _convex_hull(model, int(model.geom_dataid[geom]))
        return Primitive(link, "mesh", T_link_shape, np.zeros(3), *hull)
    analytic = {
        _GEOM.mjGEOM_CAPSULE: ("capsule", (a, b, 0.0)),
        _GEOM.mjGEOM_SPHERE: ("capsule", (a, 0.0, 0.0)),
        _GEOM.mjGEOM_CYLINDER: ("cylinder", (a, b, 0.0)),
        _GEOM.mjGEOM_BOX: ("box", (a, b, c)),
    }
    if kind not in analytic:
        raise InputError(_unknown_shape(model, geom, kind, source))
    shape, size = analytic[kind]
    return Primitive(link, shape, T_link_shape, np.array(size), NO_VERTICES, NO_FACES)


def _unknown_shape(model: mujoco.MjModel, geom: int, kind: mujoco.mjtGeom, source: str) -> str:
    name = model.geom(geom).name or f"number {geom}"
    body, shape = model.body(int(model.geom_bodyid[geom])).name, kind.name.removeprefix("mjGEOM_").lower()
    return (
        f"{source}: geom {name!r} of body {body!r} is of type {shape}; known are capsule, sphere, cylinder, "
        "box and mesh. Replace it, or set contype=0 and conaffinity=0 if it is only to be seen."
    )


def _convex_hull(model: mujoco.MjModel, mesh: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns vertices and outward faces of a mesh's convex hull."""
    first, count = model.mesh_vertadr[mesh], model.mesh_vertnum[mesh]
    hull = trimesh.convex.convex_hull(model.mesh_vert[first : first + count].astype(np.float64))
    return np.array(hull.vertices), np.array(hull.faces, np.int64)
