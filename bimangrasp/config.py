"""Holds the settings of a round, of its first grasps and of its recording. Imports no PyTorch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from bimangrasp.energy.config import EnergyConfig
from bimangrasp.objects.config import ObjectConfig
from bimangrasp.sampler.config import OptimizerConfig

ALGORITHM_VERSION = 2
"""Raised by hand with every change that moves results; a recorded tiny round guards it."""


@dataclass
class InitializationConfig:
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

    hull_inflation: float
    distance_min: float
    distance_max: float
    cone_rad: float
    tilt_rad: float
    joint_spread: float
    hull_samples_per_grasp: int
    follow_size: bool


@dataclass
class SynthesisConfig:
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

    round_batch_size: int
    num_iterations: int
    contacts_per_hand: int
    tile: int
    curve_stride: int
    kernels: str
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
