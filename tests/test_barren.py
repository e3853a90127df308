"""Objects that give nothing end, skipped rounds are tried again on demand: both by sealed rows and journal alone."""

import hashlib
import json

import h5py
import pytest
import quick_conf
from run_tools import events
from stub_rounds import Stub
from threaded_workers import use_threads

import scale
from scale.store.run_folder import RunFolder

BATCH = 8


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Runs with rounds that give nothing or fail: run("max_barren_rounds=2", nan=[1, 2], bad=[3])."""

    def call(*overrides, name="x", nan=(), bad=(), quota=20, gpus="[cpu]"):
        if gpus == "[cpu]":  # of several workers each needs a process: HDF5's images in memory have one name
            use_threads(monkeypatch)
        marks = tmp_path / f"marks-{name}"
        marks.mkdir(exist_ok=True)
        faults = {("bowl", r): ["nan"] * 9 for r in nan} | {("bowl", r): ["raise"] * 9 for r in bad}
        names = [f"exp_name={name}", "object_code_list=[bowl,mug]", f"gpus={gpus}"]
        names += [f"target_count_per_object={quota}", f"round_batch_size={BATCH}", "max_retries=0"]
        cfg = quick_conf.load(*names, *overrides, output_root=tmp_path)
        return scale.run(cfg, maker=Stub(faults=faults, marks=str(marks)))

    return call


@pytest.fixture
def folder(tmp_path):
    return RunFolder(tmp_path / "x")


def digest(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.slow
@pytest.mark.parametrize("gpus", ["[cpu]", "[cpu,cpu,cpu]"])
def test_an_object_ends_at_the_last_of_so_many_barren_rounds_and_the_others_go_on(run, folder, gpus):
    report = run("max_barren_rounds=3", nan=[1, 2, 4, 5, 6], gpus=gpus, quota=40)
    bowl, mug = report.objects
    assert report.exit_code == 3 and (bowl.end_reason, mug.end_reason, mug.collected) == ("barren", "quota", 40)
    with h5py.File(bowl.path) as file:
        assert file["rounds/round"][...].tolist() == list(range(7))
        assert file["rounds/accepted"][...].astype(bool).tolist() == [True, False, False, True, False, False, False]
        assert not file.attrs["complete"] and file.attrs["end_reason"] == b"barren"
        given = int(file["rounds/accepted"][...].sum())
        assert json.loads(file.attrs["rejected"]) == {"not_finite": 7 * BATCH - given} == bowl.rejected
        assert len(file["row"]) == given == bowl.collected
    assert json.loads(folder.manifest.read_bytes())["objects"]["bowl"]["rejected"] == bowl.rejected
    assert "barren, max_barren_rounds rounds in a row gave nothing: loosen" in str(report)
    assert "(rows rejected by reason: " in str(report)


@pytest.mark.slow
def test_a_skipped_round_counts_as_barren(run):
    report = run("max_barren_rounds=3", nan=[0, 2], bad=[1])
    with h5py.File(report.objects[0].path) as file:
        assert file["rounds/state"][...].tolist() == [0, 1, 0] and len(file["row"]) == 0
    assert report.objects[0].end_reason == "barren" and report.skips == [("bowl", 1)]


@pytest.mark.slow
@pytest.mark.parametrize("stride", [0, 1, 2])
def test_the_end_is_the_same_whatever_the_way_and_kept_on_resume(run, folder, stride):
    nan = [1, 2, 4, 5, 6]
    whole = digest(run("max_barren_rounds=3", nan=nan, quota=40, name="whole").objects[0].path)
    for most in (2, 6, 1000, 1000):
        report = run("max_barren_rounds=3", f"max_rounds={most}", f"merge_stride={stride}", nan=nan, quota=40)
    assert digest(report.objects[0].path) == whole and report.objects[0].end_reason == "barren"
    assert len([e for e in events(folder, "done") if e["code"] == "bowl"]) == 7


@pytest.mark.slow
def test_a_larger_limit_or_none_goes_on_and_a_smaller_one_takes_nothing_back(run, folder):
    nan = [1, 2, 3]
    endless = digest(run("max_barren_rounds=0", nan=nan, name="endless").objects[0].path)
    first = run("max_barren_rounds=3", nan=nan).objects[0]
    assert (first.end_reason, first.rounds_done) == ("barren", 4)
    smaller = run("max_barren_rounds=2", nan=nan).objects[0]
    assert (smaller.end_reason, smaller.rounds_done) == ("barren", 4)
    assert digest(smaller.path) == first.sha256
    larger = run("max_barren_rounds=4", nan=nan).objects[0]
    assert (larger.end_reason, digest(larger.path)) == ("quota", endless)
    again = run("max_barren_rounds=2", nan=nan).objects[0]
    assert (again.end_reason, digest(again.path)) == ("quota", endless)


@pytest.mark.slow
def test_the_reasons_of_a_filter_are_counted_for_each_threshold(run):
    limits = ("filter=energy", "filter.force_closure=0.5", "filter.distance=0.2", "filter.penetration=0.1")
    report = run(*limits, "max_barren_rounds=4", "keep_intermediate=true")
    bowl = report.objects[0]
    assert bowl.end_reason == "barren" and bowl.collected < 3
    columns = [path for path in RunFolder(report.run_dir).shard_files() if path.name.startswith("bowl.")]
    total = dict.fromkeys(("not_finite", "energy/force_closure", "energy/distance", "energy/penetration"), 0)
    for path in sorted(columns)[: bowl.rounds_done]:
        with h5py.File(path) as file:
            finite = file["energy/total"][...] == file["energy/total"][...]
            total["not_finite"] += int((~finite).sum())
            for term, limit in (("force_closure", 0.5), ("distance", 0.2), ("penetration", 0.1)):
                total[f"energy/{term}"] += int((finite & (file[f"energy/{term}"][...] >= limit)).sum())
    assert bowl.rejected == total and total["energy/penetration"] > total["energy/force_closure"] > 0


@pytest.mark.slow
def test_skipped_rounds_are_tried_again_on_demand_as_long_as_no_file_has_passed_them(run, folder):
    whole = run(name="whole")
    assert run("max_rounds=2", bad=[1]).skips == [("bowl", 1)]
    folder.final("bowl").unlink()  # as if the run had ended before the merge
    again = run("retry_skipped=true")
    assert again.skips == [] and digest(again.objects[0].path) == whole.objects[0].sha256
    assert "bowl: skipped rounds are tried again: 1" in str(again)
    assert run().skips == []  # its shard beats the journal's skip


@pytest.mark.slow
def test_a_skipped_round_that_the_final_file_has_passed_stays_skipped_and_that_is_said(run, folder):
    first = run(bad=[1])
    report = run("retry_skipped=true")
    assert report.skips == [("bowl", 1)] and digest(report.objects[0].path) == first.objects[0].sha256
    assert "its final file has passed stay skipped: 1; move that file away" in str(report)
    assert len([e for e in events(folder, "done") if (e["code"], e["round"]) == ("bowl", 1)]) == 0


@pytest.mark.slow
def test_without_retry_skipped_a_skip_of_the_journal_stands(run, folder):
    first = run("max_rounds=2", bad=[1])
    folder.final("bowl").unlink()
    report = run("max_rounds=2")
    assert report.skips == [("bowl", 1)] and digest(report.objects[0].path) == first.objects[0].sha256


@pytest.mark.slow
def test_a_cut_round_that_fails_when_it_is_wanted_again_extends_nothing(run, folder):
    first = run(quota=3)
    for path in list(folder.shard_files()):
        path.unlink()
    report = run(bad=[0])
    assert report.objects[0].end_reason == "changed" and digest(report.objects[0].path) == first.objects[0].sha256
    assert "round 0, whose rows its file has, failed when it was computed again" in str(report)
    assert run().exit_code == 0
