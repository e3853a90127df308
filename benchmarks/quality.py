r"""Measures how good the grasps of given settings are in MuJoCo, and what they cost.

    python benchmarks/quality.py --object_root DATA --objects NAME NAME --set experiment=fast \
        --set 'experiment=firm energy.w_depth=50' --poses poses.rule=palm --poses poses.rule=none

makes a batch for each `--set` (on top of `experiment=null`) and object, and prints a row for each of them, each
`--poses` and each protocol.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np

import conf
from bimangrasp.geometry.rotation import rot6d_to_matrix
from bimangrasp.grasp import Grasps
from bimangrasp.hand_files.loading import load_hands
from bimangrasp.hands.model import HandModel
from bimangrasp.objects.convex_pieces import convex_pieces
from bimangrasp.objects.model import ObjectModel
from bimangrasp.poses import Poses
from bimangrasp.synthesis import Synthesis, set_determinism, synthesize
from bimangrasp.validation.evaluate import Evaluation, Simulations, evaluate_grasps
from bimangrasp.validation.pose_rules import ObjectGrasps
from bimangrasp.validation.summary import Summary, summary_of
from scale.settings.parsing import resolve_objects
from scale.settings.schema import Config

HEADINGS = (
    "settings | poses | object | protocol | GSR | both hands | contacts mm | PD mm | SPD mm | D | H"
    " | CPU s a grasp | hold a CPU s | failed by"
)


class RoundResult(NamedTuple):
    """A batch of grasps and what it took.

    Attributes:
        synthesis: the grasps.
        seconds: of processor time, the object's preparation left out.
        obj: the object.
        hands: both hands.
    """

    synthesis: Synthesis
    seconds: float
    obj: ObjectModel
    hands: HandModel


def make(config: Config, mesh: Path, seed: int) -> RoundResult:
    """Returns the grasps of one round."""
    hands = HandModel(*load_hands(config.hand), config.hand.surface_points)
    obj = ObjectModel.load(str(mesh), config.object)
    if config.energy.w_depth:
        _ = obj.grid, hands.spheres  # once an object and hand, so no cost of a round
    begun = time.process_time()
    synthesis = synthesize(hands, obj, config.synthesis, seed)
    return RoundResult(synthesis, time.process_time() - begun, obj, hands)


def poses_of(grasps: Grasps) -> Poses:
    """Returns the poses of grasps as arrays."""
    rotation = rot6d_to_matrix(grasps.rotation.double()).float().numpy()
    return Poses(grasps.translation.numpy(), rotation, grasps.joints.numpy())


def judged(result: RoundResult, mesh: Path, config: Config, threads: int = 1) -> tuple[Evaluation, float]:
    """Returns the verdicts under the settings' protocol and pose rule, and the processor time that they took, s."""
    grasps = result.synthesis.grasps
    object_grasps = ObjectGrasps(
        poses_of(grasps),
        grasps.candidate.numpy().astype(np.int32),
        result.synthesis.contact_normal.numpy(),
        result.synthesis.object_scale.numpy(),
    )
    pieces = [piece.vertices for piece in convex_pieces(str(mesh), config.pieces).pieces]
    begun, how = time.process_time(), Simulations(threads)
    verdicts = evaluate_grasps(result.hands, pieces, object_grasps, config.validation, config.poses, how)
    return verdicts, time.process_time() - begun


def contact_distance(synthesis: Synthesis) -> np.ndarray:
    """Returns the mean distance of each grasp's contacts to the surface, m."""
    return synthesis.energies.distance.numpy() / synthesis.contact_point[0, ..., 0].numel()


def table_row(names: tuple[str, ...], result: RoundResult, summary: Summary) -> str:
    """Returns a row of the table, under `HEADINGS`."""
    count = len(result.synthesis.object_scale)
    figures = (
        f"{summary.gsr:.1%}",
        f"{summary.both_hands:.0%}",
        f"{1e3 * contact_distance(result.synthesis).mean():.2f}",
        f"{1e3 * summary.pd:.2f}",
        f"{1e3 * summary.spd:.2f}",
        f"{summary.d:.3f}",
        f"{summary.h:.2f}",
        f"{result.seconds / count:.2f}",
        f"{summary.held / result.seconds:.3f}",
        ", ".join(f"{name} {number}" for name, number in summary.reasons.items()),
    )
    return "| " + " | ".join((*names, *figures)) + " |"


def parser_of_batches(about: str | None, batch: int) -> argparse.ArgumentParser:
    """Returns a parser that knows what batches are made of; `batch` is how many grasps, unless told otherwise."""
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--object_root", default="", help="folder of meshes; empty for the built-in objects")
    parser.add_argument("--objects", nargs="+", required=True)
    parser.add_argument("--set", action="append", default=[], help="settings of a batch, parted by blanks")
    parser.add_argument("--batch", type=int, default=batch)
    parser.add_argument("--seed", type=int, default=1)
    return parser


def main() -> None:
    """Prints the table."""
    parser = parser_of_batches(__doc__, batch=64)
    parser.add_argument("--poses", action="append", default=[], help="settings of the pose rule, parted by blanks")
    parser.add_argument("--protocols", nargs="+", default=["bench", "paper"])
    parser.add_argument("--threads", type=int, default=2, help="that simulate")
    options = parser.parse_args()
    set_determinism(1)
    print(f"| {HEADINGS} |\n|{'---|' * (HEADINGS.count('|') + 1)}", flush=True)
    for settings in options.set or [""]:
        for entry in resolve_objects(options.object_root, options.objects):
            config = conf.load(
                ["experiment=null", f"round_batch_size={options.batch}", "curve_stride=0", *settings.split()]
            )
            result = make(config, entry.path, options.seed)
            for poses in options.poses or [""]:
                for protocol in options.protocols:
                    judging = conf.load([f"validation={protocol}", *poses.split()])
                    verdicts, _ = judged(result, entry.path, judging, options.threads)
                    figures = summary_of(entry.path.stem, verdicts, result.hands.descriptions[0])
                    print(table_row((settings, poses, entry.code, protocol), result, figures), flush=True)


if __name__ == "__main__":
    main()
