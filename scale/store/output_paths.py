"""Chooses and writes the files that a person may name with `out=`: what else is there stays."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from bimangrasp.errors import InputError
from scale.store.run_folder import RunFolder


def target(out: str, default: Path) -> Path:
    """Returns where a file goes.

    Args:
        out: the setting: a file, or a folder for one of the default's name.
        default: its place where that is empty.
    """
    if not out:
        return default
    return Path(out) / default.name if Path(out).is_dir() else Path(out)


def check_free(path: Path, wanted: str = "", is_wanted: Callable[[Path], bool] | None = None) -> None:
    """Refuses to write over a file.

    Args:
        path: where something is to be written.
        wanted: what may be written over, as in "page of mode=view".
        is_wanted: whether a file is such.

    Raises:
        InputError: something else is there.
    """
    if path.exists() and not (is_wanted and is_wanted(path)):
        raise taken(path, wanted)


def taken(path: Path, wanted: str = "") -> InputError:
    """Returns the refusal to write over a file; `wanted`: what it would have to be, as in "page of mode=view"."""
    other = f" and is no {wanted}" if wanted else ""
    return InputError(f"{path} is there already{other}; move it away, or set out= to another place")


def write(path: Path, data: bytes) -> None:
    """Puts a whole file in place, in a folder that is made for it.

    Raises:
        InputError: it cannot be written there.
    """
    try:
        RunFolder(path.parent).write(path, data)
    except OSError as error:
        raise InputError(f"{path} cannot be written ({error}): set out= to a place that can") from error
