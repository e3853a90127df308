"""The parent's loop: hands out rounds, hears what became of them, and ends when every object is through."""

from __future__ import annotations

import pickle
import signal
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from bimangrasp.errors import InputError
from bimangrasp.grasp_fields import FormatError
from scale import keys, report, rounds, shards
from scale.door import Order
from scale.engine import Engine, Event, Worker
from scale.errors import RunError
from scale.journal import Journal, read_manifest, write_manifest
from scale.ledger import ObjectState, Skipped
from scale.locks import RunLock
from scale.progress import Meter, Progress, Snapshot
from scale.settling import Settler
from scale.stopping import Stop
from scale.survey import done_of
from scale.worker import Message

TICK_S = 0.2
MANIFEST_EVERY_S = 30.0
EARLY_EXITS = 2  # of workers in a row, none of them ever ready, that end the run
EARLY_KILLS = 20  # the same for deaths by signals from outside
TRACEBACK_BYTES = 2000  # of each failure, in journal and manifest
OUTSIDE = (-signal.SIGKILL, -signal.SIGTERM)


class Runner:
    """One call at work. Everything it decides follows from sealed rows and the order."""

    def __init__(
        self,
        order: Order,
        settler: Settler,
        platforms: list[dict[str, str]],
        journal: Journal,
        progress: Progress,
        lock: RunLock,
    ) -> None:
        self._order, self._config, self._folder = order, order.config, order.folder
        self._settler, self._platforms = settler, list(platforms)
        self._journal, self._progress, self._lock = journal, progress, lock
        self._meter = Meter()
        self._early = {"exits": 0, "kills": 0}
        self._saved = time.monotonic()
        maker = pickle.dumps(order.maker)
        self._engine = Engine(self._folder, order.devices, self._config.threads, maker, order.header())
        earlier = read_manifest(self._folder).get("objects", {})
        self._others = {code: entry for code, entry in earlier.items() if code not in settler.by_code}

    def loop(self, stop: Stop) -> None:
        """Works until every object has ended, or the run is stopped."""
        try:
            for state in self._settler.objects:
                self._settler.settle(state)
            self._settler.say = self._progress.say
            while not self._is_over(stop):
                if stop.look():
                    self._tell_once(stop.reason)
                else:
                    self._hand_out()
                for event in self._engine.events(TICK_S, self._settler.merger.wake):
                    self._on(event)
                for outcome in self._settler.merger.outcomes():
                    self._settler.merged(outcome)
                self._tick()
            if stop.reason:
                self._tell_once(stop.reason)
        finally:
            self._engine.stop()
            self._settler.merger.close()

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
            return not self._engine.busy()
        return all(state.ended for state in self._settler.objects)

    def _hand_out(self) -> None:
        """Gives the idle workers rounds, and starts workers where there is more to do than they can take."""
        wanted = list(islice(self._wanted(), len(self._order.devices)))
        idle = self._engine.idle()
        for one, (state, round_id) in zip(idle, wanted, strict=False):
            state.in_flight.add(round_id)
            self._engine.assign(one, self._job(state, round_id))
        starting = sum(not one.ready for one in self._engine.workers.values())
        free = [slot for slot in range(len(self._order.devices)) if slot not in self._engine.workers]
        for slot in free[: max(0, len(wanted) - len(idle) - starting)]:
            self._engine.start(slot)

    def _wanted(self) -> Iterator[tuple[ObjectState, int]]:
        """Yields the rounds to hand out next, object by object."""
        batch = self._config.round_batch_size
        for state in self._settler.objects:
            if not state.ended:
                needed = rounds.needed(state.accepted, state.in_flight, state.quota, batch, self._settler.max_rounds)
                yield from ((state, round_id) for round_id in needed)

    def _job(self, state: ObjectState, round_id: int) -> dict[str, Any]:
        """Returns what a worker is told to do."""
        return {
            "code": state.code,
            "index": state.index,
            "mesh": state.mesh,
            "mesh_sha256": state.mesh_sha256,
            "object_key": keys.object_key(state.mesh_sha256),
            "round": round_id,
            "seed": self._seed(state, round_id),
            "attempt": state.failures[round_id],
        }

    def _seed(self, state: ObjectState, round_id: int) -> int:
        return rounds.seed_of(self._config.seed_base, state.index, round_id)

    def _on(self, event: Event) -> None:
        """Does what an event asks for."""
        message, one = event.message, event.worker
        if message["kind"] == "ready":
            self._ready(one, message["platform"])
        elif message["kind"] == "sealed":
            self._sealed(one, message, self._folder.root / message["path"], message["seconds"])
        elif message["kind"] == "failed":
            self._failed(self._settler.by_code[message["code"]], message["round"], message["traceback"])
        elif message["kind"] == "died":
            self._died(one, message["exitcode"])

    def _ready(self, one: Worker, platform: dict[str, str]) -> None:
        """Takes a worker in, if its platform is the run's."""
        self._early = {"exits": 0, "kills": 0}
        self._meter.ready(self._device_name(one))
        self._journal.append("ready", worker=one.slot, launch=one.launch, device=one.device.label, platform=platform)
        first = self._platforms[0] if self._platforms else platform
        if platform not in self._platforms:
            self._platforms.append(platform)
            self._progress.say(f"{one.device.label}: " + ", ".join(f"{k} {v}" for k, v in platform.items()))
        if len(self._platforms) > 1 and not self._config.allow_mixed_platform:
            other = next(known for known in self._platforms if known != first)
            raise keys.refuse(
                f"{self._folder.root}, by rounds on another platform,",
                keys.differences(first, other),
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
            self._failed(state, round_id, f"{path} does not read back: {error}")
            return
        state.in_flight.discard(round_id)
        done = done_of(shard, self._order.accept)
        self._journal.append(
            "done",
            code=state.code,
            round=round_id,
            seed=done.seed,
            rows=done.rows,
            accepted=done.accepted,
            sha256=done.sha256,
            tile_used=done.tile_used,
            shard=self._folder.relative(path),
            seconds=round(seconds, 3),
        )
        if state.promised.get(round_id, done.sha256) != done.sha256:
            state.ended = "changed"
            state.notes.append(
                f"round {round_id} was computed again and has other bytes than the file's table says: the file is "
                f"not extended; delete it to start the object again"
            )
            return
        state.promised.pop(round_id, None)
        state.finished[round_id] = done
        self._meter.gained(self._device_name(one), done.accepted)
        self._settler.settle(state)

    def _failed(self, state: ObjectState, round_id: int, text: str) -> None:
        """Notes a failed attempt; the round is handed out again, or skipped and named."""
        state.in_flight.discard(round_id)
        state.failures[round_id] += 1
        attempts, tail = state.failures[round_id], text[-TRACEBACK_BYTES:]
        names = {"code": state.code, "round": round_id, "traceback": tail}
        self._journal.append("fail", attempt=attempts, **names)
        last = (tail.strip().splitlines() or [""])[-1]
        self._progress.say(f"{state.code}: round {round_id}, attempt {attempts} failed: {last}")
        if attempts > self._config.max_retries:
            seed = self._seed(state, round_id)
            self._journal.append("skip", seed=seed, attempts=attempts, **names)
            self._progress.say(f"{state.code}: round {round_id} is skipped after {attempts} attempts")
            state.finished[round_id] = Skipped(seed, tail)
            self._settler.settle(state)

    def _died(self, one: Worker, exitcode: int) -> None:
        """Adopts what a dead worker had sealed, else returns its round."""
        how = signal.Signals(-exitcode).name if exitcode < 0 else f"exit code {exitcode}"
        job = one.job or {}
        names = {"code": job.get("code"), "round": job.get("round")}
        self._journal.append("died", worker=one.slot, launch=one.launch, exitcode=exitcode, **names)
        self._progress.say(f"worker {one.slot} ({one.device.label}) died: {how}")
        if not one.ready:
            self._died_early(one, exitcode, how)
        if not job:
            return
        state, round_id = self._settler.by_code[job["code"]], job["round"]
        adopted = self._sealed_by(one, state, round_id)
        if adopted is not None:
            self._sealed(one, job, adopted, 0.0)
        elif exitcode in OUTSIDE:
            state.in_flight.discard(round_id)
        else:
            self._failed(state, round_id, f"{self._engine.log_tail(one)}\nthe worker died: {how}")

    def _died_early(self, one: Worker, exitcode: int, how: str) -> None:
        """Ends the run when workers die again and again before any is ready."""
        kind, most = ("kills", EARLY_KILLS) if exitcode in OUTSIDE else ("exits", EARLY_EXITS)
        self._early[kind] += 1
        if self._early[kind] >= most:
            raise RunError(
                f"{most} workers in a row died before any was ready, the last one with {how}. The end of "
                f"{self._folder.worker_log(one.slot)}:\n{self._engine.log_tail(one)}"
            )

    def _sealed_by(self, one: Worker, state: ObjectState, round_id: int) -> Path | None:
        """Returns the shard of this round that a dead worker left, if it is whole."""
        place = self._folder.worker_shards(one.slot, one.launch)
        for path in self._folder.shard_files_in(place):
            try:
                shard = shards.verify(path)
            except (FormatError, OSError):
                self._folder.set_aside(path)
                continue
            if (shard.header.object_code, shard.round_id) == (state.code, round_id):
                return path
        return None

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
        facts |= {"platforms": self._platforms, "mixed_platform": len(self._platforms) > 1}
        entries = {one.code: report.as_manifest(one, self._folder.root) for one in self.reports()}
        write_manifest(
            self._folder,
            facts | {"exit_code": exit_code, "notes": self._settler.notes, "objects": self._others | entries},
        )

    def reports(self) -> list[report.ObjectReport]:
        """Returns every object as it stands."""
        return [report.object_report(state, self._settler.file(state)) for state in self._settler.objects]

    def snapshot(self) -> Snapshot:
        """Returns the moment for the screen."""
        open_objects = [state for state in self._settler.objects if not state.ended]
        missing = sum(max(0, one.quota - sum(one.accepted.values())) for one in open_objects)
        return Snapshot(
            sum(min(state.quota, state.collected) for state in self._settler.objects),
            sum(state.quota for state in self._settler.objects),
            len(self._settler.objects) - len(open_objects),
            len(self._settler.objects),
            self._meter.rates(),
            sum(state.failures.total() for state in self._settler.objects),
            sum(len(state.skipped) for state in self._settler.objects),
            [self._doing(one) for _, one in sorted(self._engine.workers.items())],
            self._meter.eta(missing),
        )

    def _device_name(self, one: Worker) -> str:
        """Returns a device's name; several CPU workers are told apart."""
        return f"{one.device.label} #{one.slot}" if one.device.label == "cpu" else one.device.label

    def _doing(self, one: Worker) -> str:
        at = f"{one.step}/{self._config.num_iterations} steps"
        what = f"{one.job['code']} {one.job['round']}, {at}" if one.job else "idle" if one.ready else "starting"
        return f"{self._device_name(one)}: {what}"


def refuse_mixed(platforms: list[dict[str, str]], allowed: bool) -> None:
    """Refuses to go on with a folder that has rounds of several platforms, unless that is allowed."""
    if len(platforms) > 1 and not allowed:
        raise InputError(
            "the run folder has rounds of several platforms: "
            + "; ".join(keys.differences(platforms[0], platforms[1]))
            + ": go on with allow_mixed_platform=true"
        )
