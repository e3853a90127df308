"""The rounds of an object: whatever happens to them, in whatever order, the final file is that of the prefix."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bimangrasp.files.schema import round_fields
from scale.merge.job import round_table
from scale.merge.round_records import JudgedRound, SealedRound, SkippedRound
from scale.state import resume
from scale.state.records import ObjectState
from scale.state.round_table import (
    DONE,
    IN_FLIGHT,
    JUDGED,
    SEALED,
    SKIPPED,
    TRANSITIONS,
    WANTED,
    RoundTable,
)
from scale.store.events import RoundSkipped

MAX_ROUNDS, BATCH = 12, 4
PLATFORM = {"kernels": "stub"}
ACCEPT = SimpleNamespace(needs_verdict=False)
REQUEST = SimpleNamespace(dedup=None, config=SimpleNamespace(max_rounds=MAX_ROUNDS, retry_skipped=False))
REQUEST.seed = lambda index, round_id: round_id


def sha_of(round_id: int) -> str:
    return f"{round_id:064d}"


def record(round_id: int, accepted: int, shard: Path | None = None) -> JudgedRound:
    rejected = {"not_finite": BATCH - accepted}
    path = shard or Path(f"shard-{round_id}")
    return JudgedRound(0, BATCH, BATCH, PLATFORM, sha_of(round_id), path, accepted, rejected)


class History:
    """One object through sealed, judged, failed, skipped, merged, lost and resumed rounds.

    The oracle knows how many rows each round would give, and walks rounds 0, 1, 2, ... to the quota.
    """

    def __init__(self, fates: list[int], quota: int, max_barren: int, keeps_shards: bool) -> None:
        self.fates, self.quota, self.max_barren, self.keeps_shards = fates, quota, max_barren, keeps_shards
        self.disk: dict[int, JudgedRound] = {}
        self.skips: dict[int, RoundSkipped] = {}
        self.file: list[tuple[int, int]] | None = None
        self.proof = None
        self.resume(0)

    # ---- what happens to rounds

    def hand_out(self, _: int) -> None:
        needed = next(self.state.rounds.needed(BATCH, MAX_ROUNDS), None)
        if needed is not None:
            self.state.rounds.hand_out(needed)

    def fail(self, pick: int) -> None:
        self.in_flight(pick, self.state.rounds.take_back)

    def come_back(self, pick: int) -> None:
        path = ("finish", "seal", "judge")[pick % 3]

        def take(round_id: int) -> None:
            if self.fates[round_id] < 0:
                self.skips[round_id] = RoundSkipped(code="mug", round_id=round_id, traceback="no")
                self.state.rounds.skip(round_id, SkippedRound(0, "no"))
                return
            sealed = self.disk[round_id] = record(round_id, self.fates[round_id])
            getattr(self.state.rounds, path)(round_id, sealed.unjudged() if path == "seal" else sealed)

        self.in_flight(pick, take)

    def decide(self, pick: int) -> None:
        waiting = [r for r in range(MAX_ROUNDS) if self.state.rounds.state(r) in (SEALED, JUDGED)]
        if waiting:
            round_id = waiting[pick % len(waiting)]
            self.state.rounds.finish(round_id, self.disk[round_id])

    def find_damaged(self, pick: int) -> None:
        done = [r for r, item in self.state.rounds.having(DONE).items() if item.shard is not None]
        if done:
            round_id = done[pick % len(done)]
            self.disk.pop(round_id)
            self.state.rounds.reopen(round_id)
            if round_id < self.state.rounds_in_file:
                self.state.expected_sha256[round_id] = sha_of(round_id)

    def merge(self, _: int) -> None:
        table = self.state.rounds
        reason = table.why_ended(MAX_ROUNDS)
        if table.prefix.rounds < self.state.rounds_in_file or self.state.has_final(reason, {}, False):
            return
        header = SimpleNamespace()
        job = self.state.merge_job(header, reason, {}, Path("old"), ACCEPT)
        rows = list(self.file) if job.old else []
        assert len(rows) == sum(item.already for item in job.rounds)
        for item in job.rounds:
            if item.is_read:
                assert item.round_id in self.disk, "a shard is wanted that is not there"
                rows += [(item.round_id, k) for k in range(item.already, item.kept)]
        self.file, self.proof = rows, proof_of(job)
        self.state.final = self.proof
        if not self.keeps_shards:
            for path in self.state.take_spent_files():
                self.disk.pop(int(path.name.removeprefix("shard-")), None)

    def extend(self, more: int) -> None:
        self.quota += more
        self.resume(more)

    def resume(self, _: int) -> None:
        """A new call: the state is made from what is on the disk, as `resume` does."""
        table = RoundTable(self.quota, self.max_barren, self.proof)
        self.state = ObjectState("mug", "mug.obj", "", 0, self.quota, table)
        shards = {r: [SimpleNamespace(record=item)] for r, item in self.disk.items()}
        if self.proof:
            self.state.final = self.proof
            resume._take_table(REQUEST, self.state, shards, self.skips)
        resume._take_shards(REQUEST, self.state, shards)
        resume._take_skips(REQUEST, self.state, self.skips)

    def in_flight(self, pick: int, act: Callable[[int], None]) -> None:
        flying = [r for r in range(MAX_ROUNDS) if self.state.rounds.state(r) is IN_FLIGHT]
        if flying:
            act(flying[pick % len(flying)])

    # ---- laws

    def the_file_is_that_of_the_prefix(self) -> None:
        if self.file is None:
            return
        gave, wanted = [max(0, fate) for fate in self.fates], []
        for round_id in range(self.proof.sizes["R"]):
            wanted += [(round_id, k) for k in range(gave[round_id])]
        assert self.file == wanted[: self.proof.ending.quota]

    def walked(self) -> tuple[int, int, int]:
        """Rounds, rows and barren rounds of the prefix, found round by round."""
        finished = self.state.rounds.having(DONE, SKIPPED)
        in_file = self.state.rounds_in_file
        number = kept = barren = 0
        while number in finished and kept < self.quota:
            if 0 < self.max_barren <= barren and number >= in_file:
                break
            accepted = finished[number].accepted
            number, kept, barren = number + 1, min(self.quota, kept + accepted), 0 if accepted else barren + 1
        return number, kept, barren

    def counters_are_what_a_walk_finds(self) -> None:
        table = self.state.rounds
        assert table.prefix[:3] == self.walked()
        assert table.accepted_rows == sum(item.accepted for item in table.having(DONE).values())
        for state in (IN_FLIGHT, SEALED, JUDGED, DONE, SKIPPED):
            assert table.count(state) == sum(table.state(r) is state for r in range(MAX_ROUNDS))
        if table.prefix.rounds < self.state.rounds_in_file:
            return  # a round of the file is computed again: until then its reasons are those that the file tells
        walked = [r for r in range(table.prefix.rounds) if r not in table.skipped]
        assert table.rejected["not_finite"] == sum(BATCH - self.fates[r] for r in walked)


def proof_of(job) -> SimpleNamespace:
    """What a verified final file would say of this merge."""
    table = round_table(job.rounds, round_fields(is_judged=False))
    sizes = {"N": sum(item.kept for item in job.rounds), "R": len(job.rounds)}
    header = SimpleNamespace(platforms=(PLATFORM,))
    return SimpleNamespace(sizes=sizes, rounds=table, header=header, ending=job.ending, is_judged=False)


STEPS = ["hand_out"] * 8 + ["come_back"] * 6 + ["merge", "decide"] * 2 + ["fail", "find_damaged", "extend", "resume"]


@pytest.mark.slow
@settings(max_examples=300)
@given(
    st.lists(st.integers(-1, BATCH), min_size=MAX_ROUNDS, max_size=MAX_ROUNDS),
    st.integers(1, 20),
    st.integers(0, 3),
    st.booleans(),
    st.lists(st.tuples(st.sampled_from(STEPS), st.integers(0, 11)), min_size=20, max_size=90),
)
def test_for_any_history_the_file_is_that_of_the_prefix(fates, quota, max_barren, keeps_shards, steps):
    history = History(fates, quota, max_barren, keeps_shards)
    for name, pick in steps:
        getattr(history, name)(pick)
        history.the_file_is_that_of_the_prefix()
        history.counters_are_what_a_walk_finds()


@pytest.mark.parametrize("state", list(TRANSITIONS))
def test_a_transition_that_the_table_does_not_have_is_an_impossible_state(state):
    made = RoundTable(10)
    ways = {
        IN_FLIGHT: lambda: made.hand_out(0),
        SEALED: lambda: made.seal(0, record(0, 1).unjudged()),
        JUDGED: lambda: made.judge(0, record(0, 1)),
        DONE: lambda: made.finish(0, record(0, 1)),
        SKIPPED: lambda: made.skip(0, SkippedRound(0, "no")),
    }
    if state is not WANTED:
        ways[state]()
    for target, way in ways.items():
        if target not in TRANSITIONS[state]:
            with pytest.raises(AssertionError, match=f"goes from {state.value} to {target.value}"):
                way()


def test_only_a_sealed_round_waits_for_its_verdict():
    made = RoundTable(10)
    made.seal(0, record(0, 3).unjudged())
    assert type(made.record(0)) is SealedRound and made.prefix.rounds == 0
    made.judge(0, record(0, 3))
    assert made.prefix.rounds == 0 and made.accepted_rows == 0
    made.finish(0, record(0, 3))
    assert made.prefix.rounds == 1 and made.accepted_rows == 3
