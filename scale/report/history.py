"""Reads the history of a run from its journal: calls, rounds, workers, failures. Old journals are read as well."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from scale.engine.devices import device_name
from scale.store import events, journal
from scale.store.events import AttemptFailed, CallStarted, Event, FileMerged, ProcessReady, RoundEvent, RoundSkipped
from scale.store.run_folder import RunFolder

INCIDENTS = (
    events.ProcessDied,
    events.ProcessSilent,
    events.DeviceSetAside,
    events.SlotLost,
    events.TileHalved,
    events.RoundFoundNoRoom,
    events.RunPaused,
    events.RunContinued,
)
"""Events about workers, validators and the disk that a person may want to know of."""


@dataclass
class Call:
    """One call: from its `start` to its `end`, or to the last that was heard of it.

    Attributes:
        start: its first event.
        until: Unix time, s.
        exit_code: None where it did not end by itself.
        error: what ended it; empty where it was no error, or an old journal does not tell.
    """

    start: CallStarted
    until: float
    exit_code: int | None = None
    error: str = ""

    @property
    def seconds(self) -> float:
        """How long it took."""
        return self.until - self.start.time


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


class FailedAttempt(NamedTuple):
    """A failed attempt at a round, or at its test.

    Attributes:
        event: what the journal says of it.
        where: "cpu #0", "gpu 3", "validator 1".
    """

    event: AttemptFailed
    where: str


@dataclass
class History:
    """What happened.

    Attributes:
        calls: in order.
        indices, quotas: object code -> number.
        work: (object code, round id) -> the sealed round, in the order in which they were sealed.
        failures: attempts that failed, with the worker or validator by name.
        incidents: what befell workers, validators and the disk.
        troubles: failed attempts and incidents, each with its part, empty without parts.
        skips: (object code, round id) -> the line that gave it up; without those that were made after all.
        merged: object code -> the line about its final file.
        platforms: each with the workers and validators that were ready on it, by name.
        labels: slot of a worker -> its device, in the last call.
        part: whose journal is read, of a run that is made in parts; stands before the names of its workers.
    """

    calls: list[Call] = field(default_factory=list)
    indices: dict[str, int] = field(default_factory=dict)
    quotas: dict[str, int] = field(default_factory=dict)
    work: dict[tuple[str, int], Work] = field(default_factory=dict)
    failures: list[FailedAttempt] = field(default_factory=list)
    incidents: list[Event] = field(default_factory=list)
    troubles: list[tuple[str, Event]] = field(default_factory=list)
    skips: dict[tuple[str, int], RoundSkipped] = field(default_factory=dict)
    merged: dict[str, FileMerged] = field(default_factory=dict)
    platforms: list[tuple[dict[str, str], set[str]]] = field(default_factory=list)
    labels: dict[int, str] = field(default_factory=dict)
    part: str = ""

    @property
    def acceptance_key(self) -> dict[str, Any]:
        """By what the last call accepts grasps."""
        return (self.calls[-1].start.acceptance_key or {}) if self.calls else {}

    @property
    def seconds(self) -> float:
        """How long some call was at work, s."""
        return sum(until - start for start, until in _at_work(self))

    @property
    def accepted(self) -> int:
        """Grasps that count, in all sealed rounds: surplus beyond the cut included."""
        return sum(work.accepted or 0 for work in self.work.values())

    @property
    def rows(self) -> int:
        """Grasps of all sealed rounds."""
        return sum(work.rows for work in self.work.values())

    def read(self, event: Event) -> None:
        """Takes an event in."""
        if isinstance(event, CallStarted) or not self.calls:
            start = event if isinstance(event, CallStarted) else CallStarted(run_key={}, time=event.time)
            self.calls.append(Call(start, event.time))
            self.labels = {}
        call = self.calls[-1]
        call.until = max(call.until, event.time)
        if isinstance(event, INCIDENTS):
            self.incidents.append(event)
        if isinstance(event, (*INCIDENTS, AttemptFailed)):
            self.troubles.append((self.part, event))
        match event:
            case CallStarted():
                self.quotas |= event.quotas or {}
            case events.CallEnded():
                call.exit_code, call.error = event.exit_code, event.error or ""
            case events.ObjectsIndexed():
                self.indices |= event.indices
            case ProcessReady():
                self._ready(event)
            case events.RoundSealed():
                self._sealed(event)
            case RoundEvent():
                self._counted(event)
            case AttemptFailed():
                self._failed(event)
            case RoundSkipped():
                self.skips[event.code, event.round_id] = event
            case FileMerged():
                self.merged[event.code] = event

    def _ready(self, event: ProcessReady) -> None:
        name = self._named(f"validator {event.validator}")
        if event.worker is not None:
            self.labels[event.worker] = event.device or ""
            name = self._worker_of(event)
        platform = event.platform or {}
        names = next((names for known, names in self.platforms if known == platform), None)
        if names is None:
            self.platforms.append((platform, {name}))
        else:
            names.add(name)

    def _sealed(self, event: RoundEvent) -> None:
        key, seconds = (event.code, event.round_id), event.seconds or 0.0
        self.work.pop(key, None)  # made again
        self.work[key] = Work(*key, event.rows, event.time, self._worker_of(event), seconds)
        self.skips.pop(key, None)

    def _counted(self, event: RoundEvent) -> None:
        """Takes in how many grasps of a round count; its making may have been told in an earlier event."""
        key = (event.code, event.round_id)
        if event.seconds is not None or key not in self.work:
            self._sealed(event)
        work = self.work[key]
        is_final = not isinstance(event, events.RoundJudged)  # else near-duplicates are not left out yet
        work.accepted = event.accepted if is_final else None
        work.test_seconds = work.test_seconds if event.test_seconds is None else event.test_seconds

    def _failed(self, event: AttemptFailed) -> None:
        where = self._named(f"validator {event.validator}") if event.validator is not None else self._worker_of(event)
        self.failures.append(FailedAttempt(event, where or self._named(f"worker {event.worker}")))

    def _worker_of(self, event: RoundEvent | ProcessReady | AttemptFailed) -> str:
        """Returns the name of an event's worker; journals of earlier versions name it in the shard's path only."""
        in_path = re.match(r"shards/worker_(\d+)_", getattr(event, "shard", ""))
        slot = int(in_path[1]) if event.worker is None and in_path else event.worker
        label = getattr(event, "device", None) or self.labels.get(slot, "")
        return self._named(device_name(label, slot)) if label else ""

    def _named(self, name: str) -> str:
        """Returns the name of a process, with its part before it."""
        return f"{self.part} {name}" if self.part else name


def history_of(folder: RunFolder, now: float | None = None, past: History | None = None, part: str = "") -> History:
    """Returns what the journal of a run folder tells, behind what other parts of the run told; see `history`."""
    past = past or History()
    past.part = part
    journal.replay(folder, past.read)
    return _as_of(past, now)


def history(journaled: Iterable[Event], now: float | None = None) -> History:
    """Returns what the events of a journal tell.

    Args:
        journaled: in order.
        now: Unix time where the last call is still at work; None where it is not.
    """
    past = History()
    for event in journaled:
        past.read(event)
    return _as_of(past, now)


def _as_of(past: History, now: float | None) -> History:
    """Returns a history whose last call, where it is still at work, lasts until now."""
    if now is not None and past.calls:
        past.calls[-1].until = max(now, past.calls[-1].until)
    return past


class Speed(NamedTuple):
    """Accepted grasps per second of working time.

    Attributes:
        edges: of the spans of working time, s; pauses between calls are left out.
        rates: worker -> grasps per second in each span.
        starts: working time at which work went on after each pause, s.
    """

    edges: np.ndarray
    rates: dict[str, np.ndarray]
    starts: list[float]


def speed(history: History, spans: int) -> Speed:
    """Returns how fast accepted grasps came: those of a round evenly over the time that its worker took for it."""
    ends = np.cumsum([until - start for start, until in _at_work(history)])
    edges = np.linspace(0.0, ends[-1] if len(ends) else 0.0, spans + 1)
    rates = {}
    timed = [work for work in history.work.values() if work.worker and work.seconds and work.accepted is not None]
    for worker in sorted({work.worker for work in history.work.values()} - {""}):
        own = [(work.time, work.seconds, work.accepted) for work in timed if work.worker == worker]
        sealed, took, accepted = np.array(own).reshape(-1, 3).T
        end = _working_time(history, sealed)
        # The share of each round that is done at each edge, from 0 at its start to 1 when it was sealed.
        shares = np.clip((edges[:, None] - (end - took)) / np.maximum(took, 1e-9), 0.0, 1.0)
        with np.errstate(divide="ignore", invalid="ignore"):
            rates[worker] = np.diff(shares @ accepted) / np.diff(edges)
    return Speed(edges, rates, [float(end) for end in ends[:-1]])


def _working_time(history: History, times: np.ndarray) -> np.ndarray:
    """Returns Unix times as working time, s."""
    spans = _at_work(history)
    worked = np.repeat(np.cumsum([0.0, *(until - start for start, until in spans)]), 2)[1:-1]
    return np.interp(times, np.ravel(spans), worked)


def _at_work(history: History) -> list[tuple[float, float]]:
    """Returns begin and end of each span in which some call was at work, in order; parts of a run overlap."""
    spans: list[tuple[float, float]] = []
    for call in sorted(history.calls, key=lambda call: call.start.time):
        start, until = call.start.time, call.until
        if spans and start < spans[-1][1]:
            start, until = spans[-1][0], max(until, spans.pop()[1])
        spans.append((start, until))
    return spans
