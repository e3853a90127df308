"""Compares the data sets that two versions of this program make from the same settings, column by column.

    python benchmarks/same_grasps.py COMMIT [case ...]

checks COMMIT out beside the present tree, runs both here and names every column, attribute and file that differs.
Settings are written out below and never left to a default, so that a default may change without a word from here.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import h5py
import numpy as np

ROOT = Path(__file__).resolve().parents[1]
COMMON = """
mode=scale exp_name=same object_code_list=[storage_bin,bowl] target_count_per_object=10 round_batch_size=8
experiment=fast num_iterations=60 contacts_per_hand=4 curve_stride=20 seed_base=3 gpus=[cpu] threads=1 tile=0
max_rounds=12 max_barren_rounds=0 merge_stride=1 keep_intermediate=true validators=1 logger=none
energy.w_fc=1.0 energy.w_dis=100.0 energy.w_pen=125.0 energy.w_spen=10.0 energy.w_joints=1.0 energy.w_vew=0.5
energy.w_depth=0.0 energy.w_equilibrium=0.0 energy.friction=0.3 energy.keypoint_distance=0.02
energy.inter_hand=right_points
optimizer.step_size=0.005 optimizer.step_decay=0.95 optimizer.step_decay_every=50 optimizer.temperature=18.0
optimizer.temperature_decay=0.95 optimizer.temperature_decay_every=30 optimizer.second_moment_decay=0.98
optimizer.preconditioner_floor=1.0e-6 optimizer.noise_factor=0.1 optimizer.switch_probability=0.5
optimizer.switch_probability_max=0.9 optimizer.proposal_ratio=false optimizer.preconditioner=batch optimizer.keep=last
optimizer.schedule_steps=auto
initialization.hull_inflation=0.2 initialization.distance_min=0.2 initialization.distance_max=0.3
initialization.cone_rad=0.5235987755982988 initialization.tilt_rad=1.0471975511965976 initialization.joint_spread=0.1
initialization.hull_samples_per_grasp=100 initialization.follow_size=false
object.scales=[0.15,0.16,0.17] object.sizes=null object.surface_points=500 object.surface_samples_per_point=10
object.interior_faces=keep object.grid_cells=48
poses.rule=contacts poses.clearance=0.01 poses.damping=0.03 poses.opening=0.1 poses.retreat=0.01 poses.squeeze=1.0
"""
OURS = """
energy.w_depth=300.0 energy.w_joints=30.0 energy.w_spen=50.0 energy.inter_hand=symmetric energy.w_equilibrium=50.0
filter=energy filter.force_closure=3.0 filter.distance=0.9 filter.penetration=1.0 filter.depth=1.0
filter.equilibrium=1.0 dedup.translation=0.05 dedup.rotation=0.5 dedup.joints=0.5 keep_failed=true rejected_cap=20
"""
CASES = {
    f"{name}-{kernels}": [*settings.split(), f"kernels={kernels}"]
    for name, settings in {
        "released": "hand=shadow hand.surface_points=256 filter=none",
        "ours": f"hand=shadow hand.surface_points=256 {OURS}",
        "allegro": "hand=allegro hand.surface_points=256 filter=none",
        "physics": "hand=shadow hand.surface_points=256 filter=physics validation=bench object_code_list=[box] "
        "target_count_per_object=2 max_rounds=2 keep_failed=true rejected_cap=20 num_iterations=400 "
        "energy.w_depth=300.0",
    }.items()
    for kernels in ("plain", "warp")
    if (name, kernels) != ("physics", "plain")
}
"""Name -> overrides, after those that all have in common."""


def main() -> int:
    """Returns 0 where every case gives the same data set under both versions."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("commit", help="the version to compare the present tree with")
    parser.add_argument("case", nargs="*", help=f"among {', '.join(CASES)}; all where none is named")
    arguments = parser.parse_args()
    unknown = sorted(set(arguments.case) - set(CASES))
    if unknown:
        parser.error(f"unknown cases {unknown}: choose among {', '.join(CASES)}")
    failed = 0
    with tempfile.TemporaryDirectory(prefix="same_grasps_") as scratch:
        other = check_out(arguments.commit, Path(scratch) / "other")
        for case in arguments.case or CASES:
            runs = [make(tree, case, Path(scratch) / case / tree.name) for tree in (other, ROOT)]
            differing = list(differences(*runs))
            failed += bool(differing)
            print(f"{case}: {'DIFFERS' if differing else f'same, {summary(runs[1])}'}", flush=True)
            for line in differing:
                print(f"  {line}")
    return int(failed > 0)


def check_out(commit: str, target: Path) -> Path:
    """Returns a folder with the files of a commit."""
    target.mkdir()
    archive = subprocess.run(["git", "-C", ROOT, "archive", commit], check=True, capture_output=True).stdout
    subprocess.run(["tar", "-x", "-C", target], input=archive, check=True)
    return target


def make(tree: Path, case: str, out: Path) -> Path:
    """Returns the run folder that a version of the program makes; 3, an object that fell short, is an outcome too."""
    command = [sys.executable, tree / "main.py", *COMMON.split(), *CASES[case], f"output_root={out}"]
    environment = os.environ | {"PYTHONPATH": str(tree), "BIMANGRASP_CACHE": str(out / "cache")}
    ran = subprocess.run(command, env=environment, capture_output=True, text=True, cwd=out.parents[1])
    if ran.returncode not in (0, 3):
        raise SystemExit(f"{case} ended with {ran.returncode} in {tree}:\n{ran.stdout}{ran.stderr}")
    return out / "same"


def files_of(run: Path) -> dict[str, Path]:
    """Returns what is compared of a run: final files, rejected grasps, sealed rounds and verdicts, by relative name.

    The names of sealed files carry the hash of their bytes; folders carry the number of the process and are left out.
    """
    kinds = ("final", "rejected", "shards", "verdicts")
    return {f"{kind}/{path.name}": path for kind in kinds for path in sorted((run / kind).rglob("*.h5"))}


def differences(before: Path, after: Path) -> Iterator[str]:
    """Yields a line for everything in which two runs differ."""
    old, new = files_of(before), files_of(after)
    yield from (f"{name} is only there before" for name in sorted(old.keys() - new.keys()))
    yield from (f"{name} is only there after" for name in sorted(new.keys() - old.keys()))
    if not old:
        yield "the run before left no file"
    for name in sorted(old.keys() & new.keys()):
        if old[name].read_bytes() == new[name].read_bytes():
            continue
        lines = list(_contents(old[name], new[name]))
        yield from (f"{name}: {line}" for line in lines or ["bytes differ outside of columns and attributes"])


def _contents(before: Path, after: Path) -> Iterator[str]:
    """Yields the columns and attributes in which two files differ."""
    with h5py.File(before) as old, h5py.File(after) as new:
        first, second = _flat(old), _flat(new)
    for name in sorted(first.keys() | second.keys()):
        if name not in first or name not in second:
            yield f"{name} is only there {'before' if name in first else 'after'}"
        elif first[name] != second[name]:
            yield f"{name} differs"


def _flat(file: h5py.File) -> dict[str, tuple]:
    """Returns name -> dtype, shape and bytes of every column and attribute."""
    contents = {}

    def take(name: str, item: h5py.Group | h5py.Dataset) -> None:
        values = {f"{name}@{key}": value for key, value in item.attrs.items()}
        values |= {name: item[...]} if isinstance(item, h5py.Dataset) else {}
        for key, value in values.items():
            array = np.asarray(value)
            contents[key] = (str(array.dtype), array.shape, array.tobytes())

    take("", file)
    file.visititems(take)
    return contents


def summary(run: Path) -> str:
    """Returns how much was compared, so that an empty comparison shows."""
    files = files_of(run)
    grasps = rejected = 0
    for name, path in files.items():
        with h5py.File(path) as file:
            grasps += len(file["row"]) if name.startswith("final/") else 0
            rejected += len(file["row"]) if name.startswith("rejected/") else 0
    return f"{len(files)} files, {grasps} grasps, {rejected} rejected"


if __name__ == "__main__":
    sys.exit(main())
