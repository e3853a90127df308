"""Draws the charts of a report: energies, how they fell, grasps per second."""

from __future__ import annotations

import numpy as np
from markupsafe import Markup

from bimangrasp.energy_terms import ENERGY_TERMS, TOTAL, Term
from scale.formatting import number
from scale.report import svg_charts
from scale.report.file_statistics import FileStatistics
from scale.report.history import History, speed
from scale.report.svg_charts import Axes, Line, Mark

SPANS = 60  # of time in the chart of speed
BINS = 40
LINES = 6  # workers with a line of their own
WIDE = 700  # of a chart that has the page's width
ORDER = (TOTAL, *ENERGY_TERMS)


def energy_charts(history: History, statistics: FileStatistics) -> list[tuple[str, Markup]]:
    """Returns the distribution of each term that is not the same everywhere, with median and threshold."""
    limits, charts = history.acceptance_key, []
    for term in ORDER:
        values = statistics.energies.get(term.name, np.zeros(0))
        if not len(values) or values.min() == values.max():
            continue
        median, bins = float(np.median(values)), min(BINS, 8 + int(2 * len(values) ** 0.4))
        marks = [Mark(median, f"median {number(median)}")]
        threshold = limits.get(f"filter.{term.name}")
        if threshold is not None:
            marks.append(Mark(float(threshold), f"threshold {number(threshold)}"))
        axes = Axes(f"{term.label} ({reading(term)})", "grasps")
        charts.append((term.label, svg_charts.histogram(values, axes, bins, marks)))
    return charts


def reading(term: Term) -> str:
    """Returns how the numbers of a term are meant."""
    return "weighted sum" if term is TOTAL else "unweighted"


def curve_charts(statistics: FileStatistics) -> list[tuple[str, Markup]]:
    """Returns how each term fell: medians over the rounds of the median and of both quartiles of a round's grasps."""
    if not len(statistics.step):
        return []
    charts = []
    for term in ORDER:
        with np.errstate(all="ignore"):
            low, middle, high = _median(statistics.curves[term.name]).T
        if not np.isfinite(middle).any() or (np.nanmin(middle) == np.nanmax(middle) == 0):
            continue
        line = Line(statistics.step, middle, "", low, high)
        axes = Axes("step", f"{term.label} ({reading(term)})", may_log=True)
        charts.append((term.label, svg_charts.lines([line], axes)))
    share = Line(statistics.step, 100 * _median(statistics.acceptance))
    return [*charts, ("acceptance", svg_charts.lines([share], Axes("step", "proposals accepted (%)")))]


def _median(rounds: np.ndarray) -> np.ndarray:
    """Returns the median over the first axis of what is finite; NaN where nothing is."""
    kept = np.isfinite(rounds).any(axis=0)
    medians = np.full(rounds.shape[1:], np.nan)
    medians[kept] = np.nanmedian(np.where(np.isfinite(rounds), rounds, np.nan)[:, kept], axis=0)
    return medians


def speed_chart(history: History) -> tuple[Markup, Markup] | None:
    """Returns accepted grasps per second of each worker over time, with its legend; None where nothing was timed."""
    rounds = history.work.values()
    if not any(work.seconds and work.accepted is not None and work.worker for work in rounds):
        return None
    pace = speed(history, SPANS)
    unit, length = _time_unit(pace.edges[-1])
    busiest = sorted(pace.rates, key=lambda name: -pace.rates[name].sum())
    drawn = {name: pace.rates[name] for name in sorted(busiest[:LINES])}
    if rest := busiest[LINES:]:
        drawn[f"mean of {len(rest)} others"] = np.mean([pace.rates[name] for name in rest], axis=0)
    edges = pace.edges / length
    steps = [Line(edges, rate, name, is_stepped=True) for name, rate in drawn.items()]
    marks = [Mark(start / length, "resumed") for start in pace.starts[-5:]]
    axes = Axes(f"time at work ({unit})", "accepted grasps (1/s)", WIDE)
    return svg_charts.lines(steps, axes, marks), svg_charts.legend(list(drawn))


def _time_unit(seconds: float) -> tuple[str, float]:
    """Returns a unit in which a time span is a handy number, and its length in seconds."""
    return ("s", 1.0) if seconds < 600 else ("min", 60.0) if seconds < 3 * 3600 else ("h", 3600.0)
