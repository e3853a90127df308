"""Makes and reads grasp files in memory: final files, shards, verdicts, rejected grasps. No pickle, no torch."""

from __future__ import annotations

import hashlib
import io
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np

from bimangrasp.errors import InputError
from bimangrasp.files import header as headers
from bimangrasp.files import schema
from bimangrasp.files.header import VERDICT_FORMAT, VERSION, Ending, Header, RejectsEnding, as_json, text
from bimangrasp.files.schema import (
    Columns,
    Field,
    FormatError,
    content_sha256,
    fields_of,
    final_fields,
    round_fields,
    shape_of,
    sizes_of,
)


def final_image(header: Header, ending: Ending, columns: Columns) -> bytes:
    """Returns the bytes of a final file; equal input gives equal bytes. Takes their size in memory beside the columns.

    HDF5 writes to a Python file here, not to its own memory as for shards: there it would gather small pieces of
    metadata, and the bytes of final files have always been those without.

    Args:
        header: what the file says of itself.
        ending: what it says of its rows.
        columns: `final_fields`, with verdicts where they have `verdict/reason`.

    Raises:
        FormatError: a column is missing, unknown, or not of its field's dtype and shape.
    """
    fields = final_fields("verdict/reason" in columns)
    content = {"content_sha256": content_sha256(columns, fields)}
    attributes = headers.header_attributes(header) | headers.ending_attributes(ending) | content
    image = io.BytesIO()
    with h5py.File(image, "w", libver="earliest") as file:
        write_contents(file, attributes, fields, columns)
    return image.getvalue()


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


def verify_final(path: Path | str, content: bool = True, sha256: str = "") -> Proof:
    """Returns what a final file says.

    Args:
        path: the file.
        content: False trusts the columns' bytes and reads attributes and `rounds` only. Else the file is read once, in
            full, into memory.
        sha256: hash that the file must have, which is compared before HDF5 looks at a byte; empty where none is known.

    Raises:
        FormatError: the file cannot be read, has another hash, or does not keep the contract or its own
            content_sha256.
    """
    if not content:
        with refuse_unreadable("final file"), h5py.File(path, "r") as file:
            return _proof_of(file, path)
    with refuse_unreadable("final file"):
        image = Path(path).read_bytes()
    digest = hashlib.sha256(image).hexdigest()
    if sha256 and digest != sha256:
        raise FormatError(f"{path} has sha256 {digest[:16]}..., not {sha256[:16]}... as it was written")
    with opened(image, "final file") as file:
        proof = _proof_of(file, path)
        _check_columns(read_columns(file, fields_of(file, final_fields(proof.is_judged))), proof)
    return proof._replace(sha256=digest)


def _proof_of(file: h5py.File, path: Path | str) -> Proof:
    """Returns what an open final file says of itself, its grasps unread."""
    header, ending = headers.read_header(file, str(path)), headers.read_ending(file, Ending)
    is_judged = "verdict" in file
    fields = fields_of(file, final_fields(is_judged))
    sizes = sizes_of({f.name: file[f.name] for f in fields}, fields)
    rounds = {f.name: file[f.name][...] for f in round_fields(is_judged)}
    _check_rounds(rounds, sizes, ending)
    return Proof(header, ending, sizes, rounds, headers.text(file.attrs["content_sha256"]), "")


def _check_rounds(rounds: Columns, sizes: Mapping[str, int], ending: Ending) -> None:
    """Raises FormatError unless the table of rounds has no gap and explains the file's rows."""
    kept, accepted = rounds["rounds/kept"], rounds["rounds/accepted"]
    has_no_gap = (rounds["rounds/round"] == np.arange(sizes["R"])).all()
    is_cut_before_its_last_round = (kept[:-1] != accepted[:-1]).any()
    if not has_no_gap or is_cut_before_its_last_round or (kept > accepted).any() or kept.sum() != sizes["N"]:
        raise FormatError(f"the table of rounds does not explain the {sizes['N']} rows")
    if ending.complete != (sizes["N"] == ending.quota):
        raise FormatError(f"complete={ending.complete} with {sizes['N']} rows and quota {ending.quota}")


def _check_columns(columns: Columns, proof: Proof) -> None:
    """Raises FormatError for grasps that cannot be, or that are not those that were hashed."""
    fields = fields_of(columns, final_fields(proof.is_judged))
    for f in fields:
        _check_finite(f, columns[f.name])
    _check_keys(columns["round"], columns["row"])
    if content_sha256(columns, fields) != proof.content_sha256:
        raise FormatError("content_sha256 is not that of the columns")


def _check_finite(f: Field, column: np.ndarray) -> None:
    """Raises FormatError for a number of a grasp that is not finite."""
    if f.shape[0] == "N" and column.dtype.kind == "f" and not np.isfinite(column).all():
        raise FormatError(f"{f.name} holds numbers that are not finite")


def _check_keys(rounds: np.ndarray, rows: np.ndarray) -> None:
    """Raises FormatError unless (round, row) rises strictly, and so stands once."""
    later_round, same_round = np.diff(rounds) > 0, np.diff(rounds) == 0
    if not (later_round | (same_round & (np.diff(rows) > 0))).all():
        raise FormatError("(round, row) is not unique and rising")


def shard_image(header: Header, columns: schema.Columns) -> bytes:
    """Returns the bytes of the shard that holds these columns, `SHARD_FIELDS`; equal input gives equal bytes."""
    return image_of(headers.header_attributes(header), schema.SHARD_FIELDS, columns)


def read_shard(image: bytes) -> tuple[Header, dict[str, np.ndarray]]:
    """Returns header and columns of a shard's bytes; raises FormatError where they break the contract."""
    with opened(image, "shard") as file:
        header = headers.read_header(file, "a shard")
        refuse_unknown(file, schema.SHARD_FIELDS)
        columns = read_columns(file, schema.SHARD_FIELDS)
    _check_shard(header, columns)
    return header, columns


def _check_shard(header: Header, columns: schema.Columns) -> None:
    """Raises FormatError unless the columns are those of one whole round of these hands."""
    sizes = schema.sizes_of(columns)
    if sizes["J"] != len(header.hand.joint_names):
        raise schema.FormatError(f"{sizes['J']} joints in a shard whose hands have {len(header.hand.joint_names)}")
    if sizes["R"] != 1 or columns["rounds/rows"][0] != sizes["N"]:
        raise schema.FormatError(f"a shard holds one round with all its rows, this one has {sizes}")
    same = [(columns[name] == columns[f"rounds/{name}"][0]).all() for name in ("seed", "round")]
    if not all(same) or (columns["row"] != np.arange(sizes["N"])).any():
        raise schema.FormatError("seed, round and row of the grasps are not those of the shard's round")


def verdict_image(about: Mapping[str, Any], columns: schema.Columns) -> bytes:
    """Returns the bytes of the file that holds these verdicts; equal input gives equal bytes.

    Args:
        about: attributes: what was judged, and how; values that are no text or number become JSON.
        columns: `VERDICT_FIELDS`.
    """
    plain = {name: value if isinstance(value, str | int | float) else as_json(value) for name, value in about.items()}
    return image_of({"format": VERDICT_FORMAT, "format_version": VERSION} | plain, schema.VERDICT_FIELDS, columns)


def read_verdict(image: bytes) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Returns attributes and columns of a verdict's bytes; raises FormatError where they break the contract."""
    with opened(image, "verdict") as file:
        attributes = dict(file.attrs)
        if (text(attributes["format"]), attributes["format_version"]) != (VERDICT_FORMAT, VERSION):
            raise schema.FormatError(f"not a {VERDICT_FORMAT} file of version {VERSION}")
        refuse_unknown(file, schema.VERDICT_FIELDS)
        return attributes, read_columns(file, fields_of(file, schema.VERDICT_FIELDS))


def rejects_image(header: Header, ending: RejectsEnding, columns: schema.Columns) -> bytes:
    """Returns the bytes of the file that holds rejected grasps; equal input gives equal bytes.

    Args:
        header: what the file says of itself.
        ending: what it says of its rows.
        columns: `reject_fields`.
    """
    fields = schema.reject_fields(ending.judging is not None)
    content = {"content_sha256": schema.content_sha256(columns, fields)}
    return image_of(headers.header_attributes(header) | headers.ending_attributes(ending) | content, fields, columns)


def read_rejects(image: bytes) -> tuple[Header, RejectsEnding, dict[str, np.ndarray]]:
    """Returns header, ending and columns of the bytes of a file of rejected grasps.

    Raises:
        FormatError: it does not keep the contract or its own content_sha256.
    """
    with opened(image, "file of rejected grasps") as file:
        header, ending = (
            headers.read_header(file, "a file of rejected grasps"),
            headers.read_ending(file, RejectsEnding),
        )
        fields = fields_of(file, schema.reject_fields(ending.judging is not None))
        refuse_unknown(file, fields)
        columns = read_columns(file, fields)
        if text(file.attrs["content_sha256"]) != schema.content_sha256(columns, fields):
            raise schema.FormatError("content_sha256 is not that of the columns")
    return header, ending, columns


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
