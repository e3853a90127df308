"""Writes the energy curve of each sealed round as scalars that TensorBoard shows (`logger=tensorboard`).

Written by the parent from what a shard holds, a whole file at a time, so that a worker's steps cost nothing and a full
disk leaves no half of a file. The files hold times; nothing ever reads them back.
"""

from __future__ import annotations

import importlib.util
import io
import time

import numpy as np

from bimangrasp.builtin import install_command
from bimangrasp.energy_terms import ENERGY_TERMS, TOTAL
from bimangrasp.errors import InputError
from bimangrasp.files.schema import Columns
from scale.store.run_folder import RunFolder

QUARTILES = ("Energy lower quartile", "Energy", "Energy upper quartile")
"""First part of the names of scalars, in the order of the curve's last axis; the median has the short one.

The second part is the term's tag. `Energy/energy`, `Energy/fc` and so on is what BimanGrasp calls its means.
"""


def check_installed() -> None:
    """Raises InputError where the package is missing that knows TensorBoard's files."""
    if importlib.util.find_spec("tensorboard") is None:
        raise InputError(
            "logger=tensorboard needs the package tensorboard, which is not installed: "
            f"{install_command('tensorboard')}"
        )


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
