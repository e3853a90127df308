"""Makes the sampler's steps with momentum in two kernels around an evaluation; `sampler.momentum` is their oracle."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import warp as wp
from jaxtyping import Bool
from torch import Tensor

from bimangrasp.energy.fused.evaluator import CUDA_BLOCK, FusedEvaluator
from bimangrasp.sampler.config import MomentumConfig
from bimangrasp.sampler.momentum import FLOOR, Plan, State


@wp.kernel
def propose(
    gradient: wp.array3d(dtype=float),
    part: wp.array(dtype=wp.int64),
    share_of_part: wp.array(dtype=float),
    size: wp.array(dtype=float),
    share: wp.array(dtype=float),
    first_weight: wp.array(dtype=float),
    second_weight: wp.array(dtype=float),
    step: wp.array(dtype=wp.int64),
    first_decay: float,
    second_decay: float,
    position: wp.array3d(dtype=float),
    first: wp.array3d(dtype=float),
    second: wp.array3d(dtype=float),
    proposal: wp.array3d(dtype=float),
):
    """Brings the moments of a hand up to date and says where it would go; see `momentum.step`."""
    sample, hand = wp.tid()
    now = step[0]
    for p in range(second.shape[2]):
        square = float(0.0)
        for d in range(gradient.shape[2]):
            if int(part[d]) == p:
                square += gradient[sample, hand, d] * gradient[sample, hand, d]
        mean = square * share_of_part[p]
        second[sample, hand, p] = second_decay * second[sample, hand, p] + (1.0 - second_decay) * mean
    for d in range(gradient.shape[2]):
        moment = first_decay * first[sample, hand, d] + (1.0 - first_decay) * gradient[sample, hand, d]
        first[sample, hand, d] = moment
        scale = wp.sqrt(second[sample, hand, int(part[d])] / second_weight[now]) + FLOOR
        way = size[d] * share[now] * (moment / first_weight[now]) / scale
        proposal[sample, hand, d] = position[sample, hand, d] - way


@wp.kernel
def settle(
    proposal: wp.array3d(dtype=float),
    proposal_energy: wp.array(dtype=float),
    proposal_gradient: wp.array3d(dtype=float),
    position: wp.array3d(dtype=float),
    energy: wp.array(dtype=float),
    gradient: wp.array3d(dtype=float),
    best_position: wp.array3d(dtype=float),
    best_energy: wp.array(dtype=float),
    best_gradient: wp.array3d(dtype=float),
    keeps_best: bool,
    step: wp.array(dtype=wp.int64),
    moved: wp.array(dtype=bool),
):
    """Moves a sample whose energy and gradient are finite, and remembers it where it is the best so far."""
    sample = wp.tid()
    hands, size = gradient.shape[1], gradient.shape[2]
    is_sound = wp.isfinite(proposal_energy[sample])
    for h in range(hands):
        for d in range(size):
            is_sound = is_sound and wp.isfinite(proposal_gradient[sample, h, d])
    moved[sample] = is_sound
    if is_sound:
        energy[sample] = proposal_energy[sample]
        for h in range(hands):
            for d in range(size):
                position[sample, h, d] = proposal[sample, h, d]
                gradient[sample, h, d] = proposal_gradient[sample, h, d]
    is_known, was_known = not wp.isnan(energy[sample]), not wp.isnan(best_energy[sample])
    if keeps_best and is_known and (not was_known or energy[sample] < best_energy[sample]):
        best_energy[sample] = energy[sample]
        for h in range(hands):
            for d in range(size):
                best_position[sample, h, d] = position[sample, h, d]
                best_gradient[sample, h, d] = gradient[sample, h, d]
    if sample == 0:
        step[0] = step[0] + wp.int64(1)


class MomentumStep:
    """A step of a batch in place: what `momentum.step` returns, written over what it was given."""

    def __init__(self, costs: FusedEvaluator, tiles: Sequence[slice], config: MomentumConfig, plan: Plan):
        """Takes an evaluator.

        Args:
            costs: evaluates a tile at a time.
            tiles: rows of each.
            config: constants.
            plan: of the whole run.
        """
        self._costs, self._tiles, self._config, self._plan = costs, tiles, config, plan
        self._launches: tuple[wp.Launch, wp.Launch] | None = None
        self._state: State | None = None

    def __call__(self, state: State) -> tuple[State, Bool[Tensor, " batch"]]:
        """Makes a step; the same state must come at every call."""
        if self._state is not state:
            self._take(state)
        first, last = self._launches
        stream = self._costs.stream()
        first.launch(stream)
        for rows in self._tiles:
            choice = state.point.choice[rows]
            self._costs.evaluate_into(self._proposal[rows], choice, rows, self._energy[rows], self._gradient[rows])
        last.launch(stream)
        return state, self._moved

    def _take(self, state: State) -> None:
        """Records both kernels on a state's memory."""
        point, plan, config = state.point, self._plan, self._config
        self._state, self._proposal = state, torch.empty_like(point.position)
        self._energy, self._gradient = torch.empty_like(point.energy), torch.empty_like(point.gradient)
        self._moved = torch.zeros(len(point.energy), dtype=torch.bool, device=point.energy.device)
        best = state.best or point
        share_of_part = plan.mean.amax(dim=0)  # 1 over the coordinates of a part
        constants = (plan.part, share_of_part, plan.size, plan.share, plan.first_weight, plan.second_weight)
        self._kept = [point.gradient, *constants, state.step, point.position, state.first_moment, state.second_moment]
        decays = (config.first_moment_decay, config.second_moment_decay)
        gradient, *columns = (wp.from_torch(tensor) for tensor in self._kept[: 1 + len(constants) + 1])
        moved = [wp.from_torch(tensor) for tensor in (*self._kept[-3:], self._proposal)]
        before = (gradient, *columns, *decays, *moved)
        after = [self._proposal, self._energy, self._gradient, point.position, point.energy, point.gradient]
        after += [best.position, best.energy, best.gradient]
        last = (*map(wp.from_torch, after), state.best is not None, *map(wp.from_torch, (state.step, self._moved)))
        device = self._costs.device
        block = {"block_dim": CUDA_BLOCK} if device.is_cuda else {}
        self._launches = (
            wp.launch(propose, point.position.shape[:2], list(before), device=device, record_cmd=True, **block),
            wp.launch(settle, len(point.energy), list(last), device=device, record_cmd=True, **block),
        )
