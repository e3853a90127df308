"""How a run stands, read without its lock: from manifest, journal and lock file."""

from __future__ import annotations

import time
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

from bimangrasp.errors import InputError
from scale.formatting import SHOWN_OBJECTS, table
from scale.store import journal, locks
from scale.store.manifest import read_manifest
from scale.store.run_folder import RunFolder


class ObjectStatus(NamedTuple):
    """One object: rows accepted in finished rounds, rows in its final file, failures so far."""

    code: str
    index: int
    quota: int | None
    accepted: int
    in_file: int
    rounds: int
    failures: int
    skipped: int
    end_reason: str


class Status(NamedTuple):
    """How a run stands.

    Attributes:
        run_dir: its folder.
        running: who works on it, None where nobody does.
        exit_code: of the last call that ended, None where none did.
        objects: in order of their indices.
    """

    run_dir: Path
    running: dict[str, Any] | None
    exit_code: int | None
    objects: list[ObjectStatus]

    def __str__(self) -> str:
        rows = [
            (o.code, f"{o.in_file or o.accepted}/{o.quota or '?'}", o.rounds, o.failures, o.skipped, o.end_reason)
            for o in self.objects[:SHOWN_OBJECTS]
        ]
        lines = table(("object", "grasps", "rounds", "failed", "skipped", "ended by"), rows)
        more = len(self.objects) - len(rows)
        lines += [f"... and {more} more objects"] if more else []
        return "\n".join([*lines, f"{self.run_dir}: {self._state()}"])

    def _state(self) -> str:
        if self.running:
            passed = time.time() - self.running["started"]
            return f"running for {passed:.0f} s, pid {self.running['pid']} on {self.running['host']}"
        return "not running" + ("" if self.exit_code is None else f", the last call ended with {self.exit_code}")


def status(run_dir: Path | str) -> Status:
    """Returns how a run stands.

    Raises:
        InputError: there is no run in that folder.
    """
    folder = RunFolder(run_dir)
    events = journal.replay(folder).events
    if not events:
        raise InputError(f"{folder.root} holds no run (no journal): wanted output_root/exp_name of one")
    held = locks.read_lock(folder)
    ended = [event["exit_code"] for event in events if event["event"] == "end"]
    running = held if locks.is_running(held) else None
    return Status(folder.root, running, ended[-1] if ended else None, _objects(folder, events))


def _objects(folder: RunFolder, events: list[journal.Event]) -> list[ObjectStatus]:
    """Returns the objects as the journal tells of them."""
    manifest = read_manifest(folder).get("objects", {})
    indices: dict[str, int] = {}
    quotas: dict[str, int] = {}
    done: dict[str, dict[int, int]] = {}
    skipped: dict[str, set[int]] = {}
    files: dict[str, journal.Event] = {}
    failures: Counter[str] = Counter()
    for event in events:
        code, kind = event.get("code"), event["event"]
        if kind == "objects":
            indices |= event["indices"]
        elif kind == "start":
            quotas |= event.get("quotas", {})
        elif kind in ("done", "adopted"):
            done.setdefault(code, {})[event["round"]] = event["accepted"]
        elif kind == "fail":
            failures[code] += 1
        elif kind == "skip":
            skipped.setdefault(code, set()).add(event["round"])
        elif kind == "merged":
            files[code] = event
    found = []
    for code, index in sorted(indices.items(), key=lambda item: item[1]):
        given, file = done.get(code, {}), files.get(code, {})
        reason = manifest.get(code, {}).get("end_reason") or file.get("end_reason", "")
        found.append(
            ObjectStatus(
                code,
                index,
                quotas.get(code),
                sum(given.values()),
                file.get("rows", 0),
                len(given),
                failures[code],
                len(skipped.get(code, set()) - set(given)),
                reason,
            )
        )
    return found
