"""Writes the page of `mode=report`: how a run came out, running or not, finished, failed or empty."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined

from bimangrasp.files.header import CITATION
from scale.engine.scheduler import death
from scale.formatting import SEVERITY, duration, moment, number
from scale.merge.round_records import DUPLICATE
from scale.report.figures import curve_charts, energy_charts, speed_chart
from scale.report.file_statistics import statistics_of
from scale.report.history import Call, FailedAttempt, History, history_of
from scale.report.lost_files import lost_files
from scale.report.measured_causes import diagnoses_of
from scale.report.status import no_run, status_of_parts
from scale.report.summary import Outcome, alike_failures, error_line, named_rounds, object_lines, outcome
from scale.settings.schema import Config
from scale.store import journal, locks, path_settings
from scale.store.events import Event, ProcessDied, TileHalved
from scale.store.parts import folders_of, parts_in
from scale.store.path_settings import given_path
from scale.store.run_folder import VALIDATOR, WORKER, RunFolder

SHOWN_OBJECTS = 300  # lines of a table, and so on: a page of megabytes helps nobody, and the manifest has all
SHOWN_CALLS = 40
SHOWN_FAILURES = 20
SHOWN_SKIPS = 30
SHOWN_INCIDENTS = 60
SHOWN_LOGS = 6
LOG_BYTES = 3000
GENERATOR = b'content="bimangrasp mode=report"'
"""What tells a page of ours from any other file."""


class ReportPage(NamedTuple):
    """What was written. `str(page)` is for people.

    Attributes:
        path: the page.
        outcome: what it says at the top.
    """

    path: Path
    outcome: Outcome

    def __str__(self) -> str:
        return "\n".join([self.outcome.headline, *self.outcome.sentences, str(self.path)])


def write_report(config: Config) -> ReportPage:
    """Returns the page about a run, which is written anew at every call.

    Raises:
        InputError: there is no run in that folder, or the page cannot be written there.
    """
    folder = RunFolder(given_path(config))
    if not any(own.journal.exists() for own in folders_of(folder.root).values()):
        raise no_run(folder)
    path = path_settings.target(config.out, folder.report)
    path_settings.check_free(path, "page of mode=report", _is_page)
    came_out, page = render(folder, time.time())
    path_settings.write(path, page.encode())
    return ReportPage(path, came_out)


def _is_page(path: Path) -> bool:
    """Whether a file is a page of this mode."""
    return path.is_file() and GENERATOR in path.read_bytes()[:1000]


def render(folder: RunFolder, now: float) -> tuple[Outcome, str]:
    """Returns how a run came out and the page about it.

    Args:
        folder: the run's.
        now: Unix time, s.
    """
    run = _run_in(folder, now)
    past, folders = run.past, list(run.folders.values()) or [folder]
    statistics = statistics_of(folders)
    objects = [] if run.is_running else object_lines(past, run.manifest, run.is_running, statistics, run.lost)
    diagnoses = diagnoses_of(folders, objects)
    came_out = outcome(past, run.manifest, run.is_running, statistics, run.lacking, run.lost, diagnoses)
    environment = Environment(loader=PackageLoader("scale.report", "pages"), autoescape=True, undefined=StrictUndefined)
    words = (number, duration, moment, devices, details, error_line, process_of, rounds_of)
    environment.globals |= {function.__name__: function for function in words}
    page = environment.get_template("report.html").render(
        name=folder.root.name or str(folder.root),
        root=folder.root,
        made=moment(now),
        history=past,
        statistics=statistics,
        outcome=came_out,
        diagnoses=[str(diagnosis) for diagnosis in diagnoses.values()],
        parts=run.parts,
        objects=came_out.objects[:SHOWN_OBJECTS],
        rejects=rejects(past, came_out),
        energies=energy_charts(past, statistics),
        curves=curve_charts(statistics),
        pace=speed_chart(past),
        workers=workers(past),
        tests=tests(past),
        failures=alike_failures(past)[:SHOWN_FAILURES],
        skips=[skip for _, skip in sorted(past.skips.items())][:SHOWN_SKIPS],
        incidents=past.incidents[-SHOWN_INCIDENTS:],
        logs=logs(folder, run, came_out),
        calls=past.calls[-SHOWN_CALLS:],
        settings=folders[-1].config.read_text(errors="replace") if folders[-1].config.exists() else "",
        citation=CITATION,
    )
    return came_out, page


class _Run(NamedTuple):
    """What a run's folders tell: its own, or those of its parts, of which the one that came out worst is last.

    Attributes:
        folders: name of a part, empty without parts -> its folder, in which a call has begun.
        past, manifest: of all of them.
        is_running: whether somebody works on any.
        parts: name -> how each stands; none of a run without parts.
        lacking: a sentence for each part that is not all there.
        lost: object code -> what is wrong with its final file.
    """

    folders: dict[str, RunFolder]
    past: History
    manifest: dict[str, Any]
    is_running: bool
    parts: dict[str, str]
    lacking: list[str]
    lost: dict[str, str]


def _run_in(folder: RunFolder, now: float) -> _Run:
    """Returns what the folder of a run tells, or those of its parts, which are never behind what was joined of them."""
    own_parts = parts_in(folder.root)
    if not own_parts:
        is_running = locks.running(folder) is not None
        past = history_of(folder, now if is_running else None)
        lost = {} if is_running else lost_files(past, folder)
        return _Run({"": folder}, past, journal.read_manifest(folder), is_running, {}, [], lost)
    standing = status_of_parts(own_parts)
    begun = {name: part for name, part in standing.items() if part.folder and part.status}
    order = sorted(begun, key=lambda name: SEVERITY.index(begun[name].status.exit_code or 0))
    order.sort(key=lambda name: begun[name].status.exit_code is None)  # broken off, or at work
    past, objects, second, lost = History(), {}, {}, {}
    folders: dict[str, RunFolder] = {}
    for name in order:
        own, is_at_work = begun[name].folder, begun[name].status.running is not None
        folders[f"part {name}"] = own
        history_of(own, now if is_at_work else None, past, f"part {name}")
        lost |= {} if is_at_work else lost_files(history_of(own), own)
        manifest = journal.read_manifest(own)
        objects |= manifest.get("objects") or {}
        judged = manifest.get("second_judgement") or {}
        second = judged if judged.get("is_short") or not second else second
    is_running = any(part.status.running for part in begun.values())
    lacking = [f"Part {name}: {part.lacks}." for name, part in standing.items() if part.lacks]
    texts = {name: str(part) for name, part in standing.items()}
    manifest = {"objects": objects} | ({"second_judgement": second} if second else {})
    return _Run(folders, past, manifest, is_running, texts, lacking, lost)


def rejects(past: History, came_out: Outcome) -> list[tuple[str, int]]:
    """Returns for how many rows each reason held, most first."""
    total: Counter[str] = Counter()
    for line in came_out.objects:
        total.update({reason: rows for reason, rows in line.rejected.items() if rows})
    return [(_reason(name, past.acceptance_key), rows) for name, rows in total.most_common()]


def _reason(name: str, limits: Mapping[str, Any]) -> str:
    """Returns what a reject reason means."""
    group, _, rest = name.partition("/")
    words = rest.replace("_", " ")
    if group == "energy":
        return f"{words} not below {limits.get(f'filter.{rest}', 'its threshold')}"
    if group == "physics":
        return f"in the simulator: {words}"
    return "like an earlier grasp of the object" if name == DUPLICATE else name.replace("_", " ")


class WorkerLine(NamedTuple):
    """One worker: its rounds, grasps, seconds for a round (median), share of the working time, grasps per second."""

    name: str
    rounds: int
    accepted: int
    round_seconds: float
    busy_percent: float
    rate: float


def workers(past: History) -> list[WorkerLine]:
    """Returns what each worker did, by its timed rounds."""
    timed = [work for work in past.work.values() if work.seconds and work.worker]
    lines = []
    for name in sorted({work.worker for work in timed}):
        own = [work for work in timed if work.worker == name]
        busy, accepted = sum(work.seconds for work in own), sum(work.accepted or 0 for work in own)
        median = float(np.median([work.seconds for work in own]))
        share = 100 * busy / past.seconds if past.seconds else 0.0
        lines.append(WorkerLine(name, len(own), accepted, median, share, accepted / busy))
    return lines


def tests(past: History) -> str:
    """Returns how long the validators took; empty where none was asked."""
    seconds = [work.test_seconds for work in past.work.values() if work.test_seconds]
    if not seconds:
        return ""
    return f"Validators tested {len(seconds)} rounds, {number(float(np.median(seconds)))} s each (median)."


def devices(call: Call) -> str:
    """Returns on what a call had workers."""
    times = Counter(call.start.devices)
    return ", ".join(f"{count} x {name}" if count > 1 else name for name, count in times.items())


# ---- what went wrong


def rounds_of(attempts: Iterable[FailedAttempt]) -> str:
    """Returns the rounds of attempts in short: bowl 2; mug 0 to 3, 7."""
    return named_rounds((attempt.event.code, attempt.event.round_id) for attempt in attempts)


def process_of(event: Event) -> tuple[str, int] | None:
    """Returns role and slot of the process that an event is about; None where it is about none."""
    slots = ((role, getattr(event, role, None)) for role in (WORKER, VALIDATOR))
    return next(((role, slot) for role, slot in slots if slot is not None), None)


def details(event: Event) -> str:
    """Returns what an event about a worker, a validator or the disk says besides its name."""
    if isinstance(event, ProcessDied):
        return death(event.exitcode, "").how
    return f"{event.tile} grasps at once" if isinstance(event, TileHalved) else event.reason


def logs(folder: RunFolder, run: _Run, came_out: Outcome) -> list[tuple[str, str]]:
    """Returns the ends of the logs that may explain what went wrong: name and text."""
    places = {(part, process) for part, event in run.past.troubles if (process := process_of(event))}
    first = sorted((part, slot, role) for part, (role, slot) in places)[:SHOWN_LOGS]
    paths = [run.folders[part].worker_log(slot, role) for part, slot, role in first]
    if came_out.state in ("failed", "broken off", "stopped"):
        paths.insert(0, list(run.folders.values())[-1].run_log)
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
