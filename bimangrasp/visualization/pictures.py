"""Draws thumbnails of grasps, a job for each object and size, and how a grasp came about as a GIF; by MuJoCo."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from bimangrasp.grasp import LEFT, RIGHT
from bimangrasp.hands.description import HandDescription
from bimangrasp.objects.model import Mesh
from bimangrasp.poses import Poses, Trajectory
from bimangrasp.visualization import renderer
from bimangrasp.visualization.page import Gallery, Thumbnail

SIZE = 480  # pixels, of width and height
FRAME_MS, LAST_MS = 120, 2500  # how long a frame is seen, and the last one
ELEVATION = -22.0  # degrees: the camera looks down a little
GLIDE = 0.88  # the camera comes nearer by no more than this a frame, when the hands do
INK = (40, 44, 52)
COLORS = 160  # of the palette, that of the last frame: an equal background costs nothing in the frames between
WIDTH, HEIGHT = 240, 180  # pixels
LONGEST_JOB = 16  # grasps; starting to draw an object takes as long as drawing one grasp of it
WEBP = {"quality": 82, "method": 6}
LIBRARY = "MUJOCO_GL"
"""The environment variable that says how MuJoCo draws; read when it is first imported."""

PROBE_TIMEOUT_S = 60  # a driver may hang
PROBE = "import mujoco; mujoco.Renderer(mujoco.MjModel.from_xml_string('<mujoco/>'), 8, 8).render()"


class ThumbnailJob(NamedTuple):
    """Grasps of one object at one size.

    Attributes:
        numbers: which of the gallery's grasps.
        bodies: hands and object.
        grasps: their poses.
    """

    numbers: list[int]
    bodies: renderer.SceneBodies
    grasps: list[renderer.LinkPoses]


def drawing_environment() -> dict[str, str]:
    """Returns the environment of a process that draws: by EGL, without a window, unless the user says otherwise."""
    return {LIBRARY: "egl", **os.environ}


def why_nothing_is_drawn() -> str:
    """Returns what keeps MuJoCo from drawing here, empty where it can: tried in a process of its own."""
    probe = [sys.executable, "-c", PROBE]
    try:
        done = subprocess.run(probe, env=drawing_environment(), capture_output=True, text=True, timeout=PROBE_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        return f"a first picture took more than {PROBE_TIMEOUT_S} s"
    if not done.returncode:
        return ""
    return (done.stderr.strip().splitlines() or [f"it ended with {done.returncode}"])[-1]


def jobs_of(gallery: Gallery, most: int) -> Iterator[ThumbnailJob]:
    """Yields the jobs that draw those of the first `most` grasps that have a pose."""
    groups: dict[tuple[int, float], list[int]] = defaultdict(list)
    for number, grasp in enumerate(gallery.grasps[:most]):
        if grasp.has_pose:
            groups[grasp.shape, grasp.scale].append(number)
    for (shape, scale), numbers in groups.items():
        mesh = gallery.shapes[shape]
        bodies = renderer.SceneBodies(gallery.hands, mesh.vertices * scale, mesh.faces)
        for first in range(0, len(numbers), LONGEST_JOB):
            some = numbers[first : first + LONGEST_JOB]
            poses = gallery.link_poses([gallery.grasps[number] for number in some])
            yield ThumbnailJob(some, bodies, poses)


def draw(job: ThumbnailJob) -> list[Thumbnail]:
    """Returns the thumbnails of a job, in its order."""
    scene = renderer.BestViewRenderer(job.bodies, WIDTH, HEIGHT, renderer.QUICK_SEARCH)
    try:
        pictures = [scene.render(grasp) for grasp in job.grasps]
    finally:
        scene.close()
    return [
        Thumbnail(renderer.encode(pixels, "WEBP", **WEBP), view.azimuth, view.elevation) for pixels, view in pictures
    ]


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
