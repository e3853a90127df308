"""Draws docs/frames.png: the built-in hands around an object, with the axes of each frame.

Run it as `python docs/draw_frames.py`.
"""

from __future__ import annotations

import os
from pathlib import Path

os.environ.setdefault("MUJOCO_GL", "egl")  # read when mujoco is first imported

import mujoco
import numpy as np
from PIL import Image, ImageDraw, ImageFont

import conf
from bimangrasp.builtin import OBJECT_ROOT
from bimangrasp.files.scene_export import Placed, grasp_scene
from bimangrasp.hand_files.loading import load_hands
from bimangrasp.objects.model import read_mesh

AXES = (("x", (0.85, 0.15, 0.15)), ("y", (0.15, 0.6, 0.2)), ("z", (0.15, 0.3, 0.85)))
REACH = {"left/palm": (0.1, 0.12, 0.25), "right/palm": (0.1, 0.12, 0.25), "object": (0.21, 0.2, 0.2)}
"""How long the arrows of each frame are, m: they stand out of the bodies."""
NAMES = {"left/palm": "left hand", "right/palm": "right hand", "object": "object"}
WIDTH, HEIGHT, FIELD_OF_VIEW = 1200, 620, 26.0
OBJECT_SCALE = 0.15


def placed_hands() -> Placed:
    """Returns both hands at their mean joint values, palms towards a bowl from two sides."""
    hands = load_hands(conf.load([]).hand)
    mesh = read_mesh(str(OBJECT_ROOT / "bowl.obj"))
    rotation = np.stack((np.eye(3), np.eye(3)))  # the left palm looks along +y, the right one along -y
    translation = np.array([[0.0, -0.30, -0.08], [0.0, 0.30, -0.08]])
    joints = np.stack([hand.joint_mean for hand in hands])
    return Placed(hands, translation, rotation, joints, mesh.vertices * OBJECT_SCALE, mesh.faces)


def draw(grasp: Placed) -> Image.Image:
    """Returns the picture."""
    spec = grasp_scene(grasp)
    spec.visual.global_.offwidth, spec.visual.global_.offheight = WIDTH, HEIGHT
    spec.visual.global_.fovy = FIELD_OF_VIEW
    spec.visual.headlight.ambient, spec.visual.headlight.diffuse = [0.5] * 3, [0.3] * 3
    sky = spec.add_texture(name="sky", type=mujoco.mjtTexture.mjTEXTURE_SKYBOX, width=16, height=96)
    sky.builtin, sky.rgb1, sky.rgb2 = mujoco.mjtBuiltin.mjBUILTIN_FLAT, (0.955, 0.96, 0.97), (0.955, 0.96, 0.97)
    labels = []
    for name, reach in REACH.items():
        for axis, (letter, color) in enumerate(AXES):
            tip = reach[axis] * np.eye(3)[axis]
            kind, ends = mujoco.mjtGeom.mjGEOM_CAPSULE, np.concatenate((np.zeros(3), tip))
            spec.body(name).add_geom(type=kind, fromto=ends, size=[0.0035, 0, 0], rgba=(*color, 1))
            labels.append((name, letter, color, tip))
    model = spec.compile()
    data = mujoco.MjData(model)
    mujoco.mj_resetDataKeyframe(model, data, 0)
    mujoco.mj_forward(model, data)
    camera = mujoco.MjvCamera()
    camera.azimuth, camera.elevation, camera.distance = 190, -24, 1.35
    camera.lookat[:] = 0.0, 0.0, 0.03
    with mujoco.Renderer(model, HEIGHT, WIDTH) as renderer:
        renderer.update_scene(data, camera)
        picture = Image.fromarray(renderer.render())
    pen = ImageDraw.Draw(picture)
    for name, letter, color, tip in labels:
        body = data.body(name)
        position = _pixel(camera, body.xpos + body.xmat.reshape(3, 3) @ (tip + 0.02 * tip / np.linalg.norm(tip)))
        pen.text(position, letter, tuple(int(255 * c) for c in color), ImageFont.load_default(30), anchor="mm")
    for name, text in NAMES.items():
        position = _pixel(camera, [0.0, data.body(name).xpos[1], -0.19])
        pen.text(position, text, (60, 60, 60), ImageFont.load_default(28), anchor="mm")
    return picture


def _pixel(camera: mujoco.MjvCamera, point: np.ndarray) -> tuple[float, float]:
    """Returns where a point of the world is in the picture."""
    azimuth, elevation = np.radians([camera.azimuth, camera.elevation])
    forward = np.array([np.cos(elevation) * np.cos(azimuth), np.cos(elevation) * np.sin(azimuth), np.sin(elevation)])
    right = np.array([np.sin(azimuth), -np.cos(azimuth), 0.0])
    offset = point - (camera.lookat - camera.distance * forward)
    scale = HEIGHT / 2 / np.tan(np.radians(FIELD_OF_VIEW / 2)) / (offset @ forward)
    return WIDTH / 2 + scale * (offset @ right), HEIGHT / 2 - scale * (offset @ np.cross(right, forward))


if __name__ == "__main__":
    draw(placed_hands()).save(Path(__file__).with_name("frames.png"), optimize=True)
