"""Workers as processes of this machine: what every engine holds, and that nothing outlives the parent."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from engine_laws import EngineLaws, crew, job, next_event
from stub_rounds import Stub

from bimangrasp.errors import InputError
from scale.engine import devices as device_room
from scale.engine.devices import Device
from scale.engine.interfaces import Died, Ready, Sealed, Step
from scale.engine.process_pool import LocalEngine, child_environment
from scale.store import locks
from scale.store.run_folder import WORKER, RunFolder

CPU = Device("cpu", "")
ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def engine_of(tmp_path):
    folder, made = RunFolder(tmp_path), []
    folder.prepare()

    def build(stub, slots=1, **limits):
        made.append(LocalEngine({WORKER: [CPU] * slots}))
        return folder, made[-1].pool(folder, crew(stub, **limits))

    yield build
    for engine in made:
        engine.close()


class TestProcesses(EngineLaws):
    """The laws, with processes of this machine."""


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
from engine_laws import crew
from scale.engine.interfaces import RoundJob
from scale.engine.pool import events
from scale.engine.devices import Device
from scale.engine.process_pool import ProcessPool
from scale.store.run_folder import RunFolder
if __name__ == "__main__":
    folder = RunFolder(sys.argv[1])
    folder.prepare()
    silent = Stub(faults={("m", 0): ["slow:600"]}, marks=sys.argv[1])  # so that no broken pipe ends it
    pool = ProcessPool(folder, crew(silent), {0: Device("cpu", "")})
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


@pytest.mark.parametrize(
    "name, value, is_named",
    [
        ("CUDA_VISIBLE_DEVICES", "nonsense", True),
        ("CUDA_VISIBLE_DEVICES", "0", True),
        ("CUDA_VISIBLE_DEVICES", "", False),
        ("CUDA_VISIBLE_DEVICES", "-1", False),
        ("SLURM_JOB_GPUS", "0", True),
        ("SLURM_GPUS", "2", True),
        ("SLURM_GPUS_ON_NODE", "2", True),
        ("SLURM_GPUS_ON_NODE", "0", False),
        ("NOTHING", "1", False),
    ],
)
def test_workers_on_cpus_are_told_of_where_a_scheduler_has_given_gpus(monkeypatch, name, value, is_named):
    for known in device_room.GIVEN_GPUS:
        monkeypatch.delenv(known, raising=False)
    monkeypatch.setenv(name, value)
    note = device_room.unseen_gpus([CPU, CPU])
    assert bool(note) == is_named and (not note or f"{name}={value} speaks of GPUs" in note)
    assert device_room.unseen_gpus([Device("gpu 0", "0")]) == ""


def test_gpus_alone_are_all_gpus_and_no_run_without_one(monkeypatch):
    import torch

    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert device_room.resolve_devices("gpu") == [Device("gpu 0", "0"), Device("gpu 1", "1")]
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    with pytest.raises(InputError, match="gpus=gpu wants all GPUs, but this process sees no GPU .*gpus=auto"):
        device_room.resolve_devices("gpu")
