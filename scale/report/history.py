"""What the journal of a run tells of its calls, rounds, workers and failures. Old journals are read as well."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from scale.engine.devices import Device, device_name
from scale.store.journal import Event

INCIDENTS = ("died", "silent", "set_aside", "halved", "no_room", "paused", "continued")
"""Events about workers, validators and the disk that a person may want to know of."""


@dataclass
class Call:
    """One call: from its `start` to its `end`, or to the last that was heard of it.

    Attributes:
        start: its first line.
        began, until: Unix times, s.
        exit_code: None where it did not end by itself.
        error: what ended it; empty where it was no error, or an old journal does not tell.
    """

    start: Event
    began: float
    until: float
    exit_code: int | None = None
    error: str = ""

    @property
    def seconds(self) -> float:
        """How long it took."""
        return self.until - self.began


@dataclass
class Work:
    """One sealed round.

    Attributes:
        code, round_id: which.
        rows: grasps that it made.
        time: when it was sealed, Unix time, s.
        worker: "cpu #0", "gpu 3"; empty where nothing tells.
        seconds: how long the worker took, s; 0 where nothing tells: it died when it had sealed the round, or an
            earlier call did.
        accepted: grasps that count; None while that is not known.
        test_seconds: how long the validator took, s; 0 where none was asked, or nothing tells.
    """

    code: str
    round_id: int
    rows: int
    time: float
    worker: str
    seconds: float
    accepted: int | None = None
    test_seconds: float = 0.0


@dataclass
class History:
    """What happened.

    Attributes:
        calls: in order.
        indices, quotas: object code -> number.
        work: (object code, round id) -> the sealed round, in the order in which they were sealed.
        failures, incidents: the lines about them.
        skips: (object code, round id) -> the line that gave it up; without those that were made after all.
        merged: object code -> the line about its final file.
        platforms: each with the workers and validators that were ready on it, by name.
    """

    calls: list[Call] = field(default_factory=list)
    indices: dict[str, int] = field(default_factory=dict)
    quotas: dict[str, int] = field(default_factory=dict)
    work: dict[tuple[str, int], Work] = field(default_factory=dict)
    failures: list[Event] = field(default_factory=list)
    incidents: list[Event] = field(default_factory=list)
    skips: dict[tuple[str, int], Event] = field(default_factory=dict)
    merged: dict[str, Event] = field(default_factory=dict)
    platforms: list[tuple[dict[str, str], set[str]]] = field(default_factory=list)

    @property
    def acceptance_key(self) -> dict[str, Any]:
        """By what the last call accepts grasps."""
        return self.calls[-1].start.get("acceptance_key", {}) if self.calls else {}

    @property
    def seconds(self) -> float:
        """How long all calls took, s."""
        return sum(call.seconds for call in self.calls)

    @property
    def accepted(self) -> int:
        """Grasps that count, in all sealed rounds: surplus beyond the cut included."""
        return sum(one.accepted or 0 for one in self.work.values())

    @property
    def rows(self) -> int:
        """Grasps of all sealed rounds."""
        return sum(one.rows for one in self.work.values())


def history(events: Sequence[Event], now: float | None = None) -> History:
    """Returns what the journal's lines tell.

    Args:
        events: of `journal.replay`.
        now: Unix time where the last call is still at work; None where it is not.
    """
    reader = _Reader()
    for event in events:
        reader.read(event)
    if now is not None and reader.told.calls:
        reader.told.calls[-1].until = max(now, reader.told.calls[-1].until)
    return reader.told


class _Reader:
    """Reads line by line; each kind of event has a method of its name."""

    def __init__(self) -> None:
        self.told = History()
        self._labels: dict[int, str] = {}  # slot of a worker -> its device, in this call

    def read(self, event: Event) -> None:
        """Takes a line in."""
        if event["event"] == "start" or not self.told.calls:
            self.told.calls.append(Call(event, event.get("time", 0.0), event.get("time", 0.0)))
            self._labels = {}
        call = self.told.calls[-1]
        call.until = max(call.until, event.get("time", 0.0))
        if event["event"] in INCIDENTS:
            self.told.incidents.append(event)
        take = getattr(self, f"_take_{event['event']}", None)
        if take is not None:
            take(event)

    def _take_start(self, event: Event) -> None:
        self.told.quotas |= event.get("quotas", {})

    def _take_end(self, event: Event) -> None:
        self.told.calls[-1].exit_code = event["exit_code"]
        self.told.calls[-1].error = event.get("error", "")

    def _take_objects(self, event: Event) -> None:
        self.told.indices |= event["indices"]

    def _take_ready(self, event: Event) -> None:
        name = f"validator {event.get('validator')}"
        if "worker" in event:
            self._labels[event["worker"]] = event["device"]
            name = self._worker(event)
        platform = event.get("platform", {})
        known = next((names for one, names in self.told.platforms if one == platform), None)
        if known is None:
            self.told.platforms.append((platform, {name}))
        else:
            known.add(name)

    def _take_sealed(self, event: Event) -> None:
        key, time = (event["code"], event["round"]), event.get("time", 0.0)
        seconds = float(event.get("seconds", 0.0))
        self.told.work.pop(key, None)  # made again
        self.told.work[key] = Work(*key, event.get("rows", 0), time, self._worker(event), seconds)
        self.told.skips.pop(key, None)

    def _take_judged(self, event: Event) -> None:
        self._take_counted(event)
        self.told.work[event["code"], event["round"]].accepted = None  # near-duplicates are not left out yet

    def _take_done(self, event: Event) -> None:
        self._take_counted(event)

    def _take_adopted(self, event: Event) -> None:
        self._take_counted(event)

    def _take_counted(self, event: Event) -> None:
        """Takes in how many grasps of a round count; its making may have been told in an earlier line."""
        key = (event["code"], event["round"])
        if "seconds" in event or key not in self.told.work:
            self._take_sealed(event)
        work = self.told.work[key]
        work.accepted = event.get("accepted")
        work.test_seconds = float(event.get("test_seconds", work.test_seconds))

    def _take_fail(self, event: Event) -> None:
        self.told.failures.append(event | {"by": self._by(event)})

    def _take_skip(self, event: Event) -> None:
        self.told.skips[event["code"], event["round"]] = event

    def _take_merged(self, event: Event) -> None:
        self.told.merged[event["code"]] = event

    def _by(self, event: Event) -> str:
        return f"validator {event['validator']}" if "validator" in event else self._worker(event)

    def _worker(self, event: Event) -> str:
        """Returns the name of the worker of a line; journals of earlier versions name it in the shard's path only."""
        found = re.match(r"shards/worker_(\d+)_", event.get("shard", ""))
        slot = event.get("worker", found and int(found[1]))
        label = event.get("device") or self._labels.get(slot, "")
        return device_name(Device(label, ""), slot) if label else ""


class Speed(NamedTuple):
    """Accepted grasps per second of working time.

    Attributes:
        edges: of the spans of working time, s; pauses between calls are left out.
        rates: worker -> grasps per second in each span.
        starts: working time at which each call but the first began, s.
    """

    edges: np.ndarray
    rates: dict[str, np.ndarray]
    starts: list[float]


def speed(told: History, spans: int) -> Speed:
    """Returns how fast accepted grasps came: those of a round evenly over the time that its worker took for it."""
    ends = np.cumsum([call.seconds for call in told.calls])
    edges = np.linspace(0.0, ends[-1] if len(ends) else 0.0, spans + 1)
    rates = {}
    for worker in sorted({one.worker for one in told.work.values()} - {""}):
        done = [one for one in told.work.values() if one.worker == worker and one.seconds and one.accepted is not None]
        sealed, took, accepted = np.array([(one.time, one.seconds, one.accepted) for one in done]).reshape(-1, 3).T
        end = _working_time(told, sealed)
        ramps = np.clip((edges[:, None] - (end - took)) / np.maximum(took, 1e-9), 0.0, 1.0)
        with np.errstate(divide="ignore", invalid="ignore"):
            rates[worker] = np.diff(ramps @ accepted) / np.diff(edges)
    return Speed(edges, rates, [float(end) for end in ends[:-1]])


def _working_time(told: History, times: np.ndarray) -> np.ndarray:
    """Returns Unix times as working time, s."""
    moments = [moment for call in told.calls for moment in (call.began, call.until)]
    worked = np.repeat(np.cumsum([0.0, *(call.seconds for call in told.calls)]), 2)[1:-1]
    return np.interp(times, moments, worked)
