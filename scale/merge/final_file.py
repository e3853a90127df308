"""Merges the rounds of an object into its final file: shards in round order, cut at the quota."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np

from bimangrasp.files.formats import Ending, Header, Proof, final_image, verify_final
from bimangrasp.files.schema import CURVE_FIELDS, Columns, Field, FormatError, round_fields, row_fields, shape_of
from scale.merge import rejected_file
from scale.merge.job import MergeJob, MergeRound, Sizes, platforms_of, round_table
from scale.merge.round_records import sealed_columns
from scale.store import durable_io
from scale.store.events import FileMerged
from scale.store.run_folder import RunFolder


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
        table = None if self.proof.ending.end_reason == "partial" else _table(self.proof)
        return FileMerged(code=self.proof.header.object_code, table=table, **self.facts())

    def facts(self) -> dict[str, Any]:
        """Returns what journal and manifest say of the file."""
        sizes, ending = self.proof.sizes, self.proof.ending
        return {
            "rows": sizes["N"],
            "quota": ending.quota,
            "end_reason": ending.end_reason,
            "sha256": self.sha256,
            "content_sha256": self.proof.content_sha256,
            "size": self.size,
            "mtime_ns": self.mtime_ns,
            "rounds": sizes["R"],
        }

    @classmethod
    def of_line(cls, path: Path, line: FileMerged, common: Header) -> Merged:
        """Returns what an untouched file says of itself, from its journal's line alone.

        Args:
            path: the file.
            line: with its table.
            common: of any file of the run: what is the same in all.
        """
        table = line.table
        header = replace(
            common,
            object_code=line.code,
            object_index=table["index"],
            mesh_sha256=table["mesh_sha256"],
            object_key=table["object_key"],
            platforms=tuple(table["platforms"]),
        )
        ending = Ending(
            acceptance_key=table["acceptance_key"],
            quota=line.quota,
            complete=line.rows == line.quota,
            end_reason=line.end_reason,
            rejected=table["rejected"],
            judging=table.get("judging"),
        )
        fields = round_fields("L" in table["sizes"])
        rounds = {f.name: np.array(table["rounds"][f.name], f.dtype) for f in fields}
        proof = Proof(header, ending, table["sizes"], rounds, line.content_sha256, line.sha256)
        return cls(path, line.size, line.mtime_ns, proof)


def _table(proof: Proof) -> dict[str, Any]:
    """Returns what of a file's proof is in no other field of its event."""
    header, ending = proof.header, proof.ending
    columns = {name: column.tolist() for name, column in proof.rounds.items()}
    texts = {name: [text.decode() for text in column] for name, column in columns.items() if name.endswith("sha256")}
    return {
        "index": header.object_index,
        "mesh_sha256": header.mesh_sha256,
        "object_key": header.object_key,
        "platforms": list(header.platforms),
        "acceptance_key": ending.acceptance_key,
        "rejected": ending.rejected,
        "judging": ending.judging,
        "sizes": proof.sizes,
        "rounds": columns | texts,
    }


def merge(folder: RunFolder, job: MergeJob) -> Merged:
    """Writes the final file of an object and returns what it says, after it was read again and put in place.

    Where rejected grasps are kept, their file takes its place before: only then may shards go. The final file is made
    in memory, which takes three times its size.

    Raises:
        FormatError: a shard or the old file is not what it was, or what was written does not read back.
        OSError: the disk is full or fails; the old file stays.
    """
    path = folder.final(job.header.object_code)
    sizes = _sizes(job)
    if job.rejected_cap:
        path_of_rejected = folder.rejected(job.header.object_code)
        folder.write(path_of_rejected, rejected_file.image(job, path_of_rejected, sizes))
    _keep_failures(folder.failed(job.header.object_code), folder, job, sizes)
    header = replace(job.header, platforms=platforms_of(job.rounds))
    image = final_image(header, job.ending, _columns(job, sizes))
    sha256 = hashlib.sha256(image).hexdigest()
    proof = folder.write_verified(path, image, partial(verify_final, sha256=sha256))
    state = path.stat()
    return Merged(path, state.st_size, state.st_mtime_ns, proof)


def _keep_failures(path: Path, folder: RunFolder, job: MergeJob, sizes: Sizes) -> None:
    """Writes grasps by which the report tells why an object falls short, and deletes those of one that no more does.

    Where all rejected grasps are kept it takes those. A few later rounds do not take the place of many earlier ones.
    """
    rows = sum(each.record.rows for each in job.rounds if each.is_read and each.is_done)
    is_short = job.ending.end_reason not in ("partial", "quota") and job.is_judged
    if job.rejected_cap or job.ending.end_reason == "quota":
        durable_io.remove(path)
    elif is_short and (rows >= rejected_file.SAMPLE or (rows and not path.exists())):
        folder.write(path, rejected_file.sample_image(job, sizes))


def _columns(job: MergeJob, sizes: Sizes) -> Columns:
    """Returns the columns of the final file: the old file's rows first, then what each shard adds to them."""
    columns = {f.name: np.empty(shape_of(f, sizes), f.dtype) for f in row_fields(job.is_judged)}
    columns |= {f.name: _no_curve(f, sizes) for f in CURVE_FIELDS}
    rows = 0 if job.old is None else _copy_old_file(job, sizes, columns)
    for merge_round in job.rounds:
        if merge_round.is_read:
            rows += _copy_round(merge_round, job, sizes, columns, rows)
    assert rows == sizes["N"], f"{rows} rows were merged of {sizes['N']}"
    return columns | round_table(job.rounds, round_fields(job.is_judged))


def _no_curve(f: Field, sizes: Sizes) -> np.ndarray:
    """Returns the curve of rounds that were skipped: NaN, and -1 for the steps."""
    return np.full(shape_of(f, sizes), -1 if f.name == "curve/step" else np.nan, f.dtype)


def _copy_old_file(job: MergeJob, sizes: Sizes, columns: dict[str, np.ndarray]) -> int:
    """Copies rows and curves of the old file to the start of the columns and returns how many rows it has.

    Without any done round its curves have no points, unlike those of a later round.
    """
    with h5py.File(job.old, "r") as file:
        rows = len(file["row"])
        if rows != sum(merge_round.already for merge_round in job.rounds):
            raise FormatError(f"{job.old} has {rows} rows, not those that its table explained")
        for f in row_fields(job.is_judged):
            columns[f.name][:rows] = file[f.name][...]
        if file["curve/step"].shape[1] == sizes["P"]:
            for f in CURVE_FIELDS:
                columns[f.name][: job.old_rounds] = file[f.name][...]
    return rows


def _copy_round(
    merge_round: MergeRound, job: MergeJob, sizes: Sizes, columns: dict[str, np.ndarray], first: int
) -> int:
    """Copies the accepted rows of a round that the old file lacks, up to the cut, and a curve that it lacks.

    Args:
        merge_round: the round, whose shard is read.
        job: the merge.
        sizes: length of every named axis.
        columns: to be filled.
        first: the row where the round's begin.

    Returns:
        How many rows were copied.
    """
    record = merge_round.record
    shard = sealed_columns(record)
    _check_shapes(shard, merge_round, job, sizes)
    mask = job.accept(shard)
    mask[list(record.duplicates)] = False
    if mask.sum() != record.accepted:
        raise FormatError(f"{record.shard} has {mask.sum()} accepted rows, not the {record.accepted} that were counted")
    rows = np.flatnonzero(mask)[merge_round.already : merge_round.kept]
    for f in row_fields(job.is_judged):
        columns[f.name][first : first + len(rows)] = shard[f.name][rows]
    if merge_round.round_id >= job.old_rounds:
        for f in CURVE_FIELDS:
            columns[f.name][merge_round.round_id] = shard[f.name][0]
    return len(rows)


def _check_shapes(shard: Columns, merge_round: MergeRound, job: MergeJob, sizes: Sizes) -> None:
    """Raises FormatError for a round whose joints, contacts, curve points or links are not as many as before."""
    for f in (*row_fields(job.is_judged), *CURVE_FIELDS):
        if shard[f.name].shape[1:] != shape_of(f, sizes)[1:]:
            raise FormatError(
                f"{f.name} in {merge_round.record.shard} has shape {shard[f.name].shape}, unlike the rounds "
                f"before it, whose axes are {sizes}"
            )


def _sizes(job: MergeJob) -> Sizes:
    """Returns the length of every named axis; those of rounds that all failed come from the settings, or are 0."""
    sizes = {
        "N": sum(merge_round.kept for merge_round in job.rounds),
        "R": len(job.rounds),
        "J": len(job.header.hand.joint_names),
        "C": job.header.run_key.get("contacts_per_hand", 0),
        "P": 0,
    } | ({"L": 0} if job.is_judged else {})
    first_done = next((merge_round for merge_round in job.rounds if merge_round.is_done), None)
    if first_done is None:
        return sizes
    if first_done.round_id < job.old_rounds:
        with h5py.File(job.old, "r") as file:
            return sizes | _lengths(file, job.is_judged)
    return sizes | _lengths(sealed_columns(first_done.record), job.is_judged)


def _lengths(columns: Mapping[str, Any], is_judged: bool) -> Sizes:
    """Returns the axes that only the columns tell."""
    points, contacts = columns["curve/step"].shape[1], columns["contact/candidate"].shape[2]
    links = {"L": columns["verdict/link_distance"].shape[2]} if is_judged else {}
    return {"P": points, "C": contacts} | links


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


def check_dataset(path: Path) -> None:
    """Raises FormatError unless a file holds links to final files and nothing else."""
    try:
        with h5py.File(io.BytesIO(path.read_bytes()), "r") as file:
            links = [file.get(name, getlink=True) for name in file]
    except (OSError, RuntimeError, KeyError, ValueError) as error:
        raise FormatError(f"not a readable file of links: {error}") from error
    if any(not isinstance(link, h5py.ExternalLink) or link.path != "/" for link in links):
        raise FormatError("it holds more than links to final files")


def write_dataset(folder: RunFolder) -> None:
    """Writes `dataset.h5`, which opens every final file that is there; nothing where it already does."""
    image = dataset_image({path.stem: folder.relative(path) for path in folder.final_files()})
    if not folder.dataset.exists() or folder.dataset.read_bytes() != image:
        folder.write(folder.dataset, image)
