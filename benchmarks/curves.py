"""Prints energies over steps with the released settings, to compare with curves recorded from the BimanGrasp release.

    python benchmarks/curves.py --hands <mjcf folder> --mesh <file.obj> [--seeds 1 2 3] [--steps 1000]

runs `experiment=released` at batch 16 with the release's hands, cut at `--steps`, one seed after the other, prints the
median total energy of the batch now and then, and at the end its mean and the shares under the released thresholds.
"""

from __future__ import annotations

import argparse
import csv
import sys
import time
from pathlib import Path

import torch

import conf
from bimangrasp.energy.energies import Energies
from bimangrasp.hand_files.loading import load_hands
from bimangrasp.hands.model import HandModel
from bimangrasp.objects.model import ObjectModel
from bimangrasp.synthesis import Synthesis, set_determinism, synthesize


def run(hands: Path, mesh: Path, seed: int, steps: int, device: str) -> Synthesis:
    """Returns a round of 16 grasps with the released settings, cut at `steps`."""
    overrides = ["hand=release", f"hand.root='{hands}'", "experiment=released", f"curve_stride={max(steps // 20, 1)}"]
    config = conf.load(overrides)
    config.round_batch_size, config.num_iterations = 16, steps
    pair = HandModel(*load_hands(config.hand), config.hand.surface_points, device)
    obj = ObjectModel.load(str(mesh), config.object, device)
    return synthesize(pair, obj, config.synthesis, seed)


def thresholds(energies: Energies) -> dict[str, float]:
    """Returns the shares of grasps under the thresholds that the release logs, and under all three."""
    limits = conf.load(["filter=energy"]).filter
    terms = ("force_closure", "distance", "penetration")
    met = {f"{term} < {getattr(limits, term)}": getattr(energies, term) < getattr(limits, term) for term in terms}
    met["all three"] = torch.stack(list(met.values())).all(dim=0)
    return {name: float(share.float().mean()) for name, share in met.items()}


def recorded_mean(path: Path, step: int) -> float:
    """Returns the recorded mean total energy at a step."""
    with path.open() as file:
        return next(float(row["mean_total"]) for row in csv.DictReader(file) if int(row["step"]) == step)


def main(arguments: list[str] | None = None) -> int:
    """Runs the seeds of the command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--hands", type=Path, required=True, help="a BimanGrasp mjcf/ folder")
    parser.add_argument("--mesh", type=Path, required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--recorded", type=Path, nargs="*", default=[], help="recorded curves to print beside ours")
    options = parser.parse_args(arguments)
    set_determinism(threads=1)
    ends = []
    for seed in options.seeds:
        start = time.perf_counter()
        result = run(options.hands, options.mesh, seed, options.steps, options.device)
        seconds = time.perf_counter() - start
        ends.append(float(result.energies.total.mean()))
        print(f"seed {seed}: {1000 * seconds / options.steps:.1f} ms a step, models included")
        for step, acceptance, quartiles in zip(*result.curve, strict=True):
            median = dict(zip(Energies._fields, quartiles[:, 1].tolist(), strict=True))
            print(f"  step {int(step):6d}  median total {median['total']:8.3f}  accepted {float(acceptance):.3f}")
        shares = ", ".join(f"{name} {share:.0%}" for name, share in thresholds(result.energies).items())
        print(f"  mean total {ends[-1]:.3f}; {shares}", flush=True)
    print(f"mean over seeds of the mean total at step {options.steps}: {sum(ends) / len(ends):.3f}")
    for path in options.recorded:
        print(f"recorded in {path.name}: {recorded_mean(path, options.steps):.3f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
