"""Descends any energy in few steps: with momentum, and a step size for each kind of coordinate.

The update is Adam's (Kingma and Ba 2015) with one second moment for all coordinates of a part: positions, rotations and
joints of a hand each move by their own step size at the start, whatever their gradients are, and by `last_share` of it
at the end. Every step is taken; indices do not change here (`with_choice`).
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from bimangrasp.sampler.config import MomentumConfig
from bimangrasp.sampler.mala import Energy, Point, better, checked, where

FLOOR = 1e-6
"""Added to the root of the second moment."""


class State(NamedTuple):
    """All that evolves.

    Attributes:
        point: the present one of each sample.
        best: the one of least energy seen, where the result is to be that; else None.
        first_moment: running mean of gradients.
        second_moment: running mean of their mean squares over a part.
        step: how many steps were made, on the device.
    """

    point: Point
    best: Point | None
    first_moment: Float[Tensor, "batch group dof"]
    second_moment: Float[Tensor, "batch group part"]
    step: Int[Tensor, "1"]


class Plan(NamedTuple):
    """What is constant in a run.

    Attributes:
        part: the part of each coordinate, 0 to P - 1.
        mean: takes coordinates to the mean of each part: a fixed product rather than a sum in any order.
        size: step size of each coordinate before the decay.
        share: of the step size that each step takes.
        first_weight, second_weight: what the moments add up to at each step, by which they are divided.
    """

    part: Int[Tensor, " dof"]
    mean: Float[Tensor, "dof part"]
    size: Float[Tensor, " dof"]
    share: Float[Tensor, " step"]
    first_weight: Float[Tensor, " step"]
    second_weight: Float[Tensor, " step"]


def plan(
    config: MomentumConfig,
    sizes: list[int],
    steps: int,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
) -> Plan:
    """Returns the plan of a run of `steps` steps.

    Args:
        config: step sizes of the parts, in their order, and decays.
        sizes: how many coordinates each part has; they follow each other.
        steps: of the run.
        device: where it runs.
        dtype: of positions.
    """
    done = torch.arange(steps, dtype=torch.float64)
    part = torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(sizes))
    step_sizes = torch.tensor([config.translation_step, config.rotation_step, config.joint_step])
    columns = (
        torch.block_diag(*(torch.full((count, 1), 1 / count) for count in sizes)),
        step_sizes[part],
        config.last_share ** (done / max(steps - 1, 1)),
        1 - config.first_moment_decay ** (done + 1),
        1 - config.second_moment_decay ** (done + 1),
    )
    return Plan(part.to(device), *(column.to(device, dtype) for column in columns))


def init(
    position: Float[Tensor, "batch group dof"],
    choice: Int[Tensor, "batch group index"],
    energy: Energy,
    plan: Plan,
    keeps_best: bool,
) -> State:
    """Returns the state before the first step."""
    point = Point(position, choice, *checked(energy(position, choice)))
    parts = position.new_zeros((*position.shape[:2], plan.mean.shape[1]))
    step = torch.zeros(1, dtype=torch.int64, device=position.device)
    return State(point, point if keeps_best else None, torch.zeros_like(position), parts, step)


def step(state: State, energy: Energy, config: MomentumConfig, plan: Plan) -> tuple[State, Bool[Tensor, " batch"]]:
    """Returns the state after one step, and which samples moved: all that did not fail.

    Args:
        state: before the step.
        energy: of positions and choices; called once, on the whole batch.
        config: constants.
        plan: of the whole run.
    """
    first_decay, second_decay = config.first_moment_decay, config.second_moment_decay
    gradient = state.point.gradient
    square = gradient.square() @ plan.mean
    first = first_decay * state.first_moment + (1 - first_decay) * gradient
    second = second_decay * state.second_moment + (1 - second_decay) * square
    share, first_weight, second_weight = (
        column.index_select(0, state.step) for column in (plan.share, plan.first_weight, plan.second_weight)
    )
    scale = (second / second_weight).sqrt().index_select(2, plan.part) + FLOOR
    position = state.point.position - plan.size * share * (first / first_weight) / scale
    proposal = Point(position, state.point.choice, *checked(energy(position, state.point.choice)))
    sound = ~proposal.energy.isnan()
    point = where(sound, proposal, state.point)
    best = None if state.best is None else better(point, state.best)
    return State(point, best, first, second, state.step + 1), sound


def with_choice(state: State, choice: Int[Tensor, "batch group index"], energy: Energy) -> State:
    """Returns the state with other indices, its energies taken anew; what was best under other indices is forgotten."""
    position = state.point.position
    point = Point(position, choice, *checked(energy(position, choice)))
    return state._replace(point=point, best=None if state.best is None else point)
