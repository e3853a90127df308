"""A slow reference for link frames in NumPy, and toy hands, for the tests of hands."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from scipy.spatial.transform import Rotation

from bimangrasp.hand_files.config import CandidateRule, HandConfig
from bimangrasp.hands.description import HandDescription

TOY = """
<mujoco>
  <compiler angle="radian" autolimits="true"/>
  <asset>
    <mesh name="wedge" vertex="0 0 0  0.004 0.004 0.004  0.03 0 0  0 0.02 0  0.01 0.02 0.04"/>
  </asset>
  <worldbody>
    <geom name="floor" type="plane" size="1 1 1"/>
    <body name="root" pos="0.1 0.2 0.3" quat="0.5 0.5 -0.5 0.5">
      <geom name="palm" type="box" size="0.03 0.01 0.04" pos="0.01 0 0.02" quat="0.9 0.1 0.2 0.1"/>
      <geom name="looks" type="ellipsoid" size="0.03 0.01 0.04" contype="0" conaffinity="0"/>
      <body name="wrist" pos="0.01 -0.02 0.05" quat="0.8 0.2 0.4 0.1">
        <joint name="wrist_a" axis="0 0 2" pos="0.01 0.02 0" range="-1 0.5"/>
        <joint name="wrist_b" axis="0 1 1" pos="0 0.01 0.03" range="-0.5 1"/>
        <geom name="ball" type="sphere" size="0.012" pos="0.003 0.002 0.001"/>
        <body name="finger" pos="0 0.01 0.03">
          <joint name="bend" axis="1 0 0" ref="0.3" range="0 1.5"/>
          <geom name="bone" type="cylinder" size="0.008 0.02" pos="0 0 0.02" quat="0.99 0.1 0 0"/>
          <body name="bare" pos="0 0 0.04">
            <inertial pos="0 0 0" mass="0.01" diaginertia="1e-5 1e-5 1e-5"/>
            <body name="tip" pos="0.001 0 0.002" quat="0.7 0.1 0.1 0.7">
              <joint name="twist" axis="0.2 0.1 1" pos="0 0.004 0" range="-1 1"/>
              <geom name="nail" type="mesh" mesh="wedge" pos="0 0.001 0.01" quat="0.6 0.3 0.2 0.7"/>
              <geom name="pad" type="capsule" size="0.005 0.01"/>
            </body>
          </body>
        </body>
      </body>
    </body>
  </worldbody>
</mujoco>
"""


def toy_config(folder: Path, xml: str = TOY, **changes: object) -> HandConfig:
    """Writes the toy's MJCF and returns its config."""
    (folder / "toy.xml").write_text(xml)
    values = {
        "name": "toy",
        "format": "mjcf",
        "mjcf": str(folder / "toy.xml"),
        "root": "",
        "palm_normal": [0.0, -1.0, 0.0],
        "finger_direction": [0.0, 0.0, 1.0],
        "joint_mean": {"wrist_a": 0.1, "wrist_b": 0.2, "bend": 0.3, "twist": 0.4},
        "candidates": CandidateRule(per_link=4, spread_rad=0.5, palmar={"tip": [0.0, -1.0, 0.0]}),
        "keypoints": {"tip": [[0.0, 0.0, 0.01]], "wrist": [[0.0, 0.0, 0.0], [0.0, 0.01, 0.0]]},
        "surface_points": 10,
    }
    return HandConfig(**{**values, **changes})


def link_frames(hand: HandDescription, joints: np.ndarray) -> np.ndarray:
    """Returns the (L, 4, 4) link frames in the hand's frame: the product along the tree."""
    frames = []
    for link, parent in enumerate(hand.parent):
        frame = (np.eye(4) if parent < 0 else frames[parent]) @ hand.T_parent_link[link]
        for joint in np.flatnonzero(hand.joint_link == link):
            turn = np.eye(4)
            turn[:3, :3] = Rotation.from_rotvec(hand.joint_axis[joint] * joints[joint]).as_matrix()
            frame = frame @ turn
        frames.append(frame)
    return np.stack(frames)


def random_joints(hand: HandDescription, seed: int) -> np.ndarray:
    """Returns joint values drawn from the limits."""
    return np.random.default_rng(seed).uniform(hand.joint_lower, hand.joint_upper)


def points_in_hand(frames: np.ndarray, link: np.ndarray, position: np.ndarray) -> np.ndarray:
    """Returns points of links in the hand's frame."""
    return np.einsum("nij,nj->ni", frames[link][:, :3, :3], position) + frames[link][:, :3, 3]
