"""Defines the events of the journal: one frozen dataclass for each.

`to_json` and `from_json` are the only places that know how they are spelled. Fields without a default are what a later
call needs of a line; the others may be missing, as they are in journals of earlier versions.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, dataclass, fields
from functools import cache
from typing import Any, ClassVar, Self, dataclass_transform

Json = dict[str, Any]
KEYS = {"round_id": "round"}
"""Field -> its key in JSON, where that is another word."""
EVENTS: dict[str, type[Event]] = {}
"""Name in the journal -> event."""


@cache
def _layout(kind: type) -> tuple[tuple[str, str, bool], ...]:
    """Returns (field, key in JSON, whether it must be there) for each field of a dataclass."""
    return tuple((f.name, KEYS.get(f.name, f.name), f.default is MISSING) for f in fields(kind))


@dataclass_transform(frozen_default=True, kw_only_default=True)
@dataclass(frozen=True, kw_only=True)
class Event:
    """A line of the journal; by itself one of a kind that this version does not know: nothing follows from it.

    Attributes:
        time: when it was written, Unix time, s.
    """

    name: ClassVar[str] = ""
    time: float = 0.0

    def __init_subclass__(cls, name: str = "") -> None:
        """Makes each subclass a frozen dataclass, and knows it by its name in the journal where it has one."""
        dataclass(frozen=True, kw_only=True)(cls)
        if name:
            cls.name = name
            EVENTS[name] = cls

    def to_json(self) -> Json:
        """Returns the event as JSON; fields that are None are left out."""
        values = ((key, getattr(self, field)) for field, key, _ in _layout(type(self)))
        return {"event": self.name} | {key: value for key, value in values if value is not None}

    @classmethod
    def from_json(cls, line: Mapping[str, Any]) -> Self:
        """Returns the event of a line; keys that are not its own are passed over.

        Raises:
            KeyError: a key is missing that must be there.
        """
        present = {field: line[key] for field, key, is_needed in _layout(cls) if is_needed or key in line}
        return cls(**present)


class CallStarted(Event, name="start"):
    """A call begins: its mode, keys, devices and quotas, and what it has to say of the folder that it found."""

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


class CallEnded(Event, name="end"):
    """A call ends by itself; `error` is what ended it, where it was one."""

    exit_code: int
    error: str | None = None


class ObjectsIndexed(Event, name="objects"):
    """Objects get their indices, before any of their rounds is handed out: object code -> index."""

    indices: dict[str, int]


class _OfProcess(Event):
    """An event of one worker or one validator: the number of its slot is in the field of its role."""

    worker: int | None = None
    validator: int | None = None


class ProcessReady(_OfProcess, name="ready"):
    """A worker or validator has loaded what it needs."""

    launch: int = 0
    device: str | None = None
    platform: dict[str, str] | None = None


class ProcessSilent(_OfProcess, name="silent"):
    """A worker or validator gave no sign of life for too long and is ended."""

    launch: int = 0
    reason: str = ""
    code: str | None = None
    round_id: int | None = None


class ProcessDied(_OfProcess, name="died"):
    """A worker or validator died; code and round are what it had to do."""

    launch: int = 0
    exitcode: int | None = None
    code: str | None = None
    round_id: int | None = None


class SlotJoined(_OfProcess, name="joined"):
    """A node of the cluster gives one more slot."""

    device: str = ""


class SlotLost(_OfProcess, name="lost"):
    """A slot is gone with its node, or with what ran the slot's processes there; its round is handed out again."""

    device: str = ""
    reason: str = ""
    code: str | None = None
    round_id: int | None = None


class DeviceSetAside(_OfProcess, name="set_aside"):
    """A device, or a validator's slot, is no longer used in this call."""

    device: str = ""
    reason: str = ""


class PiecesFound(_OfProcess, name="pieces"):
    """A validator has found the convex pieces of an object, or why it has none."""

    code: str = ""
    pieces: int = 0
    seconds: float | None = None
    reason: str | None = None


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


class RoundSealed(RoundEvent, name="sealed"):
    """A round is sealed; it waits for its test or for the search for near-duplicates."""


class RoundJudged(RoundEvent, name="judged"):
    """A round is tested; it waits for the search for near-duplicates."""


class RoundDone(RoundEvent, name="done"):
    """A round is done: it is known how many of its grasps count."""


class RoundAdopted(RoundEvent, name="adopted"):
    """A round that an earlier call sealed and did not write down is taken over."""


class AttemptFailed(_OfProcess, name="fail"):
    """An attempt at a round failed, or at its test: then `row` is the grasp at which it did."""

    code: str
    round_id: int
    attempt: int | None = None
    row: int | None = None
    traceback: str = ""


class RoundSkipped(Event, name="skip"):
    """A round is given up, after so many failed attempts."""

    code: str
    round_id: int
    traceback: str
    seed: int = 0
    attempts: int = 0


class TileHalved(Event, name="halved"):
    """A worker ran out of memory and goes on with so many grasps at once."""

    code: str = ""
    round_id: int = 0
    tile: int = 0
    worker: int | None = None
    device: str = ""


class RoundFoundNoRoom(Event, name="no_room"):
    """A round, or its verdict, found no room on the disk; that is no attempt."""

    code: str = ""
    round_id: int = 0
    reason: str = ""


class FileMerged(Event, name="merged"):
    """An object's final file is written and verified.

    `table` is what else it says of itself, so that a later call need not open it; only of an object that has ended, for
    a file that still grows is written often, and its table with it.
    """

    code: str
    rows: int
    quota: int
    end_reason: str
    sha256: str
    content_sha256: str
    size: int
    mtime_ns: int
    rounds: int = 0
    table: Json | None = None


class JudgedAgain(Event, name="judged_again"):
    """MuJoCo has judged a sample of the grasps that a device accepted: `agreeing` of them hold there too."""

    sample: int
    sample_sha256: str
    agreeing: int


class RunPaused(Event, name="paused"):
    """The disk is full; no rounds are handed out."""

    reason: str = ""


class RunContinued(Event, name="continued"):
    """The disk has room again."""

    reason: str = ""


def event_from(line: Mapping[str, Any]) -> Event:
    """Returns the event of a journal's line.

    Raises:
        KeyError: the line lacks what a later call needs of its kind, or is no event at all.
    """
    return EVENTS.get(line["event"], Event).from_json(line)
