"""The HDF5 contract: fields, shapes, units, version; images, layouts, reading, proof. No pickle, no torch."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, NamedTuple

import h5py
import numpy as np

from bimangrasp.errors import InputError
from bimangrasp.grasp_fields import (
    FINAL_FIELDS,
    ROUND_FIELDS,
    SHARD_FIELDS,
    Columns,
    Field,
    FormatError,
    shape_of,
    sizes_of,
)

FORMAT = "bimangrasp-grasps"
VERSION = 1
LICENCE = "Apache-2.0"
CITATION = "Y. Shao and C. Xiao, Bimanual Grasp Synthesis for Dexterous Robot Hands, IEEE RA-L, 2024"
BLOCK_BYTES = 8 * 2**20  # the most that is held of one column while a final file is read or written


@dataclass(frozen=True)
class HandTable:
    """What a reader must know of the hands. K contact candidates a hand, a shorter list ends in "" and NaN.

    Attributes:
        name, sha256: the pair of hands.
        joint_names: J names, in the order of `hand/joints`.
        candidate_link: (2, K) names of the links that carry the candidates.
        candidate_position: (2, K, 3) float32, m, link coordinates.
    """

    name: str
    sha256: str
    joint_names: tuple[str, ...]
    candidate_link: np.ndarray
    candidate_position: np.ndarray


@dataclass(frozen=True)
class Header:
    """What shard and final file say of themselves: nothing of worker, device number, time, host or path."""

    object_code: str
    object_index: int
    mesh_sha256: str
    hand: HandTable
    energy_weights: dict[str, float]
    run_key: dict[str, Any]
    object_key: dict[str, Any]
    platforms: tuple[dict[str, str], ...] = field(default=())


@dataclass(frozen=True)
class Ending:
    """What only a final file says: acceptance key, quota, whether it is reached, and why the rows end."""

    acceptance_key: dict[str, Any]
    quota: int
    complete: bool
    end_reason: str


class Layout(NamedTuple):
    """The skeleton of a final file: pages of metadata, the file's length, and where each column lies."""

    pages: list[tuple[int, bytes]]
    length: int
    offsets: dict[str, int | None]


def shard_image(header: Header, columns: Columns) -> bytes:
    """Returns the bytes of the shard that holds these columns; equal input gives equal bytes."""
    sizes = sizes_of(columns)
    with h5py.File("shard", "w", driver="core", backing_store=False, libver="earliest") as file:
        _write_attributes(file, header_attributes(header))
        for f in SHARD_FIELDS:
            dataset = _create(file, f, shape_of(f, sizes))
            if dataset.size:
                dataset[...] = columns[f.name]
        file.flush()
        return file.id.get_file_image()


def lay_out(header: Header, ending: Ending, sizes: Mapping[str, int], content_sha256: str = "0" * 64) -> Layout:
    """Returns the layout of a final file. HDF5 writes its metadata, the caller the columns."""
    pages = _Pages()
    with h5py.File(pages, "w", libver="earliest") as file:
        attributes = header_attributes(header) | ending_attributes(ending) | {"content_sha256": content_sha256}
        _write_attributes(file, attributes)
        offsets = {f.name: _create(file, f, shape_of(f, sizes)).id.get_offset() for f in FINAL_FIELDS}
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


def _create(file: h5py.File, f: Field, shape: tuple[int, ...]) -> h5py.Dataset:
    """Creates the contiguous dataset of a field: allocated early, never filled, without times."""
    settings = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    settings.set_layout(h5py.h5d.CONTIGUOUS)
    settings.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
    settings.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
    settings.set_obj_track_times(False)
    group, _, name = f.name.rpartition("/")
    parent = file.require_group(group) if group else file
    kind = h5py.h5t.py_create(np.dtype(f.dtype), logical=True)
    dataset = h5py.Dataset(h5py.h5d.create(parent.id, name.encode(), kind, h5py.h5s.create_simple(shape), settings))
    _write_attributes(dataset, {"unit": f.unit, "frame": f.frame, "description": f.text})
    return dataset


def _write_attributes(target: h5py.HLObject, attributes: Mapping[str, Any]) -> None:
    for name, value in attributes.items():
        target.attrs.create(name, np.bytes_(value.encode()) if isinstance(value, str) else value)


def _json(value: Any) -> str:
    return json.dumps(value, sort_keys=True, ensure_ascii=False)


def header_attributes(header: Header) -> dict[str, Any]:
    """Returns the file attributes of a header; dicts become JSON text."""
    hand = header.hand
    return {
        "format": FORMAT,
        "format_version": VERSION,
        "object_code": header.object_code,
        "object_index": header.object_index,
        "mesh_sha256": header.mesh_sha256,
        "hand_name": hand.name,
        "hand_sha256": hand.sha256,
        "joint_names": _texts(np.array(hand.joint_names)),
        "candidate_link": _texts(hand.candidate_link),
        "candidate_position": np.asarray(hand.candidate_position, np.float32),
        "energy_weights": _json(header.energy_weights),
        "run_key": _json(header.run_key),
        "object_key": _json(header.object_key),
        "platforms": _json(list(header.platforms)),
        "licence": LICENCE,
        "citation": CITATION,
    }


def ending_attributes(ending: Ending) -> dict[str, Any]:
    """Returns the file attributes of an ending."""
    return asdict(ending) | {
        "acceptance_key": _json(ending.acceptance_key),
        "complete": np.uint8(ending.complete),
    }


def _texts(names: np.ndarray) -> np.ndarray:
    """Returns names as fixed-length UTF-8."""
    return np.char.encode(names.astype(np.str_), "utf-8")


def read_header(file: h5py.File) -> Header:
    """Returns the header of an open file; raises FormatError, or InputError for a newer format."""
    a = file.attrs
    if _text(a.get("format", b"")) != FORMAT:
        raise FormatError(f"not a {FORMAT} file")
    if a["format_version"] > VERSION:
        raise InputError(
            f"{file.filename} has format version {a['format_version']}; this program reads up to {VERSION}: "
            f"use the newer program that wrote it"
        )
    names = tuple(_text(name) for name in a["joint_names"])
    links = np.char.decode(a["candidate_link"], "utf-8")
    hand = HandTable(_text(a["hand_name"]), _text(a["hand_sha256"]), names, links, a["candidate_position"])
    weights, run_key, object_key, platforms = (
        json.loads(a[name]) for name in ("energy_weights", "run_key", "object_key", "platforms")
    )
    code, mesh = _text(a["object_code"]), _text(a["mesh_sha256"])
    return Header(code, int(a["object_index"]), mesh, hand, weights, run_key, object_key, tuple(platforms))


def read_ending(file: h5py.File) -> Ending:
    """Returns the ending of an open final file."""
    a = file.attrs
    key = json.loads(a["acceptance_key"])
    return Ending(key, int(a["quota"]), bool(a["complete"]), _text(a["end_reason"]))


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def read_shard(image: bytes) -> tuple[Header, dict[str, np.ndarray]]:
    """Returns header and columns of a shard's bytes; raises FormatError where they break the contract."""
    try:
        with h5py.File(io.BytesIO(image), "r") as file:
            header = read_header(file)
            columns = {f.name: file[f.name][...] for f in SHARD_FIELDS}
    except (OSError, KeyError, RuntimeError, json.JSONDecodeError) as error:
        raise FormatError(f"not a readable shard: {error}") from error
    _check_shard(columns)
    return header, columns


def _check_shard(columns: dict[str, np.ndarray]) -> None:
    """Raises FormatError unless the columns are those of one whole round."""
    sizes = sizes_of(columns)
    if sizes["R"] != 1 or columns["rounds/rows"][0] != sizes["N"]:
        raise FormatError(f"a shard holds one round with all its rows, this one has {sizes}")
    same = [(columns[name] == columns[f"rounds/{name}"][0]).all() for name in ("seed", "round")]
    if not all(same) or (columns["row"] != np.arange(sizes["N"])).any():
        raise FormatError("seed, round and row of the grasps are not those of the shard's round")


class Content:
    """The running `content_sha256`: a hash per column, fed in row order, joined with names and shapes."""

    def __init__(self) -> None:
        self._digests = {f.name: hashlib.sha256() for f in FINAL_FIELDS}

    def update(self, name: str, block: np.ndarray) -> None:
        """Adds the next rows of a column."""
        if block.size:
            self._digests[name].update(np.ascontiguousarray(block).reshape(-1).view(np.uint8))

    def hexdigest(self, sizes: Mapping[str, int]) -> str:
        """Returns the hash of names, dtypes, shapes and bytes of all columns."""
        whole = hashlib.sha256()
        for f in FINAL_FIELDS:
            whole.update(f"{f.name} {f.dtype} {shape_of(f, sizes)} {self._digests[f.name].hexdigest()}\n".encode())
        return whole.hexdigest()


def blocks(dataset: Any) -> Iterator[tuple[int, np.ndarray]]:
    """Yields first row and rows of a column, at most BLOCK_BYTES at a time."""
    row_bytes = dataset.dtype.itemsize * int(np.prod(dataset.shape[1:]))
    step = max(1, BLOCK_BYTES // max(1, row_bytes))
    for first in range(0, dataset.shape[0], step):
        yield first, dataset[first : first + step]


class Proof(NamedTuple):
    """What a verified final file says."""

    header: Header
    ending: Ending
    sizes: dict[str, int]
    rounds: dict[str, np.ndarray]
    content_sha256: str


def verify_final(path: str, content: bool = True) -> Proof:
    """Returns what a final file says after reading it in full.

    Args:
        path: the file.
        content: False trusts the columns' bytes and reads attributes and `rounds` only.

    Raises:
        FormatError: the file cannot be read, or does not keep the contract or its own content_sha256.
    """
    try:
        with h5py.File(path, "r") as file:
            header, ending = read_header(file), read_ending(file)
            sizes = sizes_of({f.name: file[f.name] for f in FINAL_FIELDS}, FINAL_FIELDS)
            rounds = {f.name: file[f.name][...] for f in ROUND_FIELDS}
            _check_rounds(rounds, sizes, ending)
            claimed = _text(file.attrs["content_sha256"])
            if content and _check_columns(file, sizes) != claimed:
                raise FormatError("content_sha256 is not that of the columns")
    except (OSError, KeyError, RuntimeError, json.JSONDecodeError) as error:
        raise FormatError(f"not a readable final file: {error}") from error
    return Proof(header, ending, sizes, rounds, claimed)


def _check_rounds(rounds: Columns, sizes: Mapping[str, int], ending: Ending) -> None:
    """Raises FormatError unless the table of rounds has no gap and explains the file's rows."""
    kept, accepted = rounds["rounds/kept"], rounds["rounds/accepted"]
    whole = (rounds["rounds/round"] == np.arange(sizes["R"])).all() and (kept[:-1] == accepted[:-1]).all()
    if not whole or (kept > accepted).any() or kept.sum() != sizes["N"]:
        raise FormatError(f"the table of rounds does not explain the {sizes['N']} rows")
    if ending.complete != (sizes["N"] == ending.quota):
        raise FormatError(f"complete={ending.complete} with {sizes['N']} rows and quota {ending.quota}")


def _check_columns(file: h5py.File, sizes: Mapping[str, int]) -> str:
    """Returns the content's hash; raises FormatError for numbers not finite and keys out of order."""
    content = Content()
    for f in FINAL_FIELDS:
        for _, block in blocks(file[f.name]):
            content.update(f.name, block)
            if f.shape[0] == "N" and block.dtype.kind == "f" and not np.isfinite(block).all():
                raise FormatError(f"{f.name} holds numbers that are not finite")
    _check_keys(file["round"][...], file["row"][...])
    return content.hexdigest(sizes)


def _check_keys(rounds: np.ndarray, rows: np.ndarray) -> None:
    """Raises FormatError unless (round, row) rises strictly, and so stands once."""
    later_round, same_round = np.diff(rounds) > 0, np.diff(rounds) == 0
    if not (later_round | (same_round & (np.diff(rows) > 0))).all():
        raise FormatError("(round, row) is not unique and rising")
