"""Tests sealed rounds: hands them, or some rows of large ones, to validators, and takes in what these say."""

from __future__ import annotations

import pickle
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from scale.controller.completion import ObjectCompletion
from scale.controller.worker_events import TRACEBACK_BYTES, RoleHandler
from scale.engine.interfaces import NO_ROUND, Failed, Job, PiecesJob, PiecesMade, RowsJudged, Sealed, ValidationJob
from scale.engine.pool import WorkerProcess
from scale.engine.scheduler import Key, RoundRequest, is_disk_full
from scale.engine.worker import VALIDATION
from scale.errors import RunError
from scale.formatting import last_line, listed
from scale.merge.round_records import JudgedRound, SealedRound, accept_round
from scale.state.records import ObjectState
from scale.state.round_table import SEALED
from scale.store import shards, verdict_files
from scale.store.events import AttemptFailed, PiecesFound, RoundDone, RoundFoundNoRoom, RoundJudged
from scale.store.run_folder import VALIDATOR
from scale.store.verdict_files import Verdict

if TYPE_CHECKING:
    from scale.store.convex_pieces import SealedPieces

DEADLY = 2  # validators that die or hang at one grasp before it is no longer simulated
ROWS_AT_ONCE = 64
"""Rows of a job, where a round has more: half a minute of a core. A death costs a job, and all cores share a round."""
FIRST_GRASP_S = 1.0  # what the test of a grasp is taken for before any was timed
LEAST_AHEAD = 4
"""Objects of which pieces are looked for at least, beyond those that have some."""
Row = tuple[str, int, int]
"""A grasp: object code, round id, row."""


class Rows(NamedTuple):
    """Consecutive rows of a round."""

    first: int
    count: int


@dataclass
class RoundTest:
    """The test of one sealed round.

    Attributes:
        shard_sha256: of what is tested.
        waiting: what no validator has; one entry of all rows where a round is not cut.
        judged: first row -> what was found.
    """

    shard_sha256: str
    waiting: list[Rows]
    judged: dict[int, RowsJudged] = field(default_factory=dict)

    @classmethod
    def of(cls, sealed: SealedRound, at_once: int) -> RoundTest:
        """Returns the test of a round, cut into so many rows at once."""
        cuts = range(0, sealed.rows, at_once)
        return cls(sealed.sha256, [Rows(first, min(at_once, sealed.rows - first)) for first in cuts])

    def take_back(self, rows: Rows) -> None:
        """Lets rows wait for another validator, before those behind them."""
        self.waiting = sorted([*self.waiting, rows])

    def seconds(self) -> float:
        """Returns how long validators took for what was found."""
        return sum(judged.seconds for judged in self.judged.values())


class ValidationRole(RoleHandler):
    """Tests sealed rounds: validators on the CPU, or on the workers' devices.

    A grasp at which validators died by themselves, or hung, fails without being simulated; a death from outside says
    nothing of the grasp, until there were as many as `max_kills` allows a round.
    """

    name = VALIDATOR

    def __init__(self, completion: ObjectCompletion) -> None:
        request = completion.call.request
        crew = (VALIDATION, pickle.dumps(request.verdict_factory), request.validator_threads)
        super().__init__(completion, *crew, completion.call.resumed.verdict_platforms)
        is_on_device = request.config.validation.simulator.is_on_device  # which takes thousands at once
        self._at_once = sys.maxsize if is_on_device else ROWS_AT_ONCE
        self._tests: dict[Key, RoundTest] = {}
        self._at_work: dict[Row, tuple[RoundTest, Rows]] = {}
        self._failures: Counter[Row] = Counter()
        self._ends: Counter[Row] = Counter()
        self._kills: Counter[Row] = Counter()
        self._has_success = False
        self._tested, self._tested_s = 0, 0.0
        self._lacking = {code: state for code, state in completion.standing.open.items() if request.lacks_pieces(code)}
        self._looking: set[str] = set()

    @property
    def room(self) -> int:
        """How many more rounds may be handed out to workers before the validators have caught up.

        What may wait is what they test in `backlog_s`, by what grasps took so far; one round may always wait.
        """
        grasp_s = self._tested_s / self._tested if self._tested else FIRST_GRASP_S
        rows = self._config.backlog_s * max(1, len(self.slots.used)) / grasp_s
        return max(0, max(1, int(rows / self._config.round_batch_size)) - self._completion.standing.waiting)

    @property
    def doing(self) -> str:
        """What the validators do, for the screen."""
        busy, waiting = len(self.pool.busy()), self._completion.standing.waiting
        looking = f", convex pieces sought of {listed(sorted(self._looking))}" if self._looking else ""
        return f"{busy} of {len(self.slots.used)} validators at work, {waiting} rounds to test{looking}"

    def wanted(self) -> Iterator[RoundRequest]:
        """Yields what validators are to do: find pieces for which workers would wait, then test what is sealed."""
        yield from self._pieces_wanted()
        yield from self._tests_wanted()

    def _pieces_wanted(self) -> Iterator[RoundRequest]:
        """Yields the next objects of which pieces are to be found, some ahead of what is worked on."""
        standing = self._completion.standing
        for code in list(islice(self._lacking, max(LEAST_AHEAD, len(self.slots.used)))):
            if code not in standing.open:
                del self._lacking[code]
            elif code not in self._looking:
                yield RoundRequest((code, NO_ROUND))

    def _tests_wanted(self) -> Iterator[RoundRequest]:
        """Yields the rounds that wait for a validator, object by object, each as often as it has rows to hand out."""
        for state in self._completion.standing.with_waiting():
            for round_id in state.rounds.having(SEALED):
                yield from [RoundRequest((state.code, round_id))] * len(self._test(state, round_id).waiting)

    def begun(self) -> Iterator[RoundRequest]:
        """Yields of these the rounds of which rows are tested or under way."""
        under_way = [test for test, _ in self._at_work.values()]
        for request in self._tests_wanted():
            test = self._tests[request.key]
            if test.judged or any(test is other for other in under_way):
                yield request

    def _test(self, state: ObjectState, round_id: int) -> RoundTest:
        """Returns the test of a sealed round; a new one where the round was sealed again since."""
        key, sealed = (state.code, round_id), state.rounds.record(round_id)
        if key not in self._tests or self._tests[key].shard_sha256 != sealed.sha256:
            self._tests[key] = RoundTest.of(sealed, self._at_once)
        return self._tests[key]

    def job(self, _: WorkerProcess, state: ObjectState, round_id: int) -> ValidationJob | PiecesJob:
        """Takes rows of a round in hand, or the search for pieces, and returns what a validator is told to do."""
        if round_id == NO_ROUND:
            from scale.store.convex_pieces import files_beside  # here, because it loads mesh libraries

            self._looking.add(state.code)
            beside = tuple(str(path) for path in files_beside(Path(state.mesh)))
            return PiecesJob(state.code, state.mesh, beside, self._config.pieces)
        test, sealed = self._test(state, round_id), state.rounds.record(round_id)
        rows = test.waiting.pop(0)
        self._at_work[state.code, round_id, rows.first] = test, rows
        pieces, own = self._request.pieces[state.code], range(rows.first, rows.first + rows.count)
        return ValidationJob(
            code=state.code,
            round_id=round_id,
            shard=self._folder.relative(sealed.shard),
            pieces=self._folder.relative(pieces.path),
            acceptance_key=self._request.acceptance_key_of(state.code),
            deadly=tuple(row for row in own if self._is_deadly((state.code, round_id, row))),
            first=rows.first,
            rows=None if rows.count == sealed.rows else rows.count,
        )

    def _is_deadly(self, row: Row) -> bool:
        """Whether a grasp is no longer simulated."""
        return self._ends[row] >= DEADLY or 0 < self._config.max_kills <= self._kills[row]

    # ---- what comes back

    def read(self, sealed: Sealed) -> tuple[Verdict, JudgedRound] | None:
        """Returns a verdict and the round that it judges; None where that round no longer waits for this verdict."""
        state, round_id = self._completion.by_code[sealed.code], sealed.round_id
        self.release(sealed)
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
        if sealed.seconds:
            self._tested, self._tested_s = self._tested + record.rows, self._tested_s + sealed.seconds
        self._completion.space.sealed()
        kind = RoundJudged if self._request.dedup else RoundDone
        took = round(sealed.seconds, 3)
        event = record.event(kind, state.code, round_id, self._folder, test_seconds=took)
        self._journal.append(event)
        if self._completion.judged(state, round_id, record):
            self._progress.meter.gained("physics", record.accepted)

    def pieces_made(self, process: WorkerProcess, made: PiecesMade) -> None:
        """Takes in an object's convex pieces: its rounds may be made now. One without any is ended."""
        state, reason = self._completion.by_code[made.code], made.refusal
        self._looking.discard(made.code)
        try:
            pieces = None if reason else self._sealed_pieces(state, made.image)
        except OSError as error:
            if not is_disk_full(error):
                raise
            self._completion.space.met(str(error))  # they are found again, in a moment then, for they are cached
            return
        self._lacking.pop(made.code, None)
        facts = {"seconds": round(made.seconds, 3), "pieces": pieces.record["count"] if pieces else 0}
        event = PiecesFound(code=made.code, validator=process.slot, reason=reason or None, **facts)
        self._journal.append(event)
        if pieces is None:
            self._completion.refuse(state, reason)
            return
        self._request.pieces[made.code] = pieces
        self._completion.standing.touch(made.code)
        if not self._lacking and self._request.pieces_note():
            self._progress.say(self._request.pieces_note())

    def _sealed_pieces(self, state: ObjectState, image: bytes) -> SealedPieces:
        """Returns an object's pieces when they lie in the run folder."""
        from scale.store.convex_pieces import seal_pieces  # here, because it loads mesh libraries

        return seal_pieces(self._folder, Path(state.mesh), image, self._config.pieces, self._progress.say)

    def rows_judged(self, process: WorkerProcess, judged: RowsJudged) -> None:
        """Takes in what was found of some rows; with the last of a round its verdict is sealed and taken in."""
        test, rows = self._at_work.pop(_first_row(judged), (None, None))
        key, state = (judged.code, judged.round_id), self._completion.by_code[judged.code]
        if test is None or self._tests.get(key) is not test:
            return  # the test was begun anew meanwhile
        if state.rounds.state(judged.round_id) is not SEALED:
            del self._tests[key]  # the round is made again, or was given up
            return
        if judged.shard_sha256 != test.shard_sha256:
            test.take_back(rows)
            return
        if any(other.platform != judged.platform for other in test.judged.values()):
            del self._tests[key]  # a verdict is of one platform
            return
        test.judged[rows.first] = judged
        tested = sum(len(part.columns["verdict/reason"]) for part in test.judged.values())
        if tested < state.rounds.record(judged.round_id).rows:
            return
        try:
            path = self._sealed_verdict(process, state, judged, test)
        except OSError as error:
            if not is_disk_full(error):
                raise
            test.take_back(rows)
            del test.judged[rows.first]
            reason = str(error)
            self._journal.append(RoundFoundNoRoom(code=judged.code, round_id=judged.round_id, reason=reason))
            self._completion.space.met(reason)
            return
        del self._tests[key]
        self._sealed(process, Sealed(*key, self._folder.relative(path), test.seconds()))

    def _sealed_verdict(self, process: WorkerProcess, state: ObjectState, last: RowsJudged, test: RoundTest) -> Path:
        """Returns the path of a round's verdict, joined in the order of its rows: its bytes do not tell of the cuts."""
        parts = [judged.columns for _, judged in sorted(test.judged.items())]
        about = {
            "code": last.code,
            "round_id": last.round_id,
            "shard_sha256": test.shard_sha256,
            "acceptance_key": self._request.acceptance_key_of(state.code),
            "platform": last.platform,
            "judging": last.judging,
        }
        columns = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
        place = self._folder.place(process.slot, process.launch, VALIDATOR)
        return verdict_files.seal(self._folder, place, about, columns)

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
        self._tests.pop((state.code, round_id), None)
        self._folder.set_aside(shard)
        return True

    def release(self, job: Job | Failed | Sealed) -> None:
        """Lets what a validator had to do wait for another one."""
        if job.round_id == NO_ROUND:
            self._looking.discard(job.code)
            return
        test, rows = self._at_work.pop(_first_row(job), (None, None))
        if test is not None:
            test.take_back(rows)

    def failed(self, process: WorkerProcess, job: Job | Failed, text: str) -> None:
        """Notes a failed attempt; the grasp at which it failed is not simulated for ever."""
        state, round_id = self._completion.by_code[job.code], job.round_id
        self.release(job)
        if round_id == NO_ROUND:
            self._no_pieces_this_time(process, state, text)
            return
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
        self._failures[_first_row(job)] += 1
        attempts = self._failures[_first_row(job)]
        if attempts <= self._config.max_retries:
            return
        if not self._has_success:
            raise RunError(
                f"no round could be tested in this call: it is the configuration, or the machine. The last error, see "
                f"{self.pool.log_of(process.slot)}:\n{tail}"
            )
        self._completion.skip(state, round_id, f"after {attempts} tests that failed", tail)

    def _no_pieces_this_time(self, process: WorkerProcess, state: ObjectState, text: str) -> None:
        """Notes that the search for an object's pieces failed; after some times it has none."""
        row = (state.code, NO_ROUND, 0)
        self._failures[row] += 1
        self._progress.say(f"{state.code}: the search for convex pieces failed: {last_line(text)}")
        if self._failures[row] > self._config.max_retries:
            refusal = f"the search failed {self._failures[row]} times, the last time with: {last_line(text)}"
            self.pieces_made(process, PiecesMade(state.code, b"", refusal, 0.0))

    @staticmethod
    def _row_at(step: int | None, state: ObjectState, round_id: int) -> int | None:
        """Returns the grasp that a validator was simulating; None where it was at none."""
        waiting = state.rounds.record(round_id) if state.rounds.state(round_id) is SEALED else None
        return step if step is not None and waiting is not None and step < waiting.rows else None

    def killed(self, process: WorkerProcess, job: Job, how: str) -> None:
        """Lets a round wait for another validator; the grasp at which this one was killed is remembered."""
        self.release(job)
        if job.round_id == NO_ROUND:
            self._no_pieces_this_time(process, self._completion.by_code[job.code], f"its validator died by {how}")
        elif process.is_stepping:
            self._kills[job.code, job.round_id, process.step] += 1


def _first_row(job: Job | Failed | Sealed | RowsJudged) -> Row:
    """Returns the first grasp of a job, by which it is known; a sealed verdict is of all rows."""
    return job.code, job.round_id, getattr(job, "first", 0)
