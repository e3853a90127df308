"""Measures how fast, and in how much memory, a data set of grasps is read.

    python benchmarks/loading.py [--grasps 1000000] [--objects 100] [--folder /tmp]

writes final files of random grasps and reads them back by `bimangrasp.load`, each case in a process of its own, from
the page cache; poses and object scale, where it does not say all columns. `anonymous` is memory that is the process's
own (without its workers'); `mapped` are pages of files that it has touched, which the system takes back when it needs
them.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
from torch.utils.data import DataLoader

import bimangrasp
from bimangrasp.files.dataset import GraspDataset
from bimangrasp.files.formats import final_image
from bimangrasp.files.header import Ending, HandTable, Header
from bimangrasp.files.schema import FINAL_FIELDS, shape_of
from scale.merge.final_file import dataset_image

JOINTS, CONTACTS, BATCH = 22, 4, 1024
TRAINING = ("hand/translation", "hand/rotation", "hand/joints", "object_scale")
ROWS_AT_RANDOM = 20_000


def write_files(folder: Path, grasps: int, objects: int) -> Path:
    """Writes a run's folder with so many grasps and returns its `dataset.h5`; files of equal content differ in name."""
    rows = grasps // objects
    sizes = {"N": rows, "J": JOINTS, "C": CONTACTS, "R": 1, "P": 0}
    draw = np.random.default_rng(0)
    columns = {f.name: draw.normal(size=shape_of(f, sizes)).astype(f.dtype) for f in FINAL_FIELDS}
    (folder / "final").mkdir(parents=True)
    names = tuple(f"J{number}" for number in range(JOINTS))
    hand = HandTable("toy", "ab" * 32, names, np.array([["tip"] * 140] * 2), np.zeros((2, 140, 3), np.float32))
    links = {}
    for number in range(objects):
        code = f"object_{number:05d}"
        header = Header(code, number, "00" * 32, hand, {}, {}, {})
        image = final_image(header, Ending({}, rows, True, "quota"), columns)
        (folder / "final" / f"{code}.h5").write_bytes(image)
        links[code] = f"final/{code}.h5"
    (folder / "dataset.h5").write_bytes(dataset_image(links))
    return folder / "dataset.h5"


class Memory:
    """The most memory that this process held while the block ran, beyond what it held before, MB; looked at often."""

    def __enter__(self) -> Memory:
        """Starts looking."""
        self.largest, self._before, self._over = {}, self._now(), threading.Event()
        self._thread = threading.Thread(target=self._look)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Looks once more."""
        self._over.set()
        self._thread.join()

    def _look(self) -> None:
        while True:
            is_over = self._over.wait(0.01)
            for kind, held in self._now().items():
                self.largest[kind] = max(self.largest.get(kind, 0.0), held - self._before[kind])
            if is_over:
                return

    @staticmethod
    def _now() -> dict[str, float]:
        lines = (line.split() for line in Path("/proc/self/status").read_text().splitlines())
        return {parts[0]: int(parts[1]) / 1e3 for parts in lines if parts[0] in ("RssAnon:", "RssFile:")}


def scan(data: GraspDataset) -> int:
    """Returns grasps read one batch after the other."""
    for first in range(0, len(data), BATCH):
        data[first : first + BATCH].arrays()
    return len(data)


def shuffled(data: GraspDataset, workers: int, ours: bool = True) -> int:
    """Returns grasps that a DataLoader gave in random order."""
    collate = data.collate if ours else None
    loader = DataLoader(data, BATCH, shuffle=True, num_workers=workers, collate_fn=collate)
    return sum(len(batch["object"]) for batch in loader)


def one_by_one(data: GraspDataset) -> int:
    """Returns grasps read singly at random."""
    rows = np.random.default_rng(0).integers(0, len(data), ROWS_AT_RANDOM)
    for row in rows.tolist():
        data[row]
    return len(rows)


def one_by_one_h5py(path: Path) -> int:
    """Returns grasps read singly at random by h5py, with all files open, for comparison."""
    with h5py.File(path) as file:
        sets = [[file[code][name] for name in TRAINING] for code in file]
        count = len(sets[0][0])
        for row in np.random.default_rng(0).integers(0, count * len(sets), ROWS_AT_RANDOM).tolist():
            for dataset in sets[row // count]:
                dataset[row % count]
    return ROWS_AT_RANDOM


def a_filter(data: GraspDataset) -> int:
    """Returns grasps that a filter looked at."""
    data.where(lambda g: g["energy/total"] < 0)
    return len(data)


CASES: dict[str, Callable[[GraspDataset], int]] = {
    "in order, all columns": scan,
    "in order": lambda data: scan(data.select(*TRAINING)),
    "filter on one column": a_filter,
    "shuffled, no worker": lambda data: shuffled(data.select(*TRAINING), 0),
    "shuffled, 2 workers": lambda data: shuffled(data.select(*TRAINING), 2),
    "shuffled, no worker, torch's collate": lambda data: shuffled(data.select(*TRAINING), 0, ours=False),
    "one by one at random": lambda data: one_by_one(data.select(*TRAINING)),
}
OPEN, H5PY = "open", "one by one at random, by h5py"


def measure(name: str, path: Path) -> None:
    """Prints one case as JSON."""
    data = bimangrasp.load(path) if name in CASES else None
    with Memory() as memory:
        start = time.perf_counter()
        if data is not None:
            grasps = CASES[name](data)
        else:
            grasps = len(bimangrasp.load(path)) if name == OPEN else one_by_one_h5py(path)
        seconds = time.perf_counter() - start
    print(json.dumps({"grasps": grasps, "seconds": seconds, "most": memory.largest}))


def main() -> int:
    """Measures all cases, or one in this process."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--grasps", type=int, default=1_000_000)
    parser.add_argument("--objects", type=int, default=100)
    parser.add_argument("--folder", type=Path, help="for the files; else the system's temporary folder")
    parser.add_argument("--case", nargs=2, metavar=("NAME", "PATH"), help="measure one case here")
    options = parser.parse_args()
    if options.case:
        measure(options.case[0], Path(options.case[1]))
        return 0
    with tempfile.TemporaryDirectory(dir=options.folder) as scratch:
        path = write_files(Path(scratch) / "run", options.grasps, options.objects)
        size = sum(file.stat().st_size for file in path.parent.glob("final/*"))
        print(f"{options.grasps} grasps of {options.objects} objects, {size / 1e6:.0f} MB", flush=True)
        print("| | grasps/s | s | anonymous, MB | mapped, MB |\n|---|---|---|---|---|", flush=True)
        for name in (OPEN, *CASES, H5PY):
            command = [sys.executable, __file__, "--case", name, str(path)]
            environment = {**os.environ, "OMP_NUM_THREADS": "1"}
            process = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
            figures = json.loads(process.stdout)
            speed = f"{figures['grasps'] / figures['seconds']:.3g}"
            held = " | ".join(f"{figures['most'][kind]:.0f}" for kind in ("RssAnon:", "RssFile:"))
            print(f"| {name} | {speed} | {figures['seconds']:.2f} | {held} |", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
