"""Shards in round order -> an object's final file, cut at the quota; and the file that opens all of them."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np

from bimangrasp.files import final_format
from bimangrasp.files.checksums import Checksums, Content, bytes_of
from bimangrasp.files.final_format import Proof
from bimangrasp.files.schema import (
    CURVE_FIELDS,
    Field,
    FormatError,
    final_fields,
    round_fields,
    row_fields,
    shape_of,
)
from scale.merge import rejected_file
from scale.merge.job import Blocks, MergeJob, MergeRound, Sizes, platforms_of, round_table
from scale.store import durable_io
from scale.store.events import FileMerged
from scale.store.run_folder import RunFolder
from scale.store.sealed_columns import SealedColumns

ROUNDS_AHEAD = 4  # read before they are written: two threads find work at any time, and memory stays small


class Merged(NamedTuple):
    """What the journal's line says of a final file, and the proof of it."""

    path: Path
    size: int
    mtime_ns: int
    proof: Proof

    @property
    def sha256(self) -> str:
        """Of the whole file."""
        return self.proof.sha256

    def event(self) -> FileMerged:
        """Returns the journal's event about it."""
        sizes, ending = self.proof.sizes, self.proof.ending
        return FileMerged(
            code=self.proof.header.object_code,
            rows=sizes["N"],
            rounds=sizes["R"],
            quota=ending.quota,
            end_reason=ending.end_reason,
            sha256=self.sha256,
            content_sha256=self.proof.content_sha256,
            size=self.size,
            mtime_ns=self.mtime_ns,
        )


def merge(folder: RunFolder, job: MergeJob) -> Merged:
    """Writes the final file of an object and returns what it says, after it was read again and put in place.

    Where rejected grasps are kept, their file takes its place before: only then may shards go.

    Raises:
        FormatError: a shard or the old file is not what it was, or what was written does not read back.
        OSError: the disk is full or fails; the old file stays.
    """
    path = folder.final(job.header.object_code)
    sizes = _sizes(job)
    if job.rejected_cap:
        path_of_rejects = folder.rejected(job.header.object_code)
        folder.write(path_of_rejects, rejected_file.image(job, path_of_rejects, sizes))
    header = replace(job.header, platforms=platforms_of(job.rounds))
    layout = final_format.lay_out(header, job.ending, sizes)
    with folder.replacement(path, layout.length) as aside:
        content, checksums = _write_columns(aside.fd, job, sizes, layout.offsets)
        pages = final_format.lay_out(header, job.ending, sizes, content).pages
        for offset, page in pages:
            durable_io.write(aside.fd, page, offset)
        durable_io.sync(aside.fd)
        proof = final_format.read_back(str(aside.path), pages, checksums.by_name)
    state = path.stat()
    return Merged(path, state.st_size, state.st_mtime_ns, proof)


def _write_columns(fd: int, job: MergeJob, sizes: Sizes, offsets: dict[str, int | None]) -> tuple[str, Checksums]:
    """Writes every column at its offset and returns the content's hash, and checksums to read it back by.

    Two threads read shards ahead and hash what was written.
    """
    fields = final_fields(job.is_judged)
    content, checksums, at = Content(fields), Checksums(fields), dict(offsets)
    with ThreadPoolExecutor(2) as threads:
        hashed = threads.submit(_hash, content, {})
        for blocks in _joined(_blocks(job, sizes, threads)):
            hashed.result()
            hashed = threads.submit(_hash, content, blocks)
            for name, block in blocks.items():
                checksums.update(name, block)
                durable_io.write(fd, bytes_of(block), at[name])
                at[name] += block.nbytes
        hashed.result()
    return content.hexdigest(sizes), checksums


def _hash(content: Content, blocks: Blocks) -> None:
    for name, block in blocks.items():
        content.update(name, block)


def _joined(blocks: Iterator[Blocks]) -> Iterator[Blocks]:
    """Yields the same in larger blocks: threads that meet at each small one wait for each other."""
    waiting: dict[str, list[np.ndarray]] = {}
    size = 0
    for columns in blocks:
        for name, block in columns.items():
            if block.size:
                waiting.setdefault(name, []).append(block)
                size += block.nbytes
        if size >= final_format.BLOCK_BYTES:
            yield {name: np.concatenate(parts) for name, parts in waiting.items()}
            waiting, size = {}, 0
    yield {name: np.concatenate(parts) for name, parts in waiting.items()}


def _blocks(job: MergeJob, sizes: Sizes, threads: Executor) -> Iterator[Blocks]:
    """Yields the next rows of some columns, each column's in their order."""
    if job.old is not None:
        yield from _old_blocks(job, sizes)
    new = [one for one in job.rounds if one.shard is not None or one.round_id >= job.old_rounds]
    sealed = SealedColumns()
    yield from _ahead(threads, [partial(_round_block, one, job, sizes, sealed) for one in new])
    yield round_table(job.rounds, round_fields(job.is_judged))


def _ahead(threads: Executor, calls: Iterable[Callable[[], Blocks]]) -> Iterator[Blocks]:
    """Yields what the calls return, in their order, while threads make the next ones."""
    coming: deque[Future[Blocks]] = deque()
    for call in calls:
        coming.append(threads.submit(call))
        if len(coming) > ROUNDS_AHEAD:
            yield coming.popleft().result()
    while coming:
        yield coming.popleft().result()


def _old_blocks(job: MergeJob, sizes: Sizes) -> Iterator[Blocks]:
    """Yields what the old file has; without any done round its curve has no points to offer."""
    with h5py.File(job.old, "r") as file:
        if len(file["row"]) != sum(one.already for one in job.rounds):
            raise FormatError(f"{job.old} has {len(file['row'])} rows, not those that its table explained")
        for f in row_fields(job.is_judged):
            yield from ({f.name: block} for block in final_format.blocks(file[f.name]))
        for f in CURVE_FIELDS:
            if file["curve/step"].shape[1] == sizes["P"]:
                yield from ({f.name: block} for block in final_format.blocks(file[f.name]))
            else:
                yield {f.name: _no_curve(f, sizes | {"R": job.old_rounds})}


def _round_block(one: MergeRound, job: MergeJob, sizes: Sizes, sealed: SealedColumns) -> Blocks:
    """Returns the accepted rows of a round that the old file lacks, up to the cut, and a new curve."""
    if one.shard is None:
        return {f.name: _no_curve(f, sizes | {"R": 1}) for f in CURVE_FIELDS}
    columns, rows_of = sealed.of(one), row_fields(job.is_judged)
    for f in (*rows_of, *CURVE_FIELDS):
        if columns[f.name].shape[1:] != shape_of(f, sizes)[1:]:
            raise FormatError(
                f"{f.name} in {one.shard} has shape {columns[f.name].shape}, unlike the rounds before it, whose axes "
                f"are {sizes}"
            )
    mask = job.accept(columns)
    mask[list(one.duplicates)] = False
    if mask.sum() != one.accepted:
        raise FormatError(f"{one.shard} has {mask.sum()} accepted rows, not the {one.accepted} that were counted")
    chosen = np.flatnonzero(mask)[one.already : one.kept]
    rows = chosen if len(chosen) < len(mask) else slice(None)  # all of a shard need no copy
    block = {f.name: columns[f.name][rows] for f in rows_of}
    if one.round_id >= job.old_rounds:
        block |= {f.name: columns[f.name].copy() for f in CURVE_FIELDS}  # a view would keep the shard in memory
    return block


def _no_curve(f: Field, sizes: Sizes) -> np.ndarray:
    """Returns the curve of rounds that were skipped: NaN, and -1 for the steps."""
    return np.full(shape_of(f, sizes), -1 if f.name == "curve/step" else np.nan, f.dtype)


def _sizes(job: MergeJob) -> Sizes:
    """Returns the length of every named axis; those of rounds that all failed come from the settings, or are 0."""
    sizes = {
        "N": sum(one.kept for one in job.rounds),
        "R": len(job.rounds),
        "J": len(job.header.hand.joint_names),
        "C": job.header.run_key.get("contacts_per_hand", 0),
        "P": 0,
    } | ({"L": 0} if job.is_judged else {})
    done = next((one for one in job.rounds if one.platform is not None), None)
    if done is None:
        return sizes
    if done.round_id < job.old_rounds:
        with h5py.File(job.old, "r") as file:
            return sizes | _lengths(file, job.is_judged)
    return sizes | _lengths(SealedColumns().of(done), job.is_judged)


def _lengths(columns: Mapping[str, Any], is_judged: bool) -> Sizes:
    """Returns the axes that only the columns tell."""
    points, contacts = columns["curve/step"].shape[1], columns["contact/candidate"].shape[2]
    links = {"L": columns["verdict/link_distance"].shape[2]} if is_judged else {}
    return {"P": points, "C": contacts} | links
