"""README and docs/ do what they say: their examples and commands are run on a small data set."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from dataclasses import replace

import pytest
from documents import PAGES, README, ROOT, blocks, commands

import bimangrasp
import conf
import scale
from bimangrasp.validation.summary import HEADINGS
from scale.controller.run_report import RunReport
from scale.modes.paths import SUFFIXES
from scale.settings import fingerprints
from scale.viewer import page as view_page

RUNS, LOADING, VALIDATION = (PAGES[f"docs/{name}.md"] for name in ("runs", "loading", "validation"))
MAIN = [sys.executable, str(ROOT / "main.py")]


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    """A run of two objects as the reading example expects it, made with few steps."""
    folder = tmp_path_factory.mktemp("readme")
    small = ["num_iterations=2", "round_batch_size=4", "target_count_per_object=6", "gpus=[cpu]"]
    small += ["object.surface_samples_per_point=4", "object.surface_points=100", "hand.surface_points=100"]
    small += ["experiment=null", "filter=none"]
    report = scale.run(conf.load([*small, f"output_root={folder}/data/experiments"]))
    assert report.exit_code == 0
    return folder


def test_the_first_screen_says_what_it_makes_and_has_picture_and_commands():
    first = "\n".join(README.splitlines()[:40])
    assert "bimangrasp generates data sets of two-handed dexterous grasps" in first
    picture = re.search(r"!\[.*?\]\((.*?)\)", first)
    assert picture and (ROOT / picture[1]).is_file()
    assert "pip install -e . && python main.py mode=scale" in first and "pip install -e '.[dev]' && pytest" in first


def test_the_readme_is_short():
    assert len(README.splitlines()) <= 150


def test_the_modes_are_listed():
    table = README.split("| Mode |")[1].split("\n\n")[0]
    listed = re.findall(r"`mode=([a-z]+)`", table)
    config = (ROOT / "conf" / "config.yaml").read_text()
    assert sorted(listed) == sorted(re.search(r"mode=([a-z|]+) \[key", config)[1].split("|"))


@pytest.mark.slow
@pytest.mark.slow
def test_the_reading_example_reads(demo):
    (example,) = blocks(README, "python")
    done = subprocess.run([sys.executable, "-c", example], cwd=demo, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "bowl 6 grasps" in done.stdout and "storage_bin 6 grasps" in done.stdout
    assert len(example.strip().splitlines()) <= 12


@pytest.mark.slow
@pytest.mark.slow
def test_the_loading_example_loads(demo):
    (example,) = blocks(LOADING, "python")
    done = subprocess.run([sys.executable, "-c", example], cwd=demo, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("12 ('bowl', 'storage_bin') rad (2, 22)")
    assert (demo / "left.stl").stat().st_size > 1000
    assert len(example.strip().splitlines()) <= 12


@pytest.mark.slow
def test_the_script_example_is_valid_up_to_the_run():
    (script,) = blocks(PAGES["docs/usage.md"], "python")
    used = re.findall(r"report\.(\w+)", script)
    assert used and all(hasattr(RunReport, name) or name in RunReport.__dataclass_fields__ for name in used)
    source = re.sub(r"report = scale.run\((.*)\)\n.*", r"print(\1)", script)
    done = subprocess.run([sys.executable, "-c", source], capture_output=True, text=True)
    assert done.returncode == 0 and "exp_name='mugs'" in done.stdout, done.stderr


def test_the_functions_of_python_are_listed():
    paragraph = PAGES["docs/usage.md"].split("Each mode has a function in `scale`:")[1].split("They return")[0]
    assert set(re.findall(r"`([a-z_]+)`", paragraph)) == set(scale.__all__)


@pytest.mark.slow
@pytest.mark.slow
def test_the_commands_of_export_and_import_do_what_they_say(demo):
    small = ["object.surface_points=100", "object.surface_samples_per_point=4", "hand.surface_points=100"]
    for mode in ("export", "import"):
        (words,) = commands(LOADING, mode)
        done = subprocess.run([*MAIN, *words, *small], cwd=demo, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    assert len(bimangrasp.load(demo / "data/experiments/demo/export/npy/bowl.h5")) == 6


def test_the_formats_are_listed():
    table = LOADING.split("| `format` |")[1].split("\n\n")[0]
    listed = [name for line in table.splitlines()[2:] for name in re.findall(r"`([a-z]+)`", line.split("|")[1])]
    assert listed == list(SUFFIXES)


@pytest.mark.slow
@pytest.mark.slow
def test_a_run_is_viewed_as_described(demo, monkeypatch):
    monkeypatch.setattr(view_page, "why_nothing_is_drawn", lambda: "not in this test")
    monkeypatch.chdir(demo)
    words = commands(PAGES["docs/viewer.md"], "view")
    assert len(words) == 2
    for command in words:
        assert scale.view(conf.load([*command, f"output_root={demo}/data/experiments"])).path.is_file()
    assert (demo / "data/experiments/demo/view/index.html").is_file()
    assert (demo / "data/experiments/demo/final/bowl.html").is_file()


@pytest.mark.slow
@pytest.mark.slow
def test_a_run_leaves_what_is_listed_and_nothing_else(demo):
    listed = RUNS.split("<exp_name>/\n")[1].split("```")[0]
    for path in (demo / "data" / "experiments" / "demo").iterdir():
        assert re.search(rf"(^|  ){re.escape(path.name)}\b", listed, re.MULTILINE), path.name
    for name in ("dataset.h5", "manifest.json", "journal.jsonl", "config.yaml", "logs", "final", "shards"):
        assert name in listed and (demo / "data" / "experiments" / "demo" / name).exists(), name


def test_the_journals_events_are_listed():
    table = RUNS.split("| Event | When | Fields |\n")[1].split("\n\n")[0]
    assert set(re.findall(r"^\| `([a-z_]+)` \|", table, re.MULTILINE)) == journal_events()


def journal_events() -> set[str]:
    """Returns the names of all events, by their classes, or by what the code appends where there are none."""
    if importlib.util.find_spec("scale.store.events"):
        return set(importlib.import_module("scale.store.events").EVENTS)
    source = "".join(path.read_text() for path in (ROOT / "scale").rglob("*.py"))
    calls = re.findall(r"(?:_journal|book)\.append\(\s*([^,)]+)", source)
    names = {name for call in calls for name in re.findall(r'"([a-z_]+)"', call)}
    assert len(names) > 12
    return names


def test_limits_are_in_no_key():
    config = conf.load([])
    named = re.search(r"limits \((.*?)\) and timeouts may change", RUNS)[1].replace("`", "").split(", ")
    changed = replace(config, **{name: getattr(config, name) + 1 for name in named})
    assert "max_barren_rounds" in named
    assert fingerprints.run_key(config, "", 1) == fingerprints.run_key(changed, "", 1)
    assert fingerprints.acceptance_key(config) == fingerprints.acceptance_key(changed)


def test_the_filters_are_listed():
    table = PAGES["docs/physics.md"].split("| Filter |")[1].split("\n\n")[0]
    shipped = {path.stem for path in (ROOT / "conf" / "filter").glob("*.yaml")}
    assert set(re.findall(r"^\| `filter=([a-z]+)`", table, re.MULTILINE)) == shipped


@pytest.mark.slow
@pytest.mark.slow
def test_a_run_is_validated_as_described(demo):
    words = commands(VALIDATION, "validate")
    assert len([conf.load(command) for command in words]) == 3
    quick = ["pieces.convex_tolerance=1", "validation.trial.looks=1", "validation.trial.stages=1"]
    here = ["exp_name=demo", "object_root=''", f"output_root={demo}/data/experiments"]
    report = scale.validate(conf.load([*words[0], *quick, *here]))
    columns = re.findall(r"^\| ([A-Za-z, ]+) \|", VALIDATION.split("| Column |")[1].split("\n\n")[0], re.MULTILINE)
    described = {name for column in columns for name in column.split(", ")}
    assert {heading.removesuffix(" mm") for heading in HEADINGS} == described | {"object"}
    assert str(report).splitlines()[1].startswith("bowl ")
    run = demo / "data" / "experiments" / "demo"
    assert report.paths == [run / "verdicts" / "bench" / f"{code}.h5" for code in ("bowl", "storage_bin")]


@pytest.mark.slow
def test_the_protocols_have_the_numbers_of_their_files():
    bench, paper = (conf.load([f"validation={name}"]).validation for name in ("bench", "paper"))
    numbers = {
        "Object": (f"{bench.object_mass:g} kg", f"{paper.object_density:g} kg/m3"),
        "Friction": (f"{bench.physics.friction[0]:g}", f"{paper.physics.friction[0]:g}"),
        "Pushed with": (f"{bench.object_mass * bench.trial.push_acceleration:g} N", "gravity"),
    }
    for row, (first, second) in numbers.items():
        assert f"| {row} | {first} | {second} |" in VALIDATION
    assert f"moves {100 * bench.limits.displacement:g} cm" in VALIDATION


@pytest.mark.slow
@pytest.mark.slow
def test_the_commands_of_the_report_do_what_they_say(demo):
    text = PAGES["docs/report.md"]
    pages = commands(text, "report")
    done = subprocess.run([*MAIN, "mode=report", "exp_name=demo"], cwd=demo, capture_output=True, text=True)
    assert done.returncode == 0 and "Finished: every object has its quota." in done.stdout, done.stderr
    assert (demo / "data/experiments/demo/report.html").is_file()
    assert [conf.load(words).exp_name for words in pages] == ["kitchen", "demo"]
    (logged,), (filmed,) = (map(conf.load, commands(text, mode)) for mode in ("scale", "generate"))
    assert logged.logger == "tensorboard" and filmed.recording.rows == (0, 1)
