"""What a large run costs its parent: start, loop, screen, manifest, status, report, merge, with how they grow.

`PYTHONPATH=tests python benchmarks/cluster.py --objects 1000 3000 10000`

Planner, event loop, journal, merge and report are the real ones. Workers make rounds by a stand-in, and most objects
have ended in an earlier call, of whose journal and files this script makes copies.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import quick_conf
import trimesh
from stub_rounds import Stub

from scale.controller import event_loop, lifecycle
from scale.controller.run_report import RunReport
from scale.engine.process_pool import ProcessPool
from scale.settings.mesh_checks import check_objects
from scale.settings.parsing import resolve_objects
from scale.store.parts import Part, write_codes
from scale.store.run_folder import RunFolder, file_name

ROUNDS, ROWS = 30, 8
"""Rounds of an object, and grasps of a round, all of which count."""
OPEN_SHARE = 0.01
"""Share of the objects that the measured call makes."""
WORKERS = 2
ROOT = Path(__file__).parents[1]
LAUNCHER = """import resource, subprocess, sys
subprocess.run(sys.argv[1:], stdout=sys.stderr, check=True)
used = resource.getrusage(resource.RUSAGE_CHILDREN)
print(used.ru_utime + used.ru_stime, used.ru_maxrss)"""
LIMITS = {"resume_s": 120.0, "hold_s": 0.2, "round_ms": 10.0, "memory_mb": 1000.0, "status_s": 10.0}
"""What 10 000 objects may take, CPU seconds but for memory and the longest hold of the loop."""


def scale_run(root: Path, codes: list[str]) -> RunReport:
    """Runs the parent on these objects, with a stand-in for the optimizer."""
    config = replace(
        quick_conf.load(),
        object_root=str(root / "meshes"),
        output_root=str(root),
        exp_name="run",
        object_code_list=codes,
        round_batch_size=ROWS,
        target_count_per_object=ROWS * ROUNDS,
        gpus=["cpu"] * WORKERS,
    )
    return lifecycle.run(config, lambda *_: Stub(nan_share=0.0, rows=ROWS))


def make_meshes(root: Path, codes: list[str]) -> None:
    """Writes one box under many names."""
    meshes = root / "meshes"
    meshes.mkdir(parents=True)
    first = meshes / f"{codes[0]}.obj"
    trimesh.creation.box((0.2, 0.2, 0.2)).export(first)
    for code in codes[1:]:
        os.link(first, meshes / f"{code}.obj")


def multiply(folder: RunFolder, first: str, ended: list[str], codes: list[str]) -> None:
    """Makes a run of one object one of many, of which some have ended: copies its file and its lines."""
    lines = [json.loads(line) for line in folder.journal.read_text().splitlines()]
    of_run = [line for line in lines if "code" not in line and line["event"] not in ("objects", "end")]
    of_object = [line for line in lines if line.get("code") == first]
    with folder.journal.open("w") as journal:
        of_run[0]["quotas"] = dict.fromkeys(codes, ROWS * ROUNDS)
        indexed = {"event": "objects", "time": 0.0, "indices": {code: index for index, code in enumerate(codes)}}
        for line in (*of_run, indexed):
            journal.write(json.dumps(line) + "\n")
        for index, code in enumerate(ended):
            path = folder.final(code)
            if code != first:
                shutil.copyfile(folder.final(first), path)
                with h5py.File(path, "r+") as file:
                    file.attrs["object_code"], file.attrs["object_index"] = code, index
            for line in of_object:
                journal.write(json.dumps(_told_of(line, code, index, path)) + "\n")
        journal.write(json.dumps({"event": "end", "time": lines[-1]["time"], "exit_code": 130}) + "\n")


def _told_of(line: dict[str, Any], code: str, index: int, path: Path) -> dict[str, Any]:
    """Returns a line about one object as one about another."""
    told = line | {"code": code}
    if "shard" in told:
        told["shard"] = told["shard"].replace(file_name(line["code"]), file_name(code))
    if told["event"] == "merged":
        state = path.stat()
        told |= {"size": state.st_size, "mtime_ns": state.st_mtime_ns}
        told["table"] = told["table"] | {"index": index}
    return told


class Watch:
    """What the parent's thread spends: until the first round is handed out, and in each turn of its loop."""

    def __init__(self) -> None:
        self.first: float | None = None
        self.holds: list[float] = []
        self._left: float | None = None

    def see(self) -> None:
        """Looks at the loop of the next run from here on."""
        assign, events = ProcessPool.assign, event_loop.events

        def seen_assign(*arguments: Any) -> None:
            if self.first is None:
                self.first = time.thread_time()
            assign(*arguments)

        def seen_events(*arguments: Any) -> Any:
            if self._left is not None and self.first is not None:
                self.holds.append(time.thread_time() - self._left)
            yield from events(*arguments)
            self._left = time.thread_time()

        ProcessPool.assign, event_loop.events = seen_assign, seen_events


def measured(objects: int, root: Path) -> dict[str, float]:
    """Returns the figures of one size, in a folder that is used for nothing else."""
    codes = [f"object_{number:05d}" for number in range(objects)]
    ended = codes[: objects - max(1, int(OPEN_SHARE * objects))]
    make_meshes(root, codes)
    os.environ["BIMANGRASP_CACHE"] = str(root / "cache")
    check_objects(resolve_objects(str(root / "meshes"), codes), quick_conf.load().object)
    scale_run(root, codes[:1])
    folder = RunFolder(root / "run")
    multiply(folder, codes[0], ended, codes)
    event_loop.MANIFEST_EVERY_S = 2.0
    watch, begun = Watch(), time.thread_time()
    watch.see()
    report = scale_run(root, codes)
    assert report.exit_code == 0 and len(report.paths) == objects, str(report)[-500:]
    rounds = ROUNDS * (objects - len(ended))
    figures = {
        "resume_s": watch.first - begun,
        "round_ms": 1000 * sum(watch.holds) / rounds,
        "hold_s": max(watch.holds),
        "memory_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "journal_mb": folder.journal.stat().st_size / 1e6,
        "manifest_mb": folder.manifest.stat().st_size / 1e6,
    }
    for mode in ("status", "report"):
        figures |= timed(mode, root)
    _make_part(root, codes)
    return figures | timed("merge", root)


def _make_part(root: Path, codes: list[str]) -> None:
    """Makes a run the only part of itself."""
    whole = root / "whole"
    (root / "run").rename(whole)
    (root / "run").mkdir()
    part = whole.rename(root / "run" / Part(1, 1).name)
    write_codes(RunFolder(part), codes)


def timed(mode: str, root: Path) -> dict[str, float]:
    """Returns CPU seconds and memory of a command on the run."""
    command = [sys.executable, "main.py", f"mode={mode}", f"output_root={root}", "exp_name=run"]
    with tempfile.TemporaryFile() as output:
        launcher = [sys.executable, "-c", LAUNCHER, *command]  # a child's memory counts from that of who starts it
        done = subprocess.run(launcher, stdout=subprocess.PIPE, stderr=output, cwd=ROOT, text=True, check=False)
        output.seek(0)
        assert done.returncode == 0, output.read()[-500:].decode()
    spent, memory = map(float, done.stdout.split())
    return {f"{mode}_s": spent, f"{mode}_mb": memory / 1024}


def growth(sizes: list[int], values: list[float]) -> float:
    """Returns the power of the number of objects with which values grow, fitted; 1 is linear."""
    return float(np.polyfit(np.log(sizes), np.log(np.maximum(values, 1e-6)), 1)[0])


def main() -> None:
    """Prints a row for each figure."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--objects", type=int, nargs="+", default=[1000, 3000, 10_000])
    parser.add_argument("--json", action="store_true", help="of one size, for another process to read")
    options = parser.parse_args()
    if options.json:
        with tempfile.TemporaryDirectory(prefix="cluster_") as folder:
            sys.stderr.write(f"{folder}\n")
            print(json.dumps(measured(options.objects[0], Path(folder))))
        return
    rows = []
    for size in options.objects:
        command = [sys.executable, __file__, "--objects", str(size), "--json"]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        rows.append(json.loads(done.stdout.splitlines()[-1]))
    print(f"| objects | {' | '.join(map(str, options.objects))} | grows with | limit |\n|{'---|' * (len(rows) + 3)}")
    for name in rows[0]:
        values = [row[name] for row in rows]
        power = f"{growth(options.objects, values):.2f}" if len(rows) > 1 else "-"
        limit = f"{LIMITS[name]:g}" if name in LIMITS else ""
        print(f"| {name} | {' | '.join(f'{value:.3g}' for value in values)} | {power} | {limit} |")


if __name__ == "__main__":
    main()
