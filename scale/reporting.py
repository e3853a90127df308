"""`mode=report`: one page that tells a person how a run came out. Running or not, finished, failed or empty."""

from __future__ import annotations

import signal
import time
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from bimangrasp.errors import InputError
from bimangrasp.grasp_fields import TERMS
from bimangrasp.grasp_header import CITATION
from scale import charts, journal, locks
from scale.charts import Axes, Line, Mark, number
from scale.config import Config
from scale.deduplication import DUPLICATE
from scale.harvest import Harvest, harvest
from scale.history import Call, History, history, speed
from scale.journal import Event
from scale.outcome import Outcome, in_short, is_generated, kind_of, last_line, outcome
from scale.progress import duration
from scale.run_folder import VALIDATOR, WORKER, RunFolder

SHOWN_OBJECTS = 300  # lines of a table, and so on: a page of megabytes helps nobody, and the manifest has all
SHOWN_FAILURES = 20
SHOWN_SKIPS = 30
SHOWN_INCIDENTS = 60
SHOWN_CALLS = 40
SHOWN_LOGS = 6
LOG_BYTES = 3000
SPANS = 60  # of time in the chart of speed
BINS = 40
LINES = 6  # workers with a line of their own
WIDE = 700  # of a chart that has the page's width
ORDER = ("total", *TERMS[:-1])
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
    folder = RunFolder(config.path or f"{config.output_root}/{config.exp_name}")
    if not folder.journal.exists():
        raise InputError(f"{folder.root} holds no run (no journal): wanted output_root/exp_name of one, or path=")
    path = _target(folder, config.out)
    told, page = render(folder, time.time())
    try:
        RunFolder(path.parent).write(path, page.encode())
    except OSError as error:
        raise InputError(f"{path} cannot be written ({error}): set out= to a place that can") from error
    return ReportPage(path, told)


def _target(folder: RunFolder, out: str) -> Path:
    """Returns where the page goes; refuses to write over anything but such a page."""
    place = Path(out) if out else folder.report
    path = place / folder.report.name if place.is_dir() else place
    if path.is_file() and GENERATOR not in path.read_bytes()[:1000]:
        raise InputError(
            f"{path} is there already and is no page of mode=report; move it away, or set out= to another place"
        )
    return path


def render(folder: RunFolder, now: float) -> tuple[Outcome, str]:
    """Returns how a run came out and the page about it.

    Args:
        folder: the run's.
        now: Unix time, s.
    """
    is_running = locks.is_running(locks.read_lock(folder))
    told = history(journal.replay(folder).events, now if is_running else None)
    sums = harvest(folder, bool(told.calls) and is_generated(told.calls[-1]))
    gone = (folder.final(code) for code in told.merged if not folder.final(code).is_file())
    sums.unreadable += [f"{path}: it is gone; the same command makes it again" for path in gone]
    came_out = outcome(told, journal.read_manifest(folder), sums, is_running)
    room = Environment(loader=PackageLoader("scale", "pages"), autoescape=True, undefined=StrictUndefined)
    room.globals |= {"number": number, "duration": duration, "moment": moment}
    page = room.get_template("report.html").render(
        name=folder.root.name or str(folder.root),
        root=folder.root,
        made=moment(now),
        told=told,
        sums=sums,
        outcome=came_out,
        objects=came_out.objects[:SHOWN_OBJECTS],
        rejects=rejects(told, came_out),
        energies=energy_charts(told, sums),
        curves=curve_charts(sums),
        pace=speed_chart(told),
        workers=workers(told),
        tests=tests(told),
        failures=failures(told)[:SHOWN_FAILURES],
        skips=skips(told),
        incidents=[incident(event) for event in told.incidents[-SHOWN_INCIDENTS:]],
        logs=logs(folder, told, came_out),
        calls=[call_line(call) for call in told.calls[-SHOWN_CALLS:]],
        settings=folder.config.read_text(errors="replace") if folder.config.exists() else "",
        citation=CITATION,
    )
    return came_out, page


def moment(seconds: float) -> str:
    """Returns a Unix time for people."""
    return time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(seconds))


class Bar(NamedTuple):
    """A reason, its rows, and their share of all in percent."""

    name: str
    rows: int
    percent: float


def rejects(told: History, came_out: Outcome) -> list[Bar]:
    """Returns for how many rows each reason held, most first."""
    total: Counter[str] = Counter()
    for one in came_out.objects:
        total.update({reason: rows for reason, rows in one.rejected.items() if rows})
    limits = told.calls[-1].start.get("acceptance_key", {}) if told.calls else {}
    return [Bar(_reason(name, limits), rows, 100 * rows / max(told.rows, 1)) for name, rows in total.most_common()]


def _reason(name: str, limits: Mapping[str, Any]) -> str:
    """Returns what a reject reason means."""
    group, _, rest = name.partition("/")
    words = rest.replace("_", " ")
    if group == "energy":
        return f"{words} not below {limits.get(f'filter.{rest}', 'its threshold')}"
    if group == "physics":
        return f"in the simulator: {words}"
    return "like an earlier grasp of the object" if name == DUPLICATE else name.replace("_", " ")


def energy_charts(told: History, sums: Harvest) -> list[tuple[str, Markup]]:
    """Returns the distribution of each term that is not the same everywhere, with median and threshold."""
    limits = told.calls[-1].start.get("acceptance_key", {}) if told.calls else {}
    found = []
    for term in ORDER:
        values = sums.energies.get(term, np.zeros(0))
        if not len(values) or values.min() == values.max():
            continue
        median, bins = float(np.median(values)), min(BINS, 8 + int(2 * len(values) ** 0.4))
        marks = [Mark(median, f"median {number(median)}")]
        if f"filter.{term}" in limits:
            marks.append(Mark(float(limits[f"filter.{term}"]), f"threshold {number(limits[f'filter.{term}'])}"))
        name = term.replace("_", " ")
        found.append((name, charts.histogram(values, Axes(f"{name} ({how(term)})", "grasps"), bins, marks)))
    return found


def how(term: str) -> str:
    """Returns how a term is to be read; energies have no unit."""
    return "weighted sum" if term == "total" else "unweighted"


def curve_charts(sums: Harvest) -> list[tuple[str, Markup]]:
    """Returns how each term fell: medians over the rounds of the median and of both quartiles of a round's grasps."""
    if not len(sums.step):
        return []
    found = []
    for term in ORDER:
        with np.errstate(all="ignore"):
            low, middle, high = _median(sums.curves[term]).T
        if not np.isfinite(middle).any() or (np.nanmin(middle) == np.nanmax(middle) == 0):
            continue
        name, line = term.replace("_", " "), Line(sums.step, middle, "", low, high)
        found.append((name, charts.lines([line], Axes("step", f"{name} ({how(term)})", may_log=True))))
    share = Line(sums.step, 100 * _median(sums.acceptance))
    return [*found, ("acceptance", charts.lines([share], Axes("step", "proposals accepted (%)")))]


def _median(rounds: np.ndarray) -> np.ndarray:
    """Returns the median over the first axis of what is finite; NaN where nothing is."""
    kept = np.isfinite(rounds).any(axis=0)
    found = np.full(rounds.shape[1:], np.nan)
    found[kept] = np.nanmedian(np.where(np.isfinite(rounds), rounds, np.nan)[:, kept], axis=0)
    return found


def speed_chart(told: History) -> tuple[Markup, Markup] | None:
    """Returns accepted grasps per second of each worker over time, with its legend; None where nothing was timed."""
    if not any(one.seconds and one.accepted is not None and one.worker for one in told.work.values()):
        return None
    pace = speed(told, SPANS)
    unit, length = _time_unit(pace.edges[-1])
    busiest = sorted(pace.rates, key=lambda name: -pace.rates[name].sum())
    drawn = {name: pace.rates[name] for name in sorted(busiest[:LINES])}
    if rest := busiest[LINES:]:
        drawn[f"mean of {len(rest)} others"] = np.mean([pace.rates[name] for name in rest], axis=0)
    edges = pace.edges / length
    steps = [Line(edges, rate, name, is_stepped=True) for name, rate in drawn.items()]
    marks = [Mark(start / length, "resumed") for start in pace.starts[-5:]]
    axes = Axes(f"time at work ({unit})", "accepted grasps (1/s)", WIDE)
    return charts.lines(steps, axes, marks), charts.legend(list(drawn))


def _time_unit(seconds: float) -> tuple[str, float]:
    """Returns a unit in which a time span is a handy number, and its length in seconds."""
    return ("s", 1.0) if seconds < 600 else ("min", 60.0) if seconds < 3 * 3600 else ("h", 3600.0)


class WorkerLine(NamedTuple):
    """One worker: its rounds, grasps, seconds for a round (median), share of the working time, grasps per second."""

    name: str
    rounds: int
    accepted: int
    round_seconds: float
    busy_percent: float
    rate: float


def workers(told: History) -> list[WorkerLine]:
    """Returns what each worker did, by its timed rounds."""
    found = []
    for name in sorted({one.worker for one in told.work.values() if one.seconds} - {""}):
        mine = [one for one in told.work.values() if one.worker == name and one.seconds]
        busy, accepted = sum(one.seconds for one in mine), sum(one.accepted or 0 for one in mine)
        median = float(np.median([one.seconds for one in mine]))
        share = 100 * busy / told.seconds if told.seconds else 0.0
        found.append(WorkerLine(name, len(mine), accepted, median, share, accepted / busy))
    return found


def tests(told: History) -> str:
    """Returns how long the validators took; empty where none was asked."""
    took = [one.test_seconds for one in told.work.values() if one.test_seconds]
    if not took:
        return ""
    return f"Validators tested {len(took)} rounds, {number(float(np.median(took)))} s each (median)."


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
    """Returns the failed attempts, those of one kind together, most first."""
    groups: dict[str, list[Event]] = {}
    for event in told.failures:
        groups.setdefault(kind_of(event), []).append(event)
    return [_failure(alike) for alike in sorted(groups.values(), key=len, reverse=True)]


def _failure(alike: list[Event]) -> Failure:
    rounds = by_object((event["code"], event["round"]) for event in alike)
    last = alike[-1]
    where = ", ".join(sorted({event["by"] or f"worker {event.get('worker')}" for event in alike})[:LINES])
    when, text = moment(last.get("time", 0.0)), last.get("traceback", "")
    return Failure(last_line(last), len(alike), rounds, where, when, text)


def by_object(keys: Iterable[tuple[str, int]]) -> str:
    """Returns rounds in short: mug 0 to 3, 7; bowl 2."""
    found: dict[str, set[int]] = {}
    for code, round_id in keys:
        found.setdefault(code, set()).add(round_id)
    named = [f"{code} {in_short(sorted(rounds))}" for code, rounds in list(found.items())[:LINES]]
    more = [f"{len(found) - LINES} more objects"] if len(found) > LINES else []
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


def incident(event: Event) -> Incident:
    """Returns an event as a line of a table."""
    who = next((f"{trade} {event[trade]}" for trade in (WORKER, VALIDATOR) if trade in event), "")
    device = f" ({event['device']})" if event.get("device") else ""
    at = f"{event['code']} {event['round']}" if event.get("code") else ""
    texts = [_exit(event["exitcode"]) if "exitcode" in event else "", str(event.get("reason", ""))]
    texts.append(f"{event['tile']} grasps at once" if "tile" in event else "")
    what = event["event"].replace("_", " ")
    return Incident(moment(event.get("time", 0.0)), what, who + device, at, "; ".join(filter(None, texts)))


def _exit(code: int) -> str:
    """Returns how a process ended."""
    return signal.Signals(-code).name if code < 0 else f"exit code {code}"


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


class CallLine(NamedTuple):
    """One call as a line of a table."""

    began: str
    mode: str
    took: str
    ended: str
    where: str
    version: str
    devices: str
    notes: list[str]
    error: str


def call_line(call: Call) -> CallLine:
    """Returns a call as a line of a table."""
    start = call.start
    ended = "no end in the journal" if call.exit_code is None else f"exit code {call.exit_code}"
    where = f"{start.get('host', '')} pid {start.get('pid', '')}"
    devices = ", ".join(f"{times} x {name}" if times > 1 else name for name, times in _counted(start))
    parts = (moment(call.began), start.get("mode", ""), duration(call.seconds), ended, where)
    return CallLine(*parts, start.get("version", ""), devices, start.get("notes", [])[:LINES], call.error)


def _counted(start: Event) -> list[tuple[str, int]]:
    return list(Counter(start.get("devices", [])).items())
