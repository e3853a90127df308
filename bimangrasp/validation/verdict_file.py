"""Verdicts as the columns of a file, and what a reader must know of these."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from bimangrasp.files.schema import VERDICT_FIELDS
from bimangrasp.poses import Poses
from bimangrasp.validation.evaluate import Judged
from bimangrasp.validation.pregrasp import STAGES
from bimangrasp.validation.verdict import DIRECTIONS, Reason


def verdict_columns(judged: Judged) -> dict[str, np.ndarray]:
    """Returns verdicts as columns of the file, a row for each grasp."""
    parts = zip(Poses._fields, zip(*judged.stages, strict=True), strict=True)
    columns = {f"pose/{name}": np.stack(stages, axis=1) for name, stages in parts}
    columns |= {f"verdict/{name}": getattr(judged, name) for name in Judged._fields[1:]}
    return {f.name: columns[f.name].astype(f.dtype) for f in VERDICT_FIELDS}


def reading(link_names: Sequence[str]) -> dict[str, Any]:
    """Returns what a reader must know of the columns' axes and numbers.

    Args:
        link_names: of a hand, in the order of `verdict/link_distance`.
    """
    return {
        "stages": list(STAGES),
        "reasons": [reason.name.lower() for reason in Reason],
        "directions": DIRECTIONS.tolist(),
        "link_names": list(link_names),
    }
