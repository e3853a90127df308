"""Kills workers and parent at random until each run is complete, then compares every byte.

`PYTHONPATH=tests python benchmarks/storm.py --trials 20` prints one line: kills, and what was redone, lost, doubled,
stuck or different. Rounds are those of the tests' stand-in, of short random length: what is tried is the running, not
the optimizer. Parents are forked from this process, so that they need not import torch before each next kill; workers,
which import this file, never do.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields
from multiprocessing import get_context
from multiprocessing.context import ForkProcess
from pathlib import Path
from typing import Any

import h5py
import trimesh
from stub_judge import StubJudge
from stub_rounds import Stub, StubBench

from scale.engine.interfaces import RoundJob, RoundResult

CODES = ("ball", "brick", "slab")
STUCK_S = 120.0  # without the end of a run that nobody strikes any more


@dataclass(frozen=True)
class Storm:
    """How hard it blows.

    Attributes:
        quota: grasps of each of the three objects, in rounds of 8.
        workers: beside the parent.
        kills: of a trial, then the run is left in peace.
        mean_s: time between two kills, exponentially distributed.
        parent_share: of the kills.
        round_s: the longest round.
        validators: that test every round, at a hundredth of a second a grasp; 0 counts all grasps.
    """

    quota: int = 60
    workers: int = 2
    kills: int = 14
    mean_s: float = 1.0
    parent_share: float = 0.3
    round_s: float = 0.3
    validators: int = 0


@dataclass
class Damage:
    """What a storm did; the last five are to be 0.

    Attributes:
        trials, kills, parents: runs, all kills, and how many of them hit the parent.
        rounds: done or taken over, all trials together.
        redone: rounds that were computed again although the journal called them done.
        skipped: rounds that were given up.
        lost, doubled: grasps that the undisturbed files have and these have not; grasps twice in a file.
        stuck, different: runs that did not end, and runs with a file of other bytes.
    """

    trials: int = 0
    kills: int = 0
    parents: int = 0
    rounds: int = 0
    redone: int = 0
    skipped: int = 0
    lost: int = 0
    doubled: int = 0
    stuck: int = 0
    different: int = 0

    @property
    def is_none(self) -> bool:
        """Whether the runs came through unharmed."""
        return not (self.redone or self.skipped or self.lost or self.doubled or self.stuck or self.different)

    def __str__(self) -> str:
        return (
            f"{self.trials} trials, {self.kills} kills ({self.parents} of the parent), {self.rounds} rounds, "
            f"{self.redone} of them redone, {self.skipped} skipped, {self.lost} grasps lost, "
            f"{self.doubled} duplicated, {self.stuck} runs stuck, {self.different} with other bytes"
        )


def blow(storm: Storm, trials: int, root: Path, seed: int) -> Damage:
    """Returns the damage of some trials; their run folders are below `root`."""
    import scale.controller.lifecycle  # noqa: F401  once, for all parents

    make_objects(root / "objects")
    draw, damage = random.Random(seed), Damage()
    has_ended(start(storm, root, "undisturbed"), STUCK_S)
    for trial in range(trials):
        name = f"trial_{trial}"
        damage.trials += 1
        if strike(storm, root, name, draw, damage):
            compare(root / "undisturbed", root / name, damage)
        else:
            damage.stuck += 1
    return damage


def make_objects(folder: Path) -> None:
    """Writes three convex meshes, of which no decomposition is wanted."""
    folder.mkdir()
    shapes = trimesh.creation.icosphere(2, 0.5), trimesh.creation.box((1, 0.6, 0.4)), trimesh.creation.box((1, 1, 0.2))
    for code, shape in zip(CODES, shapes, strict=True):
        shape.export(folder / f"{code}.obj")


def start(storm: Storm, root: Path, name: str) -> ForkProcess:
    """Starts the parent of a run."""
    parent = get_context("fork").Process(target=run, args=(storm, root, name))
    parent.start()
    return parent


def has_ended(parent: ForkProcess, within_s: float) -> bool:
    """Returns whether a parent ended by itself, with its work done; any other end is an error."""
    parent.join(within_s)
    if parent.exitcode not in (None, 0):
        raise SystemExit(f"a parent ended by itself with {parent.exitcode}")
    return parent.exitcode == 0


def strike(storm: Storm, root: Path, name: str, draw: random.Random, damage: Damage) -> bool:
    """Kills and starts again, then waits; returns whether the run came to its end."""
    parent, kills = start(storm, root, name), 0
    try:
        while kills < storm.kills:
            if has_ended(parent, draw.expovariate(1 / storm.mean_s)):
                return True
            is_parent = draw.random() < storm.parent_share
            victims = [parent.pid] if is_parent else list(workers_of(parent.pid))
            if not victims or not kill(draw.choice(victims)):
                continue
            kills += 1
            damage.kills += 1
            if is_parent:
                damage.parents += 1
                parent.join()
                parent = start(storm, root, name)
        return has_ended(parent, STUCK_S)
    finally:
        parent.kill()
        parent.join()


def workers_of(pid: int) -> Iterator[int]:
    """Yields the worker processes of a parent."""
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        yield from (int(child) for child in children if b"spawn_main" in Path(f"/proc/{child}/cmdline").read_bytes())
    except OSError:  # gone meanwhile
        return


def kill(pid: int) -> bool:
    """Returns whether there was somebody to kill."""
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return False
    return True


def compare(undisturbed: Path, folder: Path, damage: Damage) -> None:
    """Adds what the files of a run lack, have twice, or have otherwise."""
    recorded = events(folder)
    is_done = [event for event in recorded if event["event"] in ("done", "adopted")]  # sealed, and the parent killed
    done = Counter((event["code"], event["round"]) for event in is_done)
    damage.rounds += len(done)
    damage.redone += sum(done.values()) - len(done)
    damage.skipped += sum(event["event"] == "skip" for event in recorded)
    is_different = False
    for path in sorted((undisturbed / "final").iterdir()):
        final = folder / "final" / path.name
        expected, counts = grasps(path), grasps(final)
        damage.lost += sum((expected - counts).values())
        damage.doubled += sum(count - 1 for count in counts.values())
        is_different |= sha256(path) != sha256(final)
    damage.different += is_different or sha256(undisturbed / "dataset.h5") != sha256(folder / "dataset.h5")


def events(folder: Path) -> list[dict[str, Any]]:
    """Returns the journal; a torn line was cut by the next start."""
    return [json.loads(line) for line in (folder / "journal.jsonl").read_bytes().splitlines()]


def grasps(path: Path) -> Counter[tuple[int, int]]:
    """Returns how often each (round, row) stands in a final file."""
    if not path.exists():
        return Counter()
    with h5py.File(path) as file:
        return Counter(zip(file["round"][...].tolist(), file["row"][...].tolist(), strict=True))


def sha256(path: Path) -> str:
    """Returns the hash of a file, empty where there is none."""
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.exists() else ""


@dataclass(frozen=True)
class Unsteady(Stub):
    """Rounds that take up to so many seconds."""

    longest_s: float = 0.0

    def load(self, *_: Any) -> StubBench:
        """Returns the worker's bench."""
        return UnsteadyBench(self)


class UnsteadyBench(StubBench):
    """Waits, then makes what the stand-in makes: the length of a round decides nothing."""

    def make(self, task: RoundJob, on_step: Callable[[int], None]) -> RoundResult:
        """Returns the grasps of a round."""
        time.sleep(random.random() * self.stub.longest_s)
        return super().make(task, on_step)


def run(storm: Storm, root: Path, name: str) -> None:
    """The parent's body: one call of `scale.run`."""
    import conf
    import scale
    from scale.settings.schema import Config

    with (root / f"{name}.txt").open("ab") as log:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
    if storm.validators:  # pieces are measured by several threads, of which a fork lets one alone renew torch's own
        import torch

        torch.set_num_threads(1)
    names = [f"output_root={root}", f"exp_name={name}", f"object_root={root / 'objects'}", "merge_stride=3"]
    names += ["object_code_list=all", f"target_count_per_object={storm.quota}", "round_batch_size=8"]
    names += ["filter=physics", f"validators={storm.validators}"] if storm.validators else ["filter=none"]
    names += [f"gpus=[{','.join(['cpu'] * storm.workers)}]"]
    if "max_kills" in {field.name for field in fields(Config)}:
        names.append("max_kills=0")  # for no round is to blame for the weather
    makers = Unsteady(longest_s=storm.round_s), StubJudge(delay=0.01)
    sys.exit(scale.run(conf.load(names), *makers).exit_code)


def main() -> None:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trials", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--root", type=Path, default=None, help="keep the run folders here")
    parser.add_argument("--storm", type=json.loads, default={}, help='JSON, as {"kills": 20, "mean_s": 0.5}')
    options = parser.parse_args()
    storm = Storm(**options.storm)
    with tempfile.TemporaryDirectory() as place:
        root = options.root or Path(place)
        root.mkdir(parents=True, exist_ok=True)
        started = time.monotonic()
        damage = blow(storm, options.trials, root, options.seed)
        print(f"{damage}, in {time.monotonic() - started:.0f} s")
        sys.exit(0 if damage.is_none else 1)


if __name__ == "__main__":
    main()
