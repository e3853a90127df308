"""Says what was found damaged or missing at a start, and what becomes of it."""

from __future__ import annotations

from pathlib import Path

from scale.formatting import listed, spans
from scale.state.object_state import ObjectState
from scale.state.request import RunRequest
from scale.state.scan import FolderScan
from scale.store.run_folder import RunFolder, file_name, parse_shard_name


def notes(request: RunRequest, scan: FolderScan, objects: list[ObjectState]) -> list[str]:
    """Returns a line for each damaged or missing file with what is done about it."""
    damaged = [
        f"{path} is damaged and moved to damaged/ ({reason}): {_remedy(request.folder, path)}"
        for path, reason in scan.damaged.items()
    ]
    return [*_of_journal(request, scan), *damaged, *_lost(scan, objects)]


def _of_journal(request: RunRequest, scan: FolderScan) -> list[str]:
    """Returns what the journal lacks."""
    path, journal = request.folder.journal, scan.journal
    if not journal.events and (scan.is_used or scan.manifest):
        return [
            f"{path} is missing or empty: the files tell objects and rounds; a skipped round that no final file "
            f"carries is tried again"
        ]
    lines = [f"{path}: a torn last line of {journal.torn_bytes} bytes is cut off"] if journal.torn_bytes else []
    if journal.bad_lines:
        lines.append(
            f"{path} has {journal.bad_lines} lines that cannot be read: they are passed over, and the files tell the "
            f"rest; a skipped round that only such a line told of is tried again"
        )
    return lines


def _remedy(folder: RunFolder, path: Path) -> str:
    """Returns what is done in the place of one damaged file."""
    name = parse_shard_name(path.name)
    if path.parent == folder.root:
        return "it is written anew"
    if path.parent == folder.rejects:
        return "it is gathered anew where all shards of its object are there"
    if name is None:
        return "it is built again from shards, and from rounds computed again where those are gone"
    work = "simulated" if path.is_relative_to(folder.verdicts) else "computed"
    return f"round {name.round_id} of {name.code_name} is {work} again if it is wanted and nothing else proves it"


def _lost(scan: FolderScan, objects: list[ObjectState]) -> list[str]:
    """Returns the final files and shards of which the journal tells and that are not there."""
    damaged, merged = {path.name for path in scan.damaged}, scan.merged()
    gone = [state.code for state in objects if state.code in merged and state.final is None]
    gone = [code for code in gone if code not in scan.finals and f"{file_name(code)}.h5" not in damaged]
    lines = [f"final files that are gone are built again: {listed(gone)}"] if gone else []
    for state in objects:
        lost = [r for r in sorted(state.journaled) if state.rounds.record(r) is None]
        if lost and not (state.final and state.final.ending.complete):
            lines.append(f"rounds of {state.code} that are done by the journal and proven by no file: {spans(lost)}")
    return lines
