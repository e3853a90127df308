"""Shows a run at work and reports it when it ends: a panel or lines, the log; the report and the manifest's entries."""

from __future__ import annotations

import os
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from scale.formatting import ADVICE, duration, last_line, objects_table, spans
from scale.screen import Screen, hush
from scale.state.records import ObjectState
from scale.state.round_table import DONE
from scale.store import durable_io
from scale.store.run_folder import RunFolder

PLAIN_EVERY_S = 10.0
LIVE_EVERY_S = 0.5
FEW_WORKERS = 4  # what each of more does would fill the screen


class Snapshot(NamedTuple):
    """A moment of a run.

    Attributes:
        collected, quota: accepted grasps that count, and those wanted, of all objects.
        ended, objects: how many objects are through, of how many.
        rates: device -> accepted grasps per second.
        failures, skipped: failed attempts and rounds given up, in this call.
        workers: what each worker does.
        validators: what they do together; empty where there are none.
        eta_s: seconds to go at the rate so far; None while nothing was accepted yet.
    """

    collected: int
    quota: int
    ended: int
    objects: int
    rates: dict[str, float]
    failures: int
    skipped: int
    workers: list[str]
    validators: str
    eta_s: float | None


class Meter:
    """Accepted grasps by worker since the first one was ready."""

    def __init__(self) -> None:
        self._start: float | None = None
        self._gained: dict[str, int] = {}

    def ready(self, device: str) -> None:
        """Starts the clock."""
        self._start = self._start or time.monotonic()
        self._gained.setdefault(device, 0)

    def gained(self, device: str, accepted: int) -> None:
        """Counts a round's accepted grasps."""
        self._gained[device] = self._gained.get(device, 0) + accepted

    def rates(self) -> dict[str, float]:
        """Returns grasps per second by device."""
        passed = max(time.monotonic() - (self._start or time.monotonic()), 1e-9)
        return {device: count / passed for device, count in self._gained.items()}

    def eta(self, missing: int) -> float | None:
        """Returns the seconds to `missing` more accepted grasps, None where nothing tells."""
        rate = sum(self.rates().values())
        return missing / rate if rate > 0 else None


class Progress:
    """The screen and the log of a run.

    Attributes:
        meter: accepted grasps by device.
        noted: notes that were told when they arose.
    """

    def __init__(self, folder: RunFolder, title: str) -> None:
        from rich.console import Console  # after the checks of a call, which answer at once
        from rich.live import Live

        hush()
        shown = Screen(sys.stdout)
        self._console, self._title = Console(file=shown, highlight=False, soft_wrap=True), title
        self.meter = Meter()
        self.noted: set[str] = set()
        self._log = durable_io.create(folder.run_log, os.O_APPEND)
        self._live = Live(console=self._console, auto_refresh=False, transient=True)
        self._is_live = self._console.is_terminal
        self._shown = time.monotonic()
        if self._is_live:
            self._live.start()

    def say(self, text: str) -> None:
        """Tells something that happened, on the screen and in the log."""
        self._console.print(text, markup=False)
        self.log(text)

    def note(self, text: str) -> None:
        """Tells what the report has as a note, so that the end need not repeat it."""
        self.noted.add(text)
        self.say(text)

    def log(self, text: str) -> None:
        """Writes into the log alone."""
        stamp = time.strftime("%Y-%m-%d %H:%M:%S")
        try:
            durable_io.write(self._log, "".join(f"{stamp} {line}\n" for line in text.splitlines()).encode())
        except OSError as error:
            if error.errno not in durable_io.DISK_FULL:  # a full disk costs lines of the log, never the run
                raise

    def is_due(self) -> bool:
        """Returns whether the screen should be brought up to date."""
        return time.monotonic() - self._shown >= (LIVE_EVERY_S if self._is_live else PLAIN_EVERY_S)

    def show(self, now: Snapshot) -> None:
        """Brings the screen up to date."""
        self._shown = time.monotonic()
        if self._is_live:
            self._live.update(_panel(self._title, now), refresh=True)
        else:
            self.say(plain(now))

    def close(self) -> None:
        """Gives the terminal back."""
        if self._is_live:
            self._live.stop()
        os.close(self._log)


def plain(now: Snapshot) -> str:
    """Returns a moment as a line."""
    total = f"{sum(now.rates.values()):.2f} grasps/s"
    faults = f", {now.failures} failed attempts, {now.skipped} rounds skipped" if now.failures or now.skipped else ""
    doing = f" ({'; '.join(now.workers)})" if len(now.workers) <= FEW_WORKERS else ""
    tests = f"{now.validators}, " if now.validators else ""
    return (
        f"{now.collected}/{now.quota} grasps, {now.ended}/{now.objects} objects, {total}, "
        f"{len(now.workers)} workers{doing}, {tests}{duration(now.eta_s)} to go{faults}"
    )


def _panel(title: str, now: Snapshot) -> Any:
    """Returns a moment as a panel."""
    from rich.panel import Panel
    from rich.table import Table

    grid = Table.grid(padding=(0, 2))
    share = now.collected / max(1, now.quota)
    width = 30
    bar = "█" * int(share * width) + "·" * (width - int(share * width))
    grid.add_row("grasps", f"{bar} {now.collected}/{now.quota}")
    grid.add_row("objects", f"{now.ended}/{now.objects} through")
    grid.add_row("grasps/s", "   ".join(f"{name} {rate:.2f}" for name, rate in now.rates.items()) or "none yet")
    grid.add_row("workers", "\n".join(now.workers) or "none")
    if now.validators:
        grid.add_row("tests", now.validators)
    grid.add_row("failed", f"{now.failures} attempts, {now.skipped} rounds skipped")
    grid.add_row("to go", duration(now.eta_s))
    return Panel(grid, title=title, expand=False)


EXIT_OK, EXIT_ERROR, EXIT_SHORT = 0, 1, 3
LEAST_AGREEMENT = 0.95
"""Share of a sample of grasps of which MuJoCo must find what a device has found."""


class SecondJudgement(NamedTuple):
    """What MuJoCo says of the grasps of a sample.

    Attributes:
        protocol: by which they were accepted.
        accepted: grasps of the run.
        sample: how many of them were judged again.
        agreeing: how many of these hold there too.
    """

    protocol: str
    accepted: int
    sample: int
    agreeing: int

    @property
    def agreement(self) -> float:
        """Share of the sample that holds; 1 where nothing was accepted."""
        return self.agreeing / self.sample if self.sample else 1.0

    @property
    def is_short(self) -> bool:
        """Whether MuJoCo agrees too seldom."""
        return self.agreement < LEAST_AGREEMENT

    def as_manifest(self) -> dict[str, Any]:
        """Returns the manifest's entry."""
        return self._asdict() | {"agreement": self.agreement, "is_short": self.is_short, "text": str(self)}

    def __str__(self) -> str:
        text = (
            f"{self.protocol}: verdicts of a device need not repeat; MuJoCo judged {self.sample} of {self.accepted} "
            f"accepted grasps again, and {self.agreeing} hold there too ({self.agreement:.1%})"
        )
        wanted = f": fewer than {LEAST_AGREEMENT:.0%}, so do not rely on this run; validation=bench takes longer"
        return text + (wanted if self.is_short else "")


@dataclass(frozen=True)
class ObjectReport:
    """One object at the end of a call.

    Attributes:
        code, index: identity.
        quota: rows wanted.
        collected: rows that it has.
        rounds_done: rounds that are proven.
        tried, accepted: rows of these rounds, and those of them that count.
        failed_attempts: attempts that failed in this call.
        skipped: rounds that were given up, each with round, seed and traceback.
        end_reason: quota, barren, max_rounds, changed, no_pieces, generated (one round was asked for), or stopped where
            the call ended before the object.
        rejected: reason -> rows of its rounds that do not count for that; a row can have several reasons.
        pieces: its convex pieces, where a simulator is asked: see `RunRequest.pieces_record`.
        path: its final file, None where there is none.
        sha256, content_sha256: of that file.
        notes: what else there is to say.
    """

    code: str
    index: int
    quota: int
    collected: int
    rounds_done: int
    tried: int
    accepted: int
    failed_attempts: int
    skipped: list[dict[str, Any]]
    end_reason: str
    rejected: dict[str, int]
    pieces: dict[str, Any] | None
    path: Path | None
    sha256: str
    content_sha256: str
    notes: list[str]

    @property
    def is_short(self) -> bool:
        """Whether the quota was not reached."""
        return self.end_reason not in ("quota", "generated")


@dataclass(frozen=True)
class RunReport:
    """What a call did. `str(report)` is the table at the end.

    Attributes:
        exit_code: 0 every quota reached, 3 some object fell short, 130 and 143 after signals.
        run_dir: the run's folder.
        objects: in the order of the call.
        notes: warnings of the whole call.
        seconds: how long it took.
    """

    exit_code: int
    run_dir: Path
    objects: list[ObjectReport]
    notes: list[str] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def skips(self) -> list[tuple[str, int]]:
        """Object code and round of everything that was given up."""
        return [(report.code, skip["round"]) for report in self.objects for skip in report.skipped]

    @property
    def paths(self) -> list[Path]:
        """The final files."""
        return [report.path for report in self.objects if report.path is not None]

    def __str__(self) -> str:
        rows = [
            (o.code, f"{o.collected}/{o.quota}", o.tried, o.accepted, o.rounds_done, len(o.skipped), o.end_reason)
            for o in self.objects
        ]
        lines = objects_table(("object", "grasps", "tried", "accepted", "rounds", "skipped", "ended by"), rows)
        lines += [f"short: {report.code}: {_why_short(report)}" for report in self.objects if report.is_short]
        lines += [_skip_warning(report) for report in self.objects if report.skipped]
        lines += [f"note: {note}" for note in self.notes]
        lines += [f"note: {report.code}: {note}" for report in self.objects for note in report.notes]
        return "\n".join([*lines, f"{self.run_dir}  {self.seconds:.1f} s  exit code {self.exit_code}"])


def _why_short(report: ObjectReport) -> str:
    """Returns why an object has fewer rows than its quota."""
    gone = f"; {len(report.skipped)} rounds skipped" if report.skipped else ""
    counts = [f"{count} {reason}" for reason, count in report.rejected.items() if count]
    rejects = f" (rows rejected by reason: {', '.join(counts)})" if counts else ""
    return f"{report.collected} of {report.quota}, {ADVICE.get(report.end_reason, report.end_reason)}{gone}{rejects}"


def _skip_warning(report: ObjectReport) -> str:
    named = spans([skip["round"] for skip in report.skipped])
    last = last_line(report.skipped[-1]["traceback"]) or "no traceback"
    return f"warning: {report.code}: skipped rounds {named}; the last one with: {last}"


def object_report(
    state: ObjectState, batch: int, pieces: dict[str, Any] | None, path: Path | None, end_reason: str, notes: list[str]
) -> ObjectReport:
    """Returns the report of an object as it stands.

    Args:
        state: of the object.
        batch: rows of a round.
        pieces: see `ObjectReport`.
        path: its file, if there is one.
        end_reason: see `ObjectReport`.
        notes: further ones.
    """
    return ObjectReport(
        code=state.code,
        index=state.index,
        quota=state.quota,
        collected=state.collected,
        rounds_done=state.rounds.count(DONE),
        tried=batch * state.rounds.count(DONE),
        accepted=state.rounds.accepted_rows,
        failed_attempts=state.failures.total(),
        skipped=state.why_skipped(),
        end_reason=end_reason,
        rejected=dict(state.rounds.rejected),
        pieces=pieces,
        path=path,
        sha256=state.final_sha256,
        content_sha256=state.final.content_sha256 if state.final else "",
        notes=[*state.notes, *notes],
    )


def as_manifest(report: ObjectReport, root: Path) -> dict[str, Any]:
    """Returns an object's entry of the manifest."""
    entry = {name: value for name, value in vars(report).items() if name != "code"}
    return entry | {"path": report.path.relative_to(root).as_posix() if report.path else None}
