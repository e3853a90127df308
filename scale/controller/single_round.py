"""`mode=generate`: one round of each object, without quotas, as a file of its own."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from bimangrasp.files.schema import FormatError
from scale.controller.completion import ObjectCompletion
from scale.settings import fingerprints
from scale.state.object_state import Done, ObjectState
from scale.state.resume import ELSEWHERE
from scale.state.scan import done_of
from scale.store import shards


def _keep_round_0(state: ObjectState, is_recorded: bool) -> None:
    """Forgets what other rounds gave; round 0 is computed again without its shard, or to record the way to it."""
    one = state.finished.get(0)
    state.finished.clear()
    state.final = None
    if isinstance(one, Done) and (one.shard is None or is_recorded):
        state.promised = {0: one.sha256}
    elif isinstance(one, Done):
        state.finished = {0: one}


class SingleRoundCompletion(ObjectCompletion):
    """Another end: round 0 of an object, sealed, becomes its file."""

    has_manifest = False

    def __init__(self, *parts: Any) -> None:
        super().__init__(*parts)
        self._earlier = set(self._folder.shard_files())
        for state in self.objects:
            _keep_round_0(state, self._config.record)
            state.quota = self._config.round_batch_size

    @property
    def max_rounds(self) -> int:
        """Round 0 and no other."""
        return 1

    def file(self, state: ObjectState) -> Path | None:
        """Returns the file of an object's round, if it is there."""
        target = self._folder.generate(state.code)
        return target if target.exists() else None

    def settle(self, state: ObjectState) -> None:
        """Ends an object whose round is there or given up."""
        target = self._folder.generate(state.code)
        one = state.finished.get(0)
        if state.ended:
            return
        if target.exists() and (made := self._made_earlier(target, state)) is not None:
            if self._config.record and one is None:
                state.promised = {0: made.sha256}  # made again, to the same bytes
                return
            state.finished.setdefault(0, made)
            self._end(state, "generated")
        elif isinstance(one, Done) and one.shard is not None:
            self._folder.write(target, one.shard.read_bytes())
            self._end(state, "generated")
        elif one is not None and not isinstance(one, Done):
            self._end(state, "skipped: " + (one.reason.strip().splitlines() or [""])[-1])

    def _remove_spent(self, state: ObjectState) -> None:
        """Deletes the shard that this call made; those of quota runs stay theirs."""
        one = state.finished.get(0)
        if isinstance(one, Done) and one.shard is not None and one.shard not in self._earlier:
            self._folder.remove(one.shard)

    def _made_earlier(self, target: Path, state: ObjectState) -> Done | None:
        """Returns the round that an earlier call wrote, None where the file is damaged; refuses other settings."""
        try:
            shard = shards.read(target)
        except (FormatError, OSError):
            self._folder.set_aside(target)
            return None
        wanted = self._order.header(state.code, state.index, state.mesh_sha256)
        found = shard.header
        for old, new in ((found.run_key, wanted.run_key), (found.object_key, wanted.object_key)):
            differing = fingerprints.differences(old, new)
            if differing:
                raise fingerprints.refuse(f"{target}", differing, ELSEWHERE)
        return replace(done_of(shard, self._order.accept), shard=None)
