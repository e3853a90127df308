"""Plans a call: tells what it would do without writing anything."""

from __future__ import annotations

from typing import Any, NamedTuple

from scale.controller import preflight
from scale.engine.interfaces import RoundFactoryOf
from scale.formatting import byte_size, objects_table
from scale.state.request import RunRequest
from scale.state.resume import resume
from scale.state.scan import scan
from scale.store.disk_space import row_bytes


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
