"""Makes and tests rounds: hands them to workers and validators, takes in what comes, decides what failures mean."""

from __future__ import annotations

import pickle
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from bimangrasp.files.schema import Columns
from scale.controller import optional_outputs
from scale.controller.completion import ObjectCompletion
from scale.controller.worker_events import TRACEBACK_BYTES, RoleHandler
from scale.engine.devices import device_name
from scale.engine.interfaces import Failed, Job, RoundJob, Sealed, ValidationJob
from scale.engine.process_pool import WorkerPool, WorkerProcess
from scale.engine.scheduler import IN_A_ROW, ConfigErrorDetector, Key, RetryPolicy, RoundRequest, is_disk_full
from scale.engine.worker import VALIDATION
from scale.errors import RunError
from scale.formatting import last_line
from scale.merge.round_records import JudgedRound, SealedRound, accept_round
from scale.settings.schema import TENSORBOARD
from scale.state.records import ObjectState
from scale.state.round_table import DONE, SEALED
from scale.store import shards, verdict_files
from scale.store.events import AttemptFailed, RoundDone, RoundJudged, RoundSealed
from scale.store.run_folder import VALIDATOR, WORKER
from scale.store.verdict_files import Verdict

DEADLY = 2  # validators that die or hang at one grasp before it is no longer simulated
Row = tuple[str, int, int]
"""A grasp: object code, round id, row."""


class SynthesisRole(RoleHandler):
    """Makes rounds: one worker per device.

    Attributes:
        retries, config_errors: what went wrong with rounds, and with all of it.
    """

    name = WORKER

    def __init__(self, completion: ObjectCompletion) -> None:
        request = completion.call.request
        threads, factory = request.config.threads, pickle.dumps(request.factory)
        pool = WorkerPool(request.folder, request.devices, threads, factory, request.header())
        super().__init__(completion, pool, completion.call.resumed.platforms)
        self.retries = RetryPolicy(self._config.max_retries, self._config.max_kills)
        self.config_errors = ConfigErrorDetector(self._config.max_retries, 0)
        self._tiles: dict[tuple[str, str], int] = {}

    def begin(self) -> None:
        """Looks at how many objects there is something to do for."""
        batch, most = self._config.round_batch_size, self._config.max_rounds
        open_objects = self._completion.standing.open.values()
        at_work = [state for state in open_objects if next(state.rounds.needed(batch, most), None) is not None]
        goes_on = any(state.rounds.count(DONE) for state in at_work)
        self.config_errors = ConfigErrorDetector(self._config.max_retries, len(at_work), goes_on)

    def label(self, process: WorkerProcess) -> str:
        """Returns the name of a worker for people."""
        return f"worker {process.slot} ({process.device.label})"

    def slot_name(self, slot: int) -> str:
        """Returns the name of a slot for people: its device."""
        return device_name(self._request.devices[slot].label, slot)

    def began(self, process: WorkerProcess) -> None:
        """Starts the clock by which grasps per second are told."""
        self._progress.meter.ready(self.slot_name(process.slot))

    # ---- handing out

    def wanted(self) -> Iterator[RoundRequest]:
        """Yields the rounds to hand out next, object by object.

        Before any success, objects that did not fail come first: if one of them succeeds, it is not the configuration.
        """
        keys = self._needed()
        if self.config_errors.failed and not self.config_errors.has_success:
            keys = sorted(keys, key=lambda key: key[0] in self.config_errors.failed)
        for key in keys:
            yield RoundRequest(key, self.retries.barred(key, self.slots.used))

    def _needed(self) -> Iterator[tuple[str, int]]:
        batch, most = self._config.round_batch_size, self._config.max_rounds
        for state in list(self._completion.standing.open.values()):
            yield from ((state.code, round_id) for round_id in state.rounds.needed(batch, most))

    def job(self, process: WorkerProcess, state: ObjectState, round_id: int) -> RoundJob:
        """Takes a round in hand and returns what a worker is told to do."""
        state.rounds.hand_out(round_id)
        return RoundJob(
            code=state.code,
            index=state.index,
            mesh=state.mesh,
            mesh_sha256=state.mesh_sha256,
            round_id=round_id,
            seed=self._request.seed(state.index, round_id),
            attempt=state.failures[round_id],
            tile=self._tiles.get((process.device.label, state.code), self._config.full_tile),
            record=self._config.recording,
        )

    # ---- what comes back

    def read(self, sealed: Sealed) -> tuple[SealedRound, Columns]:
        """Returns a sealed round, judged where its rows can be, and its columns; see `RoleHandler.read`."""
        state, shard = self._completion.by_code[sealed.code], shards.verify(self._folder.root / sealed.path)
        key = self._request.acceptance_key_of(state.code)
        verdict = verdict_files.on(shard.sha256, state.verdicts, key)
        return accept_round(shard, self._request.accept, verdict), shard.columns

    def take(self, process: WorkerProcess, sealed: Sealed, content: tuple[SealedRound, Columns]) -> None:
        """Takes a sealed round in, and sets slots aside that failed too often at what others can do."""
        state, round_id = self._completion.by_code[sealed.code], sealed.round_id
        record, columns = content
        is_done = isinstance(record, JudgedRound) and not self._request.dedup
        by = {"seconds": round(sealed.seconds, 3), "worker": process.slot, "device": process.device.label}
        kind = RoundDone if is_done else RoundSealed
        self._journal.append(record.event(kind, state.code, round_id, self._folder, **by))
        self._log_curve(state, round_id, columns)
        self.config_errors.has_success = True
        self._completion.space.sealed()
        if record.tile_used < self._config.full_tile:
            self._tiles[process.device.label, state.code] = record.tile_used
            state.small_tiles[round_id] = record.tile_used
        else:
            state.small_tiles.pop(round_id, None)
        is_expected = self._completion.take(state, round_id, record)
        if is_expected and isinstance(record, JudgedRound):
            self._progress.meter.gained(self.slot_name(process.slot), record.accepted)
        for slot in self.slots.succeeded(process.slot, self.retries.failed_on((state.code, round_id))):
            self.set_aside(slot, f"{IN_A_ROW} rounds in a row failed there and were sealed elsewhere")

    def spoiled(self, process: WorkerProcess, sealed: Sealed, error: Exception) -> None:
        """Sets a shard aside that does not read back; that was a failed attempt."""
        path = self._folder.root / sealed.path
        self._folder.set_aside(path)
        self.failed(process, sealed, f"{path} does not read back: {error}")

    def is_of(self, path: Path, job: Job) -> bool:
        """Whether a shard is the round of a job."""
        shard = shards.verify(path)
        return (shard.header.object_code, shard.round_id) == (job.code, job.round_id)

    def release(self, code: str, round_id: int) -> None:
        """Wants a round again that was no attempt."""
        self._completion.by_code[code].rounds.take_back(round_id)

    def failed(self, process: WorkerProcess, job: Job | Failed | Sealed, text: str) -> None:
        """Notes a failed attempt; the round is handed out again, or given up."""
        state, round_id = self._completion.by_code[job.code], job.round_id
        key, tail = (state.code, round_id), text[-TRACEBACK_BYTES:]
        state.rounds.take_back(round_id)
        attempts = self.retries.failed(key, process.slot)
        state.failures[round_id] = attempts
        self._completion.standing.touch(state.code)
        event = AttemptFailed(attempt=attempts, code=state.code, round_id=round_id, worker=process.slot, traceback=tail)
        self._journal.append(event)
        self._progress.say(f"{state.code}: round {round_id}, attempt {attempts} failed: {last_line(tail)}")
        if self.config_errors.failed_at(state.code, process.slot, self.pool.workers):
            raise RunError(
                f"nothing has succeeded in this call, and rounds of {', '.join(sorted(self.config_errors.failed))} "
                f"failed: it is the configuration, or the machine. The last error, see "
                f"{self.pool.log_of(process.slot)}:\n{tail}"
            )
        if self.retries.is_used_up(key):
            self._completion.skip(state, round_id, f"after {attempts} attempts", tail)

    def killed(self, _: WorkerProcess, job: Job, how: str) -> None:
        """Wants a round again whose worker was killed from outside, until that has happened too often."""
        state, round_id = self._completion.by_code[job.code], job.round_id
        state.rounds.take_back(round_id)
        kills = self.retries.killed((state.code, round_id))
        if self.retries.is_deadly((state.code, round_id)):
            reason = (
                f"its worker died by {how} {kills} times (max_kills={self._config.max_kills}): too little memory, "
                f"most likely"
            )
            self._completion.skip(state, round_id, f"after {kills} deaths from outside", reason)

    def _log_curve(self, state: ObjectState, round_id: int, columns: Columns) -> None:
        """Gives a round's curve to TensorBoard where that is asked for; on a full disk it goes without."""
        if self._config.logger != TENSORBOARD:
            return
        try:
            optional_outputs.write_curve(self._folder, state.code, round_id, columns)
        except OSError as error:
            if not is_disk_full(error):
                raise
            self._progress.say(f"{state.code}: the curve of round {round_id} is not logged: {error}")

    def doing(self, worker: WorkerProcess) -> str:
        """Returns what a worker does, for the screen."""
        if worker.job:
            steps = f"{worker.step}/{self._config.num_iterations} steps"
            what = f"{worker.job.code} {worker.job.round_id}, {steps}"
        else:
            what = "idle" if worker.is_ready else "starting"
        return f"{self.slot_name(worker.slot)}: {what}"


class ValidationRole(RoleHandler):
    """Tests sealed rounds: validators on the CPU, or on the workers' devices.

    A grasp at which validators died by themselves, or hung, fails without being simulated; a death from outside says
    nothing of the grasp, until there were as many as `max_kills` allows a round.
    """

    name = VALIDATOR

    def __init__(self, completion: ObjectCompletion) -> None:
        request = completion.call.request
        devices, threads = request.validator_devices, request.validator_threads
        factory = pickle.dumps(request.verdict_factory)
        pool = WorkerPool(request.folder, devices, threads, factory, request.header(), VALIDATION)
        super().__init__(completion, pool, completion.call.resumed.verdict_platforms)
        self._under_way: set[Key] = set()
        self._failures: Counter[Key] = Counter()
        self._ends: Counter[Row] = Counter()
        self._kills: Counter[Row] = Counter()
        self._has_success = False

    @property
    def room(self) -> int:
        """How many more rounds may be handed out to workers before the validators have caught up."""
        return max(0, self._config.backlog * self._request.validators - self._completion.standing.waiting)

    @property
    def doing(self) -> str:
        """What the validators do, for the screen."""
        busy, waiting = len(self.pool.busy()), self._completion.standing.waiting
        return f"{busy} of {self._request.validators} validators at work, {waiting} rounds to test"

    def wanted(self) -> Iterator[RoundRequest]:
        """Yields the rounds that wait for a validator, object by object."""
        for state in self._completion.standing.with_waiting():
            keys = [(state.code, round_id) for round_id in state.rounds.having(SEALED)]
            yield from (RoundRequest(key) for key in keys if key not in self._under_way)

    def job(self, _: WorkerProcess, state: ObjectState, round_id: int) -> ValidationJob:
        """Takes a round in hand and returns what a validator is told to do."""
        self._under_way.add((state.code, round_id))
        sealed, pieces = state.rounds.record(round_id), self._request.pieces[state.code]
        return ValidationJob(
            code=state.code,
            round_id=round_id,
            shard=self._folder.relative(sealed.shard),
            pieces=self._folder.relative(pieces.path),
            acceptance_key=self._request.acceptance_key_of(state.code),
            deadly=tuple(row for row in range(sealed.rows) if self._is_deadly((state.code, round_id, row))),
        )

    def _is_deadly(self, row: Row) -> bool:
        """Whether a grasp is no longer simulated."""
        return self._ends[row] >= DEADLY or 0 < self._config.max_kills <= self._kills[row]

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

    def take(self, _: WorkerProcess, sealed: Sealed, content: tuple[Verdict, JudgedRound] | None) -> None:
        """Takes a verdict in, and the round that it completes."""
        state, round_id = self._completion.by_code[sealed.code], sealed.round_id
        if content is None:  # the verdict is on a shard that was found damaged meanwhile
            self._folder.remove(self._folder.root / sealed.path)
            return
        verdict, record = content
        state.verdicts.append(verdict)
        self._has_success = True
        self._completion.space.sealed()
        kind = RoundJudged if self._request.dedup else RoundDone
        took = round(sealed.seconds, 3)
        event = record.event(kind, state.code, round_id, self._folder, test_seconds=took)
        self._journal.append(event)
        if self._completion.judged(state, round_id, record):
            self._progress.meter.gained("physics", record.accepted)

    def spoiled(self, _: WorkerProcess, sealed: Sealed, error: Exception) -> None:
        """Sets aside what does not read back: the verdict, or the shard, whose round is computed again."""
        state, path = self._completion.by_code[sealed.code], self._folder.root / sealed.path
        if shards.is_damaged(path):
            self._folder.set_aside(path)
        self._drop_damaged_shard(state, sealed.round_id)
        self._progress.say(f"{state.code}: round {sealed.round_id} has to be tested again: {error}")

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
        row = self._row_at(job.step if isinstance(job, Failed) else process.at, state, round_id)
        event = AttemptFailed(code=state.code, round_id=round_id, validator=process.slot, row=row, traceback=tail)
        self._journal.append(event)
        what = f"the test of round {round_id} failed" + ("" if row is None else f" at grasp {row}")
        self._progress.say(f"{state.code}: {what}: {last_line(tail)}")
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
        self._completion.skip(state, round_id, f"after {self._failures[key]} tests that failed", tail)

    @staticmethod
    def _row_at(step: int | None, state: ObjectState, round_id: int) -> int | None:
        """Returns the grasp that a validator was simulating; None where it was at none."""
        waiting = state.rounds.record(round_id) if state.rounds.state(round_id) is SEALED else None
        return step if step is not None and waiting is not None and step < waiting.rows else None

    def killed(self, process: WorkerProcess, job: Job, _: str) -> None:
        """Lets a round wait for another validator; the grasp at which this one was killed is remembered."""
        self.release(job.code, job.round_id)
        if process.is_stepping:
            self._kills[job.code, job.round_id, process.step] += 1
