"""Finds near-duplicates among an object's grasps, round by round, each when all rounds below it are decided."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import h5py
import numpy as np

from bimangrasp.files.schema import Columns
from bimangrasp.poses import Poses, joined
from bimangrasp.validation.config import DuplicateThresholds
from bimangrasp.validation.duplicates import near_duplicates
from scale.merge.round_records import JudgedRound, sealed_columns
from scale.settings.filters import Accept


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
