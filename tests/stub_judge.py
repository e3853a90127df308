"""A cheap stand-in for the simulator: which grasps hold follows from their rows, with faults on order."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from stub_rounds import next_mark

from bimangrasp.files.schema import VERDICT_FIELDS, shape_of
from bimangrasp.validation.verdict import Reason
from scale.engine.interfaces import ValidationTask

LINKS = 2
SIGNALS = {"kill": signal.SIGKILL, "segv": signal.SIGSEGV}


def verdict_columns(
    seed: int, rows: int, joints: int, share: float, deadly: tuple[int, ...] = (), first: int = 0
) -> dict[str, Any]:
    """Verdicts of rows from `first` on, which depend on nothing but the seed and the row; a share of the rows holds."""
    draws = [np.random.default_rng([seed, 1, row]) for row in range(first, first + rows)]
    sizes = {"N": 1, "J": joints, "L": LINKS}
    columns = {}
    for f in VERDICT_FIELDS:
        drawn = [np.abs(draw.normal(size=shape_of(f, sizes)) * 3) for draw in draws]
        columns[f.name] = np.concatenate([*drawn, np.zeros((0, *shape_of(f, sizes)[1:]))]).astype(f.dtype)
    failed = [draw.integers(Reason.PENETRATION, Reason.LOST_CONTACT) for draw in draws]
    holds = [draw.random() < share for draw in draws]
    columns["verdict/reason"] = np.where(holds, Reason.HELD, failed).astype(np.int32)
    columns["verdict/reason"][list(deadly)] = Reason.SIMULATION_FAILED
    return columns


@dataclass(frozen=True)
class StubJudge:
    """What `scale` asks of a judge; called with settings it is itself.

    `faults`: (round, row) -> what happens at each attempt to simulate that row, then nothing: raise, kill, segv, exit,
    hang; (round, -1 - first) before the first row of a job. Attempts are counted in files of `marks`, which outlive
    the validator.
    `share`: of the rows that hold. `confirmed`: of those that are judged again after a device; without faults.
    """

    share: float = 0.6
    faults: dict[tuple[int, int], list[str]] = field(default_factory=dict)
    marks: str = ""
    delay: float = 0.0
    broken: bool = False
    platform: str = "stub-1"
    confirmed: float = 1.0
    is_second: bool = False

    def __call__(self, config: Any) -> StubJudge:
        is_second = config.validation.name == "bench_warp" and not config.validation.simulator.is_on_device
        return replace(self, is_second=is_second)

    def portable(self) -> StubJudge:
        return self

    def load(self, device: str, threads: int) -> StubJudge:
        if self.broken:
            raise RuntimeError("the stub cannot load its simulator")
        return StubJudgeBench(self)


@dataclass
class StubJudgeBench:
    stub: StubJudge
    judging: dict[str, Any] = field(default_factory=lambda: {"reasons": [one.name.lower() for one in Reason]})

    @property
    def platform(self) -> dict[str, str]:
        return {"mujoco": self.stub.platform}

    def judge(self, case: ValidationTask, on_row: Callable[[int], None]) -> dict[str, np.ndarray]:
        assert Path(case.pieces).exists()
        if self.stub.is_second:
            next_mark(self.stub.marks, "second")
            return self.second(case)
        rows, seed = len(case.columns["row"]), int(case.columns["seed"][0])
        round_id = int(case.columns["round"][0])
        first = int(case.columns["row"][0])
        self.suffer(round_id, -1 - first)
        for row in range(rows):
            if row not in case.deadly:
                on_row(row)
                time.sleep(self.stub.delay)
                self.suffer(round_id, first + row)
        joints = case.columns["hand/joints"].shape[2]
        return verdict_columns(seed, rows, joints, self.stub.share, case.deadly, first)

    def second(self, case: ValidationTask) -> dict[str, np.ndarray]:
        rows, joints = len(case.columns["row"]), case.columns["hand/joints"].shape[2]
        columns = verdict_columns(0, rows, joints, 0.0)
        for at, (seed, row) in enumerate(zip(case.columns["seed"], case.columns["row"], strict=True)):
            if np.random.default_rng([int(seed), int(row)]).random() < self.stub.confirmed:
                columns["verdict/reason"][at] = Reason.HELD
        return columns

    def suffer(self, round_id: int, row: int) -> None:
        plan = self.stub.faults.get((round_id, row), [])
        number = next_mark(self.stub.marks, f"judge-{round_id}-{row}") if plan else 0
        fault = plan[number] if number < len(plan) else ""
        if fault == "raise":
            raise RuntimeError("fault on order")
        if fault == "exit":
            os._exit(7)
        if fault in SIGNALS:
            os.kill(os.getpid(), SIGNALS[fault])
        if fault == "hang":
            time.sleep(600)
