"""A cheap stand-in for the optimizer, where grasps are not the point: seeds -> columns, faults on order."""

from __future__ import annotations

import errno
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from bimangrasp.files.header import HandTable
from bimangrasp.files.schema import CURVE_FIELDS, GRASP_FIELDS, shape_of
from scale.engine.interfaces import RoundJob, RoundResult
from scale.store import durable_io, shards
from scale.store.run_folder import RunFolder

SIGNALS = {"kill": signal.SIGKILL, "segv": signal.SIGSEGV, "stop": signal.SIGSTOP}
JOINTS, CONTACTS, POINTS = 2, 2, 3
LATER_TERMS = ("/depth", "/equilibrium")  # the others keep their numbers, and so rows that fail where tests count them
MADE_FIELDS = [f for f in (*GRASP_FIELDS, *CURVE_FIELDS) if f.name not in ("seed", "round", "row")]


def made_columns(seed: int, rows: int, nan_share: float = 0.25, **axes: int) -> dict[str, np.ndarray]:
    """Columns that depend on nothing but the seed and the axes' lengths; some rows failed."""
    draw, later = np.random.default_rng(seed), np.random.default_rng([seed, 3])
    sizes = {"N": rows, "J": JOINTS, "C": CONTACTS, "P": POINTS} | axes
    columns = {}
    for f in MADE_FIELDS:
        shape = shape_of(f, sizes | {"R": 1})
        shape = shape[1:] if f in CURVE_FIELDS else shape
        stream = later if f.name.endswith(LATER_TERMS) else draw
        columns[f.name] = np.abs(stream.normal(size=shape) * 3).astype(f.dtype)
    columns["energy/total"][draw.random(rows) < nan_share] = np.nan
    return columns


@dataclass(frozen=True)
class Stub:
    """What `scale` asks of a maker; called with settings it is the maker of rounds of that size.

    `faults`: (object code, round id) -> what happens at each attempt, then nothing; ("load", slot) at each load of
    that slot's models. Attempts are counted in files of `marks`, which outlive the worker. `bad_slots`: slot ->
    what happens to every round there. The faults, behind the first step unless they say otherwise:

        raise, exit, kill (SIGKILL), segv   what they say
        cuda                                an error after which no context can be trusted
        oom:<tile>, memory:<tile>           torch's and Python's error for every larger tile
        hang, hang-early, stop              no further step; no step at all; SIGSTOP
        slow:<seconds>                      takes that long
        until:<pattern>:<n>                 goes on when so many marks match: <code>-<round>-<n> and load-<slot>-<n> of
                                            faults, met-<slot>-<code> of a bad slot's objects
        nan                                 every energy is NaN
        full, full-early                    no room for the shard; for something that the round writes itself
        full-elsewhere                      no room on another disk than the run's
        kill-sealed                         SIGKILL when the shard is sealed and the parent not yet told
    """

    faults: dict[tuple[str, int], list[str]] = field(default_factory=dict)
    marks: str = ""
    bad_slots: dict[int, str] = field(default_factory=dict)
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

    def portable(self) -> Stub:
        return self

    def load(self, device: str, threads: int) -> StubBench:
        if self.broken:
            raise RuntimeError("the stub cannot load its hands")
        bench = StubBench(self)
        bench.suffer(bench.fault("load", bench.slot, 0), 0)
        return bench


@dataclass
class StubBench:
    stub: Stub
    again: tuple[str, int, int] | None = None
    last: str = ""

    @property
    def slot(self) -> int:
        parts = multiprocessing.current_process().name.split("_")
        return int(parts[1]) if parts[0] == "worker" else -1

    @property
    def platform(self) -> dict[str, str]:
        return {"kernels": os.environ.get("STUB_PLATFORM", self.stub.platform)}

    def make(self, task: RoundJob, on_step: Callable[[int], None]) -> RoundResult:
        fault = self.fault(task.code, task.round_id, task.attempt) or self.stub.bad_slots.get(self.slot, "")
        if fault and self.stub.marks and self.slot in self.stub.bad_slots:
            (Path(self.stub.marks) / f"met-{self.slot}-{task.code}").touch()
        if fault != "hang-early":
            on_step(0)
        self.suffer(fault, task.tile)
        end = time.monotonic() + self.stub.delay
        while time.monotonic() < end:
            on_step(1)
            time.sleep(0.005)
        share = 1.0 if fault == "nan" else self.stub.nan_share
        return RoundResult(made_columns(task.seed, self.stub.rows, share), task.tile)

    def free(self) -> None:
        assert sys.exc_info() == (None, None, None), "memory is freed while the handler holds what filled it"

    def fault(self, code: str, round_id: int, attempt: int) -> str:
        key = (code, round_id, attempt)
        if key == self.again:  # a second go at the same attempt, with a smaller tile
            return self.last
        plan = self.stub.faults.get((code, round_id), [])
        done = next_mark(self.stub.marks, f"{code}-{round_id}") if plan else 0
        fault = plan[done] if done < len(plan) else ""
        self.again, self.last = (key, fault) if fault.startswith(("oom", "memory")) else (None, "")
        return fault

    def suffer(self, fault: str, tile: int) -> None:
        name, _, number = fault.partition(":")
        if name == "raise":
            raise RuntimeError("fault on order")
        if name == "cuda":
            raise RuntimeError("CUDA error: device-side assert triggered")
        if name == "exit":
            os._exit(7)
        if name in SIGNALS:
            os.kill(os.getpid(), SIGNALS[name])
        if name in ("hang", "hang-early"):
            time.sleep(600)
        if name == "slow":
            time.sleep(float(number))
        if name == "until":
            wait_for_marks(Path(self.stub.marks), *number.split(":"))
        if name == "full-early":
            RunFolder.has_room = lambda *_: False
        if name in ("full-early", "full-elsewhere"):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "scratch")
        if name in ("oom", "memory") and tile > int(number):
            raise out_of_memory(name)(f"no room for {tile} grasps")
        if name in ("full", "kill-sealed"):
            sabotage_seal(name)


def next_mark(folder: str, name: str) -> int:
    """Returns how often this was called with a name, by any process, and leaves a mark of it."""
    number = 0
    while True:
        try:
            (Path(folder) / f"{name}-{number}").touch(exist_ok=False)
        except FileExistsError:
            number += 1
        else:
            return number


def wait_for_marks(folder: Path, pattern: str, number: str) -> None:
    deadline = time.monotonic() + 120
    while len(list(folder.glob(pattern))) < int(number):
        assert time.monotonic() < deadline, f"no {number} of {pattern} in {folder}"
        time.sleep(0.01)


def out_of_memory(name: str) -> type[Exception]:
    if name == "memory":
        return MemoryError
    import torch  # here, for it takes seconds in every worker

    return torch.OutOfMemoryError


def sabotage_seal(name: str) -> None:
    """This worker's next seal meets a full disk halfway, or is its last act."""
    seal, write = shards.seal, durable_io.write

    def half(fd: int, data: bytes, offset: int | None = None) -> None:
        write(fd, data[: len(data) // 2], offset)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def seal_on_full_disk(*parts: Any) -> Path:
        durable_io.write, shards.seal = half, seal
        try:
            return seal(*parts)
        finally:
            durable_io.write = write

    def seal_and_die(*parts: Any) -> Path:
        seal(*parts)
        os.kill(os.getpid(), signal.SIGKILL)

    shards.seal = {"full": seal_on_full_disk, "kill-sealed": seal_and_die}[name]
