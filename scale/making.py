"""What `scale` asks of whoever computes rounds: the optimiser in earnest, a stand-in in tests."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple, Protocol

import numpy as np

from bimangrasp.grasp_file import HandTable
from bimangrasp.hand_config import HandConfig

if TYPE_CHECKING:  # only workers load the optimiser
    from bimangrasp.synthesis import SynthesisConfig


class Task(NamedTuple):
    """What a worker gets to do."""

    code: str
    mesh: str
    seed: int
    round_id: int
    attempt: int


class Made(NamedTuple):
    """What a round made.

    Attributes:
        columns: the row columns of `grasp_fields` without seed, round and row, and the curve's without
            their first axis.
        tile_used: how many grasps were evaluated at once.
    """

    columns: dict[str, np.ndarray]
    tile_used: int


class Bench(Protocol):
    """The loaded models of one worker."""

    @property
    def kernels(self) -> str:
        """Name and version of the kernel path that computes; part of the platform."""

    def make(self, task: Task, on_step: Callable[[int], None]) -> Made:
        """Returns the grasps of a round; calls `on_step` at every step."""


class Maker(Protocol):
    """Loads a bench in a worker. It is pickled, so it is small and of a module's top level."""

    @property
    def algorithm_version(self) -> int:
        """Raised by hand when the same settings give other grasps."""

    def hand_table(self, config: HandConfig) -> HandTable:
        """Returns what files say of the hands; raises InputError. Called in the parent: no context."""

    def __call__(self, hand: HandConfig, synthesis: SynthesisConfig, device: str, threads: int) -> Bench:
        """Returns the bench, on a torch device. Called once, in the worker."""
