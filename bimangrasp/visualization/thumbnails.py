"""Draws thumbnails of grasps by MuJoCo: a job for each object and size, for a process of its own each."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator
from typing import NamedTuple

from bimangrasp.visualization.gallery import Gallery, Thumbnail
from bimangrasp.visualization.renderer import QUICK_SEARCH, BestViewRenderer, LinkPoses, SceneBodies, encode

WIDTH, HEIGHT = 240, 180  # pixels
LONGEST_JOB = 16  # grasps; starting to draw an object takes as long as drawing one grasp of it
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
    bodies: SceneBodies
    grasps: list[LinkPoses]


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


def jobs_of(gallery: Gallery) -> Iterator[ThumbnailJob]:
    """Yields the jobs that draw all grasps that have a pose."""
    groups: dict[tuple[int, float], list[int]] = defaultdict(list)
    for number, grasp in enumerate(gallery.grasps):
        if grasp.has_pose:
            groups[grasp.shape, grasp.scale].append(number)
    for (shape, scale), numbers in groups.items():
        mesh = gallery.shapes[shape]
        bodies = SceneBodies(gallery.hands, mesh.vertices * scale, mesh.faces)
        for first in range(0, len(numbers), LONGEST_JOB):
            some = numbers[first : first + LONGEST_JOB]
            poses = gallery.link_poses([gallery.grasps[number] for number in some])
            yield ThumbnailJob(some, bodies, poses)


def draw(job: ThumbnailJob) -> list[Thumbnail]:
    """Returns the thumbnails of a job, in its order."""
    renderer = BestViewRenderer(job.bodies, WIDTH, HEIGHT, QUICK_SEARCH)
    try:
        pictures = [renderer.render(grasp) for grasp in job.grasps]
    finally:
        renderer.close()
    return [Thumbnail(encode(pixels, "WEBP"), view.azimuth, view.elevation) for pixels, view in pictures]
