"""Puts hands and object where they belong in a simulation's state."""

from __future__ import annotations

import mujoco
import numpy as np
from scipy.spatial.transform import Rotation

from bimangrasp.validation.scene import Scene
from bimangrasp.validation.sim_poses import HandPoses


def place(scene: Scene, data: mujoco.MjData, pose: HandPoses) -> None:
    """Puts both hands into a pose, at rest and with the pose as their target; the object stays where it is."""
    aim(data, pose)
    data.qpos[scene.joint_qpos] = pose.joints
    for hand, first in enumerate(scene.root_qpos):
        data.qpos[first : first + 3] = data.mocap_pos[hand]
        data.qpos[first + 3 : first + 7] = data.mocap_quat[hand]


def aim(data: mujoco.MjData, target: HandPoses) -> None:
    """Sets the targets of both roots and of all joints."""
    data.mocap_pos[:] = target.translation
    data.mocap_quat[:] = Rotation.from_matrix(target.rotation).as_quat(scalar_first=True)
    data.ctrl[:] = target.joints.ravel()


def object_motion(scene: Scene, data: mujoco.MjData) -> tuple[float, float]:
    """Returns how far the object is from its start, m, and by how much it has turned, rad."""
    state = data.qpos[scene.object_qpos : scene.object_qpos + 7]
    return float(np.linalg.norm(state[:3])), float(2 * np.arctan2(np.linalg.norm(state[4:]), abs(state[3])))
