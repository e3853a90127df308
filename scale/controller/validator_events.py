"""What the parent does with its validators: rounds that wait for their verdicts, and what became of them."""

from __future__ import annotations

import pickle
from collections import Counter
from pathlib import Path
from typing import Any

from bimangrasp.files.schema import FormatError
from scale.controller.completion import ObjectCompletion
from scale.controller.progress import Progress
from scale.controller.worker_events import EARLY_EXITS, EARLY_KILLS, TRACEBACK_BYTES, WorkerEvents
from scale.engine.devices import Device
from scale.engine.failures import Key, death
from scale.engine.process_pool import Event, Worker, WorkerPool
from scale.engine.validator import VALIDATION
from scale.engine.worker import Message
from scale.errors import RunError
from scale.formatting import last_line
from scale.settings import fingerprints
from scale.state.object_state import Done, ObjectState
from scale.state.request import RunRequest
from scale.state.scan import done_of
from scale.store import shards, verdict_files
from scale.store.durable_io import DISK_FULL
from scale.store.journal import Journal

DEADLY = 2  # validators that die or hang at one grasp before it is no longer simulated
Row = tuple[str, int, int]


class ValidatorEvents:
    """The validators of a call.

    A grasp at which validators died by themselves, or hung, is found to fail without being simulated; a death from
    outside says nothing of the grasp, until there were as many as `max_kills` allows a round.

    Attributes:
        engine: their processes.
        platforms: those of the run's verdicts.
    """

    def __init__(
        self,
        order: RunRequest,
        settler: ObjectCompletion,
        hearing: WorkerEvents,
        platforms: list[dict[str, str]],
        journal: Journal,
        progress: Progress,
    ) -> None:
        self._order, self._config, self._folder = order, order.config, order.folder
        self._settler, self._hearing = settler, hearing
        self._journal, self._progress = journal, progress
        self.platforms = list(platforms)
        devices = [Device("cpu", "")] * order.validators
        self.engine = WorkerPool(self._folder, devices, 1, pickle.dumps(order.judge), order.header(), VALIDATION)
        self._under_way: set[Key] = set()
        self._failures: Counter[Key] = Counter()
        self._ends: Counter[Row] = Counter()
        self._kills: Counter[Row] = Counter()
        self._early: Counter[str] = Counter()
        self._has_success = False

    @property
    def waiting(self) -> int:
        """How many rounds have a shard and no verdict."""
        return sum(len(state.unjudged) for state in self._settler.objects if not state.ended)

    @property
    def room(self) -> int:
        """How many more rounds may be handed out to workers before the validators have caught up."""
        return max(0, self._config.backlog * self._order.validators - self.waiting)

    @property
    def doing(self) -> str:
        """What the validators do, in short."""
        return (
            f"{len(self.engine.busy())} of {self._order.validators} validators at work, {self.waiting} rounds to test"
        )

    def hand_out(self) -> None:
        """Gives idle validators the rounds that wait, and starts validators where there are more rounds than these."""
        wanted = [
            (state, round_id)
            for state in self._settler.objects
            if not state.ended
            for round_id in sorted(state.unjudged)
            if (state.code, round_id) not in self._under_way
        ]
        idle = self.engine.idle()
        for one, (state, round_id) in zip(idle, wanted, strict=False):
            self._under_way.add((state.code, round_id))
            self.engine.assign(one, self._job(state, round_id))
        starting = [one for one in self.engine.workers.values() if not one.ready]
        empty = [slot for slot in range(self._order.validators) if slot not in self.engine.workers]
        for slot in empty[: max(0, len(wanted) - len(idle) - len(starting))]:
            self.engine.start(slot)

    def _job(self, state: ObjectState, round_id: int) -> dict[str, Any]:
        """Returns what a validator is told to do."""
        pieces, _ = self._order.pieces[state.code]
        return {
            "code": state.code,
            "round": round_id,
            "shard": self._folder.relative(state.unjudged[round_id].shard),
            "pieces": self._folder.relative(pieces),
            "acceptance_key": self._order.acceptance_key_of(state.code),
            "deadly": sorted(row for code, r, row in self._deadly if (code, r) == (state.code, round_id)),
        }

    @property
    def _deadly(self) -> set[Row]:
        """The grasps that are no longer simulated."""
        most = self._config.max_kills
        killed = {row for row, kills in self._kills.items() if 0 < most <= kills}
        return killed | {row for row, ends in self._ends.items() if ends >= DEADLY}

    def hear(self, event: Event) -> None:
        """Does what an event asks for."""
        message, one = event.message, event.worker
        if message["kind"] == "ready":
            self._ready(one, message["platform"])
        elif message["kind"] == "sealed":
            self._sealed(message, self._folder.root / message["path"])
        elif message["kind"] == "failed" and message["errno"] in DISK_FULL:
            self._found_no_room(message)
        elif message["kind"] == "failed":
            self._failed(one, message, message["traceback"])
        elif message["kind"] == "died":
            self._died(one, message["exitcode"])

    def watch(self) -> None:
        """Ends validators that give no sign of life; their deaths are heard later."""
        for one in self.engine.end_silent(self._config.startup_timeout_s, self._config.heartbeat_timeout_s):
            names = {"code": one.job and one.job["code"], "round": one.job and one.job["round"]}
            self._journal.append("silent", validator=one.slot, launch=one.launch, reason=one.verdict, **names)
            self._progress.say(f"validator {one.slot} is ended: {one.verdict}")

    def _ready(self, one: Worker, platform: dict[str, str]) -> None:
        """Takes a validator in, if its platform is that of the run's verdicts."""
        self._early.clear()
        self._journal.append("ready", validator=one.slot, launch=one.launch, platform=platform)
        if platform in self.platforms:
            return
        self.platforms.append(platform)
        if len(self.platforms) > 1 and not self._config.allow_mixed_platform:
            raise fingerprints.refuse(
                f"{self._folder.root}, by verdicts on another platform,",
                fingerprints.differences(self.platforms[0], platform),
                "Equal bytes hold for one platform only: use like machines, or allow_mixed_platform=true.",
            )

    def _sealed(self, job: Message, path: Path) -> None:
        """Takes a verdict in, and the round that it completes."""
        state, round_id = self._let_go(job)
        waiting = state.unjudged.get(round_id)
        try:
            verdict = verdict_files.verify(path)
            if waiting is None or verdict.shard_sha256 != waiting.sha256:
                self._folder.remove(path)  # of a shard that was found damaged meanwhile
                return
            done = done_of(shards.verify(waiting.shard), self._order.accept, verdict)
        except (FormatError, OSError) as error:
            self._unreadable(state, round_id, path, error)
            return
        state.verdicts.append(verdict)
        self._take(state, round_id, done, job.get("seconds", 0.0))

    def _take(self, state: ObjectState, round_id: int, done: Done, seconds: float) -> None:
        """Enters a round that is done."""
        self._has_success = True
        self._hearing.space.sealed()
        facts = done.facts(state.code, round_id, self._folder) | {"test_seconds": round(seconds, 3)}
        self._journal.append("judged" if self._order.dedup else "done", **facts)
        try:
            if self._settler.judged(state, round_id, done):
                self._hearing.meter.gained("physics", done.accepted)
        except OSError as error:
            self._hearing.no_file(state, error)

    def _unreadable(self, state: ObjectState, round_id: int, path: Path, error: Exception) -> None:
        """Sets aside what does not read back: the verdict, or the shard, whose round is computed again."""
        if path.exists() and shards.is_damaged(path):
            self._folder.set_aside(path)
        self._drop_damaged_shard(state, round_id)
        self._progress.say(f"{state.code}: round {round_id} has to be tested again: {error}")

    def _drop_damaged_shard(self, state: ObjectState, round_id: int) -> bool:
        """Lets a round go whose shard is damaged, so that it is computed again."""
        waiting = state.unjudged.get(round_id)
        if waiting is None or not shards.is_damaged(waiting.shard):
            return waiting is None
        del state.unjudged[round_id]
        if waiting.shard.exists():
            self._folder.set_aside(waiting.shard)
        return True

    def _let_go(self, job: Message) -> tuple[ObjectState, int]:
        self._under_way.discard((job["code"], job["round"]))
        return self._settler.by_code[job["code"]], job["round"]

    def _found_no_room(self, job: Message) -> None:
        """Leaves a round waiting that the full disk had no room for."""
        self._let_go(job)
        last = last_line(job["traceback"])
        self._journal.append("no_room", code=job["code"], round=job["round"], reason=last)
        self._hearing.space.met(last)

    def _died(self, one: Worker, exitcode: int) -> None:
        """Adopts what a dead validator had sealed, else lets its round wait for another."""
        how, from_outside = death(exitcode, one.verdict)
        job = one.job or {}
        names = {"code": job.get("code"), "round": job.get("round")}
        self._journal.append("died", validator=one.slot, launch=one.launch, exitcode=exitcode, **names)
        self._progress.say(f"validator {one.slot} died: {how}")
        if not one.ready:
            self._died_early(one, from_outside, how)
        if not job:
            return
        sealed = self._folder.sealed_in(self._folder.place(one.slot, one.launch, VALIDATION.name))
        fitting = [path for path in sealed if self._is_on(path, job)]
        if fitting:
            self._sealed(job, fitting[-1])
        elif from_outside:
            self._let_go(job)
            self._kills[job["code"], job["round"], one.step] += one.is_stepping
        else:
            self._failed(one, job, f"{self.engine.log_tail(one)}\nthe validator died: {how}")

    def _is_on(self, path: Path, job: Message) -> bool:
        """Whether a whole verdict is on the round of a job."""
        try:
            verdict = verdict_files.verify(path)
        except (FormatError, OSError):
            self._folder.set_aside(path)
            return False
        return (verdict.code, verdict.round_id) == (job["code"], job["round"])

    def _failed(self, one: Worker, job: Message, text: str) -> None:
        """Notes a failed attempt; the grasp at which it failed is not simulated for ever."""
        state, round_id = self._let_go(job)
        key, tail = (state.code, round_id), text[-TRACEBACK_BYTES:]
        waiting = state.unjudged.get(round_id)
        row = one.step if one.is_stepping and waiting and one.step < waiting.rows else None
        names = {"code": state.code, "round": round_id, "validator": one.slot, "row": row}
        self._journal.append("fail", **names, traceback=tail)
        what = f"the test of round {round_id} failed at grasp {row}"
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
                f"{self._folder.worker_log(one.slot, VALIDATION.name)}:\n{tail}"
            )
        self._hearing.give_up(state, round_id, f"after {self._failures[key]} tests that failed", tail)

    def _died_early(self, one: Worker, from_outside: bool, how: str) -> None:
        """Ends the run when validators die again and again before any is ready."""
        kind, most = ("kills", EARLY_KILLS) if from_outside else ("exits", EARLY_EXITS)
        self._early[kind] += 1
        if self._early[kind] >= most:
            raise RunError(
                f"{most} validators in a row died before any was ready, the last one with {how}. The end of "
                f"{self._folder.worker_log(one.slot, VALIDATION.name)}:\n{self.engine.log_tail(one)}"
            )
