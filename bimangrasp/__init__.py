"""Bimanual dexterous grasps by energy minimization: hands, objects, energies and the sampler."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bimangrasp.files.dataset import load

__all__ = ["load"]


def __getattr__(name: str) -> Any:
    """Imports `load` when it is asked for, since it needs PyTorch, and most who import this package do not."""
    if name != "load":
        raise AttributeError(f"module 'bimangrasp' has no attribute {name!r}")
    from bimangrasp.files.dataset import load

    return load
