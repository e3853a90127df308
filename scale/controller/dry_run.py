"""The plan of a call: what it would do, told without writing anything."""

from __future__ import annotations

from typing import Any, NamedTuple

from scale.controller import preflight
from scale.engine.interfaces import RoundFactoryOf
from scale.formatting import SHOWN_OBJECTS, byte_size, table
from scale.state import rounds
from scale.state.request import RunRequest
from scale.state.resume import resume
from scale.state.rounds import Goal
from scale.state.scan import survey
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
        rows = [
            (o.code, o.index, f"{o.collected}/{o.quota}", _span(o.rounds), _span(o.seeds))
            for o in self.objects[:SHOWN_OBJECTS]
        ]
        head = ("object", "index", "grasps", "rounds", "seeds")
        more = len(self.objects) - len(rows)
        lines = [f"{self.run_dir} (dry run: nothing is written)", *table(head, rows)]
        lines += [f"... and {more} more objects"] if more else []
        total = sum(len(o.rounds) for o in self.objects)
        lines.append(f"{total} rounds at least, on {len(self.devices)} workers: {', '.join(self.devices)}")
        lines.append(f"disk: at most {byte_size(self.disk_bytes)} wanted, {byte_size(self.free_bytes)} free")
        return "\n".join([*lines, *(f"note: {note}" for note in self.notes)])


def plan(settings: Any, maker: RoundFactoryOf | None = None) -> Plan:
    """Returns what the call would do.

    Raises:
        InputError: what the call itself would refuse, but for a folder in use.
    """
    order = preflight.check(settings, maker, remember=False)
    if order.accept.needs_verdict:
        from scale.store import convex_pieces  # here, because it loads mesh libraries

        order = order._replace(pieces=convex_pieces.found_pieces(order.folder, order.entries, order.config.pieces))
    found = survey(order.folder, order.accept, order.acceptance_key_of, "auto", lambda line: None)  # noqa: ARG005
    resumed = resume(order, found)
    only_once = order.config.mode == "generate"
    objects = []
    for state in resumed.objects:
        most = 1 if only_once else order.config.max_rounds
        done, goal = ({}, Goal(state.quota)) if only_once else (state.accepted, state.goal)
        needed = list(rounds.needed(done, (), goal, order.config.round_batch_size, most))
        ids = [] if state.has_larger_file and not only_once else needed
        seeds = rounds.seeds(order.config.seed_base, state.index, ids)
        objects.append(PlannedObject(state.code, state.index, state.quota, state.collected, ids, seeds))
    folder, labels = order.folder, [device.label for device in order.devices]
    wanted = _bytes(order, objects)
    return Plan(objects, labels, wanted, folder.free_bytes(), str(folder.root), resumed.notes)


def _bytes(order: RunRequest, objects: list[PlannedObject]) -> int:
    """Returns the room for the rounds' shards, for the final files and for those of rejected grasps."""
    row = row_bytes(len(order.hand.joint_names), order.config.contacts_per_hand)
    made = [order.config.round_batch_size * len(one.rounds) for one in objects]
    rejected = sum(min(rows, order.config.rejected_cap) for rows in made) if order.config.keep_failed else 0
    return row * (sum(made) + rejected + sum(one.quota for one in objects if one.rounds))


def _span(numbers: list[int]) -> str:
    """Returns rising numbers in short."""
    if not numbers:
        return "none"
    return str(numbers[0]) if len(numbers) == 1 else f"{numbers[0]} to {numbers[-1]}"
