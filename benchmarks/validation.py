"""How many grasps a second a core validates, and whether threads add up.

`python benchmarks/validation.py --grasps 16 --threads 1 2`
"""

from __future__ import annotations

import argparse
import time
from collections import Counter
from pathlib import Path

import numpy as np
import torch
import trimesh
from omegaconf import OmegaConf

import conf
from bimangrasp import builtin, synthesis
from bimangrasp.hand_model import HandModel
from bimangrasp.hands import load_hands
from bimangrasp.object_model import ObjectModel
from bimangrasp.rotation import rot6d_to_matrix
from bimangrasp.validation.poses import GraspPoses, HandPoses
from bimangrasp.validation.protocol import ProtocolConfig
from bimangrasp.validation.scene import build_scene
from bimangrasp.validation.simulate import validate_all
from bimangrasp.validation.verdict import Verdict
from conf.overrides import FOLDER

SCALE = 0.15
OPENING_M, OPENING_RAD = 0.01, 0.1
"""How far hands are back and fingers open before a grasp, as BiDexGrasp opened BimanGrasp's."""


def protocol(name: str) -> ProtocolConfig:
    """Returns a shipped protocol without limits at the start: what is refused there costs no time."""
    unlimited = {f"{kind}_penetration": float("inf") for kind in ("hand_object", "hand_hand", "total")}
    shipped = OmegaConf.load(FOLDER / "validation" / f"{name}.yaml")
    return OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(ProtocolConfig), shipped, {"limits": unlimited}))


def read_pieces(mesh: str, folder: str | None) -> list[np.ndarray]:
    """Returns the convex pieces of a folder, else the mesh's hull, at the size that is grasped."""
    files = sorted(Path(folder).glob("coacd_convex_piece_*.obj")) if folder else []
    parts = [trimesh.load(file) for file in files] or [trimesh.load(mesh).convex_hull]
    return [SCALE * np.asarray(part.vertices) for part in parts]


def make_grasps(hands: HandModel, mesh: str, count: int, steps: int) -> list[GraspPoses]:
    """Returns grasps of the optimiser with a plain opening and squeeze."""
    config = conf.load([f"round_batch_size={count}", f"num_iterations={steps}", f"object.scales=[{SCALE}]"])
    made = synthesis.synthesize(hands, ObjectModel.load(mesh, config.object), config.synthesis, 1).grasps
    rotation = rot6d_to_matrix(made.rotation.double())
    back = OPENING_M * torch.einsum("bhij,hj->bhi", rotation, hands.palm_normal.double())
    bend = OPENING_RAD * torch.sign(hands.joint_mean.double())
    places = made.translation.double(), rotation, made.joints.double()

    def poses(row: int, away: float, closing: float) -> HandPoses:
        translation, turn, joints = (part[row] for part in places)
        moved = translation - away * back[row], turn, joints + closing * bend
        return HandPoses(*(part.numpy() for part in moved))

    return [GraspPoses(poses(row, 1, -1), poses(row, 0, 0), poses(row, 0, 1)) for row in range(count)]


def reasons_of(verdicts: list[Verdict]) -> str:
    """Returns how the grasps fared."""
    return ", ".join(f"{reason.name.lower()} {count}" for reason, count in Counter(v.reason for v in verdicts).items())


def main() -> None:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--mesh", default=str(builtin.OBJECT_ROOT / "box.obj"))
    parser.add_argument("--pieces", help="folder with coacd_convex_piece_*.obj of that mesh; without it, its hull")
    parser.add_argument("--grasps", type=int, default=16)
    parser.add_argument("--steps", type=int, default=400, help="of the optimiser")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    given = parser.parse_args()
    config = conf.load()
    synthesis.set_determinism(1)
    hands = HandModel(*load_hands(config.hand), config.hand.surface_points)
    pieces = read_pieces(given.mesh, given.pieces)
    grasps = make_grasps(hands, given.mesh, given.grasps, given.steps)
    print(f"{given.mesh}, {len(pieces)} convex pieces, {given.grasps} grasps, hand {config.hand.name}")
    print("| protocol | threads | grasps/s | CPU ms a grasp | verdicts |\n|---|---|---|---|---|")
    for name in ("bench", "paper"):
        scene = build_scene(*hands.descriptions, pieces, protocol(name))
        for threads in given.threads:
            wall, cpu = time.perf_counter(), time.process_time()
            verdicts = list(validate_all(scene, grasps, threads))
            wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
            rate, cost = len(grasps) / wall, 1e3 * cpu / len(grasps)
            print(f"| {name} | {threads} | {rate:.2f} | {cost:.0f} | {reasons_of(verdicts)} |")


if __name__ == "__main__":
    main()
