"""Makes the sampler's steps in place, on a GPU as one recorded CUDA graph."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from bimangrasp.sampler import mala, momentum
from bimangrasp.sampler.mala import Point

State = mala.State | momentum.State

EAGER_STEPS = 3
"""Steps made before the recording: they load kernels and libraries, which a recording may not."""


class Descent:
    """A batch on its way down.

    A step is some eighty small kernels; launching them one by one costs more than they take where the batch is small.
    So on a GPU the first steps run as they are, then one is recorded, and every further one is a replay: the same
    kernels on the same memory, with the same random numbers.

    Attributes:
        state: where the batch is; every step writes over it.
        accepted: proposals accepted since the start, on the device.
    """

    def __init__(
        self,
        state: State,
        step: Callable[[State], tuple[State, Bool[Tensor, " batch"]]],
        generator: torch.Generator,
        is_recorded: bool,
        revise: Callable[[int, State], State | None] | None = None,
    ):
        """Takes a batch at its start.

        Args:
            state: before the first step.
            step: makes the next state; see `mala.step`.
            generator: the one that `step` draws from.
            is_recorded: whether steps become a CUDA graph; `step` must then wait for nothing and have fixed shapes.
            revise: before each step, from the number of steps made and the present state: what to put in its place, or
                None. It is not recorded.
        """
        self.state = _copy(state)
        self.accepted: Int[Tensor, ""] = torch.zeros((), dtype=torch.int64, device=state.step.device)
        self._step, self._generator, self._revise, self._made = step, generator, revise, 0
        self._eager_steps = EAGER_STEPS if is_recorded and can_record() else math.inf
        self._graph: torch.cuda.CUDAGraph | None = None

    def advance(self) -> None:
        """Makes one step; a GPU may still be at it on return."""
        revised = self._revise(self._made, self.state) if self._revise else None
        if revised is not None:
            self._write(revised)
        self._made += 1
        if self._eager_steps:
            self._eager_steps -= 1
            self._advance()
            return
        if self._graph is None:
            self._graph = self._recorded()
        self._graph.replay()

    def _advance(self) -> None:
        """Makes one step: computes the next state and writes it over the present one."""
        state, accepted = self._step(self.state)
        self.accepted += accepted.sum()
        self._write(state)

    def _write(self, state: State) -> None:
        """Puts another state in the place of the present one, in the same memory."""
        for present, following in zip(_leaves(self.state), _leaves(state), strict=True):
            if present is not following:  # some steps write in place
                present.copy_(following)

    def _recorded(self) -> torch.cuda.CUDAGraph:
        """Returns a step that is not made yet."""
        graph = torch.cuda.CUDAGraph()
        graph.register_generator_state(self._generator)
        with torch.cuda.graph(graph, capture_error_mode="thread_local"):
            self._advance()
        return graph


def can_record() -> bool:
    """Whether this PyTorch can record steps that draw random numbers; old ones make every step as it is."""
    return hasattr(torch.cuda.CUDAGraph, "register_generator_state")


def _leaves(state: State | Point) -> Iterator[Tensor]:
    """Yields all tensors of a state."""
    for part in state:
        if isinstance(part, Tensor):
            yield part
        elif part is not None:
            yield from _leaves(part)


def _copy(state: Any) -> Any:
    """Returns the same state in memory of its own."""
    if isinstance(state, Tensor):
        return state.clone()
    return state and type(state)(*map(_copy, state))
