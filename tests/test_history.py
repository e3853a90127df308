"""What the journal tells: who made which round how fast, in old journals and new ones, over several calls."""

from __future__ import annotations

import numpy as np
import pytest

from scale.report import history as history_room
from scale.report.history import speed
from scale.store.events import event_from


def history(lines, now=None):
    return history_room.history([event_from(line) for line in lines], now)


def start(time, **facts):
    return {"event": "start", "time": time, "mode": "scale", "run_key": {}, "quotas": {"mug": 40}} | facts


def done(time, round_id, accepted=8, code="mug", **facts):
    sealed = {"event": "done", "time": time, "code": code, "round": round_id, "rows": 16, "accepted": accepted}
    return sealed | {"tile_used": 16, "sha256": "ab"} | facts


def ready(time, worker, device="cpu"):
    return {"event": "ready", "time": time, "worker": worker, "device": device, "platform": {"torch": "2"}}


def end(time, code=0, **facts):
    return {"event": "end", "time": time, "exit_code": code} | facts


def test_a_round_is_its_workers():
    facts = {"seconds": 4.0, "worker": 1, "device": "cpu"}
    told = history([start(0.0), done(10.0, 3, **facts), done(11.0, 4, seconds=2.0, worker=0, device="gpu 0")])
    assert [(one.worker, one.seconds) for one in told.work.values()] == [("cpu #1", 4.0), ("gpu 0", 2.0)]
    assert told.work["mug", 3].accepted == 8 and (told.rows, told.accepted) == (32, 16)


def test_a_journal_without_workers_names_them_by_the_shards_path():
    events = [start(0.0), ready(1.0, 2), done(9.0, 0, seconds=3.0, shard="shards/worker_2_5/mug.000000.ab.h5")]
    assert history(events).work["mug", 0].worker == "cpu #2"
    assert history([start(0.0), done(9.0, 0)]).work["mug", 0].worker == ""


def test_the_slots_of_an_earlier_call_name_no_worker_of_this_one():
    events = [start(0.0), ready(1.0, 0, "gpu 7"), end(2.0), start(3.0), done(9.0, 0, shard="shards/worker_0_1/a.h5")]
    assert history(events).work["mug", 0].worker == ""


def test_a_tested_round_keeps_the_time_of_its_making():
    sealed = {"event": "sealed", "time": 5.0, "code": "mug", "round": 0, "rows": 16, "tile_used": 16, "sha256": "ab"}
    sealed |= {"seconds": 4.0, "worker": 0, "device": "cpu"}
    tested = done(20.0, 0, accepted=3, test_seconds=9.0)
    assert history([start(0.0), sealed]).work["mug", 0].accepted is None
    one = history([start(0.0), sealed, tested]).work["mug", 0]
    assert (one.time, one.seconds, one.worker, one.accepted, one.test_seconds) == (5.0, 4.0, "cpu #0", 3, 9.0)
    judged = tested | {"event": "judged"}
    assert history([start(0.0), sealed, judged]).accepted == 0  # near-duplicates are not left out yet
    assert history([start(0.0), sealed, judged, done(21.0, 0, accepted=2)]).accepted == 2


def test_a_round_that_is_made_again_counts_once_and_is_not_given_up():
    skip = {"event": "skip", "time": 4.0, "code": "mug", "round": 0, "traceback": "no"}
    assert list(history([start(0.0), skip]).skips) == [("mug", 0)]
    told = history([start(0.0), skip, done(5.0, 0, seconds=1.0), done(8.0, 0, accepted=7, seconds=2.0)])
    assert not told.skips and told.accepted == 7 and told.work["mug", 0].time == 8.0


def test_calls_end_with_their_last_line_or_now():
    events = [start(0.0), done(10.0, 0), end(20.0, 143), start(100.0), done(130.0, 1)]
    told = history(events)
    assert [(call.seconds, call.exit_code) for call in told.calls] == [(20.0, 143), (30.0, None)]
    assert told.seconds == 50.0
    assert history(events, now=150.0).calls[1].seconds == 50.0


def test_a_cause_is_told_and_a_missing_one_is_none():
    assert history([start(0.0), end(1.0, 1, error="boom")]).calls[0].error == "boom"
    assert history([start(0.0), end(1.0, 1)]).calls[0].error == ""


def test_speed_is_rows_over_the_seconds_of_their_round():
    """10 grasps in 5 s are 2 a second, while they are made and at no other time."""
    told = history([start(100.0), done(110.0, 0, accepted=10, seconds=5.0, worker=0, device="gpu 0"), end(120.0)])
    pace = speed(told, 20)
    np.testing.assert_allclose(pace.edges, np.arange(21.0))
    np.testing.assert_allclose(pace.rates["gpu 0"], [0.0] * 5 + [2.0] * 5 + [0.0] * 10, atol=1e-9)
    assert pace.starts == []


@pytest.mark.parametrize("spans", [1, 7, 60])
def test_parts_that_were_at_work_at_once_share_their_time(spans):
    """A joined journal has the calls of one part behind those of another, whenever they were."""
    one = [start(1000.0), done(1080.0, 0, accepted=30, seconds=60.0, worker=0, device="gpu 0"), end(1100.0)]
    other = [start(1050.0), done(1150.0, 1, accepted=20, seconds=90.0, worker=1, device="gpu 1"), end(1160.0)]
    early = [start(0.0), done(50.0, 2, accepted=10, seconds=10.0, worker=1, device="gpu 1"), end(60.0)]
    pace = speed(history([*one, *other, *early]), spans)
    assert pace.edges[-1] == 60.0 + 160.0 and pace.starts == [60.0]
    for worker, grasps in (("gpu 0", 30), ("gpu 1", 30)):
        assert (pace.rates[worker] * np.diff(pace.edges)).sum() == pytest.approx(grasps)


@pytest.mark.parametrize("spans", [1, 7, 60])
def test_no_grasp_is_lost_between_spans_and_calls(spans):
    """The integral over time at work is the number of accepted grasps; the hours between two calls are no work."""
    draw = np.random.default_rng(0)
    events, time, total = [start(0.0)], 0.0, {"gpu 0": 0, "gpu 1": 0}
    for number in range(40):
        took, accepted, slot = draw.uniform(0.1, 3.0), int(draw.integers(0, 16)), int(draw.integers(2))
        time += took
        events.append(done(time, number, accepted, seconds=took, worker=slot, device=f"gpu {slot}"))
        total[f"gpu {slot}"] += accepted
        if number == 19:
            events += [end(time, 143), start(time + 7200.0)]
            time += 7200.0
    told = history([*events, end(time)])
    pace = speed(told, spans)
    assert pace.edges[-1] == pytest.approx(time - 7200.0) and len(pace.starts) == 1
    for worker, rate in pace.rates.items():
        assert np.sum(rate * np.diff(pace.edges)) == pytest.approx(total[worker])


def test_what_is_not_timed_is_not_in_the_speed():
    told = history([start(0.0), done(1.0, 0, worker=0, device="cpu", seconds=0.0), end(5.0)])
    assert speed(told, 4).rates["cpu #0"].tolist() == [0.0] * 4
