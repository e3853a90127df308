"""Prints what each kernel takes of a GPU: registers, spills and shared memory, as ptxas says. Needs no GPU.

    pip install nvidia-cuda-nvcc
    python benchmarks/registers.py

compiles all kernels of an evaluation to PTX with the compiler in Warp's wheel, and that to machine code with ptxas.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import tempfile
from importlib.util import find_spec
from pathlib import Path

import torch
import warp as wp

import conf
from bimangrasp import builtin, synthesis
from bimangrasp.energy.fused import evaluator, sampler_kernels
from bimangrasp.energy.fused.evaluator import CUDA_BLOCK
from bimangrasp.hand_files.loading import load_hands
from bimangrasp.hands.model import HandModel
from bimangrasp.objects.model import ObjectModel

HEADINGS = ("kernel", "threads a grasp", "registers", "stack B", "spill stores B", "spill loads B", "shared B")
STEPS = {
    "momentum": {"propose_momentum": 2, "settle_momentum": 1},
    "mala": {"square_sums": 2, "shared_moment": 1, "propose_langevin": 62, "settle_langevin": 1},
}
"""Kernels around an evaluation, with threads a grasp: two hands of 31 coordinates, a chunk of 32 samples."""
FIGURES = re.compile(
    r"Compiling entry function '(\w+)' for '\w+'.*?(\d+) bytes stack frame, (\d+) bytes spill stores, "
    r"(\d+) bytes spill loads.*?Used (\d+) registers(?:.*?(\d+) bytes smem)?",
    re.DOTALL,
)


def ptxas() -> Path:
    """Returns the assembler of the pip package nvidia-cuda-nvcc."""
    places = find_spec("nvidia").submodule_search_locations if find_spec("nvidia") else []
    found = [path for place in places for path in Path(place).rglob("ptxas")]
    if not found:
        raise SystemExit("no ptxas: pip install nvidia-cuda-nvcc")
    return found[0]


def kernels(overrides: list[str]) -> dict[str, tuple[wp.Module, int]]:
    """Returns key -> (module, threads a grasp) of the kernels of a step."""
    config = conf.load(["round_batch_size=1", "kernels=warp", *overrides])
    hands = HandModel(*load_hands(config.hand), config.hand.surface_points)
    obj = ObjectModel.load(str(builtin.OBJECT_ROOT / "box.obj"), config.object)
    scene = synthesis.Scene(hands, obj, torch.full((1,), 0.1), config.synthesis)
    evaluator.has_many_threads = lambda device: True  # noqa: ARG005 - the kernels that a GPU gets
    made = {}
    for kernel in scene.evaluator().program.kernels:
        threads = 1
        for size in kernel.dims:
            threads *= size
        before = made.get(kernel.launch.kernel.key, (None, 0))[1]
        made[kernel.launch.kernel.key] = (kernel.launch.kernel.module, max(threads, before))
    for name, threads in STEPS[config.optimizer.method].items():
        kernel = getattr(sampler_kernels, name)
        made[kernel.key] = (kernel.module, threads)
    return made


def figures(module: wp.Module, arch: int, assembler: Path) -> dict[str, list[int]]:
    """Returns entry function -> [stack, spill stores, spill loads, registers, shared], bytes."""
    module.options["block_dim"] = CUDA_BLOCK
    with tempfile.TemporaryDirectory() as folder:
        (made,) = wp.compile_aot_module(module, arch=arch, module_dir=folder, use_ptx=True)
        text = Path(folder) / "kernels.ptx"
        text.write_bytes(made.read_bytes().rstrip(b"\0"))
        command = [str(assembler), "-v", f"--gpu-name=sm_{arch}", str(text), "-o", f"{folder}/kernels.cubin"]
        said = subprocess.run(command, capture_output=True, text=True, check=True).stderr
    return {found[0]: [int(number or 0) for number in found[1:]] for found in FIGURES.findall(said)}


def main() -> None:
    """Prints a table for each architecture."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--arch", type=int, nargs="+", default=[80, 90])
    parser.add_argument("overrides", nargs="*", help="settings, such as experiment=released")
    options = parser.parse_args()
    planned, assembler = kernels(options.overrides), ptxas()
    for arch in options.arch:
        print(f"\nsm_{arch}\n\n| {' | '.join(HEADINGS)} |\n|{'---|' * len(HEADINGS)}")
        known: dict[str, list[int]] = {}
        for module in {module for module, _ in planned.values()}:
            known |= figures(module, arch, assembler)
        for key, (_, threads) in planned.items():
            entry = next(name for name in known if name.startswith(f"{key}_") and name.endswith("forward"))
            stack, stores, loads, registers, shared = known[entry]
            print(f"| {key.split('__')[0]} | {threads} | {registers} | {stack} | {stores} | {loads} | {shared} |")


if __name__ == "__main__":
    main()
