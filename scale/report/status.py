"""Tells how a run stands, from its journal, manifest and lock, without waiting for the lock."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any, NamedTuple

from bimangrasp.errors import InputError
from scale.formatting import objects_table
from scale.report.history import history
from scale.report.summary import ObjectLine, object_lines
from scale.store import journal, locks
from scale.store.run_folder import RunFolder


class Status(NamedTuple):
    """How a run stands.

    Attributes:
        run_dir: its folder.
        running: who works on it, None where nobody does.
        exit_code: of the last call that ended, None where none did.
        objects: those that have less than was wanted first, then by index.
    """

    run_dir: Path
    running: dict[str, Any] | None
    exit_code: int | None
    objects: list[ObjectLine]

    def __str__(self) -> str:
        rows = [
            (o.code, f"{o.collected}/{o.quota}", o.rounds, o.failures, len(o.skipped), o.end_reason)
            for o in self.objects
        ]
        lines = objects_table(("object", "grasps", "rounds", "failed", "skipped", "ended by"), rows)
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
    running = locks.running(folder)
    objects = object_lines(past, journal.read_manifest(folder), is_running=running is not None)
    return Status(folder.root, running, ended[-1] if ended else None, objects)
