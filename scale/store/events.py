"""Defines the events of the journal and the messages between parent and workers: one frozen dataclass for each.

`to_json` and `from_json` are the only places that know how they are spelled. Fields without a default are what a later
call needs of a line; the others may be missing, as they are in journals of earlier versions.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, dataclass, fields
from functools import cache
from typing import Any, ClassVar, Self, TypeVar

Json = dict[str, Any]
KEYS = {"round_id": "round"}
"""Field -> its key in JSON, where that is another word."""


@cache
def _layout(kind: type) -> tuple[tuple[str, str, bool], ...]:
    """Returns (field, key in JSON, whether it must be there) for each field of a dataclass."""
    return tuple((f.name, KEYS.get(f.name, f.name), f.default is MISSING) for f in fields(kind))


class _AsJson:
    """What events and messages have in common."""

    TAG: ClassVar[str]
    name: ClassVar[str]

    def to_json(self) -> Json:
        """Returns the event as JSON; fields that are None are left out."""
        values = ((key, getattr(self, field)) for field, key, _ in _layout(type(self)))
        return {self.TAG: self.name} | {key: value for key, value in values if value is not None}

    @classmethod
    def from_json(cls, line: Mapping[str, Any]) -> Self:
        """Returns the event of a line; keys that are not its own are passed over.

        Raises:
            KeyError: a key is missing that must be there.
        """
        present = {field: line[key] for field, key, is_needed in _layout(cls) if is_needed or key in line}
        return cls(**present)


@dataclass(frozen=True, kw_only=True)
class Event(_AsJson):
    """A line of the journal.

    Attributes:
        time: when it was written, Unix time, s.
    """

    TAG: ClassVar[str] = "event"
    time: float = 0.0


@dataclass(frozen=True, kw_only=True)
class UnknownEvent(Event):
    """A line of a kind that this version does not know; nothing follows from it."""

    name: ClassVar[str] = ""


@dataclass(frozen=True, kw_only=True)
class CallStarted(Event):
    """A call begins: its mode, keys, devices and quotas, and what it has to say of the folder that it found."""

    name: ClassVar[str] = "start"
    run_key: Json
    format_version: int = 0
    version: str = ""
    mode: str = ""
    acceptance_key: Json | None = None
    host: str = ""
    pid: int | str = ""
    devices: tuple[str, ...] | list[str] = ()
    quotas: dict[str, int] | None = None
    notes: tuple[str, ...] | list[str] = ()


@dataclass(frozen=True, kw_only=True)
class CallEnded(Event):
    """A call ends by itself; `error` is what ended it, where it was one."""

    name: ClassVar[str] = "end"
    exit_code: int
    error: str | None = None


@dataclass(frozen=True, kw_only=True)
class ObjectsIndexed(Event):
    """Objects get their indices, before any of their rounds is handed out: object code -> index."""

    name: ClassVar[str] = "objects"
    indices: dict[str, int]


@dataclass(frozen=True, kw_only=True)
class _OfProcess(Event):
    """An event of one worker or one validator: the number of its slot is in the field of its role."""

    worker: int | None = None
    validator: int | None = None


@dataclass(frozen=True, kw_only=True)
class ProcessReady(_OfProcess):
    """A worker or validator has loaded what it needs."""

    name: ClassVar[str] = "ready"
    launch: int = 0
    device: str | None = None
    platform: dict[str, str] | None = None


@dataclass(frozen=True, kw_only=True)
class ProcessSilent(_OfProcess):
    """A worker or validator gave no sign of life for too long and is ended."""

    name: ClassVar[str] = "silent"
    launch: int = 0
    reason: str = ""
    code: str | None = None
    round_id: int | None = None


@dataclass(frozen=True, kw_only=True)
class ProcessDied(_OfProcess):
    """A worker or validator died; code and round are what it had to do."""

    name: ClassVar[str] = "died"
    launch: int = 0
    exitcode: int | None = None
    code: str | None = None
    round_id: int | None = None


@dataclass(frozen=True, kw_only=True)
class DeviceSetAside(_OfProcess):
    """A device, or a validator's slot, is no longer used in this call."""

    name: ClassVar[str] = "set_aside"
    device: str = ""
    reason: str = ""


@dataclass(frozen=True, kw_only=True)
class RoundEvent(_OfProcess):
    """An event of a round that has a sealed shard."""

    code: str
    round_id: int
    seed: int = 0
    rows: int = 0
    sha256: str = ""
    tile_used: int = 0
    shard: str = ""
    accepted: int | None = None
    verdict: str | None = None
    verdict_sha256: str | None = None
    seconds: float | None = None
    device: str | None = None
    test_seconds: float | None = None


@dataclass(frozen=True, kw_only=True)
class RoundSealed(RoundEvent):
    """A round is sealed; it waits for its test or for the search for near-duplicates."""

    name: ClassVar[str] = "sealed"
    tile_used: int
    sha256: str


@dataclass(frozen=True, kw_only=True)
class RoundJudged(RoundEvent):
    """A round is tested; it waits for the search for near-duplicates."""

    name: ClassVar[str] = "judged"


@dataclass(frozen=True, kw_only=True)
class RoundDone(RoundEvent):
    """A round is done: it is known how many of its grasps count."""

    name: ClassVar[str] = "done"
    accepted: int
    tile_used: int
    sha256: str


@dataclass(frozen=True, kw_only=True)
class RoundAdopted(RoundEvent):
    """A round that an earlier call sealed and did not write down is taken over."""

    name: ClassVar[str] = "adopted"
    accepted: int
    tile_used: int
    sha256: str


@dataclass(frozen=True, kw_only=True)
class AttemptFailed(_OfProcess):
    """An attempt at a round failed, or at its test: then `row` is the grasp at which it did."""

    name: ClassVar[str] = "fail"
    code: str
    round_id: int
    attempt: int | None = None
    row: int | None = None
    traceback: str = ""


@dataclass(frozen=True, kw_only=True)
class RoundSkipped(Event):
    """A round is given up, after so many failed attempts."""

    name: ClassVar[str] = "skip"
    code: str
    round_id: int
    traceback: str
    seed: int = 0
    attempts: int = 0


@dataclass(frozen=True, kw_only=True)
class TileHalved(Event):
    """A worker ran out of memory and goes on with so many grasps at once."""

    name: ClassVar[str] = "halved"
    code: str = ""
    round_id: int = 0
    tile: int = 0
    worker: int | None = None
    device: str = ""


@dataclass(frozen=True, kw_only=True)
class RoundFoundNoRoom(Event):
    """A round, or its verdict, found no room on the disk; that is no attempt."""

    name: ClassVar[str] = "no_room"
    code: str = ""
    round_id: int = 0
    reason: str = ""


@dataclass(frozen=True, kw_only=True)
class FileMerged(Event):
    """An object's final file is written and verified."""

    name: ClassVar[str] = "merged"
    code: str
    rows: int
    quota: int
    end_reason: str
    sha256: str
    content_sha256: str
    size: int
    mtime_ns: int
    rounds: int = 0


@dataclass(frozen=True, kw_only=True)
class RunPaused(Event):
    """The disk is full; no rounds are handed out."""

    name: ClassVar[str] = "paused"
    reason: str = ""


@dataclass(frozen=True, kw_only=True)
class RunContinued(Event):
    """The disk has room again."""

    name: ClassVar[str] = "continued"
    reason: str = ""


@dataclass(frozen=True, kw_only=True)
class Message(_AsJson):
    """What a worker or validator says to the parent, or the parent to it; it travels as a dict."""

    TAG: ClassVar[str] = "kind"


@dataclass(frozen=True, kw_only=True)
class RoundJob(Message):
    """The parent asks a worker for a round.

    Attributes:
        code, index, mesh, mesh_sha256, object_key: the object.
        round_id, seed: the round.
        attempt: failed attempts so far.
        tile: grasps to evaluate at once.
        record: steps between two recorded poses, and the rows to record; None records nothing.
    """

    name: ClassVar[str] = "round"
    code: str
    index: int
    mesh: str
    mesh_sha256: str
    object_key: Json
    round_id: int
    seed: int
    attempt: int
    tile: int
    record: tuple[int, tuple[int, ...]] | None = None


@dataclass(frozen=True, kw_only=True)
class ValidationJob(Message):
    """The parent asks a validator for the verdict on a round.

    Attributes:
        code, round_id: the round.
        shard, pieces: its shard and its object's convex pieces, relative to the run folder.
        acceptance_key: under which it is tested.
        deadly: rows that are not simulated, for that ends the process.
    """

    name: ClassVar[str] = "validation"
    code: str
    round_id: int
    shard: str
    pieces: str
    acceptance_key: Json
    deadly: list[int]


@dataclass(frozen=True, kw_only=True)
class Ready(Message):
    """The models are loaded, on this platform."""

    name: ClassVar[str] = "ready"
    platform: dict[str, str]


@dataclass(frozen=True, kw_only=True)
class Step(Message):
    """The step of the sampler, or the grasp that is simulated."""

    name: ClassVar[str] = "step"
    step: int


@dataclass(frozen=True, kw_only=True)
class Halved(Message):
    """Memory was short: the round goes on with so many grasps at once."""

    name: ClassVar[str] = "halved"
    code: str
    round_id: int
    tile: int


@dataclass(frozen=True, kw_only=True)
class Sealed(Message):
    """The job's file is on the disk, at a path relative to the run folder."""

    name: ClassVar[str] = "sealed"
    code: str
    round_id: int
    path: str
    seconds: float


@dataclass(frozen=True, kw_only=True)
class Failed(Message):
    """The job raised; `ends` where the process ends itself, for its device's context is broken."""

    name: ClassVar[str] = "failed"
    code: str
    round_id: int
    traceback: str
    errno: int | None = None
    ends: bool = False


@dataclass(frozen=True, kw_only=True)
class Died(Message):
    """The process is gone; the parent's pool says so in its place."""

    name: ClassVar[str] = "died"
    exitcode: int | None = None


Kind = TypeVar("Kind", bound=type)


def _leaves(kind: Kind) -> dict[str, Kind]:
    """Returns name -> dataclass of every kind below a base that has a name."""
    below = {}
    for child in kind.__subclasses__():
        below |= _leaves(child)
        if child.__dict__.get("name"):
            below[child.name] = child
    return below


EVENTS: dict[str, type[Event]] = _leaves(Event)
"""Name in the journal -> event."""
MESSAGES: dict[str, type[Message]] = _leaves(Message)
"""Name on the pipe -> message."""


def event_from(line: Mapping[str, Any]) -> Event:
    """Returns the event of a journal's line.

    Raises:
        KeyError: the line lacks what a later call needs of its kind, or is no event at all.
    """
    return EVENTS.get(line["event"], UnknownEvent).from_json(line)


def message_from(data: Mapping[str, Any]) -> Message:
    """Returns the message that came over a pipe."""
    return MESSAGES[data["kind"]].from_json(data)
