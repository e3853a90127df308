"""Makes rounds: hands them to workers, takes in what they seal, and decides what failures mean."""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from itertools import islice

from bimangrasp.files.schema import Columns
from scale.controller import optional_outputs
from scale.controller.completion import ObjectCompletion
from scale.controller.worker_events import TRACEBACK_BYTES, RoleHandler
from scale.engine.devices import device_name
from scale.engine.interfaces import Failed, Job, RoundJob, Sealed
from scale.engine.pool import WorkerProcess
from scale.engine.scheduler import IN_A_ROW, ConfigErrorDetector, RetryPolicy, RoundRequest, is_disk_full
from scale.engine.worker import SYNTHESIS
from scale.errors import RunError
from scale.formatting import last_line
from scale.merge.round_records import JudgedRound, SealedRound, accept_round
from scale.settings.schema import TENSORBOARD
from scale.state.records import ObjectState
from scale.state.round_table import DONE
from scale.store import shards, verdict_files
from scale.store.events import AttemptFailed, RoundDone, RoundSealed
from scale.store.run_folder import WORKER


class SynthesisRole(RoleHandler):
    """Makes rounds: one worker per device.

    Attributes:
        retries, config_errors: what went wrong with rounds, and with all of it.
    """

    name = WORKER

    def __init__(self, completion: ObjectCompletion) -> None:
        request = completion.call.request
        crew = (SYNTHESIS, pickle.dumps(request.factory), request.config.threads)
        super().__init__(completion, *crew, completion.call.resumed.platforms)
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
        return device_name(self.pool.devices[slot].label, slot)

    def began(self, process: WorkerProcess) -> None:
        """Starts the clock by which grasps per second are told."""
        self._progress.meter.ready(self.slot_name(process.slot))

    # ---- handing out

    def wanted(self) -> Iterator[RoundRequest]:
        """Yields the rounds to hand out next, object by object; of objects without their pieces one that is ahead.

        Before any success, objects that did not fail come first: if one of them succeeds, it is not the configuration.
        """
        keys = self._needed()
        if self.config_errors.failed and not self.config_errors.has_success:
            keys = sorted(keys, key=lambda key: key[0] in self.config_errors.failed)
        for key in keys:
            is_ahead = self._request.lacks_pieces(key[0])
            yield RoundRequest(key, self.retries.barred(key, self.slots.used), is_ahead)

    def _needed(self) -> Iterator[tuple[str, int]]:
        batch, most = self._config.round_batch_size, self._config.max_rounds
        ahead = len(self.slots.used)
        for state in list(self._completion.standing.open.values()):
            lacks = self._request.lacks_pieces(state.code)
            ahead -= lacks
            if lacks and ahead < 0:
                continue
            rounds = ((state.code, round_id) for round_id in state.rounds.needed(batch, most))
            yield from islice(rounds, 1) if lacks else rounds

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

    def release(self, job: Job | Failed | Sealed) -> None:
        """Wants a round again that was no attempt."""
        self._completion.by_code[job.code].rounds.take_back(job.round_id)

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
