"""Samples any energy: Langevin proposals with a preconditioner, annealing, and switching of indices.

The Metropolis-adjusted Langevin algorithm (MALA; Roberts and Tweedie 1996), changed as BimanGrasp does (Shao and Xiao,
RA-L 2024): a preconditioner from the running mean of squared gradients, less noise, an acceptance without the ratio of
proposal densities unless that is asked for, and a temperature that falls.

A position is a batch of groups of coordinates (for grasps a group is a hand), a choice a batch of groups of indices.
All evolving state goes in and comes out; a step asks the device for nothing, so a CUDA graph can record it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from bimangrasp.sampler.config import OptimizerConfig

RELEASED_SCHEDULE_STEPS = 6000
"""Length of the released schedule: after it the temperature accepts and the step moves next to nothing."""


class Evaluation(NamedTuple):
    """An energy and its gradient. A sample failed where its energy is NaN; its gradient is then 0."""

    energy: Float[Tensor, " batch"]
    gradient: Float[Tensor, "batch group dof"]


Energy = Callable[[Float[Tensor, "batch group dof"], Int[Tensor, "batch group index"]], Evaluation]


class Point(NamedTuple):
    """Where a sample is, and what it costs there."""

    position: Float[Tensor, "batch group dof"]
    choice: Int[Tensor, "batch group index"]
    energy: Float[Tensor, " batch"]
    gradient: Float[Tensor, "batch group dof"]


class State(NamedTuple):
    """All that evolves.

    Attributes:
        point: the present one of each sample.
        best: the one of least energy seen, where the result is to be that; else None.
        second_moment: running mean of squared gradients; batch axis of length 1 where it is shared.
        step: how many steps were made, on the device.
    """

    point: Point
    best: Point | None
    second_moment: Float[Tensor, "shared group dof"]
    step: Int[Tensor, "1"]


class Draws(NamedTuple):
    """The random numbers of one step, drawn over the whole batch.

    Attributes:
        noise: standard normal.
        redraw: uniform; an index is redrawn where this is below the chance.
        choice: the indices that are taken then.
        acceptance: uniform.
    """

    noise: Float[Tensor, "batch group dof"]
    redraw: Float[Tensor, "batch group index"]
    choice: Int[Tensor, "batch group index"]
    acceptance: Float[Tensor, " batch"]

    @classmethod
    def room(cls, point: Point) -> Draws:
        """Returns room for the numbers of one step."""
        position, choice = point.position, point.choice
        redraw = torch.empty(choice.shape, device=position.device, dtype=position.dtype)
        return cls(torch.empty_like(position), redraw, torch.empty_like(choice), torch.empty_like(point.energy))


class Schedule(NamedTuple):
    """What anneals, a step each.

    Attributes:
        step_size: of the proposal.
        temperature: of the proposal's noise, and of the acceptance one step later.
        switch_chance: that an index is redrawn.
    """

    step_size: Float[Tensor, " step"]
    temperature: Float[Tensor, " step"]
    switch_chance: Float[Tensor, " step"]

    def at(self, step: Int[Tensor, "1"]) -> Schedule:
        """Returns the schedule of one step, looked up on the device."""
        return Schedule(*(column.index_select(0, step) for column in self))


def schedule(
    config: OptimizerConfig, steps: int, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32
) -> Schedule:
    """Returns the schedule of a run of `steps` steps, from its start to its end inclusive.

    The released one is stretched or squeezed to the length that `schedule_steps` asks for.
    """
    length = min(steps, RELEASED_SCHEDULE_STEPS) if config.schedule_steps == "auto" else int(config.schedule_steps)
    released = torch.arange(steps + 1) * RELEASED_SCHEDULE_STEPS // max(length, 1)
    cooled = config.temperature_decay ** (released // config.temperature_decay_every).double()
    columns = (
        config.step_size * config.step_decay ** (released // config.step_decay_every).double(),
        config.temperature * cooled,
        (config.switch_probability * cooled.sqrt()).clamp_max(config.switch_probability_max),
    )
    return Schedule(*(column.to(device, dtype) for column in columns))


def init(
    position: Float[Tensor, "batch group dof"],
    choice: Int[Tensor, "batch group index"],
    energy: Energy,
    config: OptimizerConfig,
) -> State:
    """Returns the state before the first step."""
    point = Point(position, choice, *checked(energy(position, choice)))
    moment = torch.zeros_like(position if config.preconditioner == "sample" else position[:1])
    return State(
        point,
        point if config.keep == "best" else None,
        moment,
        torch.zeros(1, dtype=torch.int64, device=position.device),
    )


def step(
    state: State,
    energy: Energy,
    choices: int,
    config: OptimizerConfig,
    schedule: Schedule,
    generator: torch.Generator,
) -> tuple[State, Bool[Tensor, " batch"]]:
    """Returns the state after one step and which samples accepted their proposal.

    Args:
        state: before the step.
        energy: of positions and choices; called once, on the whole batch.
        choices: how many values an index can have.
        config: constants.
        schedule: of the whole run.
        generator: on the device of the state.
    """
    draws = draw(Draws.room(state.point), choices, generator)
    now, next_temperature = schedule.at(state.step), schedule.temperature.index_select(0, state.step + 1)
    moment = next_second_moment(state, config)
    position, choice = propose(state.point, moment, draws, now, config)
    proposal = Point(position, choice, *checked(energy(position, choice)))
    log_ratio = proposal_log_ratio(state.point, proposal, moment, now, config)
    accepted = accepts(state.point, proposal, log_ratio, next_temperature, draws.acceptance)
    point = where(accepted, proposal, state.point)
    best = None if state.best is None else better(point, state.best)
    return State(point, best, moment, state.step + 1), accepted


def draw(room: Draws, choices: int, generator: torch.Generator) -> Draws:
    """Returns the random numbers of one step, written into the room of others."""
    room.noise.normal_(generator=generator)
    room.redraw.uniform_(generator=generator)
    room.choice.random_(choices, generator=generator)
    room.acceptance.uniform_(generator=generator)
    return room


def next_second_moment(state: State, config: OptimizerConfig) -> Float[Tensor, "shared group dof"]:
    """Returns the running mean of squared gradients with the present gradients in it, failed samples left out."""
    squared = state.point.gradient.square()
    if config.preconditioner == "batch":
        sound = (~state.point.energy.isnan()).sum().clamp_min(1)
        squared = squared.sum(dim=0, keepdim=True) / sound
    return config.second_moment_decay * state.second_moment + (1 - config.second_moment_decay) * squared


def propose(
    point: Point, second_moment: Tensor, draws: Draws, now: Schedule, config: OptimizerConfig
) -> tuple[Float[Tensor, "batch group dof"], Int[Tensor, "batch group index"]]:
    """Returns where each sample would go: x - s g / P + f sqrt(2 s T / P) xi, and its indices, some redrawn.

    P is the root of the second moment, s the step size, T the temperature, f the noise factor. An index is redrawn
    with probability min(max, p sqrt(T / T_0)), the schedule's `switch_chance`.
    """
    scale = second_moment.sqrt() + config.preconditioner_floor
    spread = config.noise_factor * (2 * now.step_size * now.temperature / scale).sqrt()
    position = point.position - now.step_size * point.gradient / scale + spread * draws.noise
    return position, torch.where(draws.redraw < now.switch_chance, draws.choice, point.choice)


def accepts(
    point: Point,
    proposal: Point,
    log_ratio: Tensor | float,
    temperature: Float[Tensor, "1"],
    uniform: Float[Tensor, " batch"],
) -> Bool[Tensor, " batch"]:
    """Returns which proposals are accepted: with probability min(1, exp((E - E') / T + log ratio)).

    A failed proposal never is; from a failed point any other is.
    """
    chance = torch.exp((point.energy - proposal.energy) / temperature + log_ratio)
    return ~proposal.energy.isnan() & (point.energy.isnan() | (uniform < chance))


def proposal_log_ratio(
    point: Point, proposal: Point, second_moment: Tensor, now: Schedule, config: OptimizerConfig
) -> Float[Tensor, " batch"] | float:
    """Returns ln q(x | x') - ln q(x' | x), the second moment taken as the same both ways; 0 unless it is asked for."""
    if not config.proposal_ratio:
        return 0.0
    scale = second_moment.sqrt() + config.preconditioner_floor

    def log_density(target: Point, origin: Point) -> Tensor:
        error = target.position - origin.position + now.step_size * origin.gradient / scale
        variance = 2 * config.noise_factor**2 * now.step_size * now.temperature / scale
        return -(error.square() / variance).sum(dim=(1, 2)) / 2

    return log_density(point, proposal) - log_density(proposal, point)


def checked(evaluation: Evaluation) -> Evaluation:
    """Returns the evaluation with failed samples (anything not finite) marked: energy NaN, gradient 0."""
    sound = (0 * evaluation.energy + (0 * evaluation.gradient).sum(dim=(1, 2))) == 0
    return Evaluation(
        torch.where(sound, evaluation.energy, torch.nan),
        torch.where(sound[:, None, None], evaluation.gradient, 0),
    )


def better(point: Point, best: Point) -> Point:
    """Returns for each sample the point of less energy; any is better than a failed one."""
    is_better = (point.energy < best.energy) | (best.energy.isnan() & ~point.energy.isnan())
    return where(is_better, point, best)


def where(condition: Bool[Tensor, " batch"], chosen: Point, other: Point) -> Point:
    """Returns row for row the chosen point where the condition holds, else the other one, bit for bit."""
    wide = condition[:, None, None]
    return Point(*(torch.where(wide if a.ndim == 3 else condition, a, b) for a, b in zip(chosen, other, strict=True)))
