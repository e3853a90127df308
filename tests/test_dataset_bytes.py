"""The data set is defined without workers: whatever happens on the way, the same bytes."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import h5py
import pytest
import quick_conf
from run_tools import events, hashes
from stub_rounds import Stub

import scale
from bimangrasp.files import formats
from scale.store.run_folder import RunFolder

OBJECTS = "[storage_bin,bowl]"
QUOTA = 20
ROOT = Path(__file__).parents[1]


def config(root, name, *overrides, gpus="[cpu]", quota=QUOTA, objects=OBJECTS):
    names = [f"exp_name={name}", f"object_code_list={objects}", "seed_base=5", f"gpus={gpus}"]
    names += [f"target_count_per_object={quota}", "round_batch_size=8"]
    return quick_conf.load(*names, *overrides, output_root=root)


def run(root, name, *overrides, stub=None, **settings):
    report = scale.run(config(root, name, *overrides, **settings), maker=stub or Stub())
    return report, hashes(root / name)


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    """The bytes that one worker gives, undisturbed, for two quotas."""
    root = tmp_path_factory.mktemp("reference")
    report, small = run(root, "small")
    assert report.exit_code == 0
    return {QUOTA: small, 40: run(root, "large", quota=40)[1]}


@pytest.mark.slow
def test_the_final_files_hold_exactly_the_quota(tmp_path, reference):
    report, found = run(tmp_path, "x")
    assert found == reference[QUOTA] and [one.collected for one in report.objects] == [QUOTA, QUOTA]
    for path in report.paths:
        proof = formats.verify_final(str(path))
        assert proof.ending.complete and proof.sizes["N"] == QUOTA
        assert proof.rounds["rounds/kept"][-1] < proof.rounds["rounds/accepted"][-1]
    with h5py.File(tmp_path / "x" / "dataset.h5") as file:
        assert {name: len(file[name]["row"]) for name in file} == {"bowl": QUOTA, "storage_bin": QUOTA}


@pytest.mark.slow
def test_two_workers_in_any_order_give_the_same_bytes(tmp_path, reference):
    faults = {
        (code, r): [f"slow:{random.Random(f'{code}{r}').random() * 0.3}"]
        for code in ("storage_bin", "bowl")
        for r in range(6)
    }
    (tmp_path / "marks").mkdir()
    stub = Stub(faults=faults, marks=str(tmp_path / "marks"))
    report, found = run(tmp_path, "x", stub=stub, gpus="[cpu,cpu]")
    assert found == reference[QUOTA] and report.exit_code == 0


@pytest.mark.slow
def test_faults_in_the_middle_change_no_byte(tmp_path, reference):
    faults = {("storage_bin", 1): ["kill"], ("bowl", 0): ["segv", "raise"], ("bowl", 2): ["exit", "kill"]}
    report, found = run(tmp_path, "x", stub=Stub(faults=faults, marks=str(tmp_path)), gpus="[cpu,cpu]")
    assert found == reference[QUOTA] and report.exit_code == 0 and report.skips == []
    assert len(events(tmp_path / "x", "fail")) == 3  # a kill from outside is no failure of the round


@pytest.mark.slow
def test_a_file_that_grows_ends_with_the_same_bytes(tmp_path, reference):
    _, found = run(tmp_path, "x", "merge_stride=1", gpus="[cpu,cpu]")
    assert found == reference[QUOTA]
    assert len(events(tmp_path / "x", "merged")) > 2


@pytest.mark.slow
def test_a_quota_raised_later_gives_the_bytes_of_the_larger_one(tmp_path, reference):
    run(tmp_path, "x", quota=3)
    assert run(tmp_path, "x")[1] == reference[QUOTA]
    assert run(tmp_path, "x", quota=40)[1] == reference[40]


@pytest.mark.slow
def test_a_quota_raised_after_the_cut_rounds_shard_was_lost_computes_it_again(tmp_path, reference):
    run(tmp_path, "x")
    for path in list(RunFolder(tmp_path / "x").shard_files()):
        path.unlink()
    assert run(tmp_path, "x", quota=40)[1] == reference[40]


@pytest.mark.slow
def test_a_lost_cut_round_that_comes_back_different_extends_nothing(tmp_path, reference):
    run(tmp_path, "x")
    for path in list(RunFolder(tmp_path / "x").shard_files()):
        path.unlink()
    report, found = run(tmp_path, "x", quota=40, stub=Stub(nan_share=0.9))
    assert found == reference[QUOTA] and report.exit_code == 3
    assert {one.end_reason for one in report.objects} == {"changed"}
    assert "computed again and has other bytes" in str(report)


@pytest.mark.slow
def test_the_order_of_the_list_and_later_objects_change_no_seed(tmp_path, reference):
    run(tmp_path, "x", objects="[storage_bin]")
    before = hashes(tmp_path / "x")
    report, found = run(tmp_path, "x", objects="[bowl,storage_bin]")
    assert found == reference[QUOTA] and before.items() <= found.items()
    report, found = run(tmp_path, "x", objects="[mug,bowl]")
    assert reference[QUOTA].items() < found.items()
    assert [(one.code, one.index) for one in report.objects] == [("mug", 2), ("bowl", 1)]
    assert "storage_bin" in str(report)


@pytest.mark.slow
def test_a_smaller_quota_leaves_files_alone_and_says_so(tmp_path, reference):
    run(tmp_path, "x")
    report, found = run(tmp_path, "x", quota=4)
    assert found == reference[QUOTA] and report.exit_code == 0
    assert f"made for {QUOTA} grasps and stays" in str(report)


PARENT = """
import sys
if __name__ == "__main__":
    sys.path[:0] = sys.argv[3:]
    import test_dataset_bytes as bytes_test
    from pathlib import Path
    from stub_rounds import Stub
    bytes_test.run(Path(sys.argv[1]), "x", *sys.argv[2].split(), stub=Stub(delay=0.1), gpus="[cpu,cpu]")
"""


def start_parent(tmp_path, *overrides):
    script = tmp_path / "parent.py"
    script.write_text(PARENT)
    command = [sys.executable, str(script), str(tmp_path), " ".join(overrides), str(ROOT / "tests"), str(ROOT)]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, start_new_session=True)


def wait_for_rounds(folder, count, parent):
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and parent.poll() is None:
        if (folder / "journal.jsonl").exists() and len(events(folder, "done")) >= count:
            return
        time.sleep(0.01)
    raise AssertionError(f"no {count} rounds; the parent ended with {parent.poll()}")


@pytest.mark.slow
def test_a_killed_parent_and_the_same_command_again(tmp_path, reference):
    parent = start_parent(tmp_path, "merge_stride=1")
    wait_for_rounds(tmp_path / "x", 3, parent)
    parent.kill()
    parent.wait()
    report, found = run(tmp_path, "x")
    assert found == reference[QUOTA] and report.exit_code == 0
    done = [(event["code"], event["round"]) for event in events(tmp_path / "x", "done")]
    assert len(done) == len(set(done))  # what was sealed is not computed again


@pytest.mark.slow
def test_shards_sealed_behind_a_dead_parent_are_adopted_without_the_journal(tmp_path, reference):
    run(tmp_path, "x", "keep_intermediate=true")
    folder = tmp_path / "x"
    for path in [*(folder / "final").iterdir(), folder / "manifest.json", folder / "journal.jsonl"]:
        path.unlink()
    report, found = run(tmp_path, "x")
    assert found == reference[QUOTA] and events(folder, "done") == []
    assert list(RunFolder(folder).shard_files()) != []  # the cut rounds', wanted for a larger quota


@pytest.mark.slow
def test_damaged_files_are_set_aside_and_computed_again(tmp_path, reference):
    run(tmp_path, "x", "keep_intermediate=true")
    folder = RunFolder(tmp_path / "x")
    final, shard = folder.final("bowl"), next(folder.shard_files())
    for path in (final, shard):
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 1
        path.write_bytes(data)
    report, found = run(tmp_path, "x")
    assert found == reference[QUOTA] and report.exit_code == 0
    assert {path.name for path in folder.damaged.iterdir()} == {f"{final.name}.0", f"{shard.name}.0"}
    assert str(final) in str(report)


@pytest.mark.slow
def test_a_file_that_looks_untouched_is_trusted_and_verify_full_reads_it(tmp_path, reference):
    run(tmp_path, "x")
    final = RunFolder(tmp_path / "x").final("bowl")
    state, data = final.stat(), bytearray(final.read_bytes())
    data[len(data) // 2] ^= 1
    final.write_bytes(data)
    os.utime(final, ns=(state.st_atime_ns, state.st_mtime_ns))
    assert run(tmp_path, "x")[1] != reference[QUOTA]
    assert run(tmp_path, "x", "verify=full")[1] == reference[QUOTA]


@pytest.mark.slow
def test_no_file_tells_of_the_way(tmp_path, reference):
    report, found = run(tmp_path / "elsewhere ü", "other name", gpus="[cpu,cpu]")
    assert found == reference[QUOTA]
    moved = (tmp_path / "elsewhere ü").rename(tmp_path / "moved")
    assert run(moved, "other name", quota=40)[1] == reference[40]


@pytest.mark.slow
def test_one_more_kill_from_outside(tmp_path, reference):
    parent = start_parent(tmp_path)
    wait_for_rounds(tmp_path / "x", 2, parent)
    children = Path(f"/proc/{parent.pid}/task/{parent.pid}/children").read_text().split()
    workers = [pid for pid in children if b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes()]
    os.kill(int(workers[0]), signal.SIGKILL)
    assert parent.wait(60) == 0
    assert hashes(tmp_path / "x") == reference[QUOTA]
    assert [event["exitcode"] for event in events(tmp_path / "x", "died")] == [-9]
