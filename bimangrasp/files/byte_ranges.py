"""Where the columns of a grasp file lie among its bytes, and what lies between them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import h5py
import numpy as np

from bimangrasp.files.schema import Field, FormatError


class Piece(NamedTuple):
    """A stretch of a grasp file: a column, or what lies between two of them.

    Attributes:
        first, end: its bytes; both 0 for a column without rows.
        field: of the column; None between two.
        dtype, shape: of the column, as the file has them.
    """

    first: int
    end: int
    field: Field | None = None
    dtype: np.dtype | None = None
    shape: tuple[int, ...] = ()

    @property
    def name(self) -> str:
        """Of the column; empty between two."""
        return self.field.name if self.field else ""

    def column(self, image: bytes) -> np.ndarray:
        """Returns the column as a view of the file's bytes."""
        return np.frombuffer(image, self.dtype, math.prod(self.shape), self.first).reshape(self.shape)


def column_pieces(file: h5py.h5f.FileID, fields: Sequence[Field]) -> list[Piece]:
    """Returns the columns in the order of their bytes; raises FormatError for one that is not stored in one piece."""
    found = []
    for f in fields:
        dataset = h5py.h5d.open(file, f.name.encode())
        shape, dtype, first = dataset.shape, dataset.dtype, dataset.get_offset()
        size = math.prod(shape) * dtype.itemsize
        if size and first is None:
            raise FormatError(f"{f.name} is not stored in one piece")
        first = first if size else 0
        found.append(Piece(first, first + size, f, dtype, shape))
    return sorted(found, key=lambda piece: piece[:2])


def with_gaps(columns: Sequence[Piece], length: int) -> Iterator[Piece]:
    """Yields the columns and what lies between them; raises FormatError where they overlap or the file ends."""
    at = 0
    for piece in columns:
        if piece.first < at:
            raise FormatError(f"{piece.name} lies over another column")
        yield Piece(at, piece.first)
        yield piece
        at = piece.end
    if at > length:
        raise FormatError(f"the file ends after {length} bytes, its columns after {at}")
    yield Piece(at, length)
