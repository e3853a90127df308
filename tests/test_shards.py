"""Sealing and verifying one shard."""

import numpy as np
import pytest
from stub_rounds import Stub, made_columns

from bimangrasp.files.formats import Header
from bimangrasp.files.schema import FormatError
from scale.store import shards
from scale.store.run_folder import RunFolder

HEADER = Header("müg", 2, "cd" * 32, Stub().hand_table(), {}, {"seed_base": 1}, {}, ({"torch": "2"},))


@pytest.fixture
def folder(tmp_path):
    made = RunFolder(tmp_path)
    made.prepare()
    return made


def sealed(folder, round_id=3, launch=0, seed=9):
    columns = shards.round_columns(made_columns(seed, 8), seed, round_id, 8)
    return shards.seal(folder, folder.place(0, launch), HEADER, columns)


def test_a_sealed_shard_says_what_the_round_was(folder):
    shard = shards.verify(sealed(folder))
    assert (shard.round_id, shard.seed, shard.rows, shard.tile_used) == (3, 9, 8, 8)
    assert shard.platform == {"torch": "2"} and shard.header.object_code == "müg"
    assert np.isnan(shard.columns["energy/total"]).any()
    assert shard.path.name.startswith("müg.000003." + shard.sha256[:16])


def test_a_repeated_round_has_the_same_bytes(folder):
    one, two = sealed(folder, launch=0), sealed(folder, launch=1)
    assert one != two and one.read_bytes() == two.read_bytes()


def test_a_flipped_bit_anywhere_shows_without_the_journal(folder):
    path = sealed(folder)
    good = path.read_bytes()
    for at in range(0, len(good), 211):
        path.write_bytes(good[:at] + bytes([good[at] ^ 4]) + good[at + 1 :])
        with pytest.raises(FormatError, match="name says"):
            shards.verify(path)


@pytest.mark.parametrize("share", [0, 0.1, 0.9])
def test_a_torn_shard_is_refused(folder, share):
    path = sealed(folder)
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    with pytest.raises(FormatError):
        shards.verify(path)


def test_a_shard_under_another_rounds_name_is_refused(folder):
    path = sealed(folder)
    path = path.rename(path.with_name(path.name.replace("000003", "000004")))
    with pytest.raises(FormatError, match="holds round 3"):
        shards.verify(path)


def test_only_sealed_shards_are_found(folder):
    path = sealed(folder)
    path.with_name(".tmp-" + path.name).write_bytes(b"")
    path.with_name("notes.txt").write_bytes(b"")
    assert list(folder.shard_files()) == [path]
    assert [name.rpartition("/")[2] for name in folder.remove_leftovers()] == [".tmp-" + path.name]
