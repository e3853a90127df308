"""Makes the grasps anew that a validator on a device judges first: `python benchmarks/make_recorded_grasps.py`.

Half of them hold under the protocol bench in MuJoCo and half fail, all clearly: none is such that undoing slip, or
rounding, might change it. Those that fail are of a run that was stopped far too early. Takes a minute.
"""

from __future__ import annotations

import json
from dataclasses import asdict

import numpy as np
from quality import RoundResult, judged, make

import conf
from bimangrasp.builtin import OBJECT_ROOT
from bimangrasp.poses import Poses
from bimangrasp.validation.config import STAGES
from bimangrasp.validation.evaluate import Evaluation
from bimangrasp.validation.on_device.self_check import HALF, OBJECT, RECORDED, SCALE
from bimangrasp.validation.verdict import Penetration, Pushes, Reason, Verdict, fails_narrowly, holds_clearly
from scale.settings.schema import Config

SETTINGS = {True: (), False: ("num_iterations=40",)}
"""Whether grasps should hold -> how they are made."""


def main() -> None:
    """Writes the file of the package."""
    parts = [_recorded(holds, list(settings)) for holds, settings in SETTINGS.items()]
    columns = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    config = _config([])
    about = {name: asdict(getattr(config, name)) for name in ("hand", "validation", "pieces")}
    np.savez_compressed(RECORDED, settings=json.dumps(about), **columns)
    print(f"{RECORDED}: {len(columns['holds'])} grasps, {RECORDED.stat().st_size} bytes")


def _recorded(holds: bool, settings: list[str]) -> dict[str, np.ndarray]:
    """Returns so many grasps of a kind."""
    config, found = _config(settings), []
    for seed in range(1, 50):
        made = make(config, OBJECT_ROOT / f"{OBJECT}.obj", seed)
        found.append(_clear_ones(made, config, holds))
        if sum(len(part["holds"]) for part in found) >= HALF:
            return {name: np.concatenate([part[name] for part in found])[:HALF] for name in found[0]}
    raise SystemExit(f"too few grasps that clearly {'hold' if holds else 'fail'}")


def _config(settings: list[str]) -> Config:
    return conf.load([f"object.scales=[{SCALE}]", "validation.physics.noslip=near", *settings])


def _clear_ones(made: RoundResult, config: Config, holds: bool) -> dict[str, np.ndarray]:
    """Returns the grasps of a batch that hold, or fail in a push, and clearly so."""
    evaluation, _ = judged(made, OBJECT_ROOT / f"{OBJECT}.obj", config)
    rows = [row for row in range(len(evaluation.reason)) if _is_wanted(evaluation, row, config, holds)]
    stages = {
        name: np.stack([getattr(evaluation.stages[number], name)[rows] for number in range(len(STAGES))], axis=1)
        for name in Poses._fields
    }
    return stages | {"holds": np.full(len(rows), holds)}


def _is_wanted(evaluation: Evaluation, row: int, config: Config, holds: bool) -> bool:
    """Whether a grasp holds, or fails in a push, and clearly so."""
    columns = (evaluation.displacement, evaluation.rotation, evaluation.held, evaluation.bears_load)
    penetration = Penetration(*evaluation.start_penetration[row].tolist())
    verdict = Verdict(Reason(evaluation.reason[row]), penetration, *(column[row] for column in columns))
    if holds:
        return verdict.reason is Reason.HELD and holds_clearly(verdict, config.validation)
    is_lost = verdict.reason in (Reason.MOVED, Reason.TURNED)
    return is_lost and not fails_narrowly(verdict, Pushes().order, config.validation.physics)


if __name__ == "__main__":
    main()
