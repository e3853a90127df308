"""Jobs of a sweep on a cluster: what is let through, what is refused, requeued jobs, exit codes. No SLURM is here."""

import os
import pickle
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from run_tools import events, hashes
from stub_rounds import Stub

import conf
import main
import scale
from bimangrasp.errors import InputError
from conf import launcher
from scale.controller.event_loop import Stop
from scale.store import locks
from scale.store.run_folder import RunFolder

ROOT = Path(__file__).resolve().parents[1]
SLURM = "hydra/launcher=submitit_slurm"


def test_a_launcher_and_its_settings_are_taken_out_of_the_command_line():
    chosen, rest = launcher.split(
        [SLURM, "mode=scale", "hydra.launcher.partition=gpu", "part=1/2,2/2", "+hydra.launcher.qos=high"]
        + ["hydra.launcher.additional_parameters.account=lab", "hydra.launcher.mem_gb=64"]
    )
    assert rest == ["mode=scale", "part=1/2,2/2"] and (chosen.name, chosen.executor) == ("submitit_slurm", "slurm")
    assert (chosen.settings["partition"], chosen.settings["mem_gb"], chosen.settings["qos"]) == ("gpu", 64, "high")
    assert chosen.settings["additional_parameters"] == {"account": "lab"}
    assert launcher.split(["mode=scale"]) == (None, ["mode=scale"])


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["hydra/launcher=submitit_slrm"], "did you mean 'submitit_slurm'"),
        ([SLURM, "hydra.launcher.partitoin=gpu"], "the launcher has partition, gpus_per_node"),
        (["hydra.launcher.partition=gpu"], "wanted hydra/launcher=submitit_slurm"),
        ([SLURM, "hydra.launcher.partition=a,b"], "wanted one value"),
        ([SLURM, "hydra.launcher.partition.x=1"], "has no keys below it"),
    ],
)
def test_what_cannot_be_meant_is_refused(overrides, message):
    with pytest.raises(InputError, match=message):
        launcher.split(overrides)


def test_a_launcher_of_ones_own(tmp_path):
    own = tmp_path / "hydra" / "launcher"
    own.mkdir(parents=True)
    (own / "lab.yaml").write_text("executor: slurm\npartition: gpu\n")
    (own / "bad.yaml").write_text("partition: gpu\n")
    assert launcher.split(["hydra/launcher=lab"], tmp_path)[0].settings == {"partition": "gpu"}
    with pytest.raises(InputError, match=r"bad.yaml: wanted executor: slurm or local"):
        launcher.split(["hydra/launcher=bad"], tmp_path)


def test_submitit_knows_every_setting_of_slurm():
    submitit = pytest.importorskip("submitit", reason="needs submitit")
    settings = launcher.split([SLURM])[0].settings
    shared = submitit.AutoExecutor._typed_parameters()
    assert set(launcher.OF_ANY_EXECUTOR) <= set(shared)
    valid = set(submitit.SlurmExecutor._valid_parameters()) | {"max_num_timeout"}
    assert set(settings) - set(launcher.OF_ANY_EXECUTOR) <= valid
    assert settings["signal_delay_s"] > conf.load([]).grace_s


def refused(monkeypatch, capsys, *arguments):
    monkeypatch.setattr(sys, "argv", ["main.py", *arguments])
    assert main.main() == 2
    return capsys.readouterr().err


def test_the_door(monkeypatch, capsys, tmp_path):
    assert "add -m" in refused(monkeypatch, capsys, SLURM)
    assert "Hydra's own settings are fixed" in refused(monkeypatch, capsys, "-m", "hydra/sweeper=basic")
    monkeypatch.setitem(sys.modules, "submitit", None)
    part = ["-m", SLURM, "part=1/2,2/2", f"output_root={tmp_path}"]
    assert "[slurm]" in refused(monkeypatch, capsys, *part)


def test_no_slurm_here_is_said(monkeypatch, capsys, tmp_path):
    pytest.importorskip("submitit", reason="needs submitit")
    monkeypatch.setenv("PATH", str(tmp_path))
    said = refused(monkeypatch, capsys, "-m", SLURM, "part=1/2,2/2", f"output_root={tmp_path}")
    assert "are you indeed on a slurm cluster" in said


@pytest.mark.slow
@pytest.mark.parametrize(("number", "calls"), [(signal.SIGUSR2, 1), (signal.SIGUSR1, 1), (signal.SIGTERM, 0)])
def test_who_may_queue_the_job_again_is_called_when_the_run_is_over(small_config, tmp_path, number, calls):
    folder, heard = RunFolder(tmp_path / "experiments" / "demo"), []

    def requeue(heard_number, _frame):
        heard.append((heard_number, locks.running(folder), events(folder)[-1]["event"]))

    config, before = small_config("target_count_per_object=4000"), signal.signal(number, requeue)
    os.environ["BIMANGRASP_TEST_PID"] = str(os.getpid())
    try:
        report = scale.run(config, maker=Signalling(delay=0.05, number=int(number)))
    finally:
        signal.signal(number, before)
    assert report.exit_code == 143 and heard == [(number, None, "end")] * calls


def test_a_requeue_signal_behind_a_sigterm_is_heard():
    heard, before = [], signal.getsignal(signal.SIGUSR2)
    signal.signal(signal.SIGUSR2, lambda number, _: heard.append(number))
    try:
        with Stop(conf.load([])) as stop:
            for number in (signal.SIGTERM, signal.SIGUSR2):
                os.kill(os.getpid(), number)
        stop.pass_on()
    finally:
        signal.signal(signal.SIGUSR2, before)
    assert stop.exit_code == 143 and heard == [signal.SIGUSR2]


def test_what_slurm_refuses_and_a_folder_that_cannot_be_made_are_one_sentence(monkeypatch, capsys, tmp_path):
    pytest.importorskip("submitit", reason="needs submitit")
    local = ["-m", "hydra/launcher=submitit_local", "part=1/2,2/2"]
    (tmp_path / "file").touch()
    said = refused(monkeypatch, capsys, *local, f"output_root={tmp_path / 'file' / 'x'}")
    assert said.startswith("error: hydra/launcher=submitit_local could not send the jobs") and said.count("\n") == 1
    for name, text in {"sbatch": "echo invalid partition specified: gpuu >&2; exit 1", "srun": "exit 0"}.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{text}\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    arguments = ["-m", SLURM, "hydra.launcher.partition=gpuu", "part=1/2,2/2", f"output_root={tmp_path / 'runs'}"]
    said = refused(monkeypatch, capsys, *arguments)
    assert said.splitlines()[-1].startswith("error: ") and said.endswith(": invalid partition specified: gpuu\n")


class Signalling(Stub):
    """Makes rounds, and signals the parent in the first."""

    def __init__(self, number=0, **rest):
        super().__init__(**rest)
        object.__setattr__(self, "number", number)

    def __call__(self, hand, synthesis):
        return self

    def load(self, device, threads):
        os.kill(int(os.environ["BIMANGRASP_TEST_PID"]), self.number)
        return super().load(device, threads)


ARGUMENTS = [
    "mode=scale",
    "exp_name=kitchen",
    "experiment=null",
    "filter=none",
    "gpus=[cpu]",
    "target_count_per_object=24",
]
ARGUMENTS += ["round_batch_size=4", "num_iterations=60"]
COMMAND = [sys.executable, str(ROOT / "main.py")]


def until(is_true, seconds=120):
    end = time.monotonic() + seconds
    while not is_true():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.1)


@pytest.mark.slow
def test_jobs_of_a_sweep_are_queued_again_and_end_as_one_machine_does(tmp_path):
    pytest.importorskip("submitit", reason="needs submitit")
    output = f"output_root={tmp_path / 'runs'}"
    sweep = subprocess.Popen(
        [*COMMAND, "-m", "hydra/launcher=submitit_local", "part=1/2,2/2", output, *ARGUMENTS],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=tmp_path,
    )
    folder = RunFolder(tmp_path / "runs" / "kitchen" / "part_1_of_2")
    try:
        until(lambda: len(events(folder, "done")) >= 1)
        os.kill(events(folder, "start")[0]["pid"], signal.SIGUSR2)
        said, _ = sweep.communicate(timeout=180)
    finally:
        sweep.kill()
    assert sweep.returncode == 0, said
    assert [event["exit_code"] for event in events(folder, "end")] == [143, 0]
    jobs = tmp_path / "runs" / "submitit" / "kitchen"
    assert sum("Requeued job" in log.read_text() for log in jobs.glob("*_log.out")) == 1
    assert "kitchen, part 1/2: ended with 0" in said and str(jobs) in said
    whole = subprocess.run(
        [*COMMAND, *ARGUMENTS, output, "exp_name=whole"], cwd=tmp_path, capture_output=True, check=False
    )
    assert whole.returncode == 0
    parts = [hashes(tmp_path / "runs" / "kitchen" / f"part_{number}_of_2") for number in (1, 2)]
    assert parts[0] | parts[1] == hashes(tmp_path / "runs" / "whole")


@pytest.mark.slow
def test_the_worst_job_is_the_commands_end_and_hides_no_other(tmp_path):
    pytest.importorskip("submitit", reason="needs submitit")
    quotas = tmp_path / "quotas.json"
    quotas.write_text('{"storage_bin": 40, "bowl": 4}')
    short = ["max_rounds=1", f"target_count_per_object={quotas}", f"output_root={tmp_path / 'runs'}"]
    command = [*COMMAND, "-m", "hydra/launcher=submitit_local", "part=1/2,2/2", *ARGUMENTS[:5], *ARGUMENTS[6:], *short]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 3, done.stdout + done.stderr
    assert "part 1/2: ended with 3" in done.stdout and "part 2/2: ended with 0" in done.stdout


def test_a_job_that_died_has_a_code_and_hides_no_other(tmp_path):
    class Died:
        class paths:
            stderr = "the.log"

        def exception(self):
            return RuntimeError("Job (task=0) failed\nkilled by the kernel")

    class Ended(Died):
        def exception(self):
            return None

        def result(self):
            return 3

    assert launcher._code(Ended()) == (3, "")
    assert launcher._code(Died()) == (1, ", for it died: killed by the kernel, see the.log")


def test_a_job_travels_and_is_the_same_when_queued_again(monkeypatch):
    submitit = pytest.importorskip("submitit", reason="needs submitit")
    config = conf.load(["exp_name=x", "part=1/2"])
    job, config = pickle.loads(pickle.dumps((launcher.Job(), config)))
    monkeypatch.setattr(launcher, "outcome", lambda given: 3 if given == config else 1)
    again = job.checkpoint(config)
    assert isinstance(again, submitit.helpers.DelayedSubmission) and again.result() == 3


def test_the_three_lines_to_edit_come_first():
    text = (ROOT / "conf" / "hydra" / "launcher" / "submitit_slurm.yaml").read_text()
    assert list(yaml.safe_load(text))[:3] == ["partition", "gpus_per_node", "timeout_min"]
