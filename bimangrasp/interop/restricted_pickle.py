"""Reads `.npy` files that are pickles, such as BimanGrasp's, without running what a pickle may hold."""

from __future__ import annotations

import io
import pickle
import re
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from bimangrasp.errors import InputError, why_no_content

_BROKEN = (pickle.UnpicklingError, EOFError, ValueError, TypeError, AttributeError, LookupError, MemoryError)
"""What the unpickler raises on bytes that are no pickle."""


def load_object_array(path: str) -> list[Any]:
    """Returns the entries of a one-dimensional object array that `np.save` wrote, made of plain Python values.

    A pickle is a program that calls whatever it names. Here it may name NumPy's constructors of arrays, types and
    numbers alone, and gets stand-ins for them, which hold what they are given: NumPy's own decoding of pickled state
    trusts that state, and takes bytes for the addresses of objects where it says so. `as_number` makes what stands for
    a number one.

    Raises:
        InputError: it is missing, is no such file, or names anything else.
    """
    if not Path(path).is_file():
        raise InputError(f"result file {path} is not there")
    if lacks := why_no_content(Path(path)):
        raise InputError(f"result file {path} {lacks}")
    try:
        with Path(path).open("rb") as file:
            return _entries(file, path)
    except InputError:
        raise
    except (*_BROKEN, OverflowError, RecursionError) as error:
        raise InputError(
            f"result file {path} cannot be read: {error or type(error).__name__}; wanted the .npy file of a list of "
            "dicts, as BimanGrasp writes it: is it cut off?"
        ) from error


def object_image(content: np.ndarray) -> bytes:
    """Returns the bytes of the `.npy` file of an object array.

    They name NumPy's modules as NumPy 1 did, which 2 reads as well.
    """
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(file, {"descr": "|O", "fortran_order": False, "shape": content.shape})
    file.write(pickle.dumps(content, protocol=3).replace(b"cnumpy._core.", b"cnumpy.core.", 1))  # text up to protocol 3
    return file.getvalue()


def as_number(value: Any) -> float | None:
    """Returns the number that a loaded value stands for, also as an array of one entry, or None if it is none."""
    if isinstance(value, _Array):
        value = value.content.item() if isinstance(value.content, np.ndarray) and value.content.size == 1 else None
    if isinstance(value, int):
        return float(value) if abs(value) < 2**1000 else None  # longer ones are no float
    return float(value) if isinstance(value, float | np.integer | np.floating) else None


def _entries(file: BinaryIO, path: str) -> list[Any]:
    """Returns the entries of an open file: a header of NumPy, then a pickled array of its shape."""
    version = np.lib.format.read_magic(file)
    read_header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, dtype = read_header(file)
    if shape == (0,):  # np.save makes an empty list an array of no numbers
        return []
    if dtype != np.dtype(object) or len(shape) != 1:
        raise InputError(
            f"result file {path} holds an array of {dtype} of shape {shape}; wanted a list of dicts, as BimanGrasp "
            "writes it"
        )
    content = _Unpickler(file, path).load()
    entries = content.content if isinstance(content, _Array) else None
    if not isinstance(entries, list) or len(entries) != shape[0]:
        raise ValueError(f"its header says {shape[0]} entries, its pickle holds something else")
    return entries


class _Unpickler(pickle.Unpickler):
    """An unpickler that knows the stand-ins below and nothing else."""

    def __init__(self, file: BinaryIO, path: str):
        super().__init__(file)
        self._path = path

    def find_class(self, module: str, name: str) -> Any:
        """Returns the stand-in of a name that the pickle asks for; called by the base class for every one."""
        plain = re.sub(r"^numpy\.(_core|core)\.", "numpy.core.", module)
        if (plain, name) not in _STAND_INS:
            raise InputError(
                f"result file {self._path} asks for {module}.{name}, which reading numbers does not need, so it was "
                "not run; such a file may be harmful: ask whoever made it"
            )
        return _STAND_INS[plain, name]


class _Dtype:
    """Stands for a type of numbers, or for `O`, whose arrays hold objects."""

    def __init__(self, code: Any, *_: Any):
        if not isinstance(code, str) or not re.fullmatch(r"[biuf]\d|O8?", code):
            raise pickle.UnpicklingError(f"it has values of type {str(code)[:40]!r}, which are no numbers")
        self.code, self.order = code, "="

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, order, *fields = state
        if order not in ("<", ">", "=", "|") or any(field is not None for field in fields[:3]):
            raise pickle.UnpicklingError("it has a type of numbers with fields, which are no numbers")
        self.order = order

    def numbers(self, data: Any) -> np.ndarray:
        """Returns the numbers that these bytes are; NumPy refuses to make objects of them."""
        return np.frombuffer(data, np.dtype(self.code).newbyteorder(self.order))


class _Array:
    """Stands for an array: a list of objects or an array of numbers, once its state is set."""

    def __init__(self, *_: Any) -> None:
        self.content: list[Any] | np.ndarray = []

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, _, dtype, _, data = state
        self.content = data if dtype.code.startswith("O") else dtype.numbers(data)


class _Number(_Dtype):
    """Stands for NumPy's constructor of a number; a class, since a pickle may change a function."""

    def __new__(cls, dtype: Any, data: Any) -> Any:
        """Returns the one number."""
        (number,) = dtype.numbers(data)
        return number


_STAND_INS = {
    ("numpy.core.multiarray", "_reconstruct"): _Array,
    ("numpy.core.multiarray", "scalar"): _Number,
    ("numpy", "ndarray"): None,  # NumPy names it and does not call it
    ("numpy", "dtype"): _Dtype,
}
