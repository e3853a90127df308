"""Writes grasps as files that need no HDF5: `.npz` with all columns, CSV and Parquet with the scalars."""

from __future__ import annotations

import csv
import io
import zipfile
from collections.abc import Iterator
from typing import BinaryIO

import numpy as np

from bimangrasp.files.dataset import GraspDataset
from bimangrasp.files.header import Header, as_json

ROWS_AT_ONCE = 100_000


def key_of(column: str) -> str:
    """Returns the name of a column in these files: `hand/joints` is `hand_joints`."""
    return column.replace("/", "_")


def write_npz(file: BinaryIO, grasps: GraspDataset, header: Header) -> None:
    """Writes all columns of the grasps of one object, and what they are of; equal grasps give equal bytes."""
    hand = header.hand
    about = {
        "object_code": np.array(header.object_code),
        "mesh_sha256": np.array(header.mesh_sha256),
        "hand_name": np.array(hand.name),
        "hand_sha256": np.array(hand.sha256),
        "joint_names": np.array(hand.joint_names),
        "candidate_link": hand.candidate_link,
        "candidate_position": hand.candidate_position,
    }
    if hand.couplings:
        about["couplings"] = np.array(as_json(hand.couplings))
    with zipfile.ZipFile(file, "w") as archive:
        for name, value in about.items():
            _add(archive, name, value)
        for name in grasps.columns:
            _add(archive, key_of(name), grasps.select(name).arrays()[name])


def _add(archive: zipfile.ZipFile, name: str, values: np.ndarray) -> None:
    """Adds an array; its date is that of all members, the first that a ZIP file can say."""
    with archive.open(zipfile.ZipInfo(f"{name}.npy"), "w", force_zip64=True) as member:
        np.lib.format.write_array(member, values, allow_pickle=False)


def scalars_of(grasps: GraspDataset) -> list[str]:
    """Returns the columns that have one number a grasp."""
    return [name for name, field in grasps.fields.items() if len(field.shape) == 1]


def write_csv(file: BinaryIO, grasps: GraspDataset) -> None:
    """Writes a line for each grasp: object code and scalars; a float32 in as few digits as tell it from others."""
    text = io.TextIOWrapper(file, encoding="utf-8", newline="")
    lines = csv.writer(text, lineterminator="\n")
    for number, block in enumerate(_blocks(grasps)):
        if not number:
            lines.writerow(block)
        columns = [values.tolist() if values.dtype.kind != "f" else map(str, values) for values in block.values()]
        lines.writerows(zip(*columns, strict=True))
    text.detach()


def write_parquet(file: BinaryIO, grasps: GraspDataset) -> None:
    """Writes the table of `write_csv` in Parquet, dtypes as in the grasp file, units in the metadata of the columns.

    Raises:
        InputError: pyarrow is not installed.
    """
    import pyarrow as arrow  # an extra
    from pyarrow import parquet

    units = {key_of(name): field.unit for name, field in grasps.fields.items()}
    writer = None
    for block in _blocks(grasps):
        table = arrow.table({name: arrow.array(values) for name, values in block.items()})
        fields = [field.with_metadata({"unit": units.get(field.name, "1")}) for field in table.schema]
        table = table.cast(arrow.schema(fields))
        writer = writer or parquet.ParquetWriter(file, table.schema)
        writer.write_table(table)
    writer.close()


def _blocks(grasps: GraspDataset) -> Iterator[dict[str, np.ndarray]]:
    """Yields object codes and scalars of some grasps at a time; once, without grasps, where there are none."""
    chosen, codes = grasps.select(*scalars_of(grasps)), np.array(grasps.codes)
    for first in range(0, max(1, len(chosen)), ROWS_AT_ONCE):
        block = chosen[first : first + ROWS_AT_ONCE].arrays()
        yield {"object_code": codes[block.pop("object")]} | {key_of(name): values for name, values in block.items()}
