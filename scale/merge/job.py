"""Describes a merge: the rounds of a prefix, where their rows are, and what the final file says of itself."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from bimangrasp.files.header import Ending, Header
from bimangrasp.files.schema import Field
from scale.settings.filters import Accept

DONE, SKIPPED = 0, 1
"""States of a round in the table."""
Sizes = dict[str, int]


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


def platforms_of(rounds: Iterable[MergeRound]) -> tuple[dict[str, str], ...]:
    """Returns the platforms of the rounds in order of appearance."""
    platforms: list[dict[str, str]] = []
    for merge_round in rounds:
        if merge_round.platform is not None and merge_round.platform not in platforms:
            platforms.append(merge_round.platform)
    return tuple(platforms)


def round_table(rounds: Sequence[MergeRound], fields: Iterable[Field]) -> dict[str, np.ndarray]:
    """Returns columns of the table of rounds."""
    platforms = platforms_of(rounds)
    values: dict[str, Callable[[MergeRound], int | bytes]] = {
        "rounds/round": lambda r: r.round_id,
        "rounds/seed": lambda r: r.seed,
        "rounds/state": lambda r: SKIPPED if r.platform is None else DONE,
        "rounds/rows": lambda r: r.rows,
        "rounds/tile_used": lambda r: r.tile_used,
        "rounds/platform": lambda r: -1 if r.platform is None else platforms.index(r.platform),
        "rounds/accepted": lambda r: r.accepted,
        "rounds/kept": lambda r: r.kept,
        "rounds/shard_sha256": lambda r: r.shard_sha256.encode(),
        "rounds/verdict_sha256": lambda r: r.verdict_sha256.encode(),
    }
    return {f.name: np.array([values[f.name](r) for r in rounds], f.dtype) for f in fields}
