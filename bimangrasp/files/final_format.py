"""Final files: layout, content hash, proof. HDF5 writes the skeleton, the caller the columns. No pickle, no torch."""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import h5py
import numpy as np

from bimangrasp.files.byte_ranges import Piece, column_pieces, with_gaps
from bimangrasp.files.checksums import Checksums, Content
from bimangrasp.files.header import (
    Ending,
    Header,
    ending_attributes,
    header_attributes,
    read_ending,
    read_header,
    text,
)
from bimangrasp.files.schema import (
    Columns,
    Field,
    FormatError,
    final_fields,
    round_fields,
    shape_of,
    sizes_of,
)
from bimangrasp.files.shard_format import create_dataset, reading, write_attributes

BLOCK_BYTES = 8 * 2**20  # the most that is held of one column while a final file is read or written


class Layout(NamedTuple):
    """The skeleton of a final file: pages of metadata, the file's length, and where each column lies."""

    pages: list[tuple[int, bytes]]
    length: int
    offsets: dict[str, int | None]


def lay_out(header: Header, ending: Ending, sizes: Mapping[str, int], content_sha256: str = "0" * 64) -> Layout:
    """Returns the layout of a final file. HDF5 writes its metadata, the caller the columns.

    Args:
        header: what it says of itself.
        ending: what it says of its rows.
        sizes: length of every named axis; of L too where the grasps are judged.
        content_sha256: of the columns.
    """
    pages, fields = _Pages(), final_fields("L" in sizes)
    with h5py.File(pages, "w", libver="earliest") as file:
        attributes = header_attributes(header) | ending_attributes(ending) | {"content_sha256": content_sha256}
        write_attributes(file["/"].id, attributes)
        offsets = {f.name: create_dataset(file, f, shape_of(f, sizes)).get_offset() for f in fields}
    return Layout(pages.written, pages.length, offsets)


class _Pages(io.RawIOBase):
    """A file that remembers what was written where, so that the unwritten columns cost nothing."""

    def __init__(self) -> None:
        self.written: list[tuple[int, bytes]] = []
        self.length = 0
        self._position = 0

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._position = offset + (0, self._position, self.length)[whence]
        return self._position

    def tell(self) -> int:
        return self._position

    def write(self, data: Any) -> int:
        self.written.append((self._position, bytes(data)))
        self._position += len(self.written[-1][1])
        self.length = max(self.length, self._position)
        return len(self.written[-1][1])

    def truncate(self, size: int | None = None) -> int:
        self.length = self._position if size is None else size
        return self.length


def blocks(dataset: Any) -> Iterator[np.ndarray]:
    """Yields the rows of a column, at most BLOCK_BYTES at a time."""
    row_bytes = dataset.dtype.itemsize * int(np.prod(dataset.shape[1:]))
    step = max(1, BLOCK_BYTES // max(1, row_bytes))
    for first in range(0, dataset.shape[0], step):
        yield dataset[first : first + step]


class Proof(NamedTuple):
    """What a verified final file says.

    Attributes:
        header, ending: its attributes.
        sizes: length of every named axis.
        rounds: its table of rounds.
        content_sha256: of names, dtypes, shapes and bytes of all columns.
        sha256: of the whole file; empty where its content was trusted.
    """

    header: Header
    ending: Ending
    sizes: dict[str, int]
    rounds: dict[str, np.ndarray]
    content_sha256: str
    sha256: str

    @property
    def is_judged(self) -> bool:
        """Whether a simulator's verdict stands beside each grasp."""
        return "L" in self.sizes


def verify_final(path: str, content: bool = True) -> Proof:
    """Returns what a final file says after reading it in full.

    Args:
        path: the file.
        content: False trusts the columns' bytes and reads attributes and `rounds` only.

    Raises:
        FormatError: the file cannot be read, or does not keep the contract or its own content_sha256.
    """
    with reading("final file"), h5py.File(path, "r") as file:
        proof = _said(file)
        if not content:
            return proof
        found = Content(final_fields(proof.is_judged))
        sha256 = _check_columns(path, file, found)
        if found.hexdigest(proof.sizes) != proof.content_sha256:
            raise FormatError("content_sha256 is not that of the columns")
    return proof._replace(sha256=sha256)


def read_back(path: str, pages: Sequence[tuple[int, bytes]], checksums: Mapping[str, int]) -> Proof:
    """Returns what a final file says that was written just now, after reading it in full.

    Args:
        path: the file.
        pages: what was written outside of the columns, and where.
        checksums: CRC-32 of what was written, by column.

    Raises:
        FormatError: a byte does not read back as it was written, or the file does not keep the contract.
    """
    _check_pages(path, pages)
    with reading("final file"), h5py.File(path, "r") as file:
        proof = _said(file)
        found = Checksums(final_fields(proof.is_judged))
        sha256 = _check_columns(path, file, found)
    changed = [name for name, checksum in checksums.items() if found.by_name[name] != checksum]
    if changed:
        raise FormatError(f"{path} does not read back as it was written, in {', '.join(changed)}")
    return proof._replace(sha256=sha256)


def _check_pages(path: str, pages: Sequence[tuple[int, bytes]]) -> None:
    """Raises FormatError unless these bytes lie in a file; HDF5 need not survive it if they do not."""
    with Path(path).open("rb") as file:
        for first, page in dict(pages).items():
            if os.pread(file.fileno(), len(page), first) != page:
                raise FormatError(f"{path} does not read back as it was written, in {len(page)} bytes at {first}")


def _said(file: h5py.File) -> Proof:
    """Returns what an open final file says of itself, its columns unread."""
    header, ending = read_header(file), read_ending(file)
    is_judged = "verdict" in file
    fields = final_fields(is_judged)
    sizes = sizes_of({f.name: file[f.name] for f in fields}, fields)
    rounds = {f.name: file[f.name][...] for f in round_fields(is_judged)}
    _check_rounds(rounds, sizes, ending)
    return Proof(header, ending, sizes, rounds, text(file.attrs["content_sha256"]), "")


def _check_rounds(rounds: Columns, sizes: Mapping[str, int], ending: Ending) -> None:
    """Raises FormatError unless the table of rounds has no gap and explains the file's rows."""
    kept, accepted = rounds["rounds/kept"], rounds["rounds/accepted"]
    whole = (rounds["rounds/round"] == np.arange(sizes["R"])).all() and (kept[:-1] == accepted[:-1]).all()
    if not whole or (kept > accepted).any() or kept.sum() != sizes["N"]:
        raise FormatError(f"the table of rounds does not explain the {sizes['N']} rows")
    if ending.complete != (sizes["N"] == ending.quota):
        raise FormatError(f"complete={ending.complete} with {sizes['N']} rows and quota {ending.quota}")


def _check_columns(path: str, file: h5py.File, found: Content | Checksums) -> str:
    """Feeds `found` with the columns and returns the hash of the file; raises FormatError for grasps that cannot be.

    The file is read once, from its first byte to its last; a second thread takes the hash.
    """
    columns, whole = column_pieces(file.id, final_fields("verdict" in file)), hashlib.sha256()
    with Path(path).open("rb") as raw, ThreadPoolExecutor(1) as aside:
        hashed = aside.submit(whole.update, b"")
        for piece in with_gaps(columns, os.fstat(raw.fileno()).st_size):
            for block in _read(raw, piece):
                hashed.result()
                hashed = aside.submit(whole.update, block)
                if piece.field is not None:
                    found.update(piece.name, np.frombuffer(block, np.uint8))
                    _check_finite(piece.field, block)
        hashed.result()
    _check_keys(file["round"][...], file["row"][...])
    return whole.hexdigest()


def _read(file: BinaryIO, piece: Piece) -> Iterator[bytes]:
    """Yields the bytes of a stretch, whole numbers at a time, at most BLOCK_BYTES."""
    size = np.dtype(piece.field.dtype).itemsize if piece.field else 1
    step = max(1, BLOCK_BYTES // size) * size
    for first in range(piece.first, piece.end, step):
        wanted = min(step, piece.end - first)
        block = file.read(wanted)
        if len(block) != wanted:
            raise FormatError(f"the file ends after {first + len(block)} bytes")
        yield block


def _check_finite(f: Field, block: bytes) -> None:
    """Raises FormatError for a number of a grasp that is not finite."""
    if f.shape[0] == "N" and np.dtype(f.dtype).kind == "f" and not np.isfinite(np.frombuffer(block, f.dtype)).all():
        raise FormatError(f"{f.name} holds numbers that are not finite")


def _check_keys(rounds: np.ndarray, rows: np.ndarray) -> None:
    """Raises FormatError unless (round, row) rises strictly, and so stands once."""
    later_round, same_round = np.diff(rounds) > 0, np.diff(rounds) == 0
    if not (later_round | (same_round & (np.diff(rows) > 0))).all():
        raise FormatError("(round, row) is not unique and rising")
