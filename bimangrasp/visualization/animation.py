"""Draws how a grasp came about as a GIF: kept steps of a round, rendered by MuJoCo without a window."""

from __future__ import annotations

import io
import os

os.environ.setdefault("MUJOCO_GL", "egl")  # read when mujoco is first imported: draws without a display

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from bimangrasp.grasp import LEFT, RIGHT
from bimangrasp.hands.description import HandDescription
from bimangrasp.objects.model import Mesh
from bimangrasp.poses import Poses, Trajectory
from bimangrasp.visualization import renderer

SIZE = 480  # pixels, of width and height
FRAME_MS, LAST_MS = 120, 2500  # how long a frame is seen, and the last one
ELEVATION = -22.0  # degrees: the camera looks down a little
GLIDE = 0.88  # the camera comes nearer by no more than this a frame, when the hands do
INK = (40, 44, 52)
COLORS = 160  # of the palette, that of the last frame: an equal background costs nothing in the frames between


def animation(trajectory: Trajectory, grasp: int, hands: tuple[HandDescription, HandDescription], mesh: Mesh) -> bytes:
    """Returns the GIF of one grasp of a trajectory. The camera looks across both hands and comes nearer as they do.

    Args:
        trajectory: of a round.
        grasp: which of the trajectory's grasps.
        hands: the left and the right one.
        mesh: of the object, in its own unit.
    """
    bodies = renderer.SceneBodies(hands, mesh.vertices * float(trajectory.object_scale[grasp]), mesh.faces)
    parts = (trajectory.translation, trajectory.rotation, trajectory.joints)
    poses = Poses(*(part[:, grasp] for part in parts))
    frames = renderer.link_poses(hands, poses, np.zeros((poses.count, 0, 3)))
    texts = [
        f"step {step}   energy {energy:.4g}"
        for step, energy in zip(trajectory.step, trajectory.energy[:, grasp], strict=True)
    ]
    scene = renderer.SceneRenderer(bodies, SIZE, SIZE, renderer.QUICK)
    try:
        views = _views(renderer.Outline(bodies), frames)
        pictures = [_picture(scene, *shown) for shown in zip(frames, views, texts, strict=True)]
    finally:
        scene.close()
    palette = pictures[-1].quantize(COLORS)
    drawn = [picture.quantize(palette=palette, dither=Image.Dither.NONE) for picture in pictures]
    file, times = io.BytesIO(), [FRAME_MS] * (len(drawn) - 1) + [LAST_MS]
    drawn[0].save(file, "GIF", save_all=True, append_images=drawn[1:], duration=times, loop=0)
    return file.getvalue()


def _picture(scene: renderer.SceneRenderer, frame: renderer.LinkPoses, view: renderer.View, text: str) -> Image.Image:
    """Returns a frame as a picture with a text in its corner."""
    scene.pose(frame)
    picture = Image.fromarray(scene.colors(view))
    ImageDraw.Draw(picture).text((12, 10), text, INK, ImageFont.load_default(18))
    return picture


def _views(outline: renderer.Outline, frames: list[renderer.LinkPoses]) -> list[renderer.View]:
    """Returns the views of all frames: from the side on which the hands lie beside each other at the end."""
    across = np.subtract(*(frames[-1].translation[side].mean(axis=0) for side in (RIGHT, LEFT)))
    azimuth = float(np.degrees(np.arctan2(across[1], across[0]))) + 90
    end = renderer.frame_tightly(outline.at(frames[-1]), azimuth, ELEVATION, aspect=1.0)
    views: list[renderer.View] = []
    for frame in frames:
        seen = (outline.at(frame) - end.lookat) @ end.axes.T
        aside = np.abs(seen[:, :2]).max(axis=1) / (renderer.FILL * np.tan(np.radians(renderer.FIELD_OF_VIEW / 2)))
        distance = float((aside - seen[:, 2]).max())
        nearest = GLIDE * views[-1].distance if views else 0.0
        views.append(end._replace(distance=max(distance, nearest)))
    return views
