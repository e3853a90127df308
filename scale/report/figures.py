"""Draws the charts of a report as inline SVG: energies, how they fell, grasps per second."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from markupsafe import Markup, escape

from bimangrasp.energy_terms import ENERGY_TERMS, TOTAL, Term
from scale.formatting import number
from scale.report.file_statistics import FileStatistics
from scale.report.history import History, speed

SPANS = 60  # of time in the chart of speed
BINS = 40
LINES = 6  # workers with a line of their own
WIDE = 700  # of a chart that has the page's width
ORDER = (TOTAL, *ENERGY_TERMS)
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#555555")
"""Okabe and Ito, "Color Universal Design" (2008): told apart by people with any kind of color vision."""
DASHES = ("", "7 3", "2 3", "9 3 2 3", "4 4", "1 2", "12 4")  # and in print without colors
WIDTH, HEIGHT = 360, 230
LEFT, RIGHT, TOP, BOTTOM = 52, 10, 10, 40
TICKS = 5
LOG_RATIO = 30.0  # between largest and smallest value, from where the y axis is logarithmic


class Line(NamedTuple):
    """One line of a chart.

    Attributes:
        x, y: its points; those that are not finite are left out.
        name: for the legend; empty for none.
        low, high: a band around it; None for none.
        is_stepped: whether y[i] holds from x[i] to x[i + 1], of which there is one more.
    """

    x: np.ndarray
    y: np.ndarray
    name: str = ""
    low: np.ndarray | None = None
    high: np.ndarray | None = None
    is_stepped: bool = False


class Mark(NamedTuple):
    """A vertical line at x with its meaning."""

    x: float
    name: str


class Axes(NamedTuple):
    """What a chart is of.

    Attributes:
        x, y: what the axes are, with units.
        width: in the text's units, of which the height has `HEIGHT`.
        may_log: whether the y axis may be logarithmic, where all values are positive and far apart.
    """

    x: str
    y: str
    width: int = WIDTH
    may_log: bool = False


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
        charts.append((term.label, histogram(values, axes, bins, marks)))
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
        charts.append((term.label, lines([line], axes)))
    share = Line(statistics.step, 100 * _median(statistics.acceptance))
    return [*charts, ("acceptance", lines([share], Axes("step", "proposals accepted (%)")))]


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
    return lines(steps, axes, marks), legend(list(drawn))


def _time_unit(seconds: float) -> tuple[str, float]:
    """Returns a unit in which a time span is a handy number, and its length in seconds."""
    return ("s", 1.0) if seconds < 600 else ("min", 60.0) if seconds < 3 * 3600 else ("h", 3600.0)


class _Scale(NamedTuple):
    """Numbers -> places between `begin` and `end`."""

    low: float
    high: float
    begin: float
    end: float
    is_log: bool = False

    def __call__(self, values: np.ndarray | float) -> np.ndarray:
        low, high, values = (
            np.log10(v) if self.is_log else np.asarray(v, float) for v in (self.low, self.high, values)
        )
        return self.begin + (values - low) / (high - low) * (self.end - self.begin)

    def ticks(self) -> list[float]:
        """Returns round numbers within the scale."""
        if self.is_log:
            return _log_ticks(self.low, self.high)
        step = _round_step((self.high - self.low) / TICKS)
        return [i * step for i in range(math.ceil(self.low / step - 1e-9), math.floor(self.high / step + 1e-9) + 1)]


def _round_step(step: float) -> float:
    """Returns 1, 2 or 5 times a power of ten, at least the given step."""
    power = 10.0 ** math.floor(math.log10(step))
    return next(power * factor for factor in (1, 2, 5, 10) if power * factor >= step * (1 - 1e-9))


def _log_ticks(low: float, high: float) -> list[float]:
    """Returns powers of ten, and numbers between where there are few of them."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    stride = max(1, len(powers) // (TICKS + 1))
    factors = (1,) if len(powers) > 3 else (1, 2, 5)
    ticks = [factor * 10.0**power for power in powers[::stride] for factor in factors]
    return [tick for tick in ticks if low <= tick * (1 + 1e-9) and tick <= high * (1 + 1e-9)]


def lines(drawn: Sequence[Line], axes: Axes, marks: Sequence[Mark] = ()) -> Markup:
    """Returns a chart of lines, each in a color and dash of its own."""
    heights = [part for line in drawn for part in (line.y, line.low, line.high) if part is not None]
    x = _scale([line.x for line in drawn], LEFT, axes.width - RIGHT)
    y = _scale(heights if axes.may_log else [*heights, np.zeros(1)], HEIGHT - BOTTOM, TOP, axes.may_log)
    parts = [_line(x, y, line, COLORS[i % len(COLORS)], DASHES[i % len(DASHES)]) for i, line in enumerate(drawn)]
    return _picture(axes, [_grid(x, y, axes), *parts, *(_mark(x, mark) for mark in marks)])


def _line(x: _Scale, y: _Scale, line: Line, color: str, dash: str) -> str:
    """Returns a line on its band."""
    band = ""
    if line.low is not None:
        there, back = (line.x, line.low), (line.x[::-1], line.high[::-1])
        outline = " ".join((_points(x, y, *there), _points(x, y, *back)))
        band = f'<polygon points="{outline}" fill="{color}" fill-opacity=".22"/>'
    places = (np.repeat(line.x, 2)[1:-1], np.repeat(line.y, 2)) if line.is_stepped else (line.x, line.y)
    style = f'fill="none" stroke="{color}" stroke-width="1.8" stroke-dasharray="{dash}"'
    return f'{band}<polyline points="{_points(x, y, *places)}" {style}/>'


def histogram(values: np.ndarray, axes: Axes, bins: int, marks: Sequence[Mark] = ()) -> Markup:
    """Returns how values are distributed. The outermost bars have what lies beyond the 0.5th and 99.5th percentile."""
    low, high = np.quantile(values, (0.005, 0.995))
    if not high > low:
        low, high = low - 0.5 * (abs(low) or 1.0), low + 0.5 * (abs(low) or 1.0)
    counts, edges = np.histogram(np.clip(values, low, high), bins, (low, high))
    x = _Scale(low, high, LEFT, axes.width - RIGHT)
    y = _Scale(0.0, 1.12 * counts.max(), HEIGHT - BOTTOM, TOP)
    bars = []
    for left, right, top in zip(x(edges[:-1]), x(edges[1:]), y(counts), strict=True):
        place = f'x="{left:.1f}" y="{top:.1f}" width="{max(right - left - 0.6, 0.4):.1f}"'
        bars.append(f'<rect {place} height="{HEIGHT - BOTTOM - top:.1f}" fill="{COLORS[0]}"/>')
    shown = [_mark(x, mark) for mark in marks if low <= mark.x <= high]
    return _picture(axes, [_grid(x, y, axes), *bars, *shown])


def _scale(parts: Sequence[np.ndarray], begin: float, end: float, may_log: bool = False) -> _Scale:
    """Returns the scale on which all values have room."""
    values = np.concatenate([np.ravel(part) for part in parts] or [np.zeros(0)])
    values = values[np.isfinite(values)]
    low, high = (float(values.min()), float(values.max())) if len(values) else (0.0, 1.0)
    if may_log and low > 0 and high / low > LOG_RATIO:
        return _Scale(low, high, begin, end, is_log=True)
    return _Scale(low, high if high > low else low + (abs(low) or 1.0), begin, end)


def _points(x: _Scale, y: _Scale, xs: np.ndarray, ys: np.ndarray) -> str:
    """Returns the finite points as SVG wants them."""
    good = np.isfinite(xs) & np.isfinite(ys)
    return " ".join(f"{a:.1f},{b:.1f}" for a, b in zip(x(xs[good]), y(ys[good]), strict=True))


def _grid(x: _Scale, y: _Scale, axes: Axes) -> str:
    """Returns both axes with grid, numbers and labels."""
    floor, parts = HEIGHT - BOTTOM, []
    for tick in x.ticks():
        at = float(x(tick))
        parts.append(f'<path class="g" d="M{at:.1f} {TOP}V{floor}"/>')
        parts.append(f'<text x="{at:.1f}" y="{floor + 14}" text-anchor="middle">{number(tick)}</text>')
    for tick in y.ticks():
        at = float(y(tick))
        parts.append(f'<path class="g" d="M{LEFT} {at:.1f}H{axes.width - RIGHT}"/>')
        parts.append(f'<text x="{LEFT - 5}" y="{at + 4:.1f}" text-anchor="end">{number(tick)}</text>')
    middle, center = (TOP + floor) / 2, (LEFT + axes.width - RIGHT) / 2
    parts.append(f'<text x="{center}" y="{HEIGHT - 7}" text-anchor="middle">{escape(axes.x)}</text>')
    turn = f'transform="rotate(-90 12 {middle})" x="12" y="{middle}"'
    parts.append(f'<text {turn} text-anchor="middle">{escape(axes.y)}</text>')
    return "".join(parts)


def _mark(x: _Scale, mark: Mark) -> str:
    """Returns a vertical line with its name on the side where there is more room."""
    at = float(x(mark.x))
    line = f'<path d="M{at:.1f} {TOP}V{HEIGHT - BOTTOM}" stroke="#000" stroke-width="1.2" stroke-dasharray="4 3"/>'
    is_right = at > (x.begin + x.end) / 2
    side = f'x="{at - 4 if is_right else at + 4:.1f}" text-anchor="{"end" if is_right else "start"}"'
    return f'{line}<text {side} y="{TOP + 9}">{escape(mark.name)}</text>'


def _picture(axes: Axes, parts: Sequence[str]) -> Markup:
    """Returns the whole chart."""
    label = escape(f"{axes.y} over {axes.x}")
    return Markup(f'<svg viewBox="0 0 {axes.width} {HEIGHT}" role="img" aria-label="{label}">{"".join(parts)}</svg>')


def legend(names: Sequence[str]) -> Markup:
    """Returns which line is whose."""
    keys = [
        Markup('<span class="key"><svg viewBox="0 0 30 8" width="30" height="8" aria-hidden="true">')
        + Markup('<path d="M0 4H30" stroke="{}" stroke-width="2.5" stroke-dasharray="{}"/></svg>{}</span>').format(
            COLORS[i % len(COLORS)], DASHES[i % len(DASHES)], name
        )
        for i, name in enumerate(names)
    ]
    return Markup("").join(keys)
