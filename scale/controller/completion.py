"""Completes objects: takes their rounds in, merges the finished prefix, verifies the final file, ends the object."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from scale.controller.run_report import Progress
from scale.engine.pool import Engine
from scale.engine.scheduler import is_disk_full
from scale.errors import RunError
from scale.merge.job import DedupJob
from scale.merge.merge_thread import MergeThread, Outcome
from scale.merge.round_records import JudgedRound, SealedRound, SkippedRound
from scale.state.records import ObjectState, RunRequest
from scale.state.resume import Resumed, broken_determinism
from scale.state.round_table import DONE, JUDGED
from scale.state.standing import Standing
from scale.store import shards
from scale.store.disk_space import Space
from scale.store.events import RoundDone, RoundSkipped
from scale.store.journal import Journal
from scale.store.locks import RunLock
from scale.store.run_folder import file_name, parse_shard_name


class OpenCall(NamedTuple):
    """A call whose run folder is locked, scanned and resumed, and what its processes run on."""

    request: RunRequest
    resumed: Resumed
    journal: Journal
    progress: Progress
    lock: RunLock
    engine: Engine


class ObjectCompletion:
    """Merges and ends the objects of a call.

    It owns the rule for a full disk: what found no room is done again as soon as there is some.

    Attributes:
        call: which.
        objects: in the order of the call.
        standing: of all of them.
        by_code: the same by code.
        others: entries of the manifest about objects that are not in the call.
        notes: what the report should say of the whole call.
        merger: the thread that merges.
        space: whether the disk has room.
        say: tells what happened; only into the log at first, for what earlier calls have ended is no news.
    """

    def __init__(self, call: OpenCall) -> None:
        self.call, self._journal = call, call.journal
        self._request, self._config, self._folder = call.request, call.request.config, call.request.folder
        self.objects, self.notes = call.resumed.objects, list(call.resumed.notes)
        self.by_code = {state.code: state for state in self.objects}
        self.standing = Standing(self.objects)
        self.others = call.resumed.others
        self.merger = MergeThread(self._folder)
        self.space = Space(self._folder, self._config.disk_wait_s)
        self.say = call.progress.log
        self._unsettled: set[str] = set()

    def file(self, state: ObjectState) -> Path | None:
        """Returns the file that an object has, if it has one."""
        return self._folder.final(state.code) if state.final else None

    # ---- rounds that come in

    def take(self, state: ObjectState, round_id: int, record: SealedRound) -> bool:
        """Takes a sealed round in and returns whether it is what earlier calls said of it."""
        tile, sha256 = state.journaled.setdefault(round_id, (record.tile_used, record.sha256))
        if tile == record.tile_used and sha256 != record.sha256 and not self._config.allow_mixed_platform:
            state.notes.append(broken_determinism(round_id, sha256, record.sha256))
        if state.expected_sha256.get(round_id, record.sha256) != record.sha256:
            state.rounds.reopen(round_id)
            self._end_changed(state, f"round {round_id} was computed again and has other bytes than its file says")
            return False
        state.expected_sha256.pop(round_id, None)
        if isinstance(record, JudgedRound):
            return self.judged(state, round_id, record)
        state.rounds.seal(round_id, record)
        return True

    def judged(self, state: ObjectState, round_id: int, record: JudgedRound) -> bool:
        """Takes a round in with its verdict and returns whether that is what the file's table says."""
        expected = state.expected_verdict_sha256.pop(round_id, record.verdict_sha256)
        if expected != record.verdict_sha256:
            state.rounds.reopen(round_id)
            self._end_changed(state, f"round {round_id} was simulated again, with another verdict than its file names")
            return False
        state.rounds.enter(round_id, record, self._request.dedup is not None)
        self.settle(state)
        return True

    def decided(self, outcome: Outcome) -> None:
        """Takes a round in whose near-duplicates are known."""
        state, round_id = self.by_code[outcome.job.code], outcome.job.round_id
        state.is_deduplicating = False
        record = state.rounds.record(round_id)
        if outcome.error is not None:
            self._undo_damaged(state, {round_id: record}, outcome.error)
            return
        done = record.without(outcome.result)
        if round_id < state.rounds_in_file and done.accepted != state.final.rounds["rounds/accepted"][round_id]:
            state.rounds.reopen(round_id)
            self._end_changed(state, f"round {round_id} has another number of distinct grasps than its file says")
            return
        self._journal.append(done.event(RoundDone, state.code, round_id, self._folder))
        state.rounds.finish(round_id, done)
        self.settle(state)

    def skip(self, state: ObjectState, round_id: int, when: str, reason: str) -> None:
        """Gives a round up and names it; one whose rows the final file has in part cannot be skipped.

        Args:
            state: the object.
            round_id: the round.
            when: after what, for people.
            reason: the end of a traceback.
        """
        seed, attempts = self._request.seed(state.index, round_id), state.failures[round_id]
        facts = {"seed": seed, "attempts": attempts, "traceback": reason}
        self._journal.append(RoundSkipped(code=state.code, round_id=round_id, **facts))
        self.call.progress.say(f"{state.code}: round {round_id} is skipped {when}")
        if state.is_expected(round_id):
            state.rounds.reopen(round_id)
            self._end_changed(state, f"round {round_id}, whose rows its file has, failed when it was computed again")
            return
        state.rounds.skip(round_id, SkippedRound(seed, reason))
        self.settle(state)

    def _end_changed(self, state: ObjectState, what: str) -> None:
        """Ends an object that cannot be extended: what its file holds cannot be had again."""
        state.ended = "changed"
        self.standing.end(state.code)
        state.notes.append(
            f"{what}: {self._folder.final(state.code)} stays as it is and is not extended; move it away to start "
            f"the object again"
        )

    def refuse(self, state: ObjectState, reason: str) -> None:
        """Ends an object on which nothing can be tested."""
        state.ended = "no_pieces"
        self.standing.end(state.code)
        state.notes.append(f"it has no convex pieces to be tested on: {reason}")
        self.call.progress.say(f"{state.code} has no convex pieces to be tested on: {reason}")

    # ---- the final file

    def settle(self, state: ObjectState) -> None:
        """Brings an object's file up to date, and ends the object where its file says what it should.

        On a full disk that is done again by `settle_again`.
        """
        self._unsettled.discard(state.code)
        try:
            self._settle(state)
        except OSError as error:
            self._wait_for_room(state, error)

    def settle_again(self) -> None:
        """Settles the objects that found the disk full."""
        for code in sorted(self._unsettled):
            self.settle(self.by_code[code])

    def _wait_for_room(self, state: ObjectState, error: OSError) -> None:
        """Notes that an object found no room on the disk; raises any other error."""
        if not is_disk_full(error):
            raise error
        self.space.met(str(error))
        self._unsettled.add(state.code)

    def _settle(self, state: ObjectState) -> None:
        if not state.ended:
            self._deduplicate(state)
        if state.is_merging or state.ended:
            return
        if state.has_larger_file:
            state.notes.append(f"its file was made for {state.final.ending.quota} grasps and stays as it is")
            self._end(state, "quota")
            return
        reason = state.rounds.why_ended(self._config.max_rounds)
        key = self._request.acceptance_key_of(state.code)
        if reason != "partial" and state.has_final(reason, key, self._request.accept.needs_verdict):
            self._end(state, reason)
            return
        stride = self._config.merge_stride
        has_grown = stride > 0 and state.rounds.prefix.rounds - state.rounds_in_file >= stride
        if reason != "partial" or has_grown:
            self._merge(state, reason, key)

    def _deduplicate(self, state: ObjectState) -> None:
        """Has the near-duplicates of the next round looked for, when all rounds below it are decided."""
        round_id = state.rounds.prefix.rounds
        is_due = state.rounds.state(round_id) is JUDGED and not state.is_deduplicating
        if not is_due or state.rounds.why_ended(self._config.max_rounds) != "partial":
            return
        state.is_deduplicating = True
        rule = (self._request.accept, self._request.dedup, state.distinct, self.file(state))
        self.merger.submit(DedupJob(state.code, round_id, state.rounds.record(round_id), *rule))

    def _merge(self, state: ObjectState, reason: str, acceptance_key: dict) -> None:
        """Has the prefix as it stands merged."""
        header = self._request.header(state.code, state.index, state.mesh_sha256)
        job = state.merge_job(header, reason, acceptance_key, self._folder.final(state.code), self._request.accept)
        state.is_merging = True
        self.merger.submit(job._replace(rejected_cap=self._config.keep_failed * self._config.rejected_cap))

    def merged(self, outcome: Outcome) -> None:
        """Takes a final file in, or what kept it from being written: on a full disk it is merged again later."""
        state = self.by_code[outcome.job.header.object_code]
        state.is_merging = False
        if outcome.error is None:
            state.final, state.final_sha256 = outcome.result.proof, outcome.result.sha256
            self.standing.touch(state.code)
            self._journal.append(outcome.result.event())
            self.space.sealed()
            self._remove_spent(state)
            self.settle(state)
        elif is_disk_full(outcome.error):
            self._wait_for_room(state, outcome.error)
        else:
            self._undo_damaged(state, state.rounds.having(DONE), outcome.error)

    def _end(self, state: ObjectState, reason: str) -> None:
        """Wants no more rounds of an object."""
        self._remove_spent(state)
        state.ended = reason
        self.standing.end(state.code)
        self.say(f"{state.code}: {state.collected}/{state.quota} grasps, ended by {reason}")

    def _remove_spent(self, state: ObjectState) -> None:
        """Deletes the shards that the verified final file has made superfluous."""
        if not self._config.keep_intermediate:
            for path in state.take_spent_files():
                self._folder.remove(path)

    def remove_surplus(self) -> None:
        """Deletes what was sealed beyond the cut of finished objects after their merge."""
        if self._config.keep_intermediate:
            return
        complete = [state for state in self.objects if state.final and state.final.ending.complete]
        by_name = {file_name(state.code): state for state in complete if state.ended == "quota"}
        for path in [*self._folder.shard_files(), *self._folder.verdict_files()]:
            name = parse_shard_name(path.name)
            state = by_name.get(name.code_name)
            if state is not None and name.round_id >= state.rounds_in_file:
                self._folder.remove(path)

    # ---- damaged files

    def _undo_damaged(self, state: ObjectState, records: dict[int, JudgedRound], error: Exception) -> None:
        """Sets damaged files of some rounds aside and has them made again; without any the error ends the run."""
        bad_shards = [r for r, record in records.items() if record.shard and shards.is_damaged(record.shard)]
        judged = {r: record for r, record in records.items() if record.verdict and r not in bad_shards}
        bad_verdicts = [r for r, record in judged.items() if shards.is_damaged(record.verdict.path)]
        if not bad_shards and not bad_verdicts:
            raise RunError(
                f"the final file of {state.code}, {self._folder.final(state.code)}, cannot be written: {error}. The "
                f"file that was there is as it was; move what is named here out of the folder and start again"
            ) from error
        for round_id in bad_shards:
            self._compute_again(state, round_id, records[round_id])
        for round_id in bad_verdicts:
            self._judge_again(state, round_id, records[round_id])
        self.settle(state)

    def _compute_again(self, state: ObjectState, round_id: int, record: JudgedRound) -> None:
        """Sets a damaged shard aside; its round is computed again."""
        state.rounds.reopen(round_id)
        self._folder.set_aside(record.shard)
        if round_id < state.rounds_in_file:
            state.expected_sha256[round_id] = record.sha256
        self.notes.append(f"{record.shard} was damaged; round {round_id} of {state.code} is computed again")

    def _judge_again(self, state: ObjectState, round_id: int, record: JudgedRound) -> None:
        """Sets a damaged verdict aside; its round waits for another one."""
        state.rounds.seal(round_id, record.unjudged())
        state.verdicts = [verdict for verdict in state.verdicts if verdict.path != record.verdict.path]
        self._folder.set_aside(record.verdict.path)
        if round_id < state.rounds_in_file:
            state.expected_verdict_sha256[round_id] = record.verdict_sha256
        self.notes.append(f"{record.verdict.path} was damaged; round {round_id} of {state.code} is simulated again")
