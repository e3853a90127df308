"""Describes a merge: the rounds of a prefix, where their rows are, and what the final file says of itself."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from bimangrasp.files.header import Ending, Header
from bimangrasp.files.schema import Field
from scale.merge.round_records import JudgedRound, SkippedRound
from scale.settings.filters import Accept

DONE, SKIPPED = 0, 1
"""States of a round in the table."""
Sizes = dict[str, int]


class MergeRound(NamedTuple):
    """One round of the prefix.

    Attributes:
        round_id: which.
        record: what is known of it.
        kept: accepted rows of it that the final file has.
        already: those of them that the old file has.
        is_read: whether its shard is read; else the old file has all that is kept.
    """

    round_id: int
    record: JudgedRound | SkippedRound
    kept: int = 0
    already: int = 0
    is_read: bool = False

    @property
    def is_done(self) -> bool:
        """Whether it has rows; else it was skipped."""
        return isinstance(self.record, JudgedRound)


class MergeJob(NamedTuple):
    """All that decides the bytes of a final file.

    Attributes:
        header: without platforms; they come from the rounds.
        ending: acceptance key, quota, and why the rows end.
        rounds: the prefix, round 0 first.
        old: the final file whose rows come first; None to build from shards alone.
        old_rounds: rounds that the old file's table has.
        accept: columns -> mask of accepted rows.
        rejected_cap: most rows of the file of those that do not count; 0 where there is none.
    """

    header: Header
    ending: Ending
    rounds: tuple[MergeRound, ...]
    old: Path | None
    old_rounds: int
    accept: Accept
    rejected_cap: int = 0

    @property
    def is_judged(self) -> bool:
        """Whether the simulator's verdict stands beside each row."""
        return self.accept.needs_verdict


def platforms_of(rounds: Iterable[MergeRound]) -> tuple[dict[str, str], ...]:
    """Returns the platforms of the rounds in order of appearance."""
    platforms: list[dict[str, str]] = []
    for merge_round in rounds:
        if merge_round.is_done and merge_round.record.platform not in platforms:
            platforms.append(merge_round.record.platform)
    return tuple(platforms)


def round_table(rounds: Sequence[MergeRound], fields: Iterable[Field]) -> dict[str, np.ndarray]:
    """Returns columns of the table of rounds."""
    platforms = platforms_of(rounds)
    values: dict[str, Callable[[MergeRound], int | bytes]] = {
        "rounds/round": lambda r: r.round_id,
        "rounds/seed": lambda r: r.record.seed,
        "rounds/state": lambda r: DONE if r.is_done else SKIPPED,
        "rounds/rows": lambda r: r.record.rows,
        "rounds/tile_used": lambda r: r.record.tile_used,
        "rounds/platform": lambda r: platforms.index(r.record.platform) if r.is_done else -1,
        "rounds/accepted": lambda r: r.record.accepted,
        "rounds/kept": lambda r: r.kept,
        "rounds/shard_sha256": lambda r: r.record.sha256.encode(),
        "rounds/verdict_sha256": lambda r: r.record.verdict_sha256.encode(),
    }
    return {f.name: np.array([values[f.name](r) for r in rounds], f.dtype) for f in fields}
