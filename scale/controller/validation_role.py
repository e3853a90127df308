"""Handles validators: hands sealed rounds to them, takes their verdicts in, and decides what their failures mean."""

from __future__ import annotations

import pickle
from collections import Counter
from pathlib import Path

from scale.controller.worker_events import TRACEBACK_BYTES, CallContext
from scale.engine.devices import Device
from scale.engine.interfaces import Failed, Job, Sealed, ValidationJob
from scale.engine.process_pool import WorkerPool, WorkerProcess
from scale.engine.scheduler import Key, Slots
from scale.engine.validator import VALIDATION
from scale.errors import RunError
from scale.formatting import last_line
from scale.merge.round_records import JudgedRound, accept_round
from scale.state.object_state import ObjectState
from scale.state.round_table import SEALED
from scale.store import shards, verdict_files
from scale.store.events import AttemptFailed, RoundDone, RoundJudged
from scale.store.run_folder import VALIDATOR
from scale.store.verdict_files import Verdict

DEADLY = 2  # validators that die or hang at one grasp before it is no longer simulated
Row = tuple[str, int, int]
"""A grasp: object code, round id, row."""


class ValidationRole:
    """Tests sealed rounds: validators on the CPU. See `RoleHandler`.

    A grasp at which validators died by themselves, or hung, fails without being simulated; a death from outside says
    nothing of the grasp, until there were as many as `max_kills` allows a round.
    """

    name = VALIDATOR

    def __init__(self, context: CallContext) -> None:
        self._context, self._request, self._config = context, context.request, context.request.config
        self._completion, self._folder = context.completion, context.request.folder
        devices = [Device("cpu", "")] * self._request.validators
        factory = pickle.dumps(self._request.verdict_factory)
        self.pool = WorkerPool(self._folder, devices, 1, factory, self._request.header(), VALIDATION)
        self.slots = Slots(self._request.validators)
        self._under_way: set[Key] = set()
        self._failures: Counter[Key] = Counter()
        self._ends: Counter[Row] = Counter()
        self._kills: Counter[Row] = Counter()
        self._has_success = False

    def label(self, process: WorkerProcess) -> str:
        """Returns the name of a validator for people."""
        return self.slot_name(process.slot)

    def slot_name(self, slot: int) -> str:
        """Returns the name of a slot for people."""
        return f"validator {slot}"

    def began(self, process: WorkerProcess) -> None:
        """Nothing waits for a validator."""

    @property
    def waiting(self) -> int:
        """How many rounds have a shard and no verdict."""
        return sum(state.rounds.count(SEALED) for state in self._completion.objects if not state.ended)

    @property
    def room(self) -> int:
        """How many more rounds may be handed out to workers before the validators have caught up."""
        return max(0, self._config.backlog * self._request.validators - self.waiting)

    @property
    def doing(self) -> str:
        """What the validators do, for the screen."""
        busy = len(self.pool.busy())
        return f"{busy} of {self._request.validators} validators at work, {self.waiting} rounds to test"

    def hand_out(self) -> None:
        """Gives idle validators the rounds that wait, and starts validators where there are more rounds than these."""
        wanted = [
            (state, round_id)
            for state in self._completion.objects
            if not state.ended and state.rounds.count(SEALED)
            for round_id in state.rounds.having(SEALED)
            if (state.code, round_id) not in self._under_way
        ]
        idle = self.pool.idle()
        for process, (state, round_id) in zip(idle, wanted, strict=False):
            self._under_way.add((state.code, round_id))
            self.pool.assign(process, self._job(state, round_id))
        starting = [process for process in self.pool.workers.values() if not process.is_ready]
        empty = [slot for slot in self.slots.used if slot not in self.pool.workers]
        for slot in empty[: max(0, len(wanted) - len(idle) - len(starting))]:
            self.pool.start(slot)

    def _job(self, state: ObjectState, round_id: int) -> ValidationJob:
        """Returns what a validator is told to do."""
        pieces, _ = self._request.pieces[state.code]
        return ValidationJob(
            code=state.code,
            round_id=round_id,
            shard=self._folder.relative(state.rounds.record(round_id).shard),
            pieces=self._folder.relative(pieces),
            acceptance_key=self._request.acceptance_key_of(state.code),
            deadly=tuple(sorted(row for code, r, row in self._deadly() if (code, r) == (state.code, round_id))),
        )

    def _deadly(self) -> set[Row]:
        """Returns the grasps that are no longer simulated."""
        most = self._config.max_kills
        killed = {row for row, kills in self._kills.items() if 0 < most <= kills}
        return killed | {row for row, ends in self._ends.items() if ends >= DEADLY}

    # ---- what comes back

    def read(self, sealed: Sealed) -> tuple[Verdict, JudgedRound] | None:
        """Returns a verdict and the round that it judges; None where that round no longer waits for this verdict."""
        state, round_id = self._completion.by_code[sealed.code], sealed.round_id
        self.release(state.code, round_id)
        verdict = verdict_files.verify(self._folder.root / sealed.path)
        waiting = state.rounds.record(round_id) if state.rounds.state(round_id) is SEALED else None
        if waiting is None or verdict.shard_sha256 != waiting.sha256:
            return None
        return verdict, accept_round(shards.verify(waiting.shard), self._request.accept, verdict)

    def take(self, _: WorkerProcess, sealed: Sealed, content: tuple[Verdict, JudgedRound] | None) -> list[int]:
        """Takes a verdict in, and the round that it completes; no slot is ever set aside for that."""
        state, round_id = self._completion.by_code[sealed.code], sealed.round_id
        if content is None:  # the verdict is on a shard that was found damaged meanwhile
            self._folder.remove(self._folder.root / sealed.path)
            return []
        verdict, record = content
        state.verdicts.append(verdict)
        self._has_success = True
        self._completion.space.sealed()
        kind = RoundJudged if self._request.dedup else RoundDone
        took = round(sealed.seconds, 3)
        event = record.event(kind, state.code, round_id, self._folder, test_seconds=took)
        self._context.journal.append(event)
        if self._completion.judged(state, round_id, record):
            self._context.meter.gained("physics", record.accepted)
        return []

    def spoiled(self, _: WorkerProcess, sealed: Sealed, error: Exception) -> None:
        """Sets aside what does not read back: the verdict, or the shard, whose round is computed again."""
        state, path = self._completion.by_code[sealed.code], self._folder.root / sealed.path
        if shards.is_damaged(path):
            self._folder.set_aside(path)
        self._drop_damaged_shard(state, sealed.round_id)
        self._context.progress.say(f"{state.code}: round {sealed.round_id} has to be tested again: {error}")

    def _drop_damaged_shard(self, state: ObjectState, round_id: int) -> bool:
        """Wants a round again whose shard is damaged; returns whether it no longer waits for a verdict."""
        if state.rounds.state(round_id) is not SEALED:
            return True
        shard = state.rounds.record(round_id).shard
        if not shards.is_damaged(shard):
            return False
        state.rounds.reopen(round_id)
        self._folder.set_aside(shard)
        return True

    def is_of(self, path: Path, job: Job) -> bool:
        """Whether a verdict is on the round of a job."""
        verdict = verdict_files.verify(path)
        return (verdict.code, verdict.round_id) == (job.code, job.round_id)

    def release(self, code: str, round_id: int) -> None:
        """Lets a round wait for another validator."""
        self._under_way.discard((code, round_id))

    def failed(self, process: WorkerProcess, job: Job | Failed, text: str) -> None:
        """Notes a failed attempt; the grasp at which it failed is not simulated for ever."""
        state, round_id = self._completion.by_code[job.code], job.round_id
        self.release(state.code, round_id)
        key, tail = (state.code, round_id), text[-TRACEBACK_BYTES:]
        row = self._row_of(process, state, round_id)
        event = AttemptFailed(code=state.code, round_id=round_id, validator=process.slot, row=row, traceback=tail)
        self._context.journal.append(event)
        what = f"the test of round {round_id} failed at grasp {row}"
        self._context.progress.say(f"{state.code}: {what}: {last_line(tail)}")
        if row is not None:
            self._ends[(*key, row)] += 1
            return
        if self._drop_damaged_shard(state, round_id):
            return
        self._failures[key] += 1
        if self._failures[key] <= self._config.max_retries:
            return
        if not self._has_success:
            raise RunError(
                f"no round could be tested in this call: it is the configuration, or the machine. The last error, see "
                f"{self.pool.log_of(process.slot)}:\n{tail}"
            )
        self._context.skip(state, round_id, f"after {self._failures[key]} tests that failed", tail)

    def _row_of(self, process: WorkerProcess, state: ObjectState, round_id: int) -> int | None:
        """Returns the grasp that a validator was simulating; None where it was at none."""
        waiting = state.rounds.record(round_id) if state.rounds.state(round_id) is SEALED else None
        is_at_row = process.is_stepping and waiting is not None and process.step < waiting.rows
        return process.step if is_at_row else None

    def killed(self, process: WorkerProcess, job: Job, _: str) -> None:
        """Lets a round wait for another validator; the grasp at which this one was killed is remembered."""
        self.release(job.code, job.round_id)
        if process.is_stepping:
            self._kills[job.code, job.round_id, process.step] += 1
