"""Reports a call when it ends: per object and as a whole, for people, callers and the manifest."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from scale.formatting import ADVICE, objects_table, spans
from scale.state.object_state import ObjectState
from scale.state.round_table import DONE

EXIT_OK, EXIT_ERROR, EXIT_SHORT = 0, 1, 3


@dataclass(frozen=True)
class ObjectReport:
    """One object at the end of a call.

    Attributes:
        code, index: identity.
        quota: rows wanted.
        collected: rows that it has.
        rounds_done: rounds that are proven.
        failed_attempts: attempts that failed in this call.
        skipped: rounds that were given up, each with round, seed and traceback.
        end_reason: quota, barren, max_rounds, changed, generated (one round was asked for), or stopped where the call
            ended before the object.
        rejected: reason -> rows of its rounds that do not count for that; a row can have several reasons.
        path: its final file, None where there is none.
        sha256, content_sha256: of that file.
        notes: what else there is to say.
    """

    code: str
    index: int
    quota: int
    collected: int
    rounds_done: int
    failed_attempts: int
    skipped: list[dict[str, Any]]
    end_reason: str
    rejected: dict[str, int]
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
        rows = [(o.code, f"{o.collected}/{o.quota}", o.rounds_done, len(o.skipped), o.end_reason) for o in self.objects]
        lines = objects_table(("object", "grasps", "rounds", "skipped", "ended by"), rows)
        lines += [f"short: {report.code}: {_why_short(report)}" for report in self.objects if report.is_short]
        lines += [_skip_warning(report) for report in self.objects if report.skipped]
        lines += [f"note: {note}" for note in self.notes]
        lines += [f"note: {report.code}: {note}" for report in self.objects for note in report.notes]
        return "\n".join([*lines, f"{self.run_dir}  {self.seconds:.1f} s  exit code {self.exit_code}"])


def _why_short(report: ObjectReport) -> str:
    """Returns why an object has fewer rows than its quota."""
    gone = f"; {len(report.skipped)} rounds skipped" if report.skipped else ""
    why = ADVICE.get(report.end_reason, report.end_reason)
    return f"{report.collected} of {report.quota}, {why}{gone}{_rejects(report)}"


def _rejects(report: ObjectReport) -> str:
    """Returns for how many rows each reason held."""
    counts = [f"{count} {reason}" for reason, count in report.rejected.items() if count]
    return f" (rows rejected by reason: {', '.join(counts)})" if counts else ""


def _skip_warning(report: ObjectReport) -> str:
    named = spans([skip["round"] for skip in report.skipped])
    last = report.skipped[-1]["traceback"].strip().splitlines() or ["no traceback"]
    return f"warning: {report.code}: skipped rounds {named}; the last one with: {last[-1]}"


def object_report(state: ObjectState, path: Path | None) -> ObjectReport:
    """Returns the report of an object as it stands; `path` is its file, if there is report."""
    return ObjectReport(
        code=state.code,
        index=state.index,
        quota=state.quota,
        collected=state.collected,
        rounds_done=state.rounds.count(DONE),
        failed_attempts=state.failures.total(),
        skipped=state.why_skipped(),
        end_reason=state.ended or "stopped",
        rejected=dict(state.rounds.rejected),
        path=path,
        sha256=state.final_sha256,
        content_sha256=state.final.content_sha256 if state.final else "",
        notes=list(state.notes),
    )


def as_manifest(report: ObjectReport, root: Path) -> dict[str, Any]:
    """Returns an object's entry of the manifest."""
    entry = {name: value for name, value in vars(report).items() if name != "code"}
    return entry | {"path": report.path.relative_to(root).as_posix() if report.path else None}
