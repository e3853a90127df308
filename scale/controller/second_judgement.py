"""Lets MuJoCo judge a sample of a run's grasps again that were accepted by simulations on a device.

Verdicts of a device are no record: they need not repeat. How often MuJoCo agrees stands in manifest and report, and a
run ends with 3 where that is too seldom. Nothing that was counted is counted otherwise for it.
"""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import pickle
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np

from bimangrasp.files.schema import GRASP_FIELDS
from bimangrasp.validation.verdict import Reason
from scale.controller.completion import OpenCall
from scale.controller.event_loop import Stop
from scale.controller.run_report import SecondJudgement
from scale.engine.interfaces import ValidationTask, VerdictRunner
from scale.engine.worker import become_child
from scale.errors import RunError
from scale.store.events import JudgedAgain
from scale.store.journal import events_of

SHARE, LEAST = 0.02, 200
"""Of the accepted grasps this share is judged again, at least so many, or all."""
CHUNK = 16
"""Grasps of one object that a process judges at a time."""
LOOK_S = 0.2


class Sample(NamedTuple):
    """Rows of final files, object code -> sorted rows, and the hash of which grasps these are."""

    rows: dict[str, np.ndarray]
    sha256: str

    @property
    def size(self) -> int:
        """How many there are."""
        return sum(map(len, self.rows.values()))


def judged_again(call: OpenCall, stop: Stop) -> SecondJudgement | None:
    """Returns what MuJoCo says of a sample of a run's accepted grasps; None for a run that it judged itself.

    The sample depends on which grasps there are and on nothing else; a call that finds it judged does not do it again.
    None as well where the call is stopped before the end.
    """
    request = call.request
    protocol = request.config.validation
    if request.second_factory is None or stop.exit_code:
        return None
    files = {entry.code: request.folder.final(entry.code) for entry in request.entries}
    files = {code: path for code, path in files.items() if path.exists()}
    accepted, sample = sample_of(files)
    before = events_of(request.folder, JudgedAgain)
    known = next((event for event in reversed(before) if event.sample_sha256 == sample.sha256), None)
    if known:
        return SecondJudgement(protocol.name, accepted, sample.size, known.agreeing)
    call.progress.say(f"MuJoCo judges {sample.size} of {accepted} accepted grasps again")
    agreeing = _agreeing(call, stop, files, sample)
    if agreeing is None:
        return None
    call.journal.append(JudgedAgain(sample=sample.size, sample_sha256=sample.sha256, agreeing=agreeing))
    return SecondJudgement(protocol.name, accepted, sample.size, agreeing)


def sample_of(files: dict[str, Path]) -> tuple[int, Sample]:
    """Returns how many grasps files have, and those of them that are judged again.

    Args:
        files: object code -> its final file.
    """
    keys = {}
    for code, path in files.items():
        with h5py.File(path) as file:
            keys[code] = _mixed(file["seed"][:], file["row"][:])
    accepted = sum(map(len, keys.values()))
    count = min(accepted, max(LEAST, int(np.ceil(SHARE * accepted))))
    joined = np.concatenate([np.empty(0, np.uint64), *keys.values()])
    limit = np.sort(joined)[count - 1] if count else np.uint64(0)
    rows = {code: np.flatnonzero(of_object <= limit) for code, of_object in keys.items()} if count else {}
    rows = {code: chosen for code, chosen in rows.items() if len(chosen)}
    made_of = hashlib.sha256()
    for code, chosen in sorted(rows.items()):
        made_of.update(f"{code}\n".encode() + keys[code][chosen].tobytes())
    return accepted, Sample(rows, made_of.hexdigest())


def _mixed(seed: np.ndarray, row: np.ndarray) -> np.ndarray:
    """Returns a number for each grasp that is as good as random: splitmix64 of its round's seed and its row."""
    value = (seed.astype(np.uint64) << np.uint64(32)) + row.astype(np.uint64) + np.uint64(0x9E3779B97F4A7C15)
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        value = (value ^ (value >> np.uint64(shift))) * np.uint64(factor)
    return value ^ (value >> np.uint64(31))


def _agreeing(call: OpenCall, stop: Stop, files: dict[str, Path], sample: Sample) -> int | None:
    """Returns how many grasps of a sample hold in MuJoCo, judged by a process for each core; None if stopped."""
    request, cores = call.request, len(os.sched_getaffinity(0))
    judge = pickle.dumps(request.second_factory)
    pool = ProcessPoolExecutor(
        min(cores, max(1, sample.size // CHUNK)),
        multiprocessing.get_context("spawn"),
        initializer=become_child,
        initargs=(os.getpid(),),
    )
    try:
        waiting: set[Future[int]] = {
            pool.submit(count_held, judge, str(files[code]), rows, str(request.pieces[code].path))
            for code, rows in _chunks(sample)
        }
        agreeing = 0
        while waiting:
            if stop.look():
                return None
            done, waiting = wait(waiting, LOOK_S, FIRST_COMPLETED)
            agreeing += sum(future.result() for future in done)
        return agreeing
    except BrokenProcessPool as error:
        raise RunError("a process that judged grasps again died; the same command does it anew") from error
    finally:
        pool.shutdown(cancel_futures=True)


def _chunks(sample: Sample) -> Iterator[tuple[str, np.ndarray]]:
    for code, rows in sample.rows.items():
        for first in range(0, len(rows), CHUNK):
            yield code, rows[first : first + CHUNK]


@lru_cache(1)
def _loaded(judge: bytes) -> VerdictRunner:
    """Returns what a process judges with, loaded once for all its grasps."""
    return pickle.loads(judge).load("cpu", 1)


def count_held(judge: bytes, path: str, rows: np.ndarray, pieces: str) -> int:
    """Returns how many grasps of a final file hold; the body of a process.

    Args:
        judge: a pickled `VerdictFactory`.
        path: the file.
        rows: of it.
        pieces: file of the object's convex pieces.
    """
    with h5py.File(path) as file:
        columns: dict[str, Any] = {field.name: file[field.name][rows] for field in GRASP_FIELDS}
    verdicts = _loaded(judge).judge(ValidationTask(columns, pieces, ()), lambda row: None)  # noqa: ARG005 - nobody waits for it
    return int((verdicts["verdict/reason"] == Reason.HELD).sum())
