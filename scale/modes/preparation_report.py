"""What `mode=objects` found and made, for people."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from bimangrasp.objects.config import ObjectConfig
from bimangrasp.objects.mesh_report import object_scales
from bimangrasp.objects.preparation import Facts, Preparation
from scale.settings.names import is_safe

READY, PREPARED, KEPT, LEFT_OUT = "can be used", "prepared", "kept", "cannot be used"
"""What becomes of an object; kept is one that was prepared before, with the same content."""

HEADINGS = ("object", "vertices", "faces", "closed", "bodies", "pieces", "extents in the file", "state")
SHORT = 3
"""An object fell short: the exit code."""


class PreparedObject(NamedTuple):
    """One object.

    Attributes:
        code: its name.
        state: one of the four words above.
        found: what its file had; None where it could not be read.
        made: what it is, prepared, at unit scale.
        pieces: how many convex pieces there are; None where none were made.
        repairs: what was repaired.
        warnings: what a person should know.
        reason: why it cannot be used, and what to do.
    """

    code: str
    state: str
    found: Facts | None = None
    made: Facts | None = None
    pieces: int | None = None
    repairs: str = ""
    warnings: tuple[str, ...] = ()
    reason: str = ""

    def record(self, ready: Preparation) -> dict[str, Any]:
        """Returns what is kept of it beside its files."""
        return {
            "found": self.found._asdict(),
            "made": self.made._asdict(),
            "convex_pieces": self.pieces,
            "repairs": self.repairs,
            "warnings": list(self.warnings),
            "center": ready.place.center.tolist(),
            "factor": ready.place.factor,
            "sign": ready.sign._asdict(),
        }

    @classmethod
    def from_record(cls, code: str, state: str, record: dict[str, Any]) -> PreparedObject:
        """Returns the object of a record."""
        found, made = (
            Facts(**record[name] | {"extents": tuple(record[name]["extents"])}) for name in ("found", "made")
        )
        return cls(code, state, found, made, record["convex_pieces"], record["repairs"], tuple(record["warnings"]))


class PreparationReport(NamedTuple):
    """What was found and made. `str(report)` is a table for people.

    Attributes:
        objects: sorted by code.
        sizes: of the objects.
        out: where they were prepared; None where they were only checked.
    """

    objects: tuple[PreparedObject, ...]
    sizes: ObjectConfig
    out: Path | None

    @property
    def exit_code(self) -> int:
        """0, or 3 where an object cannot be used."""
        return SHORT if any(one.state == LEFT_OUT for one in self.objects) else 0

    def __str__(self) -> str:
        rows = [HEADINGS, *(_cells(one) for one in self.objects)]
        widths = [max(len(row[column]) for row in rows) for column in range(len(HEADINGS))]
        lines = [_line(HEADINGS, widths)]
        for one, cells in zip(self.objects, rows[1:], strict=True):
            lines += [_line(cells, widths), *(f"    {detail}" for detail in self._details(one))]
        return "\n".join([*lines, self._end()])

    def _details(self, one: PreparedObject) -> Iterator[str]:
        """Yields what does not fit into a row."""
        if one.made:
            name = "object.scales" if self.sizes.sizes is None else "object.sizes"
            scales = object_scales(self.sizes, max(one.made.extents))
            chosen = zip(self.sizes.scales if self.sizes.sizes is None else self.sizes.sizes, scales, strict=True)
            yield f"{name} " + "; ".join(f"{size:g}: {_at(one.made, scale)}" for size, scale in chosen)
        if one.repairs:
            yield f"{'would be repaired' if one.state == READY else 'repaired'}: {one.repairs}"
        yield from (f"note: {warning}" for warning in one.warnings)
        if one.reason:
            yield f"{LEFT_OUT}: {one.reason}"

    def _end(self) -> str:
        """Returns the last line: how many of each."""
        states = [one.state for one in self.objects]
        counts = [f"{states.count(state)} {state}" for state in (READY, PREPARED, KEPT, LEFT_OUT) if state in states]
        where = f" in {self.out}" if self.out else "; only checked, out=<folder> prepares them"
        return f"{len(states)} objects: {', '.join(counts)}{where}"


def _cells(one: PreparedObject) -> tuple[str, ...]:
    name = one.code if is_safe(one.code) else repr(one.code)
    if not one.found:
        return (name, *[""] * (len(HEADINGS) - 2), one.state)
    found = one.found
    extents = " x ".join(f"{extent:.4g}" for extent in found.extents)
    counts = (str(found.vertices), str(found.faces), "yes" if found.closed else "no", str(found.bodies))
    return name, *counts, "-" if one.pieces is None else str(one.pieces), extents, one.state


def _line(cells: tuple[str, ...], widths: list[int]) -> str:
    """Returns a row: text to the left, numbers to the right."""
    parts = [
        cell.rjust(width) if column in (1, 2, 4, 5) else cell.ljust(width)
        for column, (cell, width) in enumerate(zip(cells, widths, strict=True))
    ]
    return "  ".join(parts).rstrip()


def _at(made: Facts, scale: float) -> str:
    """Returns extents and volume at a size."""
    extents = " x ".join(f"{extent * scale:.3g}" for extent in made.extents)
    return f"{extents} m" + (f", {made.volume * scale**3 * 1000:.3g} l" if made.closed else "")
