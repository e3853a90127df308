"""Measures how deep hands penetrate the object, each other and themselves."""

from __future__ import annotations

import mujoco
import numpy as np

from bimangrasp.grasp import LEFT, RIGHT
from bimangrasp.validation.scene import Scene, set_pose
from bimangrasp.validation.sim_poses import HandPoses
from bimangrasp.validation.verdict import Penetration


def penetration(scene: Scene, pose: HandPoses) -> Penetration:
    """Returns the greatest depths of a pose, with the object where it starts.

    The depth of a pair of convex shapes is the shortest translation that separates them, exact up to MuJoCo's
    tolerance; it does not depend on contact margins, so it means the same in every protocol.
    """
    data = mujoco.MjData(scene.model)
    set_pose(scene, data, pose)
    mujoco.mj_kinematics(scene.model, data)
    left, right = scene.hand_geoms
    pairs = {
        "hand_object": _pairs(np.concatenate((left, right)), scene.object_geoms),
        "hand_hand": _pairs(left, right),
        "self_hand": np.concatenate((scene.self_pairs[LEFT], scene.self_pairs[RIGHT])),
    }
    return Penetration(**{name: _deepest(scene.model, data, geoms) for name, geoms in pairs.items()})


def _pairs(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Returns all pairs, (P, 2)."""
    return np.stack(np.meshgrid(first, second), axis=-1).reshape(-1, 2)


def _deepest(model: mujoco.MjModel, data: mujoco.MjData, pairs: np.ndarray) -> float:
    """Returns the greatest depth over pairs of geoms, m; pairs with disjoint bounding spheres are skipped."""
    first, second = pairs.T
    center_distance = np.linalg.norm(data.geom_xpos[first] - data.geom_xpos[second], axis=1)
    near = pairs[center_distance < model.geom_rbound[first] + model.geom_rbound[second]]
    return max((-mujoco.mj_geomDistance(model, data, a, b, 0.0, None) for a, b in near.tolist()), default=0.0)
