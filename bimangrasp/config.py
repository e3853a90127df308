"""Holds the settings of a round, of its first grasps and of its recording. Imports no PyTorch."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, NamedTuple

from bimangrasp.energy.config import EnergyConfig
from bimangrasp.objects.config import ObjectConfig
from bimangrasp.ranges import NOT_NEGATIVE, POSITIVE, TEXT, Checked, at_least, between
from bimangrasp.sampler.config import OptimizerConfig

ALGORITHM_VERSION = 4
"""Raised by hand with every change that moves results; a recorded tiny round guards it."""


@dataclass
class InitializationConfig(Checked):
    """Where the hands start.

    Attributes:
        hull_inflation: every hull vertex moves outward from the origin by this much, m.
        distance_min, distance_max: range of the hand's distance to its point on the inflated hull, m.
        cone_rad: the approach direction deviates from the hull's normal by up to this angle.
        tilt_rad: the hand is turned back by this angle about its knuckle axis.
        joint_spread: standard deviation of the joints as a share of their range.
        hull_samples_per_grasp: area-uniform samples per grasp from which the farthest points are chosen.
        follow_size: starts follow the object's size (`sized_starts`), in place of the released ones, whose lengths are
            the same for every object.
    """

    hull_inflation: Annotated[float, POSITIVE]
    distance_min: Annotated[float, NOT_NEGATIVE]
    distance_max: Annotated[float, NOT_NEGATIVE]
    cone_rad: Annotated[float, between(0, math.pi)]
    tilt_rad: Annotated[float, between(-math.pi, math.pi)]
    joint_spread: Annotated[float, POSITIVE]
    hull_samples_per_grasp: Annotated[int, at_least(1)]
    follow_size: bool


@dataclass
class SynthesisConfig(Checked):
    """Everything but hand, object and seed that decides the grasps of a round.

    Attributes:
        round_batch_size: grasps of a round.
        num_iterations: steps of the sampler.
        contacts_per_hand: contact candidates that each hand uses at a time.
        tile: how many grasps are evaluated at once; 0 is the whole batch. Bounds memory, not the random numbers.
        curve_stride: steps between two points of the recorded energy curve; 0 records none.
        kernels: the kernel path, "auto" or a name.
        energy, optimizer, initialization, object: see there.
    """

    round_batch_size: Annotated[int, at_least(1)]
    num_iterations: Annotated[int, at_least(1)]
    contacts_per_hand: Annotated[int, at_least(1)]
    tile: Annotated[int, at_least(0)]
    curve_stride: Annotated[int, at_least(0)]
    kernels: Annotated[str, TEXT]
    energy: EnergyConfig
    optimizer: OptimizerConfig
    initialization: InitializationConfig
    object: ObjectConfig


class Record(NamedTuple):
    """What to keep of the way to the grasps of a round.

    Attributes:
        stride: steps between two frames.
        rows: which grasps.
    """

    stride: int
    rows: tuple[int, ...]
