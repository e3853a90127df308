"""Writes and reads files of rejected grasps, for those who learn from failures: one file an object, up to a cap."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from bimangrasp.files.formats import Proof, read_rejects, rejects_image
from bimangrasp.files.header import Header, RejectsEnding
from bimangrasp.files.schema import Columns, Field, FormatError, reject_fields, shape_of
from scale.merge.job import MergeJob, MergeRound, Sizes, platforms_of, round_table
from scale.merge.round_records import DUPLICATE, sealed_columns
from scale.settings.fingerprints import Key, differences
from scale.store.run_folder import file_name

SAMPLE = 64
"""How many rejected grasps tell why an object falls short."""


class RejectedFile(NamedTuple):
    """A file of rejected grasps.

    Attributes:
        header, ending: its attributes.
        columns: rows and table.
    """

    header: Header
    ending: RejectsEnding
    columns: dict[str, np.ndarray]

    def without_rows(self) -> RejectedFile:
        """Returns what it says of itself and its rounds."""
        table = {name: column for name, column in self.columns.items() if name.startswith("rounds/")}
        return self._replace(columns=table)

    @property
    def is_full(self) -> bool:
        """Whether it has as many rows as it may, so that its rounds may end early."""
        return self.columns["rounds/rejected"].sum() >= self.ending.rejected_cap


def read(path: Path) -> RejectedFile:
    """Returns a file of rejected grasps, read in full.

    Raises:
        FormatError: it does not keep the contract.
        OSError: it cannot be read.
    """
    rejected = RejectedFile(*read_rejects(path.read_bytes()))
    if path.stem != file_name(rejected.header.object_code):
        raise FormatError(f"{path} holds grasps of {rejected.header.object_code!r}")
    return rejected


def misfit(rejected: RejectedFile | None, damage: str, final: Proof, key: Key, cap: int) -> str:
    """Returns why a file cannot be gone on with that stands beside this final file; empty where it can.

    Args:
        rejected: the file, None where there is none.
        damage: why the file cannot be used that is there; empty where there is none.
        final: what the final file says.
        key: the call's acceptance key.
        cap: the call's.
    """
    if rejected is None:
        return f"its file is damaged ({damage})" if damage else "it has none"
    if differing := differences(rejected.ending.acceptance_key, key):
        return "its file was made with " + "; ".join(differing)
    if rejected.ending.rejected_cap != cap:
        return f"its file was made with rejected_cap={rejected.ending.rejected_cap}, this call has {cap}"
    table = rejected.columns
    rounds = min(final.sizes["R"], len(table["rounds/round"]))
    if rounds < final.sizes["R"] and not rejected.is_full:
        return f"its file ends after {rounds} of {final.sizes['R']} rounds"
    same = (table["rounds/shard_sha256"][:rounds] == final.rounds["rounds/shard_sha256"][:rounds]).all()
    reaches = (table["rounds/kept"][:rounds] >= final.rounds["rounds/kept"][:rounds]).all()
    return "" if same and (reaches or rejected.is_full) else "its file is not about the rows of the final file"


class _Part(NamedTuple):
    """The rejected rows of one round; no columns where it has none."""

    merge_round: MergeRound
    rows: dict[str, np.ndarray]

    @property
    def count(self) -> int:
        """How many there are."""
        return len(self.rows["row"]) if self.rows else 0


def image(job: MergeJob, path: Path, sizes: Sizes) -> bytes:
    """Returns the file of the rows before the cut that do not count, in (round, row) order, up to the cap.

    Args:
        job: the merge that it belongs to.
        path: where the file of the merge before is, which has the rounds whose shards are gone.
        sizes: length of every named axis.

    Raises:
        FormatError: a shard, a verdict or the file before is not what it was.
        OSError: it cannot be read.
    """
    needs_old = any(merge_round.is_done and not merge_round.is_read for merge_round in job.rounds)
    parts = list(_up_to(job.rejected_cap, _parts(job, read(path).columns if needs_old else {})))
    header = replace(job.header, platforms=platforms_of(part.merge_round for part in parts))
    reasons = (*job.accept.reasons, DUPLICATE)
    ending = RejectsEnding(job.ending.acceptance_key, job.rejected_cap, reasons, job.ending.judging)
    return rejects_image(header, ending, _rows(job, parts, sizes) | _table(job, parts))


def sample_image(job: MergeJob, sizes: Sizes) -> bytes:
    """Returns a file of the first `SAMPLE` rows that do not count, of the rounds whose shards are there.

    See `image`.
    """
    read_rounds = tuple(merge_round for merge_round in job.rounds if merge_round.is_read)
    return image(job._replace(rounds=read_rounds, rejected_cap=SAMPLE), Path(), sizes)


def _fields(job: MergeJob, axis: str) -> list[Field]:
    """Returns the fields of grasps ("N") or rounds ("R")."""
    return [f for f in reject_fields(job.is_judged) if f.shape[0] == axis]


def _parts(job: MergeJob, old: Columns) -> Iterator[_Part]:
    """Yields what each round has, without a cap: from its shard, else from the file of the merge before."""
    names = [f.name for f in _fields(job, "N")]
    for merge_round in job.rounds:
        if merge_round.is_read:
            yield _Part(merge_round, _rejected(merge_round, job))
        elif old:
            rows = old["round"] == merge_round.round_id
            yield _Part(merge_round, {name: old[name][rows] for name in names})
        else:
            yield _Part(merge_round, {})


def _rejected(merge_round: MergeRound, job: MergeJob) -> dict[str, np.ndarray]:
    """Returns the rows of a round before the cut that do not count; a round that is not cut is all before it."""
    columns = sealed_columns(merge_round.record)
    reason = job.accept.first_reason(columns)  # -1 where a row counts
    reason[list(merge_round.record.duplicates)] = len(job.accept.reasons)
    end = len(reason)
    if merge_round.kept < merge_round.record.accepted:
        end = 1 + np.flatnonzero(reason < 0)[merge_round.kept - 1]  # behind the last row that is kept
    rows = np.flatnonzero(reason[:end] >= 0)
    columns["reject/reason"] = reason
    return {f.name: columns[f.name][rows] for f in _fields(job, "N")}


def _up_to(cap: int, parts: Iterator[_Part]) -> Iterator[_Part]:
    """Yields the rounds until as many rows are there as the file may have."""
    room = cap
    for part in parts:
        yield part._replace(rows={name: column[:room] for name, column in part.rows.items()})
        room -= part.count
        if room <= 0:
            return


def _rows(job: MergeJob, parts: list[_Part], sizes: Sizes) -> dict[str, np.ndarray]:
    """Returns the columns of grasps, round after round."""
    columns = {}
    for f in _fields(job, "N"):
        no_rows = np.empty(shape_of(f, sizes | {"N": 0}), f.dtype)
        columns[f.name] = np.concatenate([no_rows, *(part.rows[f.name] for part in parts if part.count)])
    return columns


def _table(job: MergeJob, parts: list[_Part]) -> dict[str, np.ndarray]:
    """Returns the columns of the table of rounds."""
    own = "rounds/rejected"
    table = round_table([part.merge_round for part in parts], [f for f in _fields(job, "R") if f.name != own])
    return table | {own: np.array([part.count for part in parts], np.int64)}
