"""What every engine has to hold, on one machine or on a cluster."""

from __future__ import annotations

import pickle
import time

import pytest
from stub_rounds import Stub

from bimangrasp.files.formats import Header
from scale.engine.interfaces import Died, Failed, Joined, Ready, RoundJob, Sealed, Silent, Step
from scale.engine.pool import Crew, events
from scale.engine.worker import SYNTHESIS
from scale.store import shards

HEADER = Header("", 0, "", Stub().hand_table(), {}, {}, {})


def crew(stub, **limits):
    return Crew(SYNTHESIS, pickle.dumps(stub), HEADER, 1, **({"startup_s": 600, "heartbeat_s": 300} | limits))


def job(round_id, mesh=__file__):
    names = {"code": "mug", "index": 1, "mesh": mesh, "mesh_sha256": "cd" * 32}
    return RoundJob(**names, round_id=round_id, seed=100 + round_id, attempt=0, tile=8)


def heard(pool, kind, within=60.0):
    """The events up to the next one of this kind, it included."""
    seen, deadline = [], time.monotonic() + within
    while time.monotonic() < deadline:
        for event in events([pool], 0.2):
            seen.append(event)
            if type(event.message) is kind:
                return seen  # what comes behind it is left to be heard
    raise AssertionError(f"no {kind.__name__} within {within} s, only {seen}")


def next_event(pool, kind, within=60.0):
    """The next event of this kind; steps in between are left out."""
    *before, last = heard(pool, kind, within)
    assert all(isinstance(event.message, Step | Ready | Joined) for event in before), before
    return last


def words(pool, seconds):
    """What is heard in so many seconds."""
    deadline, seen = time.monotonic() + seconds, []
    while time.monotonic() < deadline:
        seen += events([pool], 0.1)
    return seen


def kinds(seen):
    return [type(event.message) for event in seen if not isinstance(event.message, Joined)]


def started(pool, slot=0):
    one = pool.start(slot)
    next_event(pool, Ready)
    return one


class EngineLaws:
    """Test files inherit these, with a fixture of their own.

    `engine_of(stub, slots=1, **limits)` gives a run folder and a pool whose slots are there.
    """

    @pytest.mark.slow
    def test_rounds_come_back_sealed_with_bytes_that_know_no_worker(self, engine_of):
        folder, pool = engine_of(Stub(), 2)
        paths = []
        for slot in (0, 1):
            assert pool.start(slot).slot == slot
        while len(pool.idle()) < 2:
            list(events([pool], 0.2))
        for one in pool.idle():
            pool.assign(one, job(3))
        assert len(pool.busy()) == 2
        for _ in range(2):
            path = folder.root / next_event(pool, Sealed).message.path
            paths.append(path)
            assert shards.verify(path).round_id == 3, "it lies in the run folder, whole, when it is heard"
        assert paths[0].parent != paths[1].parent and paths[0].read_bytes() == paths[1].read_bytes()
        shard = shards.verify(paths[0])
        assert (shard.seed, shard.header.object_index) == (103, 1)
        assert len(pool.idle()) == 2 and pool.busy() == []

    @pytest.mark.slow
    def test_what_a_slot_says_comes_in_order(self, engine_of):
        _, pool = engine_of(Stub(delay=0.7))
        one = pool.start(0)
        seen = kinds(heard(pool, Ready))
        for round_id in range(2):
            pool.assign(one, job(round_id))
            seen += kinds(heard(pool, Sealed))
        steps = [kind is Step for kind in seen]
        assert seen[0] is Ready and [kind for kind in seen if kind is not Step] == [Ready, Sealed, Sealed]
        assert any(steps[: seen.index(Sealed)]) and seen[-1] is Sealed

    @pytest.mark.slow
    def test_a_round_that_raises_leaves_the_worker_alive_and_tells_its_traceback(self, engine_of, tmp_path):
        _, pool = engine_of(Stub(faults={("mug", 0): ["raise"]}, marks=str(tmp_path)))
        one = started(pool)
        pool.assign(one, job(0))
        failed = next_event(pool, Failed).message
        assert "fault on order" in failed.traceback and failed.step == 0
        pool.assign(one, job(0))
        assert next_event(pool, Sealed).process is one
        words(pool, 0.5)
        assert "fault on order" in pool.log_of(0).read_text()

    @pytest.mark.slow
    @pytest.mark.parametrize("fault, exitcode", [("kill", -9), ("segv", -11), ("exit", 7)])
    def test_any_death_is_noticed_with_the_round_it_had_and_then_nothing_is_heard(
        self, engine_of, tmp_path, fault, exitcode
    ):
        _, pool = engine_of(Stub(faults={("mug", 0): [fault]}, marks=str(tmp_path)))
        pool.assign(started(pool), job(0))
        event = next_event(pool, Died)
        assert event.message.exitcode == exitcode and event.process.job.round_id == 0 and event.process.at == 0
        assert pool.workers == {} and words(pool, 0.5) == []
        if fault == "segv":
            assert "Segmentation fault" in event.message.log
        again = started(pool)
        assert again.launch == 1
        pool.assign(again, job(0))
        assert next_event(pool, Sealed).process is again

    @pytest.mark.slow
    def test_what_a_dead_process_had_sealed_is_heard_before_its_death(self, engine_of, tmp_path):
        folder, pool = engine_of(Stub(faults={("mug", 0): ["kill-sealed"]}, marks=str(tmp_path)))
        pool.assign(started(pool), job(0))
        seen = [event for event in heard(pool, Died) if type(event.message) in (Sealed, Died)]
        assert kinds(seen) == [Sealed, Died] and seen[1].process.job is None
        assert shards.verify(folder.root / seen[0].message.path).seed == 100

    @pytest.mark.slow
    def test_a_silent_process_is_ended_where_it_runs_and_says_why(self, engine_of, tmp_path):
        _, pool = engine_of(Stub(faults={("mug", 0): ["hang"]}, marks=str(tmp_path)), heartbeat_s=1)
        pool.assign(started(pool), job(0))
        seen = [event for event in heard(pool, Died) if not isinstance(event.message, Step)]
        assert kinds(seen) == [Silent, Died]
        assert "no step after step 0 within 1 s" in seen[0].message.reason == seen[1].message.reason
        assert "Fatal Python error: Aborted" in seen[1].message.log

    @pytest.mark.slow
    def test_who_waits_for_a_job_is_not_silent(self, engine_of):
        _, pool = engine_of(Stub(), startup_s=30, heartbeat_s=0.5)
        started(pool)
        assert words(pool, 2) == []

    @pytest.mark.slow
    def test_the_clock_of_a_start_begins_with_the_start(self, engine_of, tmp_path):
        _, pool = engine_of(Stub(faults={("load", 0): ["slow:2"]}, marks=str(tmp_path)), startup_s=5)
        assert words(pool, 5.5) == []
        pool.start(0)
        assert kinds(heard(pool, Ready)) == [Ready]

    @pytest.mark.slow
    def test_a_worker_that_cannot_load_dies_with_its_reason(self, engine_of):
        _, pool = engine_of(Stub(broken=True))
        one = pool.start(0)
        died = next_event(pool, Died).message
        assert died.exitcode == 1 and not one.is_ready
        assert "the stub cannot load its hands" in died.log

    @pytest.mark.slow
    def test_nothing_is_heard_of_a_slot_that_was_let_go(self, engine_of, tmp_path):
        _, pool = engine_of(Stub(delay=1.0), 2)
        for slot in (0, 1):
            started(pool, slot)
        for one in pool.idle():
            pool.assign(one, job(one.slot))
        pool.retire(0)
        assert 0 not in pool.workers
        seen = words(pool, 2.5)
        assert {event.slot for event in seen} == {1} and Sealed in kinds(seen)

    @pytest.mark.slow
    def test_after_stop_there_is_nobody(self, engine_of):
        _, pool = engine_of(Stub(delay=600))
        pool.assign(started(pool), job(0))
        next_event(pool, Step)
        pool.stop()
        assert pool.workers == {} and words(pool, 1) == []
