"""What the parent makes of its workers' words, deaths and silence."""

from __future__ import annotations

from pathlib import Path

from bimangrasp.files.schema import Columns, FormatError
from scale.controller import tensorboard
from scale.controller.completion import ObjectCompletion
from scale.controller.progress import Meter, Progress
from scale.engine.devices import device_name
from scale.engine.failures import ConfigErrorDetector, Key, RetryPolicy, Slots, death
from scale.engine.process_pool import Event, Worker, WorkerPool
from scale.engine.worker import Message
from scale.errors import RunError
from scale.formatting import last_line
from scale.merge.merge_thread import DedupOutcome, MergeOutcome
from scale.settings import fingerprints
from scale.settings.schema import TENSORBOARD
from scale.state import rounds
from scale.state.object_state import Done, ObjectState, Skipped
from scale.state.request import RunRequest
from scale.state.scan import done_of
from scale.store import shards, verdict_files
from scale.store.disk_space import Space
from scale.store.durable_io import DISK_FULL
from scale.store.journal import Journal

EARLY_EXITS = 2  # of workers in a row that were not ready, which end the use of a device, or the run
EARLY_KILLS = 20  # the same for deaths by signals from outside, which end the run
TRACEBACK_BYTES = 2000  # of each failure, in journal and manifest
PATIENCE = 3  # rounds to use up before success of an earlier call says no more of the configuration


class WorkerEvents:
    """Hears the workers of a call and enters what happened into ledger and journal.

    Attributes:
        trials, slots, suspicion: what went wrong with rounds, devices and all of it.
        space: whether the disk has room.
        meter: accepted grasps by device.
        platforms: those of the run's rounds and workers.
        unsettled: objects whose file could not be written on a full disk.
    """

    def __init__(
        self,
        order: RunRequest,
        settler: ObjectCompletion,
        engine: WorkerPool,
        platforms: list[dict[str, str]],
        journal: Journal,
        progress: Progress,
    ) -> None:
        self._order, self._config, self._folder = order, order.config, order.folder
        self._settler, self._engine = settler, engine
        self._journal, self._progress = journal, progress
        self.trials = RetryPolicy(self._config.max_retries, self._config.max_kills)
        self.slots = Slots(len(order.devices))
        self.suspicion = ConfigErrorDetector({})
        self.space = Space(self._folder, self._config.disk_wait_s)
        self.meter = Meter()
        self.platforms = list(platforms)
        self.unsettled: set[str] = set()
        self._early_kills = 0
        self._was_ready = False
        self._tiles: dict[tuple[str, str], int] = {}

    def begin(self) -> None:
        """Looks at what earlier calls left to do: so much it takes to suspect the configuration."""
        batch, most = self._config.round_batch_size, self._settler.max_rounds
        objects = [state for state in self._settler.objects if not state.ended]
        at_work = [state for state in objects if next(state.needed(batch, most), None) is not None]
        patience = {state.code: PATIENCE if _has_success(state) else 1 for state in at_work}
        self.suspicion = ConfigErrorDetector(patience, {state.code for state in at_work if state.skipped})

    @property
    def full_tile(self) -> int:
        """How many grasps are evaluated at once where memory lasts."""
        return self._config.tile or self._config.round_batch_size

    def tile(self, one: Worker, code: str) -> int:
        """Returns how many grasps of an object a device is known to take at once."""
        return self._tiles.get((one.device.label, code), self.full_tile)

    def seed(self, state: ObjectState, round_id: int) -> int:
        """Returns the seed of a round."""
        return rounds.seed_of(self._config.seed_base, state.index, round_id)

    def hear(self, event: Event) -> None:
        """Does what an event asks for."""
        message, one = event.message, event.worker
        if message["kind"] == "ready":
            self._ready(one, message["platform"])
        elif message["kind"] == "halved":
            names = {"code": message["code"], "round": message["round"], "tile": message["tile"]}
            self._journal.append("halved", worker=one.slot, device=one.device.label, **names)
            self._say("{code}: round {round} goes on with {tile} grasps at once: out of memory".format(**names))
        elif message["kind"] == "sealed":
            self._sealed(one, message, self._folder.root / message["path"], message["seconds"])
        elif message["kind"] == "failed" and message["errno"] in DISK_FULL:
            self._found_no_room(self._settler.by_code[message["code"]], message["round"], message["traceback"])
        elif message["kind"] == "failed":
            self._failed(self._settler.by_code[message["code"]], message["round"], one, message["traceback"])
        elif message["kind"] == "died":
            self._died(one, message["exitcode"])

    def watch(self) -> None:
        """Ends workers that give no sign of life; their deaths are heard later."""
        config = self._config
        for one in self._engine.end_silent(config.startup_timeout_s, config.heartbeat_timeout_s):
            names = {"code": one.job and one.job["code"], "round": one.job and one.job["round"]}
            self._journal.append("silent", worker=one.slot, launch=one.launch, reason=one.verdict, **names)
            self._say(f"worker {one.slot} ({one.device.label}) is ended: {one.verdict}")

    def settle(self, state: ObjectState) -> None:
        """Brings an object's file up to date, as soon as the disk has room for it."""
        self.unsettled.discard(state.code)
        try:
            self._settler.settle(state)
        except OSError as error:
            self.no_file(state, error)

    def no_file(self, state: ObjectState, error: OSError) -> None:
        """Notes that an object's file found no room on the disk; raises any other error."""
        if error.errno not in DISK_FULL:
            raise error
        self.space.met(str(error))
        self.unsettled.add(state.code)

    def merged(self, outcome: MergeOutcome | DedupOutcome) -> None:
        """Takes a merge in, unless it found the disk full: then it is done again when there is room."""
        if isinstance(outcome, DedupOutcome):
            self._settler.decided(outcome)
            return
        state = self._settler.by_code[outcome.job.header.object_code]
        if isinstance(outcome.error, OSError) and outcome.error.errno in DISK_FULL:
            state.merging = False
            self.no_file(state, outcome.error)
            return
        self._settler.merged(outcome)
        self.space.sealed()

    def _say(self, text: str) -> None:
        self._progress.say(text)

    def _ready(self, one: Worker, platform: dict[str, str]) -> None:
        """Takes a worker in, if its platform is the run's."""
        self._early_kills, self._was_ready = 0, True
        self.slots.ready(one.slot)
        self.meter.ready(device_name(one.device, one.slot))
        self._journal.append("ready", worker=one.slot, launch=one.launch, device=one.device.label, platform=platform)
        first = self.platforms[0] if self.platforms else platform
        if platform not in self.platforms:
            self.platforms.append(platform)
            self._say(f"{one.device.label}: " + ", ".join(f"{k} {v}" for k, v in platform.items()))
        if len(self.platforms) > 1 and not self._config.allow_mixed_platform:
            other = next(known for known in self.platforms if known != first)
            raise fingerprints.refuse(
                f"{self._folder.root}, by rounds on another platform,",
                fingerprints.differences(first, other),
                "Equal bytes hold for one platform only: use like devices, or allow_mixed_platform=true.",
            )

    def _sealed(self, one: Worker, job: Message, path: Path, seconds: float) -> None:
        """Takes a sealed round in."""
        state, round_id = self._settler.by_code[job["code"]], job["round"]
        try:
            shard = shards.verify(path)
        except (FormatError, OSError) as error:
            if path.exists():
                self._folder.set_aside(path)
            self._failed(state, round_id, one, f"{path} does not read back: {error}")
            return
        state.in_flight.discard(round_id)
        verdict = verdict_files.on(shard.sha256, state.verdicts, self._order.acceptance_key_of(state.code))
        done = done_of(shard, self._order.accept, verdict)
        is_done = isinstance(done, Done) and not self._order.dedup
        by = {"seconds": round(seconds, 3), "worker": one.slot, "device": one.device.label}
        facts = done.facts(state.code, round_id, self._folder) | by
        self._journal.append("done" if is_done else "sealed", **facts)
        self._log_curve(state, round_id, shard.columns)
        self.suspicion.has_success = True
        self.slots.succeeded(one.slot)
        self._set_condemned_aside()
        self.space.sealed()
        if done.tile_used < self.full_tile:
            self._tiles[one.device.label, state.code] = done.tile_used
        try:
            is_as_told = self._settler.take(state, round_id, done)
        except OSError as error:
            self.no_file(state, error)
            is_as_told = True
        if is_as_told and isinstance(done, Done):
            self.meter.gained(device_name(one.device, one.slot), done.accepted)

    def _log_curve(self, state: ObjectState, round_id: int, columns: Columns) -> None:
        """Gives a round's curve to TensorBoard where that is asked for; on a full disk it goes without."""
        if self._config.logger != TENSORBOARD:
            return
        try:
            tensorboard.write_curve(self._folder, state.code, round_id, columns)
        except OSError as error:
            if error.errno not in DISK_FULL:
                raise
            self._say(f"{state.code}: the curve of round {round_id} is not logged: {error}")

    def _found_no_room(self, state: ObjectState, round_id: int, text: str) -> None:
        """Returns a round that the full disk had no room for; that was no attempt."""
        state.in_flight.discard(round_id)
        last = last_line(text)
        self._journal.append("no_room", code=state.code, round=round_id, reason=last)
        self.space.met(last)

    def _failed(self, state: ObjectState, round_id: int, one: Worker, text: str) -> None:
        """Notes a failed attempt; the round is handed out again, or given up."""
        key = (state.code, round_id)
        state.in_flight.discard(round_id)
        attempts, tail = self.trials.failed(key, one.slot), text[-TRACEBACK_BYTES:]
        state.failures[round_id] = attempts
        names = {"code": state.code, "round": round_id, "worker": one.slot}
        self._journal.append("fail", attempt=attempts, **names, traceback=tail)
        self._say(f"{state.code}: round {round_id}, attempt {attempts} failed: {last_line(tail)}")
        self.slots.failed(one.slot, key)
        self._set_condemned_aside()
        is_used_up = self.trials.is_used_up(key)
        is_suspect = self.suspicion.falls_on_configuration(state.code, is_used_up)
        if is_suspect and self.slots.all_fail({one.slot, *self._engine.workers}):
            raise RunError(
                f"nothing has succeeded in this call, and rounds of {', '.join(sorted(self.suspicion.failed))} failed: "
                f"it is the configuration, or the machine. The last error, see {self._folder.worker_log(one.slot)}:\n"
                f"{tail}"
            )
        if is_used_up:
            self.give_up(state, round_id, f"after {attempts} attempts", tail)

    def give_up(self, state: ObjectState, round_id: int, when: str, reason: str) -> None:
        """Skips a round and names it."""
        seed, attempts = self.seed(state, round_id), state.failures[round_id]
        self._journal.append("skip", seed=seed, attempts=attempts, code=state.code, round=round_id, traceback=reason)
        self._say(f"{state.code}: round {round_id} is skipped {when}")
        try:
            self._settler.give_up(state, round_id, Skipped(seed, reason))
        except OSError as error:
            self.no_file(state, error)

    def _set_condemned_aside(self) -> None:
        """Works no longer with devices that fail what others can do."""
        for slot, streak in self.slots.condemned():
            self._forgive(slot, streak)
            self._set_aside(slot, f"rounds of {len({code for code, _ in streak})} objects in a row failed there")

    def _forgive(self, slot: int, streak: list[Key]) -> None:
        """Takes back what a device did to rounds that are none the worse for it."""
        for code, round_id in streak:
            state = self._settler.by_code[code]
            state.failures[round_id] -= self.trials.forgive((code, round_id), slot)
            is_open = not (state.ended or state.merging) and round_id >= state.rounds_in_file
            if is_open and isinstance(state.finished.get(round_id), Skipped):
                del state.finished[round_id]

    def _set_aside(self, slot: int, why: str) -> None:
        """Works with a device no longer; what it has in flight is handed out again."""
        one, device = self._engine.workers.get(slot), self._order.devices[slot]
        if one is not None and one.job:
            self._settler.by_code[one.job["code"]].in_flight.discard(one.job["round"])
        self._engine.retire(slot)
        note = f"{device_name(device, slot)} is set aside: {why}, see {self._folder.worker_log(slot)}"
        self._journal.append("set_aside", worker=slot, device=device.label, reason=why)
        self._settler.notes.append(note)
        self._say(note)

    def _died(self, one: Worker, exitcode: int) -> None:
        """Adopts what a dead worker had sealed, else returns its round."""
        how, from_outside = death(exitcode, one.verdict)
        job = one.job or {}
        names = {"code": job.get("code"), "round": job.get("round"), "alone": job.get("alone", False)}
        self._journal.append("died", worker=one.slot, launch=one.launch, exitcode=exitcode, **names)
        self._say(f"worker {one.slot} ({one.device.label}) died: {how}")
        if not one.ready:
            self._died_early(one, from_outside, how)
        if not job:
            return
        state, round_id = self._settler.by_code[job["code"]], job["round"]
        adopted = self._sealed_by(one, state, round_id)
        if adopted is not None:
            self._sealed(one, job, adopted, 0.0)
        elif from_outside:
            self._killed(state, round_id, job["alone"], how)
        else:
            self._failed(state, round_id, one, f"{self._engine.log_tail(one)}\nthe worker died: {how}")

    def _killed(self, state: ObjectState, round_id: int, was_alone: bool, how: str) -> None:
        """Returns a round whose worker was killed from outside, until it has cost too many."""
        key = (state.code, round_id)
        state.in_flight.discard(round_id)
        ran_alone = self.trials.runs_alone(key)
        self.trials.killed(key, was_alone)
        if self.trials.is_deadly(key):
            trial = self.trials.of(key)
            reason = (
                f"its worker died by {how} {trial.kills + trial.lonely_kills} times, {trial.lonely_kills} of them "
                f"while no other round ran (max_kills={self._config.max_kills}): too little memory, most likely"
            )
            self.give_up(state, round_id, f"after {trial.lonely_kills} deaths alone", reason)
        elif not ran_alone and self.trials.runs_alone(key):
            self._say(f"{state.code}: round {round_id} runs alone from now on, when nothing else is left to do")

    def _died_early(self, one: Worker, from_outside: bool, how: str) -> None:
        """Ends the run when workers die again and again before any is ready, or its use of one device."""
        if from_outside:
            self._early_kills += 1
            ends, most = self._early_kills >= EARLY_KILLS, EARLY_KILLS
        elif self.slots.died_early(one.slot, EARLY_EXITS):
            reason = f"{EARLY_EXITS} workers in a row died there before they were ready, the last with {how}"
            self._set_aside(one.slot, reason)
            return
        else:
            ends, most = self.slots.none_starts(EARLY_EXITS, self._was_ready), EARLY_EXITS
        if ends:
            raise RunError(
                f"{most} workers in a row died before any was ready, the last one with {how}. The end of "
                f"{self._folder.worker_log(one.slot)}:\n{self._engine.log_tail(one)}"
            )

    def _sealed_by(self, one: Worker, state: ObjectState, round_id: int) -> Path | None:
        """Returns the shard of this round that a dead worker left, if it is whole."""
        place = self._folder.place(one.slot, one.launch)
        for path in self._folder.sealed_in(place):
            try:
                shard = shards.verify(path)
            except (FormatError, OSError):
                self._folder.set_aside(path)
                continue
            if (shard.header.object_code, shard.round_id) == (state.code, round_id):
                return path
        return None


def _has_success(state: ObjectState) -> bool:
    return any(isinstance(one, Done) for one in state.finished.values())
