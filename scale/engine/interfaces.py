"""Defines the messages between parent and workers, and the interfaces of what computes and tests rounds."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol

import numpy as np

from bimangrasp.config import Record, SynthesisConfig
from bimangrasp.files.header import HandTable
from bimangrasp.hand_files.config import HandConfig
from bimangrasp.objects.config import PiecesConfig
from bimangrasp.poses import Trajectory
from scale.settings.schema import Config


class RoundJob(NamedTuple):
    """The parent asks a worker for a round.

    Attributes:
        code: the object.
        index: its place in the run, from which its seeds follow.
        mesh: path of its mesh.
        mesh_sha256: hash of the mesh that was checked.
        round_id, seed: the round.
        attempt: failed attempts so far.
        tile: grasps to evaluate at once.
        record: what to keep of the way there; None for nothing.
    """

    code: str
    index: int
    mesh: str
    mesh_sha256: str
    round_id: int
    seed: int
    attempt: int
    tile: int
    record: Record | None = None

    @property
    def files(self) -> tuple[str, ...]:
        """The paths of what it is made from."""
        return (self.mesh,)

    def at(self, places: Mapping[str, str]) -> RoundJob:
        """Returns the same job with its files elsewhere."""
        return self._replace(mesh=places[self.mesh])


class ValidationJob(NamedTuple):
    """The parent asks a validator for the verdict on a round, or on some of its rows.

    Attributes:
        code, round_id: the round.
        first, rows: the first row to test, and how many; None for the whole round, whose verdict the validator seals.
        shard, pieces: its shard and its object's convex pieces, relative to the run folder.
        acceptance_key: under which it is tested.
        deadly: rows that are not simulated, for that ends the process.
    """

    code: str
    round_id: int
    shard: str
    pieces: str
    acceptance_key: dict[str, Any]
    deadly: tuple[int, ...]
    first: int = 0
    rows: int | None = None

    @property
    def files(self) -> tuple[str, ...]:
        """The paths of what is tested, and on what."""
        return self.shard, self.pieces

    def at(self, places: Mapping[str, str]) -> ValidationJob:
        """Returns the same job with its files elsewhere."""
        return self._replace(shard=places[self.shard], pieces=places[self.pieces])


NO_ROUND = -1
"""The round id of a job that is about no round."""


class PiecesJob(NamedTuple):
    """The parent asks a validator for the convex pieces of an object.

    Attributes:
        code: the object.
        mesh: path of its mesh.
        beside: paths of the files beside it that pieces depend on.
        config: see `PiecesConfig`.
        round_id: of none.
    """

    code: str
    mesh: str
    beside: tuple[str, ...]
    config: PiecesConfig
    round_id: int = NO_ROUND

    @property
    def files(self) -> tuple[str, ...]:
        """The paths of what they are made from."""
        return self.mesh, *self.beside

    def at(self, places: Mapping[str, str]) -> PiecesJob:
        """Returns the same job with its files elsewhere, beside each other as they were."""
        return self._replace(mesh=places[self.mesh], beside=tuple(places[path] for path in self.beside))


class Ready(NamedTuple):
    """The models are loaded, on this platform."""

    platform: dict[str, str]


class Step(NamedTuple):
    """The step of the sampler, or the grasp that is simulated."""

    step: int


class Halved(NamedTuple):
    """Memory was short: the round goes on with so many grasps at once."""

    code: str
    round_id: int
    tile: int


class Sealed(NamedTuple):
    """The job's file is on the disk, at a path relative to the run folder."""

    code: str
    round_id: int
    path: str
    seconds: float


class RowsJudged(NamedTuple):
    """Some rows of a round are tested.

    Attributes:
        code, round_id, first: the job.
        shard_sha256: of the round whose rows these are.
        columns: `VERDICT_FIELDS`, of these rows.
        platform, judging: see `VerdictRunner`.
        seconds: how long it took.
    """

    code: str
    round_id: int
    first: int
    shard_sha256: str
    columns: dict[str, np.ndarray]
    platform: dict[str, str]
    judging: dict[str, Any]
    seconds: float


class PiecesMade(NamedTuple):
    """An object's convex pieces, or why it has none.

    Attributes:
        code: the object.
        image: content of their file; empty where there are none.
        refusal: why there are none; empty where there are some.
        seconds: how long it took.
    """

    code: str
    image: bytes
    refusal: str
    seconds: float


class Failed(NamedTuple):
    """The job raised.

    Attributes:
        code, round_id: the round.
        traceback: of what was raised.
        errno: of an OSError.
        ends: whether the process ends itself, for its device's context is broken.
        step: the last one that was told of; filled in by the parent's pool, None before the first.
        first: the first row, of a job that tests rows.
    """

    code: str
    round_id: int
    traceback: str
    errno: int | None = None
    ends: bool = False
    step: int | None = None
    first: int = 0


class Silent(NamedTuple):
    """The process gave no sign of life for too long and is ended; its pool says so, and later that it died."""

    reason: str


class Died(NamedTuple):
    """The process is gone; its pool says so in its place.

    Attributes:
        exitcode: of the process.
        reason: why its pool ended it; empty where it did not.
        log: the end of what it wrote.
    """

    exitcode: int
    reason: str = ""
    log: str = ""


class Joined(NamedTuple):
    """There is one more slot: the pool's `devices` has it."""


class Lost(NamedTuple):
    """A slot is gone, with its process, and nothing is known of how that ended."""

    reason: str


class Unusable(NamedTuple):
    """A slot must not be used: its node is of another platform, or has no room."""

    reason: str


Job = RoundJob | ValidationJob | PiecesJob
Message = Ready | Step | Halved | Sealed | RowsJudged | PiecesMade | Failed | Silent | Died | Joined | Lost | Unusable


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

    def portable(self) -> RoundFactory:
        """Returns the same, for nodes that lack the files which the settings name."""

    def load(self, device: str, threads: int) -> RoundRunner:
        """Returns the bench on a torch device. Called once, in the worker."""


class ValidationTask(NamedTuple):
    """A round, or some rows of it, as its validator sees it.

    Attributes:
        columns: of its shard; of some rows those that have a value for each.
        pieces: path of the sealed convex pieces of its object.
        deadly: rows that are not simulated, for that does not end; counted from the first of the columns.
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
        """Returns `VERDICT_FIELDS`, a row for each of the round.

        Calls `on_row` with a row as its simulation begins, or with the number of rows while many are simulated at once.
        """


class VerdictFactory(Protocol):
    """The settings of the simulation and how to load what does it. It is pickled into each validator."""

    def portable(self) -> VerdictFactory:
        """Returns the same, for nodes that lack the files which the settings name."""

    def load(self, device: str, threads: int) -> VerdictRunner:
        """Returns the bench. Called once, in the validator."""


VerdictFactoryOf = Callable[[Config], VerdictFactory]
"""How `scale.run` gets its judge from the configuration."""
RoundFactoryOf = Callable[[HandConfig, SynthesisConfig], RoundFactory]
"""How `scale.run` gets its maker from the configuration."""
