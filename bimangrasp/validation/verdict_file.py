"""The verdict file: what a protocol says of the grasps of one grasp file, row by row, in HDF5."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import h5py
import numpy as np

from bimangrasp.grasp_fields import Field, shape_of
from bimangrasp.grasp_file import create_dataset, write_attributes
from bimangrasp.poses import Poses
from bimangrasp.validation.judging import Judged
from bimangrasp.validation.pose_rule import STAGES
from bimangrasp.validation.verdict import DIRECTIONS, Reason

FORMAT = "bimangrasp-verdicts"
VERSION = 1

_AXES = {"K": len(STAGES), "D": len(DIRECTIONS)}
FIELDS = (
    Field("pose/translation", "<f4", ("N", "K", 2, 3), "m", "object", "origin of each hand's root at each stage"),
    Field("pose/rotation", "<f4", ("N", "K", 2, 3, 3), "1", "object", "hand frame to object frame at each stage"),
    Field("pose/joints", "<f4", ("N", "K", 2, "J"), "rad", "hand", "joint values by joint_names at each stage"),
    Field("verdict/reason", "<i4", ("N",), "1", "none", "0 holds, else why not: index into the attribute reasons"),
    Field("verdict/start_penetration", "<f4", ("N", 3), "m", "none", "hand-object, hand-hand, self, at the start"),
    Field("verdict/penetration", "<f4", ("N", 3), "m", "none", "the same at the grasp"),
    Field("verdict/link_distance", "<f4", ("N", 2, "L"), "m", "none", "links to the object at the grasp, inf if far"),
    Field("verdict/displacement", "<f4", ("N", "D"), "m", "object", "of the object when the push ended"),
    Field("verdict/rotation", "<f4", ("N", "D"), "rad", "object", "of the object when the push ended"),
    Field("verdict/held", "|u1", ("N", "D"), "1", "none", "whether the grasp withstood the push"),
    Field("verdict/bears_load", "|u1", ("N", 2), "1", "none", "whether the hand pressed on the object to the end"),
)


def verdict_image(judged: Judged, about: Mapping[str, Any]) -> bytes:
    """Returns the bytes of a verdict file; equal input gives equal bytes.

    Args:
        judged: the verdicts, a row for each row of the grasp file.
        about: further attributes: what was judged, and how; values that are no text, number or array become JSON.
    """
    parts = zip(Poses._fields, zip(*judged.stages, strict=True), strict=True)
    columns = {f"pose/{name}": np.stack(stages, axis=1) for name, stages in parts}
    columns |= {f"verdict/{name}": getattr(judged, name) for name in Judged._fields[1:]}
    sizes = _AXES | {
        "N": len(judged.reason),
        "J": judged.stages[0].joints.shape[2],
        "L": judged.link_distance.shape[2],
    }
    attributes = {
        "format": FORMAT,
        "format_version": VERSION,
        "stages": json.dumps(STAGES),
        "reasons": json.dumps([reason.name.lower() for reason in Reason]),
        "directions": DIRECTIONS,
    }
    with h5py.File("verdict", "w", driver="core", backing_store=False, libver="earliest") as file:
        write_attributes(file, attributes | {name: _plain(value) for name, value in about.items()})
        for f in FIELDS:
            dataset = create_dataset(file, f, shape_of(f, sizes))
            if dataset.size:
                dataset[...] = columns[f.name].astype(f.dtype)
        file.flush()
        return file.id.get_file_image()


def _plain(value: Any) -> Any:
    return value if isinstance(value, (str, int, float, np.ndarray)) else json.dumps(value, sort_keys=True)
