"""Finds what the package brings along and where it may keep things: hands, objects, extras, caches."""

from __future__ import annotations

import os
import shlex
import tempfile
from pathlib import Path

ASSET_ROOT = Path(__file__).resolve().parent / "assets"
OBJECT_ROOT = ASSET_ROOT / "objects"


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


def use_writable_kernel_cache() -> str:
    """Lets NVIDIA Warp keep compiled kernels in a temporary folder where this user cannot write into its own.

    To be called before Warp begins. Processes that are started later do the same.

    Returns:
        What a person should hear of it; empty where nothing had to be done.
    """
    given = os.environ.get("WARP_CACHE_PATH")
    folder = Path(given) if given else user_cache() / "warp"
    if _is_writable(folder):
        return ""
    instead = Path(tempfile.gettempdir()) / f"bimangrasp-kernels-{os.getuid()}"
    os.environ["WARP_CACHE_PATH"] = str(instead)
    return f"{folder} cannot be written: compiled kernels are kept in {instead}; WARP_CACHE_PATH names another folder"


def _is_writable(folder: Path) -> bool:
    """Whether a file can be made in a folder, which is made where it is missing."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return True
    except OSError:
        return False
