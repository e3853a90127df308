"""What a merge is told: the rounds of a prefix, where their rows are, and what the files are to say."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from bimangrasp.files.final_format import Ending, Header
from bimangrasp.files.schema import Field
from scale.settings.filters import Accept

DONE, SKIPPED = 0, 1
"""States of a round in the table."""
Sizes = dict[str, int]
Blocks = dict[str, np.ndarray]


class MergeRound(NamedTuple):
    """One round of the prefix.

    Attributes:
        round_id, seed, rows, accepted, kept, tile_used, shard_sha256: its line in the table.
        platform: None where it was skipped.
        shard: where its rows are; None where the old file has all that is kept.
        already: accepted rows of it that the old file has.
        verdict: what the simulator said of the shard's rows; None where the rows do not count by that.
        verdict_sha256: of that file.
        duplicates: rows that pass the filter and are like an earlier one.
    """

    round_id: int
    seed: int
    rows: int
    accepted: int
    kept: int
    tile_used: int
    shard_sha256: str
    platform: dict[str, str] | None
    shard: Path | None
    already: int
    verdict: Path | None = None
    verdict_sha256: str = ""
    duplicates: tuple[int, ...] = ()


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


def platforms_of(some: Iterable[MergeRound]) -> tuple[dict[str, str], ...]:
    """Returns the platforms of the rounds in order of appearance."""
    found: list[dict[str, str]] = []
    for one in some:
        if one.platform is not None and one.platform not in found:
            found.append(one.platform)
    return tuple(found)


def round_table(some: Sequence[MergeRound], fields: Iterable[Field]) -> Blocks:
    """Returns columns of the table of rounds."""
    platforms = platforms_of(some)
    values: dict[str, Callable[[MergeRound], int | bytes]] = {
        "rounds/round": lambda one: one.round_id,
        "rounds/seed": lambda one: one.seed,
        "rounds/state": lambda one: SKIPPED if one.platform is None else DONE,
        "rounds/rows": lambda one: one.rows,
        "rounds/tile_used": lambda one: one.tile_used,
        "rounds/platform": lambda one: -1 if one.platform is None else platforms.index(one.platform),
        "rounds/accepted": lambda one: one.accepted,
        "rounds/kept": lambda one: one.kept,
        "rounds/shard_sha256": lambda one: one.shard_sha256.encode(),
        "rounds/verdict_sha256": lambda one: one.verdict_sha256.encode(),
    }
    return {f.name: np.array([values[f.name](one) for one in some], f.dtype) for f in fields}
