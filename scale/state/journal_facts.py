"""Gathers from a journal what a call needs to go on: keys, indices, and the last word on rounds and final files."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from scale.settings.fingerprints import Key
from scale.store import events, journal
from scale.store.events import Event, FileMerged, RoundSkipped
from scale.store.journal import Replay
from scale.store.run_folder import RunFolder


@dataclass
class JournalFacts:
    """What a journal tells, without its lines, of which there may be millions.

    Attributes:
        replayed: how it reads.
        format_version: the newest by which a call wrote it.
        run_keys: of its calls, without repeats.
        indexed: object code and index, in the order of the lines.
        sealed: object code -> round -> tile and hash of its shard.
        skipped: object code -> round -> the line that gave it up.
        merged: object code -> the last line about its final file.
    """

    replayed: Replay = field(default_factory=Replay)
    format_version: int = 0
    run_keys: list[Key] = field(default_factory=list)
    indexed: list[tuple[str, int]] = field(default_factory=list)
    sealed: dict[str, dict[int, tuple[int, str]]] = field(default_factory=dict)
    skipped: dict[str, dict[int, RoundSkipped]] = field(default_factory=dict)
    merged: dict[str, FileMerged] = field(default_factory=dict)

    @classmethod
    def of(cls, folder: RunFolder) -> JournalFacts:
        """Returns what the journal of a run folder tells."""
        facts = cls()
        facts.replayed = journal.replay(folder, facts.take)
        facts.run_keys = distinct(facts.run_keys)
        return facts

    def take(self, event: Event) -> None:
        """Takes the next event in."""
        match event:
            case events.CallStarted():
                self.format_version = max(self.format_version, event.format_version)
                self.run_keys.append(event.run_key)
            case events.ObjectsIndexed():
                self.indexed.extend(event.indices.items())
            case events.RoundSealed() | events.RoundDone() | events.RoundAdopted():
                self.sealed.setdefault(event.code, {})[event.round_id] = (event.tile_used, event.sha256)
            case RoundSkipped():
                self.skipped.setdefault(event.code, {})[event.round_id] = event
            case FileMerged():
                self.merged[event.code] = event


def distinct(values: Iterable[Mapping[str, Any]]) -> list[Any]:
    """Returns values that are JSON without repeats, in their order."""
    seen = {id(value): value for value in values}  # thousands may be one and the same
    return list({json.dumps(value, sort_keys=True): value for value in seen.values()}.values())
