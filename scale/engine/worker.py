"""Runs a worker or validator process: does jobs on one device, seals their files, and says so over its pipe."""

from __future__ import annotations

import ctypes
import faulthandler
import os
import pickle
import resource
import signal
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple

from bimangrasp.builtin import user_cache
from bimangrasp.errors import InputError
from bimangrasp.files.header import Header
from bimangrasp.files.schema import GRASP_FIELDS
from bimangrasp.poses import trajectory_image
from scale.engine import scheduler
from scale.engine.interfaces import (
    Failed,
    Halved,
    Job,
    PiecesJob,
    PiecesMade,
    Ready,
    RoundJob,
    RoundResult,
    RoundRunner,
    RowsJudged,
    Sealed,
    Step,
    ValidationJob,
    ValidationTask,
    VerdictRunner,
)
from scale.settings.fingerprints import object_key
from scale.store import locks, shards, verdict_files
from scale.store.disk_space import FILE_BYTES
from scale.store.run_folder import VALIDATOR, WORKER, RunFolder

BEAT_S = 0.5  # a step is told to the parent at most this often
PIECES_BEAT_S = 10.0  # the same of who waits for a decomposition
SMALLEST_TILE = 1  # grasps at once; with less there is no round
PARENTS_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2, signal.SIGHUP)
_PR_SET_PDEATHSIG = 1  # <sys/prctl.h>


class WorkerSpec(NamedTuple):
    """What a worker is started with.

    Attributes:
        root: the run folder.
        worker, launch: slot and number of the start; they name its folder of shards.
        device: as torch calls it in the worker.
        threads: CPU threads.
        factory: the pickled factory, opened only when the worker is under its lock.
        header: what all shards say; object and platform are filled in.
        parent: pid of the parent.
        role: what it does with a job.
    """

    root: str
    worker: int
    launch: int
    device: str
    threads: int
    factory: bytes
    header: Header
    parent: int
    role: Role


class Role(NamedTuple):
    """What processes of one kind do.

    Attributes:
        name: WORKER or VALIDATOR, see `run_folder`.
        work: (folder, spec, runner, job, connection) -> the path of what it sealed for that job, or what to tell of it.
    """

    name: str
    work: Callable[[RunFolder, WorkerSpec, Any, Job, Connection], Path | RowsJudged | PiecesMade]


def main(connection: Connection, spec: WorkerSpec) -> None:
    """The body of the process: until the parent closes the pipe."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # an abort leaves a stack in the log, no core file
    folder = RunFolder(spec.root)
    locks.hold_as_worker(folder)
    become_child(spec.parent)
    faulthandler.enable()
    runner = pickle.loads(spec.factory).load(spec.device, spec.threads)
    connection.send(Ready(runner.platform))
    while (job := _receive(connection)) is not None:
        outcome = _do(folder, spec, runner, job, connection)
        connection.send(outcome)
        if isinstance(outcome, Failed) and outcome.ends:
            os._exit(scheduler.BROKEN_DEVICE)  # no destructor may touch the broken context either


def become_child(parent: int) -> None:
    """Ties this process to its parent: it ends with it, and leaves signals to it."""
    _end_with_parent(parent)
    _leave_signals_to_parent()


def _end_with_parent(parent: int) -> None:
    """Asks the kernel to kill this process when its parent dies, and ends it if that has happened already."""
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        sys.exit("the parent is gone")


def _leave_signals_to_parent() -> None:
    """Ctrl-C and preemption reach the whole process group; the parent decides what they mean."""
    for number in PARENTS_SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, PARENTS_SIGNALS)


def _receive(connection: Connection) -> Job | None:
    """Returns the next job, None when the parent has closed the pipe."""
    try:
        return connection.recv()
    except (EOFError, ConnectionResetError):
        return None


class _Beat:
    """Tells the parent about steps: the first one, then one now and then."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._last = 0.0

    def __call__(self, step: int) -> None:
        now = time.monotonic()
        if now - self._last >= BEAT_S:
            self._last = now
            self._connection.send(Step(step))


def _do(
    folder: RunFolder, spec: WorkerSpec, runner: Any, job: Job, connection: Connection
) -> Sealed | RowsJudged | PiecesMade | Failed:
    """Does one job and returns the message about it."""
    start = time.monotonic()
    try:
        done = spec.role.work(folder, spec, runner, job, connection)
    except BrokenPipeError:
        raise
    except Exception as error:  # whatever it is, the parent decides what becomes of the round
        text = traceback.format_exc()
        _log(text)
        number, ends = getattr(error, "errno", None), scheduler.is_broken_device(error)
        first = getattr(job, "first", 0)
        return Failed(code=job.code, round_id=job.round_id, traceback=text, errno=number, ends=ends, first=first)
    seconds = time.monotonic() - start
    if isinstance(done, RowsJudged | PiecesMade):
        return done._replace(seconds=seconds)
    return Sealed(code=job.code, round_id=job.round_id, path=folder.relative(done), seconds=seconds)


@contextmanager
def _not_of_the_run(folder: RunFolder) -> Iterator[None]:
    """Lets a full disk that is not the run's be a failure like any other: nobody would wait for the right one.

    Raises:
        RuntimeError: there was no room for something else, as for a compiled kernel.
    """
    try:
        yield
    except OSError as error:
        if not scheduler.is_disk_full(error) or not folder.has_room(FILE_BYTES):
            raise
        kernels = os.environ.get("WARP_CACHE_PATH") or user_cache() / "warp"
        raise RuntimeError(
            f"{error}: the disk of the run has room, so it is that of the compiled kernels, {kernels}, or of the "
            f"temporary folder, {tempfile.gettempdir()}; make room there, or let WARP_CACHE_PATH or TMPDIR name others"
        ) from error


def _log(text: str) -> None:
    """Writes to the worker's log, unless the disk is full: that must not cost the message to the parent."""
    try:
        sys.stderr.write(f"{text}\n")
        sys.stderr.flush()
    except OSError as error:
        if not scheduler.is_disk_full(error):
            raise


def _round(folder: RunFolder, spec: WorkerSpec, runner: RoundRunner, job: RoundJob, connection: Connection) -> Path:
    """Computes one round and returns the path of its sealed shard."""
    with _not_of_the_run(folder):
        result = compute_round(runner, job, connection)
    if result.trajectory is not None:
        folder.write(folder.frames(job.code), trajectory_image(result.trajectory))
    header = replace(
        spec.header,
        object_code=job.code,
        object_index=job.index,
        mesh_sha256=job.mesh_sha256,
        object_key=object_key(job.mesh_sha256),
        platforms=(runner.platform,),
    )
    columns = shards.round_columns(result.columns, job.seed, job.round_id, result.tile_used)
    return shards.seal(folder, folder.place(spec.worker, spec.launch), header, columns)


SYNTHESIS = Role(WORKER, _round)
"""Workers make rounds."""


def compute_round(runner: RoundRunner, job: RoundJob, connection: Connection) -> RoundResult:
    """Returns a round's grasps: where memory is short, half as many at once, from the same seed.

    Raises:
        MemoryError: one grasp at a time is too much as well; names the tiles that were tried.
    """
    on_step, tried, tile = _Beat(connection), [], job.tile
    while True:
        result, reason = _attempt(runner, job._replace(tile=tile), on_step)
        if result is not None:
            return result
        tried.append(tile)
        _log(f"{reason}\nout of memory with {tile} grasps at once")
        if tile <= SMALLEST_TILE:
            raise MemoryError(f"out of memory at every size tried ({', '.join(map(str, tried))} at once): {reason}")
        runner.free()
        tile = max(SMALLEST_TILE, tile // 2)
        connection.send(Halved(job.code, job.round_id, tile))


def _attempt(runner: RoundRunner, job: RoundJob, on_step: Callable[[int], None]) -> tuple[RoundResult | None, str]:
    """Returns a round's grasps, or how memory was short. The handler, which holds every tensor, is left before."""
    try:
        return runner.make(job, on_step), ""
    except Exception as error:
        if not scheduler.is_out_of_memory(error):
            raise
        return None, f"{type(error).__name__}: {error}"


def _validate(
    folder: RunFolder, spec: WorkerSpec, runner: VerdictRunner, job: ValidationJob | PiecesJob, connection: Connection
) -> Path | RowsJudged | PiecesMade:
    """Does what a validator is asked for."""
    if isinstance(job, PiecesJob):
        return _pieces(job, connection)
    return _verdict(folder, spec, runner, job, connection)


def _pieces(job: PiecesJob, connection: Connection) -> PiecesMade:
    """Finds the convex pieces of an object, from the user's cache where they were found before."""
    from bimangrasp.objects.pieces import pieces_image  # here, because it loads mesh libraries
    from scale.store.convex_pieces import pieces_of

    has_ended = threading.Event()
    beat = threading.Thread(target=_beat_until, args=(has_ended, connection), daemon=True)
    beat.start()
    try:
        image, refusal = pieces_image(pieces_of(Path(job.mesh), job.config)), ""
    except InputError as error:
        image, refusal = b"", str(error)
    finally:
        has_ended.set()
        beat.join()
    return PiecesMade(job.code, image, refusal, 0.0)


def _beat_until(has_ended: threading.Event, connection: Connection) -> None:
    """Gives a sign of life now and then, while a process of its own decomposes, which has a limit of its own."""
    while not has_ended.wait(PIECES_BEAT_S):
        connection.send(Step(0))


def _verdict(
    folder: RunFolder, spec: WorkerSpec, runner: VerdictRunner, job: ValidationJob, connection: Connection
) -> Path | RowsJudged:
    """Simulates the grasps of one round and returns the path of the sealed verdict; of some rows what is found."""
    shard = shards.verify(folder.root / job.shard)
    if job.rows is not None:
        return _judged_rows(folder, shard, runner, job, connection)
    task = ValidationTask(shard.columns, str(folder.root / job.pieces), job.deadly)
    with _not_of_the_run(folder):
        columns = runner.judge(task, partial(_tell, connection))
    _tell(connection, shard.rows)
    about = {
        "code": job.code,
        "round_id": job.round_id,
        "shard_sha256": shard.sha256,
        "acceptance_key": job.acceptance_key,
        "platform": runner.platform,
        "judging": runner.judging,
    }
    return verdict_files.seal(folder, folder.place(spec.worker, spec.launch, VALIDATOR), about, columns)


def _judged_rows(
    folder: RunFolder, shard: shards.Shard, runner: VerdictRunner, job: ValidationJob, connection: Connection
) -> RowsJudged:
    """Simulates some grasps of one round."""
    own = slice(job.first, job.first + job.rows)
    columns = {f.name: shard.columns[f.name][own] for f in GRASP_FIELDS}
    task = ValidationTask(columns, str(folder.root / job.pieces), tuple(row - job.first for row in job.deadly))
    with _not_of_the_run(folder):
        verdicts = runner.judge(task, lambda row: _tell(connection, job.first + row))
    _tell(connection, shard.rows)
    return RowsJudged(job.code, job.round_id, job.first, shard.sha256, verdicts, runner.platform, runner.judging, 0.0)


def _tell(connection: Connection, row: int) -> None:
    """Says which grasp is simulated now, or that all are: if it kills or hangs this process, the parent knows it."""
    connection.send(Step(row))


VALIDATION = Role(VALIDATOR, _validate)
"""Validators test rounds, and find the convex pieces that they test on."""
