"""Tells how a run stands, by its journal, its manifest and the sizes of its final files: `mode=status`."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from bimangrasp.errors import InputError
from scale.formatting import SEVERITY, count, listed, objects_table
from scale.report.history import history_of
from scale.report.lost_files import lost_files
from scale.report.summary import ObjectLine, object_lines
from scale.store import journal, locks, parts
from scale.store.events import CallStarted
from scale.store.run_folder import RunFolder


class Status(NamedTuple):
    """How a run stands.

    Attributes:
        run_dir: its folder.
        running: who works on it, None where nobody does.
        exit_code: of the last call that ended, None where none did; 3 in place of 0 where its files are lost.
        objects: those that have less than was wanted first, then by index.
        parts: of a run that is made in parts, each by its name and how it stands.
        lost: what is wrong with final files that are not those of the journal.
    """

    run_dir: Path
    running: dict[str, Any] | None
    exit_code: int | None
    objects: list[ObjectLine]
    parts: dict[str, str] = {}  # noqa: RUF012 - never changed
    lost: tuple[str, ...] = ()

    def __str__(self) -> str:
        rows = [
            (o.code, f"{o.collected}/{o.quota}", o.rounds, o.failures, len(o.skipped), o.end_reason)
            for o in self.objects
        ]
        lines = objects_table(("object", "grasps", "rounds", "failed", "skipped", "ended by"), rows)
        lines += [f"part {name}: {state}" for name, state in self.parts.items()]
        lines += [f"{count(len(self.lost), 'final file')} lost, the first: {self.lost[0]}"] if self.lost else []
        return "\n".join([*lines, f"{self.run_dir}: {self.state()}"])

    def state(self) -> str:
        """Returns whether somebody works on it, and how the last call ended."""
        if self.running:
            passed = time.time() - self.running["started"]
            return f"running for {passed:.0f} s, pid {self.running['pid']} on {self.running['host']}"
        if self.lost:
            return f"not running, and {count(len(self.lost), 'final file')} gone or damaged"
        return "not running" + ("" if self.exit_code is None else f", the last call ended with {self.exit_code}")


class PartStatus(NamedTuple):
    """How a part of a run stands.

    Attributes:
        folder: its own; None where it is elsewhere.
        status: None where it has not begun, or is not there.
        lacks: what is not there of it, in words; empty where nothing is wanting.
    """

    folder: RunFolder | None
    status: Status | None
    lacks: str

    def __str__(self) -> str:
        return self.status.state() if self.status else self.lacks or "no objects"


def status(run_dir: Path | str) -> Status:
    """Returns how a run stands.

    Raises:
        InputError: there is no run in that folder.
    """
    folder = RunFolder(run_dir)
    own_parts = parts.parts_in(folder.root)
    return _status_of_parts(folder, own_parts) if own_parts else _status_of(folder)


def _status_of_parts(folder: RunFolder, own_parts: Mapping[parts.Part, RunFolder]) -> Status:
    """Returns how a run of parts stands as one, by what each part tells; parts that are elsewhere are named."""
    all_parts = status_of_parts(own_parts)
    states = [part.status for part in all_parts.values() if part.status]
    lines = sorted(
        (line for state in states for line in state.objects), key=lambda line: (not line.is_short, line.index)
    )
    running = next((state.running for state in states if state.running), None)
    ended = [state.exit_code for state in states]
    is_whole = not any(part.lacks for part in all_parts.values())
    worst = None if None in ended else max([*ended, 0 if is_whole else 3], key=SEVERITY.index)
    lost = tuple(fault for state in states for fault in state.lost)
    return Status(folder.root, running, worst, lines, {name: str(part) for name, part in all_parts.items()}, lost)


def status_of_parts(own_parts: Mapping[parts.Part, RunFolder]) -> dict[str, PartStatus]:
    """Returns name -> how each part stands, of a run of which these are here; objects in no part are said to lack."""
    codes = max((parts.listed_codes(own) for own in own_parts.values()), key=len)
    stands: dict[str, PartStatus] = {}
    for part in next(iter(own_parts)).all():
        of_part = [code for index, code in enumerate(codes) if part.has(index)]
        lacks = f", with {listed(of_part)}" if of_part else ""
        own = own_parts.get(part)
        if own is None:
            stands[str(part)] = PartStatus(None, None, f"not there{lacks}" if of_part or not codes else "")
        elif not journal.events_of(own, CallStarted):
            begins = "beginning" if locks.running(own) else "not begun"
            stands[str(part)] = PartStatus(own, None, begins + lacks)
        else:
            state = _status_of(own)
            missing = sorted(set(of_part) - {line.code for line in state.objects})
            stands[str(part)] = PartStatus(own, state, f"nothing of {listed(missing)} yet" if missing else "")
    return stands


def no_run(folder: RunFolder) -> InputError:
    """Returns the refusal of a folder in which there is no run."""
    if folder.root.is_file():
        return InputError(f"{folder.root} is a file: wanted the folder of a run, output_root/exp_name of it")
    return InputError(f"{folder.root} holds no run (no journal): wanted output_root/exp_name of one, or path=")


def _status_of(folder: RunFolder) -> Status:
    """Returns how a run stands that has a journal."""
    past = history_of(folder)
    if not past.calls:
        raise no_run(folder)
    ended = [call.exit_code for call in past.calls if call.exit_code is not None]
    running = locks.running(folder)
    lost = {} if running else lost_files(past, folder)
    objects = object_lines(past, journal.read_manifest(folder), is_running=running is not None, lost=lost)
    exit_code = ended[-1] if ended else None
    return Status(folder.root, running, exit_code or (3 if lost else exit_code), objects, lost=tuple(lost.values()))
