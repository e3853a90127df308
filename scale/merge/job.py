"""Describes a merge: the rounds of a prefix, where their rows are, and what the final file says of itself."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import h5py
import numpy as np

from bimangrasp.files.header import Ending, Header
from bimangrasp.files.schema import Columns, Field
from bimangrasp.poses import Poses, joined
from bimangrasp.validation.config import DuplicateThresholds
from bimangrasp.validation.duplicates import near_duplicates
from scale.merge.round_records import JudgedRound, SkippedRound, sealed_columns
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


@dataclass
class DistinctPoses:
    """The grasps of an object that count, by round, as far as they are needed to tell the others from them."""

    of_round: dict[int, Poses] = field(default_factory=dict)

    def below(self, round_id: int, final: Path | None) -> Poses | None:
        """Returns the poses of all rounds below one, None where these gave nothing.

        Args:
            round_id: all rounds below it are decided.
            final: the object's final file, which has what was decided in earlier calls.
        """
        if final is not None and any(r not in self.of_round for r in range(round_id)):
            with h5py.File(final, "r") as file:
                rounds, poses = file["round"][...], poses_of({name: file[name][...] for name in _POSES})
            for missing in set(range(round_id)) - set(self.of_round):
                self.of_round[missing] = poses.select(rounds == missing)
        parts = [poses for decided, poses in sorted(self.of_round.items()) if decided < round_id]
        return joined(parts) if parts else None


class DedupJob(NamedTuple):
    """One round to decide.

    Attributes:
        code, round_id: the round.
        record: what is known of it.
        accept: columns -> mask of the rows that count unless they are duplicates.
        thresholds: which grasps are alike.
        distinct: what counts below it; gains the round's.
        final: see `DistinctPoses.below`.
    """

    code: str
    round_id: int
    record: JudgedRound
    accept: Accept
    thresholds: DuplicateThresholds
    distinct: DistinctPoses
    final: Path | None


def duplicates(job: DedupJob) -> tuple[int, ...]:
    """Returns the rows of a round that would count, and are like one that does: of a round below, or before them.

    Raises:
        FormatError: the shard, the verdict or the final file is not what it was.
        OSError: it cannot be read.
    """
    columns = sealed_columns(job.record)
    rows = np.flatnonzero(job.accept(columns))
    poses = poses_of(columns).select(rows)
    alike = near_duplicates(poses, job.thresholds, job.distinct.below(job.round_id, job.final))
    job.distinct.of_round[job.round_id] = poses.select(~alike)
    return tuple(rows[alike].tolist())


_POSES = tuple(f"hand/{part}" for part in Poses._fields)


def poses_of(columns: Columns) -> Poses:
    """Returns the poses of a grasp file's rows."""
    return Poses(*(columns[name] for name in _POSES))
