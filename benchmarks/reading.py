"""Measures how long a worker reads the built-in objects: `python benchmarks/reading.py`, a row of a table for each."""

from __future__ import annotations

import time

import torch

import conf
from bimangrasp.builtin import OBJECT_ROOT
from bimangrasp.objects.model import ObjectModel


def main() -> None:
    """Prints processor seconds of loading and of the grid of signed distances, on one thread."""
    torch.set_num_threads(1)
    config = conf.load().object
    for path in sorted(OBJECT_ROOT.glob("*.obj")):
        times = [time.process_time()]
        obj = ObjectModel.load(str(path), config)
        times.append(time.process_time())
        nodes = obj.grid.values.numel()
        times.append(time.process_time())
        load, grid = (after - before for before, after in zip(times, times[1:], strict=False))
        print(f"| {path.stem} | {len(obj.mesh.corners)} | {nodes} | {load:.1f} | {grid:.1f} |")


if __name__ == "__main__":
    main()
