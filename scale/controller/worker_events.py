"""Handles worker events in the parent: ready, progress, result, failure, exit, time-out."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from bimangrasp.files.schema import FormatError
from scale.controller.completion import ObjectCompletion
from scale.engine.interfaces import (
    NO_ROUND,
    Died,
    Failed,
    Halved,
    Job,
    Joined,
    Lost,
    PiecesMade,
    Ready,
    RowsJudged,
    Sealed,
    Silent,
    Unusable,
)
from scale.engine.pool import Crew, PoolEvent, WorkerProcess
from scale.engine.scheduler import EARLY_EXITS, EARLY_KILLS, FreeSlots, RoundRequest, Slots, death, dispatch
from scale.engine.worker import Role
from scale.errors import RunError
from scale.formatting import last_line
from scale.settings import fingerprints
from scale.state.records import ObjectState
from scale.store import events
from scale.store.durable_io import DISK_FULL

TRACEBACK_BYTES = 2000  # of each failure, in journal and manifest


class RoleHandler:
    """Handles what the processes of one role say, and their deaths and silence; a role says what that means for rounds.

    Attributes:
        name: "worker" or "validator", also the field of the journal that has the slot.
        pool: the processes.
        slots: which of them are used.
        platforms: those of the run's files of this role, and of its processes.
    """

    name: str

    def __init__(
        self,
        completion: ObjectCompletion,
        role: Role,
        factory: bytes,
        threads: int,
        platforms: list[dict[str, str]],
    ) -> None:
        call = completion.call
        self._completion, self._request, self._config = completion, call.request, call.request.config
        self._folder, self._journal, self._progress = call.request.folder, call.journal, call.progress
        self.platforms = list(platforms)
        config, header = self._config, call.request.header()
        silence = config.startup_timeout_s, config.heartbeat_timeout_s
        crew = Crew(role, factory, header, threads, *silence, self.platforms, config.allow_mixed_platform)
        self.pool = call.engine.pool(self._folder, crew)
        self.slots = Slots(set(self.pool.devices))
        self._early_kills, self._last_loss = 0, ""

    # ---- what a role is

    def slot_name(self, slot: int) -> str:
        """Returns the name of a slot for people."""
        return f"{self.name} {slot}"

    def label(self, process: WorkerProcess) -> str:
        """Returns the name of a process for people."""
        return self.slot_name(process.slot)

    def began(self, process: WorkerProcess) -> None:
        """Notes that a process is ready."""

    def read(self, sealed: Sealed) -> Any:
        """Returns what a sealed file holds.

        Raises:
            FormatError: the file, or what it is about, is damaged.
            OSError: it cannot be read.
        """

    def take(self, process: WorkerProcess, sealed: Sealed, content: Any) -> None:
        """Takes in what `read` returned."""

    def spoiled(self, process: WorkerProcess, sealed: Sealed, error: Exception) -> None:
        """Deals with a file that cannot be read."""

    def failed(self, process: WorkerProcess, job: Job | Failed, text: str) -> None:
        """Notes a failed attempt at a job."""

    def killed(self, process: WorkerProcess, job: Job, how: str) -> None:
        """Takes a job back whose process was killed from outside."""

    def release(self, job: Job | Failed | Sealed) -> None:
        """Takes a job back, which was no attempt."""

    def rows_judged(self, process: WorkerProcess, judged: RowsJudged) -> None:
        """Takes in what a validator says of some rows of a round."""

    def pieces_made(self, process: WorkerProcess, made: PiecesMade) -> None:
        """Takes in an object's convex pieces, or that it has none."""

    def job(self, process: WorkerProcess, state: ObjectState, round_id: int) -> Job:
        """Takes a round in hand, or what stands for none, and returns what a process is told to do."""

    # ---- handing out

    def hand_out(self, wanted: Iterable[RoundRequest]) -> None:
        """Gives idle processes rounds, and starts processes where there is more to do than they can take."""
        workers = self.pool.workers
        free = FreeSlots(
            [worker.slot for worker in self.pool.idle()],
            [slot for slot, worker in sorted(workers.items()) if not worker.is_ready],
            [slot for slot in self.slots.used if slot not in workers and self.pool.has(slot)],
        )
        now = dispatch(wanted, free)
        for slot, request in now.rounds:
            code, round_id = request.key
            self.pool.assign(workers[slot], self.job(workers[slot], self._completion.by_code[code], round_id))
        for slot in now.starts:
            self.pool.start(slot)

    # ---- what its processes say

    def handle(self, event: PoolEvent) -> None:
        """Does what an event asks for."""
        message, process = event.message, event.process
        if isinstance(message, Ready):
            self._ready(process, message.platform)
        elif isinstance(message, Halved):
            self._halved(process, message)
        elif isinstance(message, Sealed):
            self._sealed(process, message)
        elif isinstance(message, RowsJudged):
            self.rows_judged(process, message)
        elif isinstance(message, PiecesMade):
            self.pieces_made(process, message)
        elif isinstance(message, Failed) and message.errno in DISK_FULL:
            self._found_no_room(message)
        elif isinstance(message, Failed):
            self.failed(process, message, message.traceback)
        elif isinstance(message, Silent):
            self._silent(process, message)
        elif isinstance(message, Died):
            self._died(process, message)
        elif isinstance(message, Joined | Lost | Unusable):
            self._slot_changed(event)

    def set_aside(self, slot: int, why: str) -> None:
        """Works with a slot no longer; what its process has to do is handed out again."""
        process = self.pool.workers.get(slot)
        if process is not None and process.job:
            self.release(process.job)
        self.pool.retire(slot)
        note = f"{self.slot_name(slot)} is set aside: {why}, see {self.pool.log_of(slot)}"
        device = self.pool.devices[slot].label
        self._journal.append(events.DeviceSetAside(**{self.name: slot}, device=device, reason=why))
        self._completion.notes.append(note)
        self._progress.note(note)

    def _slot_changed(self, event: PoolEvent) -> None:
        """Works with a slot that has joined, or no longer with one that is gone or must not be used."""
        slot, message = event.slot, event.message
        if isinstance(message, Unusable):
            self.slots.aside.add(slot)
            self.set_aside(slot, message.reason)
            return
        who = {self.name: slot, "device": self.pool.devices[slot].label}
        if isinstance(message, Joined):
            self.slots.known.add(slot)
            self._journal.append(events.SlotJoined(**who))
            return
        job = event.process.job if event.process else None
        self.slots.left(slot)
        self._journal.append(events.SlotLost(**who, reason=message.reason, **_round_of(job)))
        if message.reason != self._last_loss:  # a node takes many slots with it
            self._progress.say(f"{self.slot_name(slot)} is gone: {message.reason}")
        self._last_loss = message.reason
        if job:
            self.release(job)

    def _who(self, process: WorkerProcess) -> dict[str, Any]:
        """Returns the fields of the journal that name a process."""
        return {self.name: process.slot, "launch": process.launch}

    def _ready(self, process: WorkerProcess, platform: dict[str, str]) -> None:
        """Takes a process in, if its platform is the run's."""
        self._early_kills = 0
        self.slots.ready(process.slot)
        self.began(process)
        self._journal.append(events.ProcessReady(**self._who(process), device=process.device.label, platform=platform))
        if platform in self.platforms:
            return
        self.platforms.append(platform)
        if self.name == "worker":
            self._progress.say(f"{process.device.label}: " + ", ".join(f"{k} {v}" for k, v in platform.items()))
        if len(self.platforms) > 1 and not self._config.allow_mixed_platform:
            raise fingerprints.refuse(
                f"{self._folder.root}, by a {self.name} on another platform,",
                fingerprints.differences(self.platforms[0], platform),
                "Equal bytes hold for one platform only: use like machines, or allow_mixed_platform=true.",
            )

    def _halved(self, process: WorkerProcess, message: Halved) -> None:
        """Says that a round goes on with fewer grasps at once."""
        code, round_id, tile = message.code, message.round_id, message.tile
        who = {"worker": process.slot, "device": process.device.label}
        self._journal.append(events.TileHalved(code=code, round_id=round_id, tile=tile, **who))
        self._progress.say(f"{code}: round {round_id} goes on with {tile} grasps at once: out of memory")

    def _sealed(self, process: WorkerProcess, sealed: Sealed) -> None:
        """Takes a sealed file in, if it reads back."""
        try:
            content = self.read(sealed)
        except (FormatError, OSError) as error:
            self.spoiled(process, sealed, error)
            return
        self.take(process, sealed, content)

    def _found_no_room(self, message: Failed) -> None:
        """Takes a job back for whose file the full disk had no room; that was no attempt."""
        self.release(message)
        reason = last_line(message.traceback)
        self._journal.append(events.RoundFoundNoRoom(code=message.code, round_id=message.round_id, reason=reason))
        self._completion.space.met(reason)

    def _silent(self, process: WorkerProcess, message: Silent) -> None:
        """Says that a process is ended without a sign of life; its death is handled later."""
        reason = message.reason
        self._journal.append(events.ProcessSilent(**self._who(process), reason=reason, **_round_of(process.job)))
        self._progress.say(f"{self.label(process)} is ended: {reason}")

    def _died(self, process: WorkerProcess, died: Died) -> None:
        """Takes back the job of a dead process, which had sealed nothing for it."""
        how, is_from_outside = death(died.exitcode, died.reason)
        job = process.job
        self._journal.append(events.ProcessDied(**self._who(process), exitcode=died.exitcode, **_round_of(job)))
        self._progress.say(f"{self.label(process)} died: {how}")
        if not process.is_ready:
            self._died_early(process, is_from_outside, how, died.log)
        if job is None:
            return
        if is_from_outside:
            self.killed(process, job, how)
        else:
            self.failed(process, job, f"{died.log}\nthe {self.name} died: {how}")

    def _died_early(self, process: WorkerProcess, is_from_outside: bool, how: str, log: str) -> None:
        """Ends the use of a slot whose processes die before they are ready, and the run at the last slot."""
        if is_from_outside:
            self._early_kills += 1
            if self._early_kills >= EARLY_KILLS:
                raise self._nothing_starts(process, EARLY_KILLS, how, log)
        elif self.slots.died_early(process.slot):
            if not self.slots.set_aside(process.slot):
                if not self.pool.may_grow:
                    raise self._nothing_starts(process, EARLY_EXITS, how, log)
                self.slots.aside.add(process.slot)
            died = f"{EARLY_EXITS} {self.name}s in a row died there before they were ready"
            self.set_aside(process.slot, f"{died}, the last with {how}")

    def _nothing_starts(self, process: WorkerProcess, deaths: int, how: str, log: str) -> RunError:
        """Returns the error of a run in which no process gets ready."""
        return RunError(
            f"{deaths} {self.name}s in a row died before any was ready, the last one with {how}. The end of "
            f"{self.pool.log_of(process.slot)}:\n{log}"
        )


def _round_of(job: Job | None) -> dict[str, Any]:
    """Returns the fields of the journal that name the round of a job, or the object of one that is about no round."""
    if job is None or job.round_id == NO_ROUND:
        return {} if job is None else {"code": job.code}
    return {"code": job.code, "round_id": job.round_id}
