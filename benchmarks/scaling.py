"""Measures the throughput of N workers relative to N devices, from the last worker's "ready" to the last "done".

    PYTHONPATH=tests python benchmarks/scaling.py                     a stand-in that sleeps, 1 to 16 workers
    PYTHONPATH=tests python benchmarks/scaling.py --real --workers 1 2  the optimizer, one CPU thread a worker

The stand-in's rounds last `--round-s`: what is measured is the parent, the pipes and the files. All workers wait for
each other with their models loaded, so that the clock starts for all at once. For the optimizer the same rounds are
also made by as many processes that know nothing of each other: what the machine itself loses when all its cores work
is no fault of the engine's.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import NamedTuple

from stub_rounds import Stub, made_columns

import conf
import scale
from bimangrasp.builtin import OBJECT_ROOT
from bimangrasp.files.header import HandTable
from bimangrasp.objects.model import read_mesh
from scale.engine.interfaces import RoundFactory, RoundJob, RoundResult, RoundRunner
from scale.engine.synthesizer import Synthesizer

BEAT_S = 0.05
CODE = "storage_bin"


@dataclass(frozen=True)
class Sleeper(Stub):
    """Makes rounds of a fixed length in the time they take, from nothing."""

    round_s: float = 10.0

    def load(self, device: str, threads: int) -> RoundRunner:  # noqa: ARG002 - the protocol's
        """Returns the bench."""
        return SleepingBench(self.round_s, self.rows)


class SleepingBench(NamedTuple):
    """See `Sleeper`."""

    round_s: float
    rows: int
    platform: dict[str, str] = {"kernels": "asleep"}  # noqa: RUF012 - a NamedTuple's default

    def make(self, task: RoundJob, on_step: Callable[[int], None]) -> RoundResult:
        """Sleeps, with a beat now and then; making the columns is part of the round."""
        end = time.monotonic() + self.round_s
        columns = made_columns(task.seed, self.rows, nan_share=0.0)
        while (left := end - time.monotonic()) > 0:
            on_step(1)
            time.sleep(min(BEAT_S, left))
        return RoundResult(columns, task.tile)

    def free(self) -> None:
        """Has nothing to give."""


@dataclass(frozen=True)
class Together:
    """A maker whose workers wait for each other with their models loaded."""

    maker: RoundFactory
    marks: str
    workers: int

    @property
    def algorithm_version(self) -> int:
        """The maker's."""
        return self.maker.algorithm_version

    def hand_table(self) -> HandTable:
        """Returns the maker's."""
        return self.maker.hand_table()

    def load(self, device: str, threads: int) -> RoundRunner:
        """Returns the maker's bench when all workers have theirs."""
        bench = self.maker.load(device, threads)
        with tempfile.NamedTemporaryFile(dir=self.marks, delete=False):
            while len(list(Path(self.marks).iterdir())) < self.workers:
                time.sleep(0.001)
        return bench


def settings(root: str, workers: int, rounds: int, batch: int, steps: int) -> object:
    """Returns the configuration of a run of that many rounds for each worker."""
    return conf.load(
        [
            "experiment=null",
            "filter=none",
            "exp_name=scaling",
            f"output_root={root}",
            f"object_code_list=[{CODE}]",
            f"target_count_per_object={workers * rounds * batch}",
            f"round_batch_size={batch}",
            f"num_iterations={steps}",
            "max_rounds=10000",
            f"gpus=[{','.join(['cpu'] * workers)}]",
        ]
    )


def measure(options: argparse.Namespace, workers: int) -> tuple[float, float]:
    """Returns the seconds from the last "ready" to the last "done", and to the end of the run with its merge."""
    with tempfile.TemporaryDirectory() as root, tempfile.TemporaryDirectory() as marks:
        config = settings(root, workers, options.rounds, options.batch, options.steps)

        def maker(hand: object, synthesis: object) -> RoundFactory:
            synthesizer = (
                Synthesizer(hand, synthesis) if options.real else Sleeper(rows=options.batch, round_s=options.round_s)
            )
            return Together(synthesizer, marks, workers)

        scale.run(config, maker)
        lines = (Path(root) / "scaling" / "journal.jsonl").read_text().splitlines()
    events = [json.loads(line) for line in lines]
    times = {name: max(e["time"] for e in events if e["event"] == name) for name in ("ready", "done", "end")}
    return times["done"] - times["ready"], times["end"] - times["ready"]


def alone(options: argparse.Namespace, marks: str, workers: int, seed: int) -> float:
    """Returns the seconds that one process of several takes for its rounds, without any engine."""
    config = settings("unused", workers, options.rounds, options.batch, options.steps)
    bench = Together(Synthesizer(config.hand, config.synthesis), marks, workers).load("cpu", 1)
    mesh = str(OBJECT_ROOT / f"{CODE}.obj")
    sha256 = read_mesh(mesh).sha256
    start = time.perf_counter()
    for round_id in range(options.rounds):
        bench.make(RoundJob(CODE, 0, mesh, sha256, {}, round_id, seed + round_id, 0, options.batch), lambda _: None)
    return time.perf_counter() - start


def without_engine(options: argparse.Namespace, workers: int) -> float:
    """Returns the seconds of the slowest of so many processes."""
    with tempfile.TemporaryDirectory() as marks, ProcessPoolExecutor(workers, get_context("spawn")) as pool:
        seeds = range(0, workers * options.rounds, options.rounds)
        return max(pool.map(alone, [options] * workers, [marks] * workers, [workers] * workers, seeds))


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2, 4, 8, 16])
    parser.add_argument("--rounds", type=int, default=4, help="of each worker")
    parser.add_argument("--round-s", type=float, default=10.0, help="length of the stand-in's rounds")
    parser.add_argument("--batch", type=int, default=1024)
    parser.add_argument("--steps", type=int, default=1000, help="of the optimizer")
    parser.add_argument("--real", action="store_true", help="the optimizer instead of the stand-in")
    options = parser.parse_args()
    heading = "without the engine" if options.real else "ideal"
    print(f"| workers | {heading}, s | last done, s | of {heading} | merged, s |\n|---|---|---|---|---|")
    for workers in options.workers:
        ideal = without_engine(options, workers) if options.real else options.rounds * options.round_s
        done, end = measure(options, workers)
        print(f"| {workers} | {ideal:.2f} | {done:.2f} | {100 * done / ideal:.1f} % | {end:.2f} |", flush=True)


if __name__ == "__main__":
    main()
