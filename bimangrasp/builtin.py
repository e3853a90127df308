"""Finds what the package brings along: its hands, its objects, and the command that installs its extras."""

from __future__ import annotations

import shlex
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
