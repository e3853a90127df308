"""filter=physics: the quota counts what a simulator has tested, and no promise is weaker for it."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import h5py
import numpy as np
import pytest
import quick_conf
import trimesh
from run_tools import events, flip, hashes
from stub_judge import StubJudge, verdict_columns
from stub_rounds import JOINTS, Stub, made_columns
from threaded_workers import use_threads

import scale
from bimangrasp.errors import InputError
from bimangrasp.files import formats
from bimangrasp.objects.convex_pieces import Pieces
from bimangrasp.validation import evaluate
from bimangrasp.validation.evaluate import Simulations
from bimangrasp.validation.verdict import Reason
from scale.controller import event_loop
from scale.engine.interfaces import Failed, Sealed, ValidationTask
from scale.engine.synthesizer import SimulatorRunner
from scale.errors import RunError
from scale.settings import filters, fingerprints
from scale.store import convex_pieces, verdict_files
from scale.store.run_folder import RunFolder, parse_shard_name

ROOT = Path(__file__).parents[1]
QUOTA, BATCH, SEED = 20, 8, 5
KEEP = ["keep_failed=true"]


@pytest.fixture(scope="module")
def objects(tmp_path_factory):
    """Two convex objects, of which no decomposition is wanted."""
    root = tmp_path_factory.mktemp("objects")
    for name, size in (("brick", (1.0, 0.6, 0.4)), ("slab", (1.0, 1.0, 0.2))):
        trimesh.creation.box(size).export(root / f"{name}.obj")
    return root


@pytest.fixture
def call_in_processes(objects, tmp_path, monkeypatch):
    """Runs in a folder of the test's; returns the report and the hashes of the final files."""
    monkeypatch.setenv("BIMANGRASP_CACHE", str(tmp_path / "cache"))

    def run(*overrides, root=tmp_path, stub=None, judge=None, gpus="[cpu]", quota=QUOTA):
        names = [f"object_root={objects}", "object_code_list=[slab,brick]", f"seed_base={SEED}", f"gpus={gpus}"]
        names += [f"target_count_per_object={quota}", f"round_batch_size={BATCH}", "exp_name=x", "filter=physics"]
        names += ["validators=1", *overrides]
        report = scale.run(quick_conf.load(*names, output_root=root), maker=stub or Stub(), judge=judge or StubJudge())
        return report, hashes(root / "x")

    return run


@pytest.fixture
def call(call_in_processes, monkeypatch):
    """The same with threads for processes: faster, where nobody dies."""
    use_threads(monkeypatch)
    return call_in_processes


@pytest.fixture(scope="module")
def reference(objects, tmp_path_factory):
    """The bytes that one worker and one validator give, each a process, undisturbed, for two quotas."""
    found = {}
    for quota in (QUOTA, 40):
        root = tmp_path_factory.mktemp(f"reference_{quota}")
        names = [f"object_root={objects}", "object_code_list=[slab,brick]", f"seed_base={SEED}", "gpus=[cpu]"]
        names += [f"target_count_per_object={quota}", f"round_batch_size={BATCH}", "exp_name=x", "filter=physics"]
        config = quick_conf.load(*names, "validators=1", output_root=root)
        assert scale.run(config, maker=Stub(), judge=StubJudge()).exit_code == 0
        found[quota] = hashes(root / "x")
    return found


def expected(index, quota, share=0.6):
    """(round, row) of the rows that count, from the stand-ins alone: finite, and held."""
    rows = []
    for round_id in range(100):
        seed = SEED + 100_000 * index + round_id
        finite = np.isfinite(made_columns(seed, BATCH)["energy/total"])
        held = verdict_columns(seed, BATCH, JOINTS, share)["verdict/reason"] == Reason.HELD
        rows += [(round_id, row) for row in np.flatnonzero(finite & held).tolist()]
    return rows[:quota]


@pytest.mark.slow
def test_the_quota_is_exact_and_of_finite_grasps_that_hold(call, tmp_path, reference):
    report, found = call()
    assert found == reference[QUOTA] and report.exit_code == 0
    for index, name in enumerate(("slab", "brick")):
        path = RunFolder(tmp_path / "x").final(name)
        proof = formats.verify_final(str(path))
        assert proof.ending.complete and proof.is_judged and proof.sizes["N"] == QUOTA
        with h5py.File(path) as file:
            rows = list(zip(file["round"][:].tolist(), file["row"][:].tolist(), strict=True))
            assert rows == expected(index, QUOTA)
            assert (file["verdict/reason"][:] == Reason.HELD).all()
            for number, (round_id, row) in enumerate(rows):
                said = verdict_columns(SEED + 100_000 * index + round_id, BATCH, JOINTS, 0.6)
                assert (file["pose/joints"][number] == said["pose/joints"][row]).all()
                assert (file["verdict/displacement"][number] == said["verdict/displacement"][row]).all()


@pytest.mark.slow
def test_reasons_of_all_rows_up_to_the_cut_are_counted(call, tmp_path):
    report, _ = call()
    for index, one in enumerate(report.objects):
        counted = {filters.NOT_FINITE: 0}
        for round_id in range(1 + expected(index, QUOTA)[-1][0]):
            seed = SEED + 100_000 * index + round_id
            finite = np.isfinite(made_columns(seed, BATCH)["energy/total"])
            reason = verdict_columns(seed, BATCH, JOINTS, 0.6)["verdict/reason"]
            counted[filters.NOT_FINITE] += int((~finite).sum())
            for why in Reason:
                name = f"physics/{why.name.lower()}"
                counted[name] = counted.get(name, 0) + int((finite & (reason == why)).sum())
        del counted["physics/held"]
        assert one.rejected == counted and sum(counted.values()) > 0


@pytest.mark.slow
@pytest.mark.parametrize(("gpus", "validators"), [("[cpu]", 3), ("[cpu,cpu]", 1)])
def test_workers_and_validators_change_no_byte(call_in_processes, reference, gpus, validators):
    assert call_in_processes(f"validators={validators}", gpus=gpus)[1] == reference[QUOTA]


@pytest.mark.slow
def test_growing_in_steps_changes_no_byte(call, reference, tmp_path):
    assert call("merge_stride=1")[1] == reference[QUOTA]
    assert len(events(tmp_path / "x", "merged")) > 2
    assert call(quota=40)[1] == reference[40]


@pytest.mark.slow
def test_verdicts_go_with_their_shards(call, tmp_path):
    call()
    folder = RunFolder(tmp_path / "x")
    for files in (folder.shard_files(), folder.verdict_files()):
        left = {(name.code_name, name.round_id) for name in (parse_shard_name(path.name) for path in files)}
        cut = {(name, expected(index, QUOTA)[-1][0]) for index, name in enumerate(("slab", "brick"))}
        assert left <= cut  # wanted for a larger quota


@pytest.mark.slow
def test_a_lost_half_is_made_again_and_only_that(call, tmp_path, reference):
    call("keep_intermediate=true")
    folder = RunFolder(tmp_path / "x")
    passed = {event["code"]: event["rounds"] for event in events(folder, "merged")}
    names = {path: parse_shard_name(path.name)[:2] for path in sorted(folder.shard_files())}
    shard = [path for path, (code, number) in names.items() if number < passed[code]][-1]  # one that the quota needs
    verdict = sorted(folder.verdict_files())[0]
    for path in (verdict, shard, *folder.final_files()):
        path.unlink()
    journal = (tmp_path / "x" / "journal.jsonl").read_bytes()
    assert call("keep_intermediate=true")[1] == reference[QUOTA]
    new = (tmp_path / "x" / "journal.jsonl").read_bytes()[len(journal) :].splitlines()
    done = [event for event in map(json.loads, new) if event["event"] in ("done", "sealed")]
    done = [event for event in done if event["round"] < passed[event["code"]]]  # one past the quota may be made, or not
    lost, made = parse_shard_name(verdict.name), parse_shard_name(shard.name)
    assert {(event["code"], event["round"]) for event in done} == {lost[:2], made[:2]}
    assert [event["event"] for event in done] == ["done", "done"]  # the verdict on the lost shard was waiting for it


@pytest.mark.slow
def test_a_damaged_verdict_is_set_aside_and_made_again(call, tmp_path, reference):
    call("keep_intermediate=true")
    folder = RunFolder(tmp_path / "x")
    verdict = next(folder.verdict_files())
    flip(verdict)
    for path in folder.final_files():
        path.unlink()
    report, found = call("keep_intermediate=true")
    assert found == reference[QUOTA]
    assert (folder.damaged / f"{verdict.name}.0").exists() and "simulated again" in str(report)


@pytest.mark.slow
def test_a_verdict_under_another_key_is_never_used(call, tmp_path, reference):
    call("keep_intermediate=true", "poses.squeeze=2", judge=StubJudge(share=1.0))
    report, found = call("keep_intermediate=true")
    assert found == reference[QUOTA]
    assert "filtered anew: poses.squeeze: 2.0 in the folder, 1.0 in this call" in str(report)
    call()
    left = [verdict_files.verify(path) for path in RunFolder(tmp_path / "x").verdict_files()]
    assert {one.acceptance_key["poses.squeeze"] for one in left} <= {1.0, 2.0}


@pytest.mark.slow
def test_another_protocol_is_refused_where_the_shards_are_gone(call):
    call()
    with pytest.raises(InputError, match=r"validation\.limits\.displacement: 0\.05 in the folder, 0\.06 in this call"):
        call("validation.limits.displacement=0.06")


def test_the_manifest_says_how_far_pieces_are_from_each_mesh(call, tmp_path, capsys):
    call("object.scales=[0.2,0.4]", quota=1)
    for entry in json.loads(RunFolder(tmp_path / "x").manifest.read_bytes())["objects"].values():
        pieces = entry["pieces"]
        assert (pieces["count"], pieces["source"], pieces["dropped"], pieces["fallback"]) == (1, "convex", 0, "")
        assert len(pieces["sha256"]) == 64 and pieces["largest_scale"] == 0.4
        assert pieces["fit"]["distance"] < 1e-9 and pieces["fit"]["volume_ratio"] == pytest.approx(1)
    assert "convex pieces, which are simulated, are" in "".join(capsys.readouterr())


@pytest.mark.slow
def test_other_pieces_are_another_acceptance_key(call, objects):
    call()
    with pytest.raises(InputError, match="pieces_sha256"):
        _call_with_other_pieces(objects, call)


def _call_with_other_pieces(objects, call):
    """The mesh stays, and pieces that fill it in another way come to lie beside it."""
    halves = [trimesh.creation.box((0.5, 1.0, 0.2)).apply_translation((x, 0, 0)) for x in (-0.25, 0.25)]
    folder = objects / "slab" / "coacd"
    folder.mkdir(parents=True)
    (folder / "decomposed.obj").write_bytes((objects / "slab.obj").read_bytes())
    try:
        for number, half in enumerate(halves):
            half.export(folder / f"coacd_convex_piece_{number}.obj")
        (objects / "slab.obj").rename(objects / "slab.away")
        call()
    finally:
        (objects / "slab.away").rename(objects / "slab.obj")
        for path in sorted(folder.iterdir()):
            path.unlink()
        folder.rmdir()
        folder.parent.rmdir()


@pytest.mark.slow
@pytest.mark.parametrize("fault", ["raise", "exit", "segv"])
def test_a_grasp_that_ends_two_validators_fails(call_in_processes, tmp_path, reference, fault):
    row = next(row for round_id, row in expected(0, QUOTA) if round_id == 1)
    faults = {(1, row): [fault] * 2}
    report, found = call_in_processes(judge=StubJudge(faults=faults, marks=str(tmp_path)))
    assert report.exit_code == 0 and report.skips == []
    assert found["slab.h5"] != reference[QUOTA]["slab.h5"]
    with h5py.File(RunFolder(tmp_path / "x").final("slab")) as file:
        assert (1, row) not in set(zip(file["round"][:].tolist(), file["row"][:].tolist(), strict=True))
    assert report.objects[0].rejected["physics/simulation_failed"] > 0
    failed = events(tmp_path / "x", "fail")
    assert [(event["round"], event["row"]) for event in failed] == [(1, row)] * 2


@pytest.mark.slow
def test_the_grasp_of_a_failure_is_known_after_the_validator_has_its_next_round(call, tmp_path, monkeypatch):
    """A failure that lies in the pipe behind a sealed round: the validator gets work before the failure is handled."""
    heard, late = event_loop.events, []

    def failures_last(*args):
        batch, looks = list(heard(*args)), 0
        while any(type(one.message) is Failed for one in batch) and looks < 20:
            batch, looks = batch + list(heard(*args)), looks + 1
            if any(one.role == "worker" and type(one.message) is Sealed for one in batch):
                late.append(batch)
                break
        return sorted(batch, key=lambda one: type(one.message) is Failed)

    monkeypatch.setattr(event_loop, "events", failures_last)
    row = next(row for round_id, row in expected(0, QUOTA) if round_id == 1)
    stub = Stub(faults={("slab", number): ["slow:0.2"] for number in range(2, 20)}, marks=str(tmp_path))
    call("backlog_s=600", stub=stub, judge=StubJudge(faults={(1, row): ["raise"] * 2}, marks=str(tmp_path)))
    assert late and [event["row"] for event in events(tmp_path / "x", "fail")] == [row] * 2


@pytest.mark.slow
def test_one_death_condemns_no_grasp_and_kills_from_outside_none(call_in_processes, tmp_path, reference):
    faults = {(0, 3): ["segv"], (1, 2): ["kill", "kill"], (1, -1): ["raise"]}
    report, found = call_in_processes(judge=StubJudge(faults=faults, marks=str(tmp_path)))
    assert found == reference[QUOTA] and report.exit_code == 0


@pytest.mark.slow
def test_a_grasp_that_hangs_is_ended_and_fails(call_in_processes, tmp_path):
    stub = StubJudge(faults={(0, 4): ["hang"] * 5}, marks=str(tmp_path))
    report, _ = call_in_processes("heartbeat_timeout_s=1", judge=stub, quota=2)
    assert report.exit_code == 0
    assert len(events(tmp_path / "x", "silent")) == 4  # two for each object's round 0
    assert {event["row"] for event in events(tmp_path / "x", "fail")} == {4}


@pytest.mark.slow
def test_a_round_that_cannot_be_tested_is_skipped_and_named(call, tmp_path):
    faults = {(1, -1): ["raise"] * 100}
    report, _ = call(judge=StubJudge(faults=faults, marks=str(tmp_path)))
    assert report.exit_code == 0 and report.skips == [("slab", 1), ("brick", 1)]
    assert "skipped 1" in str(report).replace("skipped rounds 1", "skipped 1") and "fault on order" in str(report)


@pytest.mark.slow
def test_a_judge_that_never_works_ends_the_run(call_in_processes):
    with pytest.raises(RunError, match="the stub cannot load its simulator"):
        call_in_processes(judge=StubJudge(broken=True))


@pytest.mark.slow
def test_rounds_that_fail_every_test_before_any_success_end_the_run(call, tmp_path):
    faults = {(r, -1): ["raise"] * 100 for r in range(20)}
    with pytest.raises(RunError, match="no round could be tested"):
        call(judge=StubJudge(faults=faults, marks=str(tmp_path)))


@pytest.mark.slow
def test_nothing_that_holds_ends_as_barren_with_the_reasons(call):
    report, found = call("max_barren_rounds=3", judge=StubJudge(share=0.0))
    assert report.exit_code == 3 and [one.end_reason for one in report.objects] == ["barren", "barren"]
    assert all(one.collected == 0 and sum(one.rejected.values()) == 3 * BATCH for one in report.objects)
    assert "physics/penetration" in str(report)
    assert set(found) == {"brick.h5", "slab.h5"}  # empty, and judged all the same


@pytest.mark.slow
def test_rounds_do_not_pile_up_before_a_slow_validator(call, tmp_path):
    call(f"backlog_s={2 * BATCH * 0.025}", judge=StubJudge(delay=0.02), gpus="[cpu,cpu]", quota=40)
    waiting, most = 0, 0
    for line in (tmp_path / "x" / "journal.jsonl").read_bytes().splitlines():
        event = json.loads(line)
        waiting += {"sealed": 1, "done": -1}.get(event["event"], 0)
        most = max(most, waiting)
    assert 2 <= most <= 2 + 2  # the backlog, and a round of each worker that was under way


@pytest.mark.slow
def test_validators_on_another_platform_are_refused(call):
    call(quota=3)
    with pytest.raises(InputError, match=r"mujoco: 'stub-1' in the folder, 'stub-2' in this call|several platforms"):
        call(judge=StubJudge(platform="stub-2"))
    report, _ = call("allow_mixed_platform=true", judge=StubJudge(platform="stub-2"))
    assert report.exit_code == 0


def test_the_other_modes_say_what_they_do_not_do(call):
    with pytest.raises(InputError, match="filter=physics needs mode=scale"):
        call("mode=generate")


@pytest.mark.slow
def test_a_mesh_without_pieces_is_named_before_any_round(call, monkeypatch, objects, tmp_path):
    monkeypatch.setattr("bimangrasp.objects.decomposition.find_spec", lambda name: None)
    trimesh.creation.torus(0.4, 0.1).export(objects / "ring.obj")
    try:
        with pytest.raises(InputError, match=r"ring\.obj is not convex .*\[objects\]"):
            call("object_code_list=[slab,ring]")
    finally:
        (objects / "ring.obj").unlink()
    assert not list((tmp_path / "x").rglob("*.h5"))


@pytest.mark.slow
def test_pieces_that_take_long_hold_up_their_own_object_alone(call, monkeypatch, tmp_path):
    find, others_done = convex_pieces.pieces_of, threading.Event()

    def slow_for_the_slab(mesh, config):
        if mesh.stem == "slab":
            assert others_done.wait(60)
        return find(mesh, config)

    def watch(*given):
        for event in event_loop_events(*given):
            if events(tmp_path / "x", "merged"):
                others_done.set()
            yield event

    event_loop_events = event_loop.events
    monkeypatch.setattr(event_loop, "events", watch)
    monkeypatch.setattr(convex_pieces, "pieces_of", slow_for_the_slab)
    report, _ = call("validators=2", "object_code_list=[slab,brick]")
    assert report.exit_code == 0
    order = [
        (event["event"], event["code"]) for event in events(tmp_path / "x") if event["event"] in ("pieces", "merged")
    ]
    assert order == [("pieces", "brick"), ("merged", "brick"), ("pieces", "slab"), ("merged", "slab")]


@pytest.mark.slow
@pytest.mark.parametrize("error", [InputError("the slab has no inside"), RuntimeError("no pieces on order")])
def test_an_object_without_pieces_ends_by_name_and_the_others_go_on(call, monkeypatch, tmp_path, reference, error):
    find = convex_pieces.pieces_of

    def none_for_the_slab(mesh, config):
        if mesh.stem == "slab":
            raise error
        return find(mesh, config)

    monkeypatch.setattr(convex_pieces, "pieces_of", none_for_the_slab)
    report, found = call()
    assert report.exit_code == 3 and found == {"brick.h5": reference[QUOTA]["brick.h5"]}
    assert {one.code: one.end_reason for one in report.objects} == {"slab": "no_pieces", "brick": "quota"}
    assert "no convex pieces to be tested on: " in str(report) and str(error) in str(report)
    tries = [event for event in events(tmp_path / "x", "pieces") if event["code"] == "slab"]
    assert len(tries) == 1 and str(error) in tries[0]["reason"]
    assert not [event for event in events(tmp_path / "x", "sealed") if event["code"] == "slab"]
    monkeypatch.undo()
    again, found = call()
    assert again.exit_code == 0 and found == reference[QUOTA]


PARENT = """
import sys
if __name__ == "__main__":
    sys.path[:0] = sys.argv[3:]
    import quick_conf, scale
    from stub_rounds import Stub
    from stub_judge import StubJudge
    config = quick_conf.load(*sys.argv[2].split("\\t"), output_root=sys.argv[1])
    scale.run(config, maker=Stub(delay=0.05), judge=StubJudge(delay=0.01))
"""


@pytest.mark.slow
@pytest.mark.parametrize("victim", ["parent", "validator"])
def test_a_kill_in_the_middle_changes_no_byte(call, objects, tmp_path, reference, victim):
    script = tmp_path / "parent.py"
    script.write_text(PARENT)
    names = [f"object_root={objects}", "object_code_list=[slab,brick]", f"seed_base={SEED}", "gpus=[cpu]"]
    names += [f"target_count_per_object={QUOTA}", f"round_batch_size={BATCH}", "exp_name=x", "filter=physics"]
    command = [sys.executable, str(script), str(tmp_path), "\t".join([*names, "validators=2"])]
    parent = subprocess.Popen([*command, str(ROOT / "tests"), str(ROOT)], cwd=ROOT, stdout=subprocess.DEVNULL)
    folder, deadline = tmp_path / "x", time.monotonic() + 60
    while not (folder / "journal.jsonl").exists() or len(events(folder, "done")) < 2:
        assert time.monotonic() < deadline and parent.poll() is None
        time.sleep(0.01)
    if victim == "parent":
        parent.kill()
        parent.wait()
        assert call()[1] == reference[QUOTA]
        done = [(event["code"], event["round"]) for event in events(folder, "done")]
        assert len(done) == len(set(done))
    else:
        os.kill(_validator(parent.pid), signal.SIGKILL)
        assert parent.wait(60) == 0
        assert hashes(folder) == reference[QUOTA]
        assert [event["exitcode"] for event in events(folder, "died")] == [-9]


def _validator(parent):
    """The pid of a validator: a spawned child that holds the log of one open; so does Python's own resource tracker."""
    for pid in Path(f"/proc/{parent}/task/{parent}/children").read_text().split():
        is_spawned = b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes()
        if is_spawned and "validator_" in str(Path(f"/proc/{pid}/fd/1").readlink()):
            return int(pid)
    raise AssertionError("no validator runs")


def test_what_is_known_of_failed_grasps_is_in_the_key_of_verdicts_alone():
    for name, differing in (("physics", {"keep_failed"}), ("energy", set())):
        less, more = (fingerprints.acceptance_key(quick_conf.load(f"filter={name}", *keep)) for keep in ([], KEEP))
        assert {key for key in less if less[key] != more[key]} == differing and less.keys() == more.keys()


@pytest.mark.parametrize("keep", [[], KEEP])
def test_a_lost_grasp_is_pushed_on_where_it_is_kept(monkeypatch, keep):
    ways = []
    monkeypatch.setattr(evaluate, "evaluate_grasps", lambda *given: ways.append(given[-1]))
    monkeypatch.setattr(evaluate, "verdict_columns", lambda evaluation: {})
    monkeypatch.setattr("bimangrasp.objects.pieces.read_pieces", lambda path: Pieces((), "", 0, ""))
    config = quick_conf.load("filter=physics", "poses.largest_residual=0.3", *keep)
    hands = SimpleNamespace(names=())
    SimulatorRunner(config, hands).judge(ValidationTask(made_columns(0, 3), "", (1,)), print)
    assert ways == [Simulations(1, keep == [], 0.3, print, (1,))]
