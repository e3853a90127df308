"""Locates the hands and objects that the package brings."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

ASSET_ROOT = Path(str(files("bimangrasp"))) / "assets"
OBJECT_ROOT = ASSET_ROOT / "objects"
