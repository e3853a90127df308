"""Lists what went wrong, for the report: failed attempts, rounds given up, deaths and pauses, the ends of logs."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from scale.engine.failures import death
from scale.formatting import moment
from scale.report.history import FailedAttempt, History
from scale.report.summary import Outcome, error_line, in_short, kind_of
from scale.store.events import Event, ProcessDied, TileHalved
from scale.store.run_folder import VALIDATOR, WORKER, RunFolder

SHOWN_FAILURES = 20
SHOWN_SKIPS = 30
SHOWN_INCIDENTS = 60
SHOWN_LOGS = 6
SHOWN_NAMES = 6  # of objects or workers of one failure
LOG_BYTES = 3000


class Failure(NamedTuple):
    """Attempts that failed alike.

    Attributes:
        text: the last line of the last one's traceback.
        attempts: how many.
        rounds: whose, in short.
        workers: where, in short.
        last: when the last one failed.
        traceback: of that one.
    """

    text: str
    attempts: int
    rounds: str
    workers: str
    last: str
    traceback: str


def failures(history: History) -> list[Failure]:
    """Returns the failed attempts, those of one kind together, most first; of so many kinds."""
    groups: dict[str, list[FailedAttempt]] = {}
    for attempt in history.failures:
        groups.setdefault(kind_of(attempt.event.traceback), []).append(attempt)
    largest = sorted(groups.values(), key=len, reverse=True)[:SHOWN_FAILURES]
    return [_failure(alike) for alike in largest]


def _failure(alike: list[FailedAttempt]) -> Failure:
    """Returns attempts that failed alike as one line of the page."""
    rounds = _by_object((attempt.event.code, attempt.event.round_id) for attempt in alike)
    where = ", ".join(sorted({attempt.where for attempt in alike})[:SHOWN_NAMES])
    last = alike[-1].event
    return Failure(error_line(last.traceback), len(alike), rounds, where, moment(last.time), last.traceback)


def _by_object(keys: Iterable[tuple[str, int]]) -> str:
    """Returns rounds in short: mug 0 to 3, 7; bowl 2."""
    by_code: dict[str, set[int]] = {}
    for code, round_id in keys:
        by_code.setdefault(code, set()).add(round_id)
    names = [f"{code} {in_short(sorted(rounds))}" for code, rounds in list(by_code.items())[:SHOWN_NAMES]]
    more = [f"{len(by_code) - SHOWN_NAMES} more objects"] if len(by_code) > SHOWN_NAMES else []
    return "; ".join(names + more)


class Skip(NamedTuple):
    """A round that was given up."""

    code: str
    round_id: int
    seed: int
    attempts: int
    text: str
    traceback: str


def skips(history: History) -> list[Skip]:
    """Returns the rounds that were given up."""
    return [
        Skip(*key, event.seed, event.attempts, error_line(event.traceback), event.traceback)
        for key, event in sorted(history.skips.items())
    ][:SHOWN_SKIPS]


class Incident(NamedTuple):
    """What befell a worker, a validator or the disk."""

    time: str
    what: str
    who: str
    round: str
    text: str


def incidents(history: History) -> list[Incident]:
    """Returns the last ones."""
    return [_incident(event) for event in history.incidents[-SHOWN_INCIDENTS:]]


def _incident(event: Event) -> Incident:
    """Returns an event as one line of the page."""
    process = _process_of(event)
    who = f"{process[0]} {process[1]}" if process else ""
    device = getattr(event, "device", None)
    where = f"{event.code} {event.round_id}" if getattr(event, "code", None) else ""
    texts = [death(event.exitcode, "").how if isinstance(event, ProcessDied) else ""]
    texts.append(getattr(event, "reason", ""))
    texts.append(f"{event.tile} grasps at once" if isinstance(event, TileHalved) else "")
    text = "; ".join(part for part in texts if part)
    who += f" ({device})" if device else ""
    return Incident(moment(event.time), event.name.replace("_", " "), who, where, text)


def _process_of(event: Event) -> tuple[str, int] | None:
    """Returns role and slot of the process that an event is about; None where it is about none."""
    slots = ((role, getattr(event, role, None)) for role in (WORKER, VALIDATOR))
    return next(((role, slot) for role, slot in slots if slot is not None), None)


def logs(folder: RunFolder, history: History, came_out: Outcome) -> list[tuple[str, str]]:
    """Returns the ends of the logs that may explain what went wrong: name and text."""
    events = [*(attempt.event for attempt in history.failures), *history.incidents]
    processes = {process for event in events if (process := _process_of(event))}
    first = sorted((slot, role) for role, slot in processes)[:SHOWN_LOGS]
    paths = [folder.worker_log(slot, role) for slot, role in first]
    if came_out.state in ("failed", "broken off", "stopped"):
        paths.insert(0, folder.run_log)
    tails = [(folder.relative(path), _tail(path)) for path in paths]
    return [(name, text) for name, text in tails if text.strip()]


def _tail(path: Path) -> str:
    """Returns the end of a file; nothing where it is missing."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - LOG_BYTES))
            return file.read().decode(errors="replace")
    except FileNotFoundError:
        return ""
