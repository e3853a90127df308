"""Shards in round order -> an object's final file, cut at the quota; and the file that opens all of them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import h5py
import numpy as np

from bimangrasp import grasp_file
from bimangrasp.grasp_fields import CURVE_FIELDS, GRASP_FIELDS, ROUND_FIELDS, Field, FormatError, shape_of
from bimangrasp.grasp_file import BLOCK_BYTES, Content, Ending, Header, Proof
from scale import disk, shards
from scale.acceptance import Accept
from scale.run_folder import RunFolder

DONE, SKIPPED = 0, 1
Sizes = dict[str, int]


class MergeRound(NamedTuple):
    """One round of the prefix.

    Attributes:
        round_id, seed, rows, accepted, kept, tile_used, shard_sha256: its line in the table.
        platform: None where it was skipped.
        shard: where its rows are; None where the old file has all that is kept.
        already: accepted rows of it that the old file has.
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


class MergeJob(NamedTuple):
    """All that decides the bytes of a final file.

    Attributes:
        header: without platforms; they come from the rounds.
        ending: acceptance key, quota, and why the rows end.
        rounds: the prefix, round 0 first.
        old: the final file whose rows come first; None to build from shards alone.
        old_rounds: rounds that the old file's table has.
        accept: columns -> mask of accepted rows.
    """

    header: Header
    ending: Ending
    rounds: tuple[MergeRound, ...]
    old: Path | None
    old_rounds: int
    accept: Accept


class Merged(NamedTuple):
    """What the journal's line says of a final file, and the proof of it."""

    path: Path
    sha256: str
    size: int
    mtime_ns: int
    proof: Proof


def merge(folder: RunFolder, job: MergeJob) -> Merged:
    """Writes the final file of an object and returns what it says, after it was read again and put in place.

    Raises:
        FormatError: a shard or the old file is not what it was, or what was written does not read back.
        OSError: the disk is full or fails; the old file stays.
    """
    path = folder.final(job.header.object_code)
    header = replace(job.header, platforms=_platforms(job))
    sizes = _sizes(job)
    layout = grasp_file.lay_out(header, job.ending, sizes)
    with folder.replacement(path, layout.length) as aside:
        content = _write_columns(aside.fd, job, sizes, layout.offsets)
        for offset, page in grasp_file.lay_out(header, job.ending, sizes, content).pages:
            disk.write(aside.fd, page, offset)
        disk.sync(aside.fd)
        proof = grasp_file.verify_final(str(aside.path))
        digest = file_sha256(aside.path)
    state = path.stat()
    return Merged(path, digest, state.st_size, state.st_mtime_ns, proof)


def _write_columns(fd: int, job: MergeJob, sizes: Sizes, offsets: dict[str, int | None]) -> str:
    """Writes every column at its offset and returns the content's hash."""
    content, at = Content(), dict(offsets)
    for name, block in _blocks(job, sizes):
        if block.size:
            data = np.ascontiguousarray(block)
            content.update(name, data)
            disk.write(fd, data.reshape(-1).view(np.uint8).data, at[name])
            at[name] += data.nbytes
    return content.hexdigest(sizes)


def _blocks(job: MergeJob, sizes: Sizes) -> Iterator[tuple[str, np.ndarray]]:
    """Yields each column's rows in their order, a block at a time."""
    if job.old is not None:
        yield from _old_blocks(job, sizes)
    for one in job.rounds:
        if one.platform is None:
            yield from _skipped_curve(one, job, sizes)
        elif one.shard is not None:
            yield from _shard_blocks(one, job)
    yield from _table(job).items()


def _old_blocks(job: MergeJob, sizes: Sizes) -> Iterator[tuple[str, np.ndarray]]:
    """Yields what the old file has; without any done round its curve has no points to offer."""
    with h5py.File(job.old, "r") as file:
        if len(file["row"]) != sum(one.already for one in job.rounds):
            raise FormatError(f"{job.old} has {len(file['row'])} rows, not those that its table explained")
        for f in GRASP_FIELDS:
            yield from ((f.name, block) for _, block in grasp_file.blocks(file[f.name]))
        for f in CURVE_FIELDS:
            if file["curve/step"].shape[1] == sizes["P"]:
                yield from ((f.name, block) for _, block in grasp_file.blocks(file[f.name]))
            else:
                yield f.name, _no_curve(f, sizes | {"R": job.old_rounds})


def _shard_blocks(one: MergeRound, job: MergeJob) -> Iterator[tuple[str, np.ndarray]]:
    """Yields the accepted rows of a shard that the old file lacks, up to the cut, and a new curve."""
    shard = shards.verify(one.shard)
    if shard.sha256 != one.shard_sha256:
        raise FormatError(f"{one.shard} is not the shard with sha256 {one.shard_sha256}")
    chosen = np.flatnonzero(job.accept(shard.columns))[one.already : one.kept]
    yield from ((f.name, shard.columns[f.name][chosen]) for f in GRASP_FIELDS)
    if one.round_id >= job.old_rounds:
        yield from ((f.name, shard.columns[f.name]) for f in CURVE_FIELDS)


def _skipped_curve(one: MergeRound, job: MergeJob, sizes: Sizes) -> Iterator[tuple[str, np.ndarray]]:
    if one.round_id >= job.old_rounds:
        yield from ((f.name, _no_curve(f, sizes | {"R": 1})) for f in CURVE_FIELDS)


def _no_curve(f: Field, sizes: Sizes) -> np.ndarray:
    """Returns the curve of rounds that were skipped: NaN, and -1 for the steps."""
    return np.full(shape_of(f, sizes), -1 if f.name == "curve/step" else np.nan, f.dtype)


def _platforms(job: MergeJob) -> tuple[dict[str, str], ...]:
    """Returns the platforms of the rounds in order of appearance."""
    found: list[dict[str, str]] = []
    for one in job.rounds:
        if one.platform is not None and one.platform not in found:
            found.append(one.platform)
    return tuple(found)


def _table(job: MergeJob) -> dict[str, np.ndarray]:
    """Returns the columns of the table of rounds."""
    platforms = _platforms(job)
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
    }
    return {f.name: np.array([values[f.name](one) for one in job.rounds], f.dtype) for f in ROUND_FIELDS}


def _sizes(job: MergeJob) -> Sizes:
    """Returns the length of every named axis; J, C and P of rounds that all failed come from the settings."""
    sizes = {
        "N": sum(one.kept for one in job.rounds),
        "R": len(job.rounds),
        "J": len(job.header.hand.joint_names),
        "C": job.header.run_key.get("contacts_per_hand", 0),
        "P": 0,
    }
    done = next((one for one in job.rounds if one.platform is not None), None)
    if done is None:
        return sizes
    if done.round_id < job.old_rounds:
        with h5py.File(job.old, "r") as file:
            points, contacts = file["curve/step"].shape[1], file["contact/candidate"].shape[2]
    else:
        columns = shards.verify(done.shard).columns
        points, contacts = columns["curve/step"].shape[1], columns["contact/candidate"].shape[2]
    return sizes | {"P": points, "C": contacts}


def file_sha256(path: Path) -> str:
    """Returns the hash of a file, read a block at a time."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(BLOCK_BYTES):
            digest.update(block)
    return digest.hexdigest()


def dataset_image(links: dict[str, str]) -> bytes:
    """Returns the bytes of a file with a link for each object.

    Args:
        links: name of the group -> final file, relative to the folder of the file that holds the links.
    """
    with h5py.File("dataset", "w", driver="core", backing_store=False, libver="earliest") as file:
        for name, target in sorted(links.items()):
            file[name] = h5py.ExternalLink(target, "/")
        file.flush()
        return file.id.get_file_image()


def write_dataset(folder: RunFolder) -> None:
    """Writes `dataset.h5`, which opens every final file that is there; nothing where it already does."""
    image = dataset_image({path.stem: folder.relative(path) for path in folder.final_files()})
    if not folder.dataset.exists() or folder.dataset.read_bytes() != image:
        folder.write(folder.dataset, image)
