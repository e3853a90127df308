"""How long `main.py` takes to answer where settings and files alone decide: a status table and refusals of all modes.

python benchmarks/start.py
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
REPEATS = 5
CALLS = {
    "status of a run": ["mode=status"],
    "unknown key": ["seed_bas=1"],
    "value out of range": ["optimizer.step_size=-1"],
    "unknown object": ["object_code_list=[nothing]"],
    "resume=false": ["resume=false"],
    "nothing to validate": ["mode=validate"],
    "nothing to export": ["mode=export"],
    "nothing to import": ["mode=import", "path=nowhere.npy"],
    "nothing to view": ["mode=view", "path=nowhere"],
    "no file of a hand": ["mode=hand", "hand.mjcf=nowhere.xml"],
    "no folder of meshes": ["mode=objects", "object_root=nowhere"],
}


def main() -> None:
    """Prints the median time of each call, s."""
    with tempfile.TemporaryDirectory(prefix="start_") as name:
        run = Path(name) / "data" / "experiments" / "demo"
        run.mkdir(parents=True)
        (run / "journal.jsonl").write_text('{"event": "objects", "time": 0.0, "indices": {"mug": 0}}\n')
        for what, arguments in CALLS.items():
            print(f"{what:20} {statistics.median(seconds(arguments, Path(name)) for _ in range(REPEATS)):.2f} s")


def seconds(arguments: list[str], folder: Path) -> float:
    """Returns the time that one call takes, s."""
    start = time.perf_counter()
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    subprocess.run(
        [sys.executable, str(ROOT / "main.py"), *arguments], cwd=folder, env=environment, capture_output=True
    )
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
