"""What is shown is no reason to end: a pipe without a reader, a closed terminal."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest
from documents import ROOT

from scale.screen import Screen
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
            raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space"):
        Screen(Full()).write("a")
