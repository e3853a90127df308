"""A cheap stand-in for the optimiser, where grasps are not the point: seeds -> columns, faults on order."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from bimangrasp.grasp_fields import CURVE_FIELDS, GRASP_FIELDS, shape_of
from bimangrasp.grasp_file import HandTable
from scale.making import Made, Task

JOINTS, CONTACTS, POINTS = 2, 2, 3
MADE_FIELDS = [f for f in (*GRASP_FIELDS, *CURVE_FIELDS) if f.name not in ("seed", "round", "row")]


def made_columns(seed: int, rows: int, nan_share: float = 0.25) -> dict[str, np.ndarray]:
    """Columns that depend on nothing but the seed; some rows failed."""
    draw = np.random.default_rng(seed)
    sizes = {"N": rows, "J": JOINTS, "C": CONTACTS, "P": POINTS}
    columns = {}
    for f in MADE_FIELDS:
        shape = shape_of(f, sizes | {"R": 1})
        shape = shape[1:] if f in CURVE_FIELDS else shape
        columns[f.name] = np.abs(draw.normal(size=shape) * 3).astype(f.dtype)
    columns["energy/total"][draw.random(rows) < nan_share] = np.nan
    return columns


@dataclass(frozen=True)
class Stub:
    """What `scale` asks of a maker; called with settings it is the maker of rounds of that size.

    `faults`: (object code, round id) -> what happens at each attempt, then nothing: "raise", "kill", "segv",
    "exit" or "slow:<seconds>"; attempts are counted in files of `marks`, which outlive the worker.
    """

    faults: dict[tuple[str, int], list[str]] = field(default_factory=dict)
    marks: str = ""
    nan_share: float = 0.25
    delay: float = 0.0
    broken: bool = False
    platform: str = "stub-1"
    rows: int = 8
    algorithm_version: int = 1

    def __call__(self, hand: object, synthesis: object) -> Stub:
        return replace(self, rows=synthesis.round_batch_size)

    def hand_table(self) -> HandTable:
        links = np.array([["tip", "palm"], ["tip", "palm"]])
        return HandTable("stub", "ab" * 32, ("j0", "j1"), links, np.zeros((2, 2, 3), np.float32))

    def load(self, device: str, threads: int) -> StubBench:
        if self.broken:
            raise RuntimeError("the stub cannot load its hands")
        return StubBench(self)


@dataclass
class StubBench:
    stub: Stub

    @property
    def platform(self) -> dict[str, str]:
        return {"kernels": self.stub.platform}

    def make(self, task: Task, on_step: Callable[[int], None]) -> Made:
        on_step(0)
        self.suffer(task.code, task.round_id)
        end = time.monotonic() + self.stub.delay
        while time.monotonic() < end:
            on_step(1)
            time.sleep(0.005)
        return Made(made_columns(task.seed, self.stub.rows, self.stub.nan_share), self.stub.rows)

    def suffer(self, code: str, round_id: int) -> None:
        plan = self.stub.faults.get((code, round_id), [])
        attempt = self.attempt(code, round_id) if plan else 0
        fault = plan[attempt] if attempt < len(plan) else ""
        if fault == "raise":
            raise RuntimeError(f"fault on order in round {round_id}")
        if fault == "exit":
            os._exit(7)
        if fault in ("kill", "segv"):
            os.kill(os.getpid(), signal.SIGKILL if fault == "kill" else signal.SIGSEGV)
        if fault.startswith("slow:"):
            time.sleep(float(fault[5:]))

    def attempt(self, code: str, round_id: int) -> int:
        number = 0
        while True:
            try:
                (Path(self.stub.marks) / f"{code}-{round_id}-{number}").touch(exist_ok=False)
            except FileExistsError:
                number += 1
            else:
                return number
