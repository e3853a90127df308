"""Files that are made and read in memory: shards, verdicts, grasps that do not count. No pickle, no torch."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import lru_cache
from typing import Any, NamedTuple

import h5py
import numpy as np

from bimangrasp.errors import InputError
from bimangrasp.files.byte_ranges import Piece, column_pieces, with_gaps
from bimangrasp.files.checksums import bytes_of, content_sha256
from bimangrasp.files.header import (
    VERDICT_FORMAT,
    VERSION,
    Header,
    RejectsEnding,
    as_json,
    header_attributes,
    read_header,
    read_rejects_ending,
    rejects_attributes,
    text,
)
from bimangrasp.files.schema import (
    SHARD_FIELDS,
    VERDICT_FIELDS,
    Columns,
    Field,
    FormatError,
    reject_fields,
    shape_of,
    sizes_of,
)


def shard_image(header: Header, columns: Columns) -> bytes:
    """Returns the bytes of the shard that holds these columns; equal input gives equal bytes.

    HDF5 takes 30 ms for the fifty datasets of a shard and their attributes. It lays out the first of those that differ
    in their numbers alone; the others are copies with other numbers.
    """
    sizes = sizes_of(columns)
    attributes = tuple((name, _Frozen.of(value)) for name, value in header_attributes(header).items())
    blank = _blank_shard(attributes, tuple(sizes.items()))
    image = bytearray(blank.image)
    for piece in blank.columns:
        image[piece.first : piece.end] = bytes_of(columns[piece.name])
    return bytes(image)


class _Frozen(NamedTuple):
    """An attribute's value that can be compared and hashed."""

    dtype: str
    shape: tuple[int, ...]
    data: bytes

    @classmethod
    def of(cls, value: Any) -> _Frozen:
        """Returns a value, text as UTF-8 of fixed length."""
        array = np.asarray(np.bytes_(value.encode()) if isinstance(value, str) else value)
        return cls(array.dtype.str, array.shape, array.tobytes())

    @property
    def value(self) -> np.ndarray:
        """The value again."""
        return np.ndarray(self.shape, self.dtype, self.data)


class _Blank(NamedTuple):
    """A shard without numbers, and where its columns lie."""

    image: bytes
    columns: list[Piece]


@lru_cache(maxsize=4)
def _blank_shard(attributes: tuple[tuple[str, _Frozen], ...], sizes: tuple[tuple[str, int], ...]) -> _Blank:
    """Returns the shard of these attributes and lengths of axes whose columns hold zeros."""
    columns = {f.name: np.zeros(shape_of(f, dict(sizes)), f.dtype) for f in SHARD_FIELDS}
    image = image_of({name: frozen.value for name, frozen in attributes}, SHARD_FIELDS, columns)
    with h5py.File(h5py.h5f.open_file_image(image)) as file:
        return _Blank(image, column_pieces(file.id, SHARD_FIELDS))


def verdict_image(about: Mapping[str, Any], columns: Columns) -> bytes:
    """Returns the bytes of the file that holds these verdicts; equal input gives equal bytes.

    Args:
        about: attributes: what was judged, and how; values that are no text or number become JSON.
        columns: `VERDICT_FIELDS`.
    """
    plain = {name: value if isinstance(value, str | int | float) else as_json(value) for name, value in about.items()}
    return image_of({"format": VERDICT_FORMAT, "format_version": VERSION} | plain, VERDICT_FIELDS, columns)


def rejects_image(header: Header, ending: RejectsEnding, columns: Columns) -> bytes:
    """Returns the bytes of the file that holds grasps that do not count; equal input gives equal bytes.

    Args:
        header: what it says of itself.
        ending: what it says of its rows.
        columns: `reject_fields`.
    """
    fields = reject_fields(ending.judging is not None)
    own = {"content_sha256": content_sha256(columns, fields)}
    return image_of(header_attributes(header) | rejects_attributes(ending) | own, fields, columns)


def image_of(attributes: Mapping[str, Any], fields: Sequence[Field], columns: Columns) -> bytes:
    """Returns the bytes of a file that holds these columns; equal input gives equal bytes."""
    sizes = sizes_of(columns, fields)
    name = f"image-{threading.get_ident()}"  # HDF5 refuses a name that another thread has open; no byte tells of it
    with h5py.File(name, "w", driver="core", backing_store=False, libver="earliest") as file:
        write_attributes(file["/"].id, attributes)
        for f in fields:
            dataset = create_dataset(file, f, shape_of(f, sizes))
            if columns[f.name].size:
                dataset.write(h5py.h5s.ALL, h5py.h5s.ALL, np.ascontiguousarray(columns[f.name]))
        file.flush()
        return file.id.get_file_image()


def create_dataset(file: h5py.File, f: Field, shape: tuple[int, ...]) -> h5py.h5d.DatasetID:
    """Creates the contiguous dataset of a field: allocated early, never filled, without times.

    By HDF5's own calls, as the attributes: a shard has fifty datasets and two hundred attributes.
    """
    settings = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    settings.set_layout(h5py.h5d.CONTIGUOUS)
    settings.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
    settings.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
    settings.set_obj_track_times(False)
    group, _, name = f.name.rpartition("/")
    parent = file.require_group(group) if group else file
    kind = h5py.h5t.py_create(np.dtype(f.dtype), logical=True)
    dataset = h5py.h5d.create(parent.id, name.encode(), kind, h5py.h5s.create_simple(shape), settings)
    write_attributes(dataset, {"unit": f.unit, "frame": f.frame, "description": f.text})
    return dataset


def write_attributes(target: h5py.h5g.GroupID | h5py.h5d.DatasetID, attributes: Mapping[str, Any]) -> None:
    """Writes attributes, text as UTF-8 of fixed length."""
    for name, value in attributes.items():
        data = np.asarray(np.bytes_(value.encode()) if isinstance(value, str) else value)
        kind = h5py.h5t.py_create(data.dtype, logical=True)
        space = h5py.h5s.create_simple(data.shape) if data.shape else h5py.h5s.create(h5py.h5s.SCALAR)
        h5py.h5a.create(target, name.encode(), kind, space).write(data)


def read_shard(image: bytes) -> tuple[Header, dict[str, np.ndarray]]:
    """Returns header and columns of a shard's bytes; raises FormatError where they break the contract."""
    return ShardReader().read(image)


def read_verdict(image: bytes) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Returns attributes and columns of a verdict's bytes; raises FormatError where they break the contract."""
    with reading("verdict"), h5py.File(h5py.h5f.open_file_image(image)) as file:
        attributes = dict(file.attrs)
        if (text(attributes["format"]), attributes["format_version"]) != (VERDICT_FORMAT, VERSION):
            raise FormatError(f"not a {VERDICT_FORMAT} file of version {VERSION}")
        _refuse_unknown(file, VERDICT_FIELDS)
    columns = ShardColumns(VERDICT_FIELDS).of(image)
    sizes_of(columns, VERDICT_FIELDS)
    return attributes, columns


def read_rejects(image: bytes) -> tuple[Header, RejectsEnding, dict[str, np.ndarray]]:
    """Returns what the bytes of a file of grasps that do not count hold.

    Raises:
        FormatError: it does not keep the contract or its own content_sha256.
    """
    with reading("file of rejected grasps"), h5py.File(h5py.h5f.open_file_image(image)) as file:
        header, ending = read_header(file), read_rejects_ending(file)
        fields = reject_fields(ending.judging is not None)
        _refuse_unknown(file, fields)
        columns = {f.name: file[f.name][...] for f in fields}
        sizes_of(columns, fields)
        if text(file.attrs["content_sha256"]) != content_sha256(columns, fields):
            raise FormatError("content_sha256 is not that of the columns")
    return header, ending, columns


def shard_columns(image: bytes) -> dict[str, np.ndarray]:
    """Returns the columns of a shard's bytes, as views of these; raises FormatError where one cannot be found."""
    return ShardColumns().of(image)


class ShardColumns:
    """Finds the columns of shards (or verdicts), at once where one is like the one before; for any thread.

    HDF5 takes 4 ms to say where the columns of a shard lie, and to tell that it looks at no byte of theirs. So in a
    shard of the same length, with the same bytes between its columns, they lie where they lay before.
    """

    def __init__(self, fields: Sequence[Field] = SHARD_FIELDS) -> None:
        self._fields = fields
        self._known: _Places | None = None

    def of(self, image: bytes) -> dict[str, np.ndarray]:
        """Returns the columns as views of a shard's bytes; raises FormatError where one cannot be found."""
        places = self._known
        if places is None or not places.are_those_of(image):
            with reading("shard"):
                places = self._known = _places(image, self._fields)
        return {piece.name: piece.column(image) for piece in places.columns}


class ShardReader:
    """Reads whole shards, at once where one is like another of the last ones but for the numbers in its columns."""

    def __init__(self) -> None:
        self._known: deque[tuple[_Places, Header]] = deque(maxlen=8)

    def read(self, image: bytes) -> tuple[Header, dict[str, np.ndarray]]:
        """Returns header and columns of a shard's bytes; raises FormatError where they break the contract."""
        known = next((one for one in self._known if one[0].are_those_of(image)), None)
        if known is None:
            with reading("shard"), h5py.File(h5py.h5f.open_file_image(image)) as file:
                header = read_header(file)
                _refuse_unknown(file, SHARD_FIELDS)
            with reading("shard"):
                known = _places(image, SHARD_FIELDS), header
            self._known.append(known)
        places, header = known
        columns = {piece.name: piece.column(image) for piece in places.columns}
        _check_shard(header, columns)
        return header, columns


class _Places(NamedTuple):
    """Where the columns of a shard lie: the columns, what is between them, and the length of it all."""

    columns: list[Piece]
    between: list[tuple[int, bytes]]
    length: int

    def are_those_of(self, image: bytes) -> bool:
        """Whether HDF5 would find the columns of these bytes here too."""
        return len(image) == self.length and all(image.startswith(part, first) for first, part in self.between)


def _places(image: bytes, fields: Sequence[Field]) -> _Places:
    """Asks HDF5 where the columns of a shard lie."""
    file = h5py.h5f.open_file_image(image)
    try:
        columns = column_pieces(file, fields)
    finally:
        file.close()
    gaps = [piece for piece in with_gaps(columns, len(image)) if piece.field is None]
    return _Places(columns, [(gap.first, image[gap.first : gap.end]) for gap in gaps], len(image))


@contextmanager
def reading(what: str) -> Iterator[None]:
    """Makes whatever HDF5 and JSON raise on a file that breaks the contract a FormatError."""
    try:
        yield
    except (InputError, FormatError):
        raise
    except (OSError, LookupError, RuntimeError, ValueError, TypeError, AttributeError) as error:
        raise FormatError(f"not a readable {what}: {error}") from error


def _refuse_unknown(file: h5py.File, fields: Sequence[Field]) -> None:
    """Raises FormatError for datasets and groups that the format does not have."""
    known = {f.name for f in fields} | {f.name.rpartition("/")[0] for f in fields}
    found: list[str] = []
    file.visit(found.append)
    if set(found) - known:
        raise FormatError(f"it holds what the format does not have: {sorted(set(found) - known)}")


def _check_shard(header: Header, columns: dict[str, np.ndarray]) -> None:
    """Raises FormatError unless the columns are those of one whole round of these hands."""
    sizes = sizes_of(columns)
    if sizes["J"] != len(header.hand.joint_names):
        raise FormatError(f"{sizes['J']} joints in a shard whose hands have {len(header.hand.joint_names)}")
    if sizes["R"] != 1 or columns["rounds/rows"][0] != sizes["N"]:
        raise FormatError(f"a shard holds one round with all its rows, this one has {sizes}")
    same = [(columns[name] == columns[f"rounds/{name}"][0]).all() for name in ("seed", "round")]
    if not all(same) or (columns["row"] != np.arange(sizes["N"])).any():
        raise FormatError("seed, round and row of the grasps are not those of the shard's round")
