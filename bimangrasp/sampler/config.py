"""Holds the schedules and constants of the sampler. Imports no PyTorch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Union


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
