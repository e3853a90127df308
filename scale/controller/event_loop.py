"""Runs the parent's loop: hands out rounds, handles what became of them, and ends when every object has ended."""

from __future__ import annotations

import signal
import threading
import time
from itertools import islice
from types import FrameType
from typing import Any

from scale.controller.completion import ObjectCompletion
from scale.controller.run_report import ObjectReport, SecondJudgement, Snapshot, as_manifest, object_report
from scale.controller.synthesis_role import SynthesisRole
from scale.controller.validation_role import ValidationRole
from scale.engine.interfaces import RowsJudged, Sealed
from scale.engine.pool import events
from scale.engine.scheduler import is_disk_full
from scale.engine.worker import PARENTS_SIGNALS
from scale.merge.job import DedupJob
from scale.settings.schema import GENERATE, Config
from scale.state.records import ObjectState
from scale.state.round_table import IN_FLIGHT
from scale.store.disk_space import FILE_BYTES, row_bytes
from scale.store.events import RunContinued, RunPaused
from scale.store.journal import entry_text, write_manifest

TICK_S = 0.2
MANIFEST_EVERY_S = 30.0
REQUEUE_SIGNALS = (signal.SIGUSR1, signal.SIGUSR2)
"""What schedulers send some time before they end a job; who started this process may queue it again then."""


class Stop:
    """Whether new rounds are handed out, running ones finish, or all ends now."""

    def __init__(self, config: Config) -> None:
        hours, self._grace_s = config.max_hours, config.grace_s
        self._until = None if hours is None else time.monotonic() + hours * 3600
        self._deadline: float | None = None
        self._before: dict[int, Any] = {}
        self.exit_code = 0
        self.reason = ""
        self.is_immediate = False
        self._requeue: int | None = None

    def __enter__(self) -> Stop:
        if threading.current_thread() is threading.main_thread():
            self._before = {n: signal.signal(n, self._hear) for n in PARENTS_SIGNALS}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)

    def _hear(self, number: int, _frame: FrameType | None) -> None:
        """Ctrl-C: finish, at the second time end now. Preemption: finish within the grace. A closed terminal: go on."""
        if number == signal.SIGHUP:
            return
        if number == signal.SIGINT:
            self.is_immediate = self.exit_code == 130
            self._stop(130, "Ctrl-C: running rounds finish; once more ends them now", None)
            return
        if number in REQUEUE_SIGNALS and self.exit_code in (0, 143):  # also behind a SIGTERM, as SLURM preempts jobs
            self._requeue = number
        if not self.exit_code:
            name = signal.Signals(number).name
            self._stop(143, f"{name}: {self._grace_s:.0f} s for the running rounds", self._grace_s)

    def pass_on(self) -> None:
        """Calls who listened to the signal that ended the call, if it may queue the job again; wants the call over."""
        handler = self._before.get(self._requeue) if self._requeue is not None else None
        if callable(handler):
            handler(self._requeue, None)

    def _stop(self, exit_code: int, reason: str, grace: float | None) -> None:
        self.exit_code, self.reason = exit_code, reason
        self._deadline = None if grace is None else time.monotonic() + grace

    def look(self) -> bool:
        """Returns whether no new rounds are to be handed out."""
        now = time.monotonic()
        if not self.exit_code and self._until is not None and now >= self._until:
            self._stop(3, f"max_hours: {self._grace_s:.0f} s for the running rounds", self._grace_s)
        if self._deadline is not None and now >= self._deadline:
            self.is_immediate = True
        return bool(self.exit_code)


class EventLoop:
    """One call at work. Everything it decides follows from sealed rows and the request.

    Attributes:
        second_judgement: of a sample of the grasps, where there was one.
    """

    def __init__(self, completion: ObjectCompletion) -> None:
        call, request = completion.call, completion.call.request
        self._request, self._config, self._folder = request, request.config, request.folder
        self._completion, self._journal, self._progress = completion, call.journal, call.progress
        self._standing = completion.standing
        self._others = {code: entry_text(entry) for code, entry in completion.others.items()}
        self._synthesis = SynthesisRole(completion)
        self._validation = ValidationRole(completion) if request.verdict_factory is not None else None
        self._roles = {role.name: role for role in (self._synthesis, self._validation) if role}
        self._pools = [role.pool for role in self._roles.values()]
        self._row_bytes = row_bytes(len(request.hand.joint_names), self._config.contacts_per_hand)
        self._saved = time.monotonic()
        self._is_paused = False
        self.second_judgement: SecondJudgement | None = None

    def run(self, stop: Stop) -> None:
        """Works until every object has ended, or the run is stopped."""
        try:
            for state in self._completion.objects:
                self._completion.settle(state)
            self._synthesis.begin()
            self._standing.texts(self._entry)  # of all objects takes long, so before there is anybody to wait
            self._completion.say = self._progress.say
            while not self._is_over(stop):
                if stop.look():
                    self._say_once(stop.reason)
                self._keep_busy(stop)
                self._handle_events(stop)
                self._tick()
            if stop.reason:
                self._say_once(stop.reason)
        finally:
            for pool in self._pools:
                pool.stop()
            self._completion.merger.close()

    def _handle_events(self, stop: Stop) -> None:
        """Waits a moment for something to happen, and handles it."""
        for event in list(events(self._pools, TICK_S, self._completion.merger.wake)):
            self._roles[event.role].handle(event)
            if isinstance(event.message, Sealed | RowsJudged):
                self._keep_busy(stop)  # reading what the others sealed takes time that nobody need wait
        for outcome in self._completion.merger.outcomes():
            if isinstance(outcome.job, DedupJob):
                self._completion.decided(outcome)
            else:
                self._completion.merged(outcome)

    def _keep_busy(self, stop: Stop) -> None:
        """Hands out what there is to do, as long as the disk has room; where the call ends, what is begun goes on."""
        if stop.look():
            if self._validation and self._has_room():
                self._validation.hand_out(self._validation.begun())
            return
        if not self._has_room():
            return
        if self._validation:
            self._validation.hand_out(self._validation.wanted())
        self._synthesis.hand_out(islice(self._synthesis.wanted(), self._validation.room if self._validation else None))

    def _say_once(self, reason: str) -> None:
        """Says why no new rounds are handed out."""
        if reason not in self._completion.notes:
            self._completion.notes.append(reason)
            self._progress.note(reason)

    def _is_over(self, stop: Stop) -> bool:
        if stop.is_immediate:
            return True
        if self._completion.merger.pending:
            return False
        if stop.look():
            has_rest = self._validation and not self._is_paused and next(self._validation.begun(), None)
            return not has_rest and not any(pool.busy() for pool in self._pools)
        return not self._standing.open

    def _has_room(self) -> bool:
        """Returns whether the disk has room for new rounds; says so where that has changed."""
        space = self._completion.space
        has_room = space.look(self._bytes_ahead)
        if has_room == self._is_paused:
            self._is_paused = not has_room
            kind = RunContinued if has_room else RunPaused
            self._journal.append(kind(reason=space.shortage))
            shortage = f"paused until the disk of {self._folder.root} has room: {space.shortage}"
            self._progress.say("there is room again" if has_room else shortage)
        if has_room:
            self._completion.settle_again()
        return has_room

    def _bytes_ahead(self) -> int:
        """Returns the room that running rounds, one more on each idle worker and the next merge take."""
        batch, busy = self._config.round_batch_size, len(self._synthesis.pool.busy())
        idle = len(self._synthesis.slots.used) - busy
        rounds = busy + sum(1 for _ in islice(self._synthesis.wanted(), max(0, idle)))
        rows = max((self._rows_ahead(state, batch) for state in self._standing.open.values()), default=0)
        files = rounds + (rows > 0)
        return (rounds * batch + rows) * self._row_bytes + files * FILE_BYTES * len(self._pools)

    @staticmethod
    def _rows_ahead(state: ObjectState, batch: int) -> int:
        """Returns how many rows the next final file of an object may have; 0 where none is to be made."""
        has_begun = state.rounds.accepted_rows or state.rounds.prefix.rounds or state.rounds.count(IN_FLIGHT)
        return 0 if not has_begun else min(state.quota, state.rounds.accepted_rows + batch)

    def _tick(self) -> None:
        """Brings screen, lock and manifest up to date."""
        if self._progress.is_due():
            self._progress.show(self.snapshot())
        if time.monotonic() - self._saved >= MANIFEST_EVERY_S:
            self._saved = time.monotonic()
            self.save(None)

    def save(self, exit_code: int | None) -> None:
        """Writes the manifest; `exit_code` is None while the run goes on."""
        platforms = self._synthesis.platforms
        manifest = {
            "run_key": self._request.run_key,
            "acceptance_key": self._request.acceptance_key,
            "platforms": platforms,
            "mixed_platform": len(platforms) > 1,
            "exit_code": exit_code,
            "notes": self._completion.notes,
        }
        if self.second_judgement:
            manifest["second_judgement"] = self.second_judgement.as_manifest()
        try:
            write_manifest(self._folder, manifest, self._others | self._standing.texts(self._entry))
        except OSError as error:
            if not is_disk_full(error):
                raise
            self._completion.space.met(str(error))
            self._progress.say(f"{self._folder.manifest} stays as it was: {error}")

    def _entry(self, state: ObjectState) -> str:
        """Returns an object's entry of the manifest."""
        return entry_text(as_manifest(self._report(state), self._folder.root))

    def reports(self) -> list[ObjectReport]:
        """Returns every object as it stands."""
        return [self._report(state) for state in self._completion.objects]

    def _report(self, state: ObjectState) -> ObjectReport:
        """Returns an object as it stands, with the rounds that are outside of the promise of equal bytes."""
        is_generated = self._config.mode == GENERATE and state.ended == "max_rounds" and not state.rounds.skipped
        reason, notes = "generated" if is_generated else state.ended or "stopped", []
        if state.small_tiles:
            full = self._config.full_tile
            rounds = ", ".join(f"{round_id} ({tile})" for round_id, tile in sorted(state.small_tiles.items()))
            notes = [f"out of memory: rounds computed fewer than {full} grasps at once, so bytes may differ: {rounds}"]
        pieces = self._request.pieces_record(state.code)
        batch = self._config.round_batch_size
        return object_report(state, batch, pieces, self._completion.file(state), reason, notes)

    def snapshot(self) -> Snapshot:
        """Returns the moment for the screen."""
        totals = self._standing.totals()
        return Snapshot(
            collected=totals.collected,
            quota=self._standing.quota,
            ended=len(self._standing) - len(self._standing.open),
            objects=len(self._standing),
            rates=self._progress.meter.rates(),
            failures=totals.failures,
            skipped=totals.skipped,
            workers=[self._synthesis.doing(worker) for _, worker in sorted(self._synthesis.pool.workers.items())],
            validators=self._validation.doing if self._validation else "",
            eta_s=self._progress.meter.eta(totals.missing),
        )
