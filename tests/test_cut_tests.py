"""Large rounds are tested in jobs of some rows: the verdict does not tell how it was cut, and a death costs one job."""

import json
import os
import signal
import threading
import time

import numpy as np
import pytest
import quick_conf
from run_tools import events, flip, hashes
from stub_judge import StubJudge
from stub_rounds import Stub

import scale
from bimangrasp.files import formats
from bimangrasp.validation.verdict import Reason
from scale.controller import validation_role
from scale.controller.validation_role import RoundTest, Rows
from scale.engine.interfaces import ValidationJob
from scale.merge.round_records import SealedRound
from scale.store import verdict_files
from scale.store.run_folder import RunFolder

QUOTA, BATCH = 11, 10


@pytest.fixture
def call(tmp_path):
    """Runs a brick with rounds of ten, of which so many rows are tested at once; returns the report and the folder."""

    def run(at_once, name, *overrides, judge=None, stub=None, quota=QUOTA):
        names = [f"target_count_per_object={quota}", f"round_batch_size={BATCH}", f"exp_name={name}", "gpus=[cpu]"]
        names += ["object_code_list=[storage_bin]", "filter=physics", "keep_intermediate=true", "validators=3"]
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(validation_role, "ROWS_AT_ONCE", at_once)
            config = quick_conf.load(*names, *overrides, output_root=tmp_path)
            report = scale.run(config, maker=stub or Stub(nan_share=0.1), judge=judge or StubJudge())
        return report, RunFolder(tmp_path / name)

    return run


def verdicts(folder):
    """Round -> the hash of its verdict, which is that of its bytes."""
    return {verdict.round_id: verdict.sha256 for verdict in map(verdict_files.verify, folder.verdict_files())}


@pytest.mark.parametrize("rows, at_once", [(1, 64), (64, 64), (65, 64), (10, 3), (3, 1)])
def test_every_row_is_in_one_job(rows, at_once):
    test = RoundTest.of(SealedRound(0, rows, rows, {}, "ab", None), at_once)
    assert [row for part in test.waiting for row in range(part.first, part.first + part.count)] == list(range(rows))
    assert max(part.count for part in test.waiting) <= at_once
    first = test.waiting.pop(0)
    test.take_back(first)
    assert test.waiting[0] == first == Rows(0, min(rows, at_once))


@pytest.mark.slow
def test_a_verdict_has_the_same_bytes_however_it_is_cut(call):
    _, whole = call(BATCH, "whole")
    for at_once in (1, 3, 7):
        report, cut = call(at_once, f"cut_{at_once}")
        assert report.exit_code == 0 and hashes(cut) == hashes(whole) and verdicts(cut) == verdicts(whole)
        shared = [len(events(cut, kind)) for kind in ("died", "fail", "skip")]
        assert shared == [0, 0, 0]


@pytest.mark.slow
def test_the_simulator_finds_the_same_for_a_grasp_whatever_is_tested_with_it(tmp_path):
    from scale.engine.interfaces import ValidationTask
    from scale.engine.synthesizer import Simulator
    from scale.settings.parsing import resolve_objects
    from scale.store import convex_pieces

    made = quick_conf.load("exp_name=made", "object_code_list=[storage_bin]", "round_batch_size=6", "num_iterations=60")
    made.target_count_per_object, made.output_root, made.gpus = 6, str(tmp_path), ["cpu"]
    (path,) = scale.run(made).paths
    names = ["hand/translation", "hand/rotation", "hand/joints", "contact/candidate", "contact/normal", "object_scale"]
    with formats.opened(path.read_bytes(), "final file") as file:
        columns = {name: file[name][...] for name in names}
    folder, config = RunFolder(tmp_path / "run"), quick_conf.load("filter=physics")
    folder.prepare()
    entries = resolve_objects("", ["storage_bin"])
    pieces = convex_pieces.sealed_pieces(folder, entries, config.pieces, print)["storage_bin"].path
    runner = Simulator(config).load("cpu", 1)

    def judged(rows):
        task = ValidationTask({name: column[rows] for name, column in columns.items()}, str(pieces), ())
        return runner.judge(task, lambda row: None)

    whole, parts = judged(slice(0, 6)), [judged(slice(first, first + 4)) for first in (0, 4)]
    for name, column in whole.items():
        assert np.concatenate([part[name] for part in parts]).tobytes() == column.tobytes(), name


@pytest.mark.slow
@pytest.mark.parametrize("fault", ["kill", "segv", "exit", "raise"])
def test_a_death_costs_one_job_and_changes_no_byte(call, tmp_path, fault):
    _, whole = call(BATCH, "whole")
    judge = StubJudge(faults={(0, 5): [fault]}, marks=str(tmp_path))
    report, cut = call(2, "cut", judge=judge)
    assert report.exit_code == 0 and hashes(cut) == hashes(whole) and verdicts(cut) == verdicts(whole)
    told = events(cut, "fail") + events(cut, "died")
    assert told and {event["round"] for event in told} == {0}
    assert {event["row"] for event in events(cut, "fail")} <= {5}


@pytest.mark.slow
def test_a_row_that_ends_validators_is_no_longer_simulated(call, tmp_path):
    faults = {(0, 5): ["segv"] * 2}
    (tmp_path / "a").mkdir(), (tmp_path / "b").mkdir()
    said, whole = call(BATCH, "whole", judge=StubJudge(faults=faults, marks=str(tmp_path / "a")))
    report, cut = call(2, "cut", judge=StubJudge(faults=faults, marks=str(tmp_path / "b")))
    assert report.objects[0].rejected == said.objects[0].rejected
    (of_first,) = [verdict for verdict in map(verdict_files.verify, cut.verdict_files()) if verdict.round_id == 0]
    assert of_first.reason[5] == Reason.SIMULATION_FAILED
    assert hashes(cut) == hashes(whole) and verdicts(cut) == verdicts(whole)


@pytest.mark.slow
def test_a_verdict_that_is_damaged_is_found_again_in_jobs(call):
    _, folder = call(3, "x", quota=QUOTA)
    before, found = hashes(folder), verdicts(folder)
    for path in list(folder.verdict_files()):
        flip(path)
    for path in folder.final_files():
        path.unlink()
    report, _ = call(3, "x", quota=QUOTA)
    assert report.exit_code == 0 and hashes(folder) == before
    assert verdicts(folder) == found


@pytest.mark.slow
def test_a_whole_round_of_a_device_is_one_job(call, monkeypatch):
    seen = []
    sealed = validation_role.ValidationRole.job

    def see(*given):
        job = sealed(*given)
        seen.extend([job] if isinstance(job, ValidationJob) else [])
        return job

    monkeypatch.setattr(validation_role.ValidationRole, "job", see)
    call(4, "cut")
    assert {job.rows for job in seen} == {4, 2} and sorted({job.first for job in seen}) == [0, 4, 8]
    assert all(set(job.deadly) <= set(range(job.first, job.first + job.rows)) for job in seen)
    seen.clear()
    call(BATCH, "whole")
    assert {(job.first, job.rows) for job in seen} == {(0, None)}


@pytest.mark.slow
def test_one_round_is_tested_by_all_validators(call, tmp_path):
    _, folder = call(1, "x", judge=StubJudge(delay=0.2, share=1.0), quota=8, stub=Stub(nan_share=0.0))
    (done,) = events(folder, "done")
    assert done["test_seconds"] > 1.5  # of all validators together
    sealed = events(folder, "sealed")[0]["time"]
    ready = max(event["time"] for event in events(folder, "ready") if "validator" in event)
    assert done["time"] - max(sealed, ready) < 0.8 * done["test_seconds"]
    assert json.loads(folder.manifest.read_bytes())["objects"]["storage_bin"]["collected"] == 8


@pytest.mark.slow
def test_rows_of_a_round_whose_shard_was_damaged_are_tested_again(call, tmp_path, monkeypatch):
    """One job finds the damage while others hold rows of the same shard: none of these may be lost."""
    _, whole = call(BATCH, "whole")
    damaged, job = [], validation_role.ValidationRole.job

    def spoiling(role, process, state, round_id):
        given = job(role, process, state, round_id)
        if isinstance(given, ValidationJob) and given.first == 4 and not damaged:
            damaged.append(role._folder.root / given.shard)
            flip(damaged[0])
        return given

    monkeypatch.setattr(validation_role.ValidationRole, "job", spoiling)
    slow = Stub(nan_share=0.1, delay=0.8)  # so that the others come back before the round is made again
    report, cut = call(2, "cut", judge=StubJudge(delay=0.1), stub=slow)
    assert damaged and report.exit_code == 0 and hashes(cut) == hashes(whole)


@pytest.mark.slow
def test_failures_of_several_jobs_are_no_attempts_at_one(call, tmp_path):
    faults = {(0, -1 - first): ["raise"] for first in (0, 2, 4)}
    report, _ = call(2, "cut", "max_retries=2", judge=StubJudge(faults=faults, marks=str(tmp_path)))
    assert report.exit_code == 0 and report.skips == []


@pytest.mark.slow
def test_a_signal_lets_a_round_that_is_being_tested_finish(call, tmp_path):
    """What was found of its rows is nowhere else."""
    folder = RunFolder(tmp_path / "x")

    def interrupt():
        while not events(folder, "sealed"):
            time.sleep(0.02)
        time.sleep(0.5)
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    thread.start()
    report, _ = call(1, "x", judge=StubJudge(delay=0.3, share=1.0), quota=200, stub=Stub(nan_share=0.0))
    thread.join()
    assert report.exit_code == 130
    assert len(events(folder, "done")) >= 1 and report.objects[0].collected >= BATCH
