"""Reports a call, for people, callers and the manifest: the plan before a dry run, and what was made at the end."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from scale.controller import preflight
from scale.engine.interfaces import RoundFactoryOf
from scale.formatting import ADVICE, byte_size, objects_table, spans
from scale.state.object_state import ObjectState
from scale.state.request import RunRequest
from scale.state.resume import resume
from scale.state.round_table import DONE
from scale.state.scan import scan
from scale.store.disk_space import row_bytes

EXIT_OK, EXIT_ERROR, EXIT_SHORT = 0, 1, 3


class PlannedObject(NamedTuple):
    """One object of a plan.

    Attributes:
        code, index, quota: identity, and rows wanted.
        collected: rows that it has.
        rounds: the rounds that are needed if every row is accepted.
        seeds: theirs.
    """

    code: str
    index: int
    quota: int
    collected: int
    rounds: list[int]
    seeds: list[int]


class Plan(NamedTuple):
    """What a call would do.

    Attributes:
        objects: in order.
        devices: one per worker.
        disk_bytes: room that shards and final files take at most, if every row is accepted.
        free_bytes: room that there is.
        run_dir: the run's folder.
        notes: what an earlier call left.
    """

    objects: list[PlannedObject]
    devices: list[str]
    disk_bytes: int
    free_bytes: int
    run_dir: str
    notes: list[str]

    def __str__(self) -> str:
        rows = [(o.code, o.index, f"{o.collected}/{o.quota}", _span(o.rounds), _span(o.seeds)) for o in self.objects]
        head = ("object", "index", "grasps", "rounds", "seeds")
        lines = [f"{self.run_dir} (dry run: nothing is written)", *objects_table(head, rows)]
        total = sum(len(o.rounds) for o in self.objects)
        lines.append(f"{total} rounds at least, on {len(self.devices)} workers: {', '.join(self.devices)}")
        lines.append(f"disk: at most {byte_size(self.disk_bytes)} wanted, {byte_size(self.free_bytes)} free")
        return "\n".join([*lines, *(f"note: {note}" for note in self.notes)])


def plan(settings: Any, factory_of: RoundFactoryOf | None = None) -> Plan:
    """Returns what the call would do.

    Raises:
        InputError: what the call itself would refuse, but for a folder in use.
    """
    request = preflight.check(settings, factory_of, remember=False)
    folder, config = request.folder, request.config
    if request.accept.needs_verdict:
        from scale.store import convex_pieces  # here, because it loads mesh libraries

        pieces = convex_pieces.present_pieces(folder, request.entries, config.pieces)
        request = request._replace(pieces=pieces)
    folder_scan = scan(folder, request.accept, request.acceptance_key_of, "auto", lambda line: None)  # noqa: ARG005
    resumed = resume(request, folder_scan)
    objects = []
    for state in resumed.objects:
        needed = list(state.rounds.needed(config.round_batch_size, config.max_rounds))
        round_ids = [] if state.has_larger_file else needed
        seeds = [request.seed(state.index, round_id) for round_id in round_ids]
        objects.append(PlannedObject(state.code, state.index, state.quota, state.collected, round_ids, seeds))
    labels = [device.label for device in request.devices]
    wanted = _bytes(request, objects)
    return Plan(objects, labels, wanted, folder.free_bytes(), str(folder.root), resumed.notes)


def _bytes(request: RunRequest, objects: list[PlannedObject]) -> int:
    """Returns the room for the rounds' shards, for the final files and for those of rejected grasps."""
    row = row_bytes(len(request.hand.joint_names), request.config.contacts_per_hand)
    rows = [request.config.round_batch_size * len(planned.rounds) for planned in objects]
    cap = request.config.rejected_cap if request.config.keep_failed else 0
    rejected = sum(min(count, cap) for count in rows)
    quotas = sum(planned.quota for planned in objects if planned.rounds)
    return row * (sum(rows) + rejected + quotas)


def _span(numbers: list[int]) -> str:
    """Returns rising numbers in short."""
    if not numbers:
        return "none"
    return str(numbers[0]) if len(numbers) == 1 else f"{numbers[0]} to {numbers[-1]}"


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
