"""One object, one seed -> grasps with energies: the body of a round."""

from __future__ import annotations

from dataclasses import dataclass

from bimangrasp.energies import EnergyConfig
from bimangrasp.initialization import InitializationConfig
from bimangrasp.mala import OptimizerConfig
from bimangrasp.object_model import ObjectConfig


@dataclass
class SynthesisConfig:
    """Everything but hand, object and seed that decides the grasps of a round.

    Attributes:
        round_batch_size: grasps of a round.
        num_iterations: steps of the sampler.
        contacts_per_hand: contact candidates that each hand uses at a time.
        tile: how many grasps are evaluated at once; 0 is the whole batch. Bounds memory, not the result's law.
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
