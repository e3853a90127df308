"""Finds what the package brings along and where it may keep things: hands, objects, extras, caches."""

from __future__ import annotations

import os
import shlex
import tempfile
from pathlib import Path

from bimangrasp.errors import InputError

ASSET_ROOT = Path(__file__).resolve().parent / "assets"
OBJECT_ROOT = ASSET_ROOT / "objects"


KERNEL_BYTES = 8 << 20
"""Room for compiled kernels. Those of a run on a CPU take 0.9 MB (Warp 1.19); a GPU's were not measured."""


def install_command(extra: str) -> str:
    """Returns the command that installs an extra: from the checkout that the package runs from, where there is one.

    The package is on no registry, so the command never names it alone: anybody could have registered the name.
    """
    checkout = ASSET_ROOT.parents[1]
    source = checkout if (checkout / "setup.py").is_file() else Path()
    return f"pip install -e {shlex.quote(f'{source}[{extra}]')}"


def user_cache() -> Path:
    """Returns the folder of the user's caches; in the temporary folder for a user without a home."""
    given = os.environ.get("XDG_CACHE_HOME")
    home = os.path.expanduser("~")  # noqa: PTH111 - pathlib raises for a user without a home
    own = Path(home) / ".cache" if home != "~" else Path(tempfile.gettempdir()) / f"cache-{os.getuid()}"
    return Path(given) if given else own


def temporary_prefix() -> str:
    """Returns how the names of this process's temporary folders begin, so that whoever ends it can remove them."""
    return f"bimangrasp_{os.getpid()}_"


def keep_caches_without_a_home() -> str:
    """Lets the caches of a user without a home lie in the temporary folder, for libraries and later processes as well.

    Returns:
        What a person should hear of it; empty where nothing had to be done.
    """
    folder = user_cache()
    if os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~") != "~":  # noqa: PTH111 - see `user_cache`
        return ""
    os.environ["XDG_CACHE_HOME"] = str(folder)
    return f"this user has no home: caches are kept in {folder}; XDG_CACHE_HOME names another folder"


def use_writable_kernel_cache(room: int = 0) -> str:
    """Lets NVIDIA Warp keep compiled kernels in a temporary folder where this user cannot write into its own.

    To be called before Warp begins. Processes that are started later do the same.

    Args:
        room: bytes that the folder must have room for, unless it has kernels already.

    Returns:
        What a person should hear of it; empty where nothing had to be done.

    Raises:
        InputError: no folder has so much room.
    """
    note = keep_caches_without_a_home()
    given = os.environ.get("WARP_CACHE_PATH")
    folder = Path(given) if given else user_cache() / "warp"
    why = _why_not_writable(folder, room)
    if not why:
        return note
    instead = Path(tempfile.gettempdir()) / f"bimangrasp-kernels-{os.getuid()}"
    no_room = _why_not_writable(instead, room) if room else ""
    if no_room:
        raise InputError(
            f"compiled kernels want {room >> 20} MB, and neither {folder} ({why}) nor {instead} ({no_room}) can take "
            "them: make room, or let WARP_CACHE_PATH, XDG_CACHE_HOME or TMPDIR name a folder on another disk"
        )
    os.environ["WARP_CACHE_PATH"] = str(instead)
    moved = f"{folder} cannot be written ({why}): compiled kernels are kept in {instead}; WARP_CACHE_PATH names another"
    return "; ".join(filter(None, [note, f"{moved} folder"]))


def _why_not_writable(folder: Path, room: int) -> str:
    """Returns why a folder, which is made where it is missing, cannot have so many bytes; empty where it can."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as file:
            if room and not any(path.is_dir() for path in folder.iterdir()):  # kernels lie in folders of their own
                os.posix_fallocate(file.fileno(), 0, room)
    except OSError as error:
        return error.strerror
    return ""
