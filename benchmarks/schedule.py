"""Measures how good grasps are after shorter runs: the released schedule in fewer steps, beside the full run.

    python benchmarks/schedule.py --mesh <file.obj> <file.obj> --lengths 6000 4000 3000 --seeds 1 2 3

runs `experiment=released` and, for every length, the whole schedule in that many steps, with the same seeds and so
the same starts. Prints for each object and all together the mean total energy, its ratio to the released run's with
the standard error of the paired difference, and the share of grasps under the released thresholds.
"""

from __future__ import annotations

import argparse
import math
import os
import sys
from concurrent.futures import ProcessPoolExecutor
from itertools import product
from multiprocessing import get_context
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

import conf
from bimangrasp.hand_files.loading import load_hands
from bimangrasp.hands.model import HandModel
from bimangrasp.objects.model import ObjectModel
from bimangrasp.synthesis import set_determinism, synthesize

RELEASED = 0
"""Stands for the released run among the lengths."""


class Job(NamedTuple):
    """One round."""

    mesh: Path
    length: int
    seed: int


class Ends(NamedTuple):
    """What a run left, a grasp each: total energy, and whether it is under the released thresholds."""

    total: Tensor
    is_good: Tensor


def run(job: Job, overrides: list[str], batch: int, device: str) -> Ends:
    """Returns the ends of one round."""
    set_determinism(threads=1)
    length = [f"num_iterations={job.length}", f"optimizer.schedule_steps={job.length}"] if job.length else []
    config = conf.load(["experiment=released", "filter=energy", "curve_stride=0", *length, *overrides])
    config.round_batch_size = batch
    pair = HandModel(*load_hands(config.hand), config.hand.surface_points, device)
    obj = ObjectModel.load(str(job.mesh), config.object, device)
    energies = synthesize(pair, obj, config.synthesis, job.seed).energies
    terms = ("force_closure", "distance", "penetration")
    met = [getattr(energies, term) < getattr(config.filter, term) for term in terms]
    return Ends(energies.total.cpu(), torch.stack(met).all(dim=0).cpu())


def line(name: str, released: list[Ends], short: list[Ends]) -> str:
    """Returns a row of the table: the ratio's error takes the rounds, which are independent, as samples."""
    mean = torch.stack([ends.total.nanmean() for ends in short])
    before = torch.stack([ends.total.nanmean() for ends in released])
    ratio = float(mean.mean() / before.mean())
    spread = (mean - ratio * before).std() / before.mean() / math.sqrt(len(mean)) if len(mean) > 1 else math.nan
    good = torch.cat([ends.is_good for ends in short]).float()
    error = float(good.std() / math.sqrt(len(good)))
    return f"| {name} | {mean.mean():.3f} | {ratio:.3f} +- {spread:.3f} | {good.mean():.1%} +- {error:.1%} |"


def main(arguments: list[str] | None = None) -> int:
    """Runs what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--mesh", type=Path, nargs="+", required=True)
    parser.add_argument("--lengths", type=int, nargs="+", default=[6000, 5000, 4000, 3000, 2000, 1000])
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--processes", type=int, default=os.cpu_count())
    parser.add_argument("--overrides", nargs="*", default=[], help="settings, such as hand=release hand.root=<folder>")
    options = parser.parse_args(arguments)
    runs = [Job(*parts) for parts in product(options.mesh, [RELEASED, *options.lengths], options.seeds)]
    with ProcessPoolExecutor(options.processes, get_context("spawn")) as pool:
        waiting = {job: pool.submit(run, job, options.overrides, options.batch, options.device) for job in runs}
        ends = {}
        for job, future in waiting.items():
            ends[job] = future.result()
            print(f"{job}: mean total {ends[job].total.nanmean():.3f}", file=sys.stderr, flush=True)
    for group in [*([mesh] for mesh in options.mesh), options.mesh]:
        print(f"\n{', '.join(map(str, group))}")
        print("| steps | mean total | of released | under thresholds |\n|---|---|---|---|")
        released = [ends[Job(mesh, RELEASED, seed)] for mesh in group for seed in options.seeds]
        for length in (RELEASED, *options.lengths):
            short = [ends[Job(mesh, length, seed)] for mesh in group for seed in options.seeds]
            print(line(str(length or "released, 10 000"), released, short))
    return 0


if __name__ == "__main__":
    sys.exit(main())
