"""Grasps that do not count, kept for those who learn from failures: one file an object, up to a cap."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from bimangrasp.files.final_format import Proof
from bimangrasp.files.header import Header, RejectsEnding
from bimangrasp.files.schema import Field, FormatError, reject_fields, shape_of
from bimangrasp.files.shard_format import read_rejects, rejects_image
from scale.merge.deduplication import DUPLICATE
from scale.merge.job import Blocks, MergeJob, MergeRound, Sizes, platforms_of, round_table
from scale.settings.fingerprints import Key, differences
from scale.store.run_folder import file_name
from scale.store.sealed_columns import SealedColumns


class RejectedSummary(NamedTuple):
    """What a file says of itself and its rounds, its rows let go.

    Attributes:
        ending: its attributes.
        table: of its rounds.
        rows: how many it has.
    """

    ending: RejectsEnding
    table: Blocks
    rows: int

    @property
    def is_full(self) -> bool:
        """Whether it has as many rows as it may, so that its rounds may end early."""
        return self.rows >= self.ending.cap


class Rejects(NamedTuple):
    """A file of rejected grasps.

    Attributes:
        header, ending: its attributes.
        columns: rows and table.
    """

    header: Header
    ending: RejectsEnding
    columns: Blocks

    @property
    def table(self) -> Blocks:
        """Its table of rounds."""
        return {name: column for name, column in self.columns.items() if name.startswith("rounds/")}

    @property
    def told(self) -> RejectedSummary:
        """What it says of itself and its rounds."""
        return RejectedSummary(self.ending, self.table, len(self.columns["row"]))


def read(path: Path) -> Rejects:
    """Returns a file of rejected grasps, read in full.

    Raises:
        FormatError: it does not keep the contract.
        OSError: it cannot be read.
    """
    found = Rejects(*read_rejects(path.read_bytes()))
    if path.stem != file_name(found.header.object_code):
        raise FormatError(f"{path} holds grasps of {found.header.object_code!r}")
    return found


def misfit(found: RejectedSummary | None, damage: str, final: Proof, key: Key, cap: int) -> str:
    """Returns why a file cannot be gone on with that stands beside this final file; empty where it can.

    Args:
        found: the file, None where there is none.
        damage: why there is none that can be used; empty where none was found.
        final: what the final file says.
        key: the call's acceptance key.
        cap: the call's.
    """
    if found is None:
        return f"its file is damaged ({damage})" if damage else "it has none"
    if differing := differences(found.ending.acceptance_key, key):
        return "its file was made with " + "; ".join(differing)
    if found.ending.cap != cap:
        return f"its file was made with rejected_cap={found.ending.cap}, this call has {cap}"
    rounds = min(final.sizes["R"], len(found.table["rounds/round"]))
    if rounds < final.sizes["R"] and not found.is_full:
        return f"its file ends after {rounds} of {final.sizes['R']} rounds"
    same = (found.table["rounds/shard_sha256"][:rounds] == final.rounds["rounds/shard_sha256"][:rounds]).all()
    reaches = (found.table["rounds/kept"][:rounds] >= final.rounds["rounds/kept"][:rounds]).all()
    return "" if same and (reaches or found.is_full) else "its file is not about the rows of the final file"


class _Part(NamedTuple):
    """The rejected rows of one round; no columns where it has none."""

    one: MergeRound
    rows: Blocks

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
    has_old = any(one.platform is not None and one.shard is None for one in job.rounds)
    parts = list(_up_to(job.rejected_cap, _parts(job, read(path).columns if has_old else {})))
    none = {f.name: np.empty(shape_of(f, sizes | {"N": 0}), f.dtype) for f in _fields(job, "N")}
    some = [part.rows for part in parts if part.count]
    rows = {name: np.concatenate([empty, *(one[name] for one in some)]) for name, empty in none.items()}
    header = replace(job.header, platforms=platforms_of(part.one for part in parts))
    reasons = (*job.accept.reasons, DUPLICATE)
    ending = RejectsEnding(job.ending.acceptance_key, job.rejected_cap, reasons, job.ending.judging)
    return rejects_image(header, ending, rows | _table(job, parts))


def _fields(job: MergeJob, axis: str) -> list[Field]:
    """Returns the fields of grasps ("N") or rounds ("R")."""
    return [f for f in reject_fields(job.is_judged) if f.shape[0] == axis]


def _parts(job: MergeJob, old: Blocks) -> Iterator[_Part]:
    """Yields what each round has, without a cap: from its shard, else from the file of the merge before."""
    sealed, names = SealedColumns(), [f.name for f in _fields(job, "N")]
    for one in job.rounds:
        if one.shard is not None:
            yield _Part(one, _rejected(one, job, sealed.of(one)))
        else:
            yield _Part(one, {name: old[name][old["round"] == one.round_id] for name in names} if old else {})


def _rejected(one: MergeRound, job: MergeJob, columns: Blocks) -> Blocks:
    """Returns the rows of a round before the cut that do not count; a round that is not cut is all before it."""
    reason = job.accept.first_reason(columns)
    reason[list(one.duplicates)] = len(job.accept.reasons)
    is_cut = one.kept < one.accepted
    end = 1 + np.flatnonzero(reason < 0)[one.kept - 1] if is_cut else len(reason)
    rows, columns = np.flatnonzero(reason[:end] >= 0), columns | {"reject/reason": reason}
    return {f.name: columns[f.name][rows] for f in _fields(job, "N")}


def _up_to(cap: int, parts: Iterator[_Part]) -> Iterator[_Part]:
    """Yields the rounds until as many rows are there as the file may have."""
    room = cap
    for part in parts:
        yield part._replace(rows={name: column[:room] for name, column in part.rows.items()})
        room -= part.count
        if room <= 0:
            return


def _table(job: MergeJob, parts: list[_Part]) -> Blocks:
    """Returns the columns of the table of rounds."""
    own = "rounds/rejected"
    told = round_table([part.one for part in parts], [f for f in _fields(job, "R") if f.name != own])
    return told | {own: np.array([part.count for part in parts], np.int64)}
