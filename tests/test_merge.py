"""The merge is a pure function of the prefix: in one go or in many, the same bytes."""

import errno
import hashlib
import os
import tracemalloc
from dataclasses import replace

import h5py
import numpy as np
import pytest
from stub_rounds import JOINTS, Stub, made_columns

from bimangrasp.files import formats
from bimangrasp.files.formats import Ending, Header
from bimangrasp.files.schema import FINAL_FIELDS, GRASP_FIELDS, FormatError
from scale.merge import final_file
from scale.merge.final_file import write_dataset
from scale.merge.job import MergeJob, MergeRound
from scale.merge.round_records import JudgedRound, SkippedRound
from scale.settings import filters
from scale.settings.schema import FilterConfig
from scale.store import durable_io, shards
from scale.store.run_folder import RunFolder

HEADER = Header("mug", 2, "cd" * 32, Stub().hand_table(), {}, {"contacts_per_hand": 2}, {})
ACCEPT = filters.Accept(FilterConfig("none", 1.0, 1.0, 1.0, 1.0, 1.0))
PLATFORM = {"torch": "2"}
BATCH = 8


@pytest.fixture
def folder(tmp_path):
    made = RunFolder(tmp_path)
    made.prepare()
    return made


def seal_rounds(folder, states, sizes=None):
    """Seals a round for every True and returns round -> shard; `sizes` are of axes unlike the stub's."""
    names = tuple(f"j{n}" for n in range((sizes or {}).get("J", JOINTS)))
    header = replace(HEADER, hand=replace(HEADER.hand, joint_names=names), platforms=(PLATFORM,))
    made = {}
    for r in np.flatnonzero(states):
        columns = shards.round_columns(made_columns(int(r), BATCH, **(sizes or {})), int(r), int(r), BATCH)
        made[int(r)] = shards.verify(shards.seal(folder, folder.place(0, 0), header, columns))
    return made


def job(made, count, quota, old=None):
    """The merge of the first `count` rounds; `old` is the proof of the file before."""
    accepted = {r: int(ACCEPT(made[r].columns).sum()) if r in made else 0 for r in range(count)}
    table, total = [], 0
    for r in range(count):
        if total == quota:
            break
        kept = min(accepted[r], quota - total)
        total += kept
        already = int(old.rounds["rounds/kept"][r]) if old and r < old.sizes["R"] else 0
        shard = made.get(r)
        needs = shard is not None and (kept > already or not old or r >= old.sizes["R"])
        facts = (r, BATCH, BATCH, PLATFORM, shard.sha256, shard.path, accepted[r]) if shard else ()
        record = JudgedRound(*facts) if shard else SkippedRound(r, "")
        table.append(MergeRound(r, record, kept, already, needs))
    ending = Ending({"filter.name": "none"}, quota, total == quota, "quota" if total == quota else "partial")
    return MergeJob(HEADER, ending, tuple(table), None, old.sizes["R"] if old else 0, ACCEPT)


def run(folder, made, count, quota, old=None):
    wanted = job(made, count, quota, old)
    return final_file.merge(folder, wanted._replace(old=folder.final("mug") if old else None))


@pytest.mark.slow
@pytest.mark.parametrize("states", [[1, 1, 1, 1, 1], [0, 1, 0, 0, 1], [0, 0, 0, 1, 1], [1, 1, 0, 0, 0]])
@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("quota", [9, 100])
def test_one_merge_or_many_give_the_same_bytes(folder, states, stride, quota):
    made = seal_rounds(folder, states)
    whole = run(folder, made, 5, quota)
    whole_bytes = whole.path.read_bytes()
    whole.path.unlink()
    old = None
    for count in [*range(stride, 5, stride), 5]:
        old = run(folder, made, count, quota, old).proof
    assert whole.path.read_bytes() == whole_bytes


@pytest.mark.slow
@pytest.mark.parametrize("first, second", [(3, 4), (5, 17), (6, 12), (1, 30)])
def test_a_raised_quota_gives_the_bytes_of_the_larger_one(folder, first, second):
    made = seal_rounds(folder, [1, 1, 0, 1, 1, 1])
    wanted = run(folder, made, 6, second).path.read_bytes()
    old = run(folder, made, 6, first).proof
    assert old.sizes["N"] == first
    assert run(folder, made, 6, second, old).path.read_bytes() == wanted


def test_rows_are_the_accepted_ones_in_round_and_row_order(folder):
    made = seal_rounds(folder, [1, 0, 1])
    with h5py.File(run(folder, made, 3, 100).path) as file:
        for f in GRASP_FIELDS:
            parts = [made[r].columns[f.name][ACCEPT(made[r].columns)] for r in (0, 2)]
            assert np.array_equal(file[f.name][...], np.concatenate(parts)), f.name
        assert file["rounds/state"][...].tolist() == [0, 1, 0]
        assert np.isnan(file["curve/total"][1]).all() and (file["curve/step"][1] == -1).all()
        assert np.array_equal(file["curve/total"][2], made[2].columns["curve/total"][0])
        assert file["rounds/shard_sha256"][1] == b""


def test_the_file_proves_itself(folder):
    merged = run(folder, seal_rounds(folder, [1, 1]), 2, 10)
    assert formats.verify_final(str(merged.path)).content_sha256 == merged.proof.content_sha256
    assert hashlib.sha256(merged.path.read_bytes()).hexdigest() == merged.sha256


def test_an_object_whose_rounds_all_failed_has_a_readable_file(folder):
    merged = run(folder, {}, 3, 10)
    assert merged.proof.sizes == {"N": 0, "R": 3, "J": 2, "C": 2, "P": 0}


def test_a_full_disk_leaves_the_old_file_as_it_was(folder, monkeypatch):
    made = seal_rounds(folder, [1, 1, 1])
    old = run(folder, made, 1, 100)
    before = old.path.read_bytes()

    def full(fd, data, offset=None):
        os.pwrite(fd, bytes(data)[: len(data) // 2], offset)
        raise OSError(errno.ENOSPC, "no space left")

    monkeypatch.setattr(durable_io, "write", full)
    with pytest.raises(OSError, match="no space"):
        run(folder, made, 3, 100, old.proof)
    assert old.path.read_bytes() == before and folder.remove_leftovers() == []


def test_a_changed_shard_is_not_merged(folder):
    made = seal_rounds(folder, [1, 1])
    other = made[1]._replace(sha256="0" * 64)
    with pytest.raises(FormatError, match="no longer has the sha256"):
        run(folder, made | {1: other}, 2, 100)
    assert folder.final_files() == []


def flip_after_sync(monkeypatch, offset):
    """Flips a bit of the next file that is synced, as a bad disk would."""
    sync = durable_io.sync

    def bad(fd):
        sync(fd)
        monkeypatch.setattr(durable_io, "sync", sync)
        os.pwrite(fd, bytes([os.pread(fd, 1, offset)[0] ^ 1]), offset)

    monkeypatch.setattr(durable_io, "sync", bad)


@pytest.mark.slow
def test_a_bit_that_flips_between_writing_and_reading_back_keeps_the_old_file(folder, monkeypatch):
    made = seal_rounds(folder, [1, 1, 1])
    whole = run(folder, made, 3, 100).path
    with h5py.File(whole) as file:
        firsts = {f.name: file[f.name].id.get_offset() for f in FINAL_FIELDS}
        lasts = {name: first + file[name].id.get_storage_size() - 1 for name, first in firsts.items()}
    words = {word: whole.read_bytes().index(word) for word in (b"quota", b"RA-L, 2024", b"origin of each hand")}
    old = run(folder, made, 1, 100)
    before = old.path.read_bytes()
    for where, offset in [*firsts.items(), *lasts.items(), *words.items()]:
        flip_after_sync(monkeypatch, offset)
        with pytest.raises(FormatError):
            run(folder, made, 3, 100, old.proof)
            pytest.fail(f"a flipped bit in {where} went unseen")
        assert old.path.read_bytes() == before and folder.remove_leftovers() == []


@pytest.mark.slow
@pytest.mark.parametrize("axis, name", [("C", "contact/candidate"), ("P", "curve/step"), ("J", "hand/joints")])
@pytest.mark.parametrize("count", [1, 2])
def test_a_round_of_other_size_than_those_before_is_named(folder, axis, name, count):
    made = seal_rounds(folder, [1] * count)
    old = run(folder, made, count, 100).proof
    made |= seal_rounds(folder, [0] * count + [1], {axis: 5})
    with pytest.raises(FormatError, match=rf"{name} in .*\.{count:06}\..* has shape .* unlike the rounds before it"):
        run(folder, made, count + 1, 100, old)
    with pytest.raises(FormatError, match=rf"{name} in .*\.{count:06}\."):
        run(folder, made, count + 1, 100)
    assert formats.verify_final(str(folder.final("mug"))).content_sha256 == old.content_sha256


def test_a_shard_whose_accepted_rows_are_not_those_counted_is_not_merged(folder):
    wanted = job(seal_rounds(folder, [1, 1]), 2, 100)
    for more in (-1, 1):
        accepted, kept = wanted.rounds[1].record.accepted, wanted.rounds[1].kept
        record = replace(wanted.rounds[1].record, accepted=accepted + more)
        last = wanted.rounds[1]._replace(record=record, kept=kept + more)
        with pytest.raises(FormatError, match=rf"000001.*has {accepted} accepted rows, not the"):
            final_file.merge(folder, wanted._replace(rounds=(wanted.rounds[0], last)))


@pytest.mark.slow
def test_memory_does_not_grow_with_the_rejected_rows(folder):
    rows, rounds_ = 4000, 30
    table = []
    for r in range(rounds_):
        columns = made_columns(r, rows, nan_share=0.0)
        columns["energy/total"][1:] = np.nan
        header = replace(HEADER, platforms=(PLATFORM,))
        path = shards.seal(folder, folder.place(0, 0), header, shards.round_columns(columns, r, r, rows))
        record = JudgedRound(r, rows, rows, PLATFORM, shards.verify(path).sha256, path, 1)
        table.append(MergeRound(r, record, 1, 0, True))
    tracemalloc.start()
    final_file.merge(folder, MergeJob(HEADER, Ending({}, rounds_, True, "quota"), tuple(table), None, 0, ACCEPT))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 12 * path.stat().st_size


def test_the_data_set_opens_every_final_file_wherever_the_folder_lies(folder, tmp_path):
    run(folder, seal_rounds(folder, [1, 1]), 2, 5)
    write_dataset(folder)
    moved = tmp_path.rename(tmp_path.with_name("moved"))
    with h5py.File(moved / "dataset.h5") as file:
        assert len(file["mug/row"]) == 5 and file["mug"].attrs["quota"] == 5
        assert set(FINAL_FIELDS[0].name.split("/")[:1]) <= set(file["mug"])


def test_filter_by_energy_and_never_a_row_that_is_not_finite():
    columns = shards.round_columns(made_columns(1, 200), 1, 0, 200)
    mask = filters.Accept(FilterConfig("energy", 2.0, 3.0, 1.0, 1.0, 1.0))(columns)
    inside = [
        columns[f"energy/{t}"] < limit for t, limit in (("force_closure", 2), ("distance", 3), ("penetration", 1))
    ]
    assert np.array_equal(mask, np.logical_and.reduce(inside) & np.isfinite(columns["energy/total"]))
    assert 0 < mask.sum() < 200
    columns["hand/joints"][np.flatnonzero(mask)[0], 1, 1] = np.inf
    assert filters.Accept(FilterConfig("energy", 2.0, 3.0, 1.0, 1.0, 1.0))(columns).sum() == mask.sum() - 1
