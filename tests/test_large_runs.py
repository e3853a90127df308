"""Runs of many objects: the journal alone tells what untouched files say, and nothing grows faster than the run."""

import cProfile
import json
import os
import pstats
from dataclasses import replace

import numpy as np
import pytest
import quick_conf
from run_tools import events, hashes
from stub_judge import StubJudge
from stub_rounds import Stub

import scale
from benchmarks import cluster
from bimangrasp.files import formats
from scale.controller import event_loop
from scale.engine.process_pool import ProcessPool
from scale.merge.final_file import Merged
from scale.settings.mesh_checks import check_objects
from scale.settings.parsing import resolve_objects
from scale.state.scan import verified_final
from scale.store import journal
from scale.store.events import FileMerged
from scale.store.run_folder import RunFolder


@pytest.fixture
def call(tmp_path):
    """Runs the stub on a brick and a slab: call("filter=physics", quota=5)."""

    def run(*overrides, stub=None, quota=7):
        names = [f"target_count_per_object={quota}", "round_batch_size=4", "exp_name=x", "gpus=[cpu]", *overrides]
        names += ["object_code_list=[storage_bin,bowl]"]
        config = quick_conf.load(*names, output_root=tmp_path)
        return scale.run(config, maker=stub or Stub(), judge=StubJudge())

    return run


def merged_lines(folder):
    lines = {}
    journal.replay(folder, lambda event: lines.update({event.code: event}) if isinstance(event, FileMerged) else None)
    return lines


CALLS = {
    "all count": ([], Stub(nan_share=0.0)),
    "some count": ([], Stub(nan_share=0.4)),
    "physics": (["filter=physics"], Stub()),
    "barren": (["max_barren_rounds=2"], Stub(nan_share=1.0)),
    "rounds run out": (["max_rounds=1"], Stub(nan_share=0.4)),
    "skipped": (["max_retries=0"], Stub(faults={("bowl", 1): ["raise"]})),
    "kept shards": (["keep_intermediate=true"], Stub()),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", CALLS)
def test_a_line_says_what_the_file_says(call, tmp_path, name):
    overrides, stub = CALLS[name]
    call(*overrides, stub=replace(stub, marks=str(tmp_path)), quota=7 if name != "skipped" else 9)
    folder, common = RunFolder(tmp_path / "x"), None
    for code, line in merged_lines(folder).items():
        in_file = formats.verify_final(str(folder.final(code)))
        common = common or replace(in_file.header, object_code="", object_index=-1, mesh_sha256="", platforms=())
        said = Merged.of_line(folder.final(code), line, common).proof
        for name in vars(in_file.header).keys() - {"hand"}:  # which is that of the call
            assert getattr(said.header, name) == getattr(in_file.header, name)
        assert said.ending == in_file.ending and said.sizes == in_file.sizes
        assert (said.content_sha256, said.sha256) == (in_file.content_sha256, in_file.sha256)
        assert said.rounds.keys() == in_file.rounds.keys()
        for column, values in in_file.rounds.items():
            np.testing.assert_array_equal(said.rounds[column], values, strict=True)


@pytest.mark.slow
@pytest.mark.parametrize("overrides", [[], ["filter=physics"]])
def test_untouched_files_are_not_opened_and_the_rest_is_as_ever(call, tmp_path, monkeypatch, overrides):
    call(*overrides)
    folder = RunFolder(tmp_path / "x")
    before, manifest = hashes(folder), json.loads(folder.manifest.read_bytes())
    with monkeypatch.context() as shut:
        shut.setattr(formats, "verify_final", lambda *_, **__: pytest.fail("a final file was opened"))
        assert call(*overrides).exit_code == 0
    assert hashes(folder) == before and json.loads(folder.manifest.read_bytes())["objects"] == manifest["objects"]
    assert call(*overrides, quota=11).exit_code == 0  # grows from what the line says
    grown = hashes(folder)
    for path in folder.final_files():
        path.unlink()
    folder.journal.unlink()
    assert call(*overrides, quota=11).exit_code == 0 and hashes(folder) == grown


@pytest.mark.slow
def test_a_journal_of_before_has_its_files_opened_once(call, tmp_path, monkeypatch):
    call()
    folder, opened = RunFolder(tmp_path / "x"), []
    lines = [{key: line[key] for key in line if key != "table"} for line in events(folder)]
    folder.journal.write_text("".join(json.dumps(line) + "\n" for line in lines))
    verify = formats.verify_final
    monkeypatch.setattr(formats, "verify_final", lambda path, **rest: opened.append(path) or verify(path, **rest))
    assert call().exit_code == 0 and len(opened) == 2


@pytest.mark.slow
def test_a_file_that_still_grows_leaves_no_table_in_the_journal(call, tmp_path):
    call("merge_stride=1", quota=20, stub=Stub(nan_share=0.0))
    of_bowl = [line for line in events(RunFolder(tmp_path / "x"), "merged") if line["code"] == "bowl"]
    assert len(of_bowl) > 1 and ["table" in line for line in of_bowl] == [False] * (len(of_bowl) - 1) + [True]


@pytest.mark.slow
def test_a_touched_file_is_read(call, tmp_path):
    call()
    folder = RunFolder(tmp_path / "x")
    path, line = folder.final("bowl"), merged_lines(folder)["bowl"]
    common = formats.verify_final(str(path)).header
    os.utime(path, ns=(0, line.mtime_ns + 1))
    final, is_journaled = verified_final(path, line, "auto", common)
    assert not is_journaled and final.sha256 == line.sha256
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(formats.FormatError):
        verified_final(path, line, "auto", common)


# ---- growth, in calls of functions, which repeat where seconds do not


SIZES = 40, 80, 240


class Counts:
    """Calls of functions: until the first round is handed out, and in turns of the loop."""

    def __init__(self, monkeypatch):
        self.start, self.turns, self._profile = 0, {}, cProfile.Profile()
        assign = ProcessPool.assign

        def first(*arguments):
            if not self.start:
                self._profile.disable()
                self.start = pstats.Stats(self._profile).total_calls
            assign(*arguments)

        monkeypatch.setattr(ProcessPool, "assign", first)
        for name in ("snapshot", "save", "_is_over"):
            monkeypatch.setattr(event_loop.EventLoop, name, self._counted(name, getattr(event_loop.EventLoop, name)))

    def _counted(self, name, method):
        def counted(*arguments):
            if not self.start:
                return method(*arguments)
            profile = cProfile.Profile()
            result = profile.runcall(method, *arguments)
            self.turns.setdefault(name, []).append(pstats.Stats(profile).total_calls)
            return result

        return counted

    def run(self, root, codes):
        self._profile.enable()
        return cluster.scale_run(root, codes)


@pytest.mark.slow
def test_start_grows_no_faster_than_the_run_and_the_loop_not_at_all(tmp_path, monkeypatch):
    monkeypatch.setattr(event_loop, "MANIFEST_EVERY_S", 0.2)
    monkeypatch.setattr("scale.controller.run_report.PLAIN_EVERY_S", 0.2)
    counts = []
    for size in SIZES:
        root = tmp_path / str(size)
        codes = [f"object_{number}" for number in range(size)]
        cluster.make_meshes(root, codes)
        check_objects(resolve_objects(str(root / "meshes"), codes), quick_conf.load().object)  # in processes, if many
        cluster.scale_run(root, codes[:1])
        cluster.multiply(RunFolder(root / "run"), codes[0], codes[:-1], codes)
        with monkeypatch.context() as patch:
            count = Counts(patch)
            assert count.run(root, codes).exit_code == 0
        counts.append(count)
    first, second, third = (count.start for count in counts)
    slopes = (second - first) / (SIZES[1] - SIZES[0]), (third - second) / (SIZES[2] - SIZES[1])
    assert slopes[1] <= 1.3 * slopes[0]
    small, _, large = (count.turns for count in counts)
    assert large.keys() == small.keys() == {"snapshot", "save", "_is_over"}
    for name in ("snapshot", "_is_over"):
        assert sorted(large[name])[len(large[name]) // 2] <= 1.3 * max(small[name]), name
    # Of a manifest every entry is written, and few are made anew.
    assert max(large["save"]) - max(small["save"]) < 10 * (SIZES[2] - SIZES[0])
