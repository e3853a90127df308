"""Runs a pool as processes of this machine: starts them, and notices that they are silent, and that they died."""

from __future__ import annotations

import multiprocessing
import os
import signal
import tempfile
import threading
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from pathlib import Path
from typing import Any

from bimangrasp.builtin import temporary_prefix
from scale.engine.devices import Device
from scale.engine.interfaces import Died, Job, Message, Sealed, Silent
from scale.engine.pool import Crew, PoolEvent, WorkerPool, WorkerProcess
from scale.engine.worker import PARENTS_SIGNALS, WorkerSpec
from scale.engine.worker import main as worker_main
from scale.store import shards
from scale.store.run_folder import WORKER, RunFolder, file_name, parse_shard_name

TAIL_BYTES = 4000  # of a dead worker's log, for the message
ABORT_S = 2.0  # from SIGABRT to SIGKILL
HELD_S = 5.0  # a longer way from one look at the workers to the next is no time of theirs


@dataclass
class _Handle:
    """A process as this machine has it.

    Attributes:
        process, connection: the process, and the parent's end of its pipe.
        log_start: where its words begin in its slot's log.
        last_heard: when it was last heard of, by the pool's clock.
        end_reason: why the parent ends it; empty as long as it does not.
        kill_at: when the parent's second signal is due.
    """

    process: SpawnProcess
    connection: Connection
    log_start: int
    last_heard: float
    end_reason: str = ""
    kill_at: float = 0.0


class ProcessPool(WorkerPool):
    """The processes of one role on this machine, one for each device."""

    def __init__(self, folder: RunFolder, crew: Crew, devices: Mapping[int, Device]) -> None:
        super().__init__(folder, crew)
        self.devices = dict(devices)
        root, parent = str(folder.root.absolute()), os.getpid()
        self._spec = WorkerSpec(root, 0, 0, "", crew.threads, crew.factory, crew.header, parent, crew.role)
        self._next_launch = folder.next_launch(self.role)
        self._temporary = tempfile.TemporaryDirectory(prefix=temporary_prefix(), ignore_cleanup_errors=True)
        self._handles: dict[int, _Handle] = {}
        self._looked, self._held = time.monotonic(), 0.0

    @property
    def _now(self) -> float:
        """Time as the parent lives it: while it was held itself it could hear nobody."""
        return time.monotonic() - self._held

    def start(self, slot: int, launch: int | None = None) -> WorkerProcess:
        """Starts the process of a slot; it says when it is ready. `launch` is its number where somebody else counts."""
        launch = self._next_launch if launch is None else launch
        self._next_launch = launch + 1
        device = self.devices[slot]
        spec = self._spec._replace(worker=slot, launch=launch, device=device.torch_name)
        ours, theirs = multiprocessing.get_context("spawn").Pipe()
        process = multiprocessing.get_context("spawn").Process(
            target=worker_main, args=(theirs, spec), name=f"{self.role}_{slot}_{launch}", daemon=True
        )
        log = self.log_of(slot)
        log_start = log.stat().st_size if log.exists() else 0
        with _signals_blocked(), environment(self._environment(device)), _output_to(log):
            process.start()
        theirs.close()
        self._handles[slot] = _Handle(process, ours, log_start, self._now)
        self.workers[slot] = WorkerProcess(self.role, slot, launch, device, process.pid)
        return self.workers[slot]

    def assign(self, worker: WorkerProcess, job: Job) -> None:
        """Hands a job out. Of a process that died meanwhile, `events` tells."""
        handle = self._handles[worker.slot]
        worker.has_job(job)
        handle.last_heard = self._now
        try:
            handle.connection.send(job)
        except OSError:  # its end of the pipe is gone: the death is the next event
            return

    @property
    def sources(self) -> Collection[Any]:
        """What can be waited for: pipes, and the ends of processes."""
        return self._slot_of

    @property
    def _slot_of(self) -> dict[Any, int]:
        """What can be waited for -> the slot of which it tells."""
        slots: dict[Any, int] = {}
        for slot, handle in self._handles.items():
            slots |= {handle.connection: slot, handle.process.sentinel: slot}
        return slots

    def events_of(self, readable: Collection[Any], timeout: float) -> Iterator[PoolEvent]:
        """Yields what the processes have to say, their deaths, and their silence.

        Args:
            readable: the sources that a wait came back with.
            timeout: of that wait, s; a much longer way here is no time of the workers'.
        """
        looked, self._looked = self._looked, time.monotonic()
        if self._looked - looked > timeout + HELD_S:
            self._held += self._looked - looked
        for slot in sorted({slot for source, slot in self._slot_of.items() if source in readable}):
            yield from self._events_at(slot)
        yield from self._end_silent()

    def _events_at(self, slot: int) -> Iterator[PoolEvent]:
        """Yields a process's messages, in order, and its death after the last of them."""
        worker, handle, is_closed = self.workers[slot], self._handles[slot], False
        try:
            while handle.connection.poll():
                message = worker.says(handle.connection.recv())
                handle.last_heard = self._now
                yield self._event(worker, message)
        except (EOFError, OSError):
            is_closed = True
        if is_closed or not handle.process.is_alive():
            yield from self._reaped(worker, handle)

    def _event(self, worker: WorkerProcess, message: Message) -> PoolEvent:
        return PoolEvent(self.role, worker.slot, message, worker)

    def _end_silent(self) -> Iterator[PoolEvent]:
        """Ends the processes without a sign of life and tells of those that are new among them.

        SIGABRT lets faulthandler write the stack to the process's log; SIGKILL follows. The death is told later.
        """
        for slot, handle in list(self._handles.items()):
            worker, now = self.workers[slot], self._now
            if handle.end_reason and now >= handle.kill_at:
                handle.process.kill()
            elif not handle.end_reason and (reason := silence(worker, now - handle.last_heard, self._crew)):
                handle.end_reason, handle.kill_at = reason, now + ABORT_S
                if handle.process.is_alive():
                    os.kill(handle.process.pid, signal.SIGABRT)
                yield self._event(worker, Silent(reason))

    def retire(self, slot: int) -> None:
        """Ends the process of a slot, if there is one; nothing of it is heard any more, and none is started again."""
        handle = self._handles.pop(slot, None)
        self.workers.pop(slot, None)
        if handle is not None:
            handle.process.kill()
            handle.process.join()
            handle.connection.close()

    def _reaped(self, worker: WorkerProcess, handle: _Handle) -> Iterator[PoolEvent]:
        """Tells of a death, before it of what was sealed; a process that closed its pipe and lives is killed."""
        handle.process.join(1.0)
        if handle.process.is_alive():
            handle.end_reason = handle.end_reason or "it closed its pipe and lived on"
            handle.process.kill()
            handle.process.join()
        handle.connection.close()
        del self._handles[worker.slot], self.workers[worker.slot]
        sealed = self._sealed_by(worker)
        if sealed is not None:
            yield self._event(worker, worker.says(sealed))
        died = Died(handle.process.exitcode, handle.end_reason, self._log_tail(worker.slot, handle.log_start))
        yield self._event(worker, died)

    def _sealed_by(self, worker: WorkerProcess) -> Sealed | None:
        """Returns word of the whole file that a dead process had sealed for its job and could not tell of."""
        job = worker.job
        for path in self._folder.sealed_in(self._folder.place(worker.slot, worker.launch, self.role)) if job else []:
            name = parse_shard_name(path.name)
            if (name.code_name, name.round_id) != (file_name(job.code), job.round_id):
                continue
            if not shards.is_damaged(path):
                return Sealed(job.code, job.round_id, self._folder.relative(path), 0.0)
            self._folder.set_aside(path)
        return None

    def _log_tail(self, slot: int, log_start: int) -> str:
        """Returns the end of what a process wrote since its start."""
        with self.log_of(slot).open("rb") as file:
            file.seek(max(log_start, file.seek(0, os.SEEK_END) - TAIL_BYTES))
            return file.read().decode(errors="replace").strip()

    def stop(self) -> None:
        """Ends every process at once; what they had sealed stays."""
        for handle in self._handles.values():
            handle.process.kill()
        for slot in list(self._handles):
            self.retire(slot)
        self._temporary.cleanup()

    def _environment(self, device: Device) -> dict[str, str]:
        """Returns what a process's environment must say; its temporary files lie where they go with the pool.

        Who is killed removes none, and libraries leave some: Warp its compiled headers, PyTorch an empty folder.
        """
        return child_environment(device, self._spec.threads) | {"TMPDIR": self._temporary.name}


class LocalEngine:
    """Runs a call on this machine.

    Attributes:
        devices: role -> a device for each of its processes.
    """

    def __init__(self, devices: Mapping[str, Sequence[Device]]) -> None:
        self.devices = devices
        self._pools: list[ProcessPool] = []

    @property
    def places(self) -> list[str]:
        """The devices of the workers."""
        return [device.label for device in self.devices[WORKER]]

    def pool(self, folder: RunFolder, crew: Crew) -> ProcessPool:
        """Returns the pool of one role."""
        self._pools.append(ProcessPool(folder, crew, dict(enumerate(self.devices[crew.role.name]))))
        return self._pools[-1]

    def close(self) -> None:
        """Ends all processes."""
        for pool in self._pools:
            pool.stop()


def silence(worker: WorkerProcess, since: float, crew: Crew) -> str:
    """Returns what a process owes that was not heard of since so many seconds; empty where it owes nothing."""
    if worker.is_ready and worker.job is None and not worker.is_ending:
        return ""
    heartbeat, startup = ("heartbeat_timeout_s", crew.heartbeat_s), ("startup_timeout_s", crew.startup_s)
    key, limit = heartbeat if worker.is_stepping else startup
    if worker.is_stepping:
        owed = f"step after step {worker.step}"
    else:
        owed = "first step" if worker.is_ready else "word that it is ready"
    return f"no {owed} within {limit:g} s ({key})" if since >= limit else ""


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
