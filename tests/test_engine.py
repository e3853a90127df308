"""Workers as processes: rounds come back sealed, any death is noticed, nothing outlives the parent."""

import os
import pickle
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from stub_rounds import Stub

from bimangrasp.errors import InputError
from bimangrasp.files.formats import Header
from scale.engine import devices as device_room
from scale.engine.devices import Device
from scale.engine.interfaces import Died, Failed, Ready, RoundJob, Sealed, Step
from scale.engine.pool import Crew, events
from scale.engine.process_pool import LocalEngine, child_environment
from scale.engine.worker import SYNTHESIS
from scale.store import locks, shards
from scale.store.run_folder import WORKER, RunFolder

HEADER = Header("", 0, "", Stub().hand_table(), {}, {}, {})
CPU = Device("cpu", "")
ROOT = Path(__file__).resolve().parents[1]


def job(round_id):
    names = {"code": "mug", "index": 1, "mesh": "mug.obj", "mesh_sha256": "cd" * 32}
    return RoundJob(**names, round_id=round_id, seed=100 + round_id, attempt=0, tile=8)


def crew(stub, **limits):
    return Crew(SYNTHESIS, pickle.dumps(stub), HEADER, 1, **({"startup_s": 600, "heartbeat_s": 300} | limits))


@pytest.fixture
def engine_of(tmp_path):
    folder, made = RunFolder(tmp_path), []
    folder.prepare()

    def build(stub, devices=(CPU,), **limits):
        made.append(LocalEngine({WORKER: devices}))
        return folder, made[-1].pool(folder, crew(stub, **limits))

    yield build
    for engine in made:
        engine.close()


def next_event(engine, kind, within=60.0):
    """The next event of this kind; steps in between are left out."""
    deadline = time.monotonic() + within
    while time.monotonic() < deadline:
        for event in events([engine], 0.2):
            if type(event.message) is kind:
                return event
            assert isinstance(event.message, Step | Ready), event
    raise AssertionError(f"no {kind.__name__} within {within} s")


@pytest.mark.slow
def test_rounds_come_back_sealed_with_bytes_that_know_no_worker(engine_of):
    folder, engine = engine_of(Stub(), (CPU, CPU))
    paths = []
    for slot in (0, 1):
        engine.start(slot)
        assert next_event(engine, Ready).message.platform == {"kernels": "stub-1"}
    for one in engine.idle():
        engine.assign(one, job(3))
    for _ in range(2):
        paths.append(folder.root / next_event(engine, Sealed).message.path)
    assert paths[0].parent != paths[1].parent and paths[0].read_bytes() == paths[1].read_bytes()
    shard = shards.verify(paths[0])
    assert (shard.round_id, shard.seed, shard.header.object_index) == (3, 103, 1)
    assert len(engine.idle()) == 2 and engine.busy() == []


def test_a_round_that_raises_leaves_the_worker_alive_and_tells_its_traceback(engine_of, tmp_path):
    _, engine = engine_of(Stub(faults={("mug", 0): ["raise"]}, marks=str(tmp_path)))
    one = engine.start(0)
    next_event(engine, Ready)
    engine.assign(one, job(0))
    assert "fault on order" in next_event(engine, Failed).message.traceback
    assert "fault on order" in engine.log_of(0).read_text()
    engine.assign(one, job(0))
    assert next_event(engine, Sealed).process is one


@pytest.mark.slow
@pytest.mark.parametrize("fault, exitcode", [("kill", -9), ("segv", -11), ("exit", 7)])
def test_any_death_is_noticed_with_the_round_it_had(engine_of, tmp_path, fault, exitcode):
    _, engine = engine_of(Stub(faults={("mug", 0): [fault]}, marks=str(tmp_path)))
    one = engine.start(0)
    next_event(engine, Ready)
    engine.assign(one, job(0))
    event = next_event(engine, Died)
    assert event.message.exitcode == exitcode and event.process.job.round_id == 0
    assert engine.workers == {} and engine.start(0).launch == 1


def test_a_kill_from_outside_is_noticed_within_a_second(engine_of):
    _, engine = engine_of(Stub(delay=60))
    one = engine.start(0)
    next_event(engine, Ready)
    engine.assign(one, job(0))
    next_event(engine, Step)
    start = time.monotonic()
    os.kill(one.pid, signal.SIGKILL)
    next_event(engine, Died)
    assert time.monotonic() - start < 1


@pytest.mark.slow
def test_a_worker_that_cannot_load_dies_with_its_reason_in_the_log(engine_of):
    _, engine = engine_of(Stub(broken=True))
    one = engine.start(0)
    died = next_event(engine, Died).message
    assert died.exitcode == 1 and not one.is_ready
    assert "the stub cannot load its hands" in died.log


def test_the_optimizer_is_loaded_by_the_worker_that_uses_it_and_not_with_its_module():
    modules = ("torch", "mujoco")
    code = (
        f"import sys, scale.engine.synthesizer, scale.engine.worker; print([name in sys.modules for name in {modules}])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["[False,", "False]"]


def test_workers_ignore_the_terminals_signals(engine_of):
    _, engine = engine_of(Stub(delay=0.1))
    one = engine.start(0)
    next_event(engine, Ready)
    engine.assign(one, job(0))
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2):
        os.kill(one.pid, number)
    next_event(engine, Sealed)


def test_the_parents_output_is_its_own_again_after_a_start(engine_of, capfd):
    folder, engine = engine_of(Stub())
    engine.start(0)
    os.write(1, b"the parent's words")
    assert "the parent's words" in capfd.readouterr().out
    assert "the parent's words" not in folder.worker_log(0).read_text()


def test_the_environment_is_the_childs_alone(engine_of, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "7")
    before = dict(os.environ)
    _, engine = engine_of(Stub())
    one = engine.start(0)
    assert dict(os.environ) == before
    next_event(engine, Ready)
    child = Path(f"/proc/{one.pid}/environ").read_bytes().split(b"\0")
    assert {b"CUDA_VISIBLE_DEVICES=", b"OMP_NUM_THREADS=1", b"CUBLAS_WORKSPACE_CONFIG=:4096:8"} <= set(child)
    assert child_environment(Device("gpu 1", "GPU-ab"), 2)["CUDA_VISIBLE_DEVICES"] == "GPU-ab"


PARENT = """
import os, pickle, sys
sys.path.insert(0, sys.argv[2])
from stub_rounds import Stub
from test_engine import CPU, crew
from scale.engine.interfaces import RoundJob
from scale.engine.pool import events
from scale.engine.process_pool import ProcessPool
from scale.store.run_folder import RunFolder
if __name__ == "__main__":
    folder = RunFolder(sys.argv[1])
    folder.prepare()
    silent = Stub(faults={("m", 0): ["slow:600"]}, marks=sys.argv[1])  # so that no broken pipe ends it
    pool = ProcessPool(folder, crew(silent), {0: CPU})
    one = pool.start(0)
    while not one.is_ready:
        list(events([pool], 1))
    names = dict(code="m", index=0, mesh="", mesh_sha256="")
    pool.assign(one, RoundJob(**names, round_id=0, seed=1, attempt=0, tile=8))
    print(one.pid, flush=True)
    sys.stdin.read()
"""


@pytest.mark.slow
def test_a_worker_ends_with_its_killed_parent_and_the_next_start_sees_it_gone(tmp_path):
    script = tmp_path / "parent.py"
    script.write_text(PARENT)
    root = tmp_path / "run"
    parent = subprocess.Popen(
        [sys.executable, str(script), str(root), str(Path(__file__).parent)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=Path(__file__).parents[1],
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])},
    )
    pid = int(parent.stdout.readline())
    with pytest.raises(InputError, match=str(pid)):
        locks.wait_for_orphans(RunFolder(root), wait_s=0)
    parent.kill()
    parent.wait()
    start = time.monotonic()
    locks.wait_for_orphans(RunFolder(root), wait_s=10)
    assert time.monotonic() - start < 1


def test_gpus_are_counted_and_mapped_through_the_list_that_is_set(monkeypatch):
    import torch

    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-aa, 5")
    assert device_room.resolve_devices([1, "cpu", 0]) == [Device("gpu 1", "5"), CPU, Device("gpu 0", "GPU-aa")]
    assert device_room.resolve_devices("auto") == [Device("gpu 0", "GPU-aa"), Device("gpu 1", "5")]
    with pytest.raises(InputError, match="device 2.*devices 0 to 1.*GPU-aa, 5"):
        device_room.resolve_devices([0, 2])
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    assert set(device_room.resolve_devices("auto")) == {CPU} and len(device_room.resolve_devices("auto")) <= 4
    with pytest.raises(InputError, match="no GPU"):
        device_room.resolve_devices(0)
