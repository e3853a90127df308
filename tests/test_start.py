"""What settings and files alone decide is answered at once: nothing is loaded that computes grasps or reads meshes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import h5py
import pytest
import quick_conf

from bimangrasp.config import ALGORITHM_VERSION
from scale.settings import fingerprints
from scale.store.events import CallStarted, ObjectsIndexed
from scale.store.journal import Journal
from scale.store.run_folder import RunFolder

ROOT = Path(__file__).resolve().parents[1]
SLOW = {"torch", "mujoco", "scipy", "trimesh", "warp"}
CALLS = """
import contextlib, io, json, sys
import main
answers = []
for arguments in json.loads(sys.argv[1]):
    sys.argv[1:] = arguments
    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        code = main.main()
    answers.append((code, said.getvalue(), sorted({name.partition(".")[0] for name in sys.modules})))
print(json.dumps(answers))
"""

REFUSALS = [
    (["seed_bas=1"], "did you mean 'seed_base'"),
    (["optimizer.step_size=-1"], "optimizer.step_size=-1.0 is out of range"),
    (["kernels=nonsense"], "kernels='nonsense' is unknown"),
    (["object_code_list=[nothing]"], "object_code_list names 'nothing'"),
    (["object_root=nowhere"], "is no folder"),
    (["target_count_per_object={nothing:3}"], "target_count_per_object names 'nothing'"),
    (["seed_base=7"], "seed_base: 1 in the folder, 7 in this call"),
    (["dry_run=true", "energy.w_pen=7"], "energy.w_pen: 125.0 in the folder, 7.0 in this call"),
    (["mode=generate", "filter=physics"], "take filter=none and test the grasps with mode=validate"),
    (["resume=false"], "resume=false, but the run folder data/experiments/demo was used before"),
    (["mode=report", "path=nowhere"], "holds no run"),
    (["mode=view", "path=nowhere"], "nowhere is not there"),
    (["mode=view", "dry_run=true"], "it has no plan to print"),
    (["mode=validate"], "no run folder with final files"),
    (["mode=export"], "has no grasp files"),
    *(([f"mode={mode}", "path=moved/dataset.h5"], "links to final/*.h5") for mode in ("view", "export", "validate")),
    (["mode=validate", "path=moved"], "links to final/*.h5"),
    (["mode=status", "path=moved/dataset.h5"], "is a file: wanted the folder of a run"),
    (["mode=report", "path=moved/dataset.h5"], "is a file: wanted the folder of a run"),
    (["mode=import", "path=nowhere.npy"], "result file nowhere.npy is not there"),
    (["mode=hand", "hand.mjcf=nowhere.xml"], "hand.mjcf='nowhere.xml' is no file"),
    (["mode=objects", "object_root=nowhere"], "is no folder"),
]
"""Arguments of a call, and words of its refusal."""


@pytest.fixture
def made(tmp_path: Path) -> Path:
    """A folder with the journal of a run `demo` that has begun."""
    (tmp_path / "data" / "experiments" / "demo").mkdir(parents=True)
    folder = RunFolder(tmp_path / "data" / "experiments" / "demo")
    folder.prepare()
    key = json.loads(json.dumps(fingerprints.run_key(quick_conf.load(), "any", ALGORITHM_VERSION)))
    journal = Journal(folder)
    journal.append(CallStarted(format_version=1, run_key=key, acceptance_key={}, quotas={"mug": 3}))
    journal.append(ObjectsIndexed(indices={"mug": 0}))
    journal.close()
    (tmp_path / "moved").mkdir()
    with h5py.File(tmp_path / "moved" / "dataset.h5", "w") as links:
        links["mug"] = h5py.ExternalLink("final/mug.h5", "/")
    return tmp_path


def answers(folder: Path, calls: list[list[str]]) -> list[tuple[int, str, list[str]]]:
    """Returns exit code, words and loaded packages of calls, made one after the other in a process of their own."""
    command = [sys.executable, "-c", CALLS, json.dumps(calls)]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_a_status_and_refusals_load_nothing_that_computes(made: Path):
    status, *refusals = answers(made, [["mode=status"], *(arguments for arguments, _ in REFUSALS)])
    assert status[0] == 0 and "mug" in status[1] and "hydra" in status[2] and not SLOW & set(status[2])
    for (arguments, words), (code, said, loaded) in zip(REFUSALS, refusals, strict=True):
        assert code == 2 and words in said, (arguments, said)
        assert not SLOW & set(loaded), arguments
