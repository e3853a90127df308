"""Formats numbers, times, names and tables for people."""

from __future__ import annotations

import math
import time
from collections.abc import Collection, Sequence
from typing import Any

SHOWN_OBJECTS = 40  # a table of ten thousand lines helps nobody; the manifest has them all

ADVICE = {
    "max_rounds": "max_rounds was reached: raise it, or loosen the filter",
    "barren": "barren, max_barren_rounds rounds in a row gave nothing: loosen the filter, or raise max_barren_rounds",
    "no_pieces": "its mesh has no convex pieces to be tested on, see its notes: prepare it with mode=objects",
    "stopped": "the run was stopped: the same command goes on",
    "damaged": "its final file is gone or damaged: the same command makes it again",
}
"""Why an object has fewer grasps than were wanted -> what a person should know and can do."""

SEVERITY = (0, 3, 1, 2, 130, 143)
"""Exit codes from best to worst."""


def spans(numbers: Sequence[int]) -> str:
    """Returns rising numbers in short: 0 to 3, 7."""
    parts: list[list[int]] = []
    for number in numbers:
        if parts and number == parts[-1][-1] + 1:
            parts[-1] = [parts[-1][0], number]
        else:
            parts.append([number])
    return ", ".join(" to ".join(map(str, part)) for part in parts)


def table(head: Sequence[str], rows: Sequence[Sequence[Any]], right: Collection[int] = ()) -> list[str]:
    """Returns lines with aligned columns: those with the indices `right` to the right, the others to the left."""
    cells = [[str(cell) for cell in row] for row in (head, *rows)]
    widths = [max(len(row[i]) for row in cells) for i in range(len(head))]
    aligned = [
        [cell.rjust(widths[i]) if i in right else cell.ljust(widths[i]) for i, cell in enumerate(row)] for row in cells
    ]
    return ["  ".join(row).rstrip() for row in aligned]


def objects_table(head: Sequence[str], rows: Sequence[Sequence[Any]]) -> list[str]:
    """Returns the lines of a table with a row for each object: the first ones, and how many more there are."""
    lines = table(head, rows[:SHOWN_OBJECTS])
    if len(rows) > SHOWN_OBJECTS:
        lines.append(f"... and {len(rows) - SHOWN_OBJECTS} more objects")
    return lines


def duration(seconds: float | None) -> str:
    """Returns a time span for people."""
    if seconds is None:
        return "unknown time"
    hours, rest = divmod(round(seconds), 3600)
    return f"{hours} h {rest // 60:02d} min" if hours else f"{rest // 60} min {rest % 60:02d} s"


def moment(seconds: float) -> str:
    """Returns a Unix time for people."""
    return time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(seconds))


def listed(names: list[str], most: int = 5) -> str:
    """Returns names for a message: the first ones, and how many more there are."""
    rest = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(repr(name) for name in names[:most]) + rest


def number(value: float) -> str:
    """Returns a number with three digits, or all those before the point."""
    if value == 0 or not math.isfinite(value):
        return "0" if value == 0 else "–"
    return f"{value:,.0f}".replace(",", "\u2009") if abs(value) >= 1000 else f"{value:.3g}"


def count(amount: int, thing: str) -> str:
    """Returns a number of things."""
    return f"{amount} {thing}{'' if amount == 1 else 's'}"


def last_line(text: str) -> str:
    """Returns the line of a traceback that says what went wrong."""
    return (text.strip().splitlines() or [""])[-1]


def byte_size(count: int) -> str:
    """Returns a number of bytes for people."""
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"
