"""Makes the sampler's steps in place, by a few kernels around an evaluation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import warp as wp
from jaxtyping import Bool
from torch import Tensor

from bimangrasp.energy.fused import sampler_kernels as kernels
from bimangrasp.energy.fused.evaluator import CUDA_BLOCK, FusedEvaluator
from bimangrasp.sampler import mala, momentum
from bimangrasp.sampler.config import MomentumConfig, OptimizerConfig
from bimangrasp.sampler.mala import Point


class StepInPlace:
    """What a sampler's step returns, written over what it was given."""

    def __init__(self, costs: FusedEvaluator, tiles: Sequence[slice]):
        """Takes an evaluator and the rows that it evaluates at once."""
        self._costs, self._tiles = costs, tiles
        self._state: Any = None
        self._kept: list[Tensor] = []  # their memory is the launches'

    def __call__(self, state: Any) -> tuple[Any, Bool[Tensor, " batch"]]:
        """Makes a step; the same state must come at every call."""
        if self._state is not state:
            point = state.point
            self._state, self._kept, self._proposals = state, [], Point(*map(torch.empty_like, point))
            self._accepted = torch.zeros(len(point.energy), dtype=torch.bool, device=point.energy.device)
            self._before, self._after = self._recorded(state)
        self._draw()
        stream, proposals = self._costs.stream(), self._proposals
        for launch in self._before:
            launch.launch(stream)
        for rows in self._tiles:
            into = proposals.energy[rows], proposals.gradient[rows]
            self._costs.evaluate_into(proposals.position[rows], proposals.choice[rows], rows, *into)
        for launch in self._after:
            launch.launch(stream)
        return state, self._accepted

    def _draw(self) -> None:
        """Draws the random numbers of a step."""

    def _recorded(self, state: Any) -> tuple[list[wp.Launch], list[wp.Launch]]:
        """Returns what runs before and after an evaluation, on the memory of this state."""
        raise NotImplementedError

    def _array(self, tensor: Tensor) -> wp.array:
        """Returns a tensor as kernels take it."""
        self._kept.append(tensor)
        return wp.from_torch(tensor)

    def _filled(self, kind: wp.Struct, columns: Any) -> Any:
        """Returns a struct of this kind with the tensors of a named tuple under the same names."""
        struct = kind()
        for name in kind.vars:
            if hasattr(columns, name):
                setattr(struct, name, self._array(getattr(columns, name)))
        return struct

    def _points(self, point: Point) -> kernels.Points:
        """Returns points as kernels take them."""
        return self._filled(kernels.Points, point)

    def _launch(self, kernel: wp.Kernel, dims: Sequence[int], *inputs: object) -> wp.Launch:
        """Returns a recorded launch."""
        device = self._costs.device
        block = {"block_dim": CUDA_BLOCK} if device.is_cuda else {}
        return wp.launch(kernel, tuple(dims), list(inputs), device=device, record_cmd=True, **block)


class LangevinStep(StepInPlace):
    """What `mala.step` returns, with the same random numbers."""

    def __init__(
        self,
        costs: FusedEvaluator,
        tiles: Sequence[slice],
        choices: int,
        config: OptimizerConfig,
        schedule: mala.Schedule,
        generator: torch.Generator,
    ):
        """Takes an evaluator and the rows that it evaluates at once; the others are those of `mala.step`."""
        super().__init__(costs, tiles)
        self._choices, self._config, self._schedule, self._generator = choices, config, schedule, generator

    def _draw(self) -> None:
        mala.draw(self._draws, self._choices, self._generator)

    def _recorded(self, state: mala.State) -> tuple[list[wp.Launch], list[wp.Launch]]:
        config, point = self._config, state.point
        batch, hands, size = point.position.shape
        self._draws = mala.Draws.room(point)
        constants = kernels.Langevin()
        constants.decay, constants.floor = config.second_moment_decay, config.preconditioner_floor
        constants.noise_factor = config.noise_factor
        constants.is_own, constants.has_ratio = config.preconditioner == "sample", config.proposal_ratio
        points, proposals = self._points(point), self._points(self._proposals)
        best = self._points(state.best or point)
        annealing = self._filled(kernels.Annealing, self._schedule)
        draws = self._filled(kernels.Draws, self._draws)
        step, second, accepted = map(self._array, (state.step, state.second_moment, self._accepted))
        made = self._array(torch.zeros_like(state.step))
        before = []
        if not constants.is_own:
            chunks = -(-batch // kernels.CHUNK)
            sums = self._array(point.position.new_zeros(chunks, hands, size))
            sound = self._array(point.position.new_zeros(chunks))
            before += [
                self._launch(kernels.square_sums, (chunks, hands, size), points, sums, sound),
                self._launch(kernels.shared_moment, (hands, size), constants, sums, sound, second),
            ]
        widest = max(size, point.choice.shape[2])
        given = (constants, annealing, draws)
        before.append(
            self._launch(
                kernels.propose_langevin, (batch, hands, widest), points, *given, step, second, proposals, made
            )
        )
        kept = (points, best, state.best is not None, step, accepted)
        return before, [self._launch(kernels.settle_langevin, (batch,), proposals, *given, second, made, *kept)]


class MomentumStep(StepInPlace):
    """What `momentum.step` returns."""

    def __init__(self, costs: FusedEvaluator, tiles: Sequence[slice], config: MomentumConfig, plan: momentum.Plan):
        """Takes an evaluator and the rows that it evaluates at once; the others are those of `momentum.step`."""
        super().__init__(costs, tiles)
        self._config, self._plan = config, plan

    def _recorded(self, state: momentum.State) -> tuple[list[wp.Launch], list[wp.Launch]]:
        point, config, plan = state.point, self._config, self._plan
        self._proposals = self._proposals._replace(choice=point.choice)
        constants = self._filled(kernels.Momentum, plan)
        constants.share_of_part = self._array(plan.mean.amax(dim=0))  # 0 from any part to the coordinates of others
        constants.first_decay, constants.second_decay = config.first_moment_decay, config.second_moment_decay
        points, proposals = self._points(point), self._points(self._proposals)
        best = self._points(state.best or point)
        moved = self._array(self._accepted)
        step, first, second = map(self._array, (state.step, state.first_moment, state.second_moment))
        dims = point.position.shape[:2]
        before = self._launch(kernels.propose_momentum, dims, points, constants, step, first, second, proposals)
        after = (proposals, points, best, state.best is not None, step, moved)
        return [before], [self._launch(kernels.settle_momentum, dims[:1], *after)]
