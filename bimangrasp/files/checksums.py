"""Computes the hash of a file's columns, which does not depend on how HDF5 lays them out."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np

from bimangrasp.files.schema import Columns, Field, shape_of, sizes_of


def content_sha256(columns: Columns, fields: Sequence[Field]) -> str:
    """Returns the hash of names, dtypes, shapes and bytes of all columns, in the order of the fields."""
    sizes, whole = sizes_of(columns, fields), hashlib.sha256()
    for f in fields:
        column = np.ascontiguousarray(columns[f.name]).reshape(-1)
        digest = hashlib.sha256(column.view(np.uint8)).hexdigest()
        whole.update(f"{f.name} {f.dtype} {shape_of(f, sizes)} {digest}\n".encode())
    return whole.hexdigest()
