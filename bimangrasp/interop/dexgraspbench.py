"""Writes grasps for DexGraspBench, which simulates one floating hand: a `.npy` file for each hand of each grasp.

Its documented fields: `obj_pose` (x, y, z, and the quaternion w, x, y, z), `obj_scale` and `obj_path` of the object;
`pregrasp_qpos`, `grasp_qpos` and `squeeze_qpos` of the hand, each its root's pose in the same form and then its joints.
The joints are those of the hand that made the grasps, in its own order and frame; `joint_names` beside them has their
names, and `couplings`, where there are any, which of them follow which.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float
from scipy.spatial.transform import Rotation

from bimangrasp.interop.restricted_pickle import object_image
from bimangrasp.poses import Poses

SIDES = ("left", "right")
STAGES = ("pregrasp_qpos", "grasp_qpos", "squeeze_qpos")
OBJECT_FOLDER = "assets/DGNObj"
"""Where the benchmark looks for the folders of processed objects, from its own."""


class BenchFile(NamedTuple):
    """One hand of the grasp of that number."""

    side: str
    number: int
    image: bytes


def bench_files(
    code: str,
    joint_names: tuple[str, ...],
    stages: tuple[Poses, ...],
    object_scale: Float[np.ndarray, " grasp"],
    couplings: Mapping[str, Any] = MappingProxyType({}),
) -> Iterator[BenchFile]:
    """Yields the files of the grasps of one object, which lies at the origin.

    Args:
        code: the object.
        joint_names: of the joint axis.
        stages: pre-grasp, grasp and squeeze.
        object_scale: factor on the object's mesh.
        couplings: of the joints, see `coupling_rules`.
    """
    qpos = [_qpos(poses) for poses in stages]
    for number in range(stages[0].count):
        for side, name in enumerate(SIDES):
            content = np.empty((), object)
            content[()] = {
                "obj_pose": np.array([0, 0, 0, 1, 0, 0, 0], np.float32),
                "obj_scale": float(object_scale[number]),
                "obj_path": f"{OBJECT_FOLDER}/{code}",
                **{stage: values[number, side].copy() for stage, values in zip(STAGES, qpos, strict=True)},
                "joint_names": list(joint_names),
                "hand_side": name,
            }
            if couplings:
                content[()]["couplings"] = dict(couplings)
            yield BenchFile(name, number, object_image(content))


def _qpos(poses: Poses) -> Float[np.ndarray, "grasp hand number"]:
    """Returns position, quaternion (w, x, y, z) and joints as one row a hand, float32."""
    turns = Rotation.from_matrix(poses.rotation.reshape(-1, 3, 3)).as_quat(scalar_first=True, canonical=True)
    parts = (poses.translation, turns.reshape(*poses.rotation.shape[:2], 4), poses.joints)
    return np.concatenate(parts, axis=2).astype(np.float32)
