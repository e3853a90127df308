"""Decides which agents a cluster's nodes get: workers first, then validators on the CPUs that are left. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

from scale.engine.devices import MAX_CPU_WORKERS

VALIDATORS_PER_AGENT = 16
"""An agent for each would cost a process of 80 MB and a message now and then for every core."""


class Node(NamedTuple):
    """A node of the cluster.

    Attributes:
        node_id: as Ray calls it.
        host: for people.
        cpus, gpus: that Ray may give away there.
    """

    node_id: str
    host: str
    cpus: int
    gpus: int


class Demand(NamedTuple):
    """What a call wants of a cluster.

    Attributes:
        on_gpus: whether workers are on GPUs.
        cpu_workers: how many there are in all where they are on CPUs; None for some on each node.
        workers_per_gpu: workers on each GPU.
        validators: how many there are in all; 0 for the CPUs that no worker needs; None where nothing is tested.
        tests_on_gpus: whether validators are on the workers' GPUs, one on each.
    """

    on_gpus: bool
    cpu_workers: int | None
    workers_per_gpu: int
    validators: int | None
    tests_on_gpus: bool


class AgentPlan(NamedTuple):
    """An agent to start on a node.

    Attributes:
        node: where.
        cpus, gpus: what it takes of Ray's.
        workers, validators: the slots that it brings.
    """

    node: Node
    cpus: int
    gpus: int
    workers: int
    validators: int


def missing_agents(
    nodes: Sequence[Node], present: Sequence[AgentPlan], demand: Demand, testing_nodes: Sequence[Node] | None = None
) -> list[AgentPlan]:
    """Returns the agents that are to be started.

    Args:
        nodes: those that workers may be on, in an order that does not change.
        present: the agents that there are, or that are being started.
        demand: see `Demand`.
        testing_nodes: those that validators may be on; the same where they are left out.
    """
    of_workers = _agents_of_workers(nodes, present, demand)
    present, nodes = [*present, *of_workers], nodes if testing_nodes is None else testing_nodes
    if demand.validators is None or demand.tests_on_gpus:
        return of_workers
    usable = {node.node_id for node in nodes}
    present = [agent for agent in present if agent.node.node_id in usable]
    free = {node.node_id: node.cpus for node in nodes}
    hosts_workers = Counter()
    for agent in present:
        free[agent.node.node_id] -= agent.cpus if agent.workers else 0
        hosts_workers[agent.node.node_id] += agent.workers
    testing = Counter()
    for agent in present:
        testing[agent.node.node_id] += agent.validators
    if demand.validators:
        sizes = {node.node_id: max(1, free[node.node_id]) for node in nodes}
        wanted = _spread(demand.validators, nodes, sizes, testing)
    else:  # a node that has none left tests what it makes beside making it, as one machine does
        wanted = {n.node_id: max(free[n.node_id], 1 if hosts_workers[n.node_id] else 0) for n in nodes}
    agents = []
    for node in nodes:
        room, left = free[node.node_id] - testing[node.node_id], wanted[node.node_id] - testing[node.node_id]
        while left > 0:
            count = min(left, VALIDATORS_PER_AGENT)
            cpus = max(0, min(count, room))
            agents.append(AgentPlan(node, cpus, 0, 0, count))
            left, room = left - count, room - cpus
    return of_workers + agents


def _agents_of_workers(nodes: Sequence[Node], present: Sequence[AgentPlan], demand: Demand) -> list[AgentPlan]:
    """Returns the agents of workers that are to be started: one for each GPU, or one for a node's CPU workers."""
    there: Counter[str] = Counter()
    for agent in present:
        there[agent.node.node_id] += agent.gpus if demand.on_gpus else agent.workers
    if demand.on_gpus:
        validators = 1 if demand.tests_on_gpus else 0
        of_gpu = [AgentPlan(node, 1, 1, demand.workers_per_gpu, validators) for node in nodes]
        return [agent for agent in of_gpu for _ in range(agent.node.gpus - there[agent.node.node_id])]
    if demand.cpu_workers is None:
        wanted = {node.node_id: min(MAX_CPU_WORKERS, node.cpus) for node in nodes}
    else:
        wanted = _spread(demand.cpu_workers, nodes, {node.node_id: max(1, node.cpus) for node in nodes}, there)
    missing = [(node, wanted[node.node_id] - there[node.node_id]) for node in nodes]
    return [AgentPlan(node, min(count, node.cpus), 0, count, 0) for node, count in missing if count > 0]


def _spread(count: int, nodes: Sequence[Node], sizes: dict[str, int], there: Counter[str]) -> dict[str, int]:
    """Returns how many of `count` each node gets, the emptiest for its size first; those that are there stay."""
    given = {node.node_id: there[node.node_id] for node in nodes}
    for _ in range(count - sum(given.values()) if nodes else 0):
        least = min(given, key=lambda node_id: (given[node_id] + 1) / sizes[node_id])
        given[least] += 1
    return given
