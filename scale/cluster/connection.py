"""Connects to a Ray cluster, checks its nodes, and listens to agents and to nodes in threads of its own."""

from __future__ import annotations

import logging
import os
import queue
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from multiprocessing import Pipe
from typing import Any, NamedTuple

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from bimangrasp.errors import InputError
from scale.cluster.agent import END_S, PACKAGES, Agent, Answer, Hello, Terms, version_differences, versions
from scale.cluster.layout import AgentPlan, Node
from scale.settings.schema import RayConfig

CONNECT_S = 30.0
LOOK_S = 2.0
"""Between two looks at the nodes."""
LOOK_AT_MOST_S = 0.1
"""So long the parent takes post in before it does something else."""
HEAD_TRIES = 5
"""So many looks in a row at which the head does not answer end the run."""


class Nodes(NamedTuple):
    """The nodes that are alive."""

    nodes: list[Node]


class Gone(NamedTuple):
    """An agent is no longer there, or does not answer."""

    reason: str


class HeadGone(NamedTuple):
    """The cluster itself is no longer there."""

    reason: str


Post = Nodes | Hello | Answer | Gone | HeadGone
"""What the threads tell the parent's loop."""


class Connection:
    """The parent's side of a cluster.

    Attributes:
        wake: can be read when there is post.
    """

    def __init__(self, config: RayConfig) -> None:
        self._config = config
        with _signals_kept():
            _join(config.address)
        self._head = ray.get_runtime_context().gcs_address
        self._agent_class = ray.remote(concurrency_groups={"do": 1, "hear": 1})(Agent)
        self._post: queue.SimpleQueue[tuple[int, Post]] = queue.SimpleQueue()
        self._new: queue.SimpleQueue[tuple[int, Any]] = queue.SimpleQueue()
        self._handles: dict[int, Any] = {}
        self.wake, self._waker = Pipe(duplex=False)
        self._is_open = True
        self._threads = [threading.Thread(target=body, daemon=True) for body in (self._listen, self._watch)]

    def nodes(self) -> list[Node]:
        """Returns the nodes that are alive, in an order that does not change."""
        alive = [node for node in ray.nodes() if node["Alive"]]
        return sorted(
            Node(
                node["NodeID"],
                node["NodeManagerHostname"],
                int(node["Resources"].get("CPU", 0)),
                int(node["Resources"].get("GPU", 0)),
            )
            for node in alive
        )

    def check(self, nodes: list[Node]) -> None:
        """Refuses nodes with other versions of what is needed there.

        Raises:
            InputError: names the node, its version and the one that is wanted.
        """
        wanted = versions()
        asked = {
            ray.remote(num_cpus=0)(_asker()).options(scheduling_strategy=_on(node)).remote(): node for node in nodes
        }
        ready, late = ray.wait(list(asked), num_returns=len(asked), timeout=CONNECT_S)
        if late:
            names = ", ".join(asked[ref].host for ref in late)
            raise InputError(f"no process could be started within {CONNECT_S:.0f} s on {names}: see Ray's logs there")
        for ref in ready:
            try:
                has = ray.get(ref)
            except ray.exceptions.RayError as error:
                raise InputError(f"node {asked[ref].host} cannot run anything: {_in_short(error)}") from error
            differing = version_differences(has, wanted)
            if differing:
                raise InputError(
                    f"node {asked[ref].host} cannot take part ({differing}): wanted the same versions on "
                    f"all nodes, so install them there, or leave that node out"
                )

    # ---- agents

    def listen(self) -> None:
        """Begins to gather post."""
        for thread in self._threads:
            thread.start()

    def start(self, number: int, name: str, plan: AgentPlan, terms: Terms) -> None:
        """Asks Ray for an agent; `Hello` is its first post, as soon as its node has room."""
        handle = self._agent_class.options(
            name=name,
            num_cpus=plan.cpus,
            num_gpus=plan.gpus,
            max_restarts=0,
            max_task_retries=0,
            scheduling_strategy=_on(plan.node),
        ).remote(terms)
        self._handles[number] = handle
        self._new.put((number, handle.hello.options(concurrency_group="hear").remote()))

    def tell(self, number: int, *commands: Any) -> None:
        """Leaves commands for an agent; one that is gone does not get them."""
        if number in self._handles:
            self._handles[number].do.options(concurrency_group="do").remote(*commands)

    def end(self, numbers: Collection[int]) -> None:
        """Ends agents with their processes and folders, those that cannot be reached without waiting long for them."""
        ending = [self._handles[n].end.options(concurrency_group="do").remote() for n in numbers if n in self._handles]
        if ending:
            ray.wait(ending, num_returns=len(ending), timeout=END_S)
        for number in numbers:
            self.drop(number)

    def end_aside(self, number: int) -> None:
        """The same of one agent, while the caller goes on."""
        threading.Thread(target=self.end, args=([number],), daemon=True).start()

    def drop(self, number: int) -> None:
        """Ends an agent, if it can be reached; nothing of it is posted any more."""
        handle = self._handles.pop(number, None)
        if handle is not None:
            ray.kill(handle, no_restart=True)

    def post(self) -> Iterator[tuple[int, Post]]:
        """Yields what has come, each with the number of its agent, and leaves the rest when that takes long."""
        while self.wake.poll():
            self.wake.recv_bytes()
        begun = time.monotonic()
        with suppress(queue.Empty):
            while time.monotonic() - begun < LOOK_AT_MOST_S:
                number, what = self._post.get_nowait()
                if number in self._handles or isinstance(what, Nodes | HeadGone):
                    yield number, what
            self._waker.send_bytes(b".")

    def close(self) -> None:
        """Leaves the cluster; one that was started for this run ends."""
        self._is_open = False
        for thread in filter(threading.Thread.is_alive, self._threads):
            thread.join()
        with _signals_kept():
            ray.shutdown()

    # ---- threads

    def _put(self, number: int, what: Post) -> None:
        self._post.put((number, what))
        self._waker.send_bytes(b".")

    def _listen(self) -> None:
        """Asks every agent again and again what is new; each has one question open."""
        asked: dict[Any, tuple[int, float]] = {}
        while self._is_open:
            with suppress(queue.Empty):
                while True:
                    number, question = self._new.get_nowait()
                    asked[question] = number, float("inf")  # it may wait for room for hours
            self._take_answers(asked)
            self._give_up_silent(asked)

    def _take_answers(self, asked: dict[Any, tuple[int, float]]) -> None:
        """Posts the answers that have come, and asks on."""
        if not asked:
            time.sleep(0.05)
            return
        ready, _ = ray.wait(list(asked), num_returns=1, timeout=0.1)
        for question in ready:
            number, _ = asked.pop(question)
            try:
                answer = ray.get(question)
            except ray.exceptions.RayError as error:
                self._put(number, Gone(_in_short(error)))
                continue
            if isinstance(answer, Hello) or answer.said or answer.logs:
                self._put(number, answer)
            handle = self._handles.get(number)
            if handle is not None:
                deadline = time.monotonic() + self._config.lease_s
                asked[handle.hear.options(concurrency_group="hear").remote()] = number, deadline

    def _give_up_silent(self, asked: dict[Any, tuple[int, float]]) -> None:
        """Posts that agents are gone which do not answer for as long as they live without a question."""
        for question, (number, deadline) in list(asked.items()):
            if number not in self._handles:
                del asked[question]
            elif time.monotonic() > deadline:
                del asked[question]
                self._put(number, Gone(f"no answer for {self._config.lease_s:g} s (ray.lease_s)"))

    def _watch(self) -> None:
        """Posts which nodes there are, whenever that changes, and that the head is gone."""
        before, misses = None, 0
        while self._is_open:
            host, _, port = self._head.rpartition(":")
            try:
                socket.create_connection((host.strip("[]"), int(port)), timeout=LOOK_S).close()
                nodes, misses = self.nodes(), 0
            except (OSError, ray.exceptions.RayError) as error:
                nodes, misses = before, misses + 1
                if misses == HEAD_TRIES:
                    self._put(-1, HeadGone(f"the head of the Ray cluster, {self._head}, does not answer: {error}"))
            if nodes != before:
                before = nodes
                self._put(-1, Nodes(nodes))
            end = time.monotonic() + LOOK_S
            while self._is_open and time.monotonic() < end:
                time.sleep(0.1)


def _asker() -> Callable[[], dict[str, str]]:
    """Returns what asks a node for its versions. It travels by value, for the node may lack this package."""
    names = PACKAGES

    def ask() -> dict[str, str]:
        from importlib import metadata

        installed = {str(package.metadata["Name"]).lower(): package.version for package in metadata.distributions()}
        return {"Python": sys.version.split()[0]} | {name: installed.get(name, "none") for name in names}

    return ask


def _join(address: str) -> None:
    """Connects this process to a cluster, or starts one on this machine.

    Raises:
        InputError: there is none, or one of another version.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # what a run does is nobody else's business
    if address.startswith("ray://"):
        raise InputError(f"ray.address={address}: wanted host:port, from a node of the cluster, or auto")
    host, _, port = address.rpartition(":")
    if host:
        _wait_for(address, host.strip("[]"), port)
    quiet = {"log_to_driver": False, "logging_level": logging.ERROR, "include_dashboard": None if address else False}
    try:
        ray.init(address=address or "local", **quiet)
    except (ConnectionError, RuntimeError, ValueError) as error:
        where = f"ray.address={address}" if address else "a cluster on this machine"
        raise InputError(f"{where}: {_in_short(error)}; wanted a cluster that `ray start --head` began") from error


def _wait_for(address: str, host: str, port: str) -> None:
    """Returns when something listens at an address."""
    deadline = time.monotonic() + CONNECT_S
    while True:
        try:
            socket.create_connection((host, int(port)), timeout=CONNECT_S).close()
            return
        except (OSError, ValueError) as error:
            if time.monotonic() > deadline or isinstance(error, ValueError):
                raise InputError(
                    f"ray.address={address}: no Ray there within {CONNECT_S:.0f} s ({error}); wanted the address that "
                    f"`ray start --head` tells, or nothing for a cluster on this machine"
                ) from error
        time.sleep(0.5)


@contextmanager
def _signals_kept() -> Iterator[None]:
    """Keeps the handlers of signals; Ray sets its own."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = {number: signal.getsignal(number) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)


def _on(node: Node) -> NodeAffinitySchedulingStrategy:
    return NodeAffinitySchedulingStrategy(node.node_id, soft=False)


def _in_short(error: Exception) -> str:
    """Returns the first line that says something, of what Ray says in many."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return next((line for line in lines if not line.startswith("\x1b")), type(error).__name__)
