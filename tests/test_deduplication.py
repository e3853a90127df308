"""dedup: the quota is of distinct grasps, whatever the order in which rounds come in."""

import hashlib
import json

import h5py
import numpy as np
import pytest
import quick_conf
from stub_crowd import CELLS, NAN_SHARE, Crowd, crowded
from stub_judge import StubJudge, verdict_columns
from stub_rounds import JOINTS
from threaded_workers import use_threads

import scale
from bimangrasp.errors import InputError
from bimangrasp.files import formats
from bimangrasp.validation.verdict import Reason
from scale.store.run_folder import RunFolder

QUOTA, BATCH, SEED = 14, 8, 5
THRESHOLDS = ("dedup.translation=0.1", "dedup.rotation=0.1", "dedup.joints=0.1")


@pytest.fixture
def call(tmp_path, monkeypatch):
    monkeypatch.setenv("BIMANGRASP_CACHE", str(tmp_path / "cache"))
    use_threads(monkeypatch)

    def run(*overrides, name="x", quota=QUOTA, gpus="[cpu]", stub=None, judge=None):
        names = [f"exp_name={name}", "object_code_list=[box]", f"seed_base={SEED}", f"gpus={gpus}", *THRESHOLDS]
        names += [f"target_count_per_object={quota}", f"round_batch_size={BATCH}", "max_rounds=40", *overrides]
        report = scale.run(quick_conf.load(*names, output_root=tmp_path), stub or Crowd(), judge or StubJudge())
        path = RunFolder(report.run_dir).final("box")
        return report, hashlib.sha256(path.read_bytes()).hexdigest()

    return run


def distinct(quota, physics=False, rounds=40):
    """(round, row) of the rows that count, by comparing all pairs; and how many finite ones do not."""
    kept, poses, alike = [], [], []
    for round_id in range(rounds):
        columns = crowded(SEED + round_id, BATCH, NAN_SHARE)
        good = np.isfinite(columns["energy/total"])
        if physics:
            good &= verdict_columns(SEED + round_id, BATCH, JOINTS, 0.6)["verdict/reason"] == Reason.HELD
        for row in np.flatnonzero(good):
            pose = columns["hand/translation"][row].astype(float), columns["hand/joints"][row].astype(float)
            twins = (
                np.linalg.norm(pose[0] - other[0], axis=1).max() <= 0.1 and np.abs(pose[1] - other[1]).max() <= 0.1
                for other in poses
            )
            if any(twins):
                alike.append((round_id, int(row)))
            else:
                kept.append((round_id, int(row)))
                poses.append(pose)
    return kept[:quota], [one for one in alike if one[0] <= kept[:quota][-1][0]]


def rows_of(report):
    with h5py.File(report.paths[0]) as file:
        return list(zip(file["round"][:].tolist(), file["row"][:].tolist(), strict=True))


@pytest.mark.slow
@pytest.mark.parametrize("physics", [False, True])
def test_the_quota_is_of_distinct_grasps(call, physics):
    report, _ = call(*(["filter=physics"] if physics else []), quota=QUOTA - 2 * physics)
    wanted, alike = distinct(QUOTA - 2 * physics, physics)
    assert report.exit_code == 0 and rows_of(report) == wanted and alike
    assert report.objects[0].rejected["duplicate"] == len(alike)
    proof = formats.verify_final(str(report.paths[0]))
    assert proof.ending.complete and proof.ending.acceptance_key["dedup.translation"] == 0.1
    assert report.objects[0].collected == len(wanted)


@pytest.mark.slow
def test_off_by_default_every_grasp_counts(call):
    off = [name.replace("0.1", "null") for name in THRESHOLDS]
    report, _ = call(*off)
    assert report.objects[0].rounds_done < distinct(QUOTA)[0][-1][0]
    assert "duplicate" not in report.objects[0].rejected


@pytest.mark.slow
def test_workers_order_and_growth_change_no_byte(call):
    _, wanted = call(name="alone")
    assert call("merge_stride=1", name="stride")[1] == wanted
    assert call(name="two", gpus="[cpu,cpu]")[1] == wanted


@pytest.mark.slow
def test_rounds_that_come_in_late_hold_the_later_ones_back(call, tmp_path):
    _, wanted = call(name="alone")
    stub = Crowd(faults={("box", 0): ["slow:0.5"], ("box", 2): ["slow:0.3"]}, marks=str(tmp_path))
    report, found = call(name="late", gpus="[cpu,cpu]", stub=stub)
    assert found == wanted and report.exit_code == 0
    lines = map(json.loads, (report.run_dir / "journal.jsonl").read_bytes().splitlines())
    told = [(event["event"], event["round"]) for event in lines if event["event"] in ("sealed", "done")]
    done = [round_id for kind, round_id in told if kind == "done"]
    assert done == sorted(done) and [r for kind, r in told if kind == "sealed"] != done


@pytest.mark.slow
def test_a_larger_quota_and_a_resume_change_no_byte(call):
    _, wanted = call(name="whole")
    for quota in (3, 7, QUOTA):
        report, found = call(quota=quota)
        assert report.objects[0].collected == quota
    assert found == wanted


@pytest.mark.slow
def test_the_cut_rounds_lost_shard_is_computed_again(call, tmp_path):
    _, wanted = call(name="whole")
    call(quota=5)
    for path in list(RunFolder(tmp_path / "x").shard_files()):
        path.unlink()
    assert call()[1] == wanted


@pytest.mark.slow
def test_sealed_rounds_without_a_journal_are_decided_again(call, tmp_path):
    _, wanted = call("keep_intermediate=true")
    folder = RunFolder(tmp_path / "x")
    for path in (folder.journal, folder.manifest, *folder.final_files()):
        path.unlink()
    assert call("keep_intermediate=true")[1] == wanted


@pytest.mark.slow
def test_a_damaged_shard_under_decision_is_computed_again(call, tmp_path, monkeypatch):
    _, wanted = call(name="whole")
    from scale.merge import merge_thread

    real, seen = merge_thread.duplicates, []

    def damage(job):
        if job.round_id == 1 and not seen:
            seen.append(job.record.shard)
            job.record.shard.write_bytes(job.record.shard.read_bytes()[:-1] + b"x")
        return real(job)

    monkeypatch.setattr(merge_thread, "duplicates", damage)
    report, found = call()
    assert found == wanted and seen and "was damaged; round 1 of box is computed again" in str(report)


@pytest.mark.slow
def test_other_thresholds_are_another_acceptance_key(call):
    call(quota=5)
    with pytest.raises(InputError, match=r"dedup\.joints: 0\.1 in the folder, 0\.2 in this call"):
        call("dedup.joints=0.2")


def test_two_of_three_thresholds_are_refused(call):
    with pytest.raises(InputError, match="wanted numbers for translation"):
        call("dedup.joints=null")


def test_generate_has_no_use_for_it(call):
    with pytest.raises(InputError, match="dedup needs mode=scale"):
        call("mode=generate")


@pytest.mark.slow
def test_too_few_distinct_grasps_end_as_barren(call):
    report, _ = call("max_barren_rounds=5", quota=1000)
    assert report.exit_code == 3 and report.objects[0].end_reason == "barren"
    assert report.objects[0].collected <= 2 * CELLS**2 and "duplicate" in str(report)
