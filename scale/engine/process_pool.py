"""Starts worker processes, hands jobs to them, and notices what they say, that they are silent, and that they died."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from pathlib import Path
from typing import Any, NamedTuple

from bimangrasp.files.formats import Header
from scale.engine.devices import Device
from scale.engine.interfaces import Died, Failed, Halved, Job, Message, Ready, RowsJudged, Sealed, Step
from scale.engine.worker import PARENTS_SIGNALS, SYNTHESIS, Role, WorkerSpec
from scale.engine.worker import main as worker_main
from scale.store.run_folder import RunFolder

TAIL_BYTES = 4000  # of a dead worker's log, for the message
ABORT_S = 2.0  # from SIGABRT to SIGKILL
HELD_S = 5.0  # a longer way from one look at the workers to the next is no time of theirs


@dataclass
class WorkerProcess:
    """A worker or validator process as the parent sees it.

    Attributes:
        role: WORKER or VALIDATOR.
        slot: its place in the pool.
        launch: the number of its start.
        device: where it computes.
        process, connection: the process, and the parent's end of its pipe.
        log_start: where its words begin in its slot's log.
        is_ready: whether it has loaded what it needs.
        job: what it has to do.
        step: the last one it told of.
        is_stepping: whether there was one since start or hand-out.
        last_heard: when it was last heard of, by the pool's clock.
        is_ending: whether it said that it ends by itself.
        end_reason: why the parent ends it; empty as long as it does not.
        kill_at: when the parent's second signal is due.
    """

    role: str
    slot: int
    launch: int
    device: Device
    process: SpawnProcess
    connection: Connection
    log_start: int
    is_ready: bool = False
    job: Job | None = None
    step: int = 0
    is_stepping: bool = False
    last_heard: float = 0.0
    is_ending: bool = False
    end_reason: str = ""
    kill_at: float = 0.0

    @property
    def at(self) -> int | None:
        """The last step since start or hand-out; None before the first."""
        return self.step if self.is_stepping else None


class PoolEvent(NamedTuple):
    """What a process said, or that it died."""

    process: WorkerProcess
    message: Message


class WorkerPool:
    """The processes of one role, one slot per device."""

    def __init__(
        self,
        folder: RunFolder,
        devices: Sequence[Device],
        threads: int,
        factory: bytes,
        header: Header,
        role: Role = SYNTHESIS,
    ) -> None:
        self._folder, self.devices, self._role = folder, devices, role
        self._spec = WorkerSpec(str(folder.root.absolute()), 0, 0, "", threads, factory, header, os.getpid(), role)
        self._next_launch = folder.next_launch(role.name)
        self.workers: dict[int, WorkerProcess] = {}
        self._looked, self._held = time.monotonic(), 0.0

    @property
    def now(self) -> float:
        """Time as the parent lives it: while it was held itself it could hear nobody."""
        return time.monotonic() - self._held

    def start(self, slot: int) -> WorkerProcess:
        """Starts the process of a slot; it says when it is ready."""
        launch, device = self._next_launch, self.devices[slot]
        self._next_launch += 1
        spec = self._spec._replace(worker=slot, launch=launch, device=device.torch_name)
        ours, theirs = multiprocessing.get_context("spawn").Pipe()
        process = multiprocessing.get_context("spawn").Process(
            target=worker_main, args=(theirs, spec), name=f"{self._role.name}_{slot}_{launch}", daemon=True
        )
        log = self._folder.worker_log(slot, self._role.name)
        log_start = log.stat().st_size if log.exists() else 0
        with _signals_blocked(), environment(child_environment(device, spec.threads)), _output_to(log):
            process.start()
        theirs.close()
        self.workers[slot] = WorkerProcess(
            self._role.name, slot, launch, device, process, ours, log_start, last_heard=self.now
        )
        return self.workers[slot]

    def idle(self) -> list[WorkerProcess]:
        """Returns the workers that wait for a job, by slot."""
        workers = [worker for _, worker in sorted(self.workers.items())]
        return [worker for worker in workers if worker.is_ready and worker.job is None and not worker.is_ending]

    def busy(self) -> list[WorkerProcess]:
        """Returns the workers that have a job."""
        return [worker for worker in self.workers.values() if worker.job is not None]

    def assign(self, worker: WorkerProcess, job: Job) -> None:
        """Hands a job out. A worker that died meanwhile is told by `events`."""
        worker.job, worker.step, worker.is_stepping, worker.last_heard = job, 0, False, self.now
        try:
            worker.connection.send(job)
        except OSError:  # its end of the pipe is gone: the death is the next event
            return

    @property
    def sources(self) -> dict[Any, WorkerProcess]:
        """What can be waited for -> the worker of which it tells."""
        sources: dict[Any, WorkerProcess] = {}
        for worker in self.workers.values():
            sources |= {worker.connection: worker, worker.process.sentinel: worker}
        return sources

    def events_of(self, readable: Collection[Any], timeout: float) -> Iterator[PoolEvent]:
        """Yields what the workers have to say.

        Args:
            readable: the sources that a wait came back with.
            timeout: of that wait, s; a much longer way here is no time of the workers'.
        """
        looked, self._looked = self._looked, time.monotonic()
        if self._looked - looked > timeout + HELD_S:
            self._held += self._looked - looked
        for slot in sorted({worker.slot for source, worker in self.sources.items() if source in readable}):
            yield from self._events_of(self.workers[slot])

    def _events_of(self, worker: WorkerProcess) -> Iterator[PoolEvent]:
        """Yields a worker's messages, in order, and its death after the last of them."""
        is_closed = False
        try:
            while worker.connection.poll():
                yield PoolEvent(worker, self._take(worker, worker.connection.recv()))
        except (EOFError, OSError):
            is_closed = True
        if is_closed or not worker.process.is_alive():
            yield PoolEvent(worker, self._reap(worker))

    def _take(self, worker: WorkerProcess, message: Message) -> Message:
        """Returns a message, after the worker's state is what it says."""
        worker.last_heard = self.now
        if isinstance(message, Ready):
            worker.is_ready = True
        elif isinstance(message, Step):
            worker.step, worker.is_stepping = message.step, True
        elif isinstance(message, Halved):
            worker.step, worker.is_stepping = 0, False
        elif isinstance(message, Sealed | RowsJudged):
            worker.job = None
        elif isinstance(message, Failed):
            message = message._replace(step=worker.at)  # the worker may have its next job before this one is dealt with
            worker.job, worker.is_ending = None, message.ends
        return message

    def end_silent(self, startup_s: float, heartbeat_s: float) -> list[WorkerProcess]:
        """Ends the workers without a sign of life and returns those that are new among them.

        SIGABRT lets faulthandler write the stack to the worker's log; SIGKILL follows. `events` tells of the death.
        """
        silent = []
        for worker in self.workers.values():
            if worker.end_reason and self.now >= worker.kill_at:
                worker.process.kill()
            elif not worker.end_reason and (reason := silence(worker, self.now, startup_s, heartbeat_s)):
                worker.end_reason, worker.kill_at = reason, self.now + ABORT_S
                silent.append(worker)
                if worker.process.is_alive():
                    os.kill(worker.process.pid, signal.SIGABRT)
        return silent

    def retire(self, slot: int) -> None:
        """Ends the worker of a slot, if there is one."""
        worker = self.workers.pop(slot, None)
        if worker is not None:
            worker.process.kill()
            worker.process.join()
            worker.connection.close()

    def _reap(self, worker: WorkerProcess) -> Died:
        """Returns the message about a death; a process that closed its pipe and lives is killed."""
        worker.process.join(1.0)
        if worker.process.is_alive():
            worker.end_reason = worker.end_reason or "it closed its pipe and lived on"
            worker.process.kill()
            worker.process.join()
        worker.connection.close()
        del self.workers[worker.slot]
        return Died(exitcode=worker.process.exitcode)

    def log_of(self, slot: int) -> Path:
        """Returns the log of a slot's processes."""
        return self._folder.worker_log(slot, self._role.name)

    def log_tail(self, worker: WorkerProcess) -> str:
        """Returns the end of what a worker wrote since its start."""
        with self.log_of(worker.slot).open("rb") as file:
            file.seek(max(worker.log_start, file.seek(0, os.SEEK_END) - TAIL_BYTES))
            return file.read().decode(errors="replace").strip()

    def stop(self) -> None:
        """Ends every worker at once; what they had sealed stays."""
        for worker in self.workers.values():
            worker.process.kill()
        for slot in list(self.workers):
            self.retire(slot)


def events(pools: Sequence[WorkerPool], timeout: float, wake: Connection | None = None) -> Iterator[PoolEvent]:
    """Yields what happened to the workers, waiting at most `timeout` seconds, or until `wake` can be read."""
    sources = [source for pool in pools for source in pool.sources]
    readable = wait([*sources, *([wake] if wake else [])], timeout)
    for pool in pools:
        yield from pool.events_of(readable, timeout)


def silence(worker: WorkerProcess, now: float, startup_s: float, heartbeat_s: float) -> str:
    """Returns what a worker owes since too long; empty where it owes nothing."""
    if worker.is_ready and worker.job is None and not worker.is_ending:
        return ""
    key, limit = ("heartbeat_timeout_s", heartbeat_s) if worker.is_stepping else ("startup_timeout_s", startup_s)
    if worker.is_stepping:
        owed = f"step after step {worker.step}"
    else:
        owed = "first step" if worker.is_ready else "word that it is ready"
    return f"no {owed} within {limit:g} s ({key})" if now - worker.last_heard >= limit else ""


def child_environment(device: Device, threads: int) -> dict[str, str]:
    """Returns what a worker's environment must say before its first import."""
    count = str(threads)
    return {
        "CUDA_VISIBLE_DEVICES": device.visible,
        "CUBLAS_WORKSPACE_CONFIG": ":4096:8",  # what cuBLAS needs for equal bits
        "MKL_CBWR": "AUTO",  # MKL: equal bits whatever the alignment of the data
        "OMP_NUM_THREADS": count,
        "MKL_NUM_THREADS": count,
        "OPENBLAS_NUM_THREADS": count,
        "PYTHONFAULTHANDLER": "1",
    }


@contextmanager
def environment(values: dict[str, str]) -> Iterator[None]:
    """Sets variables for the children that are started meanwhile."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


@contextmanager
def _signals_blocked() -> Iterator[None]:
    """Keeps Ctrl-C from a child until it ignores it; the parent gets it a moment later."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, PARENTS_SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


_output_lock = threading.Lock()


@contextmanager
def _output_to(log: Path) -> Iterator[None]:
    """Lets children that are started meanwhile write to a log, from the interpreter's first word on."""
    with _output_lock, log.open("ab") as file:
        saved = [os.dup(1), os.dup(2)]
        try:
            os.dup2(file.fileno(), 1)
            os.dup2(file.fileno(), 2)
            yield
        finally:
            for number, copy in zip((1, 2), saved, strict=True):
                os.dup2(copy, number)
                os.close(copy)
