"""Summarizes how a run stands and how it came out, in words and object by object."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

from bimangrasp.diagnosis.causes import ADVICE as CAUSE_ADVICE
from bimangrasp.diagnosis.causes import CAUSE_OF_REASON, Cause
from scale.formatting import ADVICE, count, duration, last_line, number, spans
from scale.report.history import FailedAttempt, History, Work

if TYPE_CHECKING:
    from bimangrasp.diagnosis.causes import Diagnosis
    from scale.report.file_statistics import FileStatistics
NAMED = 8  # objects or rounds in a sentence; the tables have more
CAUSES = 3  # of an object, in sentences
LINE = 200  # letters of an error in a sentence
ENDS = {0: "finished", 3: "short", 130: "stopped", 143: "stopped"}
"""Exit code -> state; any other one is a failure."""
HEADLINES = {
    "empty": "Nothing has been made yet.",
    "running": "At work.",
    "finished": "Finished: every object has its quota.",
    "short": "Ended, but not every object has what it should.",
    "damaged": "Ended, but files are gone or damaged; the same command makes them again.",
    "unconfirmed": "Ended with every quota, but MuJoCo does not confirm what the device found.",
    "stopped": "Stopped before the end; the same command goes on.",
    "failed": "Ended by an error.",
    "broken off": "Broken off without a word: killed, or the machine fell over. The same command goes on.",
}


class ObjectLine(NamedTuple):
    """One object.

    Attributes:
        code, index: identity.
        quota: grasps wanted.
        collected: grasps that it has.
        rounds, skipped: rounds that are sealed, and that were given up.
        rows, accepted: grasps that those rounds made, and those of them that count: surplus beyond the cut included.
        failures: failed attempts.
        end_reason: why no more rounds are made; "in progress" or "stopped" where some are wanted.
        rejected: reason -> rows that do not count for that.
        pieces: what the manifest says of its convex pieces; None where it says nothing.
        median_total: median of the total energy in its final file; None where there is none.
    """

    code: str
    index: int
    quota: int
    collected: int
    rounds: int
    skipped: list[int]
    rows: int
    accepted: int
    failures: int
    end_reason: str
    rejected: dict[str, int]
    pieces: dict[str, Any] | None
    median_total: float | None

    @property
    def is_short(self) -> bool:
        """Whether it has less than was wanted."""
        return self.collected < self.quota

    @property
    def pieces_mm(self) -> float | None:
        """Distance of 95 % of the surface of pieces and mesh at the largest size, mm; None where nobody measured it."""
        fit = self.pieces and self.pieces["fit"]
        return 1000 * self.pieces["largest_scale"] * fit["distance"] if fit else None

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


def outcome(
    history: History,
    manifest: Mapping[str, Any],
    is_running: bool,
    statistics: FileStatistics,
    lacking: Sequence[str] = (),
    lost: Mapping[str, str] = MappingProxyType({}),
    diagnoses: Mapping[str, Diagnosis] = MappingProxyType({}),
) -> Outcome:
    """Returns how a run came out.

    Args:
        history: what the journal tells; of parts those that came out worst last.
        manifest: its snapshot; may be empty.
        is_running: whether somebody works on it now.
        statistics: what the files tell.
        lacking: parts that are not there, each with what is wrong.
        lost: object code -> what is wrong with its final file.
        diagnoses: object code -> why it is not held, where that was measured.
    """
    objects = object_lines(history, manifest, is_running, statistics, lost)
    files = [*lost.values(), *_only_unreadable(statistics, lost)]
    second, state = manifest.get("second_judgement", {}), state_of(history, is_running)
    if state == "short" and second.get("is_short") and not any(line.is_short for line in objects):
        state = "unconfirmed"
    if state == "finished" and lacking:
        state = "short"
    if state == "finished" and files:
        state = "damaged"
    sentences = [
        f"{count(len(files), 'file')} missing or damaged, the first: {files[0]}" if files else "",
        _held(statistics.held),
        _progress(history, objects),
        _speed(history, objects, is_running),
        *_shortfalls(objects, diagnoses),
        *lacking,
        second.get("text", ""),
        _skips(history),
        _failures(history),
        last_line(history.calls[-1].error) if history.calls else "",
    ]
    return Outcome(state, HEADLINES[state], [sentence for sentence in sentences if sentence], objects)


def _only_unreadable(statistics: FileStatistics, lost: Mapping[str, str]) -> list[str]:
    """Returns why files cannot be read, without those of which it is known that they are lost."""
    known = {fault.partition(": ")[0] for fault in lost.values()}
    return [fault for path, fault in statistics.unreadable.items() if path not in known]


def _held(faults: Sequence[str]) -> str:
    """Returns which files are not in the figures as others write to them; empty for none."""
    return f"{count(len(faults), 'file')} left out of the figures, the first: {faults[0]}" if faults else ""


def state_of(history: History, is_running: bool) -> str:
    """Returns how the last call stands."""
    if is_running:
        return "running"
    if not history.calls:
        return "empty"
    exit_code = history.calls[-1].exit_code
    if exit_code is None:
        return "broken off"
    state = ENDS.get(exit_code, "failed")
    return state if history.work or state != "finished" else "empty"


def object_lines(
    history: History,
    manifest: Mapping[str, Any],
    is_running: bool,
    statistics: FileStatistics | None = None,
    lost: Collection[str] = (),
) -> list[ObjectLine]:
    """Returns the objects, those that fell short first; without statistics as far as journal and manifest tell.

    Args:
        history: what the journal tells.
        manifest: its snapshot; may be empty.
        is_running: whether somebody works on it now.
        statistics: what the files tell.
        lost: objects whose final files are gone or damaged: their grasps are not there.
    """
    entries = manifest.get("objects", {})
    failures = Counter(attempt.event.code for attempt in history.failures)
    skipped = _by_code(history.skips)
    work: dict[str, list[Work]] = {}
    for sealed in history.work.values():
        work.setdefault(sealed.code, []).append(sealed)
    lines = []
    for code, index in history.indices.items():
        rounds, entry = work.get(code, []), entries.get(code, {})
        accepted = sum(sealed.accepted or 0 for sealed in rounds)
        quota, collected, reason = _standing(history, code, entry, accepted, is_running)
        if code in lost:
            collected, reason = 0, "damaged"
        line = ObjectLine(
            code=code,
            index=index,
            quota=quota,
            collected=collected,
            rounds=len(rounds),
            skipped=skipped.get(code, []),
            rows=sum(sealed.rows for sealed in rounds),
            accepted=accepted,
            failures=failures[code],
            end_reason=reason,
            rejected=entry.get("rejected") or (statistics.rejected.get(code, {}) if statistics else {}),
            pieces=entry.get("pieces"),
            median_total=statistics.median_total.get(code) if statistics else None,
        )
        lines.append(line)
    return sorted(lines, key=lambda line: (not line.is_short, line.index))


def _standing(
    history: History, code: str, entry: Mapping[str, Any], accepted: int, is_running: bool
) -> tuple[int, int, str]:
    """Returns the quota of an object, what it has of it, and why it ended."""
    file, quota = history.merged.get(code), history.quotas.get(code, 0)
    collected = max(file.rows if file else 0, min(quota, accepted))
    if not is_running and history.calls[-1].exit_code is not None:
        collected = entry.get("collected", collected)
    reason = entry.get("end_reason") or (file.end_reason if file else "")
    if collected >= quota:
        return quota, collected, "quota"
    if reason == "generated":  # one round was asked for, and rows of it failed
        return collected, collected, reason
    if reason in ("", "quota", "partial", "stopped"):
        reason = "in progress" if is_running else "stopped"
    return quota, collected, reason


def _progress(history: History, objects: list[ObjectLine]) -> str:
    """Returns how much there is."""
    wanted, have = sum(line.quota for line in objects), sum(line.collected for line in objects)
    through = sum(not line.is_short for line in objects)
    if not history.work:
        return f"{count(wanted, 'grasp')} on {count(len(objects), 'object')} wanted." if objects else ""
    grasps = f"{have} of {count(wanted, 'grasp')}" if wanted else count(have, "grasp")
    share = f"{100 * history.accepted / history.rows:.3g} %" if history.rows else "none"
    return (
        f"{grasps}; {through} of {count(len(objects), 'object')} through. {count(len(history.work), 'round')} made "
        f"{count(history.rows, 'grasp')}, of which {share} count."
    )


def _speed(history: History, objects: list[ObjectLine], is_running: bool) -> str:
    """Returns how fast that was, and how long the rest will take."""
    if not history.accepted or not history.seconds:
        return f"{duration(history.seconds)} of work so far." if history.calls else ""
    rate, calls = history.accepted / history.seconds, count(len(history.calls), "call")
    text = f"{number(rate)} accepted grasps per second over {duration(history.seconds)} of work in {calls}"
    missing = sum(max(0, line.quota - line.collected) for line in objects if line.end_reason == "in progress")
    return f"{text}; about {duration(missing / rate)} to go." if is_running and missing else f"{text}."


def _shortfalls(objects: list[ObjectLine], diagnoses: Mapping[str, Diagnosis]) -> list[str]:
    """Returns why objects have less than was wanted; of those on which work would go on, how many there are."""
    short = [line for line in objects if line.is_short and line.end_reason != "in progress"]
    ended = [line for line in short if line.end_reason != "stopped"]
    sentences = []
    for line in ended[:NAMED]:
        diagnosis = diagnoses.get(line.code)
        sentences += [f"{line.code}: {_why(line)}.", *(_measured(diagnosis) if diagnosis else _causes(line))]
    unmeasured = [line.code for line in ended if line.code not in diagnoses and _causes(line)]
    if unmeasured:
        sentences.append(
            f"mode=hand with the run's settings, hand_test=32 and object_code_list=[{unmeasured[0]}] measures palms, "
            "reach, joints and motors on such grasps."
        )
    if len(ended) > NAMED:
        sentences.append(f"{len(ended) - NAMED} more objects fell short, see the table.")
    if len(short) > len(ended):
        sentences.append(f"{count(len(short) - len(ended), 'object')} not through when the run ended.")
    return sentences


def _why(line: ObjectLine) -> str:
    """Returns why an object has less than its quota."""
    text = f"{line.collected} of {line.quota}, {ADVICE.get(line.end_reason, line.end_reason)}"
    reason, rows = max(line.rejected.items(), key=lambda item: item[1], default=("", 0))
    return f"{text}; of its {line.rows} rows {rows} were rejected for {reason}" if rows else text


def _measured(diagnosis: Diagnosis) -> list[str]:
    """Returns a sentence for each measured cause, that of most first, with what to try, and one on the hands."""
    causes = [
        f"{diagnosis.code}, {failed} of {diagnosis.tried} measured: {cause.value}; {measured}. To try: {advice}."
        for cause, failed, _, measured, advice in diagnosis.findings[:CAUSES]
        if failed
    ]
    return [*causes, f"{diagnosis.code}: {'; '.join(diagnosis.figures.lines)}."]


def _causes(line: ObjectLine) -> list[str]:
    """Returns a sentence for each cause why grasps of an object do not count, that of most first, with what to try."""
    if line.end_reason == "damaged":  # it has its grasps again with the same command
        return []
    rows: Counter[Cause] = Counter()
    for reason, rejected in line.rejected.items():
        if rejected and reason in CAUSE_OF_REASON:
            rows[CAUSE_OF_REASON[reason]] += rejected
    return [
        f"{line.code}, {failed} of {line.rows}: {cause.value}. To try: {CAUSE_ADVICE[cause]}."
        for cause, failed in rows.most_common(CAUSES)
    ]


def _skips(history: History) -> str:
    """Returns which rounds were given up."""
    return f"{count(len(history.skips), 'round')} given up: {named_rounds(history.skips)}." if history.skips else ""


def _failures(history: History) -> str:
    """Returns how often something failed."""
    if not history.failures:
        return ""
    alike, attempts = alike_failures(history)[0], count(len(history.failures), "attempt")
    return f"{attempts} failed, {len(alike)} of them with: {error_line(alike[-1].event.traceback)}"


def alike_failures(history: History) -> list[list[FailedAttempt]]:
    """Returns the failed attempts, those of one kind together, most first: alike is what differs in numbers alone."""
    kinds: dict[str, list[FailedAttempt]] = {}
    for attempt in history.failures:
        kinds.setdefault(re.sub(r"\d+", "#", error_line(attempt.event.traceback)), []).append(attempt)
    return sorted(kinds.values(), key=len, reverse=True)


def error_line(traceback: str) -> str:
    """Returns the last line of a traceback, cut where it is long."""
    line = last_line(traceback) or "no traceback"
    return line if len(line) <= LINE else line[: LINE - 1] + "…"


def named_rounds(rounds: Iterable[tuple[str, int]]) -> str:
    """Returns rounds, each an object code and a round id, in short: bowl 2; mug 0 to 3, 7."""
    by_code = _by_code(rounds)
    names = [f"{code} {in_short(ids)}" for code, ids in list(by_code.items())[:NAMED]]
    more = [f"and of {len(by_code) - NAMED} more objects"] if len(by_code) > NAMED else []
    return "; ".join(names + more)


def _by_code(rounds: Iterable[tuple[str, int]]) -> dict[str, list[int]]:
    """Returns object code -> its rounds, both rising."""
    by_code: dict[str, list[int]] = {}
    for code, round_id in sorted(set(rounds)):
        by_code.setdefault(code, []).append(round_id)
    return by_code


def in_short(rounds: Sequence[int]) -> str:
    """Returns rising round ids: 0 to 3, 7; how many there are where that gets long."""
    text = spans(rounds)
    return text if text.count(",") < NAMED else f"{len(rounds)} rounds from {rounds[0]} to {rounds[-1]}"
