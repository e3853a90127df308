"""Rounds: identity, seeds, and which of them a quota needs next. Pure: no files, no processes."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from itertools import count, islice
from typing import NamedTuple

from scale.settings.schema import SEED_STRIDE


class Round(NamedTuple):
    """The unit of work: one object, one round id, one seed."""

    code: str
    index: int
    round_id: int
    seed: int


class Goal(NamedTuple):
    """Where the walk over an object's rounds ends.

    Attributes:
        quota: rows wanted; None walks to the first gap.
        max_barren: so many rounds in a row without an accepted row end it; 0 is never.
        in_file: rounds that the final file has; a smaller `max_barren` takes none of them back.
    """

    quota: int | None
    max_barren: int = 0
    in_file: int = 0

    def is_barren(self, rounds: int, barren: int) -> bool:
        """Returns whether a walk ends after `rounds` rounds, of which the last `barren` gave nothing."""
        return 0 < self.max_barren <= barren and rounds >= self.in_file


class Prefix(NamedTuple):
    """The longest run of rounds from 0 that are all finished, as far as the goal reaches.

    Attributes:
        rounds: how many rounds it has.
        kept: accepted rows in it, at most the quota.
        cut: rows kept of its last round; None where it has no round.
        barren: how many rounds at its end gave nothing.
        is_barren: whether that ends the object.
    """

    rounds: int
    kept: int
    cut: int | None
    barren: int
    is_barren: bool


def seed_of(seed_base: int, index: int, round_id: int) -> int:
    """Returns the seed of a round: seed_base + 100000 index + round id."""
    return seed_base + SEED_STRIDE * index + round_id


def assign_indices(known: Mapping[str, int], codes: Iterable[str]) -> dict[str, int]:
    """Returns the lowest free indices for the codes that have none, in their order.

    Gaps are there only where the journal was lost; filling them in the order of the list gives back what it said.
    """
    taken = set(known.values())
    free = (index for index in count() if index not in taken)
    return {code: next(free) for code in codes if code not in known}


def prefix(accepted: Mapping[int, int], goal: Goal) -> Prefix:
    """Returns the prefix of an object.

    Args:
        accepted: finished round -> accepted rows; a skipped round has 0.
        goal: where the walk ends.
    """
    reached = Prefix(0, 0, None, 0, False)
    while reached.rounds in accepted and not reached.is_barren and (goal.quota is None or reached.kept < goal.quota):
        cut = accepted[reached.rounds]
        if goal.quota is not None:
            cut = min(cut, goal.quota - reached.kept)
        rounds, barren = reached.rounds + 1, 0 if cut else reached.barren + 1
        reached = Prefix(rounds, reached.kept + cut, cut, barren, goal.is_barren(rounds, barren))
    return reached


def expected_yield(accepted: Collection[int], batch: int) -> float:
    """Returns the accepted rows to expect of a round: the mean so far, with one full round on top."""
    return (sum(accepted) + batch) / (len(accepted) + 1)


def needed(
    accepted: Mapping[int, int], in_flight: Collection[int], goal: Goal, batch: int, max_rounds: int
) -> Iterator[int]:
    """Yields the rounds to hand out next, lowest first, so that few turn out as surplus.

    The walk over rounds 0, 1, 2, ... counts what finished ones gave and what the others are expected to
    give, and ends where that reaches the quota, or where finished rounds alone make it barren. It decides what
    to compute, never what is done: a round in flight may fail.

    Args:
        accepted: finished round -> accepted rows; a skipped round has 0.
        in_flight: rounds that workers have.
        goal: where the walk ends.
        batch: rows of a round.
        max_rounds: no round id reaches it.
    """
    guess, rows, barren = expected_yield(accepted.values(), batch), 0.0, 0
    for round_id in range(max_rounds):
        if rows >= goal.quota or goal.is_barren(round_id, barren):
            return
        rows += accepted.get(round_id, guess)
        barren = barren + 1 if accepted.get(round_id) == 0 else 0
        if round_id not in accepted and round_id not in in_flight:
            yield round_id


def seeds(seed_base: int, index: int, rounds: Sequence[int] | range) -> list[int]:
    """Returns the seeds of some rounds of an object."""
    return [seed_of(seed_base, index, round_id) for round_id in rounds]


def first(rounds: Iterable[int]) -> int | None:
    """Returns the first of some rounds, None where there is none."""
    return next(iter(islice(rounds, 1)), None)
