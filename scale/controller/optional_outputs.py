"""Makes what goes beside the grasps where it is asked for: moving pictures, and energy curves for TensorBoard.

Pictures of how chosen grasps came about are drawn when all rounds are done (`mode=generate record=true`), in a process
of its own, so that OpenGL is set up before MuJoCo is imported and a driver that falls over takes no run with it.

The energy curve of each sealed round (`logger=tensorboard`) is written by the parent from what a shard holds, a whole
file at a time, so that a worker's steps cost nothing and a full disk leaves no half of a file. The files hold times;
nothing ever reads them back.
"""

from __future__ import annotations

import importlib.util
import io
import multiprocessing
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

import numpy as np

from bimangrasp.builtin import install_command
from bimangrasp.energy_terms import ENERGY_TERMS, TOTAL
from bimangrasp.errors import InputError
from bimangrasp.files.schema import Columns
from bimangrasp.hand_files.config import HandConfig
from scale.errors import RunError
from scale.settings.schema import TENSORBOARD, Config
from scale.state.records import RunRequest
from scale.store.run_folder import RunFolder

QUARTILES = ("Energy lower quartile", "Energy", "Energy upper quartile")
"""First part of the names of scalars, in the order of the curve's last axis; the median has the short one.

The second part is the term's tag. `Energy/energy`, `Energy/fc` and so on is what BimanGrasp calls its means.
"""
MOST_FRAMES = 1000  # of one picture: more is minutes of drawing and tens of megabytes
LIBRARIES = "wanted OpenGL without a display (Debian: apt install libegl1 libgl1-mesa-dri; MUJOCO_GL=egl or osmesa)"


def check(config: Config) -> None:
    """Refuses curves without TensorBoard, and a recording that the mode cannot make, or that this machine cannot draw.

    Raises:
        InputError: says what is wrong.
    """
    if config.logger == TENSORBOARD and importlib.util.find_spec("tensorboard") is None:
        raise InputError(
            "logger=tensorboard needs the package tensorboard, which is not installed: "
            f"{install_command('tensorboard')}"
        )
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


def _check_drawing() -> None:
    """Draws an empty picture; raises what keeps this machine from drawing."""
    import mujoco

    mujoco.Renderer(mujoco.MjModel.from_xml_string("<mujoco/>"), 16, 16).close()


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


def _draw(path: Path, hand: HandConfig, mesh: Path) -> dict[int, bytes]:
    """Returns row -> GIF for the frames of a file."""
    from bimangrasp.hand_files.loading import load_hands
    from bimangrasp.objects.model import read_mesh
    from bimangrasp.poses import read_trajectory
    from bimangrasp.visualization.pictures import animation

    trajectory, hands, shape = read_trajectory(path), load_hands(hand), read_mesh(str(mesh))
    return {int(row): animation(trajectory, grasp, hands, shape) for grasp, row in enumerate(trajectory.row)}


def _in_a_process_of_its_own(call: Callable[..., Any], *arguments: Any) -> Any:
    """Returns what a call gives in a fresh process."""
    from bimangrasp.visualization.pictures import drawing_environment
    from scale.engine.process_pool import environment

    with environment(drawing_environment()), ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(call, *arguments).result()


def write_curve(folder: RunFolder, code: str, round_id: int, columns: Columns) -> None:
    """Writes the curve of a round, in place of what an earlier attempt at it wrote; none where none was recorded.

    Args:
        folder: of the run.
        code: the object.
        round_id: the round.
        columns: of its shard.

    Raises:
        OSError: the disk is full.
    """
    step = columns["curve/step"][0]
    if len(step):
        folder.write(folder.event_file(code, round_id), _event_file(step, scalars(columns)))


def scalars(columns: Columns) -> dict[str, np.ndarray]:
    """Returns name -> values of a round at the points of its curve; what is not finite is left out in the file."""
    named = {"acceptance": columns["curve/acceptance"][0]}
    for term in (*ENERGY_TERMS, TOTAL):
        curve = columns[f"curve/{term.name}"][0]
        named |= {f"{group}/{term.tag}": curve[:, i] for i, group in enumerate(QUARTILES)}
    return named


def _event_file(step: np.ndarray, named: dict[str, np.ndarray]) -> bytes:
    """Returns the bytes of an event file with these scalars."""
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.compat.proto.summary_pb2 import Summary
    from tensorboard.summary.writer.record_writer import RecordWriter

    file, now = io.BytesIO(), time.time()
    records = RecordWriter(file)
    records.write(Event(wall_time=now, file_version="brain.Event:2").SerializeToString())
    for point, steps in enumerate(step.tolist()):
        values = [
            Summary.Value(tag=name, simple_value=float(column[point]))
            for name, column in named.items()
            if np.isfinite(column[point])
        ]
        records.write(Event(wall_time=now, step=steps, summary=Summary(value=values)).SerializeToString())
    return file.getvalue()
