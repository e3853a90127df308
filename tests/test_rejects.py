"""keep_failed: the rows before the cut that do not count, with their reasons, whatever workers and merges did."""

import hashlib

import numpy as np
import pytest
import quick_conf
import trimesh
from stub_crowd import Crowd
from stub_judge import StubJudge, verdict_columns
from stub_rounds import JOINTS, Stub, made_columns
from threaded_workers import use_threads

import bimangrasp
import scale
from bimangrasp.errors import InputError
from bimangrasp.files.formats import read_rejects
from bimangrasp.validation.verdict import Reason
from scale.merge import rejected_file
from scale.store import durable_io
from scale.store.run_folder import RunFolder

BATCH, SEED = 8, 5
FILTERS = {
    "none": [],
    "energy": ["filter=energy", "filter.force_closure=4", "filter.distance=5", "filter.penetration=3"],
    "physics": ["filter=physics"],
    "dedup": ["dedup.translation=0.1", "dedup.rotation=0.1", "dedup.joints=0.1"],
}


@pytest.fixture
def call(tmp_path, monkeypatch):
    """Runs in a folder of the test's and returns the hashes of the final file and of the rejected grasps."""
    use_threads(monkeypatch)
    monkeypatch.setenv("BIMANGRASP_CACHE", str(tmp_path / "cache"))
    trimesh.creation.box((1.0, 0.6, 0.4)).export(tmp_path / "brick.obj")

    def run(*overrides, quota=20, name="x", keep=True, exit_code=0):
        names = [f"object_root={tmp_path}", "object_code_list=[brick]", f"seed_base={SEED}", "gpus=[cpu]"]
        names += [f"target_count_per_object={quota}", f"round_batch_size={BATCH}", f"exp_name={name}"]
        config = quick_conf.load(*names, f"keep_failed={str(keep).lower()}", *overrides, output_root=tmp_path)
        report = scale.run(config, maker=Crowd() if "dedup" in str(overrides) else Stub(), judge=StubJudge())
        assert report.exit_code == exit_code
        folder = RunFolder(tmp_path / name)
        return [hashlib.sha256(p.read_bytes()).hexdigest() for p in (*folder.final_files(), *folder.reject_files())]

    return run


def told(tmp_path, name="x"):
    return rejected_file.read(RunFolder(tmp_path / name).rejected("brick"))


def reasons_of(kind, columns):
    """The first reason of each row, from the stand-ins alone; None where it counts but for its likes."""
    verdict = verdict_columns(int(columns["seed"]), BATCH, JOINTS, 0.6)["verdict/reason"]
    limits = {"force_closure": 4, "distance": 5, "penetration": 3} if kind == "energy" else {}
    for row in range(BATCH):
        above = [f"energy/{term}" for term, most in limits.items() if not columns[f"energy/{term}"][row] < most]
        if not np.isfinite(columns["energy/total"][row]):
            yield "not_finite"
        elif above:
            yield above[0]
        elif kind == "physics" and verdict[row] != Reason.HELD:
            yield f"physics/{Reason(verdict[row]).name.lower()}"
        else:
            yield None


def expected(kind, quota):
    """(round, row, reason) of the rows before the cut that do not count."""
    found, count = [], 0
    for round_id in range(100):
        columns = made_columns(SEED + round_id, BATCH) | {"seed": SEED + round_id}
        reasons = list(reasons_of(kind, columns))
        total = count + reasons.count(None)
        for row, why in enumerate(reasons):
            if count == quota < total:
                return found
            count += why is None
            found += [(round_id, row, why)] if why else []
        if count == quota:
            return found
    raise AssertionError("no cut")


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["none", "energy", "physics"])
@pytest.mark.parametrize("quota", [20, 21])
def test_every_row_before_the_cut_that_does_not_count_is_there_with_its_reason(call, tmp_path, kind, quota):
    call(*FILTERS[kind], quota=quota)
    found = told(tmp_path)
    reasons = [found.ending.reject_reasons[n] for n in found.columns["reject/reason"]]
    rows = zip(found.columns["round"].tolist(), found.columns["row"].tolist(), reasons, strict=True)
    assert list(rows) == expected(kind, quota)
    assert found.columns["rounds/rejected"].sum() == len(reasons) and found.columns["rounds/kept"].sum() == quota


@pytest.mark.slow
def test_accepted_and_rejected_rows_are_all_there_are(call, tmp_path):
    call(*FILTERS["dedup"], quota=12)
    found, final = told(tmp_path), bimangrasp.load(RunFolder(tmp_path / "x").final("brick"))
    rows = {(r, n) for one in (found.columns, final.arrays()) for r, n in zip(one["round"], one["row"], strict=True)}
    last = max(rows)
    assert rows == {(r, n) for r in range(last[0] + 1) for n in range(BATCH) if (r, n) <= last}
    assert "duplicate" in {found.ending.reject_reasons[n] for n in found.columns["reject/reason"]}


@pytest.mark.slow
def test_a_file_of_rejected_grasps_can_be_loaded(call, tmp_path):
    call(*FILTERS["physics"])
    data = bimangrasp.load(RunFolder(tmp_path / "x").rejected("brick"))
    assert len(data) == len(told(tmp_path).columns["row"]) > 10
    assert {"reject/reason", "verdict/reason", "pose/joints"} <= set(data.fields)


@pytest.mark.slow
@pytest.mark.parametrize("kind", FILTERS)
def test_workers_merges_and_growth_change_no_byte(call, kind):
    kept, last = FILTERS[kind], 14
    whole = call(*kept, quota=last, name="whole")
    assert call(*kept, "gpus=[cpu,cpu,cpu]", quota=last, name="workers") == whole
    assert call(*kept, "merge_stride=1", quota=last, name="merges") == whole
    for quota in (3, 7, last):
        grown = call(*kept, quota=quota, name="grown")
    assert grown == whole


@pytest.mark.slow
@pytest.mark.parametrize("cap", [1, 9])
def test_the_cap_keeps_the_first_ones(call, tmp_path, cap):
    call(quota=25, name="all")
    every, whole = told(tmp_path, "all"), call(f"rejected_cap={cap}", quota=25)
    some = told(tmp_path)
    assert len(some.columns["row"]) == cap < len(every.columns["row"])
    assert np.array_equal(some.columns["hand/joints"], every.columns["hand/joints"][:cap])
    for quota in (9, 25):
        grown = call(f"rejected_cap={cap}", quota=quota, name="grown")
    assert grown == whole


@pytest.mark.slow
def test_off_nothing_is_written(call, tmp_path):
    call(keep=False)
    assert RunFolder(tmp_path / "x").reject_files() == []


@pytest.mark.slow
@pytest.mark.parametrize("change", ["off before", "another cap", "gone", "damaged", "cut elsewhere"])
def test_what_cannot_be_gone_on_with_is_refused(call, tmp_path, change):
    call(quota=9, keep=change != "off before")
    path = RunFolder(tmp_path / "x").rejected("brick")
    if change == "gone":
        path.unlink()
    if change == "damaged":
        path.write_bytes(path.read_bytes()[:-100])
    if change == "cut elsewhere":
        call(quota=11, keep=False)
    final = RunFolder(tmp_path / "x").final("brick").read_bytes()
    with pytest.raises(InputError, match="rejected grasps of object 'brick'.*leave keep_failed away"):
        call("rejected_cap=77" if change == "another cap" else "rejected_cap=10000", quota=25)
    assert RunFolder(tmp_path / "x").final("brick").read_bytes() == final


@pytest.mark.slow
@pytest.mark.parametrize("change", ["off before", "another cap", "gone"])
def test_with_its_shards_it_is_gathered_anew(call, tmp_path, change):
    whole = call("rejected_cap=9", quota=20, name="whole")
    first = "rejected_cap=4" if change == "another cap" else "rejected_cap=9"
    call(first, "keep_intermediate=true", keep=change != "off before")
    if change == "gone":
        RunFolder(tmp_path / "x").rejected("brick").unlink()
    assert call("rejected_cap=9", "keep_intermediate=true") == whole


@pytest.mark.slow
def test_a_flipped_bit_is_found_before_it_is_copied(call, tmp_path):
    call(quota=9)
    path = RunFolder(tmp_path / "x").rejected("brick")
    data = bytearray(path.read_bytes())
    at = data.find(told(tmp_path).columns["hand/joints"].tobytes())
    data[at + 5] ^= 1
    path.write_bytes(data)
    with pytest.raises(InputError, match="damaged .content_sha256.*leave keep_failed away"):
        call(quota=25)
    final = RunFolder(tmp_path / "x").final("brick").read_bytes()
    call(quota=25, keep=False)
    assert [path.name for path in (tmp_path / "x" / "damaged").iterdir()] == ["brick.h5.0"]
    assert RunFolder(tmp_path / "x").final("brick").read_bytes() != final


@pytest.mark.slow
def test_rejected_grasps_are_safe_before_the_final_file_is(call, tmp_path, monkeypatch):
    placed, replace = [], durable_io.replace

    def watched(source, target):
        placed.append(target.parent.name)
        replace(source, target)

    monkeypatch.setattr(durable_io, "replace", watched)
    call()
    assert placed.index("rejected") < placed.index("final")


@pytest.mark.slow
def test_generate_counts_nothing_and_keeps_all(call, tmp_path):
    config = quick_conf.load(f"object_root={tmp_path}", "mode=generate", "keep_failed=true", output_root=tmp_path)
    with pytest.raises(InputError, match="keep_failed=true needs mode=scale"):
        scale.generate(config, maker=Stub())


SHORT = {"quota": 150, "keep": False, "exit_code": 3}


@pytest.mark.slow
def test_an_object_that_falls_short_keeps_the_first_rejected_grasps_until_it_has_its_quota(call, tmp_path):
    folder = RunFolder(tmp_path / "x")
    call(*FILTERS["physics"], "max_rounds=3", **SHORT)
    sample = read_rejects(folder.failed("brick").read_bytes())[2]
    call(*FILTERS["physics"], "max_rounds=3", name="kept", **SHORT | {"keep": True})
    kept = told(tmp_path, "kept").columns
    assert 10 < len(kept["row"]) < rejected_file.SAMPLE and not RunFolder(tmp_path / "kept").failures.exists()
    for name in kept.keys() - {"rounds/verdict_sha256"}:  # verdicts say with which settings they were made
        np.testing.assert_array_equal(sample[name], kept[name], err_msg=name)

    call(*FILTERS["physics"], "max_rounds=40", **SHORT)
    later = read_rejects(folder.failed("brick").read_bytes())[2]
    assert len(later["row"]) == rejected_file.SAMPLE and later["round"].min() == 3, "of the rounds that are still there"
    call(*FILTERS["physics"], "max_rounds=60", **SHORT | {"exit_code": 0})
    assert not folder.failed("brick").exists()


@pytest.mark.slow
@pytest.mark.parametrize("case", ["reached", "no verdicts"])
def test_no_grasps_are_kept_of_what_reached_its_quota_or_has_no_verdicts(call, tmp_path, case):
    if case == "reached":
        call(*FILTERS["physics"], keep=False)
    else:
        call(*FILTERS["energy"], "max_rounds=3", **SHORT)
    assert not RunFolder(tmp_path / "x").failures.exists()
