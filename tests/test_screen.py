"""What is shown is no reason to end: a pipe without a reader, a closed terminal."""

import errno
import io
import json
import os
import shlex
import signal
import subprocess
import sys
import threading
import time
import types
from pathlib import Path

import pytest
from documents import ROOT

import conf
import scale
from scale import command, screen
from scale.controller.run_report import Progress
from scale.screen import Screen, stage
from scale.store.run_folder import RunFolder

MAIN = [sys.executable, "main.py"]
SMALL = ["filter=none", "experiment=null", "round_batch_size=4", "target_count_per_object=6", "gpus=[cpu]"]
SMALL += ["hand.surface_points=100", "object.surface_points=100", "object.surface_samples_per_point=4", "exp_name=x"]


def piped(arguments, lines=1):
    """Runs the command into a pipe whose reader ends after some lines; returns exit code and stderr."""
    with subprocess.Popen([*MAIN, *arguments], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        for _ in range(lines):
            process.stdout.readline()
        process.stdout.close()
        stderr = process.stderr.read().decode()
        return process.wait(), stderr


@pytest.mark.parametrize("arguments", [["--help"], ["--cfg", "job"], ["dry_run=true"]])
def test_what_is_only_shown_ends_quietly_without_a_reader(tmp_path, arguments):
    code, stderr = piped([*arguments, f"output_root={tmp_path}"], lines=0)
    assert code == 0 and "Traceback" not in stderr and "BrokenPipe" not in stderr


@pytest.mark.slow
def test_a_run_goes_on_without_a_reader_and_its_log_has_all(tmp_path):
    code, stderr = piped([*SMALL, "num_iterations=2", f"output_root={tmp_path}"])
    folder = RunFolder(tmp_path / "x")
    assert code == 0 and "Traceback" not in stderr and "BrokenPipe" not in stderr
    assert json.loads(folder.manifest.read_bytes())["exit_code"] == 0
    assert "ended by quota" in folder.run_log.read_text() and "exit code 0" in folder.run_log.read_text()


@pytest.mark.slow
def test_a_closed_terminal_ends_no_run(tmp_path):
    command = [*MAIN, *SMALL, "num_iterations=300", f"output_root={tmp_path}"]
    folder = RunFolder(tmp_path / "x")
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, start_new_session=True) as process:
        deadline = time.monotonic() + 60
        while not (folder.journal.exists() and b'"ready"' in folder.journal.read_bytes()):
            assert time.monotonic() < deadline and process.poll() is None
            time.sleep(0.05)
        os.killpg(process.pid, signal.SIGHUP)  # the parent and its workers, as a terminal does
        assert process.wait(120) == 0
    assert json.loads(folder.manifest.read_bytes())["exit_code"] == 0


def test_other_errors_of_a_stream_are_raised(tmp_path):
    class Full:
        def write(self, text):
            raise OSError(errno.EINVAL, "Invalid argument")

    with pytest.raises(OSError, match="Invalid"):
        Screen(Full()).write("a")


def test_a_file_without_room_takes_what_it_can_and_that_is_said_once(monkeypatch, capfd):
    with Path("/dev/full").open("w", encoding="utf-8") as full:
        monkeypatch.setattr(sys, "stdout", full)
        with screen.lenient():
            for _ in range(3):
                print("shown")
                sys.stdout.flush()
        assert sys.stdout is full
    said = capfd.readouterr().err
    assert said.count("\n") == 1 and said.startswith("warning: stdout cannot be written (No space left on device)")


def shelled(arguments, streams):
    """Runs the command with streams as a shell spells them; returns its exit code."""
    line = f"exec {shlex.join([*MAIN, *arguments])} {streams}"
    return subprocess.run(["/bin/sh", "-c", line], cwd=ROOT, capture_output=True).returncode


@pytest.mark.parametrize("streams", [">&-", ">&- 2>&-", "2>&-", ">/dev/full 2>/dev/full"])
def test_closed_or_full_streams_change_no_exit_code(tmp_path, streams):
    assert shelled(["--help"], streams) == 0
    assert shelled(["mode=status", "exp_name=none_such", f"output_root={tmp_path}"], streams) == 2


def test_no_file_gets_the_number_of_a_closed_stream(tmp_path):
    code = "import os, sys; from scale.screen import lenient\nwith lenient(): print('shown'); "
    code += f"number = os.open({str(tmp_path / 'file')!r}, os.O_CREAT | os.O_WRONLY); "
    code += "sys.exit(os.get_inheritable(1) and number > 2)"
    command = [sys.executable, "-c", code]
    done = subprocess.run(["/bin/sh", "-c", f"exec {shlex.join(command)} <&- >&- 2>&-"], cwd=ROOT)
    assert done.returncode == 1 and not (tmp_path / "file").read_text()


@pytest.mark.slow
@pytest.mark.parametrize("streams", [">&-", ">/dev/full"])
def test_a_run_without_a_screen_goes_on_and_its_log_has_all(tmp_path, streams):
    assert shelled([*SMALL, "num_iterations=2", f"output_root={tmp_path}"], streams) == 0
    log = RunFolder(tmp_path / "x").run_log.read_text()
    assert "ended by quota" in log and "exit code 0" in log


class Terminal(io.StringIO):
    """A stream that says whether it is a terminal."""

    def __init__(self, is_live):
        super().__init__()
        self.isatty = lambda: is_live


@pytest.fixture
def spoken(monkeypatch):
    """A function that does something slow before a stream; returns what it showed of it."""
    for name in ("FIRST_S", "PLAIN_EVERY_S", "LIVE_EVERY_S"):
        monkeypatch.setattr(screen, name, 0.05)

    def show(work, is_live=False):
        monkeypatch.setattr(sys, "stderr", Terminal(is_live))
        assert work() in (None, 0), sys.stderr.getvalue()
        return sys.stderr.getvalue()

    return show


def wait_for_words(words):
    deadline = time.monotonic() + 20
    while words not in sys.stderr.getvalue():
        assert time.monotonic() < deadline, sys.stderr.getvalue()
        time.sleep(0.01)


def test_what_takes_long_says_how_far_it_is_and_on_what(spoken):
    def work():
        with stage("mode=objects"), stage("checking meshes", 3, "done") as checks:
            with checks.on("mug"):
                pass
            with checks.on("bowl"):
                wait_for_words("checking meshes, 1 of 3 done, for 0 min 00 s (at bowl for 0 min 00 s)\n")

    lines = spoken(work).splitlines()
    assert lines and not any("\x1b" in line or "mode=objects" in line for line in lines), "the innermost, plainly"


def test_what_is_quick_says_nothing_and_an_error_ends_it(spoken, monkeypatch):
    monkeypatch.setattr(screen, "FIRST_S", 60.0)

    def work():
        with pytest.raises(KeyError), stage("mode=report"), stage("reading"):
            raise KeyError
        assert not screen._speakers

    assert spoken(work) == "" and "progress" not in [thread.name for thread in threading.enumerate()]


def test_a_terminal_has_one_line_that_is_renewed_and_gone_at_the_end(spoken):
    def work():
        with stage("mode=validate " + 300 * "x"), stage("testing mug", 9, "grasps") as tests:
            for done in range(3):
                wait_for_words(f"testing mug, {done} of 9 grasps")
                tests.advance()

    shown = spoken(work, is_live=True)
    assert "\n" not in shown and shown.endswith("\x1b[K\r\x1b[K")


def test_the_start_of_a_run_speaks_until_its_progress_does(spoken, monkeypatch, tmp_path):
    def run(config):
        wait_for_words("start of mode=scale, for 0 min 00 s")
        progress = Progress(RunFolder(tmp_path), "a run")
        said = sys.stderr.getvalue()
        time.sleep(0.3)  # six lines
        assert sys.stderr.getvalue() == said
        progress.close()
        return types.SimpleNamespace(exit_code=0)

    (tmp_path / "logs").mkdir()
    monkeypatch.setattr(scale, "run", run)
    assert spoken(lambda: command.outcome(conf.load([]))).count("start of mode=scale") >= 1
    assert not screen._speakers


def test_every_mode_that_shows_speaks_while_it_works(spoken, monkeypatch):
    for mode in command.SHOWN:
        monkeypatch.setitem(command.SHOWN, mode, lambda _, mode=mode: wait_for_words(f"mode={mode}, for 0 min 00 s"))
        spoken(lambda mode=mode: command.outcome(conf.load([f"mode={mode}"])))
