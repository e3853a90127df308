"""`mode=report`: the page says what the run's own files say, in every state of a run, and nothing from outside."""

from __future__ import annotations

import json
import os
import re
import shutil
import time
from html.parser import HTMLParser
from pathlib import Path

import h5py
import numpy as np
import pytest
import quick_conf
from conftest import SMALL
from run_tools import events
from stub_rounds import Stub
from toy_files import grasp_columns, header, held, shadow_table, write_final

import scale
from bimangrasp import builtin
from bimangrasp.diagnosis.causes import ADVICE, Cause
from bimangrasp.energy_terms import TERMS
from bimangrasp.errors import InputError
from scale.controller.event_loop import EventLoop
from scale.errors import RunError
from scale.formatting import number
from scale.report import figures
from scale.report import page as report_page
from scale.report.file_statistics import statistics_of
from scale.report.history import history
from scale.store import shards
from scale.store.locks import RunLock
from scale.store.run_folder import RunFolder

EVIL = "<script>alert(1)<&"
VOID = {"meta", "link", "br", "img", "input", "hr", "path", "rect", "polyline", "polygon"}


class Page(HTMLParser):
    """A page as a person sees it: tables by section, texts, references, tags that do not match."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.rows: dict[str, list[list[str]]] = {}
        self.tags: list[str] = []
        self.references: list[str] = []
        self.text, self.errors, self.ids = "", [], []
        self._open: list[str] = []
        self._section = ""
        self.source = path.read_text()
        self.feed(self.source)
        self.errors += self._open

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        named = dict(attrs)
        self.references += [v for k, v in attrs if k in ("src", "href", "xlink:href", "srcset", "data", "action")]
        if "id" in named:
            self.ids.append(named["id"])
        if tag == "section":
            self._section = named.get("id", named.get("class", ""))
        if tag == "tr":
            self.rows.setdefault(self._section, []).append([])
        if tag in ("td", "th"):
            self.rows[self._section][-1].append("")
        if tag not in VOID:
            self._open.append(tag)

    def handle_endtag(self, tag):
        if tag in VOID:
            return
        if not self._open or self._open.pop() != tag:
            self.errors.append(tag)

    def handle_data(self, data):
        self.text += data
        if self._open and {"td", "th"} & set(self._open):
            self.rows[self._section][-1][-1] = (self.rows[self._section][-1][-1] + data).strip()

    def table(self, section: str) -> dict[str, list[str]]:
        """The first cell of each line of a section's tables -> the others."""
        return {line[0]: line[1:] for line in self.rows.get(section, [])}


def settings(root: Path, name: str = "demo", **changes):
    config = quick_conf.load("mode=report", output_root=root)
    config.exp_name = name
    for key, value in changes.items():
        setattr(config, key, value)
    return config


def report(root: Path, name: str = "demo", **changes) -> tuple[Page, report_page.ReportPage]:
    written = scale.write_report(settings(root, name, **changes))
    return Page(written.path), written


def journalled(root: Path, *lines: dict) -> RunFolder:
    """A run folder with nothing but a journal."""
    folder = RunFolder(root / "demo")
    folder.prepare()
    folder.journal.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


START = {"event": "start", "time": 1000.0, "mode": "scale", "version": "0.1.0", "host": "here", "pid": 7}
START |= {"run_key": {}, "acceptance_key": {"filter.name": "none"}, "devices": ["cpu"], "quotas": {"mug": 40}}
START |= {"notes": []}
OBJECTS = {"event": "objects", "time": 1000.1, "indices": {"mug": 0}}
READY = {"event": "ready", "time": 1001.0, "worker": 0, "device": "cpu", "platform": {"torch": "2.13"}}


def done(round_id: int, time: float, accepted: int = 8, **facts) -> dict:
    line = {"event": "done", "time": time, "code": "mug", "round": round_id, "rows": 16, "accepted": accepted}
    return line | {"tile_used": 16, "sha256": "ab", "seconds": 4.0, "worker": 0, "device": "cpu"} | facts


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run with a skipped round, failures, an object that falls short and a name that is markup."""
    root = tmp_path_factory.mktemp("reported")
    (root / "meshes").mkdir()
    for code in ("bowl", "mug"):
        shutil.copy(builtin.OBJECT_ROOT / f"{code}.obj", root / "meshes" / f"{code}.obj")
    shutil.copy(builtin.OBJECT_ROOT / "mug.obj", root / "meshes" / f"{EVIL}.obj")
    small = SMALL | {"object_code_list": "all", "round_batch_size": 8, "target_count_per_object": 20}
    limits = ["filter=energy", "filter.force_closure=4", "filter.distance=6", "filter.penetration=8", "max_rounds=4"]
    config = quick_conf.load(*(f"{k}={v}" for k, v in small.items()), *limits, output_root=root)
    config.object_root = str(root / "meshes")
    faults = {("bowl", 1): ["raise"] * 3, ("bowl", 2): ["nan"], ("mug", 0): ["raise"], (EVIL, 1): ["raise"] * 3}
    came = scale.run(config, maker=Stub(faults=faults, marks=str(root)))
    assert came.exit_code == 3
    return root, came


@pytest.mark.slow
def test_the_objects_are_those_of_the_manifest(run):
    root, came = run
    page, written = report(root)
    rows = page.table("objects")
    manifest = json.loads((root / "demo" / "manifest.json").read_bytes())["objects"]
    assert set(rows) == {"object", *manifest} == {"object", "bowl", "mug", EVIL}
    for code, one in manifest.items():
        grasps, _, rounds, skipped, failed, share, median, *pieces, reason = rows[code]
        assert one["pieces"] is None and pieces == ["", ""]
        assert grasps == f"{one['collected']} / {one['quota']}"
        assert (rounds, skipped, reason) == (str(one["rounds_done"]), str(len(one["skipped"])), one["end_reason"])
        with h5py.File(root / "demo" / one["path"]) as file:
            accepted, made = file["rounds/accepted"][:].sum(), file["rounds/rows"][:].sum()
            assert median == number(np.median(file["energy/total"][:]))
        if one["end_reason"] != "quota":  # else there is surplus
            assert share == number(100 * accepted / made)
    assert [rows[code][4] for code in ("bowl", "mug", EVIL)] == ["3", "1", "3"]
    short = [code for code, one in manifest.items() if one["collected"] < one["quota"]]
    assert [line[0] for line in page.rows["objects"][1:]][: len(short)] == sorted(
        short, key=lambda code: manifest[code]["index"]
    )
    assert "bowl" in short and all(f"{code}: " in " ".join(written.outcome.sentences) for code in short)


def test_reject_reasons_are_the_sum_of_the_objects(run):
    root, _ = run
    page, _ = report(root)
    manifest = json.loads((root / "demo" / "manifest.json").read_bytes())["objects"]
    names = {"not_finite": "not finite", "energy/force_closure": "force closure not below 4.0"}
    names |= {"energy/distance": "distance not below 6.0", "energy/penetration": "penetration not below 8.0"}
    for reason, name in names.items():
        total = sum(one["rejected"].get(reason, 0) for one in manifest.values())
        assert total and page.table("rejects")[name][0] == str(total)


def test_energies_and_curves_are_those_of_the_final_files(run):
    root, came = run
    sums = statistics_of([RunFolder(root / "demo")])
    files = [h5py.File(path) for path in came.paths]
    assert sums.grasps == sums.grasps_read == sum(len(file["row"]) for file in files) and sums.source == "final files"
    done = [file["rounds/state"][:] == 0 for file in files]
    assert sums.rounds == sums.rounds_read == sum(one.sum() for one in done)
    for term in TERMS:
        values = np.concatenate([file[f"energy/{term}"][:] for file in files]).astype(float)
        np.testing.assert_array_equal(np.sort(sums.energies[term]), np.sort(values))
        curves = np.concatenate([file[f"curve/{term}"][:][one] for file, one in zip(files, done, strict=True)])
        np.testing.assert_array_equal(sums.curves[term], curves)
    wanted = figures.curve_charts(sums)
    assert [name for name, _ in wanted] == [term.name.replace("_", " ") for term in figures.ORDER] + ["acceptance"]
    page, _ = report(root)
    for name, chart in wanted + figures.energy_charts(history([]), sums):
        assert re.search(r'(polyline points|rect x)="[^"]+"', chart)[0] in page.source, name


def test_workers_are_those_of_the_journal(run):
    root, _ = run
    page, _ = report(root)
    lines = [e for e in events(root / "demo", "done")]
    assert {(e["worker"], e["device"]) for e in lines} == {(0, "cpu")}
    rounds, accepted, seconds, *_ = page.table("speed")["cpu #0"]
    assert (rounds, accepted) == (str(len(lines)), str(sum(e["accepted"] for e in lines)))
    assert seconds == number(np.median([e["seconds"] for e in lines]))


def test_failures_have_their_tracebacks_and_skips_their_seeds(run):
    root, _ = run
    page, _ = report(root)
    assert "7 × RuntimeError: fault on order" in page.text and 'raise RuntimeError("fault on order")' in page.text
    skips = [line for line in page.rows["failures"] if line[0] in ("bowl", EVIL)]
    seeds = {e["code"]: e["seed"] for e in events(root / "demo", "skip")}
    error = "RuntimeError: fault on order"
    assert sorted(skips) == sorted([code, "1", str(seeds[code]), "3", error] for code in ("bowl", EVIL))


def test_the_page_is_alone_and_whole(run):
    root, _ = run
    page, _ = report(root)
    assert page.errors == [] and len(page.ids) == len(set(page.ids))
    assert not {"script", "img", "iframe", "link", "object", "embed"} & set(page.tags)
    assert page.references == ["https://arxiv.org/abs/2411.15903"]
    assert "url(" not in page.source and "@import" not in page.source
    assert EVIL in page.text and "alert(1)" in page.text
    assert len(page.source) < 200_000


def test_a_final_file_that_is_gone_is_told_at_the_top(run, tmp_path):
    root, _ = run
    shutil.copytree(root / "demo", tmp_path / "demo")
    gone = RunFolder(tmp_path / "demo").final_files()[0]
    gone.unlink()
    told = scale.write_report(settings(tmp_path))
    assert f"1 file missing or damaged, the first: {gone}" in str(told)


@pytest.mark.slow
@pytest.mark.parametrize("damage", ["cut", "gone"])
def test_a_finished_run_with_a_damaged_file_is_not_finished(tmp_path, damage):
    small = SMALL | {"object_code_list": "[mug,bowl]", "round_batch_size": 8, "target_count_per_object": 8}
    config = quick_conf.load(*(f"{k}={v}" for k, v in small.items()), output_root=tmp_path)
    assert scale.run(config, maker=Stub(marks=str(tmp_path))).exit_code == 0
    folder = RunFolder(tmp_path / "demo")
    before, path = scale.status(folder.root), folder.final("mug")
    assert before.exit_code == 0 and not before.lost and {line.collected for line in before.objects} == {8}
    if damage == "cut":
        path.write_bytes(path.read_bytes()[:5000])
    else:
        path.unlink()
    folder.manifest.unlink()
    after = scale.status(folder.root)
    assert after.exit_code == 3 and "0/8" in str(after).splitlines()[1] and "damaged" in str(after).splitlines()[1]
    assert f"1 final file lost, the first: {path}: it is" in str(after) and "and 1 final file gone or damaged" in str(
        after
    )
    told = scale.write_report(settings(tmp_path))
    assert told.outcome.state == "damaged" and "Finished" not in str(told)
    assert told.outcome.sentences[0].startswith(f"1 file missing or damaged, the first: {path}: it is")
    assert scale.run(config, maker=Stub(marks=str(tmp_path))).exit_code == 0, "the same command mends it"
    assert (
        scale.status(folder.root).exit_code == 0 and scale.write_report(settings(tmp_path)).outcome.state == "finished"
    )


def test_names_of_objects_have_room_beside_the_other_columns(tmp_path):
    journalled(tmp_path, START, OBJECTS, READY, done(0, 1010.0))
    page, _ = report(tmp_path)
    assert "#objects td.code { min-width: 16rem; }" in page.source, "a long name takes few lines"
    assert "#objects th { white-space: normal; }" in page.source, "all columns fit into 1000 pixels"


def test_a_file_that_is_open_elsewhere_is_not_called_damaged(tmp_path):
    small = SMALL | {"object_code_list": "[mug,bowl]", "round_batch_size": 8, "target_count_per_object": 8}
    config = quick_conf.load(*(f"{k}={v}" for k, v in small.items()), output_root=tmp_path)
    assert scale.run(config, maker=Stub(marks=str(tmp_path))).exit_code == 0
    path = RunFolder(tmp_path / "demo").final("mug")
    with held(path):
        page, written = report(tmp_path)
        assert scale.status(tmp_path / "demo").exit_code == 0
    assert written.outcome.state == "finished" and "damaged" not in page.text
    fault = f"{path} is open elsewhere for writing; wait until that is through, or close the program that holds it"
    assert f"1 file left out of the figures, the first: {fault}" in written.outcome.sentences
    assert f"Not read: {fault}" in page.text
    path.write_bytes(b"text")
    page, written = report(tmp_path)
    assert written.outcome.state == "damaged" and page.text.count(f"{path}: it is damaged") == 1


def test_the_page_is_made_again_where_it_was_or_where_it_is_wanted(run, tmp_path):
    root, _ = run
    before = {path: path.stat().st_mtime_ns for path in (root / "demo").rglob("*") if path.name != "report.html"}
    first = scale.write_report(settings(root))
    assert first.path == root / "demo" / "report.html" and str(first.path) in str(first)
    assert scale.write_report(settings(root, out=str(tmp_path))).path == tmp_path / "report.html"
    (tmp_path / "mesh.obj").write_text("v 0 0 0")
    with pytest.raises(InputError, match="mesh.obj is there already and is no page"):
        scale.write_report(settings(root, out=str(tmp_path / "mesh.obj")))
    there = tmp_path / "new" / "page.html"
    assert scale.write_report(settings(root, "elsewhere", path=str(root / "demo"), out=str(there))).path == there
    assert there.read_text().startswith("<!DOCTYPE html>")
    after = {path: path.stat().st_mtime_ns for path in (root / "demo").rglob("*") if path.name != "report.html"}
    assert after == before


def test_a_folder_without_a_run_is_refused(tmp_path):
    with pytest.raises(InputError, match="holds no run"):
        scale.write_report(settings(tmp_path, "nothing"))
    assert not (tmp_path / "nothing").exists()


def test_an_empty_run_has_a_page(tmp_path):
    journalled(tmp_path)
    page, written = report(tmp_path)
    assert written.outcome.state == "empty" and "Nothing has been made yet." in page.text and not page.errors
    journalled(tmp_path, START, OBJECTS)
    page, written = report(tmp_path)
    assert written.outcome.state == "broken off" and page.table("objects")["mug"][0] == "0 / 40" and not page.errors


def test_a_run_at_work_says_how_long_it_will_take(tmp_path, monkeypatch):
    folder = journalled(tmp_path, START, OBJECTS, READY, done(0, 1010.0), done(1, 1020.0))
    monkeypatch.setattr(report_page.time, "time", lambda: 1032.0)
    lock = RunLock(folder)
    page, written = report(tmp_path)
    assert written.outcome.state == "running" and page.table("objects")["mug"][-1] == "in progress"
    assert "0.5 accepted grasps per second" in page.text and "about 0 min 48 s to go" in page.text
    assert not any("mug: " in sentence for sentence in written.outcome.sentences)
    lock.release()
    assert report(tmp_path)[1].outcome.state == "broken off"


@pytest.mark.parametrize(
    ("last", "state", "says"),
    [
        ({"event": "end", "exit_code": 0}, "finished", "every object has its quota"),
        ({"event": "end", "exit_code": 3}, "short", "not every object"),
        ({"event": "end", "exit_code": 143}, "stopped", "the same command goes on"),
        ({"event": "end", "exit_code": 1, "error": "x\nRunError: <b>no</b> device"}, "failed", "RunError: <b>no</b>"),
        ({"event": "end", "exit_code": 1}, "failed", "Ended by an error."),
        (done(2, 1030.0), "broken off", "Broken off without a word"),
    ],
)
def test_how_a_run_ended_stands_at_the_top(tmp_path, last, state, says):
    journalled(tmp_path, START, OBJECTS, READY, done(0, 1010.0), done(1, 1020.0), {"time": 1040.0} | last)
    page, written = report(tmp_path)
    assert written.outcome.state == state and says in page.text.split("Objects")[0] and not page.errors
    assert "b" not in set(page.tags[: page.tags.index("section")])


def test_what_validators_took_is_told(tmp_path):
    tested = [done(i, 1010.0 + i, test_seconds=seconds) for i, seconds in enumerate((2.0, 9.0, 4.0))]
    journalled(tmp_path, START, OBJECTS, READY, *tested, done(3, 1020.0))
    assert "Validators tested 3 rounds, 4 s each (median)." in report(tmp_path)[0].text


def test_an_object_with_its_one_round_is_not_short(tmp_path):
    start = START | {"mode": "generate", "quotas": {"mug": 24}}
    folder = journalled(tmp_path, start, OBJECTS | {"indices": {"mug": 0}}, READY, done(0, 1010.0, 16))
    pieces = {"count": 7, "largest_scale": 0.17, "fit": {"distance": 0.01}}
    entry = {"index": 0, "collected": 16, "end_reason": "generated", "pieces": pieces}
    folder.manifest.write_text(json.dumps({"objects": {"mug": entry}}))
    with folder.journal.open("a") as file:
        file.write(json.dumps({"event": "end", "time": 1020.0, "exit_code": 0}) + "\n")
    page, written = report(tmp_path)
    assert written.outcome.state == "finished" and page.table("objects")["mug"][-3:] == ["7", "1.7", "generated"]


def fallen_short(root: Path, **entry: object) -> str:
    """The head of the page about a run whose object has too few grasps."""
    folder = journalled(root, START, OBJECTS, READY, done(0, 1010.0, 0), done(1, 1011.0, 0))
    entry = {"index": 0, "collected": 0, "end_reason": "barren", "rejected": {}} | entry
    folder.manifest.write_text(json.dumps({"objects": {"mug": entry}}))
    with folder.journal.open("a") as file:
        file.write(json.dumps({"event": "end", "time": 1020.0, "exit_code": 3}) + "\n")
    return report(root)[0].text.split("Objects")[0]


def test_an_object_that_falls_short_has_its_causes_and_what_to_try(tmp_path):
    rejected = {"physics/moved": 5, "physics/penetration": 20, "physics/turned": 4, "duplicate": 1, "not_finite": 2}
    head = fallen_short(tmp_path, rejected=rejected | {"physics/lost_contact": 0})
    told = re.findall(r"mug, (\d+) of 32: ([^.]*)\. To try: (\S+)", head)
    assert told == [
        ("20", Cause.DEPTH.value, "raise"),
        ("5", Cause.MOVED.value, "squeeze"),
        ("4", Cause.TURNED.value, "raise"),
    ]
    assert ADVICE[Cause.MOVED] in head and "hand_test=32 and object_code_list=[mug]" in head


@pytest.mark.slow
def test_causes_are_measured_on_the_grasps_that_a_run_kept(tmp_path):
    few = ("round_batch_size=6", "num_iterations=150", "max_rounds=1", "target_count_per_object=6", "kernels=plain")
    weak = ("experiment=firm", "filter=physics", "validation.hand.force_limit=0.01", "keep_failed=true", "gpus=[cpu]")
    config = quick_conf.load(*few, *weak, "validators=1", "object_code_list=[bowl]", output_root=tmp_path)
    assert scale.run(config).exit_code == 3
    page, written = report(tmp_path)
    told = next(line for line in written.outcome.sentences if "To try" in line)
    assert Cause.MOTORS.value in told and "validation.hand.force_limit=0.01 leaves" in told
    assert "weakest finger" in page.text and "hand_test" not in page.text.split("Objects")[0] and not page.errors
    folder = RunFolder(tmp_path / "demo")
    folder.config.write_text(folder.config.read_text().replace("- 0.0\n  - -1.0\n", "- 0.0\n  - 1.0\n", 1))
    page, written = report(tmp_path)
    assert any(Cause.MOVED.value in line for line in written.outcome.sentences), "other hands than those of the grasps"
    assert "weakest finger" not in page.text


def test_no_cause_is_told_where_none_is_known(tmp_path):
    assert "To try" not in fallen_short(tmp_path / "a", rejected={"duplicate": 32})
    assert "hand_test" not in fallen_short(tmp_path / "b")


def test_markup_in_tracebacks_reasons_and_logs_stays_text(tmp_path):
    evil = "Traceback </pre><script>alert(2)</script>\nValueError: <img src=http://x>"
    fail = {"event": "fail", "time": 1005.0, "code": "mug", "round": 0, "worker": 0, "attempt": 1, "traceback": evil}
    died = {"event": "died", "time": 1006.0, "worker": 0, "launch": 0, "exitcode": -11, "code": "mug", "round": 0}
    aside = {"event": "set_aside", "time": 1007.0, "worker": 0, "device": "gpu <0>", "reason": evil}
    folder = journalled(tmp_path, START, OBJECTS, READY, fail, died, aside)
    folder.worker_log(0).write_text("Fatal Python error: <script>Segmentation fault")
    folder.config.write_text("exp_name: <script>\n")
    page, _ = report(tmp_path)
    assert page.errors == [] and not {"script", "img"} & set(page.tags)
    assert page.references == ["https://arxiv.org/abs/2411.15903"]
    for text in (evil, "1 × ValueError: <img src=http://x>", "gpu <0>", "<script>Segmentation fault", "<script>\n"):
        assert text in page.text
    assert [cell == "SIGSEGV" for line in page.rows["failures"] for cell in line].count(True) == 1


@pytest.mark.slow
def test_shards_that_no_file_has_yet_are_read_and_damaged_ones_named(tmp_path):
    folder, hand = journalled(tmp_path, START, OBJECTS, READY, done(0, 1010.0), done(1, 1020.0)), shadow_table()
    made = [grasp_columns(5, seed, hand) for seed in range(3)]
    for round_id, columns in enumerate(made):
        columns["rounds/round"][:] = columns["round"][:] = round_id
        columns["energy/total"][0] = np.nan
    paths = [shards.seal(folder, folder.place(0, 0), header("mug", hand), columns) for columns in made]
    paths[1].write_bytes(paths[1].read_bytes()[:-1] + b"x")
    found = statistics_of([folder])
    wanted = np.concatenate([made[i]["energy/total"][1:] for i in (0, 2)]).astype(float)
    np.testing.assert_array_equal(found.energies["total"], wanted)
    assert found.rounds == 2 and list(found.unreadable) == [str(paths[1])]
    page, _ = report(tmp_path)
    assert "Not read: " in page.text and paths[1].name in page.text
    write_final(folder.final("mug"), "mug", 5)  # has round 0, so that its shard is not counted again
    found = statistics_of([folder])
    assert (found.source, found.grasps, found.rounds) == ("final files", 5, 2)


@pytest.mark.slow
def test_ten_thousand_rounds_and_hundreds_of_objects_stay_small_and_quick(tmp_path):
    codes = [f"object_{i:03d}" for i in range(400)]
    start = START | {"quotas": dict.fromkeys(codes, 200), "devices": [f"gpu {i}" for i in range(8)]}
    folder = journalled(tmp_path)
    lines = [start, OBJECTS | {"indices": {code: i for i, code in enumerate(codes)}}]
    draw = np.random.default_rng(0)
    for i in range(10_000):
        facts = {"code": codes[i % 400], "worker": i % 8, "device": f"gpu {i % 8}", "seconds": 30.0}
        lines.append(done(i // 400, 1000.0 + 4 * i, int(draw.integers(0, 17)), **facts))
        if i % 10 == 0:
            text = f"Traceback\n  line {i}\nValueError: number {i}" + "x" * 1900
            lines.append({"event": "fail", "time": 1001.0 + 4 * i, "code": codes[i % 400], "round": i, "worker": 1})
            lines[-1] |= {"traceback": text, "attempt": 1}
            lines.append(lines[-1] | {"event": "skip", "seed": i, "attempts": 3})
            lines.append({"event": "died", "time": 1002.0, "worker": 1, "exitcode": -9, "code": None, "round": None})
    folder.journal.write_text("".join(json.dumps(line) + "\n" for line in lines))
    write_final(folder.final(codes[0]), "bowl", 500)
    for code in codes[1:]:
        os.link(folder.final(codes[0]), folder.final(code))
    begin = time.process_time()
    page, written = report(tmp_path)
    seconds = time.process_time() - begin
    assert page.errors == [] and "10000" in page.text.replace("\u2009", "")
    assert written.path.stat().st_size < 1_000_000 and seconds < 10.0
    print(f"{written.path.stat().st_size} bytes, {seconds:.1f} s")


@pytest.mark.slow
@pytest.mark.parametrize("error", [RunError("no device <left>"), ZeroDivisionError("no device <left>")])
def test_the_journal_of_a_run_that_ends_by_an_error_says_so(small_config, monkeypatch, error):
    def fail(*parts):
        raise error

    monkeypatch.setattr(EventLoop, "run", fail)
    config = small_config()
    with pytest.raises(type(error)):
        scale.run(config, maker=Stub())
    told = events(Path(config.output_root) / "demo")[-1]["error"]
    assert told.endswith("no device <left>" if isinstance(error, RunError) else "ZeroDivisionError: no device <left>\n")
    assert ("Traceback" in told) == isinstance(error, ZeroDivisionError)
    page, written = report(Path(config.output_root))
    assert written.outcome.state == "failed" and "no device <left>" in page.text
