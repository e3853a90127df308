"""Quotas by verdicts of a device: a fixed sample is judged again by MuJoCo, and the run says how often it agrees."""

import json
from concurrent.futures import ThreadPoolExecutor

import h5py
import numpy as np
import pytest
import quick_conf
import trimesh
from run_tools import events, hashes
from stub_judge import StubJudge
from stub_rounds import Stub
from threaded_workers import use_threads

import scale
from bimangrasp.errors import InputError
from bimangrasp.validation import config as validation_config
from scale.controller import second_judgement
from scale.controller.run_report import SecondJudgement
from scale.store.run_folder import RunFolder

QUOTA = 37


@pytest.fixture
def call_in_processes(tmp_path, monkeypatch):
    """Runs one convex object under validation=bench_warp with stand-ins; returns the report."""
    monkeypatch.setenv("BIMANGRASP_CACHE", str(tmp_path / "cache"))
    trimesh.creation.box((1.0, 0.6, 0.4)).export(tmp_path / "brick.obj")

    def run(*overrides, judge=None, quota=QUOTA):
        names = [f"object_root={tmp_path}", "object_code_list=[brick]", "gpus=[cpu]", "round_batch_size=8"]
        names += ["exp_name=x", "filter=physics", "validation=bench_warp", f"target_count_per_object={quota}"]
        judge = judge or StubJudge(marks=str(tmp_path))
        return scale.run(quick_conf.load(*names, *overrides, output_root=tmp_path), maker=Stub(), judge=judge)

    return run


@pytest.fixture
def call(call_in_processes, monkeypatch):
    """The same with threads for processes."""
    use_threads(monkeypatch)
    threads = lambda count, *_, **__: ThreadPoolExecutor(count)  # noqa: E731 - what belongs to processes is left out
    monkeypatch.setattr(second_judgement, "ProcessPoolExecutor", threads)
    return call_in_processes


def manifest(tmp_path):
    return json.loads(RunFolder(tmp_path / "x").manifest.read_bytes())


@pytest.mark.slow
def test_all_of_a_small_run_is_judged_again_and_the_agreement_is_said(call_in_processes, tmp_path):
    report = call_in_processes()
    assert report.exit_code == 0
    second = manifest(tmp_path)["second_judgement"]
    assert (second["protocol"], second["accepted"], second["sample"]) == ("bench_warp", QUOTA, QUOTA)
    assert (second["agreeing"], second["agreement"]) == (QUOTA, 1.0)
    assert f"and {QUOTA} hold there too (100.0%)" in str(report) and "need not repeat" in str(report)
    assert (
        second["text"] in scale.write_report(quick_conf.load(f"path={tmp_path / 'x'}", "mode=report")).outcome.sentences
    )


@pytest.mark.slow
def test_too_little_agreement_ends_the_run_with_3(call, tmp_path):
    report = call(judge=StubJudge(marks=str(tmp_path), confirmed=0.8))
    second = manifest(tmp_path)["second_judgement"]
    assert report.exit_code == 3 and second["agreement"] < 0.95
    assert [one.end_reason for one in report.objects] == ["quota"]  # what was counted stays counted
    assert "do not rely on this run" in str(report)
    page = scale.write_report(quick_conf.load(f"path={tmp_path / 'x'}", "mode=report"))
    assert page.outcome.state == "unconfirmed" and second["text"] in page.outcome.sentences


@pytest.mark.slow
def test_a_sample_is_judged_once_and_another_one_anew(call, tmp_path):
    call()
    before = len(list(tmp_path.glob("second-*")))
    again = call()
    assert len(list(tmp_path.glob("second-*"))) == before and again.exit_code == 0
    assert f"and {QUOTA} hold there too" in str(again)
    call(quota=QUOTA + 8)
    assert len(list(tmp_path.glob("second-*"))) > before
    assert [event["sample"] for event in events(tmp_path / "x", "judged_again")] == [QUOTA, QUOTA + 8]


@pytest.mark.slow
def test_a_finished_run_makes_no_verdict_anew(call, tmp_path):
    call()
    files = hashes(tmp_path / "x")
    call(judge=StubJudge(marks=str(tmp_path), share=0.0))  # would reject everything that it is asked
    assert hashes(tmp_path / "x") == files


@pytest.mark.slow
def test_a_larger_quota_takes_the_sealed_verdict_of_the_round_that_was_cut(call, tmp_path):
    call()
    with h5py.File(RunFolder(tmp_path / "x").final("brick")) as file:
        assert file["rounds/kept"][-1] < file["rounds/accepted"][-1], "no round is cut"
    judge = StubJudge(marks=str(tmp_path), share=0.1)  # other verdicts, if it is asked for old rounds
    assert call(judge=judge, quota=QUOTA + 8).exit_code == 0
    path = RunFolder(tmp_path / "x").final("brick")
    with h5py.File(path) as file:
        grown = list(zip(file["round"][:].tolist(), file["row"][:].tolist(), strict=True))
        displacement = file["verdict/displacement"][:QUOTA]
    assert len(grown) == QUOTA + 8
    path.unlink()
    call(judge=StubJudge(marks=str(tmp_path)), quota=QUOTA)
    with h5py.File(path) as file:
        assert list(zip(file["round"][:].tolist(), file["row"][:].tolist(), strict=True)) == grown[:QUOTA]
        assert np.array_equal(file["verdict/displacement"][:], displacement)


def test_verdicts_of_a_device_and_of_mujoco_are_not_mixed(call):
    call(quota=8)
    with pytest.raises(InputError, match=r"validation\.name: 'bench_warp' in the folder, 'bench' in this call"):
        call("validation=bench", quota=16)


def test_files_name_the_protocol(call, tmp_path):
    call(quota=8)
    with h5py.File(RunFolder(tmp_path / "x").final("brick")) as file:
        attributes = {name: str(value) for name, value in file.attrs.items()}
    assert any("bench_warp" in value and "mujoco_warp" in value for value in attributes.values())


def test_a_device_without_its_simulator_is_refused_with_the_command(call, monkeypatch):
    monkeypatch.setattr(validation_config, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"validation=bench_warp simulates in MuJoCo Warp.*pip install -e .*\[gpu\]"):
        call()


def test_slip_that_no_device_undoes_is_refused():
    with pytest.raises(InputError, match="simulator.engine=mujoco_warp and physics.noslip=all"):
        quick_conf.load("validation=bench_warp", "validation.physics.noslip=all")


def final(path, seeds, rows):
    with h5py.File(path, "w") as file:
        file["seed"], file["row"] = np.asarray(seeds, np.int64), np.asarray(rows, np.int64)
    return path


def spread(folder, names, rows):
    return {name: final(folder / f"{name}.h5", 100_000 * at + rows // 64, rows % 64) for at, name in enumerate(names)}


def test_the_sample_has_two_percent_or_two_hundred_or_all(tmp_path):
    for count, wanted in ((0, 0), (120, 120), (200, 200), (5000, 200), (30_000, 600)):
        path = final(tmp_path / f"{count}.h5", np.arange(count) // 64, np.arange(count) % 64)
        accepted, sample = second_judgement.sample_of({"a": path})
        assert (accepted, sample.size) == (count, wanted)


def test_the_sample_is_spread_over_objects_rounds_and_rows(tmp_path):
    rows = np.arange(10_000)
    files = {
        name: final(tmp_path / f"{name}.h5", 100_000 * at + rows // 64, rows % 64) for at, name in enumerate("abcd")
    }
    _, sample = second_judgement.sample_of(files)
    shares = np.array([len(chosen) for chosen in sample.rows.values()]) / sample.size
    assert sample.size == 800 and np.abs(shares - 0.25).max() < 0.06
    chosen = np.concatenate(list(sample.rows.values()))
    assert 0.4 < (chosen % 64 < 32).mean() < 0.6 and 0.4 < (chosen < 5000).mean() < 0.6


def test_the_sample_does_not_depend_on_the_order_of_objects_and_changes_with_the_grasps(tmp_path):
    rows = np.arange(600)
    files = spread(tmp_path, "ab", rows)
    sample = second_judgement.sample_of(files)[1]
    turned = second_judgement.sample_of(dict(reversed(files.items())))[1]
    assert turned.sha256 == sample.sha256 and (turned.rows["a"] == sample.rows["a"]).all()
    rows = np.delete(rows, sample.rows["a"][0])
    fewer = final(tmp_path / "fewer.h5", rows // 64, rows % 64)
    assert second_judgement.sample_of({**files, "a": fewer})[1].sha256 != sample.sha256


@pytest.mark.parametrize("agreeing, is_short", [(190, False), (189, True)])
def test_the_bound_is_95_percent(agreeing, is_short):
    assert SecondJudgement("bench_warp", 1000, 200, agreeing).is_short is is_short
    assert SecondJudgement("bench_warp", 0, 0, 0).is_short is False
