"""The command that measures a GPU, on a machine that may have none."""

import subprocess
import sys

import pytest
import torch
from documents import ROOT

COMMAND = [sys.executable, "benchmarks/gpu.py"]
SMALL = ["--batches", "8", "--steps", "2", "--check_batch", "12"]


def run(*arguments):
    return subprocess.run([*COMMAND, *arguments], cwd=ROOT, capture_output=True, text=True, check=False)


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
def test_without_cuda_it_says_so_and_ends_with_2():
    done = run()
    assert done.returncode == 2 and "no CUDA device: --device cpu" in done.stderr


@pytest.mark.slow
def test_on_a_cpu_all_checks_but_the_graphs_are_made(capsys):
    pytest.importorskip("warp", reason="needs NVIDIA Warp")
    done = run("--device", "cpu", *SMALL)
    assert done.returncode == 0, done.stdout + done.stderr
    lines = done.stdout.splitlines()
    checks = [line for line in lines if line.endswith(("| yes |", "| not on a CPU |"))]
    assert len(checks) == 6 and sum("not on a CPU" in line for line in checks) == 2
    assert sum(line.startswith(("| released |", "| firm |")) for line in lines) == 4
    assert not any(line.startswith(("| released |", "| firm |")) and "| - |" in line for line in lines)
    assert any(line.startswith("| hands in object | 8 |") for line in lines)
