"""Defines the interfaces between the engine and what computes and tests rounds: the optimizer, or a stub in tests."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np

from bimangrasp.files.header import HandTable
from bimangrasp.poses import Trajectory
from scale.engine.messages import RoundJob

if TYPE_CHECKING:  # only workers load the optimizer
    from bimangrasp.config import SynthesisConfig
    from bimangrasp.hand_files.config import HandConfig
    from scale.settings.schema import Config


class RoundResult(NamedTuple):
    """What a round made.

    Attributes:
        columns: the row columns of `grasp_fields` without seed, round and row, and the curve's without
            their first axis.
        tile_used: how many grasps were evaluated at once.
        trajectory: what was asked to be kept of the way there.
    """

    columns: dict[str, np.ndarray]
    tile_used: int
    trajectory: Trajectory | None = None


class RoundRunner(Protocol):
    """The loaded models of one worker."""

    @property
    def platform(self) -> dict[str, str]:
        """What the bytes of its rounds depend on besides the settings."""

    def make(self, job: RoundJob, on_step: Callable[[int], None]) -> RoundResult:
        """Returns the grasps of a round; calls `on_step` at every step."""

    def free(self) -> None:
        """Gives back the memory that it can do without, after there was too little."""


class RoundFactory(Protocol):
    """The settings of the rounds and how to load what computes them. It is pickled into each worker."""

    @property
    def algorithm_version(self) -> int:
        """Raised by hand when the same settings give other grasps."""

    def hand_table(self) -> HandTable:
        """Returns what files say of the hands; raises InputError. Called in the parent: no context."""

    def load(self, device: str, threads: int) -> RoundRunner:
        """Returns the bench on a torch device. Called once, in the worker."""


class ValidationTask(NamedTuple):
    """A round as its validator sees it.

    Attributes:
        columns: of its shard.
        pieces: path of the sealed convex pieces of its object.
        deadly: rows that are not simulated, for that does not end.
    """

    columns: Mapping[str, np.ndarray]
    pieces: str
    deadly: tuple[int, ...]


class VerdictRunner(Protocol):
    """What one validator has loaded."""

    @property
    def platform(self) -> dict[str, str]:
        """What the bytes of its verdicts depend on besides the settings."""

    @property
    def judging(self) -> dict[str, Any]:
        """How its columns are to be read."""

    def judge(self, case: ValidationTask, on_row: Callable[[int], None]) -> dict[str, np.ndarray]:
        """Returns `VERDICT_FIELDS`, a row for each of the round; calls `on_row` as the simulation of a row begins."""


class VerdictFactory(Protocol):
    """The settings of the simulation and how to load what does it. It is pickled into each validator."""

    def load(self, device: str, threads: int) -> VerdictRunner:
        """Returns the bench. Called once, in the validator."""


VerdictFactoryOf = Callable[["Config"], VerdictFactory]
"""How `scale.run` gets its judge from the configuration."""
RoundFactoryOf = Callable[["HandConfig", "SynthesisConfig"], RoundFactory]
"""How `scale.run` gets its maker from the configuration."""
