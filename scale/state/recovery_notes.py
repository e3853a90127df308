"""Repairs: what was found damaged or missing at a start, and what becomes of it, in words."""

from __future__ import annotations

from pathlib import Path

from scale.formatting import listed, spans
from scale.state.object_state import ObjectState
from scale.state.request import RunRequest
from scale.state.scan import Survey
from scale.store.run_folder import file_name, parse_shard_name


def notes(order: RunRequest, found: Survey, objects: list[ObjectState]) -> list[str]:
    """Returns a line for each damaged or missing file with what is done about it."""
    return [
        *_of_journal(order, found),
        *_missing(order, found),
        *_damaged(order, found, objects),
        *([] if order.config.mode == "generate" else _lost(found, objects)),  # it keeps no shards to miss
    ]


def _of_journal(order: RunRequest, found: Survey) -> list[str]:
    """Returns what the journal lacks."""
    path, told = order.folder.journal, found.journal
    if not told.events and (found.is_used or found.manifest):
        return [
            f"{path} is missing or empty: files and manifest tell objects and rounds; a skipped round that no final "
            f"file carries is tried again"
        ]
    torn = [f"{path}: a torn last line of {told.torn_bytes} bytes is cut off"] if told.torn_bytes else []
    if not told.bad_lines:
        return torn
    return [
        *torn,
        f"{path} has {told.bad_lines} lines that cannot be read: a copy goes to damaged/, the other lines stay, and "
        f"the files tell the rest; a skipped round that only such a line told of is tried again",
    ]


def _missing(order: RunRequest, found: Survey) -> list[str]:
    """Returns what every run has and this folder lacks."""
    folder, told = order.folder, {(event["event"], event.get("mode")) for event in found.events}
    has_manifest = order.config.mode == "scale" and {("start", "scale"), ("end", None)} <= told
    wanted = [folder.config, *([folder.manifest] if has_manifest else [])]
    return [f"{path} is missing and written anew" for path in wanted if found.is_used and not path.exists()]


def _damaged(order: RunRequest, found: Survey, objects: list[ObjectState]) -> list[str]:
    """Returns where damaged files go, and what is done in their place."""
    by_name = {file_name(state.code): state for state in objects}
    return [
        f"{path} is damaged and moved to damaged/ ({reason}): {_remedy(order, path, by_name)}"
        for path, reason in found.damaged.items()
    ]


def _remedy(order: RunRequest, path: Path, by_name: dict[str, ObjectState]) -> str:
    if path.parent == order.folder.root:
        return "it is written anew"
    if path.parent == order.folder.rejects:
        return "it is gathered anew where all shards of its object are there"
    name = parse_shard_name(path.name)
    if name is None:
        return "it is built again from shards, and from rounds computed again where those are gone"
    state = by_name.get(name.code_name)
    if state is None:
        return "its round is computed again when a call wants its object"
    if path.is_relative_to(order.folder.verdicts):
        return f"round {name.round_id} of {state.code} is simulated again if it is wanted"
    if name.round_id in state.finished or state.shard_of(name.round_id):
        return f"round {name.round_id} of {state.code} is proven without it"
    return f"round {name.round_id} of {state.code} is computed again if it is wanted"


def _lost(found: Survey, objects: list[ObjectState]) -> list[str]:
    """Returns the final files and shards that the journal tells of and that are not there."""
    damaged, lines = {path.name for path in found.damaged}, []
    merged = found.merged()
    gone = [one.code for one in objects if one.code in merged and one.final is None]
    gone = [code for code in gone if code not in found.finals and f"{file_name(code)}.h5" not in damaged]
    if gone:
        lines.append(f"final files that are gone are built again: {listed(gone)}")
    for state in objects:
        lost = [r for r in sorted(state.told) if r not in state.finished and not state.shard_of(r)]
        if lost and not (state.final and state.final.ending.complete):
            lines.append(f"rounds of {state.code} that are done by the journal and proven by no file: {spans(lost)}")
    return lines
