"""Measures what a step of the sampler costs, in which parts, and how far that is from the lower bound.

`python benchmarks/step.py --mesh bin.obj --batches 16 64 256`
"""

from __future__ import annotations

import argparse
import resource
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import replace

import torch

import conf
from bimangrasp import builtin, synthesis
from bimangrasp.energy.config import resolve_kernels
from bimangrasp.energy.fused.evaluator import FusedEvaluator
from bimangrasp.grasp import Grasps
from bimangrasp.hand_files.loading import load_hands
from bimangrasp.hands.model import HandModel
from bimangrasp.objects.model import ObjectModel

RELEASED_STEPS = 10_000
RELEASED_CPU_MS = {8: 114, 16: 162, 32: 285}  # the released code on one thread of such a machine
CALLS = 20  # between two events of a GPU
FLOPS_PER_DISTANCE = 25  # of a point to a capsule or box in its own frame: turn, fold, length


def milliseconds(bodies: Sequence[Callable[[], object]], device: torch.device, times: int) -> list[float]:
    """Returns the median time of a call of each, ms, once the device has done it.

    They take turns, so that a processor whose speed changes is as fast for the one as for the other. A GPU is given
    `CALLS` in a row between two of its own events: launches then do not count where the device is busy.
    """
    lap_of = _events if device.type == "cuda" else _clock
    laps = [[lap_of(body, device) for body in bodies] for _ in range(times)]
    return [statistics.median(of_body) for of_body in zip(*laps, strict=True)]


def _clock(body: Callable[[], object], _: torch.device) -> float:
    """Returns the time of a call on the CPU, ms."""
    start = time.perf_counter()
    body()
    return 1e3 * (time.perf_counter() - start)


def _events(body: Callable[[], object], device: torch.device) -> float:
    """Returns the time of a call on a GPU, ms."""
    first, last = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    with torch.cuda.device(device):
        first.record()
        for _ in range(CALLS):
            body()
        last.record()
        last.synchronize()
    return first.elapsed_time(last) / CALLS


def flops(device: torch.device) -> float:
    """Returns the multiplications and additions a second that a large float32 product reaches here."""
    size = 512 if device.type == "cpu" else 4096
    left = torch.rand((size, size), device=device)
    return 2 * size**3 / (1e-3 * milliseconds([lambda: left @ left], device, 20)[0])


def fast_steps() -> int:
    """Returns how many steps `experiment=fast` makes."""
    return conf.load(["experiment=fast"]).num_iterations


def pairs(scene: synthesis.Scene) -> int:
    """Returns how many distances of points to shapes a sample has in all, near and far."""
    config, shapes = scene.config, len(scene.hands.shapes.link)
    towards = 1 if config.energy.inter_hand == "right_points" else 2
    return shapes * (2 * len(scene.obj.surface_points) + towards * scene.hands.surface.shape[1])


def measure(scene: synthesis.Scene, grasps: Grasps, steps: int) -> None:
    """Prints the table of one batch size."""
    device, batch = scene.hands.device, len(scene.object_scale)
    costs = scene.evaluator()
    energy = synthesis.grasp_energy(scene, costs)
    descent = synthesis.begin(scene, costs, grasps, torch.Generator(device).manual_seed(0))
    milliseconds([descent.advance], device, 5)
    bodies = [descent.advance, lambda: energy(grasps.pose, grasps.candidate)]
    whole, evaluation = milliseconds(bodies, device, steps)
    floor = 1e3 * batch * pairs(scene) * FLOPS_PER_DISTANCE / flops(device)
    print(f"\nbatch {batch}: {whole:.2f} ms a step, {1e3 / whole:.0f} steps/s, {1e3 * whole / batch:.0f} us a sample")
    rates = [f"{1e3 * batch / whole / count:.3g} at {count} steps" for count in (RELEASED_STEPS, fast_steps())]
    print(f"  raw grasps/s: {rates[0]}, {rates[1]} (experiment=fast)")
    if device.type == "cpu" and batch in RELEASED_CPU_MS:
        print(f"  released code: {RELEASED_CPU_MS[batch]} ms, {RELEASED_CPU_MS[batch] / whole:.0f} times this")
    print(f"  every distance, none culled, at the rate of a matrix product: {floor:.2f} ms, {whole / floor:.2f} of it")
    print(f"  proposal, acceptance and the rest of the sampler: {100 * (whole - evaluation) / whole:.0f} %")
    if isinstance(costs, FusedEvaluator):
        names, kernels = zip(*costs.parts(), strict=True)
        taken = milliseconds(kernels, device, steps)
        for part in dict.fromkeys(names):
            time_of_part = sum(duration for name, duration in zip(names, taken, strict=True) if name == part)
            print(f"  {part}: {time_of_part:.3f} ms, {100 * time_of_part / whole:.0f} %")
        print(f"  room for an evaluation: {costs.bytes / batch / 1e6:.3f} MB a grasp")
    if device.type == "cuda":
        free, total = torch.cuda.mem_get_info(device)
        print(f"  device memory in use: {(total - free) / 1e9:.2f} GB, {(total - free) / batch / 1e6:.2f} MB a grasp")


def main() -> None:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--mesh", default=str(builtin.OBJECT_ROOT / "storage_bin.obj"))
    parser.add_argument("--batches", type=int, nargs="+", default=[16, 64, 256])
    parser.add_argument("--steps", type=int, default=100, help="measured; as many again make the grasps")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("overrides", nargs="*", help="settings, such as hand=release kernels=plain")
    options = parser.parse_args()
    config = conf.load(["experiment=released", "curve_stride=0", *options.overrides])
    synthesis.set_determinism(1)
    hands = HandModel(*load_hands(config.hand), config.hand.surface_points, options.device)
    obj = ObjectModel.load(options.mesh, config.object, options.device)
    print(f"{options.mesh} on {options.device}, hand {config.hand.name}, kernels {resolve_kernels(config.kernels)}")
    for batch in options.batches:
        settings = replace(config.synthesis, round_batch_size=batch, num_iterations=options.steps)
        result = synthesis.synthesize(hands, obj, settings, 0)
        scene = synthesis.Scene(hands, obj, result.object_scale, replace(settings, num_iterations=RELEASED_STEPS))
        measure(scene, result.grasps, options.steps)
    print(f"\npeak memory of the process: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3:.0f} MB")


if __name__ == "__main__":
    main()
