"""Runs pools on a Ray cluster: places agents, sends them what jobs read, and writes down what they seal."""

from __future__ import annotations

import hashlib
import itertools
import time
import traceback
import uuid
from collections import Counter, OrderedDict, deque
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bimangrasp.errors import InputError
from scale.cluster.agent import Answer, Assign, Hello, Retire, Said, Start, Terms
from scale.cluster.connection import Connection, Gone, HeadGone, Nodes
from scale.cluster.layout import AgentPlan, Demand, Node, missing_agents
from scale.cluster.platform_choice import PlatformChoice
from scale.engine.interfaces import Died, Failed, Job, Joined, Lost, Message, Ready, Sealed, Unusable
from scale.engine.pool import Crew, PoolEvent, WorkerPool, WorkerProcess
from scale.engine.scheduler import IN_A_ROW, is_disk_full
from scale.errors import RunError
from scale.settings.parsing import parse_gpus
from scale.settings.schema import Config
from scale.store.durable_io import DISK_FULL
from scale.store.run_folder import VALIDATOR, WORKER, RunFolder

KEPT_FILES = 64
"""Files that an agent keeps besides those of the jobs under way."""
JOIN_S = 60.0
"""So long the choice of a platform waits for nodes that were there at the start."""


@dataclass
class _Agent:
    """An agent as the parent sees it.

    Attributes:
        plan: what it was started for.
        slots: role -> its slots.
        is_first: whether its node was there when the run began.
        has_joined: whether it has said where it is.
        files: sha256 -> name, of what it has, the oldest first.
    """

    plan: AgentPlan
    slots: dict[str, list[int]]
    is_first: bool
    has_joined: bool = False
    files: OrderedDict[str, str] = field(default_factory=OrderedDict)


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
        self._unusable: set[str] = set()
        self._losses: Counter[str] = Counter()
        self._numbers = itertools.count()
        self._next_slot: Counter[str] = Counter()
        self._is_begun = False
        self._begun_at = self._had_slots_at = time.monotonic()

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
            self._connection.listen()
        for number, post in self._connection.post():
            if isinstance(post, HeadGone):
                raise RunError(f"{post.reason}. Start it again; the same command goes on")
            if isinstance(post, Nodes):
                self._nodes_are(post.nodes)
            elif isinstance(post, Gone):
                self._lose(number, post.reason)
            elif isinstance(post, Hello):
                self._joined(number, post)
            else:
                self._heard(number, post)
        self._check_that_there_are_slots()

    def _check_that_there_are_slots(self) -> None:
        now, limit = time.monotonic(), self._config.startup_timeout_s
        joined = [agent.plan.node.node_id for agent in self._agents.values() if agent.has_joined]
        if set(joined) - self._unusable:
            self._had_slots_at = now
        elif now - self._had_slots_at > limit:
            raise RunError(
                f"no node of the cluster had room for a worker for {limit:g} s (startup_timeout_s): the nodes are "
                f"{', '.join(self.places) or 'none'}. The same command goes on"
            )

    # ---- agents

    def _nodes_are(self, nodes: list[Node]) -> None:
        """Lets agents go whose nodes have left, and starts those that are missing."""
        alive = {node.node_id for node in nodes}
        for number, agent in list(self._agents.items()):
            if agent.plan.node.node_id not in alive:
                self._lose(number, f"node {agent.plan.node.host} has left the cluster")
        is_first, self._nodes = not self._nodes, nodes
        self._start_missing(is_first)

    def _start_missing(self, is_first: bool = False) -> None:
        usable = [node for node in self._nodes if node.node_id not in self._unusable]
        usable_ids = {node.node_id for node in usable}
        present = [agent.plan for agent in self._agents.values() if agent.plan.node.node_id in usable_ids]
        for plan in missing_agents(usable, present, self._demand):
            slots = {
                WORKER: self._new_slots(WORKER, plan.workers),
                VALIDATOR: self._new_slots(VALIDATOR, plan.validators),
            }
            slots = {role: own for role, own in slots.items() if own}
            number = next(self._numbers)
            self._agents[number] = _Agent(plan, slots, is_first)
            crews = {role: (self._pools[role].crew, own) for role, own in slots.items()}
            terms = Terms(f"{self._run}_{number}", crews, self._config.ray.lease_s, self._config.ray.scratch)
            self._connection.start(number, self._name(plan, slots), plan, terms)

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
        agent.has_joined = True
        for role, slots in agent.slots.items():
            for slot in slots:
                self._pools[role].join(slot, number, hello.device)

    def _heard(self, number: int, answer: Answer) -> None:
        for (role, slot), words in answer.logs.items():
            self._pools[role].log(slot, words)
        for said in answer.said:
            if number not in self._agents:
                return  # it was given up meanwhile
            if isinstance(said.message, Failed) and said.message.errno in DISK_FULL:
                self._set_node_aside(number, said.message.traceback.strip().splitlines()[-1])
            else:
                if isinstance(said.message, Sealed):
                    self._losses[self._agents[number].plan.node.node_id] = 0
                self._pools[said.role].hear(said)

    def _lose(self, number: int, reason: str) -> None:
        """Gives an agent up; another one is started where its node is still there, unless that went wrong too often."""
        agent = self._agents.pop(number, None)
        if agent is None:
            return
        self._connection.drop(number)
        for role, slots in agent.slots.items():
            for slot in slots:
                self._pools[role].lose(slot, reason)
        node = agent.plan.node
        self._losses[node.node_id] += 1
        if self._losses[node.node_id] >= IN_A_ROW:
            self._unusable.add(node.node_id)
        self._start_missing()

    def _set_node_aside(self, number: int, reason: str) -> None:
        """Works with a node no longer whose own disk is full."""
        node = self._agents[number].plan.node
        self._unusable.add(node.node_id)
        for other, agent in list(self._agents.items()):
            if agent.plan.node.node_id == node.node_id:
                del self._agents[other]
                self._connection.end([other])
                for role, slots in agent.slots.items():
                    for slot in slots:
                        self._pools[role].refuse(slot, f"node {node.host} has no room: {reason}")
        self._start_missing()

    def refuse_node_of(self, number: int) -> None:
        """Starts no more agents on a node whose platform is not the run's."""
        if number in self._agents:
            self._unusable.add(self._agents[number].plan.node.node_id)

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

    def files_for(self, number: int, paths: Collection[Path]) -> tuple[dict, dict, list[str]]:
        """Returns what an agent has to know of the files of its next job, and notes that it has them then.

        Returns:
            path as given -> sha256 and name; sha256 -> name and content of those that it lacks; hashes to forget.

        Raises:
            OSError: one cannot be read.
        """
        agent, known, sent = self._agents[number], {}, {}
        for path in paths:
            data = path.read_bytes()
            sha256 = hashlib.sha256(data).hexdigest()
            known[path] = sha256, path.name
            if agent.files.get(sha256) != path.name:
                sent[sha256] = path.name, data
            agent.files[sha256] = path.name
            agent.files.move_to_end(sha256)
        keep = KEPT_FILES + 2 * sum(len(slots) for slots in agent.slots.values())
        forget = [agent.files.popitem(last=False)[0] for _ in range(len(agent.files) - keep)]
        return known, sent, forget

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
            known, sent, forget = self._engine.files_for(number, paths)
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

    def join(self, slot: int, number: int, device: Any) -> None:
        """Takes a slot in, of the agent with that number."""
        self.devices[slot], self._agent_of[slot] = device, number
        self._happened.append(PoolEvent(self.role, slot, Joined()))

    def lose(self, slot: int, reason: str) -> None:
        """Takes a slot out that is gone."""
        if self._agent_of.pop(slot, None) is None:
            return  # it had not joined yet, or was retired
        self._held.pop(slot, None)
        self._happened.append(PoolEvent(self.role, slot, Lost(reason), self.workers.pop(slot, None)))

    def refuse(self, slot: int, reason: str) -> None:
        """Says that a slot must not be used, if it has joined."""
        if slot in self._agent_of:
            self._happened.append(PoolEvent(self.role, slot, Unusable(reason), self.workers.get(slot)))

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
                self._folder.write(self._folder.root / name, data)
        except OSError as error:
            if not is_disk_full(error):
                raise
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
        while self._held:
            slot, ready = self._held.popitem()
            reason = self._choice.refusal(ready.platform)
            if reason:
                self._engine.refuse_node_of(self._agent_of[slot])
                self.refuse(slot, reason)
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
