"""Computes seeds and indices, and walks the rounds of an object to its quota. Pure: no files, no processes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import count
from typing import NamedTuple

from scale.settings.schema import SEED_STRIDE


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


NO_ROUND = Prefix(0, 0, None, 0, False)
"""The prefix before the first round."""


def extended(reached: Prefix, accepted: int, goal: Goal) -> Prefix:
    """Returns the prefix with one more finished round, which has so many accepted rows; a skipped one has 0."""
    cut = accepted if goal.quota is None else min(accepted, goal.quota - reached.kept)
    rounds, barren = reached.rounds + 1, 0 if cut else reached.barren + 1
    return Prefix(rounds, reached.kept + cut, cut, barren, goal.is_barren(rounds, barren))


def ends(reached: Prefix, goal: Goal) -> bool:
    """Returns whether a prefix is at its end: no further round of it counts."""
    return reached.is_barren or (goal.quota is not None and reached.kept >= goal.quota)


def prefix(accepted: Mapping[int, int], goal: Goal) -> Prefix:
    """Returns the prefix of an object.

    Args:
        accepted: finished round -> accepted rows; a skipped round has 0.
        goal: where the walk ends.
    """
    reached = NO_ROUND
    while reached.rounds in accepted and not ends(reached, goal):
        reached = extended(reached, accepted[reached.rounds], goal)
    return reached


def seeds(seed_base: int, index: int, round_ids: Iterable[int]) -> list[int]:
    """Returns the seeds of some rounds of an object."""
    return [seed_of(seed_base, index, round_id) for round_id in round_ids]
