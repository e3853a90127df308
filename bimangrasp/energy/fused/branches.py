"""Runs the kernels of an evaluation, on a GPU those that do not wait for each other side by side."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import torch
import warp as wp

IS_BESIDE = True
"""Whether a GPU runs the branches of a stage side by side; benchmarks compare it with one after another."""


class Kernel(NamedTuple):
    """One kernel of an evaluation, recorded with its arguments.

    Attributes:
        part: what it belongs to, for those who measure.
        launch: the recorded launch.
        dims: its dimensions behind the batch's.
    """

    part: str
    launch: wp.Launch
    dims: tuple[int, ...]

    def run(self, rows: int, stream: wp.Stream | None) -> None:
        """Runs it on the first rows of the workspace."""
        self.launch.set_dim((rows, *self.dims))
        self.launch.launch(stream)


class _Fork(NamedTuple):
    """What the further branches of a stage need on a GPU: a stream for each, and events for begin and ends."""

    streams: list[torch.cuda.Stream]
    begun: torch.cuda.Event
    ended: list[torch.cuda.Event]


class Program:
    """The kernels of an evaluation in stages, each of which waits for all of the one before.

    A stage has branches, which write to memory of their own and wait for none of each other. A small batch leaves most
    of a GPU idle, so there a stage takes as long as its longest branch. Forks and joins are events, which a CUDA graph
    that is being recorded takes as its edges.

    Attributes:
        stages: stage, branch, kernel.
    """

    def __init__(self, device: torch.device):
        """Begins with one empty branch of one stage, for a device."""
        self.stages: list[list[list[Kernel]]] = [[[]]]
        self._device = device
        self._forks: dict[int, _Fork] = {}
        self._known: dict[int, wp.Stream] = {}

    def add(self, kernel: Kernel) -> None:
        """Adds a kernel behind the last."""
        self.stages[-1][-1].append(kernel)

    def branch(self) -> None:
        """Begins another branch: what is added next waits for no other kernel of the stage."""
        self.stages[-1].append([])

    def stage(self) -> None:
        """Begins another stage: what is added next waits for all kernels so far."""
        self.stages.append([[]])

    @property
    def kernels(self) -> list[Kernel]:
        """All of them, in an order in which one may run after another."""
        return [kernel for stage in self.stages for branch in stage for kernel in branch]

    def run(self, rows: int) -> None:
        """Runs all kernels on the first rows of the workspace; waits for no device."""
        if self._device.type != "cuda":
            _run(self.kernels, rows, None)
            return
        main = torch.cuda.current_stream(self._device)
        for number, branches in enumerate(self.stages):
            if IS_BESIDE and len(branches) > 1:
                self._run_beside(number, branches, rows, main)
            else:
                _run((kernel for branch in branches for kernel in branch), rows, self.known(main))

    def _run_beside(self, number: int, branches: list[list[Kernel]], rows: int, main: torch.cuda.Stream) -> None:
        """Runs the first branch of a stage on the current stream and each other one on a stream of its own."""
        if number not in self._forks:
            others = range(len(branches) - 1)
            streams = [torch.cuda.Stream(self._device) for _ in others]
            self._forks[number] = _Fork(streams, torch.cuda.Event(), [torch.cuda.Event() for _ in others])
        fork = self._forks[number]
        fork.begun.record(main)
        for branch, stream, ended in zip(branches[1:], fork.streams, fork.ended, strict=True):
            stream.wait_event(fork.begun)
            _run(branch, rows, self.known(stream))
            ended.record(stream)
        _run(branches[0], rows, self.known(main))
        for ended in fork.ended:
            main.wait_event(ended)

    def known(self, stream: torch.cuda.Stream) -> wp.Stream:
        """Returns a stream of PyTorch as Warp knows it."""
        if stream.cuda_stream not in self._known:
            self._known[stream.cuda_stream] = wp.stream_from_torch(stream)
        return self._known[stream.cuda_stream]


def _run(kernels: Iterable[Kernel], rows: int, stream: wp.Stream | None) -> None:
    for kernel in kernels:
        kernel.run(rows, stream)
