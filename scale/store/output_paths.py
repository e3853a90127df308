"""Files at a place that a person may name with `out=`: what else is there stays."""

from __future__ import annotations

from pathlib import Path

from bimangrasp.errors import InputError
from scale.store.run_folder import RunFolder


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
