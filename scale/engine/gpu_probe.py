"""Asks PyTorch and Warp whether they can use this machine's GPUs, in a process of its own, so that no context stays."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from typing import Any, NamedTuple

PROBE_S = 120.0
"""Time for both libraries to load, from a slow disk."""


class GpuProbe(NamedTuple):
    """Why a library can use no GPU; empty where it can.

    Attributes:
        torch: reason of PyTorch.
        warp: reason of NVIDIA Warp.
    """

    torch: str
    warp: str


def probe() -> GpuProbe:
    """Returns what both libraries say."""
    command = [sys.executable, "-c", f"from {__name__} import main; main()"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=PROBE_S, check=True)
        return GpuProbe(**json.loads(done.stdout.splitlines()[-1]))
    except (subprocess.SubprocessError, ValueError, LookupError, TypeError) as error:
        tail = (getattr(error, "stderr", "") or str(error)).strip().splitlines()[-1:]
        reason = f"loading it ended with an error: {' '.join(tail)}"
        return GpuProbe(reason, reason)


def main() -> None:
    """Prints what both libraries say: the body of the process."""
    sys.stdout.write(f"\n{json.dumps(GpuProbe(torch_reason(), warp_reason())._asdict())}\n")


def torch_reason() -> str:
    """Returns why PyTorch can use no GPU; empty where it can."""
    import torch

    if torch.version.cuda is None:
        return f"PyTorch {torch.__version__} is built without CUDA; pip install torch brings a build with it"
    try:
        torch.cuda.init()
    except (RuntimeError, AssertionError) as error:
        first = str(error).strip().splitlines()[0]
        return f"PyTorch {torch.__version__} (CUDA {torch.version.cuda}): {first}"
    return "" if torch.cuda.device_count() else f"PyTorch {torch.__version__} finds no GPU"


def warp_reason() -> str:
    """Returns why Warp can use no GPU; empty where it can, and where it is not installed."""
    try:
        number = version("warp-lang")
    except PackageNotFoundError:
        return ""
    import warp

    warp.init()
    if warp.is_cuda_available():
        return ""
    return warp_trouble(number, _runtime(warp))


def _runtime(warp: Any) -> Any:
    """Returns Warp's state, which has the versions; the place is another one in newer versions."""
    inner = getattr(warp, "_src", warp)
    return inner.context.runtime


def warp_trouble(number: str, runtime: Any) -> str:
    """Returns why an initialized Warp has no GPU.

    Args:
        number: version of Warp.
        runtime: its state.
    """
    driver, least = (getattr(runtime, name, None) for name in ("driver_version", "min_driver_version"))
    if driver is None or least is None:
        return f"NVIDIA Warp {number} finds no CUDA driver"
    if driver < least:
        return (
            f"NVIDIA Warp {number} wants a driver for CUDA {_dotted(least)} or newer, this one is for CUDA "
            f"{_dotted(driver)}: update the driver, install a warp-lang built for CUDA {driver[0]}, or take "
            "kernels=plain"
        )
    return f"NVIDIA Warp {number} finds no GPU (driver for CUDA {_dotted(driver)})"


def _dotted(numbers: tuple[int, ...]) -> str:
    return ".".join(map(str, numbers))
