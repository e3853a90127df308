"""How deep hands are in the object, in each other and in themselves."""

from __future__ import annotations

import mujoco
import numpy as np

from bimangrasp.grasp import LEFT, RIGHT
from bimangrasp.validation.scene import Scene, place
from bimangrasp.validation.sim_poses import HandPoses
from bimangrasp.validation.verdict import Penetration


def penetration(scene: Scene, pose: HandPoses) -> Penetration:
    """Returns the greatest depths of a pose, with the object where it starts.

    Of each pair of convex shapes the depth is the shortest way that parts them, exact but for MuJoCo's tolerance;
    it does not depend on contact margins, so it means the same in every protocol.
    """
    data = mujoco.MjData(scene.model)
    place(scene, data, pose)
    mujoco.mj_kinematics(scene.model, data)
    left, right = scene.hand_geoms
    pairs = {
        "hand_object": _pairs(np.concatenate((left, right)), scene.object_geoms),
        "hand_hand": _pairs(left, right),
        "self_hand": np.concatenate((scene.self_pairs[LEFT], scene.self_pairs[RIGHT])),
    }
    return Penetration(**{kind: _deepest(scene.model, data, of_kind) for kind, of_kind in pairs.items()})


def _pairs(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Returns all pairs, (P, 2)."""
    return np.stack(np.meshgrid(first, second), axis=-1).reshape(-1, 2)


def _deepest(model: mujoco.MjModel, data: mujoco.MjData, pairs: np.ndarray) -> float:
    """Returns the greatest depth over pairs of geoms, m; those whose bounding spheres are apart are not looked at."""
    first, second = pairs.T
    apart = np.linalg.norm(data.geom_xpos[first] - data.geom_xpos[second], axis=1)
    near = pairs[apart < model.geom_rbound[first] + model.geom_rbound[second]]
    return max((-mujoco.mj_geomDistance(model, data, a, b, 0.0, None) for a, b in near.tolist()), default=0.0)
