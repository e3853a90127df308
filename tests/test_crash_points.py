"""A crash between any two changes of the disk, a write torn anywhere, a power-down: the same bytes in the end."""

import hashlib
import inspect
import re
from contextlib import contextmanager
from dataclasses import replace
from math import inf
from typing import NamedTuple

import pytest
import quick_conf
import yaml
from crash_recorder import CALLS, DATA, ENTRIES, Recorder, read_tree
from run_tools import events
from stub_judge import StubJudge
from stub_rounds import Stub
from threaded_workers import use_threads

import scale
from scale.settings.schema import Config
from scale.store import durable_io
from scale.store.run_folder import RunFolder, parse_shard_name

NAME = "storm ü"
SETTINGS = ["object_code_list=[storage_bin]", "gpus=[cpu]", "round_batch_size=4", "target_count_per_object=9"]
STRIDE = 2
SETTINGS = [*SETTINGS, "max_retries=0", f"merge_stride={STRIDE}", "seed_base=5"]


class Scene(NamedTuple):
    """The undisturbed run: how it was called, what it did to the disk, and what it left."""

    config: Config
    stub: Stub
    recorder: Recorder
    finals: dict[str, str]
    names: set[str]


def call(scene_config, stub, base):
    config = replace(scene_config, output_root=str(base))
    if config.mode == "generate":
        return scale.generate(config, maker=stub)
    return scale.run(config, maker=stub, judge=StubJudge())


def sealed_files(root):
    folder = RunFolder(root)
    return [*folder.shard_files(), *folder.verdict_files()]


def finals_of(root):
    files = set(root.rglob("*.h5")) - set(sealed_files(root))
    return {path.relative_to(root).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def names_of(root):
    """What lies in a run folder, without logs and the names of the workers' folders."""
    sealed = set(sealed_files(root))
    others = {path for path in root.rglob("*") if path.is_file() and path.parent.name != "logs"} - sealed
    return {path.name for path in sealed} | {path.relative_to(root).as_posix() for path in others}


def record(home, config, stub, before=None):
    """Returns a run with every change of the disk; `before`: settings of a call that is over when it starts."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BIMANGRASP_CACHE", str(home / "cache"))
        use_threads(patch)
        base = home / "runs"
        base.mkdir()
        if before is not None:
            assert call(before, stub, base).exit_code == 0
        recorder = Recorder(base)
        recorder.install(patch)
        assert call(config, stub, base).exit_code == 0
    scene = Scene(config, stub, recorder, finals_of(base / NAME), names_of(base / NAME))
    assert scene.finals
    return scene


@pytest.fixture(scope="module")
def scene(tmp_path_factory):
    """A run of two sealed rounds, a skipped one and a growing final file, with every change of the disk."""
    stub = Stub(faults={("storage_bin", 1): ["raise"] * 10_000}, marks=str(tmp_path_factory.mktemp("marks")))
    return record(tmp_path_factory.mktemp("recorded"), quick_conf.load(*SETTINGS, f"exp_name={NAME}"), stub)


def done_rounds(root, kind="done"):
    """The rounds that the journal calls done, or sealed."""
    return [(e["code"], e["round"]) for e in events(RunFolder(root), kind)]


def resume_and_compare(scene, base, **settings):
    """The same command again: the same files as ever, and nothing computed that was acknowledged or sealed."""
    root = base / NAME
    folder, acknowledged, told = RunFolder(root), done_rounds(root), done_rounds(root, "sealed")
    shards, verdicts = (
        {parse_shard_name(path.name)[:2] for path in files} for files in (folder.shard_files(), folder.verdict_files())
    )
    whole = shards & verdicts if scene.config.filter.name == "physics" else shards
    passed = {event["code"]: event["rounds"] for event in events(folder, "merged")}
    # A round that was made past the quota, and whose shard went with the merge, may be made again.
    acknowledged_kept, told_kept = (
        {(code, number) for code, number in rounds if number < passed.get(code, inf)} for rounds in (acknowledged, told)
    )
    proven = whole | acknowledged_kept
    assert call(replace(scene.config, **settings), scene.stub, base).exit_code == 0
    assert finals_of(root) == scene.finals, "other bytes"
    others = names_of(root) ^ scene.names
    if scene.config.mode == "generate":  # shards of the call that broke off stay: they might be those of a quota run
        others = {name for name in others if not parse_shard_name(name)}
    assert not others, f"other files: {others}"
    again = proven.intersection(done_rounds(root)[len(acknowledged) :])
    assert not again, f"rounds {again} were proven and computed again"
    made_again = (shards | told_kept).intersection(done_rounds(root, "sealed")[len(told) :])
    assert not made_again, f"rounds {made_again} had their shards and were computed again"


class Resumed:
    """Resumes from trees, each kind of tree once, and collects what went wrong."""

    def __init__(self, scene, base):
        self.scene, self.base, self.points, self.wrong = scene, base, 0, {}
        self.seen = set()

    def __call__(self, told, tree, stride=0):
        if tree.key() in self.seen:
            return
        self.seen.add(tree.key())
        self.points += 1
        base = self.base / str(self.points)
        base.mkdir()
        tree.lay_down(base)
        try:
            with in_this_process():
                resume_and_compare(self.scene, base, merge_stride=stride)
        except Exception as error:
            self.wrong[told] = f"{type(error).__name__}: {error}"

    def all_went_well(self, at_least):
        print(f"{self.points} crash points")
        assert not self.wrong, "\n".join(f"{told}: {what}" for told, what in self.wrong.items())
        assert self.points >= at_least
        return True


@contextmanager
def in_this_process():
    """Threads for workers, and no waiting for the disk: power fails here on paper only."""
    with pytest.MonkeyPatch.context() as patch:
        use_threads(patch)
        patch.setattr(durable_io, "sync", lambda fd: None)
        patch.setattr(durable_io, "sync_folder", lambda folder: None)
        patch.setattr(yaml, "SafeDumper", getattr(yaml, "CSafeDumper", yaml.SafeDumper))  # a fifth of a short run
        yield patch


def use_cache(scene, monkeypatch):
    monkeypatch.setenv("BIMANGRASP_CACHE", str(scene.recorder.base.parent / "cache"))


@pytest.fixture(scope="module")
def resume(scene, tmp_path_factory):
    return Resumed(scene, tmp_path_factory.mktemp("resumed"))


@pytest.fixture(autouse=True)
def _one_cache(scene, monkeypatch):
    use_cache(scene, monkeypatch)


@pytest.mark.slow
def test_the_recorder_sees_every_call_that_changes_a_disk(scene):
    public = {name for name, one in inspect.getmembers(durable_io, inspect.isfunction) if not name.startswith("_")}
    assert public - {"link"} == set(CALLS)  # a run makes no links, mode=merge alone does
    kept, found = scene.recorder.disk.tree(), read_tree(scene.recorder.base)
    empty = {f"{NAME}/logs/worker_0.log"}  # what workers print
    assert kept.folders == found.folders and set(found.files) - set(kept.files) <= empty
    assert {path: data for path, (data, _) in kept.files.items()} == {
        path: data for path, (data, _) in found.files.items() if path not in empty
    }


@pytest.mark.slow
def test_a_kill_between_any_two_changes_of_the_disk(scene, resume):
    for told, replayed, _ in scene.recorder.crashes():
        resume(told, replayed.tree(), stride=STRIDE)
    assert resume.all_went_well(at_least=30)


@pytest.mark.slow
def test_a_kill_within_any_write(scene, resume):
    for told, tree in scene.recorder.torn():
        resume(told, tree)
    assert resume.all_went_well(at_least=60)


@pytest.mark.slow
def test_a_power_down_after_any_change_of_the_disk(scene, resume):
    for told, replayed, _ in scene.recorder.crashes():
        for data in DATA:
            for entries in ENTRIES:
                resume(f"{told}; bytes {data}, entries {entries}", replayed.tree(data, entries))
    assert resume.all_went_well(at_least=90)


@pytest.mark.slow
def test_a_crash_while_a_crash_is_repaired(scene, resume, tmp_path):
    half_written = next(tree for told, tree in scene.recorder.torn() if re.search(r"worker_0_0/\.tmp-.* bytes", told))
    half_written.lay_down(tmp_path)
    with RunFolder(tmp_path / NAME).journal.open("ab") as file:
        file.write(b'{"event": "read')
    recorder = Recorder(tmp_path)
    with in_this_process() as patch:
        recorder.install(patch)
        resume_and_compare(scene, tmp_path)
    assert {"truncate", "remove"} <= {op.what for op in recorder.ops}
    for told, replayed, following in recorder.crashes():
        if following is None or following.what == "make_folder":  # from the first new round on it is a run like any
            break
        for data in DATA:
            resume(f"again: {told}; bytes {data}", replayed.tree(data))
    assert resume.all_went_well(at_least=100)


SMALL = ["round_batch_size=4", "gpus=[cpu]", "max_retries=0", "seed_base=5", f"exp_name={NAME}"]
OTHERS = {  # settings, of a call before it, crash points at least
    "two objects": (["object_code_list=[storage_bin,bowl]", "target_count_per_object=3"], None, 50),
    "a quota raised under physics": (
        ["object_code_list=[box]", "target_count_per_object=9", "filter=physics", "validators=1"],
        "target_count_per_object=4",
        30,
    ),
    "rejected grasps kept, a quota raised": (
        ["object_code_list=[box]", "target_count_per_object=8", "keep_failed=true", "merge_stride=1"],
        "target_count_per_object=2",
        20,
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", OTHERS)
def test_a_crash_anywhere_in_another_run(name, tmp_path, monkeypatch):
    settings, before, at_least = OTHERS[name]
    config = quick_conf.load(*SMALL, *settings)
    before = quick_conf.load(*SMALL, *settings, before) if before else None
    (tmp_path / "recorded").mkdir()
    other = record(tmp_path / "recorded", config, Stub(), before)
    use_cache(other, monkeypatch)
    resume = Resumed(other, tmp_path)
    for told, replayed, _ in other.recorder.crashes():
        resume(told, replayed.tree())
        resume(f"{told}; power-down", replayed.tree("synced", "synced"))
    for told, tree in other.recorder.torn(once=True):
        resume(told, tree)
    assert resume.all_went_well(at_least)


def test_what_was_synced_into_the_journal_can_be_reached_after_a_power_down(scene):
    """A journal that is lost with its whole folder leaves nothing that could contradict the next run."""
    journal_of, seen = f"{NAME}/journal.jsonl", set()
    for told, replayed, _ in scene.recorder.crashes():
        number = replayed.names.get(journal_of)
        synced = b"" if number is None else replayed.files[number].synced
        reached = replayed.tree("synced", "synced").files.get(journal_of, (b"", 0))[0]
        assert reached == synced, told
        seen.add(synced)
    assert len(seen) > 8


def test_seeds_are_on_the_disk_before_a_round_begins_and_merges_before_shards_go(scene):
    """Indices and skips are proven by the journal alone, so that no other file can show that a line was lost."""
    journal_of = f"{NAME}/journal.jsonl"
    checked = set()
    for _, replayed, following in scene.recorder.crashes():
        begins = following is not None and following.what == "make_folder" and "worker_" in following.on
        removes = following is not None and following.what == "remove" and following.on.endswith(".h5")
        if begins or removes:
            safe = replayed.tree("synced", "synced").files[journal_of][0]
            assert safe == replayed.tree().files[journal_of][0]
            assert (b'"merged"' if removes else b'"indices"') in safe
            checked.add(following.what)
    assert checked == {"make_folder", "remove"}


POINTS = {
    "a round sealed and not told": r"sync_folder .*/worker_0_0",
    "a final file in place and not told": r"sync_folder .*/final",
    "a shard removed": r"remove .*/shards/.*\.h5",
}


@pytest.mark.slow
@pytest.mark.parametrize("point", POINTS)
def test_with_processes_of_their_own(scene, point, tmp_path):
    found = (crash for told, crash, _ in scene.recorder.crashes() if re.fullmatch(f"call \\d+, {POINTS[point]}", told))
    next(found).tree().lay_down(tmp_path)
    resume_and_compare(scene, tmp_path)
