"""Every fault a round, a worker, a device or a disk can have: what happens, what the journal says, the same bytes."""

import errno
import os
import signal
import tempfile
import threading
import time
from dataclasses import dataclass, field
from functools import partial

import h5py
import pytest
from run_tools import events
from stub_rounds import Stub, StubBench

import scale
from scale.controller import worker_events
from scale.engine.scheduler import (
    ConfigErrorDetector,
    FreeSlots,
    RetryPolicy,
    RoundRequest,
    Slots,
    dispatch,
    is_broken_device,
    is_out_of_memory,
)
from scale.engine.synthesizer import Synthesizer
from scale.errors import RunError
from scale.merge import merge_thread
from scale.store import disk_space
from scale.store.journal import read_manifest
from scale.store.run_folder import RunFolder

BIN = "storage_bin"
THREE = "[bowl,mug,storage_bin]"


@pytest.fixture
def folder(tmp_path):
    return RunFolder(tmp_path / "experiments" / "demo")


@pytest.fixture
def run(small_config, tmp_path):
    """Runs the stub with faults: run({("mug", 0): ["raise"]}, "max_retries=0", gpus="[cpu,cpu]")."""

    def call(faults=None, *overrides, stub=None, **settings):
        stub = stub or Stub(faults=faults or {}, marks=str(tmp_path))
        return scale.run(small_config(*overrides, **settings), maker=stub)

    return call


@pytest.fixture
def undisturbed(run):
    """The final files of a run in which nothing happens: undisturbed(report, ...the settings of the other run)."""

    def compare(report, *overrides, **settings):
        calm = run(None, *overrides, exp_name="calm", **settings)
        assert [p.read_bytes() for p in calm.paths] == [p.read_bytes() for p in report.paths]
        return calm

    return compare


def wait_for(has_come):
    deadline = time.monotonic() + 60
    while not has_come() and time.monotonic() < deadline:
        time.sleep(0.01)


def temporary(folder):
    return list(folder.root.rglob(".tmp-*"))


# ---- a round raises


@pytest.mark.slow
def test_a_failed_round_is_tried_on_another_worker(run, folder, undisturbed):
    report = run({(BIN, 0): ["raise"]}, gpus="[cpu,cpu]")
    (failed,) = events(folder, "fail")
    done = next(event for event in events(folder, "done") if event["round"] == 0)
    assert report.exit_code == 0 and f"worker_{failed['worker']}_" not in done["shard"]
    undisturbed(report)


@pytest.mark.slow
def test_a_round_that_fails_on_one_device_only_is_not_skipped(run, folder, undisturbed, tmp_path):
    stub = Stub(bad_slots={0: "raise", 1: "until:met-0-*:1"}, marks=str(tmp_path))
    report = run(stub=stub, gpus="[cpu,cpu]", target_count_per_object=12)
    assert report.exit_code == 0 and report.skips == []
    assert {event["worker"] for event in events(folder, "fail")} == {0}
    assert all("worker_1_" in event["shard"] for event in events(folder, "done"))
    undisturbed(report, target_count_per_object=12)


@pytest.mark.slow
def test_nan_energies_are_rows_that_do_not_count(run):
    report = run({(BIN, 0): ["nan"]})
    with h5py.File(report.paths[0]) as file:
        assert file["rounds/accepted"][0] == 0 and len(file["row"]) == 6 and report.exit_code == 0


# ---- a worker dies


@pytest.mark.slow
def test_a_round_sealed_by_a_killed_worker_is_adopted_not_repeated(run, folder, undisturbed):
    report = run({(BIN, 0): ["kill-sealed"]})
    assert [event["exitcode"] for event in events(folder, "died")] == [-9]
    assert [event["round"] for event in events(folder, "done")].count(0) == 1 and events(folder, "fail") == []
    assert len(list(folder.root.parents[1].glob(f"{BIN}-0-*"))) == 1  # it was computed once
    undisturbed(report)


@pytest.mark.slow
def test_kills_from_outside_count_apart_from_failures(run, folder, undisturbed):
    report = run({(BIN, 1): ["kill"] * 2}, "max_kills=3", "max_retries=0", gpus="[cpu,cpu]", target_count_per_object=9)
    assert report.exit_code == 0 and report.skips == [] and events(folder, "fail") == []
    assert [event["exitcode"] for event in events(folder, "died")] == [-9, -9]
    undisturbed(report, target_count_per_object=9)


@pytest.mark.slow
def test_a_round_whose_workers_are_killed_too_often_is_skipped_and_says_why(run, folder):
    report = run({(BIN, 0): ["kill"] * 9}, "max_kills=2")
    assert report.skips == [(BIN, 0)] and report.exit_code == 0
    assert len(events(folder, "died")) == 2 and events(folder, "fail") == []
    assert "SIGKILL 2 times (max_kills=2): too little memory" in events(folder, "skip")[0]["traceback"]


@pytest.mark.slow
def test_with_max_kills_0_a_round_is_never_given_up(run, folder, undisturbed):
    report = run({(BIN, 0): ["kill"] * 4}, "max_kills=0", "max_retries=0")
    assert report.skips == [] and len(events(folder, "died")) == 4
    undisturbed(report)


@pytest.mark.slow
@pytest.mark.parametrize("fault, exitcode", [("segv", -11), ("exit", 7)])
def test_any_other_death_is_a_failure_of_the_round(run, folder, undisturbed, fault, exitcode):
    report = run({(BIN, 0): [fault]})
    assert [event["exitcode"] for event in events(folder, "died")] == [exitcode]
    assert [event["attempt"] for event in events(folder, "fail")] == [1] and report.skips == []
    undisturbed(report)


# ---- memory


@pytest.mark.slow
@pytest.mark.parametrize("fault", ["oom:2", "memory:2"])
def test_a_round_short_of_memory_goes_on_with_half_and_the_device_remembers(run, folder, fault):
    report = run({(BIN, 0): [fault]}, gpus="[cpu]", target_count_per_object=9)
    assert [event["tile"] for event in events(folder, "halved")] == [2] and events(folder, "fail") == []
    assert {event["tile_used"] for event in events(folder, "done")} == {2}  # the later ones start there
    assert "fewer than 4 grasps at once" in str(report) and "0 (2)" in str(report)
    assert any("0 (2)" in note for note in read_manifest(folder)["objects"][BIN]["notes"])
    with h5py.File(report.paths[0]) as file:
        assert set(file["rounds/tile_used"][...]) == {2}
    assert [event["tile"] for event in events(folder, "halved")] == [2]


@pytest.mark.slow
def test_at_the_floor_the_round_fails_with_the_sizes_tried(run, folder):
    report = run({(BIN, 0): ["oom:0"], (BIN, 1): ["oom:0"] * 3}, target_count_per_object=9)
    assert "at every size tried (4, 2, 1 at once): OutOfMemoryError" in events(folder, "fail")[0]["traceback"]
    assert report.skips == [(BIN, 1)]


class Cramped(Synthesizer):
    """The optimizer on a device that has no room for more than two grasps at once."""

    def load(self, device, threads):
        from bimangrasp import synthesis

        real = synthesis.synthesize

        def synthesize(hands, loaded, config, *rest):
            if config.tile > 2:
                raise RuntimeError("CUDA out of memory. Tried to allocate 20.00 MiB")
            return real(hands, loaded, config, *rest)

        synthesis.synthesize = synthesize
        return super().load(device, threads)


@pytest.mark.slow
def test_the_optimizer_halves_with_the_same_random_numbers(small_config, folder):
    whole = scale.run(small_config(exp_name="whole", tile=2, target_count_per_object=4))
    halved = scale.run(small_config(target_count_per_object=4), maker=Cramped)
    assert [event["tile"] for event in events(folder, "halved")] == [2] and "0 (2)" in str(halved)
    with h5py.File(whole.paths[0]) as a, h5py.File(halved.paths[0]) as b:
        for name in ("hand/translation", "hand/joints", "energy/total", "contact/candidate"):
            assert (a[name][...] == b[name][...]).all(), name


# ---- a broken context


@pytest.mark.slow
def test_after_a_cuda_error_the_process_ends_and_another_takes_the_round(run, folder, undisturbed):
    report = run({(BIN, 0): ["cuda"]})
    assert [event["exitcode"] for event in events(folder, "died")] == [86]
    assert [event["attempt"] for event in events(folder, "fail")] == [1]  # its death is no second one
    assert len({event["launch"] for event in events(folder, "ready")}) == 2
    undisturbed(report)


# ---- silence


@pytest.mark.slow
@pytest.mark.parametrize("fault, setting", [("hang-early", "startup_timeout_s=5"), ("hang", "heartbeat_timeout_s=0.5")])
def test_a_worker_that_hangs_is_ended_with_its_stack_in_the_log(run, folder, undisturbed, fault, setting):
    report = run({(BIN, 0): [fault]}, setting)
    failed = events(folder, "fail")
    assert [event["exitcode"] for event in events(folder, "died")] == [-signal.SIGABRT]
    assert len(failed) == 1 and setting.partition("=")[0] in failed[0]["traceback"]
    assert "in suffer" in folder.worker_log(0).read_text()
    assert not list(folder.root.rglob("core*"))
    undisturbed(report)


@pytest.mark.slow
def test_a_worker_that_hears_no_signal_is_killed_two_seconds_later(run, folder, monkeypatch):
    report = run({(BIN, 0): ["stop"]}, "heartbeat_timeout_s=0.5", "max_kills=1", "max_retries=1")
    assert [event["exitcode"] for event in events(folder, "died")] == [-9] and report.exit_code == 0
    assert [event["attempt"] for event in events(folder, "fail")] == [1]  # the parent sent it, so it counts


@pytest.mark.slow
def test_a_slow_start_is_no_silence_and_an_idle_worker_owes_nothing(run, folder):
    report = run({(BIN, 0): ["slow:1.5"]}, "heartbeat_timeout_s=1000", "startup_timeout_s=1000")
    assert report.exit_code == 0 and events(folder, "silent") == []


# ---- workers that never get ready


@pytest.mark.slow
def test_kills_before_the_first_is_ready_are_not_counted_as_exits(run, folder, undisturbed):
    report = run({("load", 0): ["kill"] * 3})
    assert report.exit_code == 0 and [event["exitcode"] for event in events(folder, "died")] == [-9] * 3
    undisturbed(report)


@pytest.mark.slow
def test_too_many_kills_in_a_row_end_the_run(run, monkeypatch):
    monkeypatch.setattr(worker_events, "EARLY_KILLS", 2)
    with pytest.raises(RunError, match="2 workers in a row died before any was ready, the last one with SIGKILL"):
        run({("load", 0): ["kill"] * 3})


@pytest.mark.slow
def test_a_device_on_which_no_worker_starts_is_set_aside(run, folder, tmp_path):
    """Its workers die before that of the other is ready, which says nothing of the other."""
    faults = {("load", 0): ["until:load-1-*:2"], ("load", 1): ["exit"] * 9}
    report = run(stub=Stub(faults, str(tmp_path), delay=0.1), gpus="[cpu,cpu]", target_count_per_object=60)
    assert report.exit_code == 0 and [event["worker"] for event in events(folder, "set_aside")] == [1]
    assert "2 workers in a row died there before they were ready, the last with exit code 7" in str(report)


def test_early_deaths_end_the_use_of_a_slot_and_never_of_the_last():
    slots = Slots({0, 1})
    assert not slots.died_early(1)
    slots.ready(1)
    assert [slots.died_early(1), slots.died_early(1)] == [False, True]  # in a row
    assert slots.set_aside(1) and slots.used == [0]
    assert [slots.died_early(0), slots.died_early(0)] == [False, True]
    assert not slots.set_aside(0) and slots.used == [0]


# ---- devices and the configuration


@pytest.mark.slow
def test_a_device_that_fails_what_others_can_do_is_set_aside(run, folder, undisturbed, tmp_path):
    settings = {"gpus": "[cpu,cpu]", "object_code_list": THREE}
    stub = Stub(bad_slots={0: "raise", 1: "until:met-0-*:3"}, marks=str(tmp_path))
    report = run(None, "max_retries=1", stub=stub, **settings)
    assert report.exit_code == 0 and report.skips == [] and len(events(folder, "set_aside")) == 1
    assert "cpu #0 is set aside: 3 rounds in a row failed there and were sealed elsewhere" in str(report)
    undisturbed(report, **settings)


@pytest.mark.slow
def test_three_objects_that_fail_before_any_success_end_the_run_with_that_error(run, folder):
    with pytest.raises(RunError, match=r"(?s)bowl, mug, storage_bin failed: it is the configuration.*fault on order"):
        run(stub=Stub(bad_slots={0: "raise"}), object_code_list=THREE)
    assert len(events(folder, "fail")) == 3 and events(folder, "skip") == []
    assert run(object_code_list=THREE).exit_code == 0


@pytest.mark.slow
def test_a_single_object_ends_the_run_when_a_round_is_used_up_and_keeps_the_round(run, folder, undisturbed):
    with pytest.raises(RunError, match="nothing has succeeded"):
        run(stub=Stub(bad_slots={0: "raise"}))
    assert len(events(folder, "fail")) == 3 and events(folder, "skip") == []
    undisturbed(run())


@pytest.mark.slow
def test_one_bad_object_first_in_line_does_not_end_the_run(run):
    report = run({("bowl", r): ["raise"] * 9 for r in range(2)}, "max_rounds=2", object_code_list=THREE)
    assert report.exit_code == 3 and report.skips == [("bowl", 0), ("bowl", 1)]


# ---- the disk


@pytest.mark.slow
@pytest.mark.parametrize("fault", ["full", "full-early"])
def test_a_full_disk_pauses_the_run_and_counts_as_no_attempt(run, folder, undisturbed, fault):
    report = run({(BIN, 0): [fault]}, "max_retries=0")
    assert report.exit_code == 0 and report.skips == [] and events(folder, "fail") == []
    assert len(events(folder, "no_room")) == 1 and temporary(folder) == []
    kinds = [event["event"] for event in events(folder)]
    assert kinds.index("no_room") < kinds.index("paused") < kinds.index("continued") < kinds.index("merged")
    undisturbed(report)


@pytest.mark.slow
def test_a_full_disk_of_something_else_is_a_failed_attempt(run, folder, undisturbed, monkeypatch, tmp_path):
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    report = run({(BIN, 0): ["full-elsewhere"]}, "max_retries=1")
    (failure,) = events(folder, "fail")
    assert report.exit_code == 0 and not events(folder, "paused") and not events(folder, "no_room")
    own = f"the temporary folder, {tmp_path}/temporary/bimangrasp_{os.getpid()}_"
    assert own in failure["traceback"] and "WARP_CACHE_PATH" in failure["traceback"]
    assert not list((tmp_path / "temporary").iterdir()), "what workers leave there goes with the call"
    undisturbed(report)


@pytest.mark.slow
def test_too_little_room_starts_nothing_and_goes_on_when_there_is_some(run, folder, undisturbed, monkeypatch, capsys):
    real, asked = RunFolder.free_bytes, []

    def free_bytes(self):
        asked.append(1)
        return 1000 if len(asked) < 3 else real(self)

    monkeypatch.setattr(RunFolder, "free_bytes", free_bytes)
    monkeypatch.setattr(disk_space, "LOOK_EVERY_S", 0.0)
    report = run()
    kinds = [event["event"] for event in events(folder)]
    assert kinds.index("paused") < kinds.index("continued") < kinds.index("ready")
    assert f"paused until the disk of {folder.root} has room: 0.0 MB free" in capsys.readouterr().out
    monkeypatch.undo()
    undisturbed(report)


@pytest.mark.slow
def test_a_disk_that_stays_full_ends_the_run_which_goes_on_later(run, folder, undisturbed, monkeypatch):
    monkeypatch.setattr(RunFolder, "free_bytes", lambda self: 0)
    with pytest.raises(RunError, match=r"is full.*disk_wait_s=0\): make room, then the same command goes on"):
        run(None, "disk_wait_s=0")
    assert events(folder, "end")[-1]["exit_code"] == 1 and events(folder, "ready") == []
    monkeypatch.undo()
    undisturbed(run())


@pytest.mark.slow
def test_a_merge_that_finds_the_disk_full_is_done_again(run, folder, undisturbed, monkeypatch):
    real, tried = merge_thread.merge, []

    def merge(*parts):
        tried.append(1)
        if len(tried) == 1:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(*parts)

    monkeypatch.setattr(merge_thread, "merge", merge)
    report = run()
    assert report.exit_code == 0 and len(tried) == 2 and len(events(folder, "paused")) == 1
    undisturbed(report)


# ---- signals


def when(has_come, act):
    """Does something from a thread as soon as its moment has come."""

    def wait():
        wait_for(has_come)
        act()

    thread = threading.Thread(target=wait)
    thread.start()
    return thread


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2])
def test_preemption_cuts_off_what_the_grace_does_not_last_for(run, folder, undisturbed, tmp_path, number):
    mark = tmp_path / f"{BIN}-1-0"
    thread = when(mark.exists, lambda: os.kill(os.getpid(), number))
    start = time.monotonic()
    report = run({(BIN, 1): ["slow:300"]}, "grace_s=0.2")
    thread.join()
    assert report.exit_code == 143 and time.monotonic() - start < 60 and f"{number.name}: 0 s" in str(report)
    assert events(folder, "end")[-1]["exit_code"] == 143
    undisturbed(run())


# ---- the optimizer itself


@dataclass(frozen=True)
class Faulty(Synthesizer):
    """The optimizer with the stub's faults before each round."""

    stub: Stub = field(default_factory=Stub)

    def load(self, device, threads):
        bench, stub = super().load(device, threads), StubBench(self.stub)
        make = bench.make

        def suffer_and_make(task, on_step):
            on_step(0)
            stub.suffer(stub.fault(task.code, task.round_id, task.attempt), task.tile)
            return make(task, on_step)

        bench.make = suffer_and_make
        return bench


@pytest.mark.slow
def test_the_optimizer_gives_the_same_bytes_whatever_happens(small_config, folder, tmp_path):
    plan = {(BIN, r): [fault] for r, fault in enumerate(("raise", "cuda", "segv", "hang", "full", "kill-sealed"))}
    maker = partial(Faulty, stub=Stub(faults=plan, marks=str(tmp_path)))
    settings = {"target_count_per_object": 6, "round_batch_size": 1, "num_iterations": 2}
    report = scale.run(small_config("heartbeat_timeout_s=8", **settings), maker=maker)
    calm = scale.run(small_config(exp_name="calm", **settings))
    assert report.exit_code == 0 and report.paths[0].read_bytes() == calm.paths[0].read_bytes()
    assert [event["exitcode"] for event in events(folder, "died")] == [86, -11, -6, -9]
    assert [event["round"] for event in events(folder, "fail")] == [0, 1, 2, 3]
    assert [event["round"] for event in events(folder, "no_room")] == [4]


# ---- the decisions themselves


def test_errors_are_told_apart():
    import torch

    assert is_out_of_memory(torch.OutOfMemoryError("x")) and is_out_of_memory(MemoryError())
    for text in (
        "CUDA out of memory. Tried to allocate 2 GiB",
        "Failed to allocate 151519232 bytes on device 'cuda:0'",  # Warp's allocators
        "Warp CUDA error 2: out of memory (in function wp_cuda_launch_kernel, warp.cu:4043)",
        "CUDA driver error: out of memory",
        "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
        "cusolver error: CUSOLVER_STATUS_ALLOC_FAILED, when calling `cusolverDnCreate(handle)`",
    ):
        assert is_out_of_memory(RuntimeError(text)) and not is_broken_device(RuntimeError(text)), text
    assert not is_out_of_memory(RuntimeError("shape mismatch")) and not is_out_of_memory(OSError(28, "disk"))
    for text in ("CUDA error: an illegal memory access", "cuBLAS error: X", "device-side assert triggered"):
        assert is_broken_device(RuntimeError(text)) and not is_out_of_memory(RuntimeError(text)), text
    assert is_broken_device(torch.AcceleratorError("x")) and not is_broken_device(torch.OutOfMemoryError("cuda error"))
    assert not is_broken_device(RuntimeError("shape mismatch")) and not is_broken_device(ValueError("CUDA error"))
    try:
        try:
            raise RuntimeError("CUDA error: x")
        except RuntimeError as error:
            raise ValueError("wrapped") from error
    except ValueError as error:
        assert is_broken_device(error)


def test_a_round_keeps_away_from_where_it_failed_if_it_can():
    retries, key = RetryPolicy(max_retries=2, max_kills=3), ("mug", 0)
    assert retries.failed(key, 0) == 1
    assert retries.barred(key, [0, 1]) == {0} and retries.barred(key, [0]) == set()
    assert retries.failed(key, 1) == 2
    assert retries.barred(key, [0, 1]) == set() and retries.barred(key, [0, 1, 2]) == {0, 1}
    assert not retries.is_used_up(key)
    assert retries.failed(key, 1) == 3 and retries.is_used_up(key) and retries.failed_on(key) == [0, 1, 1]


def test_deaths_from_outside_use_up_a_round_by_their_own_count():
    retries, key = RetryPolicy(max_retries=0, max_kills=2), ("mug", 0)
    assert retries.killed(key) == 1 and not retries.is_deadly(key)
    assert retries.killed(key) == 2 and retries.is_deadly(key) and not retries.is_used_up(key)
    never = RetryPolicy(0, 0)
    assert never.killed(key) == 1 and not never.is_deadly(key)


def test_a_slot_is_to_blame_only_for_what_others_can_do():
    slots = Slots({0, 1, 2})
    assert [slots.succeeded(1, [0]), slots.succeeded(2, [0, 1])] == [[], []]
    assert slots.succeeded(2, [0, 0]) == [0] and slots.used == [1, 2]
    assert slots.succeeded(1, []) == [] and slots.succeeded(2, [1]) == []  # a success of its own ends the row
    assert slots.succeeded(2, [1]) == [] and slots.succeeded(2, [1]) == [1] and slots.used == [2]
    alone = Slots({0})
    assert [alone.succeeded(0, [0, 0]) for _ in range(5)] == [[]] * 5


def test_the_configuration_is_suspected_when_nothing_succeeds_whatever_the_object():
    many = ConfigErrorDetector(max_retries=2, objects=5)
    assert [many.failed_at(code, 0, [0]) for code in "aaaab"] == [False] * 5 and many.failed_at("c", 0, [0])
    many.has_success = True
    assert not many.failed_at("d", 0, [0])
    alone = ConfigErrorDetector(max_retries=4, objects=1)
    assert [alone.failed_at("a", 0, [0]) for _ in range(5)] == [False] * 4 + [True]  # as often as a round may fail
    two = ConfigErrorDetector(max_retries=0, objects=2)
    assert [two.failed_at("a", 0, [0]) for _ in range(9)] == [False] * 9 and two.failed_at("b", 0, [0])
    later = ConfigErrorDetector(max_retries=2, objects=1, goes_on=True)
    assert [later.failed_at("a", 0, [0]) for _ in range(9)] == [False] * 8 + [True]  # three rounds are skipped first
    device = ConfigErrorDetector(max_retries=0, objects=1)
    assert [device.failed_at("a", 0, [0, 1]) for _ in range(9)] == [False] * 9  # the other one is still at work
    assert device.failed_at("a", 1, [0, 1])


def test_rounds_go_to_the_first_slots_that_may_have_them():
    a, b, c = (RoundRequest(("mug", r)) for r in range(3))
    barred = RoundRequest(("mug", 3), frozenset({0}))
    assert dispatch([a, b, c], FreeSlots([0, 1], [], [])) == ([(0, a), (1, b)], [])
    assert dispatch([a, b, c], FreeSlots([0], [1], [2])) == ([(0, a)], [2])
    assert dispatch([barred, a], FreeSlots([0], [], [1])) == ([(0, a)], [1])
    assert dispatch([barred], FreeSlots([0], [], [])) == ([], [])  # it waits for the busy one
    assert dispatch([a], FreeSlots([], [], [])) == ([], [])
