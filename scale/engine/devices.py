"""Lists the devices that workers are bound to, and the platform on which the bytes of a round depend."""

from __future__ import annotations

import os
import platform as machine
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, NamedTuple

from bimangrasp.energy.config import PLAIN, chosen_path
from bimangrasp.errors import InputError
from scale.engine.gpu_probe import probe
from scale.settings.parsing import parse_gpus

MAX_CPU_WORKERS = 4
GIVEN_GPUS = ("CUDA_VISIBLE_DEVICES", "SLURM_JOB_GPUS", "SLURM_STEP_GPUS", "SLURM_GPUS", "SLURM_GPUS_ON_NODE")
"""Variables in which schedulers say which GPUs a job has, or how many."""
COUNTS = ("SLURM_GPUS", "SLURM_GPUS_ON_NODE")
NO_GPUS = ("", "-1", "NoDevFiles")
_PACKAGES = ("torch", "numpy", "scipy", "trimesh", "mujoco", "coacd")


class Device(NamedTuple):
    """Where a worker computes.

    Attributes:
        label: what people read: "cpu" or "gpu 3".
        visible: the child's CUDA_VISIBLE_DEVICES; empty for a CPU worker.
    """

    label: str
    visible: str

    @property
    def torch_name(self) -> str:
        """The device as the child's torch calls it."""
        return "cuda:0" if self.visible else "cpu"


def resolve_devices(gpus: Any, workers_per_gpu: int = 1) -> list[Device]:
    """Returns a device per worker, without making a CUDA context.

    Args:
        gpus: as in the settings.
        workers_per_gpu: how many workers each GPU gets; all GPUs come once before any comes again.

    Raises:
        InputError: a GPU that does not exist, or is not visible to this process.
    """
    asked = parse_gpus(gpus)
    visible = visible_gpus() if asked == "auto" or any(item != "cpu" for item in asked) else []
    if asked == "gpu":
        if not visible:
            raise InputError(f"gpus=gpu wants all GPUs, but this process sees {_seen(visible)}; or choose gpus=auto")
        asked = [str(i) for i in range(len(visible))]
    elif asked == "auto":
        asked = [str(i) for i in range(len(visible))] or ["cpu"] * min(MAX_CPU_WORKERS, len(os.sched_getaffinity(0)))
    devices = [_device(item, visible) for item in asked]
    return devices + [device for device in devices if device.visible] * (workers_per_gpu - 1)


def unseen_gpus(devices: list[Device]) -> str:
    """Returns what a person should hear where all workers are on CPUs although a scheduler has given GPUs."""
    given = [f"{name}={os.environ[name]}" for name in GIVEN_GPUS if _gives_gpus(name)]
    if not given or any(device.visible for device in devices):
        return ""
    return (
        f"all workers are on CPUs, though {', '.join(given)} speaks of GPUs: {probe().torch or 'PyTorch sees none'}; "
        f"gpus=gpu refuses a run without GPUs"
    )


def _gives_gpus(name: str) -> bool:
    """Whether a variable of the environment speaks of GPUs."""
    value = os.environ.get(name, "")
    return value not in NO_GPUS and not (name in COUNTS and value == "0")


def _device(item: str, visible: list[str]) -> Device:
    """Returns the device of one token, through the list that the environment already sets."""
    if item == "cpu":
        return Device("cpu", "")
    if not item.isdigit():
        return Device(f"gpu {item}", item)
    if int(item) >= len(visible):
        raise InputError(
            f"gpus names device {item}, but this process sees {_seen(visible)}: choose among those, or gpus=[cpu,cpu]"
        )
    return Device(f"gpu {item}", visible[int(item)])


def _seen(visible: list[str]) -> str:
    """Returns which GPUs this process sees, and by which variable."""
    seen = f"devices 0 to {len(visible) - 1}" if visible else f"no GPU ({probe().torch or 'none is visible'})"
    return f"{seen} (CUDA_VISIBLE_DEVICES={os.environ.get('CUDA_VISIBLE_DEVICES', 'unset')})"


def usable_kernels(kernels: str, devices: list[Device], simulates_on_device: bool) -> tuple[str, str]:
    """Returns which kernels workers can use on their devices, and why not those of `kernels=auto`, if so.

    Args:
        kernels: as in the settings.
        devices: of the workers.
        simulates_on_device: whether validators need Warp there.

    Raises:
        InputError: PyTorch, or the Warp that is asked for, cannot use the GPUs; with its reason.
    """
    gpus = [device.label for device in devices if device.visible]
    if not gpus:
        return kernels, ""
    reasons = probe()
    if reasons.torch:
        raise InputError(f"{', '.join(gpus)}: {reasons.torch}; or choose gpus=[cpu]")
    if reasons.warp and simulates_on_device:
        raise InputError(f"{', '.join(gpus)}: {reasons.warp}; simulations want validation=bench then")
    if not reasons.warp or chosen_path(kernels) == PLAIN:
        return kernels, ""
    if kernels == "auto":
        return PLAIN, f"kernels are plain PyTorch, a tenth as fast: {reasons.warp}"
    raise InputError(f"{', '.join(gpus)}: {reasons.warp}")


def visible_gpus() -> list[str]:
    """Returns what CUDA_VISIBLE_DEVICES must say for each GPU that this process may use."""
    import torch  # counts through the driver's library, so no context is made

    count = torch.cuda.device_count()
    listed = os.environ.get("CUDA_VISIBLE_DEVICES")
    names = [str(i) for i in range(count)] if listed is None else [name.strip() for name in listed.split(",")]
    return names[:count]


def platform(device: str, kernels: str) -> dict[str, str]:
    """Returns the platform of this process on a torch device; makes a context where that is a GPU."""
    import h5py
    import torch

    on_gpu = device.startswith("cuda")
    facts = {
        "device": torch.cuda.get_device_name(device) if on_gpu else "cpu",
        "cpu": f"{_cpu_vendor()} {torch.backends.cpu.get_cpu_capability()}",
        "cuda": str(torch.version.cuda) if on_gpu else "none",
        "hdf5": h5py.version.hdf5_version,
        "kernels": kernels,
    }
    return facts | {name: package_version(name) for name in _PACKAGES}


def _cpu_vendor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith(("vendor_id", "CPU implementer")):
            return line.partition(":")[2].strip()
    return machine.machine()


def package_version(name: str) -> str:
    """Returns the version of an installed package; "none" where it is not installed."""
    try:
        return version(name)
    except PackageNotFoundError:
        return "none"


def device_name(label: str, slot: int) -> str:
    """Returns the name of a slot's device; several CPU workers are told apart."""
    return f"{label} #{slot}" if label.endswith("cpu") else label
