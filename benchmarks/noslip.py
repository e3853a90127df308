r"""Measures what a grasp's verdict loses, and what time it gains, where slip is undone only near the limits.

    python benchmarks/noslip.py RUN/shards/*.h5 --object_root DATA

simulates the grasps of each file with the passes that undo slip and without them, as filter=physics does, and prints
which verdicts differ, for several margins of `validation.physics.noslip=near`.
"""

from __future__ import annotations

import argparse
import math
import time
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

import conf
from bimangrasp.hand_files.loading import load_hands
from bimangrasp.hands.model import HandModel
from bimangrasp.objects.convex_pieces import convex_pieces
from bimangrasp.objects.files import mesh_of
from bimangrasp.validation.config import ProtocolConfig
from bimangrasp.validation.evaluate import Evaluation, Simulations, evaluate_grasps
from bimangrasp.validation.verdict import Reason
from scale.modes.validate import Given, read_grasps
from scale.settings.schema import Config

MARGINS = ((0.0, 0.0), (0.055, 20.0), (0.06, 25.0), (0.07, 30.0), (0.1, 45.0), (math.inf, math.inf))
"""Displacement, m, and rotation, degrees, below which a failure is narrow."""


class Run(NamedTuple):
    """The verdicts on some grasps, and the processor time of each, s."""

    evaluation: Evaluation
    seconds: np.ndarray


class Pair(NamedTuple):
    """The same grasps with and without the passes that undo slip."""

    undone: Run
    slipping: Run


def run(hands: HandModel, pieces: list[np.ndarray], given: Given, protocol: ProtocolConfig, config: Config) -> Run:
    """Returns the verdicts of a protocol, each grasp pushed until it is lost."""
    begun: list[float] = []
    simulations = Simulations(until_lost=True, on_grasp=lambda row: begun.append(time.process_time()))  # noqa: ARG005
    evaluation = evaluate_grasps(hands, pieces, given.subject, protocol, config.poses, simulations)
    return Run(evaluation, np.diff([*begun, time.process_time()]))


def pair_of(path: Path, config: Config) -> Pair:
    """Returns both runs on a file's grasps."""
    hands = HandModel(*load_hands(config.hand), config.hand.surface_points)
    given = read_grasps(path, hands, config)
    pieces = [piece.vertices for piece in convex_pieces(mesh_of(config.object_root, given.code), config.pieces).pieces]
    physics = replace(config.validation.physics, noslip="all")
    protocols = (
        replace(config.validation, physics=replace(physics, **less)) for less in ({}, {"noslip_iterations": 0})
    )
    return Pair(*(run(hands, pieces, given, protocol, config) for protocol in protocols))


def row_of(pairs: list[Pair], displacement: float, degrees: float) -> str:
    """Returns a row of the table: what simulating again below a margin costs, and where it errs."""
    counts, seconds, whole = np.zeros(4, int), 0.0, 0.0
    for undone, slipping in pairs:
        found = slipping.evaluation
        is_narrow = (~found.held & (found.displacement < displacement) & (found.rotation < math.radians(degrees))).any(
            axis=1
        )
        holds, holds_without = (one.evaluation.reason == Reason.HELD for one in (undone, slipping))
        says = np.where(is_narrow, holds, holds_without)
        counts += [len(says), is_narrow.sum(), (holds & ~says).sum(), (says & ~holds).sum()]
        seconds += slipping.seconds.sum() + undone.seconds[is_narrow].sum()
        whole += undone.seconds.sum()
    tried, again, lost, gained = counts
    return f"| {1e3 * displacement:g} | {degrees:g} | {again} of {tried} | {lost} | {gained} | {seconds / whole:.2f} |"


def confusion(pairs: list[Pair]) -> str:
    """Returns how many grasps hold with and without the passes."""
    holds = [np.concatenate([pair[kind].evaluation.reason == Reason.HELD for pair in pairs]) for kind in (0, 1)]
    rows = [
        f"| {name} | {(mask & holds[1]).sum()} | {(mask & ~holds[1]).sum()} |"
        for name, mask in (("hold", holds[0]), ("fail", ~holds[0]))
    ]
    return "\n".join(["| with, down; without, across | hold | fail |", "|---|---|---|", *rows])


def main() -> None:
    """Prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="+", type=Path, help="grasp files: shards, or files before a filter")
    parser.add_argument("--object_root", default="", help="folder of meshes; empty for the built-in objects")
    parser.add_argument("--set", default="", help="settings on top of experiment=null, parted by blanks")
    options = parser.parse_args()
    config = conf.load(["experiment=null", f"object_root={options.object_root}", *options.set.split()])
    pairs = []
    for path in options.files:
        pairs.append(pair_of(path, config))
        undone, slipping = (one.seconds.mean() for one in pairs[-1])
        print(
            f"{path.name}: {len(pairs[-1].undone.seconds)} grasps, {undone:.2f} and {slipping:.2f} CPU s each",
            flush=True,
        )
    print(confusion(pairs), "\n")
    print("| narrow below mm | degrees | simulated again | lost | gained | CPU time |\n|---|---|---|---|---|---|")
    for margin in MARGINS:
        print(row_of(pairs, *margin))


if __name__ == "__main__":
    main()
