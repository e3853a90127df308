"""Names the kernel paths and chooses one; imports none of them."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version

from bimangrasp.builtin import install_command
from bimangrasp.errors import InputError

PLAIN, WARP = "plain", "warp"
KERNELS = {PLAIN: "plain-2", WARP: "warp-2"}
"""The paths with their versions; a version is raised by hand with every change that moves a bit of the results."""


def chosen_path(name: str) -> str:
    """Returns the path that `kernels=name` means here; "auto" takes the fastest that is installed.

    Raises:
        InputError: there is no such path, or what it needs is not installed.
    """
    if name != "auto" and name not in KERNELS:
        raise InputError(f"kernels={name!r} is unknown; choose auto, {', '.join(KERNELS)}")
    if name == WARP and _warp_version() is None:
        raise InputError(
            f"kernels=warp needs NVIDIA Warp, which is not installed: {install_command('fast')}, or kernels=plain"
        )
    if name == "auto":
        return PLAIN if _warp_version() is None else WARP
    return name


def resolve_kernels(name: str) -> str:
    """Returns the version of the path that `kernels=name` means here, as the platform names it.

    Raises:
        InputError: see `chosen_path`.
    """
    path = chosen_path(name)
    return f"{KERNELS[path]} ({_warp_version()})" if path == WARP else KERNELS[path]


def _warp_version() -> str | None:
    try:
        return version("warp-lang")
    except PackageNotFoundError:
        return None
