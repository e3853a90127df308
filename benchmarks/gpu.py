"""Checks and measures a GPU: `python benchmarks/gpu.py`, in under 8 minutes, without network.

Prints a section for benchmarks/README.md. Exits with 1 where a check fails, and with 2 on a machine without CUDA;
`--device cpu` does all there but what needs a recorded graph or streams. Checks: values and gradients against plain
PyTorch in float64 on the device; recorded steps, kernels one after another, another tile and a second round against the
first, bit for bit; a round that memory is too short for; a run of two objects by the command line.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from step import milliseconds

import conf
from bimangrasp import builtin, synthesis
from bimangrasp.energy.config import resolve_kernels
from bimangrasp.energy.energies import PlainEvaluator
from bimangrasp.energy.fused import branches, evaluator
from bimangrasp.energy.fused.evaluator import FusedEvaluator
from bimangrasp.grasp import Grasps
from bimangrasp.hand_files.loading import load_hands
from bimangrasp.hands.model import HandModel
from bimangrasp.objects.model import ObjectModel, read_mesh
from bimangrasp.sampler import cuda_graph
from scale.engine.devices import package_version
from scale.engine.interfaces import Halved, RoundJob
from scale.engine.synthesizer import OptimizerRunner
from scale.engine.worker import compute_round
from scale.settings.schema import Config

MESH = str(builtin.OBJECT_ROOT / "storage_bin.obj")
RELEASED_STEPS = 10_000
VALUE_ERROR, GRADIENT_ERROR = 1e-5, 1e-5
"""Largest median error, relative: what tests hold the CPU to is a tenth."""
SLACK_BYTES = 300 << 20
"""Left free at first on a device that is held full, beside the room of a part of a round."""
LEAST_BYTES = 128 << 20
LARGE_BATCH = 2048
"""Takes 0.6 GB, far more than libraries keep for later."""
NO_CUDA = 2


@dataclass
class Bench:
    """The models on a device.

    Attributes:
        config: settings of a small round, the recommended preset.
        device: as torch calls it.
        hands, obj: the models.
    """

    config: Config
    device: torch.device
    hands: HandModel
    obj: ObjectModel

    @classmethod
    def on(cls, device: str, batch: int, *overrides: str, dtype: torch.dtype = torch.float32) -> Bench:
        """Returns hands and an object on a device."""
        config = conf.load([f"round_batch_size={batch}", *overrides])
        hands = HandModel(*load_hands(config.hand), config.hand.surface_points, device, dtype)
        return cls(config, hands.device, hands, ObjectModel(read_mesh(MESH), config.object, device, dtype))

    def round(self, steps: int, seed: int = 1, **settings: object) -> synthesis.Synthesis:
        """Returns a round."""
        chosen = replace(self.config.synthesis, num_iterations=steps, **settings)
        return synthesis.synthesize(self.hands, self.obj, chosen, seed)

    @property
    def is_gpu(self) -> bool:
        """Whether this is no CPU."""
        return self.device.type == "cuda"


# ---- checks: each returns what is wrong, empty where nothing is


def parity(device: str, batch: int) -> str:
    """Compares the kernels with plain float64 on the same device, on grasps near contact."""
    bench, exact = Bench.on(device, batch), Bench.on(device, batch, dtype=torch.float64)
    made = bench.round(60)
    scale, energy, grasps = made.object_scale, bench.config.energy, made.grasps
    contacts = bench.config.contacts_per_hand
    fused = FusedEvaluator(bench.hands, bench.obj, scale, energy, batch, contacts)
    plain = PlainEvaluator(exact.hands, exact.obj, scale.double(), energy)
    double = Grasps(grasps.translation.double(), grasps.rotation.double(), grasps.joints.double(), grasps.candidate)
    ours = fused.evaluation(grasps.pose, grasps.candidate, slice(None))
    truth = plain.evaluation(double.pose, double.candidate, slice(None))
    value = ((ours.energy - truth.energy).abs() / truth.energy.abs()).median()
    error = (ours.gradient - truth.gradient).flatten(1).norm(dim=1) / truth.gradient.flatten(1).norm(dim=1)
    gradient = error.median()
    if value <= VALUE_ERROR and gradient <= GRADIENT_ERROR:
        return ""
    return f"median errors against float64: energy {value:.1e}, gradient {gradient:.1e}"


def recorded_steps(device: str, batch: int) -> str:
    """Compares steps replayed from a graph with steps launched one by one."""
    bench, eager = Bench.on(device, batch), cuda_graph.EAGER_STEPS
    recorded = bench.round(60)
    cuda_graph.EAGER_STEPS = 10**9
    try:
        return differing(recorded, bench.round(60), "recorded and eager steps")
    finally:
        cuda_graph.EAGER_STEPS = eager


def branched(device: str, batch: int) -> str:
    """Compares a round whose kernels run side by side with one where they run one after another."""
    bench = Bench.on(device, batch)
    beside = bench.round(60)
    with in_a_row():
        return differing(beside, bench.round(60), "kernels side by side and one after another")


@contextmanager
def in_a_row() -> Iterator[None]:
    """Lets no kernels run side by side."""
    before, branches.IS_BESIDE = branches.IS_BESIDE, False
    try:
        yield
    finally:
        branches.IS_BESIDE = before


def repeated(device: str, batch: int) -> str:
    """Compares two rounds, and one that is computed in tiles."""
    bench = Bench.on(device, batch)
    first = bench.round(60)
    tiles = differing(first, bench.round(60, tile=max(1, batch // 3)), "a round and the same in tiles")
    return differing(first, bench.round(60), "two rounds of one seed") or tiles


def differing(first: synthesis.Synthesis, second: synthesis.Synthesis, what: str) -> str:
    """Returns in how many grasps two rounds differ, in words."""
    same = (first.grasps.pose == second.grasps.pose).flatten(1).all(dim=1)
    same &= (first.energies.total == second.energies.total) | first.energies.total.isnan()
    return "" if same.all() else f"{what} differ in {int((~same).sum())} of {len(same)} grasps"


class _Messages:
    """Stands for the pipe to the parent: keeps what is said."""

    def __init__(self) -> None:
        self.halved: list[int] = []

    def send(self, message: object) -> None:
        """Notes that a tile was halved."""
        if isinstance(message, Halved):
            self.halved.append(message.tile)


def short_memory(device: str, _: int) -> str:
    """Makes a large round with room for half of it: the worker must halve its tile, and finish.

    A CPU does it with a thread for each point as well, for without these threads' room memory hardly gets short.
    """
    before, evaluator.has_many_threads = evaluator.has_many_threads, lambda _: True
    try:
        return _halves(device, LARGE_BATCH)
    finally:
        evaluator.has_many_threads = before


def _halves(device: str, batch: int) -> str:
    bench = Bench.on(device, batch, "num_iterations=3", "curve_stride=0")
    bench.round(3)  # loads kernels, and whatever else stays
    scene = synthesis.Scene(
        bench.hands, bench.obj, torch.full((batch,), 0.1, device=bench.device), bench.config.synthesis
    )
    room = scene.evaluator().bytes
    job = RoundJob("bin", 0, MESH, bench.obj.sha256, 0, 1, 0, batch)
    runner = OptimizerRunner(bench.hands, bench.config.synthesis, device, {})
    said = _Messages()
    _ = bench.obj.grid, bench.hands.spheres
    left = room * 3 // 4 + SLACK_BYTES
    while not said.halved and left > LEAST_BYTES:  # what was freed before and is kept for later is room as well
        runner._object.cache_clear()
        with holding(bench.device, left):
            result = compute_round(runner, job, said)
        left //= 2
    if not said.halved:
        return "memory was not short enough to try it"
    return "" if result.tile_used == said.halved[-1] < batch else f"the round ended with tile {result.tile_used}"


@contextmanager
def holding(device: torch.device, left: int) -> Iterator[None]:
    """Leaves so many bytes free."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
        free, _ = torch.cuda.mem_get_info(device)
        held = torch.empty(max(0, free - left), dtype=torch.uint8, device=device)
        yield
        del held
        torch.cuda.empty_cache()
        return
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + left, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


def whole_run(device: str, batch: int) -> str:
    """Runs the command for two objects."""
    gpus = device.partition(":")[2] or "0"
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "main.py", "mode=scale", "exp_name=bench", f"output_root={folder}", "filter=none"]
        command += [f"gpus=[{gpus if device != 'cpu' else 'cpu'}]", f"round_batch_size={batch}", "num_iterations=20"]
        command += [f"target_count_per_object={batch + 1}"]
        done = subprocess.run(command, cwd=Path(__file__).parents[1], capture_output=True, text=True, check=False)
        if done.returncode:
            return f"exit code {done.returncode}: {(done.stderr or done.stdout).strip()[-300:]}"
        manifest = json.loads((Path(folder) / "bench" / "manifest.json").read_text())
    counts = {code: entry["collected"] for code, entry in manifest["objects"].items()}
    return "" if set(counts.values()) == {batch + 1} else f"wanted {batch + 1} grasps each, got {counts}"


CHECKS: dict[str, Callable[[str, int], str]] = {
    "kernels and gradients against plain float64": parity,
    "recorded steps give the bits of eager ones": recorded_steps,
    "kernels side by side give the bits of kernels in a row": branched,
    "equal bits of a second round and of tiles": repeated,
    "short memory halves the tile": short_memory,
    "`mode=scale` of two objects": whole_run,
}

GPU_ALONE = (recorded_steps, branched)
"""Checks of what a CPU does not do."""


# ---- figures


def speeds(device: str, batches: list[int], steps: int) -> Iterator[str]:
    """Yields the rows of the table of speeds: both kernel paths and both settings."""
    for experiment in ("released", "firm"):
        for kernels in ("warp", "warp in a row", "plain") if device != "cpu" else ("warp", "plain"):
            for batch in batches:
                try:
                    with in_a_row() if "row" in kernels else nullcontext():
                        yield speed_row(device, experiment, kernels, batch, steps)
                except (RuntimeError, MemoryError) as error:
                    text = str(error).strip().splitlines()[0][:60]
                    yield f"| {experiment} | {kernels} | {batch} | - | - | - | {text} |"


def speed_row(device: str, experiment: str, kernels: str, batch: int, steps: int) -> str:
    """Returns a row: steps and grasps a second, time to the first step, memory."""
    bench = Bench.on(device, batch, f"experiment={experiment}", f"kernels={kernels.split()[0]}", "curve_stride=0")
    if bench.is_gpu:
        torch.cuda.reset_peak_memory_stats(bench.device)
    begun = time.perf_counter()
    bench.round(1)
    _wait(bench)
    start = time.perf_counter() - begun
    taken = []
    for count in (steps, 2 * steps):  # the difference is free of start and end
        begun = time.perf_counter()
        bench.round(count)
        _wait(bench)
        taken.append(time.perf_counter() - begun)
    rate = steps / max(taken[1] - taken[0], 1e-9)
    whole = RELEASED_STEPS if experiment == "released" else bench.config.num_iterations
    return (
        f"| {experiment} | {kernels} | {batch} | {rate:.0f} | {batch / (whole / rate + start):.3g} | {start:.2f} "
        f"| {_memory(bench) / 1e9:.2f} |"
    )


def _wait(bench: Bench) -> None:
    if bench.is_gpu:
        torch.cuda.synchronize(bench.device)


def _memory(bench: Bench) -> int:
    """Returns bytes in use: on a GPU by all that is there, for Warp's room is not PyTorch's."""
    if bench.is_gpu:
        free, total = torch.cuda.mem_get_info(bench.device)
        return total - free
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def parts(device: str, batch: int, times: int) -> Iterator[str]:
    """Yields the rows of the table of parts of an evaluation of the preset."""
    bench = Bench.on(device, batch)
    made = bench.round(30)
    contacts = bench.config.contacts_per_hand
    costs = FusedEvaluator(bench.hands, bench.obj, made.object_scale, bench.config.energy, batch, contacts)
    costs.evaluation(made.grasps.pose, made.grasps.candidate, slice(None))
    names, launches = zip(*costs.parts(), strict=True)
    taken = milliseconds(launches, bench.device, times)
    for part in dict.fromkeys(names):
        total = sum(duration for name, duration in zip(names, taken, strict=True) if name == part)
        yield f"| {part} | {batch} | {1000 * total:.0f} |"


def about(device: str) -> str:
    """Returns hardware and versions in a sentence."""
    versions = [f"{name} {package_version(name)}" for name in ("torch", "warp-lang", "numpy", "mujoco")]
    cores = f"{len(os.sched_getaffinity(0))} cores of {platform.machine()}"
    if device == "cpu":
        return f"CPU alone, {cores}; Python {platform.python_version()}, {', '.join(versions)}"
    found = torch.cuda.get_device_properties(device)
    driver = Path("/proc/driver/nvidia/version")
    line = driver.read_text().splitlines()[0].split("  ") if driver.exists() else ["", "driver unknown"]
    facts = [
        found.name,
        f"{found.total_memory / 1e9:.0f} GB, sm_{found.major}{found.minor}",
        " ".join(line[1:3]).strip(),
    ]
    return (
        f"{', '.join(facts)}, CUDA {torch.version.cuda}, {cores}; Python {platform.python_version()}, "
        f"{', '.join(versions)}"
    )


def main() -> None:
    """Prints the section."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cuda:0")
    parser.add_argument("--batches", type=int, nargs="+", default=[32, 512, 2048, 8192])
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--check_batch", type=int, default=64)
    options = parser.parse_args()
    is_gpu = options.device != "cpu"
    if is_gpu and not torch.cuda.is_available():
        sys.stderr.write("no CUDA device: --device cpu does here what needs none\n")
        sys.exit(NO_CUDA)
    synthesis.set_determinism(1)
    kernels = resolve_kernels("auto")
    print(
        f"## {'A GPU' if is_gpu else 'The same without a GPU'}\n\n`python benchmarks/gpu.py`: {about(options.device)};"
    )
    print(f"kernels {kernels}.\n\n| check | |\n|---|---|")
    has_failed = False
    for name, check in CHECKS.items():
        if check in GPU_ALONE and not is_gpu:
            print(f"| {name} | not on a CPU |", flush=True)
            continue
        wrong = check(options.device, options.check_batch)
        has_failed |= bool(wrong)
        print(f"| {name} | {wrong or 'yes'} |", flush=True)
    print(f"\n| experiment | kernels | batch | steps/s | raw grasps/s | start s | memory GB |\n|{7 * '---|'}")
    for row in speeds(options.device, options.batches, options.steps):
        print(row, flush=True)
    print("\n| part of a step of the preset | batch | us |\n|---|---|---|")
    for batch in options.batches:
        for row in parts(options.device, batch, 20):
            print(row, flush=True)
    sys.exit(int(has_failed))


if __name__ == "__main__":
    main()
