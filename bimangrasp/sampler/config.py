"""Holds the schedules and constants of the sampler. Imports no PyTorch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Union

from bimangrasp.ranges import DECAY, NOT_NEGATIVE, POSITIVE, Checked, Rule, among, at_least, between

MOMENT_DECAY = Rule(lambda value: 0 <= value < 1, "a number from 0 to below 1")
STEPS_OR_AUTO = Rule(
    lambda value: value == "auto" or (isinstance(value, int) and value >= 1), "auto or a whole number, 1 or more"
)


@dataclass
class MomentumConfig(Checked):
    """Step sizes and constants of `method=momentum`.

    Attributes:
        translation_step, rotation_step, joint_step: how far a hand's position (m), the numbers of its rotation and its
            joints (rad) move in one of the first steps, as a root mean square.
        last_share: of these sizes in the last step; they fall by the same factor with every step.
        first_moment_decay: of the running mean of gradients.
        second_moment_decay: of the running mean of their squares.
        choose_every: steps after which the contacts are chosen anew, where the hands are nearest to the object.
        choose_until: share of the steps after which they stay.
    """

    translation_step: Annotated[float, POSITIVE]
    rotation_step: Annotated[float, POSITIVE]
    joint_step: Annotated[float, POSITIVE]
    last_share: Annotated[float, DECAY]
    first_moment_decay: Annotated[float, MOMENT_DECAY]
    second_moment_decay: Annotated[float, MOMENT_DECAY]
    choose_every: Annotated[int, at_least(1)]
    choose_until: Annotated[float, between(0, 1)]


@dataclass
class OptimizerConfig(Checked):
    """Schedules and constants of the sampler. Defaults in the YAML are those of the BimanGrasp release.

    Attributes:
        method: "mala" (BimanGrasp's, for which all below but `momentum` and `keep` is), or "momentum".
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
        momentum: see `MomentumConfig`.
    """

    method: Annotated[str, among("mala", "momentum")]
    step_size: Annotated[float, POSITIVE]
    step_decay: Annotated[float, DECAY]
    step_decay_every: Annotated[int, at_least(1)]
    temperature: Annotated[float, POSITIVE]
    temperature_decay: Annotated[float, DECAY]
    temperature_decay_every: Annotated[int, at_least(1)]
    second_moment_decay: Annotated[float, MOMENT_DECAY]
    preconditioner_floor: Annotated[float, POSITIVE]
    noise_factor: Annotated[float, NOT_NEGATIVE]
    switch_probability: Annotated[float, between(0, 1)]
    switch_probability_max: Annotated[float, between(0, 1)]
    proposal_ratio: bool
    preconditioner: Annotated[str, among("batch", "sample")]
    keep: Annotated[str, among("last", "best")]
    schedule_steps: Annotated[Union[int, str], STEPS_OR_AUTO]  # noqa: UP007 - OmegaConf reads this form
    momentum: MomentumConfig
