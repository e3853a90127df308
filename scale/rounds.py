"""Rounds: identity, seeds, and which of them a quota needs next. Pure: no files, no processes."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from itertools import count, islice
from typing import NamedTuple

from scale.ranges import SEED_STRIDE


class Round(NamedTuple):
    """The unit of work: one object, one round id, one seed."""

    code: str
    index: int
    round_id: int
    seed: int


class Prefix(NamedTuple):
    """The longest run of rounds from 0 that are all finished, as far as the quota reaches.

    Attributes:
        rounds: how many rounds it has.
        kept: accepted rows in it, at most the quota.
        cut: rows kept of its last round; None where it has no round.
    """

    rounds: int
    kept: int
    cut: int | None


def seed_of(seed_base: int, index: int, round_id: int) -> int:
    """Returns the seed of a round: seed_base + 100000 index + round id."""
    return seed_base + SEED_STRIDE * index + round_id


def assign_indices(known: Mapping[str, int], codes: Iterable[str]) -> dict[str, int]:
    """Returns the next free indices for the codes that have none, in their order."""
    free = count(max(known.values(), default=-1) + 1)
    return {code: next(free) for code in codes if code not in known}


def prefix(accepted: Mapping[int, int], quota: int | None) -> Prefix:
    """Returns the prefix of an object.

    Args:
        accepted: finished round -> accepted rows; a skipped round has 0.
        quota: rows wanted; None walks to the first gap.
    """
    kept, cut, rounds = 0, None, 0
    while rounds in accepted and (quota is None or kept < quota):
        cut = accepted[rounds] if quota is None else min(accepted[rounds], quota - kept)
        kept, rounds = kept + cut, rounds + 1
    return Prefix(rounds, kept, cut)


def expected_yield(accepted: Collection[int], batch: int) -> float:
    """Returns the accepted rows to expect of a round: the mean so far, with one full round on top."""
    return (sum(accepted) + batch) / (len(accepted) + 1)


def needed(
    accepted: Mapping[int, int], in_flight: Collection[int], quota: int, batch: int, max_rounds: int
) -> Iterator[int]:
    """Yields the rounds to hand out next, lowest first, so that few turn out as surplus.

    The walk over rounds 0, 1, 2, ... counts what finished ones gave and what the others are expected to
    give, and ends where that reaches the quota. It decides what to compute, never what is done: a round in
    flight may fail.

    Args:
        accepted: finished round -> accepted rows; a skipped round has 0.
        in_flight: rounds that workers have.
        quota: rows wanted.
        batch: rows of a round.
        max_rounds: no round id reaches it.
    """
    guess, rows = expected_yield(accepted.values(), batch), 0.0
    for round_id in range(max_rounds):
        if rows >= quota:
            return
        rows += accepted.get(round_id, guess)
        if round_id not in accepted and round_id not in in_flight:
            yield round_id


def seeds(seed_base: int, index: int, rounds: Sequence[int] | range) -> list[int]:
    """Returns the seeds of some rounds of an object."""
    return [seed_of(seed_base, index, round_id) for round_id in rounds]


def first(rounds: Iterable[int]) -> int | None:
    """Returns the first of some rounds, None where there is none."""
    return next(iter(islice(rounds, 1)), None)
