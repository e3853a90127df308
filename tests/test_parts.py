"""A run in parts: the bytes of a whole run, whatever the machines; and every way in which parts do not fit."""

from __future__ import annotations

import errno
import json
import shutil
import time

import h5py
import pytest
from run_tools import events, flip, hashes
from stub_rounds import Stub

import scale
from bimangrasp.errors import InputError
from scale.store import durable_io, locks
from scale.store.parts import Part, parse_part, parts_in
from scale.store.path_settings import grasp_source
from scale.store.run_folder import RunFolder
from scale.viewer import gallery

CODES = "[storage_bin,bowl,box,bottle,mug]"
OBJECTS = 5


@pytest.fixture
def call(small_config):
    """Runs the stub: call(exp_name, "1/3", ...); None as part is the whole run."""

    def made(exp_name, part=None, codes=CODES, platform="stub-1", **settings):
        given = [f"exp_name={exp_name}", f"part={part or 'null'}", f"object_code_list={codes}"]
        return scale.run(small_config(*given, **settings), maker=Stub(platform=platform))

    return made


@pytest.fixture
def merge(small_config):
    return lambda exp_name, **settings: scale.merge_parts(
        small_config(f"exp_name={exp_name}", mode="merge", **settings)
    )


@pytest.fixture
def root(tmp_path):
    return tmp_path / "experiments"


# ---- the part itself


@pytest.mark.parametrize("text", ["0/4", "5/4", "a/b", "1", "1/0", "-1/4", "1/4/2", "1.0/4", "", " 1/4", "1/10001"])
def test_a_part_that_is_none_is_refused(text, small_config):
    with pytest.raises(InputError, match="wanted i/n with i from 1 to n"):
        parse_part(text)
    with pytest.raises(InputError, match="wanted i/n"):
        scale.run(small_config(part=f"'{text}'"), maker=Stub())


@pytest.mark.parametrize("count", [1, 2, 3, 7])
def test_every_object_is_in_one_part(count):
    parts = Part(1, count).all()
    assert [part.name for part in parts] == [f"part_{number}_of_{count}" for number in range(1, count + 1)]
    for index in range(20):
        assert sum(part.has(index) for part in parts) == 1
        assert parts[index % count].has(index)


# ---- the same bytes


@pytest.mark.slow
def test_three_parts_from_three_machines_are_the_whole_run(call, merge, root, tmp_path):
    call("whole")
    for number in (1, 2, 3):
        assert call(f"machine_{number}", f"{number}/3").exit_code == 0
        name = Part(number, 3).name
        shutil.copytree(root / f"machine_{number}" / name, root / "cut" / name, copy_function=shutil.copyfile)
    assert len({path.stat().st_mtime_ns // 10**6 for path in (root / "cut").rglob("*.h5")}) > 1
    report = merge("cut")
    assert report.exit_code == 0 and not report.lacking
    whole, cut = RunFolder(root / "whole"), RunFolder(root / "cut")
    assert hashes(cut) == hashes(whole) and len(hashes(cut)) == OBJECTS
    manifests = [json.loads(folder.manifest.read_bytes()) for folder in (whole, cut)]
    for name in ("run_key", "acceptance_key", "platforms", "exit_code"):
        assert manifests[0][name] == manifests[1][name], name
    for code, entry in manifests[0]["objects"].items():
        other = manifests[1]["objects"][code]
        assert {key: entry[key] for key in ("index", "quota", "sha256", "path", "end_reason")} == {
            key: other[key] for key in ("index", "quota", "sha256", "path", "end_reason")
        }
    with h5py.File(cut.dataset) as file:
        assert sorted(file) == sorted(h5py.File(whole.dataset)) and len(file["mug/row"]) == 6
    assert "Finished: every object has its quota" in cut.report.read_text()
    assert [(line.code, line.collected) for line in scale.status(cut.root).objects] == [
        (line.code, line.collected) for line in scale.status(whole.root).objects
    ]


@pytest.mark.slow
def test_parts_grow_and_are_joined_again(call, merge, root):
    for number in (1, 2):
        call("cut", f"{number}/2")
    merge("cut")
    before = hashes(root / "cut")
    call("cut", "1/2", target_count_per_object=9)
    assert hashes(root / "cut") == before, "a part that grows changes what was joined before"
    report = merge("cut")
    assert {code: quota for code, _, _, quota in report.objects}["storage_bin"] == 9 and report.exit_code == 0
    call("cut", "2/2", target_count_per_object=9)
    merge("cut")
    call("whole", target_count_per_object=9)
    assert hashes(root / "cut") == hashes(root / "whole")


@pytest.mark.slow
def test_new_objects_behind_the_others_are_made_by_the_parts(call, merge, root):
    few = "[storage_bin,bowl,box]"
    for number in (1, 2):
        call("cut", f"{number}/2", codes=few)
    merge("cut")
    call("cut", "1/2")  # of the new ones mug
    report = merge("cut")
    assert report.exit_code == 3 and report.lacking == ["part 2/2 has no file of 'bottle'"]
    call("cut", "2/2")
    assert merge("cut").exit_code == 0
    call("whole")
    assert hashes(root / "cut") == hashes(root / "whole")


@pytest.mark.slow
def test_files_are_one_on_a_disk_and_copies_with_their_times_on_two(call, merge, root, monkeypatch):
    for number in (1, 2):
        call("cut", f"{number}/2")
    merge("cut")
    own = {path.name: path for part in parts_in(root / "cut").values() for path in part.final_files()}
    for path in RunFolder(root / "cut").final_files():
        assert path.samefile(own[path.name])
    shutil.rmtree(root / "cut" / "final")

    def refused(source, target):
        raise OSError(errno.EXDEV, "another disk")

    monkeypatch.setattr(durable_io, "link", refused)
    time.sleep(0.01)
    merge("cut")
    for path in RunFolder(root / "cut").final_files():
        assert not path.samefile(own[path.name]) and path.read_bytes() == own[path.name].read_bytes()
        assert path.stat().st_mtime_ns == own[path.name].stat().st_mtime_ns
    assert not list((root / "cut").rglob(".tmp-*"))


@pytest.mark.slow
def test_a_part_without_objects_says_so_and_is_not_missed(call, merge, root):
    report = call("cut", "7/7")
    assert report.exit_code == 0 and "part=7/7 has none of the 5 objects: nothing to do" in report.notes
    for number in range(1, 6):
        call("cut", f"{number}/7")
    assert merge("cut").exit_code == 0
    parts = scale.status(root / "cut").parts
    assert parts["6/7"] == "no objects" and parts["7/7"] == "not running, the last call ended with 0"


# ---- what lacks


@pytest.mark.slow
def test_a_missing_part_is_named_with_its_objects_and_the_rest_is_joined(call, merge, root, capsys):
    call("cut", "1/3")
    call("cut", "3/3")
    report = merge("cut")
    assert report.exit_code == 3 and report.lacking == ["part 2/3 is missing, with 'bowl', 'mug'"]
    assert sorted(hashes(root / "cut")) == ["bottle.h5", "box.h5", "storage_bin.h5"]
    status = scale.status(root / "cut")
    assert status.parts["2/3"] == "not there, with 'bowl', 'mug'"
    assert "part 2/3: not there" in str(status)
    call("cut", "2/3")
    assert merge("cut").exit_code == 0


@pytest.mark.slow
def test_an_object_that_fell_short_and_a_part_at_work_end_a_merge_with_3(call, merge, root):
    call("cut", "1/2", target_count_per_object=100, max_rounds=2)
    call("cut", "2/2")
    assert merge("cut").exit_code == 3
    for part in ("1/2", "2/2"):
        call("ok", part)
    lock = locks.RunLock(RunFolder(root / "ok" / "part_2_of_2"))
    try:
        report = merge("ok")
        assert report.exit_code == 3 and report.lacking == ["part 2/2 is at work"]
        assert scale.status(root / "ok").running
    finally:
        lock.release()
    assert merge("ok").exit_code == 0


@pytest.mark.slow
def test_a_damaged_file_is_named_and_left_out(call, merge, root):
    for part in ("1/2", "2/2"):
        call("cut", part)
    flip(root / "cut" / "part_1_of_2" / "final" / "box.h5")
    report = merge("cut", verify="full")
    assert report.exit_code == 3 and "box.h5 is damaged" in report.lacking[0]
    assert "part 1/2 has no file of 'box'" in report.lacking[1]
    assert "box.h5" not in hashes(root / "cut")


@pytest.mark.slow
def test_a_part_that_was_broken_off_or_ended_by_an_error_is_named(call, merge, root):
    for part in ("1/2", "2/2"):
        call("cut", part)
    journal = root / "cut" / "part_1_of_2" / "journal.jsonl"
    lines = journal.read_text().splitlines(keepends=True)
    failed = '{"event": "end", "exit_code": 1, "error": "no room", "time": 1.0}\n'
    for ending, said in (([], "was broken off: its command goes on"), ([failed], "ended with 1")):
        journal.write_text("".join([*lines[:-1], *ending]))
        report = merge("cut")
        assert report.exit_code == 3 and report.lacking == [f"part 1/2 {said}"]
        assert scale.status(root / "cut").exit_code == (1 if ending else None)


@pytest.mark.slow
def test_what_no_part_has_any_more_is_set_aside(call, merge, root):
    for part in ("1/2", "2/2"):
        call("cut", part)
    merge("cut")
    (root / "cut" / "part_1_of_2" / "final" / "box.h5").unlink()
    report = merge("cut")
    assert report.exit_code == 3 and any("box.h5 is of no part as it is now" in line for line in report.lacking)
    assert "box.h5" not in hashes(root / "cut") and (root / "cut" / "damaged" / "box.h5.0").exists()
    with h5py.File(root / "cut" / "dataset.h5") as file:
        assert "box" not in file
    shutil.move(root / "cut" / "part_2_of_2", root / "elsewhere")
    with pytest.raises(InputError, match="was joined with part 2/2, which is not there now"):
        merge("cut")
    shutil.move(root / "elsewhere", root / "cut" / "part_2_of_2")
    call("cut", "1/2")
    assert merge("cut").exit_code == 0 and len(hashes(root / "cut")) == OBJECTS


@pytest.mark.slow
def test_a_part_that_has_only_begun_harms_no_status(call, root):
    call("cut", "1/2")
    other = RunFolder(root / "cut" / "part_2_of_2")
    other.prepare()
    for _ in range(2):
        status = scale.status(root / "cut")
        assert status.parts["2/2"] == "not begun, with 'bowl', 'bottle'" and status.exit_code == 3
        other.journal.write_bytes(b"")  # made, and the call killed before its first line
    lock = locks.RunLock(other)
    assert scale.status(root / "cut").parts["2/2"] == "beginning, with 'bowl', 'bottle'"
    lock.release()


@pytest.mark.slow
def test_the_manifest_says_what_the_files_are_and_not_what_they_were(call, merge, root):
    call("cut", "1/1")
    manifest = root / "cut" / "part_1_of_1" / "manifest.json"
    before = manifest.read_bytes()
    call("cut", "1/1", target_count_per_object=9)
    manifest.write_bytes(before)  # as of a part that was killed behind the merge of its files
    merge("cut")
    entry = json.loads((root / "cut" / "manifest.json").read_bytes())["objects"]["mug"]
    assert entry["collected"] == 9 and entry["sha256"] == hashes(root / "cut")["mug.h5"] and entry["quota"] == 9


# ---- what does not fit


@pytest.mark.slow
def test_parts_of_another_number_or_list_are_refused(call, merge, root):
    call("cut", "1/3")
    with pytest.raises(InputError, match="part=1/4.*is cut into 3 parts .'part_1_of_3'"):
        call("cut", "1/4")
    with pytest.raises(InputError, match="object 1 is 'box' in this call and 'bowl' in part_1_of_3"):
        call("cut", "2/3", codes="[storage_bin,box,bowl]")
    shutil.copytree(root / "cut" / "part_1_of_3", root / "cut" / "part_1_of_4")
    for use in (lambda: merge("cut"), lambda: scale.status(root / "cut")):
        with pytest.raises(InputError, match="has parts of 3 .'part_1_of_3'. and of 4"):
            use()


@pytest.mark.slow
def test_a_run_is_whole_or_of_parts(call, merge, root):
    call("whole", codes="[box]")
    with pytest.raises(InputError, match="is a run without parts"):
        call("whole", "1/2", codes="[box]")
    with pytest.raises(InputError, match="has no parts: wanted"):
        merge("whole")
    call("cut", "1/2", codes="[box]")
    for _ in range(2):
        with pytest.raises(InputError, match="is a run of parts .'1/2'., which are made each by its own command"):
            call("cut", codes="[box]")
        merge("cut")


@pytest.mark.slow
def test_parts_of_other_settings_are_refused_by_name_and_value(call, merge):
    call("cut", "1/2")
    call("cut", "2/2", seed_base=9)
    with pytest.raises(
        InputError, match="(?s)part_1_of_2 and part_2_of_2.*seed_base: 1 in part_1_of_2, 9 in part_2_of_2"
    ):
        merge("cut")
    call("other", "1/2")
    call("other", "2/2", filter="energy")
    with pytest.raises(InputError, match="(?s)different settings.*filter.name: 'none' in part_1_of_2"):
        merge("other")


@pytest.mark.slow
def test_parts_of_several_platforms_need_a_word(call, merge):
    call("cut", "1/2")
    call("cut", "2/2", platform="stub-2")
    with pytest.raises(InputError, match="(?s)different platforms.*'stub-1' in part_1_of_2, 'stub-2' in part_2_of_2"):
        merge("cut")
    assert merge("cut", allow_mixed_platform="true").exit_code == 0


@pytest.mark.slow
def test_an_object_in_two_parts_is_taken_once_or_refused_with_both_files(call, merge, root):
    for part in ("1/2", "2/2"):
        call("cut", part)
    first, second = (root / "cut" / f"part_{number}_of_2" / "final" for number in (1, 2))
    shutil.copyfile(first / "box.h5", second / "box.h5")
    report = merge("cut")
    assert report.exit_code == 0 and [str(part) for code, part, _, _ in report.objects if code == "box"] == ["1/2"]
    call("other", target_count_per_object=8, codes="[storage_bin,bowl,box]")
    shutil.copyfile(root / "other" / "final" / "box.h5", second / "box.h5")
    with pytest.raises(
        InputError, match="object 'box' has two unlike files: .*part_1_of_2.*stub-1.*part_2_of_2.*stub-1"
    ):
        merge("cut")


@pytest.mark.slow
def test_indices_that_contradict_each_other_are_refused(call, merge, root):
    call("cut", "1/2")
    call("other", "2/2", codes="[mug,storage_bin,box,bottle,bowl]")
    shutil.copytree(root / "other" / "part_2_of_2", root / "cut" / "part_2_of_2")
    (root / "cut" / "part_2_of_2" / "objects.json").unlink()
    with pytest.raises(InputError, match="object 'storage_bin' has index 0 in part_1_of_2 and 1 in part_2_of_2"):
        merge("cut")


@pytest.mark.slow
def test_report_and_status_show_parts_as_one_run_before_they_are_joined(call, merge, root, small_config):
    report = lambda name: scale.write_report(small_config(f"exp_name={name}", mode="report"))  # noqa: E731
    call("whole")
    call("cut", "1/3")
    call("cut", "3/3")
    page = report("cut")
    assert page.path == root / "cut" / "report.html" and page.outcome.state == "short"
    assert "Part 2/3: not there, with 'bowl', 'mug'." in page.outcome.sentences
    text = page.path.read_text()
    assert text.count('<td class="code">storage_bin</td>') == 1 and "part 1/3 cpu" in text and "part 3/3 cpu" in text
    call("cut", "2/3")
    said, whole = report("cut").outcome, report("whole").outcome
    assert said.state == whole.state == "finished"
    timeless = lambda line: line._replace(pieces=None)  # noqa: E731
    assert list(map(timeless, said.objects)) == list(map(timeless, whole.objects))
    merge("cut")
    joined = report("cut").outcome
    assert joined.objects == said.objects and joined.state == "finished"
    lines = scale.status(root / "cut").objects
    assert [(line.code, line.collected) for line in lines] == [(line.code, line.collected) for line in said.objects]


@pytest.mark.slow
def test_the_part_that_came_out_worst_heads_the_report(call, root, small_config):
    call("cut", "1/2", target_count_per_object=400, max_rounds=1)
    call("cut", "2/2")
    page = scale.write_report(small_config("exp_name=cut", mode="report"))
    assert page.outcome.state == "short" and page.outcome.objects[0].is_short
    journal = RunFolder(root / "cut" / "part_2_of_2").journal
    journal.write_text("".join(journal.read_text().splitlines(keepends=True)[:-1]))
    assert scale.write_report(small_config("exp_name=cut", mode="report")).outcome.state == "broken off"


@pytest.mark.slow
def test_a_report_of_parts_that_have_hardly_begun(call, root, small_config):
    call("cut", "1/2")
    RunFolder(root / "cut" / "part_1_of_2").journal.write_bytes(b"")
    page = scale.write_report(small_config("exp_name=cut", mode="report"))
    assert page.outcome.state == "empty" and "not begun" in page.path.read_text()


@pytest.mark.slow
def test_a_report_shows_the_logs_of_the_part_that_had_trouble(call, root, small_config, tmp_path):
    codes = "[storage_bin,bowl]"
    given = ["exp_name=cut", f"object_code_list={codes}"]
    stub = Stub(faults={("storage_bin", 0): ["raise"]}, marks=str(tmp_path))
    assert scale.run(small_config(*given, "part=1/2"), maker=stub).exit_code == 0
    call("cut", "2/2", codes=codes, target_count_per_object=400, max_rounds=1)
    page = scale.write_report(small_config("exp_name=cut", mode="report"))
    assert page.outcome.state == "short"
    (log,) = (root / "cut" / "part_1_of_2").glob("logs/worker_0.log")
    assert "part_1_of_2/logs/worker_0.log" in page.path.read_text() and "fault on order" in log.read_text()


@pytest.mark.slow
def test_a_gallery_of_parts_has_the_objects_of_all(call, root, small_config, monkeypatch):
    for number in (1, 2):
        call("cut", f"{number}/2", codes="[storage_bin,bowl]")
    config = small_config("exp_name=cut", mode="view")
    monkeypatch.setattr(gallery, "load_hands", lambda *_: None)
    monkeypatch.setattr(gallery, "check_hands", lambda *_: None)
    shown = gallery._shown_files(config, grasp_source(config), [])
    assert sorted(file.made_with.object_code for file in shown) == ["bowl", "storage_bin"]


@pytest.mark.slow
def test_the_journal_of_the_whole_has_all_parts_and_ends_with_the_merge(call, merge, root):
    for part in ("1/2", "2/2"):
        call("cut", part)
    merge("cut")
    lines = events(root / "cut")
    parts = [line for number in (1, 2) for line in events(root / "cut" / f"part_{number}_of_2")]
    assert lines[:-2] == parts
    assert lines[-2]["mode"] == "merge" and lines[-1] == {"event": "end", "exit_code": 0, "time": lines[-1]["time"]}


@pytest.mark.slow
def test_a_whole_run_is_not_written_over_by_a_part_that_is_copied_into_it(call, merge, root):
    call("kitchen", codes="[box]")
    call("other", "2/2")
    shutil.copytree(root / "other" / "part_2_of_2", root / "kitchen" / "part_2_of_2")
    before = hashes(root / "kitchen")
    with pytest.raises(InputError, match=r"mode=merge, but .*kitchen is a run without parts"):
        merge("kitchen")
    with pytest.raises(InputError, match=r"part=1/2, but .*kitchen is a run without parts"):
        call("kitchen", "1/2")
    assert hashes(root / "kitchen") == before


@pytest.mark.slow
def test_a_file_of_earlier_settings_is_not_joined(call, merge, root):
    for part in ("1/2", "2/2"):
        call("cut", part)
    for part in ("part_1_of_2", "part_2_of_2"):
        journal = root / "cut" / part / "journal.jsonl"
        first = json.loads(journal.read_text().splitlines()[0])
        first["acceptance_key"]["filter.name"] = "energy"  # a call that was killed before it judged the rows again
        with journal.open("a") as file:
            file.write(json.dumps(first) + "\n")
    with pytest.raises(InputError, match=r"(?s)other settings than its part's last call.*'none' in the file, 'energy'"):
        merge("cut")


@pytest.mark.slow
def test_parts_of_two_lists_are_not_joined(call, merge, root):
    call("cut", "1/2", codes="[storage_bin,bowl,box]")
    call("other", "2/2", codes="[mug,bottle,box,bowl]")
    shutil.copytree(root / "other" / "part_2_of_2", root / "cut" / "part_2_of_2")
    with pytest.raises(InputError, match=r"object 0 is 'mug' in this call and 'storage_bin' in part_1_of_2"):
        merge("cut")
