"""What is known to have failed in other generators of grasps and episodes, each as a test by name."""

import json
from pathlib import Path

import h5py
import pytest
from run_tools import events
from stub_rounds import Stub

import scale
from bimangrasp.errors import InputError
from scale.store.run_folder import RunFolder

BIN, BOWL = "storage_bin", "bowl"


@pytest.fixture
def run(small_config):
    """Runs the stub on one object: run("max_rounds=2", stub=Stub(...), exp_name="x")."""

    def call(*overrides, stub=None, **settings):
        return scale.run(small_config(*overrides, **settings), maker=stub or Stub())

    return call


def folder_of(report):
    return RunFolder(report.run_dir)


def bytes_of(report):
    return {path.name: path.read_bytes() for path in report.paths}


def columns(path, *names):
    with h5py.File(path) as file:
        return [file[name][...].tolist() for name in names]


@pytest.mark.slow
def test_a_failed_round_in_flight_at_the_quota_is_no_hole_in_the_count(run, tmp_path):
    """Ten rounds were handed out, the last one failed, and the object was called done with 30 of 40."""
    stub = Stub(faults={(BIN, 1): ["slow:0.3", "raise"], (BIN, 2): ["raise"]}, marks=str(tmp_path), nan_share=0)
    report = run(stub=stub, target_count_per_object=12, gpus="[cpu,cpu]")
    assert report.exit_code == 0 and report.objects[0].collected == 12
    assert columns(report.paths[0], "round")[0] == [0] * 4 + [1] * 4 + [2] * 4


@pytest.mark.slow
def test_an_object_whose_only_round_fails_is_not_done(run, tmp_path):
    stub = Stub(faults={(BIN, 0): ["raise"] * 3}, marks=str(tmp_path), nan_share=0)
    report = run("max_rounds=1", stub=stub, object_code_list=f"[{BOWL},{BIN}]", target_count_per_object=4)
    assert report.exit_code == 3 and [one.collected for one in report.objects] == [4, 0]
    assert report.skips == [(BIN, 0)] and "fault on order" in str(report)


@pytest.mark.slow
def test_max_rounds_holds_with_several_devices(run):
    report = run("max_rounds=3", target_count_per_object=1000, gpus="[cpu,cpu,cpu]")
    assert report.exit_code == 3 and report.objects[0].end_reason == "max_rounds"
    assert sorted(event["round"] for event in events(folder_of(report), "done")) == [0, 1, 2]


@pytest.mark.slow
def test_a_quota_raised_on_resume_adds_grasps_and_repeats_none(run):
    first = columns(run(target_count_per_object=6).paths[0], "round", "row", "seed")
    report = run(target_count_per_object=18)
    rounds, rows, seeds = columns(report.paths[0], "round", "row", "seed")
    assert len(rounds) == 18 == len(set(zip(rounds, rows, strict=True)))
    assert [rounds[:6], rows[:6], seeds[:6]] == first
    assert bytes_of(report) == bytes_of(run(target_count_per_object=18, exp_name="at_once"))


@pytest.mark.slow
def test_objects_of_later_calls_do_not_get_the_seeds_of_earlier_ones(run):
    one = run(object_code_list=f"[{BIN}]")
    two = run(object_code_list=f"[{BOWL}]")
    (first,), (second,) = columns(one.paths[0], "rounds/seed"), columns(two.paths[0], "rounds/seed")
    assert not set(first) & set(second)


@pytest.mark.slow
def test_a_list_reordered_on_resume_changes_no_seed_and_no_byte(run):
    codes, turned = f"[{BIN},{BOWL}]", f"[{BOWL},{BIN}]"
    run("max_rounds=1", object_code_list=codes, target_count_per_object=12)
    report = run(object_code_list=turned, target_count_per_object=12)
    assert bytes_of(report) == bytes_of(run(object_code_list=codes, target_count_per_object=12, exp_name="plain"))


@pytest.mark.slow
@pytest.mark.parametrize("part", [0, 1, 0.5])
def test_a_torn_result_file_is_no_result(run, part):
    report = run(target_count_per_object=9)
    whole, path = bytes_of(report), report.paths[0]
    path.write_bytes(whole[path.name][: int(part * len(whole[path.name])) if part != 1 else -1])
    again = run(target_count_per_object=9)
    assert again.exit_code == 0 and bytes_of(again) == whole
    assert [one.name for one in folder_of(again).damaged.iterdir()] == [f"{path.name}.0"]


@pytest.mark.slow
@pytest.mark.parametrize("left", [b"", b'{"objects": {"storage_bin": {"coll', b"[]", bytes(100)])
def test_a_torn_manifest_loses_nothing(run, left):
    report = run(target_count_per_object=9)
    whole, folder = bytes_of(report), folder_of(report)
    folder.manifest.write_bytes(left)
    again = run(target_count_per_object=9)
    assert bytes_of(again) == whole and len(events(folder_of(again), "done")) == len(
        set(map(str, events(folder_of(again), "done")))
    )
    assert len(events(folder_of(again), "done")) == len(events(folder_of(report), "done"))
    assert json.loads(folder.manifest.read_bytes())["objects"][BIN]["collected"] == 9


@pytest.mark.slow
def test_finished_rounds_of_a_killed_runner_are_kept(run):
    """As a SIGKILL leaves it: sealed rounds, no final file, no manifest, a journal that ends somewhere."""
    whole = bytes_of(run("keep_intermediate=true", target_count_per_object=18, exp_name="whole"))
    report = run("keep_intermediate=true", target_count_per_object=18)
    folder = folder_of(report)
    for path in [*report.paths, folder.manifest, folder.dataset]:
        path.unlink()
    folder.journal.write_bytes(folder.journal.read_bytes()[:-400])
    before = len(events(folder_of(report), "done"))
    again = run("keep_intermediate=true", target_count_per_object=18)
    assert bytes_of(again) == whole and len(events(folder_of(again), "done")) == before


@pytest.mark.slow
def test_a_second_call_with_other_objects_under_one_name_overwrites_nothing(run):
    first = run(object_code_list=f"[{BIN}]")
    before = bytes_of(first)
    second = run(object_code_list=f"[{BOWL},{BIN}]")
    assert before.items() <= bytes_of(second).items() and len(second.paths) == 2
    third = run(object_code_list="[mug]")
    assert {path.stem for path in folder_of(third).final_files()} == {BIN, BOWL, "mug"}
    manifest = json.loads(folder_of(third).manifest.read_bytes())["objects"]
    assert {code: entry["index"] for code, entry in manifest.items()} == {BIN: 0, BOWL: 1, "mug": 2}


@pytest.mark.slow
def test_a_second_call_with_another_mesh_under_one_code_is_refused(run, tmp_path):
    meshes = tmp_path / "meshes"
    meshes.mkdir()
    box = next((Path(scale.__file__).parents[1] / "bimangrasp/assets/objects").glob(f"{BIN}*")).read_text()
    (meshes / "thing.obj").write_text(box)
    before = bytes_of(run(object_root=meshes, object_code_list="[thing]"))
    (meshes / "thing.obj").write_text("# another one\n" + box)
    with pytest.raises(InputError, match="thing"):
        run(object_root=meshes, object_code_list="[thing]")
    (meshes / "thing.obj").write_text(box)
    assert bytes_of(run(object_root=meshes, object_code_list="[thing]")) == before
