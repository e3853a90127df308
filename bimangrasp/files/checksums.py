"""Hashes of columns that are fed in blocks: what a file says of its content, and what a disk changed."""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Mapping, Sequence

import numpy as np

from bimangrasp.files.schema import FINAL_FIELDS, Columns, Field, shape_of, sizes_of


class Content:
    """The running `content_sha256`: a hash per column, fed in row order, joined with names and shapes."""

    def __init__(self, fields: Sequence[Field] = FINAL_FIELDS) -> None:
        self._fields = fields
        self._digests = {f.name: hashlib.sha256() for f in self._fields}

    def update(self, name: str, block: np.ndarray) -> None:
        """Adds the next rows of a column."""
        self._digests[name].update(bytes_of(block))

    def hexdigest(self, sizes: Mapping[str, int]) -> str:
        """Returns the hash of names, dtypes, shapes and bytes of all columns."""
        whole = hashlib.sha256()
        for f in self._fields:
            whole.update(f"{f.name} {f.dtype} {shape_of(f, sizes)} {self._digests[f.name].hexdigest()}\n".encode())
        return whole.hexdigest()


def content_sha256(columns: Columns, fields: Sequence[Field]) -> str:
    """Returns the hash of whole columns, as `Content` does."""
    content = Content(fields)
    for f in fields:
        content.update(f.name, columns[f.name])
    return content.hexdigest(sizes_of(columns, fields))


class Checksums:
    """The running CRC-32 of each column: enough to find what a disk changed, at an eighth of a SHA-256's cost."""

    def __init__(self, fields: Sequence[Field] = FINAL_FIELDS) -> None:
        self.by_name = {f.name: 0 for f in fields}

    def update(self, name: str, block: np.ndarray) -> None:
        """Adds the next rows of a column."""
        self.by_name[name] = zlib.crc32(bytes_of(block), self.by_name[name])


def bytes_of(block: np.ndarray) -> memoryview:
    """Returns the bytes of rows."""
    return np.ascontiguousarray(block).reshape(-1).view(np.uint8).data
