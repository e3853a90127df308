"""The engine: starts workers, hands out rounds, notices death. Others than local processes fit behind it."""

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

from bimangrasp.files.final_format import Header
from scale.engine import worker
from scale.engine.devices import Device
from scale.engine.worker import SYNTHESIS, Message, Role, WorkerSpec
from scale.store.run_folder import RunFolder

TAIL_BYTES = 4000  # of a dead worker's log, for the message
ABORT_S = 2.0  # from SIGABRT to SIGKILL
HELD_S = 5.0  # a longer way from one look at the workers to the next is no time of theirs


@dataclass
class Worker:
    """A worker process as the parent sees it.

    Attributes:
        trade, slot, launch, device, process, connection: what it is.
        log_start: where its words begin in its slot's log.
        ready: whether it has loaded what it needs.
        job: the round that it has.
        step: the last one it told of.
        is_stepping: whether there was one since start or hand-out.
        heard: when it was last heard of, by the engine's clock.
        is_ending: whether it said that it ends by itself.
        verdict: why the parent ends it; empty as long as it does not.
        doomed: when the parent's second signal is due.
    """

    trade: str
    slot: int
    launch: int
    device: Device
    process: SpawnProcess
    connection: Connection
    log_start: int
    ready: bool = False
    job: Message | None = None
    step: int = 0
    is_stepping: bool = False
    heard: float = 0.0
    is_ending: bool = False
    verdict: str = ""
    doomed: float = 0.0


class Event(NamedTuple):
    """What a worker said, or that it died: kind ready, step, halved, sealed, failed, died."""

    worker: Worker
    message: Message


class WorkerPool:
    """The processes of one trade, one slot per device."""

    def __init__(
        self,
        folder: RunFolder,
        devices: Sequence[Device],
        threads: int,
        maker: bytes,
        header: Header,
        trade: Role = SYNTHESIS,
    ) -> None:
        self._folder, self._devices, self._threads = folder, devices, threads
        self._maker, self._header, self._trade = maker, header, trade
        self._next_launch = folder.next_launch(trade.name)
        self.workers: dict[int, Worker] = {}
        self._looked, self._held = time.monotonic(), 0.0

    @property
    def now(self) -> float:
        """Time as the parent lives it: while it was held itself it could hear nobody."""
        return time.monotonic() - self._held

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
            self._trade,
        )
        ours, theirs = multiprocessing.get_context("spawn").Pipe()
        process = multiprocessing.get_context("spawn").Process(
            target=worker.main, args=(theirs, spec), name=f"{self._trade.name}_{slot}_{launch}", daemon=True
        )
        log = self._folder.worker_log(slot, self._trade.name)
        log_start = log.stat().st_size if log.exists() else 0
        with _signals_blocked(), _environment(child_environment(device, self._threads)), _output_to(log):
            process.start()
        theirs.close()
        self.workers[slot] = Worker(self._trade.name, slot, launch, device, process, ours, log_start, heard=self.now)
        return self.workers[slot]

    def idle(self) -> list[Worker]:
        """Returns the workers that wait for a round, by slot."""
        found = [one for _, one in sorted(self.workers.items()) if one.ready and one.job is None]
        return [one for one in found if not one.is_ending]

    def busy(self) -> list[Worker]:
        """Returns the workers that have a round."""
        return [one for one in self.workers.values() if one.job is not None]

    def assign(self, one: Worker, job: Message) -> None:
        """Hands a round out. A worker that died meanwhile is told by `events`."""
        one.job, one.step, one.is_stepping, one.heard = job, 0, False, self.now
        try:
            one.connection.send(job)
        except OSError:  # its end of the pipe is gone: the death is the next event
            return

    @property
    def sources(self) -> dict[Any, Worker]:
        """What can be waited for -> the worker of which it tells."""
        found: dict[Any, Worker] = {}
        for one in self.workers.values():
            found |= {one.connection: one, one.process.sentinel: one}
        return found

    def heard(self, found: Collection[Any], timeout: float) -> Iterator[Event]:
        """Yields what the workers have to say after a wait of at most `timeout` seconds that found these sources."""
        looked, self._looked = self._looked, time.monotonic()
        if self._looked - looked > timeout + HELD_S:
            self._held += self._looked - looked
        for slot in sorted({one.slot for source, one in self.sources.items() if source in found}):
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
            one.step, one.is_stepping = message["step"], True
        if message["kind"] == "halved":
            one.step, one.is_stepping = 0, False
        if message["kind"] in ("sealed", "failed"):
            one.job, one.is_ending = None, message.get("ends", False)
        one.heard = self.now
        return message

    def end_silent(self, startup_s: float, heartbeat_s: float) -> list[Worker]:
        """Ends the workers without a sign of life and returns those that are new among them.

        SIGABRT lets faulthandler write the stack to the worker's log; SIGKILL follows. `events` tells of the death.
        """
        found = []
        for one in self.workers.values():
            if one.verdict and self.now >= one.doomed:
                one.process.kill()
            elif not one.verdict and (verdict := silence(one, self.now, startup_s, heartbeat_s)):
                one.verdict, one.doomed = verdict, self.now + ABORT_S
                found.append(one)
                if one.process.is_alive():
                    os.kill(one.process.pid, signal.SIGABRT)
        return found

    def retire(self, slot: int) -> None:
        """Ends the worker of a slot, if there is one."""
        one = self.workers.pop(slot, None)
        if one is not None:
            one.process.kill()
            one.process.join()
            one.connection.close()

    def _buried(self, one: Worker) -> Message:
        """Returns the message about a death; a process that closed its pipe and lives is killed."""
        one.process.join(1.0)
        if one.process.is_alive():
            one.verdict = one.verdict or "it closed its pipe and lived on"
            one.process.kill()
            one.process.join()
        one.connection.close()
        del self.workers[one.slot]
        return {"kind": "died", "exitcode": one.process.exitcode}

    def log_tail(self, one: Worker) -> str:
        """Returns the end of what a worker wrote since its start."""
        with self._folder.worker_log(one.slot, self._trade.name).open("rb") as file:
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


def events(engines: Sequence[WorkerPool], timeout: float, wake: Connection | None = None) -> Iterator[Event]:
    """Yields what happened to the workers, waiting at most `timeout` seconds, or until `wake` can be read."""
    sources = [source for engine in engines for source in engine.sources]
    found = wait([*sources, *([wake] if wake else [])], timeout)
    for engine in engines:
        yield from engine.heard(found, timeout)


def silence(one: Worker, now: float, startup_s: float, heartbeat_s: float) -> str:
    """Returns what a worker owes since too long; empty where it owes nothing."""
    if one.ready and one.job is None and not one.is_ending:
        return ""
    key, limit = ("heartbeat_timeout_s", heartbeat_s) if one.is_stepping else ("startup_timeout_s", startup_s)
    owed = f"step after step {one.step}" if one.is_stepping else "first step" if one.ready else "word that it is ready"
    return f"no {owed} within {limit:g} s ({key})" if now - one.heard >= limit else ""


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
