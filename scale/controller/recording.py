"""Draws moving pictures of how chosen grasps came about, when all rounds are done (`mode=generate record=true`).

A process of its own draws them, so that OpenGL is set up before MuJoCo is imported and a driver that falls over takes
no run with it.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

from bimangrasp.errors import InputError
from bimangrasp.hand_files.config import HandConfig
from scale.errors import RunError
from scale.settings.schema import Config
from scale.state.request import RunRequest

MOST_FRAMES = 1000  # of one picture: more is minutes of drawing and tens of megabytes
LIBRARIES = "wanted OpenGL without a display (Debian: apt install libegl1 libgl1-mesa-dri; MUJOCO_GL=egl or osmesa)"


def check(config: Config) -> None:
    """Refuses a recording that the mode cannot make, or that this machine cannot draw.

    Raises:
        InputError: says what is wrong.
    """
    if not config.record:
        return
    if config.mode != "generate":
        raise InputError(
            f"record=true needs mode=generate, not mode={config.mode}: a run for quotas makes thousands of rounds, "
            "and nobody looks at their pictures; mode=generate record=true makes one round of each object"
        )
    if max(config.record_rows) >= config.round_batch_size:
        raise InputError(
            f"record_rows={list(config.record_rows)} names row {max(config.record_rows)}, and a round has "
            f"round_batch_size={config.round_batch_size} rows, counted from 0"
        )
    frames = config.num_iterations // config.frame_stride
    if frames > MOST_FRAMES:
        least = -(-config.num_iterations // MOST_FRAMES)
        raise InputError(
            f"frame_stride={config.frame_stride} makes {frames} frames of num_iterations={config.num_iterations}; "
            f"wanted at most {MOST_FRAMES}: frame_stride={least} or more"
        )
    try:
        _in_a_process_of_its_own(_check_drawing)
    except Exception as error:  # OpenGL fails in many ways
        raise InputError(f"record=true cannot draw here ({type(error).__name__}: {error}): {LIBRARIES}") from error


def animate(request: RunRequest, say: Callable[[str], None]) -> None:
    """Makes moving pictures of all frames that are there, and tells of each.

    Raises:
        RunError: one could not be drawn; grasps and frames are there.
    """
    folder = request.folder
    for entry in request.entries:
        frames = folder.frames(entry.code)
        if not frames.exists():  # the round was given up
            continue
        try:
            pictures = _in_a_process_of_its_own(_draw, frames, request.config.hand, entry.path)
        except (Exception, BrokenProcessPool) as error:
            raise RunError(
                f"the animation of {entry.code} cannot be drawn ({type(error).__name__}: {error}); its grasps are in "
                f"{folder.final(entry.code)}, its frames in {frames}"
            ) from error
        for row, image in pictures.items():
            picture = folder.animation(entry.code, row)
            folder.write(picture, image)
            say(f"{entry.code}: {picture}")


def _in_a_process_of_its_own(call: Callable[..., Any], *arguments: Any) -> Any:
    """Returns what a call gives in a fresh process."""
    from bimangrasp.visualization.pictures import drawing_environment
    from scale.engine.process_pool import environment

    with environment(drawing_environment()), ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(call, *arguments).result()


def _check_drawing() -> None:
    """Draws an empty picture; raises what keeps this machine from drawing."""
    import mujoco

    mujoco.Renderer(mujoco.MjModel.from_xml_string("<mujoco/>"), 16, 16).close()


def _draw(path: Path, hand: HandConfig, mesh: Path) -> dict[int, bytes]:
    """Returns row -> GIF for the frames of a file."""
    from bimangrasp.hand_files.loading import load_hands
    from bimangrasp.objects.model import read_mesh
    from bimangrasp.poses import read_trajectory
    from bimangrasp.visualization.pictures import animation

    trajectory, hands, shape = read_trajectory(path), load_hands(hand), read_mesh(str(mesh))
    return {int(row): animation(trajectory, grasp, hands, shape) for grasp, row in enumerate(trajectory.row)}
