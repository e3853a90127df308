"""Appends events to the journal of a run and replays it; writes and reads manifest.json. Only the parent writes."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, NamedTuple, TypeVar

from scale.store import durable_io
from scale.store.events import Event, event_from
from scale.store.run_folder import RunFolder

VERSION = 1  # of journal and manifest
AnyEvent = TypeVar("AnyEvent", bound=Event)


class Replay(NamedTuple):
    """What a journal holds.

    Attributes:
        events: how many lines tell an event.
        whole_bytes: where its torn tail begins.
        torn_bytes: how long that is.
        bad_lines: how many lines before the tail cannot be read.
    """

    events: int = 0
    whole_bytes: int = 0
    torn_bytes: int = 0
    bad_lines: int = 0


def replay(folder: RunFolder, take: Callable[[Event], object]) -> Replay:
    """Tells the journal event by event, without changing it; returns what else there is to say of it.

    It is read as a stream, for it may have millions of lines. A torn tail is no event.
    """
    events = whole = end = bad = behind = 0
    try:
        file = folder.journal.open("rb")
    except (FileNotFoundError, NotADirectoryError):
        return Replay()
    with file:
        for line in file:
            event = _parse(line) if line.endswith(b"\n") else None
            end += len(line)
            if event is None:
                behind += 1  # of the tail, which a power-down left as garbage, unless a whole line follows
                continue
            bad, behind, whole, events = bad + behind, 0, end, events + 1
            take(event)
    return Replay(events, whole, end - whole, bad)


def events_of(folder: RunFolder, *kinds: type[AnyEvent]) -> list[AnyEvent]:
    """Returns the journal's events of some kinds, which are few; the other lines are not read."""
    begin = tuple(f'{{"event": "{kind.name}"'.encode() for kind in kinds)
    try:
        with folder.journal.open("rb") as file:
            return [event for line in file if line.startswith(begin) and (event := _parse(line)) is not None]
    except (FileNotFoundError, NotADirectoryError):
        return []


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

    def __init__(self, folder: RunFolder, replayed: Replay | None = None) -> None:
        """Opens it; `replayed` is what was read of it under the same lock, if it was."""
        self._folder = folder
        self._has_reserve = False
        replayed = replayed or replay(folder, lambda _: None)
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


def write_manifest(folder: RunFolder, manifest: dict[str, Any], objects: Mapping[str, str]) -> None:
    """Replaces the readable snapshot.

    Args:
        folder: of the run.
        manifest: what it says but for the objects.
        objects: object code -> `entry_text` of its entry; most are as they were, so they need not be made anew.
    """
    head = _as_text({"format": "bimangrasp-run", "format_version": VERSION} | manifest)
    entries = ",\n".join(f"  {_as_text(code)}: {text}" for code, text in objects.items())
    listed = f"{{\n{entries}\n }}" if objects else "{}"
    folder.write(folder.manifest, f'{head[:-2]},\n "objects": {listed}\n}}\n'.encode())


def entry_text(entry: Mapping[str, Any]) -> str:
    """Returns an object's entry as it stands in the manifest."""
    return _as_text(entry).replace("\n", "\n  ")


def _as_text(value: Any) -> str:
    return json.dumps(value, indent=1, ensure_ascii=False)


def read_manifest(folder: RunFolder) -> dict[str, Any]:
    """Returns the snapshot; empty where it is missing or torn, for the files tell the truth without it."""
    try:
        manifest = json.loads(folder.manifest.read_bytes())
    except (OSError, ValueError):
        return {}
    return manifest if isinstance(manifest, dict) else {}
