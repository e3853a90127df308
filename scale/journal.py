"""The journal: append, replay, and the manifest as its readable snapshot. The parent alone writes it."""

from __future__ import annotations

import errno
import json
import os
import time
from typing import Any, NamedTuple

from scale import disk
from scale.run_folder import RunFolder

VERSION = 1  # of journal and manifest
Event = dict[str, Any]


class Replay(NamedTuple):
    """The journal's events, the length of what is whole, and how many lines before the tail are bad."""

    events: list[Event]
    whole_bytes: int
    bad_lines: int


def replay(folder: RunFolder) -> Replay:
    """Returns what the journal tells, without changing it; a torn tail is no event."""
    try:
        data = folder.journal.read_bytes()
    except FileNotFoundError:
        return Replay([], 0, 0)
    whole = data.rfind(b"\n") + 1
    parsed = [_parse(line) for line in data[:whole].splitlines()]
    while parsed and parsed[-1] is None:  # a tail that a power-down left as garbage
        whole = data.rfind(b"\n", 0, whole - 1) + 1
        parsed.pop()
    events = [event for event in parsed if event is not None]
    return Replay(events, whole, len(parsed) - len(events))


def _parse(line: bytes) -> Event | None:
    try:
        event = json.loads(line)
    except ValueError:
        return None
    return event if isinstance(event, dict) and "event" in event else None


class Journal:
    """The open journal of the run that holds the folder's lock."""

    def __init__(self, folder: RunFolder) -> None:
        self._folder = folder
        whole = replay(folder).whole_bytes
        is_new = not folder.journal.exists()
        self._fd = disk.create(folder.journal, os.O_APPEND)
        if is_new:
            disk.sync_folder(folder.root)
        if os.fstat(self._fd).st_size > whole:
            disk.truncate(self._fd, whole)
            disk.sync(self._fd)
        folder.hold_reserve()

    def append(self, event: str, **facts: Any) -> None:
        """Adds a line and returns when it is on the disk."""
        line = json.dumps({"event": event, "time": time.time()} | facts, ensure_ascii=False).encode() + b"\n"
        size = os.fstat(self._fd).st_size
        try:
            disk.write(self._fd, line)
        except OSError as error:
            disk.truncate(self._fd, size)
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            self._folder.release_reserve()
            disk.write(self._fd, line)
        disk.sync(self._fd)

    def close(self) -> None:
        """Ends the writing."""
        os.close(self._fd)


def write_manifest(folder: RunFolder, manifest: dict[str, Any]) -> None:
    """Replaces the readable snapshot."""
    text = json.dumps({"format": "bimangrasp-run", "format_version": VERSION} | manifest, indent=1, ensure_ascii=False)
    folder.write(folder.manifest, text.encode() + b"\n")


def read_manifest(folder: RunFolder) -> dict[str, Any]:
    """Returns the snapshot; empty where it is missing or torn, for the files tell the truth without it."""
    try:
        return json.loads(folder.manifest.read_bytes())
    except (OSError, ValueError):
        return {}
