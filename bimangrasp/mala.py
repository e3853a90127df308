"""The sampler: Langevin proposals with a preconditioner, annealing and index switching, for any energy.

A position is a batch of groups of coordinates (for grasps a group is a hand), a choice a batch of groups of indices.
All evolving state goes in and comes out.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, Union

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

RELEASED_SCHEDULE_STEPS = 6000
"""Length of the released schedule: after it the temperature accepts and the step moves next to nothing."""


@dataclass
class OptimizerConfig:
    """Schedules and constants of the sampler. Defaults in the YAML are those of the BimanGrasp release.

    Attributes:
        step_size: first step size; times `step_decay` every `step_decay_every` steps of the released schedule.
        step_decay, step_decay_every: see above.
        temperature: first temperature; times `temperature_decay` every `temperature_decay_every` steps of it.
        temperature_decay, temperature_decay_every: see above.
        second_moment_decay: decay of the running mean of squared gradients.
        preconditioner_floor: added to the root of that mean.
        noise_factor: factor on the proposal's noise; 1 is Langevin's.
        switch_probability: chance to redraw an index at the first temperature; falls with the temperature's root.
        switch_probability_max: upper bound of that chance.
        proposal_ratio: whether the acceptance carries the ratio of proposal densities.
        preconditioner: "batch" (mean of squared gradients over the batch) or "sample" (each its own).
        keep: "last" state or "best" state seen as the result.
        schedule_steps: length to which the released schedule of 6000 steps is stretched or squeezed; "auto" is
            min(num_iterations, 6000).
    """

    step_size: float
    step_decay: float
    step_decay_every: int
    temperature: float
    temperature_decay: float
    temperature_decay_every: int
    second_moment_decay: float
    preconditioner_floor: float
    noise_factor: float
    switch_probability: float
    switch_probability_max: float
    proposal_ratio: bool
    preconditioner: str
    keep: str
    schedule_steps: Union[int, str]  # noqa: UP007 - OmegaConf reads this form


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
        best: the one of least energy seen.
        second_moment: running mean of squared gradients; batch axis of length 1 where it is shared.
        step: how many steps were made.
    """

    point: Point
    best: Point
    second_moment: Float[Tensor, "shared group dof"]
    step: int


class Draws(NamedTuple):
    """The random numbers of one step, drawn over the whole batch.

    Attributes:
        noise: standard normal.
        switch: uniform; an index is redrawn where this is below the chance.
        choice: the indices that are taken then.
        acceptance: uniform.
    """

    noise: Float[Tensor, "batch group dof"]
    switch: Float[Tensor, "batch group index"]
    choice: Int[Tensor, "batch group index"]
    acceptance: Float[Tensor, " batch"]


class Schedule(NamedTuple):
    """Step size and temperature of one step."""

    step_size: float
    temperature: float


def schedule(config: OptimizerConfig, step: int, length: int) -> Schedule:
    """Returns step size and temperature at a step of a schedule stretched to `length` steps."""
    released = step * RELEASED_SCHEDULE_STEPS // length
    return Schedule(
        config.step_size * config.step_decay ** (released // config.step_decay_every),
        config.temperature * config.temperature_decay ** (released // config.temperature_decay_every),
    )


def schedule_length(config: OptimizerConfig, num_iterations: int) -> int:
    """Returns the length that `schedule_steps` asks for."""
    if config.schedule_steps == "auto":
        return min(num_iterations, RELEASED_SCHEDULE_STEPS)
    return int(config.schedule_steps)


def init(
    position: Float[Tensor, "batch group dof"],
    choice: Int[Tensor, "batch group index"],
    energy: Energy,
    config: OptimizerConfig,
) -> State:
    """Returns the state before the first step."""
    point = Point(position, choice, *checked(energy(position, choice)))
    moment = torch.zeros_like(position if config.preconditioner == "sample" else position[:1])
    return State(point, point, moment, 0)


def step(
    state: State,
    energy: Energy,
    choices: int,
    config: OptimizerConfig,
    length: int,
    generator: torch.Generator,
) -> tuple[State, Bool[Tensor, " batch"]]:
    """Returns the state after one step and which samples accepted their proposal.

    Args:
        state: before the step.
        energy: of positions and choices; called once, on the whole batch.
        choices: how many values an index can have.
        config: constants.
        length: of the schedule, in steps.
        generator: on the device of the state.
    """
    draws = draw(state.point, choices, generator)
    now = schedule(config, state.step, length)
    moment = next_second_moment(state, config)
    position, choice = propose(state.point, moment, draws, now, config)
    proposal = Point(position, choice, *checked(energy(position, choice)))
    after = schedule(config, state.step + 1, length)
    log_ratio = proposal_log_ratio(state.point, proposal, moment, now, config)
    accepted = accepts(state.point, proposal, log_ratio, after.temperature, draws.acceptance)
    point = _where(accepted, proposal, state.point)
    better = (point.energy < state.best.energy) | (state.best.energy.isnan() & ~point.energy.isnan())
    return State(point, _where(better, point, state.best), moment, state.step + 1), accepted


def draw(point: Point, choices: int, generator: torch.Generator) -> Draws:
    """Returns the random numbers of one step."""
    position, choice = point.position, point.choice
    device, dtype = position.device, position.dtype
    return Draws(
        torch.randn(position.shape, generator=generator, device=device, dtype=dtype),
        torch.rand(choice.shape, generator=generator, device=device, dtype=dtype),
        torch.randint(choices, choice.shape, generator=generator, device=device),
        torch.rand(len(position), generator=generator, device=device, dtype=dtype),
    )


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
    with probability min(max, p sqrt(T / T_0)).
    """
    scale = second_moment.sqrt() + config.preconditioner_floor
    spread = config.noise_factor * (2 * now.step_size * now.temperature / scale).sqrt()
    position = point.position - now.step_size * point.gradient / scale + spread * draws.noise
    chance = config.switch_probability * (now.temperature / config.temperature) ** 0.5
    redrawn = draws.switch < min(config.switch_probability_max, chance)
    return position, torch.where(redrawn, draws.choice, point.choice)


def accepts(
    point: Point,
    proposal: Point,
    log_ratio: Tensor | float,
    temperature: float,
    uniform: Float[Tensor, " batch"],
) -> Bool[Tensor, " batch"]:
    """Returns which proposals are accepted: with probability min(1, exp((E - E') / T + log ratio)).

    A failed proposal never is; from a failed point any other is.
    """
    chance = torch.exp((point.energy - proposal.energy) / temperature + log_ratio)
    return ~proposal.energy.isnan() & (point.energy.isnan() | (uniform < chance))


def proposal_log_ratio(
    point: Point, proposal: Point, second_moment: Tensor, now: Schedule, config: OptimizerConfig
) -> Float[Tensor, " batch"]:
    """Returns ln q(x | x') - ln q(x' | x), the second moment taken as the same both ways; 0 unless it is asked for."""
    if not config.proposal_ratio:
        return torch.zeros_like(point.energy)
    scale = second_moment.sqrt() + config.preconditioner_floor

    def log_density(target: Point, origin: Point) -> Tensor:
        error = target.position - origin.position + now.step_size * origin.gradient / scale
        variance = 2 * config.noise_factor**2 * now.step_size * now.temperature / scale
        return -(error.square() / variance).sum(dim=(1, 2)) / 2

    return log_density(point, proposal) - log_density(proposal, point)


def checked(evaluation: Evaluation) -> Evaluation:
    """Returns the evaluation with failed samples (anything not finite) marked: energy NaN, gradient 0."""
    sound = evaluation.energy.isfinite() & evaluation.gradient.isfinite().all(dim=-1).all(dim=-1)
    return Evaluation(
        torch.where(sound, evaluation.energy, torch.nan),
        torch.where(sound[:, None, None], evaluation.gradient, 0),
    )


def _where(condition: Bool[Tensor, " batch"], chosen: Point, other: Point) -> Point:
    """Returns row for row the chosen point where the condition holds, else the other one, bit for bit."""
    wide = condition[:, None, None]
    return Point(*(torch.where(wide if a.ndim == 3 else condition, a, b) for a, b in zip(chosen, other, strict=True)))
