"""Formats the result of `mode=objects` as a table for people."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from bimangrasp.objects.config import ObjectConfig
from bimangrasp.objects.mesh_report import object_scales
from bimangrasp.objects.preparation import MeshFacts, Preparation
from scale.formatting import table
from scale.settings.parsing import is_safe

READY, PREPARED, KEPT, LEFT_OUT = "can be used", "prepared", "kept", "cannot be used"
"""States of an object after the run; a kept one was prepared before, with the same content."""

HEADINGS = ("object", "vertices", "faces", "closed", "bodies", "pieces", "extents in the file", "state")
NUMBER_COLUMNS = (1, 2, 4, 5)
EXIT_UNUSABLE = 3
"""Exit code where an object cannot be used."""


class PreparedObject(NamedTuple):
    """The result for one object.

    Attributes:
        code: name of the object.
        state: one of the four states above.
        original: the mesh of its file; None where it could not be read.
        prepared: the prepared mesh, at unit scale; None where there is none.
        pieces: number of convex pieces; None where none were made.
        repairs: the repairs, as text.
        warnings: what a person should know, a line each.
        reason: why it cannot be used, and what to do; empty where it can.
    """

    code: str
    state: str
    original: MeshFacts | None = None
    prepared: MeshFacts | None = None
    pieces: int | None = None
    repairs: str = ""
    warnings: tuple[str, ...] = ()
    reason: str = ""

    def record(self, ready: Preparation) -> dict[str, Any]:
        """Returns the JSON record that is stored beside the files of the object."""
        return {
            "found": self.original._asdict(),
            "made": self.prepared._asdict(),
            "convex_pieces": self.pieces,
            "repairs": self.repairs,
            "warnings": list(self.warnings),
            "center": ready.placement.center.tolist(),
            "factor": ready.placement.factor,
            "sign": ready.sign._asdict(),
        }

    @classmethod
    def from_record(cls, code: str, state: str, record: dict[str, Any]) -> PreparedObject:
        """Returns the object that a stored record describes."""
        return cls(
            code=code,
            state=state,
            original=_facts_of(record["found"]),
            prepared=_facts_of(record["made"]),
            pieces=record["convex_pieces"],
            repairs=record["repairs"],
            warnings=tuple(record["warnings"]),
        )


class PreparationReport(NamedTuple):
    """The results for all objects. `str(report)` is a table for people.

    Attributes:
        objects: the results, sorted by code.
        sizes: the sizes at which the objects will be grasped.
        out: the folder of the prepared objects; None where they were only checked.
    """

    objects: tuple[PreparedObject, ...]
    sizes: ObjectConfig
    out: Path | None

    @property
    def exit_code(self) -> int:
        """0, or 3 where an object cannot be used."""
        return EXIT_UNUSABLE if any(entry.state == LEFT_OUT for entry in self.objects) else 0

    def __str__(self) -> str:
        head, *rows = table(HEADINGS, [_row(entry) for entry in self.objects], right=NUMBER_COLUMNS)
        lines = [head]
        for entry, row in zip(self.objects, rows, strict=True):
            lines += [row, *(f"    {detail}" for detail in self._details(entry))]
        return "\n".join([*lines, self._end()])

    def _details(self, entry: PreparedObject) -> Iterator[str]:
        """Yields the lines below an object's row: its sizes, repairs, warnings and reason."""
        if entry.prepared:
            has_scales = self.sizes.sizes is None
            settings = self.sizes.scales if has_scales else self.sizes.sizes
            scales = object_scales(self.sizes, max(entry.prepared.extents))
            sizes = [_size_at(entry.prepared, scale) for scale in scales]
            parts = [f"{setting:g}: {size}" for setting, size in zip(settings, sizes, strict=True)]
            yield f"{'object.scales' if has_scales else 'object.sizes'} {'; '.join(parts)}"
        if entry.repairs:
            yield f"{'would be repaired' if entry.state == READY else 'repaired'}: {entry.repairs}"
        yield from (f"note: {warning}" for warning in entry.warnings)
        if entry.reason:
            yield f"{LEFT_OUT}: {entry.reason}"

    def _end(self) -> str:
        """Returns the last line: the number of objects in each state."""
        states = [entry.state for entry in self.objects]
        counts = [f"{states.count(state)} {state}" for state in (READY, PREPARED, KEPT, LEFT_OUT) if state in states]
        where = f" in {self.out}" if self.out else "; only checked, out=<folder> prepares them"
        return f"{len(states)} objects: {', '.join(counts)}{where}"


def _facts_of(record: dict[str, Any]) -> MeshFacts:
    """Returns the facts of a mesh from their JSON record."""
    return MeshFacts(**record | {"extents": tuple(record["extents"])})


def _row(entry: PreparedObject) -> tuple[str, ...]:
    """Returns the cells of an object under `HEADINGS`."""
    name = entry.code if is_safe(entry.code) else repr(entry.code)
    if not entry.original:
        return (name, *[""] * (len(HEADINGS) - 2), entry.state)
    original = entry.original
    extents = " x ".join(f"{extent:.4g}" for extent in original.extents)
    counts = (str(original.vertices), str(original.faces), "yes" if original.closed else "no", str(original.bodies))
    pieces = "-" if entry.pieces is None else str(entry.pieces)
    return name, *counts, pieces, extents, entry.state


def _size_at(prepared: MeshFacts, scale: float) -> str:
    """Returns extents and volume of a mesh at a scale, as text."""
    extents = " x ".join(f"{extent * scale:.3g}" for extent in prepared.extents)
    return f"{extents} m" + (f", {prepared.volume * scale**3 * 1000:.3g} l" if prepared.closed else "")
