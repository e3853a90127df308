"""Charts: a point lies where the numbers on the axes say, bars have the height of their counts, text is text."""

from __future__ import annotations

import xml.etree.ElementTree as ET

import numpy as np
import pytest

from scale.formatting import number
from scale.report.figures import BOTTOM, HEIGHT, LEFT, TOP, WIDTH, Axes, Line, Mark, histogram, legend, lines


def parsed(chart):
    return ET.fromstring(str(chart))


def points(chart, tag="polyline"):
    return [
        np.array([[float(v) for v in pair.split(",")] for pair in found.get("points").split()])
        for found in parsed(chart).iter(tag)
    ]


def ticks(chart):
    """({place: number} of the x axis, the same of the y axis)."""
    found = [(float(t.get("x")), float(t.get("y")), t.get("text-anchor"), t.text) for t in parsed(chart).iter("text")]
    across = {x: text for x, y, anchor, text in found if anchor == "middle" and y == HEIGHT - BOTTOM + 14}
    up = {y - 4: text for x, y, anchor, text in found if anchor == "end" and x == LEFT - 5}
    return across, up


def test_a_line_lies_where_the_axes_say():
    chart = lines([Line(np.array([0.0, 5.0, 10.0]), np.array([0.0, 20.0, 100.0]))], Axes("step", "energy"))
    ((begin, middle, end),) = points(chart)
    across, up = ticks(chart)
    assert (across[begin[0]], across[end[0]], up[begin[1]], up[end[1]]) == ("0", "10", "0", "100")
    assert middle[0] == pytest.approx((begin[0] + end[0]) / 2, abs=0.1)
    assert middle[1] == pytest.approx(begin[1] + 0.2 * (end[1] - begin[1]), abs=0.1)
    assert end[1] == TOP and end[0] < WIDTH


def test_a_logarithmic_axis_has_equal_steps_for_equal_factors():
    drawn = Line(np.arange(4.0), np.array([0.01, 0.1, 1.0, 10.0]))
    chart = lines([drawn], Axes("step", "energy", may_log=True))
    heights = points(chart)[0][:, 1]
    np.testing.assert_allclose(np.diff(heights), np.diff(heights)[0], atol=0.11)
    assert ticks(chart)[1][heights[1]] == "0.1"
    straight = points(lines([drawn], Axes("step", "energy")))[0][:, 1]
    assert abs(np.diff(straight)[0]) < 2 < abs(np.diff(straight)[-1])


def test_zero_or_negative_values_keep_a_linear_axis():
    for lowest in (0.0, -1.0):
        drawn = Line(np.arange(3.0), np.array([lowest, 1.0, 1000.0]))
        heights = points(lines([drawn], Axes("step", "energy", may_log=True)))[0][:, 1]
        assert heights[0] - heights[1] < 1 and heights[1] - heights[2] > 100


def test_what_is_not_finite_is_left_out():
    drawn = Line(np.arange(4.0), np.array([np.nan, 1.0, np.inf, 2.0]))
    assert len(points(lines([drawn], Axes("x", "y")))[0]) == 2
    assert points(lines([Line(np.arange(2.0), np.full(2, np.nan))], Axes("x", "y"))) is not None


def test_a_band_goes_there_and_back():
    x = np.arange(3.0)
    chart = lines([Line(x, x + 1, "", x, x + 2)], Axes("x", "y"))
    (band,) = points(chart, "polygon")
    ((begin, _, end),) = points(chart)
    assert band[0, 0] == band[-1, 0] == begin[0] and band[2, 0] == band[3, 0] == end[0]
    assert band[0, 1] > begin[1] > band[-1, 1]


def test_steps_hold_until_the_next_edge():
    drawn = Line(np.array([0.0, 1.0, 2.0]), np.array([3.0, 5.0]), is_stepped=True)
    ((a, b, c, d),) = points(lines([drawn], Axes("x", "y")))
    assert a[1] == b[1] > c[1] == d[1] and b[0] == c[0]


@pytest.mark.parametrize("values", [np.random.default_rng(0).normal(size=1000), np.full(5, 7.0), np.zeros(1)])
def test_bars_have_all_values(values):
    chart = histogram(values, Axes("energy", "grasps"), 20)
    heights = np.array([float(bar.get("height")) for bar in parsed(chart).iter("rect")])
    assert len(heights) == 20
    most = np.histogram(np.clip(values, *np.quantile(values, (0.005, 0.995))), 20)[0].max()
    assert heights.sum() / heights.max() * most == pytest.approx(len(values), rel=0.01)


def test_a_mark_stands_at_its_value():
    chart = histogram(np.linspace(0, 10, 101), Axes("energy", "grasps"), 10, [Mark(4.0, "median"), Mark(99.0, "far")])
    (mark,) = (path for path in parsed(chart).iter("path") if path.get("stroke") == "#000")
    places = {text: x for x, text in ticks(chart)[0].items()}
    assert float(mark.get("d")[1:].split()[0]) == pytest.approx(places["4"], abs=0.1)
    assert "far" not in str(chart)


def test_text_is_text():
    evil = '<script>alert(1)</script>&"'
    for chart in (
        lines([Line(np.arange(2.0), np.arange(2.0))], Axes(evil, evil), [Mark(0.5, evil)]),
        histogram(np.arange(9.0), Axes(evil, evil), 3, [Mark(4.0, evil)]),
        legend([evil]),
    ):
        assert "<script" not in str(chart)
        root = ET.fromstring(f"<a>{chart}</a>")
        assert not list(root.iter("script")) and evil in "".join(root.itertext())


@pytest.mark.parametrize(
    ("value", "text"), [(0, "0"), (0.123456, "0.123"), (12.34, "12.3"), (12345.6, "12\u2009346"), (float("nan"), "–")]
)
def test_numbers_have_three_digits_or_all_before_the_point(value, text):
    assert number(value) == text
