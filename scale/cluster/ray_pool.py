"""Offers what a cluster's agents run as one pool: hands jobs to slots, and writes down what they seal."""

from __future__ import annotations

import errno
import hashlib
import traceback
from collections import deque
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any, Protocol

from scale.cluster.agent import Assign, Retire, Said, Start
from scale.cluster.platform_choice import PlatformChoice
from scale.engine.devices import Device
from scale.engine.interfaces import Died, Failed, Job, Joined, Lost, Message, Ready, Sealed, Unusable
from scale.engine.pool import Crew, PoolEvent, WorkerPool, WorkerProcess
from scale.engine.scheduler import is_disk_full
from scale.store.run_folder import RunFolder, parse_shard_name


class Agents(Protocol):
    """The agents of a cluster, as a pool needs them; each has a number."""

    @property
    def wake(self) -> Any:
        """What can be waited for."""

    def look(self) -> None:
        """Takes in what has come, for all pools."""

    def tell(self, number: int, command: Start | Assign | Retire) -> None:
        """Leaves a command for an agent."""

    def files_for(
        self, number: int, slot: tuple[str, int], paths: Collection[Path]
    ) -> tuple[dict[Path, tuple[str, str]], dict[str, tuple[str, bytes]], list[str]]:
        """Returns what an agent has to know of the files of a slot's next job; see `RayEngine`."""

    def is_settled(self, role: str) -> bool:
        """Whether all agents of a role that the nodes of the start give have joined, or took too long for it."""

    def refuse_node_of(self, number: int, role: str, reason: str) -> None:
        """Has no process of a role on the node of an agent."""


class RayPool(WorkerPool):
    """The processes of one role on a cluster's nodes."""

    def __init__(self, folder: RunFolder, crew: Crew, agents: Agents) -> None:
        super().__init__(folder, crew)
        self._agents = agents
        self._next_launch = folder.next_launch(self.role)
        self._agent_of: dict[int, int] = {}
        self._happened: deque[PoolEvent] = deque()
        self._choice = PlatformChoice(crew.platforms, crew.allow_mixed)
        self._held: dict[int, Ready] = {}
        self._refused: set[int] = set()

    def has(self, slot: int) -> bool:
        """Whether a slot is there to be used; one may be gone before its event is heard."""
        return slot in self._agent_of and slot not in self._refused

    @property
    def may_grow(self) -> bool:
        """Whether slots are about to join."""
        return not self._agents.is_settled(self.role)

    @property
    def is_open(self) -> bool:
        """Whether there is a slot to be used."""
        return any(map(self.has, self._agent_of))

    @property
    def crew(self) -> Crew:
        """What the processes are."""
        return self._crew

    def start(self, slot: int) -> WorkerProcess:
        """Starts the process of a slot; it says when it is ready."""
        self.workers[slot] = WorkerProcess(self.role, slot, self._next_launch, self.devices[slot])
        self._agents.tell(self._agent_of[slot], Start(self.role, slot, self._next_launch))
        self._next_launch += 1
        return self.workers[slot]

    def assign(self, worker: WorkerProcess, job: Job) -> None:
        """Hands a job out, with those of its files that the agent lacks. Of a process that died, `events` tells."""
        worker.has_job(job)
        number, root = self._agent_of[worker.slot], self._folder.root
        paths = {root / path: path for path in job.files}  # a path that is absolute stays what it is
        try:
            known, sent, forget = self._agents.files_for(number, (self.role, worker.slot), paths)
        except OSError:
            text = traceback.format_exc()
            self._happen(worker, Failed(job.code, job.round_id, text, first=getattr(job, "first", 0)))
            return
        files = {paths[path]: of_agent for path, of_agent in known.items()}
        command = Assign(self.role, worker.slot, worker.launch, job, files, sent, forget)
        self._agents.tell(number, command)

    def retire(self, slot: int) -> None:
        """Ends the process of a slot, if there is one; nothing of it is heard any more, and none is started again."""
        self.workers.pop(slot, None)
        self._held.pop(slot, None)
        number = self._agent_of.pop(slot, None)
        if number is not None:
            self._agents.tell(number, Retire(self.role, slot))

    def stop(self) -> None:
        """Ends every process at once; what they had sealed and sent stays."""
        for slot in list(self.workers):
            self.retire(slot)

    @property
    def sources(self) -> Collection[Any]:
        """What can be waited for: post from the cluster."""
        return [self._agents.wake]

    def events_of(self, readable: Collection[Any], timeout: float) -> Iterator[PoolEvent]:  # noqa: ARG002
        """Yields what happened; see `WorkerPool`."""
        self._agents.look()
        self._release_held()
        while self._happened:
            yield self._happened.popleft()

    # ---- what the engine says

    def expect(self, slots: list[int], device: Device) -> None:
        """Notes slots that are asked for, with what is known of them."""
        self.devices |= dict.fromkeys(slots, device)

    def start_early(self, slot: int) -> None:
        """Starts a process without a job for it, where all nodes have to tell their platforms first."""
        if not self._choice.is_decided and slot not in self.workers:
            self.start(slot)

    def join(self, slot: int, number: int, device: Device) -> None:
        """Takes a slot in, of the agent with that number."""
        self.devices[slot], self._agent_of[slot] = device, number
        self._happened.append(PoolEvent(self.role, slot, Joined()))

    def lose(self, slot: int, reason: str) -> None:
        """Takes a slot out that is gone, also one that has not joined yet."""
        self._agent_of.pop(slot, None)
        self._held.pop(slot, None)
        self._happened.append(PoolEvent(self.role, slot, Lost(reason), self.workers.pop(slot, None)))

    def refuse(self, slots: list[int], reason: str) -> None:
        """Says once that the slots of an agent must not be used, and takes the others out."""
        first, *others = [slot for slot in slots if self.has(slot)] or [None]
        if first is not None:
            self._refused.add(first)
            self._happened.append(PoolEvent(self.role, first, Unusable(reason), self.workers.get(first)))
        for slot in others:
            self.lose(slot, reason)

    def log(self, slot: int, words: bytes) -> None:
        """Keeps what a slot's processes wrote; on a full disk it is gone."""
        try:
            with self.log_of(slot).open("ab") as file:
                file.write(words)
        except OSError as error:
            if not is_disk_full(error):
                raise

    def hear(self, said: Said) -> None:
        """Takes in what a process said, unless it is of one that is gone."""
        worker = self.workers.get(said.slot)
        if worker is None or worker.launch != said.launch:
            return
        message = said.message
        if isinstance(message, Ready):
            self._held[said.slot] = message
        elif isinstance(message, Sealed):
            self._happen(worker, self._written(worker, message, said.files))
        else:
            if isinstance(message, Died):
                del self.workers[said.slot]
                self._held.pop(said.slot, None)
            self._happen(worker, message)

    def _happen(self, worker: WorkerProcess, message: Message) -> None:
        self._happened.append(PoolEvent(self.role, worker.slot, worker.says(message), worker))

    def _written(self, worker: WorkerProcess, sealed: Sealed, files: dict[str, bytes]) -> Sealed | Failed:
        """Returns word of a sealed file that lies in the run folder now, or of why it does not."""
        try:
            for name, data in files.items():
                sealed_name = parse_shard_name(Path(name).name)
                if sealed_name and sealed_name.sha16 != hashlib.sha256(data).hexdigest()[:16]:
                    raise OSError(errno.EIO, "other bytes came than its name promises", name)
                self._folder.write(self._folder.root / name, data)
        except OSError as error:
            first = getattr(worker.job, "first", 0)
            return Failed(sealed.code, sealed.round_id, traceback.format_exc(), error.errno, first=first)
        return sealed

    def _release_held(self) -> None:
        """Lets processes begin whose platform is the run's, and refuses the others, once it is known which that is."""
        if not self._held:
            return
        if not self._choice.is_decided:
            starting = [slot for slot in self.workers if not self.workers[slot].is_ready and slot not in self._held]
            if starting or not self._agents.is_settled(self.role):
                return
            where = {slot: self.devices[slot].label for slot in self._held}
            self._choice.decide({slot: ready.platform for slot, ready in self._held.items()}, where)
        held, self._held = self._held, {}
        for slot, ready in sorted(held.items()):
            if not self.has(slot):
                continue  # refused with another of its node
            reason = self._choice.refusal(ready.platform)
            if reason:
                self._agents.refuse_node_of(self._agent_of[slot], self.role, reason)
            else:
                self._happen(self.workers[slot], ready)
