"""Keeps the rounds of one object, each in one state; all transitions between the states are here."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from enum import Enum
from typing import NamedTuple

from bimangrasp.files.formats import Proof
from scale.merge.round_records import JudgedRound, SealedRound, SkippedRound

Record = SealedRound | JudgedRound | SkippedRound


class RoundState(Enum):
    """What a round waits for."""

    WANTED = "wanted"  # a worker
    IN_FLIGHT = "in flight"  # the worker that has it
    SEALED = "sealed"  # its verdict
    JUDGED = "judged"  # the search for near-duplicates among its rows
    DONE = "done"  # nothing
    SKIPPED = "skipped"  # nothing


WANTED, IN_FLIGHT, SEALED, JUDGED, DONE, SKIPPED = RoundState
FINISHED = (DONE, SKIPPED)
TRANSITIONS = {
    WANTED: {IN_FLIGHT, SEALED, JUDGED, DONE, SKIPPED},
    IN_FLIGHT: {WANTED, SEALED, JUDGED, DONE, SKIPPED},
    SEALED: {WANTED, JUDGED, DONE, SKIPPED},
    JUDGED: {WANTED, SEALED, DONE},
    DONE: {WANTED, SEALED, DONE},
    SKIPPED: {WANTED},
}
"""State -> the states that may follow. Back to wanted goes what failed, what is damaged and what is tried again; back
to sealed what has lost its verdict; a done round stays done when its shard is no longer needed."""


class Prefix(NamedTuple):
    """The longest run of rounds from 0 that are all finished, as far as the quota reaches.

    Attributes:
        rounds: how many rounds it has.
        kept: accepted rows in it, at most the quota.
        barren: how many rounds at its end gave nothing.
        is_barren: whether that ends the object.
    """

    rounds: int = 0
    kept: int = 0
    barren: int = 0
    is_barren: bool = False


class RoundTable:
    """The rounds of one object. What is counted is kept as rounds change, so nothing here walks all rounds.

    Attributes:
        prefix: the longest run of finished rounds from 0, as far as the quota reaches.
        rejected: reason -> rows of the prefix that do not count for that; a row can have several reasons.
        skipped: round -> why it was given up.
        accepted_rows: of all done rounds.
        on_move: is told of each change of a round's state: before and after.
    """

    def __init__(self, quota: int, max_barren: int = 0, in_file: Proof | None = None) -> None:
        """Makes a table in which every round is wanted.

        Args:
            quota: rows wanted.
            max_barren: so many rounds of the prefix in a row without an accepted row end it; 0 is never.
            in_file: what the final file says; a smaller `max_barren` takes none of its rounds back.
        """
        self._quota, self._max_barren = quota, max_barren
        self._rounds_in_file = in_file.sizes["R"] if in_file else 0
        self._rejected_in_file = in_file.ending.rejected if in_file else {}
        self._states: dict[int, RoundState] = {}
        self._records: dict[int, Record] = {}
        self._counts: Counter[RoundState] = Counter()
        self.skipped: dict[int, SkippedRound] = {}
        self.accepted_rows = 0
        self.on_move: Callable[[RoundState, RoundState], None] = lambda before, to: None  # noqa: ARG005
        self._begin()

    def _begin(self) -> None:
        """Puts the prefix before the first round."""
        self.prefix = Prefix()
        self.rejected: Counter[str] = Counter(self._rejected_in_file)

    def state(self, round_id: int) -> RoundState:
        """Returns the state of a round."""
        return self._states.get(round_id, WANTED)

    def record(self, round_id: int) -> Record | None:
        """Returns what is known of a round: a `SealedRound` where it is sealed, `JudgedRound` where it is judged or
        done, `SkippedRound` where it is skipped, else None.
        """
        return self._records.get(round_id)

    def count(self, state: RoundState) -> int:
        """Returns how many rounds are in a state other than wanted."""
        return self._counts[state]

    def having(self, *states: RoundState) -> dict[int, Record]:
        """Returns the rounds in these states with their records, by rising id. Walks all rounds."""
        return {r: self._records[r] for r in sorted(self._records) if self._states[r] in states}

    # ---- transitions

    def hand_out(self, round_id: int) -> None:
        """A worker gets a round."""
        self._move(round_id, IN_FLIGHT)

    def take_back(self, round_id: int) -> None:
        """A round in flight is wanted again: its attempt failed, or its worker is gone. Others stay as they are."""
        if self.state(round_id) is IN_FLIGHT:
            self._move(round_id, WANTED)

    def seal(self, round_id: int, sealed: SealedRound) -> None:
        """A round has its shard and waits for its verdict."""
        self._move(round_id, SEALED, sealed)

    def judge(self, round_id: int, judged: JudgedRound) -> None:
        """A round waits for the search for near-duplicates."""
        self._move(round_id, JUDGED, judged)

    def finish(self, round_id: int, done: JudgedRound) -> None:
        """A round is done; done again, it only changes where its rows are."""
        self._move(round_id, DONE, done)

    def enter(self, round_id: int, record: SealedRound, has_dedup: bool) -> None:
        """A round has its shard, and its verdict where it is judged; `has_dedup`: near-duplicates are looked for."""
        if not isinstance(record, JudgedRound):
            self.seal(round_id, record)
        elif has_dedup:
            self.judge(round_id, record)
        else:
            self.finish(round_id, record)

    def skip(self, round_id: int, skipped: SkippedRound) -> None:
        """A round is given up."""
        self._move(round_id, SKIPPED, skipped)

    def reopen(self, round_id: int) -> None:
        """A round is wanted again: its shard is damaged or not needed any more, or it is tried again."""
        if self.state(round_id) is not WANTED:
            self._move(round_id, WANTED)

    def release(self, round_id: int) -> None:
        """A done round no longer needs its shard and its verdict: the final file has its rows."""
        self.finish(round_id, replace(self._records[round_id], shard=None, verdict=None))

    def _move(self, round_id: int, to: RoundState, record: Record | None = None) -> None:
        """Brings a round into a state and the counters with it."""
        before, old = self.state(round_id), self._records.pop(round_id, None)
        assert to in TRANSITIONS[before], f"round {round_id} goes from {before.value} to {to.value}"
        self._counts[before] -= 1
        self._counts[to] += 1
        self.accepted_rows -= old.accepted if before is DONE else 0
        self.accepted_rows += record.accepted if to is DONE else 0
        self.skipped.pop(round_id, None)
        if to is SKIPPED:
            self.skipped[round_id] = record
        if to is WANTED:
            self._states.pop(round_id, None)
        else:
            self._states[round_id] = to
        if record is not None:
            self._records[round_id] = record
        is_alike = isinstance(record, JudgedRound) and isinstance(old, JudgedRound) and record.accepted == old.accepted
        if round_id < self.prefix.rounds and not is_alike:
            self._begin()  # rare: a finished round is open again
        self._advance()
        self.on_move(before, to)

    def _advance(self) -> None:
        """Takes the finished rounds that follow the prefix into it."""
        while self.state(self.prefix.rounds) in FINISHED and not self.has_quota and not self.prefix.is_barren:
            round_id, record = self.prefix.rounds, self._records[self.prefix.rounds]
            if round_id >= self._rounds_in_file and isinstance(record, JudgedRound):
                self.rejected.update(record.rejected)
            kept = min(self._quota, self.prefix.kept + record.accepted)
            barren = 0 if record.accepted else self.prefix.barren + 1
            self.prefix = Prefix(round_id + 1, kept, barren, self._is_barren(round_id + 1, barren))

    def _is_barren(self, rounds: int, barren: int) -> bool:
        """Whether a walk ends after so many rounds, of which the last `barren` gave nothing."""
        return 0 < self._max_barren <= barren and rounds >= self._rounds_in_file

    @property
    def has_quota(self) -> bool:
        """Whether the prefix has as many rows as are wanted."""
        return self.prefix.kept == self._quota

    # ---- what to do next

    def needed(self, batch: int, max_rounds: int) -> Iterator[int]:
        """Yields the rounds to hand out next, lowest first, so that few turn out as surplus.

        The walk goes on from the prefix, counts what finished rounds gave and what the others are expected to give,
        and ends where that reaches the quota, or where finished rounds alone make it barren. It decides what to
        compute, never what is done: a round in flight may fail.

        Args:
            batch: rows of a round.
            max_rounds: no round id reaches it.
        """
        rows, barren = float(self.prefix.kept), self.prefix.barren
        # What to expect of a round: the mean so far, with one full round on top.
        guess = (self.accepted_rows + batch) / (self.count(DONE) + self.count(SKIPPED) + 1)
        for round_id in range(self.prefix.rounds, max_rounds):
            if rows >= self._quota or self._is_barren(round_id, barren):
                return
            state = self.state(round_id)
            accepted = self._records[round_id].accepted if state in FINISHED else None
            rows += guess if accepted is None else accepted
            barren = barren + 1 if accepted == 0 else 0
            if state is WANTED:
                yield round_id

    def why_ended(self, max_rounds: int) -> str:
        """Returns why the prefix ends: quota, barren, max_rounds, or partial while it still grows."""
        if self.has_quota:
            return "quota"
        if self.prefix.is_barren:
            return "barren"
        return "max_rounds" if self.prefix.rounds >= max_rounds else "partial"
