"""Writes and reads manifest.json, the readable snapshot of a run."""

from __future__ import annotations

import json
from typing import Any

from scale.store.journal import VERSION
from scale.store.run_folder import RunFolder


def write_manifest(folder: RunFolder, manifest: dict[str, Any]) -> None:
    """Replaces the readable snapshot."""
    text = json.dumps({"format": "bimangrasp-run", "format_version": VERSION} | manifest, indent=1, ensure_ascii=False)
    folder.write(folder.manifest, text.encode() + b"\n")


def read_manifest(folder: RunFolder) -> dict[str, Any]:
    """Returns the snapshot; empty where it is missing or torn, for the files tell the truth without it."""
    try:
        manifest = json.loads(folder.manifest.read_bytes())
    except (OSError, ValueError):
        return {}
    return manifest if isinstance(manifest, dict) else {}
