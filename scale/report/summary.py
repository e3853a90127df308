"""How a run came out, in words and object by object."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from scale import formatting
from scale.formatting import count, duration, number, spans
from scale.report.history import Call, History

NAMED = 8  # objects or rounds in a sentence; the tables have more
LINE = 200  # letters of an error in a sentence
ENDS = {0: "finished", 3: "short", 130: "stopped", 143: "stopped"}
"""Exit code -> state; any other one is a failure."""
HEADLINES = {
    "empty": "Nothing has been made yet.",
    "running": "At work.",
    "finished": "Finished: every object has its quota.",
    "generated": "Finished: every object has its round.",
    "short": "Ended, but not every object has what it should.",
    "stopped": "Stopped before the end; the same command goes on.",
    "failed": "Ended by an error.",
    "broken off": "Broken off without a word: killed, or the machine fell over. The same command goes on.",
}
ADVICE = {
    "max_rounds": "max_rounds was reached: raise it, or loosen the filter",
    "barren": "barren, max_barren_rounds rounds in a row gave nothing: loosen the filter, or raise max_barren_rounds",
}


class ObjectLine(NamedTuple):
    """One object.

    Attributes:
        code, index: identity.
        quota: grasps wanted; None where one round was asked for.
        collected: grasps that it has.
        rounds, skipped: rounds that are sealed, and that were given up.
        rows, accepted: grasps that those rounds made, and those of them that count: surplus beyond the cut included.
        failures: failed attempts.
        end_reason: why no more rounds are made; "in progress" or "stopped" where some are wanted.
        rejected: reason -> rows that do not count for that.
        median_total: median of the total energy in its final file; None where there is none.
    """

    code: str
    index: int
    quota: int | None
    collected: int
    rounds: int
    skipped: list[int]
    rows: int
    accepted: int
    failures: int
    end_reason: str
    rejected: dict[str, int]
    median_total: float | None

    @property
    def is_short(self) -> bool:
        """Whether it has less than was wanted."""
        return self.collected < self.quota if self.quota is not None else not self.rounds

    @property
    def yield_percent(self) -> float | None:
        """Accepted grasps of those made; None where none was made."""
        return 100 * self.accepted / self.rows if self.rows else None


class Outcome(NamedTuple):
    """How a run came out.

    Attributes:
        state: of `HEADLINES`.
        headline: in one sentence.
        sentences: what finished, what fell short and why, how fast.
        objects: those that fell short first, then by index.
    """

    state: str
    headline: str
    sentences: list[str]
    objects: list[ObjectLine]


def outcome(told: History, manifest: Mapping[str, Any], sums: Any, is_running: bool) -> Outcome:
    """Returns how a run came out.

    Args:
        told: what the journal tells.
        manifest: its snapshot; may be empty.
        sums: what the files tell, a `Harvest`.
        is_running: whether somebody works on it now.
    """
    call = told.calls[-1] if told.calls else None
    objects = object_lines(told, manifest, sums, is_running)
    state = state_of(told, call, is_running)
    sentences = [_made(told, objects), _speed(told, objects, is_running), *_shortfalls(objects), _skips(told)]
    sentences += [_unreadable(sums.unreadable)]
    sentences += [_failures(told), call.error.strip().splitlines()[-1] if call and call.error.strip() else ""]
    return Outcome(state, HEADLINES[state], [one for one in sentences if one], objects)


def state_of(told: History, call: Call | None, is_running: bool) -> str:
    """Returns how the last call stands."""
    if is_running:
        return "running"
    if call is None:
        return "empty"
    if call.exit_code is None:
        return "broken off"
    state = ENDS.get(call.exit_code, "failed")
    if state == "finished" and is_generated(call):
        return "generated"
    return state if told.work or state != "finished" else "empty"


def is_generated(call: Call) -> bool:
    """Whether a call made one round of each object."""
    return call.start.get("mode") == "generate"


def object_lines(told: History, manifest: Mapping[str, Any], sums: Any, is_running: bool) -> list[ObjectLine]:
    """Returns the objects, those that fell short first."""
    entries = {} if told.calls and is_generated(told.calls[-1]) else manifest.get("objects", {})
    failures, skipped = Counter(event.get("code") for event in told.failures), {}
    for code, round_id in sorted(told.skips):
        skipped.setdefault(code, []).append(round_id)
    work: dict[str, list] = {}
    for one in told.work.values():
        work.setdefault(one.code, []).append(one)
    found = []
    for code, index in told.indices.items():
        mine = work.get(code, [])
        counts = (
            len(mine),
            skipped.get(code, []),
            sum(one.rows for one in mine),
            sum(one.accepted or 0 for one in mine),
        )
        quota, collected, reason = _standing(told, code, entries.get(code, {}), counts[3], is_running)
        rejected = entries.get(code, {}).get("rejected") or sums.rejected.get(code, {})
        rest = (failures[code], reason, rejected, sums.median_total.get(code))
        found.append(ObjectLine(code, index, quota, collected, *counts, *rest))
    return sorted(found, key=lambda one: (not one.is_short, one.index))


def _standing(
    told: History, code: str, entry: Mapping[str, Any], accepted: int, is_running: bool
) -> tuple[int | None, int, str]:
    """Returns the quota of an object, what it has of it, and why it ended."""
    if is_generated(told.calls[-1]):
        return None, accepted, "generated" if any(key[0] == code for key in told.work) else "no round"
    file, quota = told.merged.get(code, {}), told.quotas.get(code, 0)
    collected = max(file.get("rows", 0), min(quota, accepted))
    if not is_running and told.calls[-1].exit_code is not None:
        collected = entry.get("collected", collected)
    reason = entry.get("end_reason") or file.get("end_reason", "")
    if collected >= quota:
        return quota, collected, "quota"
    if reason in ("", "quota", "partial", "stopped"):
        reason = "in progress" if is_running else "stopped"
    return quota, collected, reason


def _made(told: History, objects: list[ObjectLine]) -> str:
    """Returns how much there is."""
    wanted, have = sum(one.quota or 0 for one in objects), sum(one.collected for one in objects)
    through = sum(not one.is_short for one in objects)
    if not told.work:
        return f"{count(wanted, 'grasp')} on {count(len(objects), 'object')} wanted." if objects else ""
    grasps = f"{have} of {count(wanted, 'grasp')}" if wanted else count(have, "grasp")
    share = f"{100 * told.accepted / told.rows:.3g} %" if told.rows else "none"
    return (
        f"{grasps}; {through} of {count(len(objects), 'object')} through. {count(len(told.work), 'round')} made "
        f"{count(told.rows, 'grasp')}, of which {share} count."
    )


def _speed(told: History, objects: list[ObjectLine], is_running: bool) -> str:
    """Returns how fast that was, and how long the rest will take."""
    if not told.accepted or not told.seconds:
        return f"{duration(told.seconds)} of work so far." if told.calls else ""
    rate, calls = told.accepted / told.seconds, len(told.calls)
    text = f"{number(rate)} accepted grasps per second over {duration(told.seconds)} of work in {count(calls, 'call')}"
    missing = sum(max(0, one.quota - one.collected) for one in objects if one.quota and one.end_reason == "in progress")
    return f"{text}; about {duration(missing / rate)} to go." if is_running and missing else f"{text}."


def _shortfalls(objects: list[ObjectLine]) -> list[str]:
    """Returns why objects have less than was wanted; of those on which work would go on, how many there are."""
    short = [one for one in objects if one.is_short and one.end_reason != "in progress"]
    ended = [one for one in short if one.end_reason != "stopped"]
    told = [f"{one.code}: {_why(one)}." for one in ended[:NAMED]]
    told += [f"{len(ended) - NAMED} more objects fell short, see the table."] if len(ended) > NAMED else []
    waiting = len(short) - len(ended)
    return told + ([f"{count(waiting, 'object')} not through when the run ended."] if waiting else [])


def _why(one: ObjectLine) -> str:
    have = f"{one.collected} of {one.quota}" if one.quota is not None else "nothing"
    most = max(one.rejected.items(), key=lambda item: item[1], default=("", 0))
    mostly = f"; of its {one.rows} rows {most[1]} were rejected for {most[0]}" if most[1] else ""
    return f"{have}, {ADVICE.get(one.end_reason, one.end_reason)}{mostly}"


def _skips(told: History) -> str:
    """Returns which rounds were given up."""
    by_code: dict[str, list[int]] = {}
    for code, round_id in sorted(told.skips):
        by_code.setdefault(code, []).append(round_id)
    if not by_code:
        return ""
    named = "; ".join(f"{code} {in_short(rounds)}" for code, rounds in list(by_code.items())[:NAMED])
    more = f"; and of {len(by_code) - NAMED} more objects" if len(by_code) > NAMED else ""
    return f"{count(len(told.skips), 'round')} given up: {named}{more}."


def _unreadable(files: list[str]) -> str:
    """Returns that files are missing or damaged."""
    return f"{count(len(files), 'file')} missing or damaged, the first: {files[0]}" if files else ""


def _failures(told: History) -> str:
    """Returns how often something failed."""
    if not told.failures:
        return ""
    (kind, most), *_ = Counter(kind_of(event) for event in told.failures).most_common(1)
    text = next(last_line(event) for event in reversed(told.failures) if kind_of(event) == kind)
    return f"{count(len(told.failures), 'attempt')} failed, {most} of them with: {text}"


def last_line(event: Mapping[str, Any]) -> str:
    """Returns the last line of a failure's traceback, cut where it is long."""
    line = formatting.last_line(event.get("traceback", "")) or "no traceback"
    return line if len(line) <= LINE else line[: LINE - 1] + "…"


def kind_of(event: Mapping[str, Any]) -> str:
    """Returns what failures of one kind have in common: their last line but for its numbers."""
    return re.sub(r"\d+", "#", last_line(event))


def in_short(rounds: Sequence[int]) -> str:
    """Returns rising round ids: 0 to 3, 7; how many there are where that gets long."""
    text = spans(rounds)
    return text if text.count(",") < NAMED else f"{len(rounds)} rounds from {rounds[0]} to {rounds[-1]}"
