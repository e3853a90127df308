"""What went wrong, as a report tells it: failed attempts, rounds given up, deaths and pauses, the ends of logs."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from scale.engine.failures import death
from scale.formatting import moment
from scale.report.history import History
from scale.report.summary import Outcome, in_short, kind_of, last_line
from scale.store.journal import Event
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


def failures(told: History) -> list[Failure]:
    """Returns the failed attempts, those of one kind together, most first; of so many kinds."""
    groups: dict[str, list[Event]] = {}
    for event in told.failures:
        groups.setdefault(kind_of(event), []).append(event)
    most = sorted(groups.values(), key=len, reverse=True)[:SHOWN_FAILURES]
    return [_failure(alike) for alike in most]


def _failure(alike: list[Event]) -> Failure:
    rounds = _by_object((event["code"], event["round"]) for event in alike)
    last = alike[-1]
    where = ", ".join(sorted({event["by"] or f"worker {event.get('worker')}" for event in alike})[:SHOWN_NAMES])
    when, text = moment(last.get("time", 0.0)), last.get("traceback", "")
    return Failure(last_line(last), len(alike), rounds, where, when, text)


def _by_object(keys: Iterable[tuple[str, int]]) -> str:
    """Returns rounds in short: mug 0 to 3, 7; bowl 2."""
    found: dict[str, set[int]] = {}
    for code, round_id in keys:
        found.setdefault(code, set()).add(round_id)
    named = [f"{code} {in_short(sorted(rounds))}" for code, rounds in list(found.items())[:SHOWN_NAMES]]
    more = [f"{len(found) - SHOWN_NAMES} more objects"] if len(found) > SHOWN_NAMES else []
    return "; ".join(named + more)


class Skip(NamedTuple):
    """A round that was given up."""

    code: str
    round_id: int
    seed: int | None
    attempts: int | None
    text: str
    traceback: str


def skips(told: History) -> list[Skip]:
    """Returns the rounds that were given up."""
    return [
        Skip(*key, event.get("seed"), event.get("attempts"), last_line(event), event.get("traceback", ""))
        for key, event in sorted(told.skips.items())
    ][:SHOWN_SKIPS]


class Incident(NamedTuple):
    """What befell a worker, a validator or the disk."""

    time: str
    what: str
    who: str
    round: str
    text: str


def incidents(told: History) -> list[Incident]:
    """Returns the last ones."""
    return [_incident(event) for event in told.incidents[-SHOWN_INCIDENTS:]]


def _incident(event: Event) -> Incident:
    who = next((f"{trade} {event[trade]}" for trade in (WORKER, VALIDATOR) if trade in event), "")
    device = f" ({event['device']})" if event.get("device") else ""
    at = f"{event['code']} {event['round']}" if event.get("code") else ""
    texts = [death(event["exitcode"], "").how if "exitcode" in event else "", str(event.get("reason", ""))]
    texts.append(f"{event['tile']} grasps at once" if "tile" in event else "")
    what = event["event"].replace("_", " ")
    return Incident(moment(event.get("time", 0.0)), what, who + device, at, "; ".join(filter(None, texts)))


def logs(folder: RunFolder, told: History, came_out: Outcome) -> list[tuple[str, str]]:
    """Returns the ends of the logs that may explain what went wrong: name and text."""
    slots = {
        (event[trade], trade)
        for event in (*told.failures, *told.incidents)
        for trade in (WORKER, VALIDATOR)
        if trade in event
    }
    paths = [folder.worker_log(*one) for one in sorted(slots)[:SHOWN_LOGS]]
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
