"""Appends events to the journal of a run and replays it; writes and reads manifest.json. Only the parent writes."""

from __future__ import annotations

import json
import os
import time
from dataclasses import replace
from typing import Any, NamedTuple

from scale.store import durable_io
from scale.store.events import Event, event_from
from scale.store.run_folder import RunFolder

VERSION = 1  # of journal and manifest


class Replay(NamedTuple):
    """What a journal holds.

    Attributes:
        events: its whole lines.
        whole_bytes: where its torn tail begins.
        torn_bytes: how long that is.
        bad_lines: how many lines before the tail cannot be read.
    """

    events: list[Event]
    whole_bytes: int = 0
    torn_bytes: int = 0
    bad_lines: int = 0


def replay(folder: RunFolder) -> Replay:
    """Returns what the journal tells, without changing it; a torn tail is no event."""
    try:
        data = folder.journal.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return Replay([])
    whole = data.rfind(b"\n") + 1
    parsed = [_parse(line) for line in data[:whole].splitlines()]
    while parsed and parsed[-1] is None:  # a tail that a power-down left as garbage
        whole = data.rfind(b"\n", 0, whole - 1) + 1
        parsed.pop()
    events = [event for event in parsed if event is not None]
    return Replay(events, whole, len(data) - whole, len(parsed) - len(events))


def _parse(line: bytes) -> Event | None:
    """Returns the event of a line; None where it is no JSON, or lacks what a later call needs of it."""
    try:
        return event_from(json.loads(line))
    except (ValueError, KeyError, TypeError, AttributeError):
        return None


def whole_lines(folder: RunFolder, replayed: Replay) -> bytes:
    """Returns the lines of a journal that were replayed, without a torn tail and what came since."""
    return folder.journal.read_bytes()[: replayed.whole_bytes]


def line(event: Event) -> bytes:
    """Returns the line of an event, with its time."""
    return json.dumps(event.to_json(), ensure_ascii=False).encode() + b"\n"


class Journal:
    """The open journal of the run that holds the folder's lock."""

    def __init__(self, folder: RunFolder) -> None:
        self._folder = folder
        self._has_reserve = False
        replayed = replay(folder)
        is_new = not folder.journal.exists()
        self._fd = durable_io.create(folder.journal, os.O_APPEND)
        if is_new:
            durable_io.sync_folder(folder.root)
        if replayed.torn_bytes:
            durable_io.truncate(self._fd, replayed.whole_bytes)
            durable_io.sync(self._fd)
        self._hold_reserve()

    def append(self, event: Event) -> None:
        """Adds a line and returns when it is on the disk; on a full disk the reserve makes room for it."""
        written = line(replace(event, time=time.time()))
        try:
            self._add(written)
        except OSError as error:
            if error.errno not in durable_io.DISK_FULL or not self._has_reserve:
                raise
            self._folder.release_reserve()
            self._has_reserve = False
            self._add(written)
        else:
            self._hold_reserve()

    def _add(self, line: bytes) -> None:
        """Writes and syncs a line, or leaves the file as it was."""
        size = os.fstat(self._fd).st_size
        try:
            durable_io.write(self._fd, line)
            durable_io.sync(self._fd)
        except OSError:
            durable_io.truncate(self._fd, size)
            raise

    def _hold_reserve(self) -> None:
        """Takes the reserve's room, as soon as the disk has it."""
        if self._has_reserve:
            return
        try:
            self._folder.hold_reserve()
        except OSError as error:
            if error.errno not in durable_io.DISK_FULL:
                raise
        else:
            self._has_reserve = True

    def close(self) -> None:
        """Ends the writing."""
        os.close(self._fd)


# ---- the readable snapshot


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
