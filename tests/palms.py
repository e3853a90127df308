"""Two flat palms on hinges and a box between them: the smallest scene in which something is held."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import cache, partial
from pathlib import Path

import numpy as np
import trimesh
from omegaconf import OmegaConf

from bimangrasp.hand_files.config import CandidateRule, HandConfig
from bimangrasp.hand_files.read_hand import quiet_mujoco
from bimangrasp.hands.description import HandDescription, Primitive
from bimangrasp.validation.config import ProtocolConfig
from bimangrasp.validation.scene import GraspPoses, HandPoses, Scene, build_scene
from bimangrasp.validation.simulate import simulate_grasp
from bimangrasp.validation.verdict import Verdict
from conf import FOLDER

HALF = 0.03
"""Half the edge of the box, m."""

ARM = 0.1
"""From the hinge to the middle of the palm, m."""

CLOSED, OPEN = 0.1, -0.1
"""The bend that presses on the box, if it could be reached, and one that stands 1 cm off, rad."""


def protocol(name: str, **limits: object) -> ProtocolConfig:
    """The shipped protocol, with other limits."""
    shipped = OmegaConf.merge(
        OmegaConf.structured(ProtocolConfig),
        OmegaConf.load(FOLDER / "validation" / f"{name}.yaml"),
        {"limits": limits},
    )
    return OmegaConf.to_object(shipped)


def plate(link: int) -> Primitive:
    """A plate that stands along the link's z; its face is the plane x = 0."""
    middle = np.eye(4)
    middle[:3, 3] = (-0.005, 0.0, ARM)
    return Primitive(link, "box", middle, np.array([0.005, 0.04, 0.04]), np.zeros((0, 3)), np.zeros((0, 3), np.int64))


def palm(side: str) -> HandDescription:
    """A hand without shape at its root and with one plate, which presses along x when bent."""
    return HandDescription(
        side=side,
        link_names=("root", "palm"),
        parent=np.array([-1, 0]),
        T_parent_link=np.stack([np.eye(4)] * 2),
        joint_names=("bend",),
        joint_link=np.array([1]),
        joint_axis=np.array([[0.0, 1.0, 0.0]]),
        joint_lower=np.array([-0.5]),
        joint_upper=np.array([0.5]),
        joint_mean=np.array([0.0]),
        primitives=(plate(1),),
        candidate_link=np.array([1]),
        candidate_position=np.array([[0.0, 0.0, ARM]]),
        keypoint_link=np.array([1]),
        keypoint_position=np.zeros((1, 3)),
        palm_normal=np.array([1.0, 0.0, 0.0]),
        finger_direction=np.array([0.0, 0.0, 1.0]),
    )


def gripper(side: str) -> HandDescription:
    """A hand that holds the box alone: a plate at its root, and one on the box's other side that is bent towards it."""
    across = np.diag([-1.0, -1.0, 1.0, 1.0])
    across[0, 3] = 2 * HALF
    return replace(palm(side), T_parent_link=np.stack([np.eye(4), across]), primitives=(plate(0), plate(1)))


def palms_scene(protocol: ProtocolConfig) -> Scene:
    """The palms and the box."""
    return build_scene(palm("left"), palm("right"), [box()], protocol)


@cache
def shipped_scene(name: str) -> Scene:
    """The palms and the box under a shipped protocol."""
    return palms_scene(protocol(name))


def box() -> np.ndarray:
    """The vertices of the box."""
    return trimesh.creation.box((2 * HALF,) * 3).vertices


def palms(bend: float, turn: np.ndarray | None = None, gap: float = 0.0) -> HandPoses:
    """Both palms at the box with this bend, `gap` m away from it, all turned about the box's middle."""
    turn = np.eye(3) if turn is None else turn
    translation = np.array([[-HALF - gap, 0.0, -ARM], [HALF + gap, 0.0, -ARM]])
    rotation = np.stack([np.eye(3), np.diag([-1.0, -1.0, 1.0])])
    return HandPoses(translation @ turn.T, turn @ rotation, np.full((2, 1), bend))


def squeeze(bend: float = CLOSED, turn: np.ndarray | None = None) -> GraspPoses:
    """Open, on the box, and pressed together to `bend`."""
    return GraspPoses(palms(OPEN, turn), palms(0.0, turn), palms(bend, turn))


def verdict_on(scene: Scene, poses: GraspPoses) -> Verdict:
    """The verdict on a grasp, without MuJoCo's log file."""
    return verdicts_on(scene, [poses])[0]


def verdicts_on(scene: Scene, grasps: list[GraspPoses], threads: int = 1) -> list[Verdict]:
    """The verdicts on grasps, in their order."""
    with quiet_mujoco(), ThreadPoolExecutor(threads) as pool:
        return list(pool.map(partial(simulate_grasp, scene), grasps))


MJCF = f"""
<mujoco>
  <compiler angle="radian"/>
  <worldbody>
    <body name="root">
      <body name="palm">
        <joint name="bend" axis="0 1 0" range="-0.5 0.5"/>
        <geom type="box" size="0.005 0.04 0.04" pos="-0.005 0 {ARM}"/>
      </body>
    </body>
  </worldbody>
</mujoco>
"""


def palms_config(folder: Path, **changes: object) -> HandConfig:
    """The palms as a hand of one's own, its MJCF in this folder."""
    (folder / "palm.xml").write_text(MJCF)
    config = HandConfig(
        name="palms",
        format="mjcf",
        mjcf=str(folder / "palm.xml"),
        root="",
        palm_normal=[1.0, 0.0, 0.0],
        finger_direction=[0.0, 0.0, 1.0],
        joint_mean={"bend": 0.0},
        candidates=CandidateRule(per_link=4, spread_rad=0.5, palmar={"palm": [1.0, 0.0, 0.0]}),
        keypoints={"palm": [[0.0, 0.0, ARM]]},
        surface_points=8,
    )
    return replace(config, **changes)
