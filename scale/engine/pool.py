"""Defines what every pool of workers offers: slots come and go, jobs go in, events come out.

What every pool promises:

- Events of a slot come in order. When `Sealed` is heard, its file lies in the run folder, whole by its name's hash.
  What a dead process had sealed for its job, and can be reached, comes before its `Died`.
- After `Died` or `Lost` nothing of that launch is heard any more.
- The silence of a process is judged where it runs. The clock of its start begins when there is a place for it.
- Slots are not fixed: `devices` has those of the start, `Joined` and `Lost` tell what changes.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from bimangrasp.files.formats import Header
from scale.engine.devices import Device
from scale.engine.interfaces import Failed, Halved, Job, Message, PiecesMade, Ready, RowsJudged, Sealed, Step
from scale.engine.worker import Role
from scale.store.run_folder import RunFolder


class Crew(NamedTuple):
    """What the processes of one pool are.

    Attributes:
        role: what they do with a job.
        factory: the pickled factory of what they load.
        header: what all shards say; object and platform are filled in.
        threads: CPU threads of each.
        startup_s, heartbeat_s: how long one may be silent before its first step, and between two.
        platforms: those of the files that this role has made in the run folder.
        allow_mixed: whether processes on another platform may work.
    """

    role: Role
    factory: bytes
    header: Header
    threads: int
    startup_s: float
    heartbeat_s: float
    platforms: Sequence[dict[str, str]] = ()
    allow_mixed: bool = False


@dataclass
class WorkerProcess:
    """A worker or validator process as the parent sees it.

    Attributes:
        role: WORKER or VALIDATOR.
        slot: its place in the pool.
        launch: the number of its start.
        device: where it computes.
        pid: of the process, on the machine where it runs; None where that is not known.
        is_ready: whether it has loaded what it needs.
        job: what it has to do.
        step: the last one it told of.
        is_stepping: whether there was one since start or hand-out.
        is_ending: whether it said that it ends by itself.
    """

    role: str
    slot: int
    launch: int
    device: Device
    pid: int | None = None
    is_ready: bool = False
    job: Job | None = None
    step: int = 0
    is_stepping: bool = False
    is_ending: bool = False

    @property
    def at(self) -> int | None:
        """The last step since start or hand-out; None before the first."""
        return self.step if self.is_stepping else None

    def has_job(self, job: Job) -> None:
        """Notes that the process has something to do."""
        self.job, self.step, self.is_stepping = job, 0, False

    def says(self, message: Message) -> Message:
        """Takes in what a message says of the process and returns it; a failure with the step that it came at."""
        if isinstance(message, Ready):
            self.is_ready = True
        elif isinstance(message, Step):
            self.step, self.is_stepping = message.step, True
        elif isinstance(message, Halved):
            self.step, self.is_stepping = 0, False
        elif isinstance(message, Sealed | RowsJudged | PiecesMade):
            self.job = None
        elif isinstance(message, Failed):
            message = message._replace(step=self.at)  # it may have its next job before this one is dealt with
            self.job, self.is_ending = None, message.ends
        return message


class PoolEvent(NamedTuple):
    """What happened at a slot; `process` is the one that it is about, None where there is none."""

    role: str
    slot: int
    message: Message
    process: WorkerProcess | None = None


class WorkerPool(ABC):
    """The processes of one role.

    Attributes:
        devices: slot -> what its processes compute on; also of slots that are gone.
        workers: slot -> its process, where there is one.
    """

    def __init__(self, folder: RunFolder, crew: Crew) -> None:
        self._folder, self._crew = folder, crew
        self.devices: dict[int, Device] = {}
        self.workers: dict[int, WorkerProcess] = {}

    @property
    def role(self) -> str:
        """WORKER or VALIDATOR."""
        return self._crew.role.name

    def has(self, slot: int) -> bool:
        """Whether a slot is there to be used; one may be gone before its event is heard."""
        return slot in self.devices

    @property
    def may_grow(self) -> bool:
        """Whether slots are about to join."""
        return False

    def idle(self) -> list[WorkerProcess]:
        """Returns the processes that wait for a job, by slot."""
        workers = [worker for slot, worker in sorted(self.workers.items()) if self.has(slot)]
        return [worker for worker in workers if worker.is_ready and worker.job is None and not worker.is_ending]

    def busy(self) -> list[WorkerProcess]:
        """Returns the processes that have a job."""
        return [worker for worker in self.workers.values() if worker.job is not None]

    def log_of(self, slot: int) -> Path:
        """Returns the log of a slot's processes, in the run folder."""
        return self._folder.worker_log(slot, self.role)

    @abstractmethod
    def start(self, slot: int) -> WorkerProcess:
        """Starts the process of a slot; it says when it is ready."""

    @abstractmethod
    def assign(self, worker: WorkerProcess, job: Job) -> None:
        """Hands a job out. Of a process that died meanwhile, `events` tells."""

    @abstractmethod
    def retire(self, slot: int) -> None:
        """Ends the process of a slot, if there is one; nothing of it is heard any more, and none is started again."""

    @abstractmethod
    def stop(self) -> None:
        """Ends every process at once; what they had sealed stays."""

    @property
    @abstractmethod
    def sources(self) -> Collection[Any]:
        """What `multiprocessing.connection.wait` can wait for, until there is something to hear."""

    @abstractmethod
    def events_of(self, readable: Collection[Any], timeout: float) -> Iterator[PoolEvent]:
        """Yields what happened.

        Args:
            readable: the sources that a wait came back with.
            timeout: of that wait, s.
        """


class Engine(Protocol):
    """Where the pools of a run are: on this machine, or on a cluster."""

    @property
    def places(self) -> list[str]:
        """Where the workers are at the start, for people: one entry for each, or for what will give some."""

    def pool(self, folder: RunFolder, crew: Crew) -> WorkerPool:
        """Returns the pool of one role, whose files go to a run folder. Called once for a role."""

    def close(self) -> None:
        """Lets go of everything, pools included."""


def events(pools: Sequence[WorkerPool], timeout: float, wake: Connection | None = None) -> Iterator[PoolEvent]:
    """Yields what happened at the slots, waiting at most `timeout` seconds, or until `wake` can be read."""
    sources = {source: None for pool in pools for source in pool.sources}
    readable = wait([*sources, *([wake] if wake else [])], timeout)
    for pool in pools:
        yield from pool.events_of(readable, timeout)
