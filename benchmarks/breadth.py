r"""Measures how many grasps hold over many kinds of objects, and what a held grasp costs.

    python benchmarks/breadth.py --object_root PREPARED MESHDATA --out FOLDER --seeds 1 2 --batch 32 \
        --set 'experiment=released'

makes a batch for each object and seed, judges all of it without a filter, and prints a row an object with the seeds
pooled, then the totals. Batches are kept in FOLDER, below names that settings and meshes decide: a run that was stopped
goes on where it was, and more objects or seeds only add to it. Every start counts as tried, and all processor time of
synthesis and simulation counts; preparing an object (its distance field, its convex pieces) does not.
"""

from __future__ import annotations

import argparse
import hashlib
from collections.abc import Sequence
from fnmatch import fnmatch
from pathlib import Path
from typing import NamedTuple

import numpy as np
from quality import contact_distance, judged, make

import conf
from bimangrasp.hand_files.loading import load_hands
from bimangrasp.poses import Poses
from bimangrasp.synthesis import set_determinism
from bimangrasp.validation.config import STAGES
from bimangrasp.validation.evaluate import Evaluation
from bimangrasp.validation.summary import Summary, object_success_rate, summary_of
from bimangrasp.validation.verdict import Reason
from scale.settings.parsing import resolve_objects
from scale.settings.schema import Config

HEADINGS = (
    "object | GSR % | both hands % | PD mm | SPD mm | D | H | contacts mm | synthesis CPU s | simulation CPU s"
    " | hold a CPU s | failed by"
)


class Batch(NamedTuple):
    """Grasps of one object and seed with their verdicts.

    Attributes:
        evaluation: the verdicts.
        contact_distance: mean distance of each grasp's contacts to the surface, m.
        synthesis_s, simulation_s: of processor time, for the whole batch.
    """

    evaluation: Evaluation
    contact_distance: np.ndarray
    synthesis_s: float
    simulation_s: float

    @property
    def count(self) -> int:
        """How many grasps were tried."""
        return len(self.evaluation.reason)


def measured(config: Config, mesh: Path, seed: int) -> Batch:
    """Returns a batch, made and judged by this process."""
    made = make(config, mesh, seed)
    evaluation, seconds = judged(made, mesh, config)
    return Batch(evaluation, contact_distance(made.synthesis), made.seconds, seconds)


def save(batch: Batch, path: Path) -> None:
    """Writes a batch."""
    stages = {
        f"stage/{stage}/{name}": part
        for stage, poses in zip(STAGES, batch.evaluation.stages, strict=True)
        for name, part in poses._asdict().items()
    }
    columns = {f"verdict/{name}": getattr(batch.evaluation, name) for name in Evaluation._fields[1:]}
    partial = path.with_suffix(".part.npz")
    np.savez(partial, **stages, **columns, **{name: getattr(batch, name) for name in Batch._fields[1:]})
    partial.rename(path)


def load(path: Path) -> Batch:
    """Reads a batch."""
    with np.load(path) as file:
        stages = tuple(Poses(*(file[f"stage/{stage}/{name}"] for name in Poses._fields)) for stage in STAGES)
        evaluation = Evaluation(stages, *(file[f"verdict/{name}"] for name in Evaluation._fields[1:]))
        return Batch(evaluation, file["contact_distance"], float(file["synthesis_s"]), float(file["simulation_s"]))


def pooled(batches: Sequence[Batch]) -> Batch:
    """Returns the batches of one object as one."""
    evaluations = [batch.evaluation for batch in batches]
    stages = tuple(
        Poses(*(np.concatenate(parts) for parts in zip(*(e.stages[stage] for e in evaluations), strict=True)))
        for stage in range(len(STAGES))
    )
    columns = (np.concatenate([getattr(e, name) for e in evaluations]) for name in Evaluation._fields[1:])
    return Batch(
        Evaluation(stages, *columns),
        np.concatenate([batch.contact_distance for batch in batches]),
        sum(batch.synthesis_s for batch in batches),
        sum(batch.simulation_s for batch in batches),
    )


def row_of(summary: Summary, batch: Batch) -> str:
    """Returns a row of the table, under `HEADINGS`."""
    cost = batch.synthesis_s + batch.simulation_s
    figures = (
        f"{100 * summary.gsr:.1f}",
        f"{100 * summary.both_hands:.0f}",
        f"{1e3 * summary.pd:.2f}",
        f"{1e3 * summary.spd:.2f}",
        f"{summary.d:.3f}",
        f"{summary.h:.2f}",
        f"{1e3 * np.nanmean(batch.contact_distance):.1f}",
        f"{batch.synthesis_s / batch.count:.3f}",
        f"{batch.simulation_s / batch.count:.3f}",
        f"{summary.held / cost:.2f}",
        ", ".join(f"{name} {number}" for name, number in summary.reasons.items()) or "none",
    )
    return "| " + " | ".join((summary.code, *figures)) + " |"


def totals_of(summaries: Sequence[Summary], batches: Sequence[Batch]) -> str:
    """Returns what the whole set shows: means over the objects, costs over all grasps."""
    held, tried = sum(summary.held for summary in summaries), sum(summary.tried for summary in summaries)
    synthesis, simulation = (sum(getattr(b, name) for b in batches) for name in ("synthesis_s", "simulation_s"))
    both = sum(int(b.evaluation.bears_load[b.evaluation.reason == Reason.HELD].all(axis=1).sum()) for b in batches)
    rates = [summary.gsr for summary in summaries]
    osr = object_success_rate([b.evaluation.reason == Reason.HELD for b in batches])

    def mean(name: str) -> float:
        return float(np.mean([getattr(summary, name) for summary in summaries]))

    return (
        f"{len(summaries)} objects, {tried} grasps tried, {held} hold: mean GSR {100 * np.mean(rates):.1f} %, least "
        f"{100 * min(rates):.1f} %, OSR {100 * osr:.0f} %, mean PD {1e3 * mean('pd'):.2f} mm, SPD "
        f"{1e3 * mean('spd'):.2f} mm, D {mean('d'):.3f}, H {mean('h'):.2f}; both hands bear load in "
        f"{100 * both / max(held, 1):.1f} % of those that hold; synthesis {synthesis / tried:.3f} and simulation "
        f"{simulation / tried:.3f} CPU s a grasp; {held / (synthesis + simulation):.2f} hold a CPU second"
    )


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--object_root", nargs="+", default=[""], help="folders of prepared meshes")
    parser.add_argument("--objects", nargs="+", default=["*"], help="codes or globs, of all folders")
    parser.add_argument("--out", type=Path, required=True, help="folder of the batches")
    parser.add_argument("--set", default="", help="settings, parted by blanks")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1])
    parser.add_argument("--batch", type=int, default=32)
    options = parser.parse_args()
    set_determinism(1)
    config = conf.load(["curve_stride=0", *options.set.split(), f"round_batch_size={options.batch}"])
    decide = repr((config.synthesis, config.hand, config.pieces, config.poses, config.validation)).encode()
    options.out.mkdir(parents=True, exist_ok=True)
    entries = {entry.code: entry for root in options.object_root for entry in resolve_objects(root, "all")}
    codes = [code for code in entries if any(fnmatch(code, glob) for glob in options.objects)]
    hand = load_hands(config.hand)[0]
    print(f"| {HEADINGS} |\n|{'---|' * (HEADINGS.count('|') + 1)}", flush=True)
    summaries, batches = [], []
    for code in codes:
        parts, key = [], hashlib.sha256(decide + entries[code].path.read_bytes()).hexdigest()[:8]
        for seed in options.seeds:
            path = options.out / f"{key}_{code}_{seed}.npz"
            if not path.exists():
                save(measured(config, entries[code].path, seed), path)
            parts.append(load(path))
        batches.append(pooled(parts))
        summaries.append(summary_of(code, batches[-1].evaluation, hand))
        print(row_of(summaries[-1], batches[-1]), flush=True)
    print(f"\n{totals_of(summaries, batches)}")


if __name__ == "__main__":
    main()
