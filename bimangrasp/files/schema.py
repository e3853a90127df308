"""Declares the fields of a grasp file: names, dtypes, shapes, units, frames; checks and hashes columns by them."""

from __future__ import annotations

import hashlib
from collections.abc import Container, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from bimangrasp.energy_terms import ENERGY_TERMS, TOTAL

Columns = Mapping[str, np.ndarray]


class FormatError(ValueError):
    """A file or a set of columns that does not keep the contract."""


class Field(NamedTuple):
    """One dataset. `shape` begins with N (grasps) or R (rounds); J joints, C contacts, P curve points, L links."""

    name: str
    dtype: str
    shape: tuple[str | int, ...]
    unit: str
    frame: str
    text: str


def _pose(group: str, when: str) -> list[Field]:
    return [
        Field(f"{group}/translation", "<f4", ("N", 2, 3), "m", "object", f"origin of each hand's root, {when}"),
        Field(f"{group}/rotation", "<f4", ("N", 2, 3, 3), "1", "object", f"hand frame to object frame, {when}"),
        Field(f"{group}/joints", "<f4", ("N", 2, "J"), "rad", "hand", f"joint values by joint_names, {when}"),
    ]


_GRASP = [
    *_pose("hand", "of the grasp"),
    *_pose("initial", "at the start"),
    Field("contact/candidate", "<i4", ("N", 2, "C"), "1", "hand", "chosen contacts, rows of candidate_position"),
    Field("contact/point", "<f4", ("N", 2, "C", 3), "m", "object", "the chosen contacts on the hand"),
    Field(
        "contact/normal",
        "<f4",
        ("N", 2, "C", 3),
        "1",
        "object",
        "the object's outward normal at the contacts",
    ),
    Field("object_scale", "<f4", ("N",), "1", "object", "factor on the object's mesh"),
    *(Field(f"energy/{t.name}", "<f4", ("N",), t.unit, "none", f"{t.name}, unweighted") for t in ENERGY_TERMS),
    Field("energy/total", "<f4", ("N",), TOTAL.unit, "none", "weighted sum of the terms"),
    Field("seed", "<i8", ("N",), "1", "none", "seed of the grasp's round"),
    Field("round", "<i8", ("N",), "1", "none", "round that made the grasp"),
    Field("row", "<i8", ("N",), "1", "none", "row of the grasp in its round"),
]
_ROUND = [
    Field("rounds/round", "<i8", ("R",), "1", "none", "round id"),
    Field("rounds/seed", "<i8", ("R",), "1", "none", "seed"),
    Field("rounds/state", "<i4", ("R",), "1", "none", "0 done, 1 skipped"),
    Field("rounds/rows", "<i8", ("R",), "1", "none", "grasps that the round made"),
    Field("rounds/tile_used", "<i4", ("R",), "1", "none", "grasps evaluated at once, 0 in a skipped round"),
    Field("rounds/platform", "<i4", ("R",), "1", "none", "index into the attribute platforms, -1 if skipped"),
]
_FINAL_ROUND = [
    Field("rounds/accepted", "<i8", ("R",), "1", "none", "grasps that pass the filter"),
    Field("rounds/kept", "<i8", ("R",), "1", "none", "grasps in this file"),
    Field("rounds/shard_sha256", "|S64", ("R",), "1", "none", "hash of the round's sealed shard, hexadecimal"),
]
_CURVE = [
    Field("curve/step", "<i8", ("R", "P"), "1", "none", "steps taken at each point of the curve"),
    Field("curve/acceptance", "<f4", ("R", "P"), "1", "none", "share of proposals accepted since the point before"),
    *(
        Field(f"curve/{t.name}", "<f4", ("R", "P", 3), t.unit, "none", f"quartiles of {t.name} over the round")
        for t in (*ENERGY_TERMS, TOTAL)
    ),
]
_VERDICT = [
    Field("pose/translation", "<f4", ("N", 3, 2, 3), "m", "object", "origin of each hand's root at each stage"),
    Field("pose/rotation", "<f4", ("N", 3, 2, 3, 3), "1", "object", "hand frame to object frame at each stage"),
    Field("pose/joints", "<f4", ("N", 3, 2, "J"), "rad", "hand", "joint values by joint_names at each stage"),
    Field("pose/opening", "<i4", ("N",), "1", "none", "which of poses.openings the pre-grasp has, -1 without a choice"),
    Field("verdict/residual", "<f4", ("N",), "1", "none", "wrench that balanced forces leave, -1 if none were sought"),
    Field("verdict/reason", "<i4", ("N",), "1", "none", "0 holds, else why not: index into judging's reasons"),
    Field("verdict/start_penetration", "<f4", ("N", 3), "m", "none", "hand-object, hand-hand, self, at the start"),
    Field("verdict/penetration", "<f4", ("N", 3), "m", "none", "the same at the grasp"),
    Field("verdict/link_distance", "<f4", ("N", 2, "L"), "m", "none", "links to the object at the grasp, 0.02 if far"),
    Field("verdict/displacement", "<f4", ("N", 6), "m", "object", "of the object when the push ended"),
    Field("verdict/rotation", "<f4", ("N", 6), "rad", "object", "of the object when the push ended"),
    Field("verdict/held", "|u1", ("N", 6), "1", "none", "whether the grasp withstood the push"),
    Field("verdict/bears_load", "|u1", ("N", 2), "1", "none", "whether the hand pressed on the object to the end"),
]
_JUDGED_ROUND = [
    Field("rounds/verdict_sha256", "|S64", ("R",), "1", "none", "hash of the round's sealed verdict, hexadecimal"),
]
_REJECT = Field("reject/reason", "<i4", ("N",), "1", "none", "why it does not count: index into reject_reasons")
_REJECT_ROUND = [
    Field("rounds/kept", "<i8", ("R",), "1", "none", "grasps in the final file when this was written"),
    Field("rounds/rejected", "<i8", ("R",), "1", "none", "grasps in this file"),
    Field("rounds/shard_sha256", "|S64", ("R",), "1", "none", "hash of the round's sealed shard, hexadecimal"),
]
SHARD_FIELDS = tuple(_GRASP + _ROUND + _CURVE)
GRASP_FIELDS, CURVE_FIELDS = tuple(_GRASP), tuple(_CURVE)
VERDICT_FIELDS = tuple(_VERDICT)
"""What a simulator says of grasps: three stages, six pushes. In verdict files, and in final files of filter=physics."""

LATER = ("pose/opening", "verdict/residual")
"""Columns that files of earlier versions lack, which are read without them."""


def fields_of(names: Container[str], fields: Sequence[Field]) -> tuple[Field, ...]:
    """Returns the fields that a file of these datasets must have: all but those of `LATER` that it lacks."""
    return tuple(f for f in fields if f.name in names or f.name not in LATER)


def row_fields(is_judged: bool) -> tuple[Field, ...]:
    """Returns the fields of a final file that have a row for each grasp."""
    return tuple(_GRASP + _VERDICT * is_judged)


def round_fields(is_judged: bool) -> tuple[Field, ...]:
    """Returns the fields of a final file's table of rounds."""
    return tuple(_ROUND + _FINAL_ROUND + _JUDGED_ROUND * is_judged)


def final_fields(is_judged: bool) -> tuple[Field, ...]:
    """Returns all fields of a final file; `is_judged` where a simulator's verdict stands beside each grasp."""
    return (*row_fields(is_judged), *round_fields(is_judged), *_CURVE)


def reject_fields(is_judged: bool) -> tuple[Field, ...]:
    """Returns all fields of a file of grasps that do not count."""
    return (*row_fields(is_judged), _REJECT, *_ROUND, *_REJECT_ROUND, *_JUDGED_ROUND * is_judged)


FINAL_FIELDS = final_fields(is_judged=False)


def sizes_of(columns: Mapping[str, Any], fields: Sequence[Field] = SHARD_FIELDS) -> dict[str, int]:
    """Returns the length of each named axis; raises FormatError where the columns break the contract."""
    missing = [f.name for f in fields if f.name not in columns]
    extra = sorted(set(columns) - {f.name for f in fields})
    if missing or extra:
        raise FormatError(f"columns are not the format's: missing {missing}, unknown {extra}")
    sizes: dict[str, int] = {}
    for f in fields:
        _check_shape(f, columns[f.name], sizes)
    return sizes


def _check_shape(f: Field, column: Any, sizes: dict[str, int]) -> None:
    """Compares one column with its field; named axes enter `sizes` when first seen."""
    if column.dtype != np.dtype(f.dtype) or len(column.shape) != len(f.shape):
        raise FormatError(f"{f.name} is {column.dtype} {tuple(column.shape)}, wanted {f.dtype} {f.shape}")
    for axis, length in zip(f.shape, column.shape, strict=True):
        wanted = sizes.setdefault(axis, length) if isinstance(axis, str) else axis
        if length != wanted:
            raise FormatError(f"{f.name} has shape {tuple(column.shape)}, wanted {f.shape} with {sizes}")


def shape_of(f: Field, sizes: Mapping[str, int]) -> tuple[int, ...]:
    """Returns the field's shape in numbers."""
    return tuple(sizes[axis] if isinstance(axis, str) else axis for axis in f.shape)


def content_sha256(columns: Columns, fields: Sequence[Field]) -> str:
    """Returns the hash of names, dtypes, shapes and bytes of all columns, in the order of the fields."""
    sizes, whole = sizes_of(columns, fields), hashlib.sha256()
    for f in fields:
        column = np.ascontiguousarray(columns[f.name]).reshape(-1)
        digest = hashlib.sha256(column.view(np.uint8)).hexdigest()
        whole.update(f"{f.name} {f.dtype} {shape_of(f, sizes)} {digest}\n".encode())
    return whole.hexdigest()
