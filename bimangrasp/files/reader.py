"""Finds grasp files, lists the columns that they have for each grasp, and maps these into memory."""

from __future__ import annotations

import errno
import math
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import h5py
import numpy as np

from bimangrasp.errors import InputError, why_no_content
from bimangrasp.files.header import Header, read_header, text
from bimangrasp.files.schema import Field, FormatError

LINKS = "dataset.h5"
FOLDERS = ("final", "generate", "")
"""Where a run folder keeps grasp files, the first that has some; the empty name is the folder itself."""

NOT_ROWS = ("rounds", "curve")
"""Groups whose first axis is the round; that of every other dataset is the grasp."""

BROKEN = (OSError, LookupError, RuntimeError, ValueError, TypeError, AttributeError)
"""What h5py and NumPy raise on a file that is not whole, or of another kind."""

IN_WORDS = (
    (r"file signature not found", "it is no HDF5 file"),
    (r"object '(.+?)' doesn't exist", "it lacks {}"),
    (r"can't locate attribute: '(.+?)'", "it lacks the attribute {}"),
)
"""Errors of HDF5 -> what they mean."""


class HeldError(InputError):
    """A file that is open elsewhere for writing: it can be read later, and nothing is known to be wrong with it."""


class RowFile(NamedTuple):
    """One grasp file.

    Attributes:
        path: of it.
        size, mtime_ns: when it was looked at.
        rows: how many grasps it has.
        object_code, mesh_sha256: of its object.
        hand_name, hand_sha256, joint_names: of its hands.
        fields: its row columns, by name; `shape` is (N, ...) in numbers but for N. Files share equal ones.
        offsets: where each of them lies in the file.
        content_sha256: of its columns; empty where it does not say.
    """

    path: str
    size: int
    mtime_ns: int
    rows: int
    object_code: str
    mesh_sha256: str
    hand_name: str
    hand_sha256: str
    joint_names: tuple[str, ...]
    fields: tuple[Field, ...]
    offsets: tuple[int, ...]
    content_sha256: str

    def columns(self) -> dict[str, np.ndarray]:
        """Returns all row columns as read-only views of the mapped file; nothing is read yet.

        Raises:
            InputError: it is not there any more, or is another file now.
        """
        path = Path(self.path)
        state = path.stat() if path.is_file() else None
        if state is None or (state.st_size, state.st_mtime_ns) != (self.size, self.mtime_ns):
            raise InputError(f"{self.path} is {'gone' if state is None else 'another file'} since it was loaded")
        image = np.memmap(self.path, np.uint8, "r")
        return {
            f.name: np.frombuffer(image, f.dtype, self.rows * math.prod(f.shape[1:]), at).reshape(-1, *f.shape[1:])
            if self.rows
            else np.zeros((0, *f.shape[1:]), f.dtype)
            for f, at in zip(self.fields, self.offsets, strict=True)
        }


def find_files(path: Path | str) -> list[Path]:
    """Returns the grasp files that a path stands for: itself, those that it links to, or those of a run folder.

    Raises:
        InputError: there is none.
    """
    path = Path(path)
    if path.is_file():
        return _linked(path)
    if not path.is_dir():
        raise InputError(f"{path} is not there; wanted a grasp file (.h5), a {LINKS}, or a run's folder")
    for name in FOLDERS:
        files = sorted(file for file in (path / name).glob("*.h5") if not file.name.startswith("."))
        if files == [path / LINKS]:
            return _linked(path / LINKS)
        if files:
            return files
    raise InputError(f"{path} has no grasp files (.h5), nor have final/ and generate/ in it: is the run unfinished?")


@contextmanager
def opened(path: Path) -> Iterator[h5py.File]:
    """Yields a grasp file.

    Raises:
        HeldError: it is open elsewhere for writing.
        InputError: it cannot be read; it says why, as far as HDF5's error tells, and what to do.
    """
    try:
        with h5py.File(path, "r") as file:
            yield file
    except InputError:
        raise
    except BROKEN as error:
        if "unable to lock file" in str(error) and f"errno = {errno.EAGAIN}" in str(error):
            raise HeldError(
                f"{path} is open elsewhere for writing; wait until that is through, or close the program that holds it"
            ) from error
        raise InputError(_why_unreadable(path, error)) from error


def _why_unreadable(path: Path, error: Exception) -> str:
    """Returns what is the matter with a file, and what to do."""
    if not path.exists():
        return f"{path} is not there; wanted a grasp file (.h5)"
    if "truncated file" in str(error):
        return f"{path} is damaged: its end is missing; the command of its run mends it, or copy it again"
    if isinstance(error, PermissionError):
        return f"{path} may not be read by this user"
    if path.is_file() and (lacks := why_no_content(path)):
        return f"{path} {lacks}, or let the command of its run mend it; wanted a grasp file"
    is_released = path.suffix == ".npy"
    advice = "mode=import makes a grasp file of BimanGrasp's results" if is_released else "wanted one that is whole"
    return f"{path} is not a readable grasp file: {_in_words(error)}; {advice}"


def _in_words(error: Exception) -> str:
    """Returns an error of HDF5 in words where they are known, and as it is where not."""
    matches = ((re.search(pattern, str(error)), words) for pattern, words in IN_WORDS)
    return next((words.format(*match.groups()) for match, words in matches if match), str(error))


def _linked(path: Path) -> list[Path]:
    """Returns the files that a file of links names, or the file itself where it is none."""
    with opened(path) as file:
        links = [file.get(name, getlink=True) for name in file]
    if not links or not all(isinstance(link, h5py.ExternalLink) for link in links):
        return [path]
    files = [path.parent / link.filename for link in links]
    gone = [file for file in files if not file.is_file()]
    if gone:
        raise InputError(
            f"{path} has no grasps itself but links to final/*.h5 beside it, {len(files)} files, and {len(gone)} of "
            f"them are not there, the first {gone[0]}: move it together with final/, or name the run's folder"
        )
    return files


class RowFileReader:
    """Reads what grasp files hold, not their rows; equal columns of many files are described once."""

    def __init__(self) -> None:
        self._fields: dict[tuple[str, str, tuple[int, ...]], Field] = {}
        self._same: dict[tuple, tuple] = {}

    def read(self, path: Path) -> RowFile:
        """Returns what a grasp file holds.

        Raises:
            InputError: it is missing, no grasp file, or stored in a way that cannot be mapped.
        """
        with opened(path) as file:
            return self._row_file(file, path)

    def _row_file(self, file: h5py.File, path: Path) -> RowFile:
        header = read_header(file)
        rows = len(file["object_scale"])
        columns = sorted(self._columns(file, rows))
        state = path.stat()
        return RowFile(
            str(path),
            state.st_size,
            state.st_mtime_ns,
            rows,
            header.object_code,
            header.mesh_sha256,
            header.hand.name,
            header.hand.sha256,
            self._shared(header.hand.joint_names),
            self._shared(tuple(field for _, field, _ in columns)),
            self._shared(tuple(offset for _, _, offset in columns)),
            text(file.attrs.get("content_sha256", "")),
        )

    def _columns(self, file: h5py.File, rows: int) -> Iterator[tuple[str, Field, int]]:
        """Yields name, description and place of each dataset with a row for each grasp."""
        for name, dataset in _datasets(file.id):
            if dataset.shape[:1] != (rows,):
                continue
            offset = dataset.get_offset()
            if math.prod(dataset.shape) and offset is None:
                raise FormatError(f"{name} is not stored in one piece; `h5repack -l CONTI` makes a file where it is")
            yield name, self._field(name, dataset), offset or 0

    def _field(self, name: str, dataset: h5py.h5d.DatasetID) -> Field:
        key = (name, dataset.dtype.str, dataset.shape[1:])
        if key not in self._fields:
            attributes = h5py.Dataset(dataset).attrs
            texts = (text(attributes.get(attribute, "")) for attribute in ("unit", "frame", "description"))
            self._fields[key] = Field(name, key[1], ("N", *key[2]), *texts)
        return self._fields[key]

    def _shared(self, value: tuple) -> tuple:
        """Returns the first tuple that was equal to this one, so that it is kept and pickled once."""
        return self._same.setdefault(value, value)


def _datasets(group: h5py.h5g.GroupID, prefix: str = "") -> Iterator[tuple[str, h5py.h5d.DatasetID]]:
    """Yields the datasets that may have rows. By HDF5's own calls: h5py's objects take three times as long."""
    for name in list(group):
        if not prefix and name.decode() in NOT_ROWS:
            continue
        item = h5py.h5o.open(group, name)
        if isinstance(item, h5py.h5d.DatasetID):
            yield prefix + name.decode(), item
        elif isinstance(item, h5py.h5g.GroupID):
            yield from _datasets(item, f"{prefix}{name.decode()}/")


def common_fields(files: Sequence[RowFile]) -> dict[str, Field]:
    """Returns the row columns that all of the files have, in one dtype and shape."""
    common = dict.fromkeys(files[0].fields)
    for fields in {id(file.fields): file.fields for file in files}.values():
        common = {field: None for field in common if field in fields}
    return {field.name: field for field in common}


def header_of(path: Path | str) -> Header:
    """Returns what a grasp file says of itself.

    Raises:
        InputError: it cannot be read.
    """
    with opened(Path(path)) as file:
        return read_header(file)
