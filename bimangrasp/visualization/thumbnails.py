"""Thumbnails of grasps, drawn by MuJoCo: a job for each object and size, for a process of its own each."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator
from typing import NamedTuple

from bimangrasp.visualization.best_view import BRIEF, Studio, encoded
from bimangrasp.visualization.gallery import Exhibit, Gallery, Thumbnail
from bimangrasp.visualization.renderer import Cast, Posed

WIDTH, HEIGHT = 240, 180  # pixels
LONGEST_JOB = 16  # grasps; starting to draw an object takes as long as drawing one grasp of it
LIBRARY = "MUJOCO_GL"
"""The environment variable that says how MuJoCo draws; read when it is first imported."""
PATIENCE_S = 60  # with a driver that hangs
PROBE = "import mujoco; mujoco.Renderer(mujoco.MjModel.from_xml_string('<mujoco/>'), 8, 8).render()"


class Job(NamedTuple):
    """Grasps of one object at one size.

    Attributes:
        numbers: which exhibits.
        cast: hands and object.
        grasps: their poses.
    """

    numbers: list[int]
    cast: Cast
    grasps: list[Posed]


def drawing_environment() -> dict[str, str]:
    """Returns the environment of a process that draws: by EGL, without a window, unless the user says otherwise."""
    return {LIBRARY: "egl", **os.environ}


def why_nothing_is_drawn() -> str:
    """Returns what keeps MuJoCo from drawing here, empty where it can: tried in a process of its own."""
    probe = [sys.executable, "-c", PROBE]
    try:
        done = subprocess.run(probe, env=drawing_environment(), capture_output=True, text=True, timeout=PATIENCE_S)
    except subprocess.TimeoutExpired:
        return f"a first picture took more than {PATIENCE_S} s"
    if not done.returncode:
        return ""
    return (done.stderr.strip().splitlines() or [f"it ended with {done.returncode}"])[-1]


def jobs_of(gallery: Gallery) -> Iterator[Job]:
    """Yields the jobs that draw all exhibits that have a pose."""
    groups: dict[tuple[int, float], list[int]] = defaultdict(list)
    for number, one in enumerate(gallery.exhibits):
        if one.has_pose:
            groups[one.shape, one.scale].append(number)
    for (shape, scale), numbers in groups.items():
        mesh = gallery.shapes[shape]
        cast = Cast(gallery.hands, mesh.vertices * scale, mesh.faces)
        for first in range(0, len(numbers), LONGEST_JOB):
            some = numbers[first : first + LONGEST_JOB]
            yield Job(some, cast, gallery.posed(_at(gallery, some)))


def _at(gallery: Gallery, numbers: list[int]) -> list[Exhibit]:
    return [gallery.exhibits[number] for number in numbers]


def draw(job: Job) -> list[Thumbnail]:
    """Returns the thumbnails of a job, in its order."""
    studio = Studio(job.cast, WIDTH, HEIGHT, BRIEF)
    try:
        portraits = [studio.take(grasp) for grasp in job.grasps]
    finally:
        studio.close()
    return [Thumbnail(encoded(one.picture, "WEBP"), one.view.azimuth, one.view.elevation) for one in portraits]
