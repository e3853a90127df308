"""What a start finds damaged, missing or moved is repaired or done again, to the same bytes, and said."""

import hashlib
import json
import os
import time
from pathlib import Path

import h5py
import numpy as np
import pytest
import quick_conf
from run_tools import events, flip, hashes
from stub_rounds import Stub, made_columns
from threaded_workers import use_threads

import scale
from bimangrasp.errors import InputError
from bimangrasp.files import formats
from scale.store import durable_io, journal, shards
from scale.store.run_folder import RunFolder, parse_shard_name

QUOTA, BATCH = 20, 8
ROOT = Path(__file__).parents[1]


@pytest.fixture(autouse=True)
def _threads(monkeypatch):
    use_threads(monkeypatch)


def run(root, *overrides, name="x", stub=None, quota=QUOTA, objects="[storage_bin,bowl]"):
    names = [f"exp_name={name}", f"object_code_list={objects}", "seed_base=5", "gpus=[cpu]"]
    names += [f"target_count_per_object={quota}", f"round_batch_size={BATCH}"]
    return scale.run(quick_conf.load(*names, *overrides, output_root=root), maker=stub or Stub())


def done(folder, code="bowl"):
    return [event["round"] for event in events(folder, "done") if event["code"] == code]


def shard_of(folder, round_id, code="bowl"):
    names = [(path, parse_shard_name(path.name)) for path in folder.shard_files()]
    return next(path for path, name in names if (name.code_name, name.round_id) == (code, round_id))


@pytest.fixture(scope="module")
def wanted(tmp_path_factory):
    """The bytes of the undisturbed run."""
    with pytest.MonkeyPatch.context() as patch:
        use_threads(patch)
        patch.setenv("BIMANGRASP_CACHE", str(tmp_path_factory.mktemp("cache")))
        root = tmp_path_factory.mktemp("wanted")
        report = run(root)
        assert [one.collected for one in report.objects] == [QUOTA, QUOTA]
        return hashes(RunFolder(root / "x"))


@pytest.fixture
def finished(tmp_path):
    """A finished run that kept its shards."""
    run(tmp_path, "keep_intermediate=true")
    return RunFolder(tmp_path / "x")


@pytest.fixture
def unfinished(tmp_path):
    """A run that was ended before any object was: rounds 0 and 1 of each are sealed, nothing is merged."""
    run(tmp_path, "keep_intermediate=true", "max_rounds=2")
    folder = RunFolder(tmp_path / "x")
    for path in folder.final_files():
        path.unlink()
    kept = [e for e in events(folder) if e["event"] not in ("merged", "end")]
    folder.journal.write_text("".join(json.dumps(event) + "\n" for event in kept))
    folder.manifest.unlink()
    return folder


@pytest.mark.slow
def test_a_torn_journal_tail_is_cut_and_named(tmp_path, unfinished, wanted):
    with unfinished.journal.open("ab") as file:
        file.write(b'{"event": "skip", "code": "bowl", "rou')
    report = run(tmp_path)
    assert hashes(unfinished) == wanted and report.exit_code == 0
    assert f"{unfinished.journal}: a torn last line of 38 bytes is cut off" in str(report)
    assert journal.replay(unfinished, lambda _: None).torn_bytes == 0 and done(unfinished) == [0, 1, 2]


@pytest.mark.slow
@pytest.mark.parametrize("bad", [b"#\xff\xfe bad", b'{"event": "objects"}', b'["event"]', b"\0\0\0\0"])
def test_a_bad_line_before_the_tail_is_passed_over_and_the_rest_stands(tmp_path, unfinished, wanted, bad):
    lines = unfinished.journal.read_bytes().splitlines()
    damaged = b"\n".join([*lines[:2], bad, *lines[2:]]) + b"\n"
    unfinished.journal.write_bytes(damaged)
    report = run(tmp_path)
    assert hashes(unfinished) == wanted
    assert f"{unfinished.journal} has 1 lines that cannot be read: they are passed over" in str(report)
    assert unfinished.journal.read_bytes().startswith(damaged)


@pytest.mark.slow
@pytest.mark.parametrize("order", ["[storage_bin,bowl]", "[bowl,storage_bin]"])
def test_a_journal_that_is_missing_is_told_again_by_the_files(tmp_path, unfinished, wanted, order):
    unfinished.journal.unlink()
    report = run(tmp_path, objects=order)
    assert hashes(unfinished) == wanted and report.exit_code == 0
    assert f"{unfinished.journal} is missing or empty: the files tell objects and rounds" in str(report)
    assert done(unfinished) == [2] and [event["round"] for event in events(unfinished, "adopted")] == [0, 1, 0, 1]
    assert events(unfinished, "objects")[0]["indices"] == {"storage_bin": 0, "bowl": 1}
    assert {o.code: (o.rounds, o.collected) for o in scale.status(unfinished.root).objects} == {
        "storage_bin": (4, QUOTA),
        "bowl": (3, QUOTA),
    }


@pytest.mark.slow
def test_an_index_that_nothing_tells_is_the_one_that_the_list_gives(tmp_path, unfinished, wanted):
    unfinished.journal.unlink()
    for round_id in (0, 1):
        shard_of(unfinished, round_id, "storage_bin").unlink()
    run(tmp_path)
    assert hashes(unfinished) == wanted


def tell_indices(folder, indices):
    """Lets the journal tell other indices."""
    told = [event | ({"indices": indices} if event["event"] == "objects" else {}) for event in events(folder)]
    folder.journal.write_text("".join(json.dumps(event) + "\n" for event in told))


def test_an_index_that_journal_and_files_contradict_is_refused(tmp_path, unfinished):
    tell_indices(unfinished, {"storage_bin": 0, "bowl": 2})
    with pytest.raises(InputError, match="object 'bowl' has index 2 and 1 in one folder"):
        run(tmp_path)


def test_two_objects_never_share_an_index(tmp_path, unfinished):
    tell_indices(unfinished, {"storage_bin": 0, "bowl": 0})
    for round_id in (0, 1):
        shard_of(unfinished, round_id).unlink()
    with pytest.raises(InputError, match="two objects share an index"):
        run(tmp_path)


@pytest.mark.slow
def test_rounds_beyond_a_smaller_limit_wait_for_a_larger_one(tmp_path, unfinished, wanted):
    report = run(tmp_path, "max_rounds=1")
    assert {(one.rounds_done, one.end_reason) for one in report.objects} == {(1, "max_rounds")}
    assert report.exit_code == 3
    run(tmp_path)
    assert hashes(unfinished) == wanted and done(unfinished) == [0, 1, 2]


@pytest.mark.slow
def test_a_final_file_with_whole_columns_and_other_bytes_around_them_is_damaged(tmp_path, finished, wanted):
    with h5py.File(finished.final("bowl"), "r+") as file:
        file.attrs["remark"] = "not by the merge"
    report = run(tmp_path)
    assert "its columns are whole, and the bytes around them are not" in str(report)
    assert hashes(finished) == wanted and (finished.damaged / "bowl.h5.0").exists()


@pytest.mark.slow
def test_a_lost_journal_does_not_let_another_filter_in(tmp_path, finished):
    finished.journal.unlink()
    for path in list(finished.shard_files()):
        path.unlink()
    with pytest.raises(InputError, match=r"filter\.name"):
        run(tmp_path, "filter=energy")


@pytest.mark.slow
@pytest.mark.parametrize("torn", [b"", b'{"objects": {"bo', b"[]", b"\xff\xfe"])
def test_a_torn_manifest_goes_to_damaged_and_tells_all_objects_again(tmp_path, finished, torn):
    before = json.loads(finished.manifest.read_bytes())["objects"]
    finished.manifest.write_bytes(torn)
    report = run(tmp_path, objects="[bowl]")
    assert f"{finished.manifest} is damaged and moved to damaged/" in str(report) and "it is written anew" in str(
        report
    )
    assert (finished.damaged / "manifest.json.0").read_bytes() == torn
    after = json.loads(finished.manifest.read_bytes())["objects"]
    for code in ("storage_bin", "bowl"):
        same = ("index", "quota", "collected", "end_reason", "path", "sha256", "content_sha256")
        assert {name: after[code][name] for name in same} == {name: before[code][name] for name in same}


@pytest.mark.slow
def test_a_missing_manifest_and_configuration_are_written_anew(tmp_path, finished, wanted):
    finished.manifest.unlink()
    finished.config.unlink()
    run(tmp_path)
    assert finished.config.exists() and json.loads(finished.manifest.read_bytes())["objects"].keys() == {
        "storage_bin",
        "bowl",
    }
    assert hashes(finished) == wanted


@pytest.mark.slow
@pytest.mark.parametrize("share", [0, 0.2, 0.999])
def test_a_truncated_shard_goes_to_damaged_and_its_round_is_computed_again(tmp_path, unfinished, wanted, share):
    shard = shard_of(unfinished, 1)
    shard.write_bytes(shard.read_bytes()[: int(share * shard.stat().st_size)])
    report = run(tmp_path)
    assert hashes(unfinished) == wanted and report.exit_code == 0
    assert f"{shard} is damaged and moved to damaged/" in str(report)
    assert "round 1 of bowl is computed again" in str(report)
    assert "done by the journal and proven by no file: 1" in str(report)
    assert [path.name for path in unfinished.damaged.iterdir()] == [f"{shard.name}.0"]
    assert sorted(done(unfinished)) == [0, 1, 1, 2] and done(unfinished, "storage_bin") == [0, 1, 2, 3]


@pytest.mark.slow
def test_a_flipped_bit_in_a_shard_costs_its_round_alone(tmp_path, unfinished, wanted):
    shard = shard_of(unfinished, 0)
    flip(shard)
    before = shard.read_bytes()
    run(tmp_path)
    assert hashes(unfinished) == wanted and sorted(done(unfinished)) == [0, 0, 1, 2]
    assert (unfinished.damaged / f"{shard.name}.0").read_bytes() == before


@pytest.mark.slow
def test_damaged_files_of_one_name_do_not_overwrite_each_other(tmp_path, wanted):
    for n in range(2):
        run(tmp_path, "keep_intermediate=true")
        flip(RunFolder(tmp_path / "x").final("bowl"), 0.4 + n / 10)
    run(tmp_path)
    folder = RunFolder(tmp_path / "x")
    assert hashes(folder) == wanted
    assert sorted(path.name for path in folder.damaged.iterdir()) == ["bowl.h5.0", "bowl.h5.1"]


@pytest.mark.slow
def test_a_shard_that_is_deleted_is_computed_again(tmp_path, unfinished, wanted):
    shard_of(unfinished, 1).unlink()
    report = run(tmp_path)
    assert hashes(unfinished) == wanted and sorted(done(unfinished)) == [0, 1, 1, 2]
    assert "rounds of bowl that are done by the journal and proven by no file: 1" in str(report)


def reseal(folder, path, change):
    """Puts a shard with a consistent name in place of another one, after `change(file)`."""
    with h5py.File(path, "r+") as file:
        change(file)
    image = path.read_bytes()
    name = parse_shard_name(path.name)
    new = path.with_name(f"{name.code_name}.{name.round_id:06d}.{hashlib.sha256(image).hexdigest()[:16]}.h5")
    return path.rename(new)


def without_a_field(file):
    del file["contact/normal"]


def with_another_field(file):
    file["extra"] = np.zeros(BATCH)


def with_another_shape(file):
    del file["hand/joints"]
    file["hand/joints"] = np.zeros((BATCH, 2, 5), np.float32)


def with_another_dtype(file):
    old = file["energy/total"][...]
    del file["energy/total"]
    file["energy/total"] = old.astype(np.float64)


def with_a_group_for_a_field(file):
    del file["object_scale"]
    file.create_group("object_scale")


def without_an_attribute(file):
    del file.attrs["joint_names"]


def with_a_number_for_a_text(file):
    file.attrs["run_key"] = 3


@pytest.mark.slow
@pytest.mark.parametrize(
    "change",
    [
        without_a_field,
        with_another_field,
        with_another_shape,
        with_another_dtype,
        with_a_group_for_a_field,
        without_an_attribute,
        with_a_number_for_a_text,
    ],
)
def test_a_shard_that_is_not_the_formats_is_set_aside_and_done_again(tmp_path, unfinished, wanted, change):
    bad = reseal(unfinished, shard_of(unfinished, 0), change)
    report = run(tmp_path)
    assert hashes(unfinished) == wanted and report.exit_code == 0
    assert f"{bad} is damaged and moved to damaged/" in str(report)
    assert (unfinished.damaged / f"{bad.name}.0").exists() and sorted(done(unfinished)) == [0, 0, 1, 2]


@pytest.mark.slow
def test_leftovers_of_unfinished_writes_are_removed_and_named(tmp_path, unfinished, wanted):
    left = [unfinished.root / ".tmp-manifest", shard_of(unfinished, 0).with_name(".tmp-ab-1")]
    for path in left:
        path.write_bytes(b"half")
    report = run(tmp_path)
    assert hashes(unfinished) == wanted and not any(path.exists() for path in left)
    assert all(f"an unfinished write was removed: {unfinished.relative(path)}" in str(report) for path in left)


@pytest.mark.slow
@pytest.mark.parametrize("keep", ["true", "false"])
@pytest.mark.parametrize("fate", ["flipped", "torn", "deleted", "another's"])
def test_a_final_file_is_built_again_to_the_same_bytes(tmp_path, capsys, wanted, keep, fate):
    run(tmp_path, f"keep_intermediate={keep}")
    folder = RunFolder(tmp_path / "x")
    if keep == "false":
        for path in list(folder.shard_files()):
            path.unlink()
    final = folder.final("bowl")
    if fate == "flipped":
        flip(final)
    elif fate == "torn":
        final.write_bytes(final.read_bytes()[:5000])
    elif fate == "deleted":
        final.unlink()
    else:
        final.write_bytes(folder.final("storage_bin").read_bytes())
    before = final.read_bytes() if final.exists() else None
    capsys.readouterr()
    report = run(tmp_path)
    note = "final files that are gone" if fate == "deleted" else "is damaged and moved to damaged/"
    assert capsys.readouterr().out.count(note) == 1, "it is told when it is seen, and not again at the end"
    assert hashes(folder) == wanted and [one.collected for one in report.objects] == [QUOTA, QUOTA]
    assert len(done(folder)) == (3 if keep == "true" else 6) and len(done(folder, "storage_bin")) == 4
    if fate == "deleted":
        assert "final files that are gone are built again: 'bowl'" in str(report)
    else:
        assert f"{final} is damaged and moved to damaged/" in str(report)
        assert (folder.damaged / "bowl.h5.0").read_bytes() == before


@pytest.mark.slow
def test_a_file_that_links_to_nothing_is_set_aside_and_written_anew(tmp_path, finished):
    before = finished.dataset.read_bytes()
    for n, bad in enumerate((b"", before[:100], shard_of(finished, 0).read_bytes())):
        finished.dataset.write_bytes(bad)
        assert f"{finished.dataset} is damaged" in str(run(tmp_path))
        assert (finished.damaged / f"dataset.h5.{n}").read_bytes() == bad
        assert finished.dataset.read_bytes() == before
    finished.dataset.unlink()
    run(tmp_path)
    assert finished.dataset.read_bytes() == before


def another_of(folder, round_id, tile=BATCH):
    """Seals a second shard of a round of bowl, with other grasps."""
    shard = shards.verify(shard_of(folder, round_id))
    columns = shards.round_columns(made_columns(999, BATCH), shard.seed, round_id, tile)
    return shards.seal(folder, folder.place(7, 7), shard.header, columns)


@pytest.mark.slow
def test_two_hashes_of_one_round_at_one_tile_are_broken_determinism(tmp_path, unfinished):
    another_of(unfinished, 1)
    assert "bowl: BROKEN DETERMINISM: round 1 was computed twice" in str(run(tmp_path))


@pytest.mark.slow
def test_of_two_shards_at_unlike_tiles_the_larger_tile_counts_and_nothing_is_broken(tmp_path, unfinished, wanted):
    other = another_of(unfinished, 1, tile=4)
    report = run(tmp_path)
    assert hashes(unfinished) == wanted and "BROKEN" not in str(report) and not other.exists()


@pytest.mark.slow
def test_a_round_that_comes_back_with_other_bytes_than_the_journal_says_is_broken_determinism(tmp_path, unfinished):
    shard_of(unfinished, 1).unlink()
    report = run(tmp_path, stub=Stub(nan_share=0.6))
    assert "BROKEN DETERMINISM: round 1" in str(report) and "round 2" not in str(report.objects[1].notes)


@pytest.mark.slow
def test_the_clock_may_jump(tmp_path, monkeypatch, wanted):
    real, now = time.time, [4e9]
    monkeypatch.setattr(time, "time", lambda: now[0])
    run(tmp_path, "max_rounds=2")
    now[0] = 0.0
    report = run(tmp_path)
    now[0] = real()
    assert hashes(RunFolder(tmp_path / "x")) == wanted and report.exit_code == 0
    assert done(RunFolder(tmp_path / "x")) == [0, 1, 2]


@pytest.mark.slow
def test_the_folder_may_be_renamed_and_moved_in_the_middle(tmp_path, unfinished, wanted):
    elsewhere = tmp_path / "else where ü"
    elsewhere.mkdir()
    unfinished.root.rename(elsewhere / "y")
    report = run(elsewhere, name="y")
    assert hashes(RunFolder(elsewhere / "y")) == wanted and done(RunFolder(elsewhere / "y")) == [0, 1, 2]
    assert report.notes == []


@pytest.mark.slow
def test_the_list_may_be_reordered_enlarged_and_reduced(tmp_path, unfinished, wanted):
    run(tmp_path, objects="[mug,bowl]")
    run(tmp_path, objects="[storage_bin]")
    found = hashes(unfinished)
    assert {name: found[name] for name in wanted} == wanted and len(found) == 3
    assert done(unfinished) == [0, 1, 2] and done(unfinished, "storage_bin") == [0, 1, 2, 3]
    with h5py.File(unfinished.final("mug")) as file:
        assert file.attrs["object_index"] == 2 and file["seed"][0] == 200005


@pytest.mark.slow
@pytest.mark.parametrize("code", ["grüner Becher", "a b  c", "100%", "💡"])
def test_unicode_and_spaces_in_a_code_work(tmp_path, code):
    meshes = tmp_path / "meshes"
    meshes.mkdir()
    source = next((ROOT / "bimangrasp/assets/objects").glob("storage_bin*")).read_bytes()
    (meshes / f"{code}.obj").write_bytes(source)
    report = run(tmp_path, f"object_root={meshes}", name="ein Lauf ü", objects=json.dumps([code], ensure_ascii=False))
    assert report.exit_code == 0 and formats.verify_final(str(report.paths[0])).header.object_code == code
    with h5py.File(report.run_dir / "dataset.h5") as file:
        assert len(file[report.paths[0].stem]["row"]) == QUOTA


@pytest.mark.slow
@pytest.mark.parametrize("code", ["a/b", "../b", "a\\\\b", ".a"])
def test_a_path_in_a_code_is_refused_before_anything_starts(tmp_path, code):
    with pytest.raises(InputError, match="a code names a file"):
        run(tmp_path, objects=f'["{code}"]')
    assert not (tmp_path / "x").exists()


def test_a_folder_that_cannot_be_written_is_refused_before_anything_starts(tmp_path, finished, monkeypatch):
    before = {path: path.stat().st_mtime_ns for path in finished.root.rglob("*")}
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path) != finished.shards)
    with pytest.raises(InputError, match=rf"{finished.root} cannot be written .*make it writable"):
        run(tmp_path)
    assert {path: path.stat().st_mtime_ns for path in finished.root.rglob("*")} == before


def test_a_place_where_no_folder_can_be_made_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be written .*another output_root"):
        run(tmp_path / "file")


def test_a_disk_that_is_full_at_the_start_is_refused_with_what_to_do(tmp_path, monkeypatch):
    def full(path):
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr(durable_io, "make_folder", full)
    with pytest.raises(InputError, match="No space left.*make room"):
        run(tmp_path)
