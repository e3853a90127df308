"""The parent's loop: hands out rounds, hears what became of them, and ends when every object is through."""

from __future__ import annotations

import pickle
import time
from collections.abc import Iterator
from dataclasses import replace
from itertools import islice
from typing import Any

from bimangrasp.errors import InputError
from scale.controller import run_report
from scale.controller.completion import ObjectCompletion
from scale.controller.progress import Progress, Snapshot
from scale.controller.validator_events import ValidatorEvents
from scale.controller.worker_events import WorkerEvents
from scale.engine.devices import device_name
from scale.engine.process_pool import Worker, WorkerPool, events
from scale.engine.scheduler import FreeSlots, RoundRequest, dispatch
from scale.engine.signals import Stop
from scale.settings import fingerprints
from scale.state.object_state import Done, ObjectState
from scale.state.request import RunRequest
from scale.state.resume import Resumed
from scale.store.disk_space import FILE_BYTES, row_bytes
from scale.store.durable_io import DISK_FULL
from scale.store.journal import Journal
from scale.store.locks import RunLock
from scale.store.manifest import write_manifest
from scale.store.run_folder import VALIDATOR

TICK_S = 0.2
MANIFEST_EVERY_S = 30.0


class EventLoop:
    """One call at work. Everything it decides follows from sealed rows and the order."""

    def __init__(
        self,
        order: RunRequest,
        settler: ObjectCompletion,
        resumed: Resumed,
        journal: Journal,
        progress: Progress,
        lock: RunLock,
    ) -> None:
        self._order, self._config, self._folder = order, order.config, order.folder
        self._settler, self._journal, self._progress, self._lock = settler, journal, progress, lock
        self._saved = time.monotonic()
        maker = pickle.dumps(order.maker)
        self._engine = WorkerPool(self._folder, order.devices, self._config.threads, maker, order.header())
        self._hearing = WorkerEvents(order, settler, self._engine, resumed.platforms, journal, progress)
        self._judging = None
        if order.judge is not None:
            self._judging = ValidatorEvents(order, settler, self._hearing, resumed.verdict_platforms, journal, progress)
        self._engines = [self._engine, *([self._judging.engine] if self._judging else [])]
        self._row_bytes = row_bytes(len(order.hand.joint_names), self._config.contacts_per_hand)
        self._is_paused = False

    def loop(self, stop: Stop) -> None:
        """Works until every object has ended, or the run is stopped."""
        try:
            for state in self._settler.objects:
                self._hearing.settle(state)
            self._hearing.begin()
            self._settler.say = self._progress.say
            while not self._is_over(stop):
                if stop.look():
                    self._tell_once(stop.reason)
                self._keep_busy(stop)
                for event in list(events(self._engines, TICK_S, self._settler.merger.wake)):
                    (self._judging if event.worker.trade == VALIDATOR else self._hearing).hear(event)
                    if event.message["kind"] == "sealed":
                        self._keep_busy(stop)  # reading what the others sealed takes time that nobody need wait
                for outcome in self._settler.merger.outcomes():
                    self._hearing.merged(outcome)
                self._hearing.watch()
                if self._judging:
                    self._judging.watch()
                self._tick()
            if stop.reason:
                self._tell_once(stop.reason)
        finally:
            for engine in self._engines:
                engine.stop()
            self._settler.merger.close()

    def _keep_busy(self, stop: Stop) -> None:
        """Hands out what there is to do, unless the call ends or the disk has no room."""
        if not stop.look() and self._has_room():
            self._hand_out()

    def _tell_once(self, reason: str) -> None:
        """Says why no new rounds are handed out."""
        if reason not in self._settler.notes:
            self._settler.notes.append(reason)
            self._progress.say(reason)

    def _is_over(self, stop: Stop) -> bool:
        if stop.is_immediate:
            return True
        if self._settler.merger.pending:
            return False
        if stop.look():
            return not any(engine.busy() for engine in self._engines)
        return all(state.ended for state in self._settler.objects)

    def _has_room(self) -> bool:
        """Returns whether the disk has room for new rounds; says so where that has changed."""
        has_room = self._hearing.space.look(self._bytes_ahead)
        if has_room == self._is_paused:
            self._is_paused = not has_room
            shortage = self._hearing.space.shortage
            self._journal.append("continued" if has_room else "paused", reason=shortage)
            self._progress.say("there is room again" if has_room else f"paused until the disk has room: {shortage}")
        if has_room:
            for code in sorted(self._hearing.unsettled):
                self._hearing.settle(self._settler.by_code[code])
        return has_room

    def _bytes_ahead(self) -> int:
        """Returns the room that running rounds, one more on each idle worker and the next merge take."""
        batch, busy = self._config.round_batch_size, len(self._engine.busy())
        ahead = busy + sum(1 for _ in islice(self._wanted(), len(self._hearing.slots.used) - busy))
        at_work = [state for state in self._settler.objects if not state.ended and (state.finished or state.in_flight)]
        rows = max((min(one.quota, sum(one.accepted.values()) + batch) for one in at_work), default=0)
        files = ahead + (rows > 0)
        return (ahead * batch + rows) * self._row_bytes + files * FILE_BYTES * len(self._engines)

    def _hand_out(self) -> None:
        """Gives the idle workers rounds, and starts workers where there is more to do than they can take."""
        if self._judging:
            self._judging.hand_out()
        workers, slots = self._engine.workers, self._hearing.slots
        slack = FreeSlots(
            [one.slot for one in self._engine.idle() if not slots.on_hold(one.slot)],
            [slot for slot, one in sorted(workers.items()) if not one.ready],
            [slot for slot in slots.used if slot not in workers and not slots.on_hold(slot)],
        )
        wanted = islice(self._wanted(), self._judging.room) if self._judging else self._wanted()
        now = dispatch(wanted, slack, [one.job["alone"] for one in self._engine.busy()])
        for slot, wanted in now.rounds:
            state, round_id = self._settler.by_code[wanted.key[0]], wanted.key[1]
            state.in_flight.add(round_id)
            self._engine.assign(workers[slot], self._job(workers[slot], state, round_id))
        for slot in now.starts:
            self._engine.start(slot)

    def _wanted(self) -> Iterator[RoundRequest]:
        """Yields the rounds to hand out next, object by object; before any success those that did not fail first."""
        batch, trials, suspicion = self._config.round_batch_size, self._hearing.trials, self._hearing.suspicion
        objects = self._settler.objects
        if suspicion.failed and not suspicion.has_success:
            objects = sorted(objects, key=lambda state: state.code in suspicion.failed)
        for state in objects:
            if not state.ended:
                for round_id in state.needed(batch, self._settler.max_rounds):
                    key = (state.code, round_id)
                    yield RoundRequest(key, trials.barred(key, self._hearing.slots.used), trials.runs_alone(key))

    def _job(self, one: Worker, state: ObjectState, round_id: int) -> dict[str, Any]:
        """Returns what a worker is told to do."""
        return {
            "code": state.code,
            "index": state.index,
            "mesh": state.mesh,
            "mesh_sha256": state.mesh_sha256,
            "object_key": fingerprints.object_key(state.mesh_sha256),
            "round": round_id,
            "seed": self._hearing.seed(state, round_id),
            "attempt": state.failures[round_id],
            "tile": self._hearing.tile(one, state.code),
            "record": self._config.recording,
            "alone": self._hearing.trials.runs_alone((state.code, round_id)),
        }

    def _tick(self) -> None:
        """Brings screen, lock and manifest up to date."""
        if self._progress.is_due():
            self._progress.show(self.snapshot())
        if time.monotonic() - self._saved >= MANIFEST_EVERY_S:
            self._saved = time.monotonic()
            self._lock.beat()
            if self._settler.has_manifest:
                self.save(None)

    def save(self, exit_code: int | None) -> None:
        """Writes the manifest; `exit_code` is None while the run goes on."""
        facts = {"run_key": self._order.run_key, "acceptance_key": self._order.acceptance_key}
        platforms = self._hearing.platforms
        facts |= {"platforms": platforms, "mixed_platform": len(platforms) > 1}
        entries = {one.code: run_report.as_manifest(one, self._folder.root) for one in self.reports()}
        facts |= {"exit_code": exit_code, "notes": self._settler.notes, "objects": self._settler.others | entries}
        try:
            write_manifest(self._folder, facts)
        except OSError as error:
            if error.errno not in DISK_FULL:
                raise
            self._hearing.space.met(str(error))
            self._progress.say(f"{self._folder.manifest} stays as it was: {error}")

    def reports(self) -> list[run_report.ObjectReport]:
        """Returns every object as it stands."""
        return [self._report(state) for state in self._settler.objects]

    def _report(self, state: ObjectState) -> run_report.ObjectReport:
        """Returns an object as it stands, with the rounds that are outside of the promise of equal bytes."""
        told, full = run_report.object_report(state, self._settler.file(state)), self._hearing.full_tile
        done = [(r, one.tile_used) for r, one in sorted(state.finished.items()) if isinstance(one, Done)]
        halved = ", ".join(f"{round_id} ({tile})" for round_id, tile in done if tile < full)
        note = f"out of memory: rounds computed fewer than {full} grasps at once, so bytes may differ: {halved}"
        return replace(told, notes=[*told.notes, note]) if halved else told

    def snapshot(self) -> Snapshot:
        """Returns the moment for the screen."""
        open_objects = [state for state in self._settler.objects if not state.ended]
        missing = sum(max(0, one.quota - sum(one.accepted.values())) for one in open_objects)
        return Snapshot(
            sum(min(state.quota, state.collected) for state in self._settler.objects),
            sum(state.quota for state in self._settler.objects),
            len(self._settler.objects) - len(open_objects),
            len(self._settler.objects),
            self._hearing.meter.rates(),
            sum(state.failures.total() for state in self._settler.objects),
            sum(len(state.skipped) for state in self._settler.objects),
            [self._doing(one) for _, one in sorted(self._engine.workers.items())],
            self._judging.doing if self._judging else "",
            self._hearing.meter.eta(missing),
        )

    def _doing(self, one: Worker) -> str:
        at = f"{one.step}/{self._config.num_iterations} steps"
        what = f"{one.job['code']} {one.job['round']}, {at}" if one.job else "idle" if one.ready else "starting"
        return f"{device_name(one.device, one.slot)}: {what}"


def refuse_mixed(platforms: list[dict[str, str]], allowed: bool) -> None:
    """Refuses to go on with a folder that has rounds of several platforms, unless that is allowed."""
    if len(platforms) > 1 and not allowed:
        raise InputError(
            "the run folder has rounds of several platforms: "
            + "; ".join(fingerprints.differences(platforms[0], platforms[1]))
            + ": go on with allow_mixed_platform=true"
        )
