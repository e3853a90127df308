"""What tests of whole runs share: the journal's lines, the hashes of final files, a flipped bit."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from scale.store.run_folder import RunFolder


def events(folder: RunFolder | Path, kind: str | None = None) -> list[dict[str, Any]]:
    """The lines of a run's journal as JSON; those of one kind, or all. A torn tail is none."""
    root = folder.root if isinstance(folder, RunFolder) else folder
    path = root / "journal.jsonl"
    text = path.read_bytes() if path.exists() else b""
    lines = [json.loads(line) for line in text[: text.rfind(b"\n") + 1].splitlines()]
    return [line for line in lines if kind in (None, line["event"])]


def hashes(folder: RunFolder | Path) -> dict[str, str]:
    """Name -> hash of each final file; none where no run was."""
    root = folder.root if isinstance(folder, RunFolder) else folder
    paths = sorted((root / "final").glob("*.h5"))
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}


def flip(path: Path, share: float = 0.5) -> None:
    """Changes one bit of a file, at this share of its length."""
    data = bytearray(path.read_bytes())
    data[int(share * len(data))] ^= 4
    path.write_bytes(data)
