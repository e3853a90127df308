"""What safety costs: of each round, as a share of one of 30 s; and of a merge of a million grasps, beside a live loop.

`PYTHONPATH=tests python benchmarks/safety.py --grasps 1000000`
"""

from __future__ import annotations

import argparse
import hashlib
import os
import pickle
import resource
import signal
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
from stub_rounds import Stub

from bimangrasp.files.header import Ending, HandTable, Header
from bimangrasp.files.schema import CURVE_FIELDS, GRASP_FIELDS, shape_of
from scale.engine.devices import Device
from scale.engine.interfaces import Died
from scale.engine.pool import Crew, events
from scale.engine.process_pool import ProcessPool
from scale.engine.worker import SYNTHESIS
from scale.merge.job import MergeJob, MergeRound
from scale.merge.merge_thread import MergeThread
from scale.merge.round_records import JudgedRound
from scale.settings import filters
from scale.settings.schema import FilterConfig
from scale.store import shards
from scale.store.events import RoundDone
from scale.store.journal import Journal, entry_text, write_manifest
from scale.store.run_folder import RunFolder

ROUND_S, MANIFEST_EVERY_S = 30.0, 30.0
SIZES = {"J": 22, "C": 4, "P": 11, "R": 1}
PLATFORM = {"torch": "2"}
OBJECTS = 200  # in the manifest
KILLS, KILL_EVERY_S = 4, 1.0  # during a merge


def round_result(rows: int, seed: int) -> dict[str, np.ndarray]:
    """Returns the columns of a round, as large as the optimizer's."""
    draw, columns = np.random.default_rng(seed), {}
    for f in (*GRASP_FIELDS, *CURVE_FIELDS):
        if f.name not in ("seed", "round", "row"):
            shape = shape_of(f, SIZES | {"N": rows})
            columns[f.name] = draw.random(shape[1:] if f in CURVE_FIELDS else shape).astype(f.dtype)
    return columns


def header() -> Header:
    """Returns a header with tables of usual size."""
    links = np.full((2, 140), "link")
    hand = HandTable("hand", "ab" * 32, tuple(f"joint_{n}" for n in range(22)), links, np.zeros((2, 140, 3), "f4"))
    return Header("mug", 0, "cd" * 32, hand, {}, {"contacts_per_hand": 4}, {}, (PLATFORM,))


def seconds(body: Callable[[int], object], times: int) -> float:
    """Returns the mean time of a call."""
    start = time.perf_counter()
    for n in range(times):
        body(n)
    return (time.perf_counter() - start) / times


def price_a_round(folder: RunFolder, rows: int, times: int = 20) -> None:
    """Prints what a round pays, in its worker and in the parent."""
    columns = round_result(rows, 0)
    place, book = folder.place(9, 9), Journal(folder)
    facts = {"code": "mug", "seed": 1, "rows": rows, "accepted": rows, "sha256": "ab" * 32, "tile_used": rows}
    entry = {"index": 1, "quota": 1000, "collected": 500, "skipped": [], "sha256": "ab" * 32, "notes": []}
    entries = {f"object_{n}": entry_text(entry) for n in range(OBJECTS)}
    seal = seconds(lambda n: shards.seal(folder, place, header(), shards.round_columns(columns, n, n, rows)), times)
    sealed = folder.sealed_in(place)
    parts = {
        "seal: image, write, fsync, rename, fsync of the folder": seal,
        "verify in the parent": seconds(lambda n: shards.verify(sealed[n]), times),
        "two lines of the journal, synced": 2 * seconds(lambda n: book.append(RoundDone(round_id=n, **facts)), times),
        f"its share of the manifest of {OBJECTS} objects": seconds(lambda _: write_manifest(folder, {}, entries), times)
        * ROUND_S
        / MANIFEST_EVERY_S,
    }
    for what, cost in (*parts.items(), ("together", sum(parts.values()))):
        print(f"{what}: {cost * 1e3:.1f} ms, {100 * cost / ROUND_S:.3f} % of a round of {ROUND_S:.0f} s")
    for path in sealed:
        path.unlink()
    book.close()


def million(folder: RunFolder, grasps: int, rows: int) -> MergeJob:
    """Returns the merge of so many grasps, whose shards are sealed."""
    columns, table = round_result(rows, 0), []
    for n in range(-(-grasps // rows)):
        path = shards.seal(folder, folder.place(0, 0), header(), shards.round_columns(columns, n, n, rows))
        sha256, kept = shards.verify(path).sha256, min(rows, grasps - n * rows)
        table.append(MergeRound(n, JudgedRound(n, rows, rows, PLATFORM, sha256, path, rows), kept, 0, True))
    accept = filters.Accept(FilterConfig("none", 1.0, 1.0, 1.0, 1.0, 1.0))
    return MergeJob(replace(header(), platforms=()), Ending({}, grasps, True, "quota"), tuple(table), None, 0, accept)


def resident() -> int:
    """Returns the process's memory, bytes, without pages of files."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def sha256_rate(length: int = 2**27) -> float:
    """Returns bytes per second of one SHA-256: a merge takes five of each byte, and shared machines vary."""
    return length / seconds(lambda _: hashlib.sha256(bytes(length)), 1)


def price_a_merge(folder: RunFolder, job: MergeJob) -> None:
    """Prints a merge's time and memory, how long the loop was held, and when a death was noticed.

    The workers that are killed are ready before, for a start would take a core of what is measured.
    """
    crew = Crew(SYNTHESIS, pickle.dumps(Stub(delay=600)), header(), 1, startup_s=600, heartbeat_s=600)
    engine = ProcessPool(folder, crew, dict.fromkeys(range(KILLS), Device("cpu", "")))
    living = [engine.start(slot) for slot in range(KILLS)]
    while not all(worker.is_ready for worker in living):
        list(events([engine], 0.1))
    merger, before, peak, longest, noticed = MergeThread(folder), resident(), 0, 0.0, []
    merger.submit(job)
    start = last = killed_at = time.perf_counter()
    cpu = time.process_time()
    while merger.pending:
        for event in events([engine], 0.01, merger.wake):
            if isinstance(event.message, Died):
                noticed.append(time.perf_counter() - killed_at)
        for outcome in merger.outcomes():
            assert outcome.error is None, outcome.error
        now = time.perf_counter()
        longest, last, peak = max(longest, now - last), now, max(peak, resident())
        if living and now - killed_at > KILL_EVERY_S:
            killed_at = now
            os.kill(living.pop().pid, signal.SIGKILL)
    took, cpu = time.perf_counter() - start, time.process_time() - cpu
    engine.stop()
    merger.close()
    grasps = sum(round_.kept for round_ in job.rounds)
    size = folder.final("mug").stat().st_size
    print(f"merge of {grasps} grasps in {len(job.rounds)} rounds ({size / 1e9:.2f} GB): {took:.1f} s, {cpu:.1f} s CPU")
    print(f"one SHA-256 of so many bytes: {size / sha256_rate():.1f} s; load {os.getloadavg()[0]:.1f}")
    print(f"memory beyond that before it: {(peak - before) / 1e6:.0f} MB")
    print(f"longest turn of the loop (it waits 0.01 s): {longest:.3f} s")
    print(f"workers killed during it: {len(noticed)}, noticed within {max(noticed, default=0.0):.3f} s")


def main() -> None:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--grasps", type=int, default=1_000_000)
    parser.add_argument("--rows", type=int, default=1024, help="of a round")
    parser.add_argument("--root", type=Path, default=None, help="a folder on the disk that is measured")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=given.root) as place:
        folder = RunFolder(place)
        folder.prepare()
        price_a_round(folder, given.rows)
        price_a_merge(folder, million(folder, given.grasps, given.rows))


if __name__ == "__main__":
    main()
