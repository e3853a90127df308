"""Whatever ends a command ends what it has started, and it leaves nothing in the folder for temporary files."""

import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
import types
from pathlib import Path

import numpy as np
import pytest
import trimesh

import conf
import scale
from scale import command

ROOT = Path(__file__).parents[1]


def until(is_true, seconds=60):
    end = time.monotonic() + seconds
    while not is_true():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.05)


def processes_of(text):
    """The pids of running processes whose command line has a text."""
    pids = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            line = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:  # it ended
            continue
        pids += [int(folder.name)] if text in line else []
    return pids


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_the_decomposition_of_a_mesh_and_leaves_no_folder(tmp_path, number):
    pytest.importorskip("coacd", reason="needs CoACD")
    rough = trimesh.creation.icosphere(subdivisions=5, radius=0.1)
    rough.vertices *= np.random.default_rng(0).uniform(0.7, 1.3, (len(rough.vertices), 1))
    (tmp_path / "meshes").mkdir()
    rough.export(tmp_path / "meshes" / "rough.obj")
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    arguments = [
        "mode=objects",
        f"object_root={tmp_path / 'meshes'}",
        f"out={tmp_path / 'out'}",
        "pieces.threshold=0.01",
    ]
    running = subprocess.Popen(
        [sys.executable, str(ROOT / "main.py"), *arguments],
        env=os.environ | {"TMPDIR": str(temporary)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        until(lambda: processes_of(f"coacd_process.py {temporary}") or running.poll() is not None)
        assert running.poll() is None, running.stdout.read()
        running.send_signal(number)
        assert running.wait(10) == 128 + number
        until(lambda: not processes_of(str(temporary)), 10)
    finally:
        running.kill()
    assert list(temporary.iterdir()) == [] and not list(tmp_path.glob("out/*"))


def boxes(folder, count):
    folder.mkdir()
    rng = np.random.default_rng(0)
    fine = trimesh.creation.icosphere(subdivisions=5)
    for number in range(count):
        fine.copy().apply_transform(np.diag([*rng.uniform(0.5, 1, 3), 1])).export(folder / f"ball{number}.stl")


@pytest.mark.slow
@pytest.mark.parametrize("arguments", [["mode=scale"], ["mode=scale", "dry_run=true"]])
def test_sigterm_while_meshes_are_checked_is_a_plain_end(tmp_path, arguments):
    boxes(tmp_path / "meshes", 100)  # more than one process checks
    settings = [f"object_root={tmp_path / 'meshes'}", "object_code_list=all", f"output_root={tmp_path / 'runs'}"]
    semaphores = set(Path("/dev/shm").glob("sem.*"))
    running = subprocess.Popen(
        [sys.executable, str(ROOT / "main.py"), *arguments, *settings, "gpus=[cpu]"],
        env=os.environ | {"BIMANGRASP_CACHE": str(tmp_path / "cache")},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        until(lambda: len(list(children_of(running.pid))) >= 2 or running.poll() is not None)
        time.sleep(1)
        started = list(children_of(running.pid))
        assert running.poll() is None, running.stdout.read()
        running.send_signal(signal.SIGTERM)
        assert running.wait(20) == 143
        until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in started), 10)
        assert [
            line
            for line in running.stdout.read().splitlines()
            if not line.startswith(("checking meshes", "start of", "plan of"))
        ] == []
    finally:
        running.kill()
    assert set(Path("/dev/shm").glob("sem.*")) <= semaphores and not (tmp_path / "runs").exists()


def children_of(pid):
    """The pids that a process has started and that run."""
    for path in Path(f"/proc/{pid}/task").glob("*/children"):
        yield from path.read_text().split()


def test_temporary_files_and_signals_are_as_before_when_a_mode_is_done(monkeypatch):
    seen = []

    def shows(_):
        path = tempfile.mkdtemp()
        seen.append((Path(path), signal.getsignal(signal.SIGTERM)))
        raise KeyboardInterrupt

    monkeypatch.setitem(command.SHOWN, "status", shows)
    before = tempfile.gettempdir(), signal.getsignal(signal.SIGTERM)
    assert command.outcome(conf.load(["mode=status"])) == 130
    assert (tempfile.gettempdir(), signal.getsignal(signal.SIGTERM)) == before
    (path, handler) = seen[0]
    assert not path.exists() and path.parent.name.startswith("bimangrasp_") and callable(handler)


def test_a_thread_touches_no_signal(monkeypatch, capsys):
    monkeypatch.setitem(command.SHOWN, "status", lambda _: f"handler {signal.getsignal(signal.SIGTERM)}")
    before, config = signal.getsignal(signal.SIGTERM), conf.load(["mode=status"])
    thread = threading.Thread(target=lambda: command.outcome(config))
    thread.start()
    thread.join()
    assert capsys.readouterr().out == f"handler {before}\n"


def test_a_terminal_that_is_closed_before_a_run_has_begun_ends_nothing(tmp_path):
    arguments = ["mode=scale", "object_code_list=[none_such]", f"output_root={tmp_path}"]
    running = subprocess.Popen([sys.executable, str(ROOT / "main.py"), *arguments], stderr=subprocess.PIPE, text=True)
    try:
        until(lambda: waits_with(running.pid, signal.SIGHUP) or running.poll() is not None)
        running.send_signal(signal.SIGHUP)
        assert running.wait(60) == 2 and "none_such" in running.stderr.read()
    finally:
        running.kill()


def waits_with(pid, number):
    """Whether a process blocks a signal."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("SigBlk")).split()[1], 16) >> (number - 1) & 1


def test_a_terminal_that_is_closed_at_the_door_of_a_run_ends_nothing(monkeypatch):
    def run(_):
        os.kill(os.getpid(), signal.SIGHUP)
        child = subprocess.run([sys.executable, "-c", "import os; os.kill(os.getpid(), 1)"])
        return types.SimpleNamespace(exit_code=child.returncode)

    monkeypatch.setattr(scale, "run", run)
    before = signal.getsignal(signal.SIGHUP)
    assert command.outcome(conf.load(["mode=scale"])) == 0
    assert signal.getsignal(signal.SIGHUP) == before


def test_a_mode_under_nohup_outlives_its_terminal(monkeypatch):
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    monkeypatch.setitem(command.SHOWN, "status", lambda _: os.kill(os.getpid(), signal.SIGHUP) or "it went on")
    try:
        assert command.outcome(conf.load(["mode=status"])) == 0
    finally:
        signal.signal(signal.SIGHUP, before)


def test_what_a_thread_has_just_begun_is_ended_too(tmp_path, monkeypatch):
    monkeypatch.setattr(command, "SWEEP_S", 0.0)
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    folder = tmp_path / f"{command.temporary_prefix()}x"
    (folder / "below").mkdir(parents=True)
    command._sweep(tmp_path)
    assert child.wait(20) == -signal.SIGKILL and not folder.exists()


def test_the_processes_of_a_command_are_found():
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    try:
        assert child.pid in command._children()
    finally:
        child.kill()
        child.wait()
    assert child.pid not in command._children()
