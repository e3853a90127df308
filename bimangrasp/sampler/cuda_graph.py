"""Makes the sampler's steps in place, on a GPU as one recorded CUDA graph."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from bimangrasp.sampler.mala import Point, State

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
    ):
        """Takes a batch at its start.

        Args:
            state: before the first step.
            step: makes the next state; see `mala.step`.
            generator: the one that `step` draws from.
            is_recorded: whether steps become a CUDA graph; `step` must then wait for nothing and have fixed shapes.
        """
        self.state = _same(state, Tensor.clone)
        self.accepted: Int[Tensor, ""] = torch.zeros((), dtype=torch.int64, device=state.step.device)
        self._step, self._generator = step, generator
        self._eager_steps = EAGER_STEPS if is_recorded else math.inf
        self._graph: torch.cuda.CUDAGraph | None = None

    def advance(self) -> None:
        """Makes one step; a GPU may still be at it on return."""
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
        for present, following in zip(_leaves(self.state), _leaves(state), strict=True):
            present.copy_(following)

    def _recorded(self) -> torch.cuda.CUDAGraph:
        """Returns a step that is not made yet."""
        graph = torch.cuda.CUDAGraph()
        graph.register_generator_state(self._generator)
        with torch.cuda.graph(graph, capture_error_mode="thread_local"):
            self._advance()
        return graph


def _leaves(state: State) -> Iterator[Tensor]:
    """Yields all tensors of a state."""
    yield from (*state.point, *(state.best or ()), state.second_moment, state.step)


def _same(state: State, change: Callable[[Tensor], Tensor]) -> State:
    """Returns a state of changed tensors."""
    point, best = (point and Point(*map(change, point)) for point in (state.point, state.best))
    return State(point, best, change(state.second_moment), change(state.step))
