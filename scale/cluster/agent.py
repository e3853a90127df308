"""Runs real processes on one node, as a pool does on one machine, and lets the parent hear what they say.

Ray runs an agent as an actor. The processes are not actors: so exit codes, stacks, environments and bound GPUs are what
they are on one machine.
"""

from __future__ import annotations

import os
import socket
import sys
import tempfile
import threading
import time
import traceback
from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import suppress
from multiprocessing import Pipe
from typing import Any, NamedTuple

from bimangrasp.builtin import use_writable_kernel_cache
from scale.cluster.scratch import Scratch
from scale.engine.devices import Device, package_version
from scale.engine.interfaces import Failed, Job, Message, PiecesJob, Sealed, Step
from scale.engine.pool import Crew, PoolEvent, events
from scale.engine.process_pool import ProcessPool

TURN_S = 0.2
ANSWER_S = 2.0
"""So long an agent keeps the parent's question open when there is nothing to say."""
END_S = 5.0
"""So long the end of an agent may take."""
PACKAGES = ("bimangrasp", "ray")
LOG_BYTES = 1 << 16  # of a log in one answer


class Terms(NamedTuple):
    """What an agent is started with.

    Attributes:
        name: of its folder.
        crews: role -> what its processes are, and the slots that they have.
        lease_s: how long it lives without a question of its parent.
        scratch: folder for its folder; empty for the node's temporary one.
        has_gpu: whether Ray gives it a GPU.
    """

    name: str
    crews: Mapping[str, tuple[Crew, list[int]]]
    lease_s: float
    scratch: str
    has_gpu: bool


class Start(NamedTuple):
    """The parent wants a slot's process."""

    role: str
    slot: int
    launch: int


class Assign(NamedTuple):
    """The parent hands out a job.

    Attributes:
        role, slot, launch: whose it is.
        job: with the parent's paths.
        files: the parent's path -> sha256 and name.
        sent: sha256 -> name and content, of files that the agent has not got yet.
        forget: hashes of files that no job needs any more.
    """

    role: str
    slot: int
    launch: int
    job: Job
    files: dict[str, tuple[str, str]]
    sent: dict[str, tuple[str, bytes]]
    forget: list[str]


class Retire(NamedTuple):
    """The parent no longer wants a slot."""

    role: str
    slot: int


class End(NamedTuple):
    """The parent is done."""


class Hello(NamedTuple):
    """Where an agent is.

    Attributes:
        device: of its processes.
        versions: see `versions`.
    """

    device: Device
    versions: dict[str, str]


class Said(NamedTuple):
    """What a process said.

    Attributes:
        role, slot, launch: which process.
        message: what.
        files: path in a run folder -> content, of what it sealed.
    """

    role: str
    slot: int
    launch: int
    message: Message
    files: dict[str, bytes]


class Answer(NamedTuple):
    """What an agent has to say.

    Attributes:
        said: in order.
        logs: role and slot -> what came to the log since the last answer.
    """

    said: list[Said]
    logs: dict[tuple[str, int], bytes]


class Agent:
    """The body of the actor.

    One thread owns the processes; Ray's threads only leave commands (`do`) and take answers (`hear`), each kind in
    order.
    """

    def __init__(self, terms: Terms) -> None:
        self._terms = terms
        self._scratch = Scratch(terms.scratch, terms.name)
        # a node may show its GPUs to all, so an agent that Ray gave none must not look
        visible = os.environ.get("CUDA_VISIBLE_DEVICES", "") if terms.has_gpu else ""
        host = socket.gethostname()
        self._hello = Hello(Device(f"{host} gpu {visible}" if visible else f"{host} cpu", visible), versions())
        self._commands: deque[Any] = deque()
        self._outbox: list[Said] = []
        self._said, self._has_ended = threading.Condition(), threading.Event()
        self._wake, self._waker = Pipe(duplex=False)
        self._asked = time.monotonic()
        self._read: dict[tuple[str, int], int] = {}
        threading.Thread(target=self._run, name="owner of the processes", daemon=True).start()

    # ---- what the parent calls, in Ray's threads

    def hello(self) -> Hello:
        """Returns where the agent is, once Ray has found a place for it."""
        return self._hello

    def do(self, *commands: Start | Assign | Retire | End) -> None:
        """Leaves commands for the thread that owns the processes."""
        self._commands.extend(commands)
        self._waker.send_bytes(b".")

    def end(self) -> None:
        """Returns when the processes and the folder are gone; the parent ends the agent itself then."""
        self.do(End())
        self._has_ended.wait(END_S)

    def hear(self) -> Answer:
        """Returns what is new; waits a moment for it. That it is called is the sign that the parent lives."""
        self._asked = time.monotonic()
        with self._said:
            self._said.wait_for(lambda: bool(self._outbox), ANSWER_S)
            said, self._outbox = self._outbox, []
        self._asked = time.monotonic()
        return Answer(said, self._new_words())

    def _new_words(self) -> dict[tuple[str, int], bytes]:
        """Returns what came to the processes' logs."""
        logs = {}
        for role, (_, slots) in self._terms.crews.items():
            for slot in slots:
                with suppress(FileNotFoundError), self._scratch.folder.worker_log(slot, role).open("rb") as log:
                    log.seek(self._read.get((role, slot), 0))
                    if words := log.read(LOG_BYTES):
                        logs[role, slot], self._read[role, slot] = words, log.tell()
        return logs

    # ---- the thread that owns the processes

    def _run(self) -> None:
        """Does what the parent wants, and tells what happens, until the parent is done or gone."""
        _hide_main_script()
        use_writable_kernel_cache()
        tempfile.tempdir = str(self._scratch.folder.root)  # what processes leave goes with the agent, killed or not
        try:
            pools = {role: self._pool(crew, slots) for role, (crew, slots) in self._terms.crews.items()}
            is_asked_to = self._serve(pools)
            for pool in pools.values():
                pool.stop()
            self._scratch.remove()
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        self._has_ended.set()
        if is_asked_to:
            time.sleep(END_S)  # the parent ends the actor now; one that ends before is a failure to Ray
        os._exit(0)

    def _pool(self, crew: Crew, slots: Sequence[int]) -> ProcessPool:
        return ProcessPool(self._scratch.folder, crew, dict.fromkeys(slots, self._hello.device))

    def _serve(self, pools: Mapping[str, ProcessPool]) -> bool:
        """Works until the parent wants the end, or has not asked for too long; returns whether it wants it."""
        while time.monotonic() - self._asked < self._terms.lease_s:
            while self._commands:
                command = self._commands.popleft()
                if isinstance(command, End):
                    return True
                self._obey(pools[command.role], command)
            for event in events(list(pools.values()), TURN_S, self._wake):
                self._tell(event)
            while self._wake.poll():
                self._wake.recv_bytes()
        return False

    def _obey(self, pool: ProcessPool, command: Start | Assign | Retire) -> None:
        """Does one command; one that came too late for its process is passed over."""
        if isinstance(command, Retire):
            pool.retire(command.slot)
        elif isinstance(command, Start):
            pool.start(command.slot, command.launch)
        else:
            self._assign(pool, command)

    def _assign(self, pool: ProcessPool, command: Assign) -> None:
        """Hands a job out; its files are kept in any case, for the parent does not send them again."""
        job = command.job
        try:
            job = self._with_files(command)
        except OSError as error:
            first = getattr(job, "first", 0)
            failed = Failed(job.code, job.round_id, traceback.format_exc(), error.errno, first=first)
            self._say(Said(command.role, command.slot, command.launch, failed, {}))
            return
        worker = pool.workers.get(command.slot)
        if worker is not None and worker.launch == command.launch:
            pool.assign(worker, job)

    def _with_files(self, command: Assign) -> Job:
        """Returns a job with the paths of its files on this node."""
        self._scratch.forget(command.forget)
        self._scratch.keep(command.sent)
        places = {path: str(self._scratch.path(*file)) for path, file in command.files.items()}
        if isinstance(command.job, PiecesJob):
            places = self._scratch.beside(command.job.mesh, places)
        return command.job.at(places)

    def _tell(self, event: PoolEvent) -> None:
        """Leaves word of an event for the parent, with the files that it is about."""
        role, slot, message, process = event
        files = self._files_of(message)
        self._say(Said(role, slot, process.launch, message, files))

    def _files_of(self, message: Message) -> dict[str, bytes]:
        """Returns what a process made, by its place in the run folder, and lets go of it here."""
        if not isinstance(message, Sealed):
            return {}
        folder = self._scratch.folder
        made = [*folder.animations.glob("*.npz"), folder.root / message.path]  # a round that is there has its frames
        return {folder.relative(path): self._scratch.take(path) for path in made}

    def _say(self, said: Said) -> None:
        """Leaves word for the parent; of steps in a row only the last, for they come with every grasp."""
        with self._said:
            of_slot = [i for i, old in enumerate(self._outbox) if (old.role, old.slot) == (said.role, said.slot)]
            if isinstance(said.message, Step) and of_slot and isinstance(self._outbox[of_slot[-1]].message, Step):
                del self._outbox[of_slot[-1]]
            self._outbox.append(said)
            self._said.notify()


def versions() -> dict[str, str]:
    """Returns the versions that must be the same on all nodes."""
    return {"Python": sys.version.split()[0]} | {name: package_version(name) for name in PACKAGES}


def version_differences(there: Mapping[str, str], here: Mapping[str, str]) -> str:
    """Returns in which versions a node differs; empty where it does not."""
    return "; ".join(f"{name} {there[name]} there, {own} here" for name, own in here.items() if there[name] != own)


def _hide_main_script() -> None:
    """Keeps the processes from importing the main script of Ray's actor anew, which is none of theirs."""
    with suppress(AttributeError):
        del sys.modules["__main__"].__file__
