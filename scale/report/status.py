"""Tells how a run stands, from its journal, manifest and lock, without waiting for the lock."""

from __future__ import annotations

import time
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

from bimangrasp.errors import InputError
from scale.formatting import SHOWN_OBJECTS, table
from scale.report.history import History, history
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
    past = history(journal.replay(folder).events)
    if not past.calls:
        raise InputError(f"{folder.root} holds no run (no journal): wanted output_root/exp_name of one")
    ended = [call.exit_code for call in past.calls if call.exit_code is not None]
    manifest = read_manifest(folder).get("objects", {})
    return Status(folder.root, locks.running(folder), ended[-1] if ended else None, _objects(past, manifest))


def _objects(past: History, manifest: dict[str, Any]) -> list[ObjectStatus]:
    """Returns the objects as the journal tells of them; the manifest may know better why one ended."""
    accepted, rounds = Counter(), Counter()
    for work in past.work.values():
        if work.accepted is not None:
            accepted[work.code] += work.accepted
            rounds[work.code] += 1
    failures = Counter(attempt.event.code for attempt in past.failures)
    skipped = Counter(code for code, _ in past.skips)
    objects = []
    for code, index in sorted(past.indices.items(), key=lambda item: item[1]):
        file = past.merged.get(code)
        reason = manifest.get(code, {}).get("end_reason") or (file.end_reason if file else "")
        in_file = file.rows if file else 0
        counts = (accepted[code], in_file, rounds[code], failures[code], skipped[code])
        objects.append(ObjectStatus(code, index, past.quotas.get(code), *counts, reason))
    return objects
