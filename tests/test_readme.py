"""The README says what is there."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from dataclasses import fields, is_dataclass, replace
from pathlib import Path

import h5py
import pytest

import bimangrasp
import conf
import scale
from bimangrasp.validation.summary import HEADINGS
from conf import sweep
from scale.controller.run_report import RunReport
from scale.modes.export import SUFFIXES
from scale.settings import fingerprints
from scale.viewer import page as view_page

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text()
PYTHON = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


def keys_of(record: object, prefix: str = "") -> set[str]:
    """Every dotted key of the configuration."""
    found = set()
    for field in fields(record):
        found.add(prefix + field.name)
        value = getattr(record, field.name)
        if is_dataclass(value):
            found |= keys_of(value, f"{prefix}{field.name}.")
    return found


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    """A run of two objects as the reading example expects it, made with few steps."""
    folder = tmp_path_factory.mktemp("readme")
    small = ["num_iterations=2", "round_batch_size=4", "target_count_per_object=6", "gpus=[cpu]"]
    small += ["object.surface_samples_per_point=4", "object.surface_points=100", "hand.surface_points=100"]
    report = scale.run(conf.load([*small, f"output_root={folder}/data/experiments"]))
    assert report.exit_code == 0
    return folder


def test_the_reading_example_reads(demo):
    done = subprocess.run([sys.executable, "-c", PYTHON[0]], cwd=demo, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "bowl 6 grasps" in done.stdout and "storage_bin 6 grasps" in done.stdout
    assert len(PYTHON[0].strip().splitlines()) <= 12


def test_the_loading_example_loads(demo):
    done = subprocess.run([sys.executable, "-c", PYTHON[1]], cwd=demo, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("12 ('bowl', 'storage_bin') rad (2, 22)")
    assert (demo / "left.stl").stat().st_size > 1000
    assert len(PYTHON[1].strip().splitlines()) <= 12


def test_the_commands_of_export_and_import_do_what_they_say(demo):
    small = ["object.surface_points=100", "object.surface_samples_per_point=4", "hand.surface_points=100"]
    for mode in ("export", "import"):
        (line,) = re.findall(rf"python main.py (mode={mode} .*)", README)
        command = [sys.executable, str(ROOT / "main.py"), *line.split("#")[0].split(), *small]
        done = subprocess.run(command, cwd=demo, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    assert len(bimangrasp.load(demo / "data/experiments/demo/export/npy/bowl.h5")) == 6


def test_a_run_is_viewed_as_described(demo, monkeypatch):
    lines = [line.partition("#")[0] for line in README.splitlines() if line.startswith("python main.py mode=view")]
    commands = [shlex.split(line)[2:] for line in lines]
    configs = [conf.load([*command, f"output_root={demo}/data/experiments"]) for command in commands]
    assert len(configs) == 2
    monkeypatch.setattr(view_page, "why_nothing_is_drawn", lambda: "not in this test")
    monkeypatch.chdir(demo)
    for config in configs:
        assert scale.view(config).path.is_file()
    assert (demo / "data/experiments/demo/view/index.html").is_file()
    assert (demo / "data/experiments/demo/final/bowl.html").is_file()


def test_the_formats_are_listed():
    table = README.split("| `format` |")[1].split("\n\n")[0]
    listed = [name for line in table.splitlines()[2:] for name in re.findall(r"`([a-z]+)`", line.split("|")[1])]
    assert listed == list(SUFFIXES)


def test_a_run_leaves_what_is_listed(demo):
    run = demo / "data" / "experiments" / "demo"
    listed = README.split("<exp_name>/\n")[1].split("```")[0]
    for name in ("dataset.h5", "manifest.json", "journal.jsonl", "config.yaml", "logs", "final", "shards"):
        assert name in listed and (run / name).exists(), name


def test_the_journals_events_are_listed():
    source = "".join(path.read_text() for path in (ROOT / "scale").rglob("*.py"))
    calls = re.findall(r"(?:_journal|book)\.append\(\s*([^,)]+)", source)
    written = {name for call in calls for name in re.findall(r'"([a-z_]+)"', call)}
    listed = set(re.findall(r"`([a-z_]+)`", README.split("The journal's events:")[1].split("\n\n")[0]))
    assert len(written) > 12 and listed == written


def test_limits_are_in_no_key():
    config = conf.load([])
    named = re.search(r"limits \((.*?)\) and timeouts may change", README)[1].replace("`", "").split(", ")
    changed = replace(config, **{name: getattr(config, name) + 1 for name in named})
    assert "max_barren_rounds" in named
    assert fingerprints.run_key(config, "", 1) == fingerprints.run_key(changed, "", 1)
    assert fingerprints.acceptance_key(config) == fingerprints.acceptance_key(changed)


def test_the_script_example_is_valid_up_to_the_run():
    used = re.findall(r"report\.(\w+)", PYTHON[2])
    assert used and all(hasattr(RunReport, name) or name in RunReport.__dataclass_fields__ for name in used)
    source = re.sub(r"report = scale.run\((.*)\)\n.*", r"print(\1)", PYTHON[2])
    done = subprocess.run([sys.executable, "-c", source], capture_output=True, text=True)
    assert done.returncode == 0 and "exp_name='mugs'" in done.stdout, done.stderr


def test_every_command_composes(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "hand").mkdir()
    (tmp_path / "hand" / "my_hand.yaml").write_text((ROOT / "conf" / "hand" / "shadow.yaml").read_text())
    blocks = "\n".join(re.findall(r"```bash\n(.*?)```", README, re.DOTALL)).replace("\\\n", " ")
    lines = [line for line in blocks.splitlines() if "python main.py" in line]
    for line in lines:
        words = shlex.split(line.partition("python main.py ")[2], comments=True)
        folder = words.pop(words.index("--config-dir") + 1) if "--config-dir" in words else None
        if "-m" in words:
            assert len(sweep.jobs([word for word in words if word != "-m"], folder)) > 1
        else:
            conf.load([word for word in words if word != "--config-dir"], folder)
    assert len(lines) > 12


def test_every_named_key_exists():
    commands = " ".join(re.findall(r"```bash\n(.*?)```", README, re.DOTALL))
    named = set(re.findall(r"(?<=[ '])([a-z_.]+)=", commands)) | set(re.findall(r"`([a-z_]+\.[a-z_]+)`", README))
    table = README.split("| Key |")[1].split("##")[0]
    named |= {key.partition("=")[0] for key in re.findall(r"`([a-z_.]+(?:=[a-z]+)?)`", table)}
    words = {"auto", "all", "none", "energy", "firm", "physics", "default"}  # values of keys
    named = {key for key in named if not key.endswith((".json", ".md", ".py", ".h5"))} - words
    assert len(named) > 15 and named <= keys_of(conf.load()) | {"experiment"}


def test_every_named_dataset_exists(demo):
    with h5py.File(demo / "data/experiments/demo/final/bowl.h5") as file:
        datasets = re.findall(r"`((?:hand|contact|energy|rounds|curve)/[a-z]+|object_scale|seed|round|row)`", README)
        assert len(datasets) > 8 and all(name in file for name in datasets)
        sentence = README.split("of a final file also")[1].split(".\n")[0]
        named = set(re.findall(r"`([a-z_]+)`", sentence))
        assert "rejected" in named
        assert {"joint_names", "candidate_link", "candidate_position"} | named <= set(file.attrs)


def test_a_run_is_validated_as_described(demo):
    lines = [line.partition("#")[0] for line in README.splitlines() if line.startswith("python main.py mode=validate")]
    commands = [shlex.split(line)[2:] for line in lines]
    assert len([conf.load(command) for command in commands]) == 3
    quick = ["pieces.convex_tolerance=1", "validation.trial.looks=1", "validation.trial.stages=1"]
    here = ["exp_name=demo", "object_root=''", f"output_root={demo}/data/experiments"]
    report = scale.validate(conf.load([*commands[0], *quick, *here]))
    columns = re.findall(r"^\| ([A-Za-z, ]+) \|", README.split("| Column |")[1].split("\n\n")[0], re.MULTILINE)
    described = {name for column in columns for name in column.split(", ")}
    assert {heading.removesuffix(" mm") for heading in HEADINGS} == described | {"object"}
    assert str(report).splitlines()[1].startswith("bowl ")
    run = demo / "data" / "experiments" / "demo"
    assert report.paths == [run / "verdicts" / "bench" / f"{code}.h5" for code in ("bowl", "storage_bin")]


def test_the_commands_about_how_it_went_do_what_they_say(demo):
    (page, *others) = re.findall(
        r"python main.py (mode=(?:report|scale|generate) .*)", README.split("## How did it go?")[1].split("```")[1]
    )
    command = [sys.executable, str(ROOT / "main.py"), *page.split("#")[0].split()]
    done = subprocess.run(command, cwd=demo, capture_output=True, text=True)
    assert done.returncode == 0 and "Finished: every object has its quota." in done.stdout, done.stderr
    assert (demo / "data/experiments/demo/report.html").is_file()
    logged, filmed = (conf.load(shlex.split(line.split("#")[0])) for line in others)
    assert logged.logger == "tensorboard" and filmed.recording.rows == (0, 1)
    for line in re.findall(r"^python main.py (.*)", (ROOT / "docs" / "report.md").read_text(), re.MULTILINE):
        assert conf.load(shlex.split(line.split("#")[0])).mode == "report"


def test_the_first_screen_has_picture_and_commands():
    first = "\n".join(README.splitlines()[:40])
    picture = re.search(r"!\[.*?\]\((.*?)\)", first)
    assert picture and (ROOT / picture[1]).is_file()
    assert "pip install -e . && python main.py mode=scale" in first and "pip install -e '.[dev]' && pytest" in first
