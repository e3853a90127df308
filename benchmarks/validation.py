"""Measures how many grasps a second a core validates, and whether threads add up.

`python benchmarks/validation.py --grasps 16 --threads 1 2`
"""

from __future__ import annotations

import argparse
import time
from collections import Counter
from dataclasses import replace
from math import inf

import conf
from bimangrasp import builtin, synthesis
from bimangrasp.hand_files.loading import load_hands
from bimangrasp.hands.model import HandModel
from bimangrasp.objects.convex_pieces import convex_pieces
from bimangrasp.objects.model import ObjectModel
from bimangrasp.poses import Poses
from bimangrasp.validation.config import ProtocolConfig
from bimangrasp.validation.evaluate import Evaluation, Simulations, evaluate_grasps
from bimangrasp.validation.pose_rules import ObjectGrasps
from bimangrasp.validation.verdict import Reason
from scale.engine.synthesizer import columns_from
from scale.settings.schema import Config


def unlimited(name: str) -> ProtocolConfig:
    """Returns a shipped protocol without limits at the start: what is refused there costs no time."""
    protocol = conf.load([f"validation={name}"]).validation
    limits = {f"{kind}_penetration": inf for kind in ("hand_object", "hand_hand", "total")}
    return replace(protocol, limits=replace(protocol.limits, **limits))


def make_grasps(config: Config, hands: HandModel, mesh: str) -> ObjectGrasps:
    """Returns grasps of the optimizer."""
    synthesis.set_determinism(1)
    columns = columns_from(synthesis.synthesize(hands, ObjectModel.load(mesh, config.object), config.synthesis, 1))
    poses = Poses(*(columns[f"hand/{part}"] for part in Poses._fields))
    return ObjectGrasps(poses, *(columns[name] for name in ("contact/candidate", "contact/normal", "object_scale")))


def reasons_of(evaluation: Evaluation) -> str:
    """Returns how the grasps fared."""
    counts = Counter(Reason(reason) for reason in evaluation.reason.tolist())
    return ", ".join(f"{reason.name.lower()} {count}" for reason, count in sorted(counts.items()))


def main() -> None:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--mesh", default=str(builtin.OBJECT_ROOT / "box.obj"))
    parser.add_argument("--grasps", type=int, default=16)
    parser.add_argument("--steps", type=int, default=400, help="of the optimizer")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    options = parser.parse_args()
    config = conf.load(
        [
            "experiment=null",
            f"round_batch_size={options.grasps}",
            f"num_iterations={options.steps}",
            "object.scales=[0.15]",
        ]
    )
    hands = HandModel(*load_hands(config.hand), config.hand.surface_points)
    pieces = [piece.vertices for piece in convex_pieces(options.mesh, config.pieces).pieces]
    grasps = make_grasps(config, hands, options.mesh)
    print(f"{options.mesh}, {len(pieces)} convex pieces, {options.grasps} grasps, hand {config.hand.name}")
    print("| protocol | threads | grasps/s | CPU ms a grasp | verdicts |\n|---|---|---|---|---|")
    for name in ("bench", "paper"):
        for threads in options.threads:
            wall, cpu = time.perf_counter(), time.process_time()
            evaluation = evaluate_grasps(hands, pieces, grasps, unlimited(name), config.poses, Simulations(threads))
            wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
            rate, cost = options.grasps / wall, 1e3 * cpu / options.grasps
            print(f"| {name} | {threads} | {rate:.2f} | {cost:.0f} | {reasons_of(evaluation)} |")


if __name__ == "__main__":
    main()
