"""Defines the messages between parent and workers, which travel over their pipes as they are."""

from __future__ import annotations

from typing import Any, NamedTuple

from bimangrasp.config import Record


class RoundJob(NamedTuple):
    """The parent asks a worker for a round.

    Attributes:
        code: the object.
        index: its place in the run, from which its seeds follow.
        mesh: path of its mesh.
        mesh_sha256: hash of the mesh that was checked.
        object_key: see `fingerprints.object_key`.
        round_id, seed: the round.
        attempt: failed attempts so far.
        tile: grasps to evaluate at once.
        record: what to keep of the way there; None for nothing.
    """

    code: str
    index: int
    mesh: str
    mesh_sha256: str
    object_key: dict[str, Any]
    round_id: int
    seed: int
    attempt: int
    tile: int
    record: Record | None = None


class ValidationJob(NamedTuple):
    """The parent asks a validator for the verdict on a round.

    Attributes:
        code, round_id: the round.
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


class Failed(NamedTuple):
    """The job raised; `ends` where the process ends itself, for its device's context is broken."""

    code: str
    round_id: int
    traceback: str
    errno: int | None = None
    ends: bool = False


class Died(NamedTuple):
    """The process is gone; the parent's pool says so in its place."""

    exitcode: int | None = None


Job = RoundJob | ValidationJob
Message = Ready | Step | Halved | Sealed | Failed | Died
