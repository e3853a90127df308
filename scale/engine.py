"""The engine: starts workers, hands out rounds, notices death. Others than local processes fit behind it."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from pathlib import Path
from typing import Any, NamedTuple

from bimangrasp.grasp_file import Header
from scale import worker
from scale.platforms import Device
from scale.run_folder import RunFolder
from scale.worker import Message, WorkerSpec

TAIL_BYTES = 4000  # of a dead worker's log, for the message


@dataclass
class Worker:
    """A worker process as the parent sees it."""

    slot: int
    launch: int
    device: Device
    process: SpawnProcess
    connection: Connection
    log_start: int
    ready: bool = False
    job: Message | None = None
    step: int = 0
    since: float = field(default_factory=time.monotonic)


class Event(NamedTuple):
    """What a worker said, or that it died: kind ready, step, sealed, failed, died."""

    worker: Worker
    message: Message


class Engine:
    """The worker processes of a run, one slot per device."""

    def __init__(
        self, folder: RunFolder, devices: Sequence[Device], threads: int, maker: bytes, header: Header
    ) -> None:
        self._folder, self._devices, self._threads = folder, devices, threads
        self._maker, self._header = maker, header
        self._next_launch = folder.next_launch()
        self.workers: dict[int, Worker] = {}

    def start(self, slot: int) -> Worker:
        """Starts the process of a slot; it says when it is ready."""
        launch, device = self._next_launch, self._devices[slot]
        self._next_launch += 1
        spec = WorkerSpec(
            str(self._folder.root.absolute()),
            slot,
            launch,
            device.torch_name,
            self._threads,
            self._maker,
            self._header,
            os.getpid(),
        )
        ours, theirs = multiprocessing.get_context("spawn").Pipe()
        process = multiprocessing.get_context("spawn").Process(
            target=worker.main, args=(theirs, spec), name=f"worker_{slot}_{launch}", daemon=True
        )
        log = self._folder.worker_log(slot)
        log_start = log.stat().st_size if log.exists() else 0
        with _signals_blocked(), _environment(child_environment(device, self._threads)), _output_to(log):
            process.start()
        theirs.close()
        self.workers[slot] = Worker(slot, launch, device, process, ours, log_start)
        return self.workers[slot]

    def idle(self) -> list[Worker]:
        """Returns the workers that wait for a round, by slot."""
        return [one for _, one in sorted(self.workers.items()) if one.ready and one.job is None]

    def busy(self) -> list[Worker]:
        """Returns the workers that have a round."""
        return [one for one in self.workers.values() if one.job is not None]

    def assign(self, one: Worker, job: Message) -> None:
        """Hands a round out. A worker that died meanwhile is told by `events`."""
        one.job, one.step, one.since = job, 0, time.monotonic()
        try:
            one.connection.send(job)
        except OSError:  # its end of the pipe is gone: the death is the next event
            return

    def events(self, timeout: float, wake: Connection | None = None) -> Iterator[Event]:
        """Yields what happened, waiting at most `timeout` seconds, or until `wake` can be read."""
        sources: dict[Any, Worker] = {}
        for one in self.workers.values():
            sources |= {one.connection: one, one.process.sentinel: one}
        found = wait([*sources, *([wake] if wake else [])], timeout)
        for slot in sorted({sources[source].slot for source in found if source in sources}):
            yield from self._heard(self.workers[slot])

    def _heard(self, one: Worker) -> Iterator[Event]:
        """Yields a worker's messages, in order, and its death after the last of them."""
        died = False
        try:
            while one.connection.poll():
                yield Event(one, self._noted(one, one.connection.recv()))
        except (EOFError, OSError):
            died = True
        if died or not one.process.is_alive():
            yield Event(one, self._buried(one))

    def _noted(self, one: Worker, message: Message) -> Message:
        if message["kind"] == "ready":
            one.ready = True
        if message["kind"] == "step":
            one.step = message["step"]
        if message["kind"] in ("sealed", "failed"):
            one.job = None
        return message

    def _buried(self, one: Worker) -> Message:
        """Returns the message about a death; a process that closed its pipe and lives is killed."""
        one.process.join(1.0)
        if one.process.is_alive():
            one.process.kill()
            one.process.join()
        one.connection.close()
        del self.workers[one.slot]
        return {"kind": "died", "exitcode": one.process.exitcode}

    def log_tail(self, one: Worker) -> str:
        """Returns the end of what a worker wrote since its start."""
        with self._folder.worker_log(one.slot).open("rb") as file:
            file.seek(max(one.log_start, file.seek(0, os.SEEK_END) - TAIL_BYTES))
            return file.read().decode(errors="replace").strip()

    def stop(self) -> None:
        """Ends every worker at once; what they had sealed stays."""
        for one in self.workers.values():
            one.process.kill()
        for one in self.workers.values():
            one.process.join()
            one.connection.close()
        self.workers.clear()


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
def _environment(values: dict[str, str]) -> Iterator[None]:
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
    before = signal.pthread_sigmask(signal.SIG_BLOCK, worker.PARENTS_SIGNALS)
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
