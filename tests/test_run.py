"""A call from door to report: refusals, retries and skips, ends that are honest, signals, dry run, status."""

import json
import multiprocessing
import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import h5py
import numpy as np
import pytest
from omegaconf import OmegaConf
from run_tools import events
from stub_rounds import Stub, made_columns

import scale
from bimangrasp.errors import InputError
from scale.controller import lifecycle
from scale.engine.main_script import refuse_bad_script
from scale.errors import RunError
from scale.store import locks, shards
from scale.store.run_folder import RunFolder

ROOT = Path(__file__).parents[1]


@pytest.fixture
def run(small_config):
    """Runs the stub on one object: run("max_rounds=2", stub=Stub(...), exp_name="x")."""

    def call(*overrides, stub=None, **settings):
        return scale.run(small_config(*overrides, **settings), maker=stub or Stub())

    return call


@pytest.fixture
def folder(tmp_path):
    return RunFolder(tmp_path / "experiments" / "demo")


def snapshot_of(root):
    return {path: path.stat().st_mtime_ns for path in root.rglob("*")}


@pytest.mark.slow
def test_a_round_that_raises_is_retried_then_skipped_and_named_everywhere(run, folder, tmp_path):
    stub = Stub(faults={("storage_bin", 1): ["raise"] * 3}, marks=str(tmp_path))
    report = run(stub=stub, target_count_per_object=9)
    assert report.exit_code == 0 and report.skips == [("storage_bin", 1)]
    assert "skipped rounds 1; the last one with: RuntimeError: fault on order" in str(report)
    skipped = json.loads(folder.manifest.read_bytes())["objects"]["storage_bin"]["skipped"]
    assert skipped[0]["round"] == 1 and "fault on order" in skipped[0]["traceback"]
    assert [event["attempt"] for event in events(folder, "fail")] == [1, 2, 3]
    with h5py.File(report.paths[0]) as file:
        assert file["rounds/state"][:2].tolist() == [0, 1] and len(file["row"]) == 9
    again = run(stub=stub, target_count_per_object=20)
    assert again.skips == [("storage_bin", 1)] and again.exit_code == 0


@pytest.mark.slow
def test_the_end_says_how_many_grasps_were_tried_for_the_quota(run):
    report = run(target_count_per_object=5, round_batch_size=8)
    (one,) = report.objects
    with h5py.File(report.paths[0]) as file:
        assert one.tried == 8 * one.rounds_done == file["rounds/rows"][...].sum()
        assert one.collected == 5 <= one.accepted == file["rounds/accepted"][...].sum() < one.tried
    heading, row = (line.split() for line in str(report).splitlines()[:2])
    shown = dict(zip(heading, row, strict=False))
    assert (shown["grasps"], shown["tried"], shown["accepted"]) == ("5/5", str(one.tried), str(one.accepted))


@pytest.mark.slow
def test_max_rounds_ends_an_object_short_with_exit_code_3_and_the_reason(run, folder):
    report = run("max_rounds=2", target_count_per_object=100, gpus="[cpu,cpu]")
    assert report.exit_code == 3 and report.objects[0].end_reason == "max_rounds"
    assert 0 < report.objects[0].collected < 9
    assert "short: storage_bin: " in str(report) and "max_rounds" in str(report)
    with h5py.File(report.paths[0]) as file:
        assert not file.attrs["complete"] and file.attrs["end_reason"] == b"max_rounds"
        assert len(file["rounds/round"]) == 2
    assert len(events(folder, "done")) == 2
    assert run("max_rounds=40", target_count_per_object=100).exit_code == 0


@pytest.mark.slow
def test_an_object_whose_every_round_fails_is_never_called_done(run, tmp_path):
    faults = {("storage_bin", r): ["raise"] for r in range(2)}
    stub = Stub(faults=faults, marks=str(tmp_path))
    report = run("max_retries=0", "max_rounds=2", stub=stub, object_code_list="[bowl,storage_bin]")
    assert report.exit_code == 3 and [one.collected for one in report.objects] == [6, 0]
    assert "2 rounds skipped" in str(report)


@pytest.mark.slow
def test_only_accepted_rows_count(run):
    report = run("filter=energy", "filter.force_closure=2", "filter.distance=3", "filter.penetration=2")
    with h5py.File(report.paths[0]) as file:
        assert len(file["row"]) == 6 and (file["energy/force_closure"][...] < 2).all()
        assert file["rounds/accepted"][...].sum() < file["rounds/rows"][...].sum()
        assert json.loads(file.attrs["acceptance_key"])["filter.distance"] == 3


@pytest.mark.slow
def test_another_weight_is_refused_with_the_key_and_both_values(run, folder):
    run()
    before = snapshot_of(folder.finals)
    with pytest.raises(InputError, match=r"energy\.w_pen: 125\.0 in the folder, 126\.0 in this call"):
        run("energy.w_pen=126")
    folder.journal.unlink()  # the files alone tell as well
    with pytest.raises(InputError, match=r"energy\.w_pen"):
        run("energy.w_pen=126")
    assert snapshot_of(folder.finals) == before


@pytest.mark.slow
def test_another_mesh_under_the_same_code_is_refused(run, tmp_path):
    meshes = tmp_path / "meshes"
    meshes.mkdir()
    source = next((ROOT / "bimangrasp/assets/objects").glob("storage_bin*")).read_text()
    (meshes / "box.obj").write_text(source)
    run(object_root=meshes, object_code_list="[box]")
    (meshes / "box.obj").write_text("# changed\n" + source)
    with pytest.raises(InputError, match=r"'box'.*\n.*mesh_sha256"):
        run(object_root=meshes, object_code_list="[box]")


@pytest.mark.slow
def test_another_filter_needs_the_shards(run, folder):
    run(exp_name="gone")
    with pytest.raises(InputError, match=r"(?s)filter\.name: 'none' in the folder, 'energy'.*keep_intermediate"):
        run("filter=energy", exp_name="gone")
    strict = ("filter=energy", "filter.force_closure=2", "filter.distance=3", "filter.penetration=2")
    run("keep_intermediate=true")
    rebuilt = run(*strict, "keep_intermediate=true").paths[0].read_bytes()
    assert rebuilt == run(*strict, exp_name="fresh").paths[0].read_bytes()


@pytest.mark.slow
def test_a_shard_of_other_size_than_the_rounds_before_is_named_and_ends_the_run(run, folder):
    run("keep_intermediate=true", target_count_per_object=9)
    before, path = folder.final("storage_bin").read_bytes(), next(folder.shard_files())
    like, place, round_id = shards.verify(path), path.parent, len(list(folder.shard_files()))
    seed = like.seed - like.round_id + round_id
    columns = shards.round_columns(made_columns(seed, like.rows, P=5), seed, round_id, like.tile_used)
    odd = shards.seal(folder, place, like.header, columns)
    with pytest.raises(
        RunError, match=rf"curve/step in {odd} has shape \(1, 5\), unlike the rounds before.* move what"
    ):
        run(target_count_per_object=40)
    assert folder.final("storage_bin").read_bytes() == before
    odd.unlink()
    assert run(target_count_per_object=40).exit_code == 0


@pytest.mark.slow
def test_the_seed_of_a_skipped_round_is_not_taken_from_the_journal(run, folder, tmp_path):
    stub = Stub(faults={("storage_bin", 1): ["raise"] * 3}, marks=str(tmp_path))
    wanted = run(stub=stub, target_count_per_object=9).paths[0].read_bytes()
    folder.final("storage_bin").unlink()
    lines = folder.journal.read_text().splitlines(keepends=True)
    wrong = [re.sub(r'"seed": \d+', '"seed": 1', line) if '"skip"' in line else line for line in lines]
    assert lines != wrong
    folder.journal.write_text("".join(wrong))
    assert run(target_count_per_object=9).paths[0].read_bytes() == wanted


def test_a_folder_in_use_is_refused_and_the_holder_named(run, folder):
    folder.prepare()
    lock = locks.RunLock(folder)
    with pytest.raises(InputError, match=f"in use by pid {os.getpid()}"):
        run()
    lock.release()


@pytest.mark.slow
def test_resume_false_refuses_a_used_folder_only(run):
    assert run("resume=false").exit_code == 0
    with pytest.raises(InputError, match="resume=false"):
        run("resume=false")


@pytest.mark.slow
def test_a_folder_of_a_newer_version_is_refused(run, folder, monkeypatch):
    monkeypatch.setattr(lifecycle, "VERSION", 99)
    run()
    monkeypatch.undo()
    with pytest.raises(InputError, match="newer version"):
        run()


def test_seeds_stay_below_2_to_the_32(run):
    with pytest.raises(InputError, match="2\\^32"):
        run(seed_base=2**32 - 5)


@pytest.mark.slow
def test_another_platform_is_refused_unless_mixing_is_allowed(run, folder):
    run()
    with pytest.raises(InputError, match=r"kernels: 'stub-1' in the folder, 'stub-2'.*\n.*allow_mixed_platform"):
        run(stub=Stub(platform="stub-2"), target_count_per_object=30)
    report = run("allow_mixed_platform=true", stub=Stub(platform="stub-2"), target_count_per_object=30)
    assert report.exit_code == 0 and json.loads(folder.manifest.read_bytes())["mixed_platform"]
    with h5py.File(report.paths[0]) as file:
        assert json.loads(file.attrs["platforms"]) == [{"kernels": "stub-1"}, {"kernels": "stub-2"}]
        assert set(file["rounds/platform"][...]) == {0, 1}
    with pytest.raises(InputError, match="several platforms"):
        run(target_count_per_object=40)


@pytest.mark.slow
def test_workers_that_never_get_ready_stop_the_run_with_their_stderr(run, folder):
    with pytest.raises(RunError, match=r"(?s)2 workers in a row.*the stub cannot load its hands"):
        run(stub=Stub(broken=True), gpus="[cpu,cpu]")
    assert [event["exitcode"] for event in events(folder, "died")][:2] == [1, 1]
    assert events(folder, "end")[0]["exit_code"] == 1
    assert run().exit_code == 0


def send_when(folder, has_come, numbers):
    """Sends signals to this process, from a thread: when the moment has come, and when the one before was heard."""

    def wait_for(heard):
        deadline = time.monotonic() + 60
        while not heard() and time.monotonic() < deadline:
            time.sleep(0.01)

    def wait():
        wait_for(has_come)
        os.kill(os.getpid(), numbers[0])
        for number in numbers[1:]:
            wait_for(lambda: "running rounds" in folder.run_log.read_text())
            os.kill(os.getpid(), number)

    thread = threading.Thread(target=wait)
    thread.start()
    return thread


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2])
def test_a_signal_lets_running_rounds_finish_and_the_same_command_goes_on(run, folder, number):
    exit_code = 130 if number == signal.SIGINT else 143
    before = [signal.getsignal(n) for n in signal.valid_signals()]
    thread = send_when(folder, lambda: events(folder, "done"), [number])
    report = run(stub=Stub(delay=0.3), target_count_per_object=30)
    thread.join()
    assert report.exit_code == exit_code and "the same command goes on" in str(report)
    assert 1 <= len(events(folder, "done")) <= 3
    assert json.loads(folder.manifest.read_bytes())["exit_code"] == exit_code
    assert before == [signal.getsignal(n) for n in signal.valid_signals()]
    assert run(target_count_per_object=30).exit_code == 0


@pytest.mark.slow
def test_a_second_ctrl_c_ends_at_once(run, folder):
    mark = folder.root.parents[1] / "storage_bin-1-0"  # the stub's, once round 1 is under way
    thread = send_when(folder, mark.exists, [signal.SIGINT, signal.SIGINT])
    start = time.monotonic()
    stub = Stub(faults={("storage_bin", 1): ["slow:120"]}, marks=str(mark.parent))
    assert run(stub=stub, target_count_per_object=30).exit_code == 130
    thread.join()
    assert time.monotonic() - start < 60


@pytest.mark.slow
def test_a_run_outside_the_main_thread_touches_no_handlers(run):
    reports = []
    thread = threading.Thread(target=lambda: reports.append(run()))
    thread.start()
    thread.join()
    assert reports[0].exit_code == 0


@pytest.mark.slow
def test_max_hours_stops_taking_rounds_and_says_short(run, folder):
    report = run("max_hours=1e-4", stub=Stub(delay=0.3), target_count_per_object=1000)
    assert report.exit_code == 3 and "max_hours" in str(report)


SCRIPT = """
import multiprocessing, sys
sys.path[:0] = sys.argv[2:]
import scale
from stub_rounds import Stub, made_columns

def settings():
    import conf
    names = ["object_code_list=[storage_bin]", "target_count_per_object=2", "gpus=[cpu]", "round_batch_size=2"]
    names += ["filter=none"]
    return conf.load([f"output_root={sys.argv[1]}", *names])

def start():
    scale.run(settings(), maker=Stub())

"""
BARE, GUARDED = SCRIPT + "start()\n", SCRIPT + 'if __name__ == "__main__":\n    start()\n'


@pytest.fixture
def script(tmp_path):
    """Runs a program with the stub: script(text, "-") reads it from standard input, else it is a file."""

    def run(text, way="file"):
        path = tmp_path / "script.py"
        path.write_text(text)
        program = {"file": [str(path)], "-": ["-"], "-c": ["-c", text]}[way]
        command = [sys.executable, *program, str(tmp_path / "out"), str(ROOT / "tests"), str(ROOT)]
        return subprocess.run(command, input=text, capture_output=True, text=True, timeout=120)

    return run


@pytest.mark.slow
def test_a_script_whose_workers_would_start_workers_is_refused_at_once(script, tmp_path):
    done = script(BARE)
    assert done.returncode == 1 and not (tmp_path / "out").exists()
    line = BARE.splitlines().index("start()") + 1
    assert f"script.py, line {line}: worker processes import this script anew" in done.stderr.splitlines()[-1]
    assert 'if __name__ == "__main__":' in done.stderr


@pytest.mark.slow
def test_a_program_from_standard_input_is_refused_at_once(script, tmp_path):
    done = script(GUARDED, "-")
    assert done.returncode == 1 and "this program is read from <stdin>" in done.stderr.splitlines()[-1]
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
@pytest.mark.parametrize("way, text", [("file", GUARDED), ("-c", BARE)])
def test_a_guarded_script_and_a_line_of_python_run(script, way, text):
    done = script(text, way)
    assert done.returncode == 0, done.stderr


def test_the_guards_flag_is_the_interpreters(monkeypatch):
    refuse_bad_script()
    monkeypatch.setattr(multiprocessing.current_process(), "_inheriting", True, raising=False)
    with pytest.raises(InputError, match="__main__"):
        refuse_bad_script()


@pytest.mark.slow
def test_a_dict_config_does_as_well(small_config):
    assert scale.run(OmegaConf.structured(small_config()), maker=Stub()).exit_code == 0


@pytest.mark.slow
def test_a_dry_run_writes_nothing_and_tells_what_would_be_done(small_config, tmp_path, run):
    before = snapshot_of(tmp_path)
    plan = scale.plan(small_config(object_code_list="[bowl,mug]", target_count_per_object="{bowl:9,default:4}"), Stub())
    assert snapshot_of(tmp_path) == before
    assert [(o.code, o.index, o.rounds, o.seeds) for o in plan.objects] == [
        ("bowl", 0, [0, 1, 2], [1, 2, 3]),
        ("mug", 1, [0], [100001]),
    ]
    assert plan.disk_bytes > 0 and "nothing is written" in str(plan) and "1 to 3" in str(plan)
    run(object_code_list="[mug]")
    before = snapshot_of(tmp_path)
    plan = scale.plan(small_config(object_code_list="[bowl,mug]"), Stub())
    assert snapshot_of(tmp_path) == before
    assert [(o.code, o.index, o.rounds) for o in plan.objects] == [("bowl", 1, [0, 1]), ("mug", 0, [])]


@pytest.mark.slow
def test_generate_makes_one_round_of_each_object_without_quotas(small_config, folder):
    cfg = small_config(object_code_list="[mug,bowl]", target_count_per_object=1000, mode="generate")
    report = scale.generate(cfg, maker=Stub())
    paths = report.paths
    assert report.exit_code == 0 and paths == [folder.final("mug"), folder.final("bowl")]
    with h5py.File(paths[1]) as file:
        assert file["rounds/rows"][0] == 4 and file.attrs["object_index"] == 1 and set(file["round"][...]) == {0}
        assert len(file["row"]) == file["rounds/accepted"][0] and file.attrs["quota"] == 4
    assert list(folder.shard_files()) == [] and [path.stem for path in folder.final_files()] == ["bowl", "mug"]
    before = paths[0].read_bytes()
    again = scale.generate(cfg, maker=Stub())
    assert again.paths == paths and paths[0].read_bytes() == before
    assert [(o.collected, o.rounds_done) for o in again.objects] == [(o.collected, 1) for o in report.objects]
    assert again.notes == [] and report.objects[0].collected > 0
    with pytest.raises(InputError, match=r"energy\.w_fc"):
        scale.generate(small_config("energy.w_fc=2", mode="generate", object_code_list="[mug]"), maker=Stub())


@pytest.mark.slow
def test_generate_names_an_object_whose_round_fails_and_makes_the_others(small_config, folder, tmp_path):
    cfg = small_config(object_code_list="[mug,bowl]", mode="generate")
    stub = Stub(faults={("mug", 0): ["raise"] * 3}, marks=str(tmp_path))
    report = scale.generate(cfg, maker=stub)
    assert report.exit_code == 3 and report.skips == [("mug", 0)]
    assert "short: mug: 0 of 4" in str(report) and "RuntimeError: fault on order" in str(report)
    assert folder.final("bowl").exists()
    with h5py.File(folder.final("mug")) as file:
        assert len(file["row"]) == 0 and file["rounds/state"][...].tolist() == [1]


@pytest.mark.slow
def test_status_reads_without_the_lock_and_without_a_manifest(run, folder):
    with pytest.raises(InputError, match="holds no run"):
        scale.status(folder.root)
    run("max_rounds=1", target_count_per_object=9)
    folder.manifest.unlink()
    lock = locks.RunLock(folder)
    found = scale.status(folder.root)
    assert found.running["pid"] == os.getpid() and "running for" in str(found)
    assert (found.objects[0].quota, found.objects[0].rounds, found.objects[0].end_reason) == (9, 1, "max_rounds")
    lock.release()
    assert scale.status(folder.root).running is None and "ended with 3" in str(scale.status(folder.root))


@pytest.mark.slow
def test_the_optimizer_itself_gives_the_same_bytes_after_a_killed_worker(small_config, folder):
    report = scale.run(small_config(exp_name="whole"))
    killed = threading.Thread(target=kill_first_worker, args=(folder,))
    killed.start()
    again = scale.run(small_config())
    killed.join()
    assert report.exit_code == again.exit_code == 0
    assert report.paths[0].read_bytes() == again.paths[0].read_bytes()
    assert [event["exitcode"] for event in events(folder, "died")] == [-9]
    with h5py.File(again.paths[0]) as file:
        turned = file["hand/rotation"][...].astype(float)
        assert abs(turned @ turned.swapaxes(-1, -2) - np.eye(3)).max() < 1e-6 and np.linalg.det(turned).min() > 0.99
        weights, total = json.loads(file.attrs["energy_weights"]), file["energy/total"][...]
        names = {"w_fc": "force_closure", "w_dis": "distance", "w_pen": "penetration"}
        names |= {"w_spen": "self_penetration", "w_joints": "joint_limits", "w_vew": "wrench_volume"}
        names |= {"w_depth": "depth", "w_equilibrium": "equilibrium"}
        assert np.allclose(sum(weights[key] * file[f"energy/{name}"][...] for key, name in names.items()), total, 1e-4)
        assert file["curve/step"][0].tolist() == [0, 1, 2, 3] and file.attrs["joint_names"].shape == (22,)


def kill_first_worker(folder):
    """Kills the first worker when it is ready."""
    deadline = time.monotonic() + 60
    while not events(folder, "ready") and time.monotonic() < deadline:
        time.sleep(0.005)
    for child in multiprocessing.active_children():
        os.kill(child.pid, signal.SIGKILL)


@pytest.mark.slow
def test_what_a_run_leaves(run, folder, capsys):
    run("keep_intermediate=false", target_count_per_object=9)
    names = {path.name for path in folder.root.iterdir()}
    assert names == {
        *("manifest.json", "journal.jsonl", "journal.reserve", "config.yaml", "run.lock", "workers.lock"),
        *("logs", "shards", "final", "dataset.h5"),
    }
    assert {path.name for path in (folder.root / "logs").iterdir()} == {"run.log", "worker_0.log"}
    shown = capsys.readouterr().out
    assert "storage_bin  9/9" in shown and "storage_bin  9/9" in folder.run_log.read_text()
    assert OmegaConf.load(folder.config).target_count_per_object == 9
