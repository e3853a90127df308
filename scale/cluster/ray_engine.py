"""Runs pools on a Ray cluster: places agents, sends them what jobs read, and writes down what they seal."""

from __future__ import annotations

import errno
import hashlib
import itertools
import math
import time
import traceback
import uuid
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bimangrasp.errors import InputError
from scale.cluster.agent import Answer, Assign, Hello, Retire, Said, Start, Terms, version_differences, versions
from scale.cluster.connection import LOOK_S, Connection, Gone, HeadGone, Nodes
from scale.cluster.layout import AgentPlan, Demand, Node, missing_agents
from scale.cluster.platform_choice import PlatformChoice
from scale.engine.devices import Device
from scale.engine.interfaces import (
    Died,
    Failed,
    Job,
    Joined,
    Lost,
    Message,
    PiecesMade,
    Ready,
    RowsJudged,
    Sealed,
    Unusable,
)
from scale.engine.pool import Crew, PoolEvent, WorkerPool, WorkerProcess
from scale.engine.scheduler import IN_A_ROW, is_disk_full
from scale.errors import RunError
from scale.settings.parsing import parse_gpus
from scale.settings.schema import Config
from scale.store.durable_io import DISK_FULL
from scale.store.run_folder import VALIDATOR, WORKER, RunFolder, parse_shard_name

KEPT_FILES = 64
"""Files that an agent keeps besides those of its slots' last jobs."""
KNOWN_HASHES = 10_000
RESTART_S = 1.5 * LOOK_S
"""From a loss to a new agent: whether the node is still there is known then."""
JOIN_S = 60.0
"""So long the choice of a platform waits for nodes that were there at the start."""


@dataclass
class _Agent:
    """An agent as the parent sees it.

    Attributes:
        plan: what it was started for.
        slots: role -> its slots.
        is_first: whether its node was there when the run began.
        started: when, by the clock of this process.
        has_joined: whether it has said where it is.
        files: sha256 -> name, of what it has; the latest last.
        in_use: role and slot -> hashes of the files of its last job.
    """

    plan: AgentPlan
    slots: dict[str, list[int]]
    is_first: bool
    started: float = field(default_factory=time.monotonic)
    has_joined: bool = False
    files: OrderedDict[str, str] = field(default_factory=OrderedDict)
    in_use: dict[tuple[str, int], set[str]] = field(default_factory=dict)


@dataclass
class _Losses:
    """What went wrong on a node since something was last done there.

    Attributes:
        count: incidents; all that is lost at once is one.
        last: when the last one was.
    """

    count: int = 0
    last: float = 0.0


class RayEngine:
    """The pools of a call on a cluster.

    Attributes:
        places: the nodes of the start, for people.
    """

    def __init__(self, config: Config, tests_on_gpus: bool, is_tested: bool) -> None:
        self._config, self._run = config, uuid.uuid4().hex[:12]
        self._connection = Connection(config.ray)
        try:
            nodes = self._connection.nodes()
            self._connection.check(nodes)
            self._demand = demand(config, nodes, tests_on_gpus, is_tested)
        except BaseException:
            self._connection.close()
            raise
        self.places = [f"{node.host} ({node.gpus} GPUs, {node.cpus} CPUs)" for node in nodes]
        self._pools: dict[str, RayPool] = {}
        self._agents: dict[int, _Agent] = {}
        self._nodes: list[Node] = []
        self._banned: dict[str, set[str]] = {WORKER: set(), VALIDATOR: set()}
        self._losses: dict[str, _Losses] = defaultdict(_Losses)
        self._hashes: dict[tuple[str, int, int], str] = {}
        self._numbers = itertools.count()
        self._next_slot: Counter[str] = Counter()
        self._is_begun = False
        self._begun_at = self._had_slots_at = 0.0
        self._start_again_at = math.inf
        self._last_reason = ""

    def pool(self, folder: RunFolder, crew: Crew) -> RayPool:
        """Returns the pool of one role; its slots come later."""
        self._pools[crew.role.name] = RayPool(folder, crew, self)
        return self._pools[crew.role.name]

    @property
    def wake(self) -> Any:
        """What can be waited for."""
        return self._connection.wake

    def look(self) -> None:
        """Takes in what has come, for all pools.

        Raises:
            RunError: the cluster is gone, or gives no place to work for too long.
        """
        if not self._is_begun:
            self._is_begun = True
            self._begun_at = self._had_slots_at = time.monotonic()
            self._connection.listen()
        for number, post in self._connection.post():
            if isinstance(post, HeadGone):
                raise RunError(f"{post.reason}. Start it again; the same command goes on")
            if isinstance(post, Nodes):
                self._nodes_are(post.nodes)
            elif isinstance(post, Gone):
                self._lose([number], post.reason)
            elif number not in self._agents:
                continue  # it was given up meanwhile
            elif isinstance(post, Hello):
                self._joined(number, post)
            else:
                self._heard(number, post)
        if time.monotonic() >= self._start_again_at:
            self._start_again_at = math.inf
            self._start_missing()
        self._check_that_there_are_slots()

    def _check_that_there_are_slots(self) -> None:
        now, limit = time.monotonic(), self._config.startup_timeout_s
        if self._pools[WORKER].is_open:
            self._had_slots_at = now
        elif now - self._had_slots_at > limit:
            reason = f"; what was lost or refused last: {self._last_reason}" if self._last_reason else ""
            raise RunError(
                f"no node of the cluster had a place for a worker for {limit:g} s (startup_timeout_s){reason}. The "
                f"nodes are {', '.join(self.places) or 'none'}. The same command goes on"
            )

    # ---- agents

    def _nodes_are(self, nodes: list[Node]) -> None:
        """Lets agents go whose nodes have left, and starts those that are missing."""
        alive = {node.node_id for node in nodes}
        is_first, self._nodes = not self._nodes, nodes
        for node in {agent.plan.node for agent in self._agents.values()}:
            if node.node_id not in alive:
                of_node = [(number, agent) for number, agent in self._agents.items() if agent.plan.node == node]
                for number, agent in of_node:
                    if not agent.has_joined:  # asked for when the node was on its way out: nothing was lost with it
                        del self._agents[number]
                        self._connection.drop(number)
                lost = [number for number, agent in of_node if agent.has_joined]
                self._lose(lost, f"node {node.host} has left the cluster")
        self._start_missing(is_first)

    def _start_missing(self, is_first: bool = False) -> None:
        present = [agent.plan for agent in self._agents.values()]
        places = [[node for node in self._nodes if node.node_id not in banned] for banned in self._banned.values()]
        for plan in missing_agents(places[0], present, self._demand, places[1]):
            counts = {WORKER: plan.workers, VALIDATOR: plan.validators}
            slots = {role: self._new_slots(role, count) for role, count in counts.items() if count}
            number = next(self._numbers)
            self._agents[number] = _Agent(plan, slots, is_first)
            crews = {role: (self._pools[role].crew, own) for role, own in slots.items()}
            settings = self._config.ray
            terms = Terms(f"{self._run}_{number}", crews, settings.lease_s, settings.scratch, plan.gpus > 0)
            self._connection.start(number, self._name(plan, slots), plan, terms)
            for role, own in slots.items():
                self._pools[role].expect(own, Device(f"{plan.node.host} {'gpu' if plan.gpus else 'cpu'}", ""))

    def _new_slots(self, role: str, count: int) -> list[int]:
        first = self._next_slot[role]
        self._next_slot[role] += count
        return list(range(first, first + count))

    def _name(self, plan: AgentPlan, slots: dict[str, list[int]]) -> str:
        """Returns the name of an agent in Ray's dashboard, which must be its own in the cluster."""
        what = " ".join(f"{role} {own[0]}" + (f" to {own[-1]}" if own[1:] else "") for role, own in slots.items())
        return f"{what} ({'gpu' if plan.gpus else 'cpu'}) on {plan.node.host}, run {self._run}"

    def _joined(self, number: int, hello: Hello) -> None:
        agent = self._agents[number]
        differing = version_differences(hello.versions, versions())
        if differing:
            for banned in self._banned.values():
                banned.add(agent.plan.node.node_id)
            self._lose([number], f"node {agent.plan.node.host} has other versions ({differing})")
            return
        agent.has_joined = True
        for role, slots in agent.slots.items():
            for slot in slots:
                self._pools[role].join(slot, number, hello.device)
            self._pools[role].start_early(slots[0])

    def _heard(self, number: int, answer: Answer) -> None:
        for (role, slot), words in answer.logs.items():
            self._pools[role].log(slot, words)
        for said in answer.said:
            if number not in self._agents:
                return  # it was given up over what it said before
            agent = self._agents[number]
            if isinstance(said.message, Sealed | RowsJudged | PiecesMade):
                self._losses.pop(agent.plan.node.node_id, None)
            if isinstance(said.message, Failed) and said.message.errno is not None:
                agent.files.clear()  # whatever went wrong with files there: all are sent again
            if isinstance(said.message, Failed) and said.message.errno in DISK_FULL and self._config.ray.address:
                self._set_node_aside(agent.plan.node, said.message.traceback.strip().splitlines()[-1])
            else:
                self._pools[said.role].hear(said)

    def _lose(self, numbers: list[int], reason: str) -> None:
        """Gives agents of one node up; others are started where it is still there, unless that went wrong too often."""
        lost = [(number, self._agents.pop(number)) for number in numbers if number in self._agents]
        if not lost:
            return
        node = lost[0][1].plan.node
        losses = self._losses[node.node_id]
        if max(agent.started for _, agent in lost) > losses.last:  # else it went with the others that were lost
            self._losses[node.node_id] = losses = _Losses(losses.count + 1, time.monotonic())
        if losses.count >= IN_A_ROW:
            for banned in self._banned.values():
                banned.add(node.node_id)
            reason = f"{reason}; node {node.host} is used no more, for that was so {losses.count} times in a row"
        self._last_reason = reason
        for number, agent in lost:
            self._connection.drop(number)
            for role, slots in agent.slots.items():
                for slot in slots:
                    self._pools[role].lose(slot, reason)
        self._start_again_at = time.monotonic() + RESTART_S

    def _set_node_aside(self, node: Node, reason: str) -> None:
        """Works with a node no longer whose own disk is full."""
        for banned in self._banned.values():
            banned.add(node.node_id)
        for number, agent in list(self._agents.items()):
            if agent.plan.node == node:
                self._refuse(number, list(agent.slots), f"node {node.host} has no room: {reason}")
        self._start_missing()

    def refuse_node_of(self, number: int, role: str, reason: str) -> None:
        """Has no process of a role on a node whose platform is not the run's."""
        agent = self._agents.get(number)
        if agent is None:
            return
        self._banned[role].add(agent.plan.node.node_id)
        for other, own in list(self._agents.items()):
            if own.plan.node == agent.plan.node and role in own.slots:
                self._refuse(other, [role], reason)
        self._start_missing()

    def _refuse(self, number: int, roles: list[str], reason: str) -> None:
        """Uses the slots of some roles of an agent no more; one without any others is ended."""
        agent, self._last_reason = self._agents[number], reason
        for role in roles:
            self._pools[role].refuse(agent.slots[role], reason)
        if set(roles) == set(agent.slots):
            del self._agents[number]
            self._connection.end_aside(number)

    def is_settled(self, role: str) -> bool:
        """Whether all agents of a role that the nodes of the start give have joined, or took too long for it."""
        if not self._nodes:
            return False
        late = time.monotonic() - self._begun_at > JOIN_S
        return late or all(a.has_joined for a in self._agents.values() if a.is_first and role in a.slots)

    # ---- what pools say to agents

    def tell(self, number: int, command: Any) -> None:
        """Leaves a command for an agent."""
        self._connection.tell(number, command)

    def files_for(
        self, number: int, slot: tuple[str, int], paths: Collection[Path]
    ) -> tuple[dict[Path, tuple[str, str]], dict[str, tuple[str, bytes]], list[str]]:
        """Returns what an agent has to know of the files of a slot's next job, and notes that it has them then.

        Returns:
            path as given -> sha256 and name; sha256 -> name and content of those that it lacks; hashes to forget.

        Raises:
            OSError: one cannot be read.
        """
        agent = self._agents[number]
        known = {path: (self._sha256(path), path.name) for path in paths}
        sent = {}
        for path, (sha256, name) in known.items():
            if agent.files.get(sha256) != name:
                sent[sha256] = name, path.read_bytes()
            agent.files[sha256] = name
            agent.files.move_to_end(sha256)
        agent.in_use[slot] = {sha256 for sha256, _ in known.values()}
        in_use = set().union(*agent.in_use.values())
        spare = [sha256 for sha256 in agent.files if sha256 not in in_use]
        forget = spare[: max(0, len(spare) - KEPT_FILES)]
        for sha256 in forget:
            del agent.files[sha256]
        return known, sent, forget

    def _sha256(self, path: Path) -> str:
        """Returns the hash of a file, which is read again only where it looks changed."""
        stat = path.stat()
        key = (str(path), stat.st_size, stat.st_mtime_ns)
        if key not in self._hashes:
            if len(self._hashes) > KNOWN_HASHES:
                self._hashes.clear()
            self._hashes[key] = hashlib.sha256(path.read_bytes()).hexdigest()
        return self._hashes[key]

    def close(self) -> None:
        """Ends all agents with their processes, and leaves the cluster."""
        self._connection.end([number for number, agent in self._agents.items() if agent.has_joined])
        self._connection.close()


class RayPool(WorkerPool):
    """The processes of one role on a cluster's nodes."""

    def __init__(self, folder: RunFolder, crew: Crew, engine: RayEngine) -> None:
        super().__init__(folder, crew)
        self._engine = engine
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
        return not self._engine.is_settled(self.role)

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
        self._engine.tell(self._agent_of[slot], Start(self.role, slot, self._next_launch))
        self._next_launch += 1
        return self.workers[slot]

    def assign(self, worker: WorkerProcess, job: Job) -> None:
        """Hands a job out, with those of its files that the agent lacks. Of a process that died, `events` tells."""
        worker.has_job(job)
        number, root = self._agent_of[worker.slot], self._folder.root
        paths = {root / path: path for path in job.files}  # a path that is absolute stays what it is
        try:
            known, sent, forget = self._engine.files_for(number, (self.role, worker.slot), paths)
        except OSError:
            text = traceback.format_exc()
            self._happen(worker, Failed(job.code, job.round_id, text, first=getattr(job, "first", 0)))
            return
        files = {paths[path]: of_agent for path, of_agent in known.items()}
        command = Assign(self.role, worker.slot, worker.launch, job, files, sent, forget)
        self._engine.tell(number, command)

    def retire(self, slot: int) -> None:
        """Ends the process of a slot, if there is one; nothing of it is heard any more, and none is started again."""
        self.workers.pop(slot, None)
        self._held.pop(slot, None)
        number = self._agent_of.pop(slot, None)
        if number is not None:
            self._engine.tell(number, Retire(self.role, slot))

    def stop(self) -> None:
        """Ends every process at once; what they had sealed and sent stays."""
        for slot in list(self.workers):
            self.retire(slot)

    @property
    def sources(self) -> Collection[Any]:
        """What can be waited for: post from the cluster."""
        return [self._engine.wake]

    def events_of(self, readable: Collection[Any], timeout: float) -> Iterator[PoolEvent]:  # noqa: ARG002
        """Yields what happened; see `WorkerPool`."""
        self._engine.look()
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
            if starting or not self._engine.is_settled(self.role):
                return
            where = {slot: self.devices[slot].label for slot in self._held}
            self._choice.decide({slot: ready.platform for slot, ready in self._held.items()}, where)
        held, self._held = self._held, {}
        for slot, ready in sorted(held.items()):
            if not self.has(slot):
                continue  # refused with another of its node
            reason = self._choice.refusal(ready.platform)
            if reason:
                self._engine.refuse_node_of(self._agent_of[slot], self.role, reason)
            else:
                self._happen(self.workers[slot], ready)


def demand(config: Config, nodes: list[Node], tests_on_gpus: bool, is_tested: bool) -> Demand:
    """Returns what a call wants of a cluster.

    Args:
        config: the settings.
        nodes: that are there.
        tests_on_gpus: whether validators simulate on the workers' devices.
        is_tested: whether there are validators at all.

    Raises:
        InputError: GPUs are asked for, and no node has one.
    """
    asked, has_gpus = parse_gpus(config.gpus), any(node.gpus for node in nodes)
    wants_gpus = asked == "gpu" or (is_tested and tests_on_gpus)
    if wants_gpus and not has_gpus:
        hosts = ", ".join(node.host for node in nodes)
        raise InputError(f"no node of the cluster has a GPU ({hosts}): wanted one, or gpus=auto and validation=bench")
    on_gpus = wants_gpus or (asked == "auto" and has_gpus)
    cpu_workers = len(asked) if isinstance(asked, list) and not on_gpus else None
    validators = config.validators if is_tested else None
    return Demand(on_gpus, cpu_workers, config.workers_per_gpu, validators, tests_on_gpus)
