"""When an object is through: its prefix is merged, its file verified, what became superfluous removed."""

from __future__ import annotations

from pathlib import Path

from scale.controller.progress import Progress
from scale.errors import RunError
from scale.merge.deduplication import DedupJob
from scale.merge.merge_thread import DedupOutcome, MergeOutcome, MergeThread
from scale.state.object_state import Done, ObjectState, Sealed, Skipped
from scale.state.request import RunRequest
from scale.state.resume import Resumed, broken_determinism
from scale.store import shards
from scale.store.journal import Journal
from scale.store.run_folder import file_name, parse_shard_name


class ObjectCompletion:
    """Merges and ends the objects of a call.

    Attributes:
        objects: in the order of the call.
        by_code: the same by code.
        others: entries of the manifest about objects that are not in the call.
        notes: what the report should say of the whole call.
        merger: the thread that merges.
        say: tells what happened; only into the log at first, for what earlier calls have ended is no news.
    """

    def __init__(self, order: RunRequest, resumed: Resumed, journal: Journal, progress: Progress) -> None:
        self._order, self._config, self._folder, self._journal = order, order.config, order.folder, journal
        self.objects, self.notes = resumed.objects, list(resumed.notes)
        self.by_code = {state.code: state for state in self.objects}
        self.others = resumed.others
        self.merger = MergeThread(self._folder)
        self.say = progress.log

    has_manifest = True
    """Whether the objects' entries in the manifest are about what is done here."""

    @property
    def max_rounds(self) -> int:
        """No round id reaches it."""
        return self._config.max_rounds

    def file(self, state: ObjectState) -> Path | None:
        """Returns the file that an object has, if it has one."""
        return self._folder.final(state.code) if state.final else None

    def take(self, state: ObjectState, round_id: int, sealed: Done | Sealed) -> bool:
        """Takes a sealed round in and returns whether it is what earlier calls said of it."""
        tile, sha256 = state.told.setdefault(round_id, (sealed.tile_used, sealed.sha256))
        if tile == sealed.tile_used and sha256 != sealed.sha256 and not self._config.allow_mixed_platform:
            state.notes.append(broken_determinism(round_id, sha256, sealed.sha256))
        if state.promised.get(round_id, sealed.sha256) != sealed.sha256:
            self._change(state, f"round {round_id} was computed again and has other bytes than the file's table says")
            return False
        state.promised.pop(round_id, None)
        if isinstance(sealed, Sealed):
            state.unjudged[round_id] = sealed
            return True
        return self.judged(state, round_id, sealed)

    def judged(self, state: ObjectState, round_id: int, done: Done) -> bool:
        """Takes a round in with all its halves and returns whether its verdict is what the file's table says."""
        state.unjudged.pop(round_id, None)
        if state.promised_verdicts.pop(round_id, done.verdict_sha256) != done.verdict_sha256:
            self._change(
                state, f"round {round_id} was simulated again, not with the verdict that the file's table names"
            )
            return False
        taken = state.undecided if self._order.dedup else state.finished
        taken[round_id] = done
        self.settle(state)
        return True

    def _decide(self, state: ObjectState) -> None:
        """Has the near-duplicates of the next round looked for, when all rounds below it are decided."""
        round_id = state.prefix.rounds
        one = state.undecided.get(round_id)
        if one is None or state.deciding or state.why_ended(self.max_rounds) != "partial":
            return
        state.deciding = True
        verdict = one.verdict.path if one.verdict else None
        sources = (one.shard, one.sha256, verdict, one.verdict_sha256)
        rule = (self._order.accept, self._order.dedup, state.distinct, self.file(state))
        self.merger.submit(DedupJob(state.code, round_id, *sources, *rule))

    def decided(self, outcome: DedupOutcome) -> None:
        """Takes a round in whose near-duplicates are known."""
        state, round_id = self.by_code[outcome.job.code], outcome.job.round_id
        state.deciding = False
        one = state.undecided.pop(round_id)
        if outcome.error is not None:
            self._undo_damaged(state, {round_id: one}, outcome.error)
        else:
            done = one.without(outcome.duplicates)
            if round_id < state.rounds_in_file and done.accepted != state.final.rounds["rounds/accepted"][round_id]:
                self._change(
                    state, f"round {round_id} has another number of distinct grasps than the file's table says"
                )
                return
            self._journal.append("done", **done.facts(state.code, round_id, self._folder))
            state.finished[round_id] = done
        self.settle(state)

    def give_up(self, state: ObjectState, round_id: int, skipped: Skipped) -> None:
        """Takes a skipped round in; one whose rows the final file has cannot be skipped."""
        state.unjudged.pop(round_id, None)
        if round_id in state.promised or round_id in state.promised_verdicts:
            self._change(state, f"round {round_id}, whose rows its file has in part, failed when it was computed again")
            return
        state.finished[round_id] = skipped
        self.settle(state)

    def _change(self, state: ObjectState, what: str) -> None:
        """Ends an object that cannot be extended: what its file holds cannot be had again."""
        state.ended = "changed"
        state.notes.append(
            f"{what}: {self._folder.final(state.code)} stays as it is and is not extended; move it away to start "
            f"the object again"
        )

    def settle(self, state: ObjectState) -> None:
        """Merges an object's prefix where that is due, and ends the object where its file says what it should."""
        if not state.ended:
            self._decide(state)
        if state.merging or state.ended:
            return
        if state.has_larger_file:
            state.notes.append(f"its file was made for {state.final.ending.quota} grasps and stays as it is")
            self._end(state, "quota")
            return
        reason, key = state.why_ended(self.max_rounds), self._order.acceptance_key_of(state.code)
        if reason != "partial" and state.has_final(reason, key, self._order.accept.needs_verdict):
            self._end(state, reason)
            return
        stride = self._config.merge_stride
        grown = state.prefix.rounds - state.rounds_in_file
        if reason != "partial" or (stride and grown >= stride):
            header = self._order.header(state.code, state.index, state.mesh_sha256)
            old = self._folder.final(state.code)
            state.merging = True
            job = state.merge_job(header, reason, key, old, self._order.accept)
            self.merger.submit(job._replace(rejected_cap=self._config.keep_failed * self._config.rejected_cap))

    def merged(self, outcome: MergeOutcome) -> None:
        """Takes a final file in, or what kept it from being written."""
        state = self.by_code[outcome.job.header.object_code]
        state.merging = False
        if outcome.merged is None:
            self._merge_failed(state, outcome.error)
            return
        state.final, state.final_sha256 = outcome.merged.proof, outcome.merged.sha256
        self._journal.append("merged", **outcome.merged.facts())
        self._remove_spent(state)
        self.settle(state)

    def _end(self, state: ObjectState, reason: str) -> None:
        """Wants no more rounds of an object."""
        self._remove_spent(state)
        state.ended = reason
        self.say(f"{state.code}: {state.collected}/{state.quota} grasps, ended by {reason}")

    def remove_surplus(self) -> None:
        """Deletes what was sealed beyond the cut of finished objects after their merge."""
        if self._config.keep_intermediate:
            return
        through = {file_name(one.code): one for one in self.objects if one.final and one.final.ending.complete}
        for path in [*self._folder.shard_files(), *self._folder.verdict_files()]:
            name = parse_shard_name(path.name)
            state = through.get(name.code_name)
            if state is not None and state.ended == "quota" and name.round_id >= state.rounds_in_file:
                self._folder.remove(path)

    def _merge_failed(self, state: ObjectState, error: Exception | None) -> None:
        """Undoes rounds with damaged files; any other failure ends the run."""
        self._undo_damaged(state, {r: one for r, one in state.finished.items() if isinstance(one, Done)}, error)

    def _undo_damaged(self, state: ObjectState, done: dict[int, Done], error: Exception | None) -> None:
        """Sets damaged shards aside and has their rounds computed again; without any the error ends the run."""
        bad = [r for r, one in done.items() if one.shard and shards.is_damaged(one.shard)]
        unjudged = [r for r, one in done.items() if one.verdict and shards.is_damaged(one.verdict.path)]
        if not bad and not unjudged:
            raise RunError(
                f"the final file of {state.code}, {self._folder.final(state.code)}, cannot be written: {error}. The "
                f"file that was there is as it was; move what is named here out of the folder and start again"
            ) from error
        for round_id in bad:
            one = done[round_id]
            state.finished.pop(round_id, None)
            if one.shard.exists():
                self._folder.set_aside(one.shard)
            if round_id < state.rounds_in_file:
                state.promised[round_id] = one.sha256
            self.notes.append(f"{one.shard} was damaged; round {round_id} of {state.code} is computed again")
        for round_id in set(unjudged) - set(bad):
            self._judge_again(state, round_id, done[round_id])
        self.settle(state)

    def _judge_again(self, state: ObjectState, round_id: int, one: Done) -> None:
        """Sets a damaged verdict aside; its round waits for another one."""
        state.finished.pop(round_id, None)
        state.verdicts = [verdict for verdict in state.verdicts if verdict.path != one.verdict.path]
        if one.verdict.path.exists():
            self._folder.set_aside(one.verdict.path)
        if round_id < state.rounds_in_file:
            state.promised_verdicts[round_id] = one.verdict_sha256
        state.unjudged[round_id] = Sealed(one.seed, one.rows, one.tile_used, one.platform, one.sha256, one.shard)
        self.notes.append(f"{one.verdict.path} was damaged; round {round_id} of {state.code} is simulated again")

    def _remove_spent(self, state: ObjectState) -> None:
        """Deletes the shards that the verified final file has made superfluous."""
        if not self._config.keep_intermediate:
            for path in state.spent_files():
                self._folder.remove(path)
