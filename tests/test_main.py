"""The command line: dispatch, exit codes, sweeps, nothing left behind."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path
from types import SimpleNamespace

import pytest

import main
import scale
from bimangrasp.errors import InputError
from scale import command
from scale.errors import RunError
from scale.settings.schema import Config

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """run(*arguments, codes=..., raises=...) -> exit code; `run.seen` holds the settings that scale got."""
    seen: list[Config] = []
    monkeypatch.chdir(tmp_path)
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))

    def call(*arguments: str, codes: tuple[int, ...] = (0,), raises: BaseException | None = None) -> int:
        def stub(config: Config) -> SimpleNamespace:
            seen.append(config)
            if raises is not None:
                raise raises
            return SimpleNamespace(exit_code=codes[(len(seen) - 1) % len(codes)])

        monkeypatch.setattr(scale, "run", stub, raising=False)
        monkeypatch.setattr(sys, "argv", ["main.py", *arguments])
        return main.main()

    call.seen = seen
    yield call
    assert [path for path in tmp_path.rglob("*") if path.name not in ("temporary", "cache")] == []


def test_one_run_gets_its_settings(run):
    assert run("mode=scale", "exp_name=2026_11_20", "energy.w_pen=150") == 0
    (config,) = run.seen
    assert (config.exp_name, config.energy.w_pen) == ("2026_11_20", 150.0)


@pytest.mark.slow
@pytest.mark.parametrize("code", [3, 143])
def test_the_reports_exit_code_is_the_programs(run, code):
    assert run(codes=(code,)) == code


@pytest.mark.slow
@pytest.mark.parametrize("error", [InputError("no object"), RunError("broken"), KeyboardInterrupt(), TypeError("bug")])
def test_errors_have_their_exit_codes(run, capsys, error):
    assert run(raises=error) == {InputError: 2, RunError: 1, KeyboardInterrupt: 130, TypeError: 1}[type(error)]
    shown = capsys.readouterr().err
    assert ("Traceback" in shown) == isinstance(error, TypeError)
    if isinstance(error, InputError | RunError):
        assert shown == f"error: {error}\n"


@pytest.mark.slow
@pytest.mark.parametrize(
    "arguments",
    [
        ["seed_bas=3"],
        ["seed_base=x"],
        ["gpus=0,1"],
        ["-m", "seed_base=0,3"],
        ["-m", "exp_name=a,b"],
        ["-m", "seed_bas=0,3"],
        ["nonsense"],
        ["--config-name=x"],
        ["--config-dir=nowhere"],
        ["--help", "seed_bas=3"],
    ],
)
def test_usage_errors_end_with_2_before_anything_runs(run, capsys, arguments):
    assert run(*arguments) == 2
    assert capsys.readouterr().err.startswith("error: ")
    assert run.seen == []


@pytest.mark.slow
def test_a_sweep_runs_each_job_in_a_folder_of_its_own(run, capsys):
    assert run("-m", "mode=scale", "exp_name=s", "seed_base=0,50000000", "energy.w_pen=100,125") == 0
    assert [config.exp_name for config in run.seen] == [
        "s/energy.w_pen=100,seed_base=0",
        "s/energy.w_pen=125,seed_base=0",
        "s/energy.w_pen=100,seed_base=50000000",
        "s/energy.w_pen=125,seed_base=50000000",
    ]
    assert [config.energy.w_pen for config in run.seen] == [100, 125, 100, 125]
    assert "job 0: s/energy.w_pen=100,seed_base=0" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.parametrize(
    ("codes", "worst", "jobs"),
    [((0, 3), 3, 2), ((1, 3), 1, 2), ((143, 0), 143, 1)],
)
def test_a_sweep_ends_with_the_worst_outcome(run, codes, worst, jobs):
    assert run("-m", "energy.w_pen=1,2", codes=codes) == worst
    assert len(run.seen) == jobs


@pytest.mark.slow
def test_a_sweep_goes_on_after_an_error(run):
    assert run("-m", "energy.w_pen=1,2", raises=RuntimeError("broken")) == 1
    assert len(run.seen) == 2


@pytest.mark.slow
def test_flags_may_stand_between_overrides(run, tmp_path):
    (tmp_path / "temporary" / "experiment").mkdir()
    mine = tmp_path / "temporary" / "experiment" / "mine.yaml"
    mine.write_text("# @package _global_\nnum_iterations: 7\n")
    assert run("experiment=mine", "--config-dir", "temporary", "exp_name=x") == 0
    assert run("exp_name=x", "-m", "energy.w_pen=1,2", "--config-dir", "temporary", "experiment=mine") == 0
    assert [config.num_iterations for config in run.seen] == [7, 7, 7]
    assert run.seen[-1].exp_name == "x/energy.w_pen=2,experiment=mine"
    mine.unlink()
    mine.parent.rmdir()


@pytest.mark.slow
def test_status_generate_and_plan(run, monkeypatch, capsys):
    monkeypatch.setattr(scale, "status", lambda folder: f"status of {folder}", raising=False)
    monkeypatch.setattr(scale, "plan", lambda config: f"plan of {config.exp_name}", raising=False)
    assert run("mode=status", "exp_name=x") == 0
    assert run("dry_run=true") == 0
    assert run.seen == []
    assert run("mode=generate") == 0 and [config.mode for config in run.seen] == ["generate"]
    assert capsys.readouterr().out.splitlines() == [
        "status of data/experiments/x",
        "plan of demo",
    ]


def test_validate_prints_its_table(run, monkeypatch, capsys):
    monkeypatch.setitem(command.SHOWN, "validate", lambda config: f"{config.validation.name} of {config.path}")
    assert run("mode=validate", "validation=paper", "path=mug.npy", "filter=energy", "gpus=[3]") == 0
    assert capsys.readouterr().out == "paper of mug.npy\n" and run.seen == []


@pytest.mark.slow
def test_export_and_import_print_what_they_made(run, monkeypatch, capsys):
    monkeypatch.setitem(command.SHOWN, "export", lambda config: f"{config.format} of {config.path}")
    monkeypatch.setitem(command.SHOWN, "import", lambda config: f"{config.path} in {config.out}")
    assert run("mode=export", "format=csv", "path=final/mug.h5") == 0
    assert run("mode=import", "path=mug.npy", "out=mine.h5") == 0
    assert capsys.readouterr().out.splitlines() == ["csv of final/mug.h5", "mug.npy in mine.h5"]
    assert run("mode=export", "format=xml") == 2
    assert run.seen == []


def test_the_settings_can_be_shown(run, capsys):
    assert run("--cfg", "job", "energy.w_pen=150") == 0
    assert "w_pen: 150" in capsys.readouterr().out
    assert run.seen == []


@pytest.mark.slow
def test_help_names_modes_choices_and_settings(run, capsys):
    run("--help")
    shown = capsys.readouterr().out
    for word in ("mode=scale", "-m", "w_pen: 125.0"):
        assert word in shown
    for group in ("experiment", "filter", "hand", "validation"):
        choices = sorted(path.stem for path in (ROOT / "conf" / group).glob("*.yaml"))
        assert f"{group}: {', '.join(choices)}" in shown


@pytest.mark.slow
def test_the_program_itself_ends_with_2_and_the_nearest_key(tmp_path):
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, str(ROOT / "main.py"), "mode=scale", "seed_bas=3"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 2
    assert "did you mean 'seed_base'" in done.stderr and "Traceback" not in done.stderr
