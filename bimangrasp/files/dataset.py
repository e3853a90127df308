"""Loads grasps of one or many files as a data set of PyTorch: lazy, sliceable, filterable, read when asked for."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, SupportsIndex

import numpy as np
import torch

from bimangrasp.errors import InputError
from bimangrasp.files.header import Header
from bimangrasp.files.reader import RowFile, RowFileReader, common_fields, find_files, header_of
from bimangrasp.files.schema import Field

if TYPE_CHECKING:
    import mujoco

    from bimangrasp.files.scene_export import GraspMeshes
    from bimangrasp.hands.description import HandDescription

OBJECT = "object"
"""The column that no file has: which of `codes` a grasp is of."""

MAX_MAPPED = 256
"""Files that are mapped at a time: each takes one of the 1024 descriptors that a process usually has."""

BLOCK = 65536
"""Rows that a filter looks at at a time."""

Rows = range | np.ndarray
Hands = tuple["HandDescription", "HandDescription"]


def load(path: Path | str | Sequence[Path | str], tensors: bool = False) -> GraspDataset:
    """Returns the grasps of a grasp file (final, shard or generated), of a `dataset.h5`, or of a run's folder.

    Only what the files say of themselves is read; rows are when they are asked for.

    Args:
        path: one of these, or a list of them: their grasps behind each other.
        tensors: whether rows and columns are tensors instead of NumPy arrays.

    Raises:
        InputError: nothing is there, a file cannot be read, two have the same grasps, or files are of different hands.
    """
    paths = [path] if isinstance(path, Path | str) else list(path)
    reader = RowFileReader()
    given = [(path, reader.read(file)) for path in paths for file in find_files(path)]
    files = [file for _, file in given]
    if not files:
        raise InputError("an empty list of paths was given; wanted at least one grasp file")
    for file in files:
        if (file.hand_sha256, file.joint_names) != (files[0].hand_sha256, files[0].joint_names):
            raise InputError(
                f"{files[0].path} has grasps of the hands {files[0].hand_name!r} ({files[0].hand_sha256[:16]}...), "
                f"{file.path} of {file.hand_name!r} ({file.hand_sha256[:16]}...); load them one by one"
            )
    _refuse_twice(given)
    rows = range(sum(file.rows for file in files))
    return GraspDataset(_Store(files), rows, tuple(common_fields(files)), tensors)


def _refuse_twice(given: Sequence[tuple[Path | str, RowFile]]) -> None:
    """Refuses a list by which grasps would be there twice, such as a final file and its run's folder.

    Args:
        given: each file, with the path of the caller's that stands for it.
    """
    known: dict[str, tuple[Path | str, RowFile]] = {}
    for path, file in given:
        if not file.rows or not file.content_sha256:
            continue
        first_path, first = known.setdefault(file.content_sha256, (path, file))
        if first is not file:
            fault = _twice(first_path, first, path, file)
            raise InputError(f"{fault}; wanted each grasp once: name a file, or its folder, once")


def _twice(first_path: Path | str, first: RowFile, path: Path | str, file: RowFile) -> str:
    """Returns which two paths of the caller's stand for the same grasps."""
    if Path(first.path).resolve() != Path(file.path).resolve():
        return f"{_named(path, file)} has the same grasps as {_named(first_path, first)}"
    if Path(first_path) == Path(path):
        return f"{path} is given twice"
    return f"{path} has the same grasps as {first_path}"


def _named(path: Path | str, file: RowFile) -> str:
    """Returns a file with the path that was given for it."""
    return file.path if Path(path) == Path(file.path) else f"{file.path} (of {path})"


class GraspDataset(torch.utils.data.Dataset):
    """N grasps, or a choice of them and of their columns. Immutable; every choice is another view of the same files.

    `data[3]` is one grasp, column name -> array; `data[2:9]`, `data[[4, 1]]` and `data[mask]` are views; and
    `data["energy/total"]` is a column. `joint_names`, `couplings`, `fields` and `codes` say what the
    numbers are.
    It may be pickled and used by workers of a DataLoader, forked or spawned, since it holds no open file.
    """

    def __init__(self, store: _Store, rows: Rows, columns: tuple[str, ...], tensors: bool):
        """Takes a choice of rows and columns of the files; `load` opens them."""
        self._store, self._rows, self._columns, self._tensors = store, rows, columns, tensors

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the columns that a grasp has here, but for `object`, which it always has."""
        return self._columns

    @property
    def fields(self) -> dict[str, Field]:
        """What each column is: dtype, shape, unit, frame and a line of text."""
        return {name: self._store.fields[name] for name in self._columns}

    @property
    def joint_names(self) -> tuple[str, ...]:
        """Names of the joint axis, for both hands."""
        return self._store.files[0].joint_names

    @cached_property
    def couplings(self) -> dict[str, dict[str, Any]]:
        """Joint or tendon -> which joint it follows, with the polynomial, or which joints share it; empty for none."""
        return header_of(self._store.files[0].path).hand.couplings

    @property
    def hand_name(self) -> str:
        """Name of the pair of hands."""
        return self._store.files[0].hand_name

    @property
    def codes(self) -> tuple[str, ...]:
        """The objects, by the column `object`; all of the files', whatever grasps are chosen."""
        return self._store.codes

    def __len__(self) -> int:
        return len(self._rows)

    def __repr__(self) -> str:
        return f"<{len(self)} grasps of {len(self.codes)} objects, hands {self.hand_name!r}: {', '.join(self.columns)}>"

    def __getitem__(self, key: Any) -> Any:
        """Returns one grasp, a view, or a column: see the class.

        Raises:
            InputError: a column that is not there, or a mask of another length.
            IndexError: a row that is not there.
        """
        if isinstance(key, str):
            return self._converted(self._store.gather(self._rows, [self._checked_name(key)]))[key]
        if isinstance(key, slice):
            return self._view(rows=self._rows[key])
        if np.ndim(key):
            return self._view(rows=self._chosen(key))
        return self._converted(self._store.row(self._number(key), self._columns))

    def __getitems__(self, rows: Sequence[int]) -> Batch:
        """Returns these grasps, read at once; PyTorch's DataLoader calls it for a batch."""
        return Batch(self._converted(self._store.gather(self._chosen(rows), self._columns)))

    @staticmethod
    def collate(batch: Batch) -> dict[str, torch.Tensor]:
        """Returns a batch as tensors, column name -> (B, ...): for DataLoader(collate_fn=), faster than its own."""
        return {name: torch.as_tensor(column) for name, column in batch.columns.items()}

    def select(self, *columns: str) -> GraspDataset:
        """Returns the same grasps with these columns only.

        Raises:
            InputError: a column that is not there.
        """
        return self._view(columns=tuple(self._checked_name(name) for name in columns if name != OBJECT))

    def of(self, *codes: str) -> GraspDataset:
        """Returns the grasps of these objects.

        Raises:
            InputError: an object that is not there.
        """
        unknown = [code for code in codes if code not in self.codes]
        if unknown:
            raise InputError(f"there are no grasps of {', '.join(unknown)}; the objects are {_listed(self.codes)}")
        wanted = [self.codes.index(code) for code in codes]
        return self.where(lambda grasps: np.isin(grasps[OBJECT], wanted))

    def where(self, condition: Callable[[Mapping[str, Any]], Any]) -> GraspDataset:
        """Returns the grasps for which a condition holds.

        Args:
            condition: takes a mapping from column name to the values of many grasps, of which it reads what it asks
                for, and returns one truth value a grasp: `lambda g: g["energy/penetration"] < 1e-3`.

        Raises:
            InputError: it returns something else, or asks for a column that is not there.
        """
        rows = np.asarray(self._rows)
        return self._view(rows=rows[np.concatenate([np.zeros(0, bool), *self._masks(condition)])])

    def arrays(self) -> dict[str, np.ndarray]:
        """Returns all columns of all grasps here as NumPy arrays, in memory."""
        return self._store.gather(self._rows, self._columns)

    def tensors(self) -> dict[str, torch.Tensor]:
        """Returns all columns of all grasps here as tensors, in memory."""
        return {name: torch.as_tensor(column) for name, column in self.arrays().items()}

    def code(self, row: SupportsIndex) -> str:
        """Returns the object of a grasp."""
        return self._file(row).object_code

    def header(self, row: SupportsIndex) -> Header:
        """Returns what the file of a grasp says of hands, settings and platforms."""
        return header_of(self._file(row).path)

    def meshes(self, row: SupportsIndex, hands: Hands, object_root: Path | str = "") -> GraspMeshes:
        """Returns both hands and the object of a grasp as triangle meshes of trimesh, in the object's frame, m.

        Args:
            row: the grasp.
            hands: the pair of the files, from `bimangrasp.hand_files.loading.load_hands`.
            object_root: folder of the meshes, as in a run; empty for the built-in objects.

        Raises:
            InputError: other hands or another mesh than those of the file.
        """
        from bimangrasp.files import scene_export

        return scene_export.grasp_meshes(self._placed(row, hands, object_root))

    def scene(self, row: SupportsIndex, hands: Hands, object_root: Path | str = "") -> mujoco.MjSpec:
        """Returns a grasp as an MJCF scene; compiled, its keyframe `grasp` has the joint values.

        Arguments and errors are those of `meshes`.
        """
        from bimangrasp.files import scene_export

        return scene_export.grasp_scene(self._placed(row, hands, object_root))

    def _placed(self, row: SupportsIndex, hands: Hands, object_root: Path | str) -> Any:
        from bimangrasp.files import scene_export  # MuJoCo and trimesh, which workers of a DataLoader do without

        grasp = self._store.row(self._number(row), scene_export.COLUMNS)
        return scene_export.placed(self._file(row), grasp, hands, object_root)

    def _file(self, row: SupportsIndex) -> RowFile:
        return self._store.files[self._store.place(self._number(row))[0]]

    def _view(self, rows: Rows | None = None, columns: tuple[str, ...] | None = None) -> GraspDataset:
        chosen = self._rows if rows is None else rows
        return GraspDataset(self._store, chosen, self._columns if columns is None else columns, self._tensors)

    def _converted(self, values: dict[str, Any]) -> dict[str, Any]:
        return {name: torch.as_tensor(value) for name, value in values.items()} if self._tensors else values

    def _number(self, key: Any) -> int:
        """Returns the row of the files that a row of this view is."""
        number = operator.index(key)
        if not -len(self) <= number < len(self):
            raise IndexError(f"row {number} of {len(self)} grasps")
        return int(self._rows[number])

    def _chosen(self, key: Any) -> np.ndarray:
        """Returns the rows of the files that a mask or row numbers of this view stand for."""
        chosen = np.asarray(key)
        if chosen.dtype == bool:
            if chosen.shape != (len(self),):
                raise InputError(f"a mask of shape {chosen.shape} for {len(self)} grasps; wanted one value for each")
            chosen = np.flatnonzero(chosen)
        if chosen.ndim != 1 or (chosen.size and chosen.dtype.kind not in "iu"):
            raise InputError(
                f"rows of {chosen.dtype} and shape {chosen.shape}; wanted a list of row numbers, or a mask"
            )
        chosen = chosen.astype(np.int64)
        outside = chosen[(chosen < -len(self)) | (chosen >= len(self))]
        if outside.size:
            raise IndexError(f"row {outside[0]} of {len(self)} grasps")
        chosen = np.where(chosen < 0, chosen + len(self), chosen)
        if isinstance(self._rows, range):
            return self._rows.start + self._rows.step * chosen  # without making all of the range
        return self._rows[chosen]

    def _checked_name(self, name: str) -> str:
        """Returns the name of a column that is there."""
        if name != OBJECT and name not in self._store.fields:
            count = sum(name in {field.name for field in file.fields} for file in self._store.files)
            hint = f"; {count} of {len(self._store.files)} files have it: load these alone" if count else ""
            raise InputError(f"there is no column {name!r}{hint}; there are {', '.join(self._store.fields)}")
        return name

    def _masks(self, condition: Callable[[Mapping[str, Any]], Any]) -> Iterator[np.ndarray]:
        for first in range(0, len(self), BLOCK):
            block = self[first : first + BLOCK]
            mask = np.asarray(condition(_Columns(block)))
            if mask.dtype != bool or mask.shape != (len(block),):
                raise InputError(
                    f"the condition returned {mask.dtype} of shape {mask.shape} for {len(block)} grasps; wanted a "
                    "truth value for each"
                )
            yield mask


class Batch(Sequence):
    """Some grasps, read at once. Attribute `columns`: column name -> values."""

    def __init__(self, columns: dict[str, Any]):
        self.columns = columns

    @cached_property
    def _grasps(self) -> list[dict[str, Any]]:
        names = list(self.columns)
        return [dict(zip(names, values, strict=True)) for values in zip(*self.columns.values(), strict=True)]

    def __len__(self) -> int:
        return len(self.columns[OBJECT])

    def __getitem__(self, key: Any) -> Any:
        return self._grasps[key]


class _Columns(Mapping):
    """The columns of a view, each read when it is asked for."""

    def __init__(self, grasps: GraspDataset):
        self._grasps = grasps

    def __getitem__(self, name: str) -> Any:
        return self._grasps[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._grasps.columns)

    def __len__(self) -> int:
        return len(self._grasps.columns)


class _Store:
    """The files and their rows, numbered through. What is mapped stays in this process."""

    def __init__(self, files: list[RowFile]):
        self.files, self.fields = files, common_fields(files)
        self.codes = tuple(dict.fromkeys(file.object_code for file in files))
        numbers = {code: number for number, code in enumerate(self.codes)}
        self._object = np.array([numbers[file.object_code] for file in files], np.int64)
        self._starts = np.cumsum([0, *(file.rows for file in files)])
        self._open: dict[int, dict[str, np.ndarray]] = {}

    def __getstate__(self) -> dict[str, Any]:
        return vars(self) | {"_open": {}}

    def place(self, row: int) -> tuple[int, int]:
        """Returns file and row in it."""
        number = int(np.searchsorted(self._starts, row, "right")) - 1
        return number, row - int(self._starts[number])

    def row(self, row: int, names: Sequence[str]) -> dict[str, Any]:
        """Returns one grasp."""
        number, row = self.place(row)
        columns = self._mapped(number)
        return {name: columns[name][row].copy() for name in names} | {OBJECT: self._object[number]}

    def gather(self, rows: Rows, names: Sequence[str]) -> dict[str, np.ndarray]:
        """Returns columns of these rows, copied into memory, and `object`."""
        fields = {name: self.fields[name] for name in names if name != OBJECT}
        gathered = {name: np.empty((len(rows), *f.shape[1:]), f.dtype) for name, f in fields.items()}
        gathered[OBJECT] = np.empty(len(rows), np.int64)
        for number, target, source in self._parts(rows):
            columns = self._mapped(number) if fields else {}
            for name in fields:
                gathered[name][target] = columns[name][source]
            gathered[OBJECT][target] = self._object[number]
        return gathered

    def _parts(self, rows: Rows) -> Iterator[tuple[int, Any, Any]]:
        """Yields for each file that has some of the rows its number, where they go, and which of its rows they are."""
        if isinstance(rows, range) and rows.step == 1:
            yield from self._stretches(rows)
            return
        rows = np.asarray(rows)
        numbers = np.searchsorted(self._starts, rows, "right") - 1
        order = np.argsort(numbers, kind="stable")
        bounds = np.flatnonzero(np.diff(numbers[order], prepend=-1, append=-1))
        for first, end in zip(bounds[:-1], bounds[1:], strict=True):
            target = order[first:end]
            number = int(numbers[target[0]])
            yield number, target, rows[target] - self._starts[number]

    def _stretches(self, rows: range) -> Iterator[tuple[int, slice, slice]]:
        number = self.place(rows.start)[0]
        at = rows.start
        while at < rows.stop:
            start, end = self._starts[number], min(self._starts[number + 1], rows.stop)
            if end > at:
                yield number, slice(at - rows.start, end - rows.start), slice(at - start, end - start)
            at, number = max(at, end), number + 1

    def _mapped(self, number: int) -> dict[str, np.ndarray]:
        """Returns the mapped columns of a file; the one that was mapped first makes room."""
        columns = self._open.get(number)
        if columns is None:
            if len(self._open) >= MAX_MAPPED:
                self._open.pop(next(iter(list(self._open))), None)
            columns = self._open[number] = self.files[number].columns()
        return columns


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:20]) + (f" and {len(names) - 20} more" if len(names) > 20 else "")
