"""Runs a call on a Ray cluster: starts agents on its nodes, gives up those that are gone, and hears what they say."""

from __future__ import annotations

import hashlib
import itertools
import math
import time
import uuid
from collections import Counter, OrderedDict, defaultdict
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bimangrasp.errors import InputError
from scale.cluster.agent import Answer, Hello, Terms, version_differences, versions
from scale.cluster.connection import LOOK_S, Connection, Gone, HeadGone, Nodes
from scale.cluster.layout import AgentPlan, Demand, Node, missing_agents
from scale.cluster.ray_pool import RayPool
from scale.engine.devices import Device
from scale.engine.interfaces import (
    Failed,
    PiecesMade,
    RowsJudged,
    Sealed,
)
from scale.engine.pool import Crew
from scale.engine.scheduler import IN_A_ROW
from scale.errors import RunError
from scale.settings.parsing import parse_gpus
from scale.settings.schema import Config
from scale.store.durable_io import DISK_FULL
from scale.store.run_folder import VALIDATOR, WORKER, RunFolder

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
