"""Makes and reads HDF5 files in memory: attributes, and the columns of a list of fields. No pickle, no torch."""

from __future__ import annotations

import io
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import h5py
import numpy as np

from bimangrasp.errors import InputError
from bimangrasp.files.schema import Columns, Field, FormatError, shape_of, sizes_of


def image_of(attributes: Mapping[str, Any], fields: Sequence[Field], columns: Columns) -> bytes:
    """Returns the bytes of a file that holds these columns; equal input gives equal bytes.

    Raises:
        FormatError: a column is missing, unknown, or not of its field's dtype and shape.
    """
    name = f"image-{threading.get_ident()}"  # HDF5 refuses a name that another thread has open; no byte tells of it
    with h5py.File(name, "w", driver="core", backing_store=False, libver="earliest") as file:
        write_contents(file, attributes, fields, columns)
        file.flush()
        return file.id.get_file_image()


def write_contents(file: h5py.File, attributes: Mapping[str, Any], fields: Sequence[Field], columns: Columns) -> None:
    """Writes attributes and columns into an empty file.

    Raises:
        FormatError: a column is missing, unknown, or not of its field's dtype and shape.
    """
    sizes = sizes_of(columns, fields)
    _write_attributes(file["/"].id, attributes)
    for f in fields:
        dataset = _create_dataset(file, f, shape_of(f, sizes))
        if columns[f.name].size:
            dataset.write(h5py.h5s.ALL, h5py.h5s.ALL, np.ascontiguousarray(columns[f.name]))


def _create_dataset(file: h5py.File, f: Field, shape: tuple[int, ...]) -> h5py.h5d.DatasetID:
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
    dtype = h5py.h5t.py_create(np.dtype(f.dtype), logical=True)
    dataset = h5py.h5d.create(parent.id, name.encode(), dtype, h5py.h5s.create_simple(shape), settings)
    _write_attributes(dataset, {"unit": f.unit, "frame": f.frame, "description": f.text})
    return dataset


def _write_attributes(target: h5py.h5g.GroupID | h5py.h5d.DatasetID, attributes: Mapping[str, Any]) -> None:
    """Writes attributes, text as UTF-8 of fixed length."""
    for name, value in attributes.items():
        data = np.asarray(np.bytes_(value.encode()) if isinstance(value, str) else value)
        dtype = h5py.h5t.py_create(data.dtype, logical=True)
        space = h5py.h5s.create_simple(data.shape) if data.shape else h5py.h5s.create(h5py.h5s.SCALAR)
        h5py.h5a.create(target, name.encode(), dtype, space).write(data)


@contextmanager
def opened(image: bytes, kind: str) -> Iterator[h5py.File]:
    """Yields the file that bytes hold, open for reading; errors are those of `refuse_unreadable`.

    HDF5 need not survive damaged bytes: where their hash is known, compare it before.
    """
    with refuse_unreadable(kind), h5py.File(io.BytesIO(image), "r") as file:
        yield file


@contextmanager
def refuse_unreadable(kind: str) -> Iterator[None]:
    """Turns whatever HDF5 and JSON raise on a file that breaks the contract into a FormatError.

    Args:
        kind: what the file should be, for the message.
    """
    try:
        yield
    except (InputError, FormatError):
        raise
    except (OSError, LookupError, RuntimeError, ValueError, TypeError, AttributeError) as error:
        raise FormatError(f"not a readable {kind}: {error}") from error


def read_columns(file: h5py.File, fields: Sequence[Field]) -> dict[str, np.ndarray]:
    """Returns the columns of an open file, copied into memory.

    Raises:
        FormatError: a column is not stored in one piece, or not of its field's dtype and shape.
    """
    columns = {f.name: _read_column(file, f.name) for f in fields}
    sizes_of(columns, fields)
    return columns


def _read_column(file: h5py.File, name: str) -> np.ndarray:
    """Returns one column. By HDF5's own calls: h5py's datasets take three times as long."""
    dataset = h5py.h5d.open(file.id, name.encode())
    column = np.empty(dataset.shape, dataset.dtype)
    if column.size:
        if dataset.get_offset() is None:
            raise FormatError(f"{name} is not stored in one piece")
        dataset.read(h5py.h5s.ALL, h5py.h5s.ALL, column)
    return column


def refuse_unknown(file: h5py.File, fields: Sequence[Field]) -> None:
    """Raises FormatError for datasets and groups that the format does not have."""
    known = {f.name for f in fields} | {f.name.rpartition("/")[0] for f in fields}
    names: list[str] = []
    file.visit(names.append)
    if set(names) - known:
        raise FormatError(f"it holds what the format does not have: {sorted(set(names) - known)}")
