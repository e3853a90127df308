"""The HDF5 contract: equal input gives equal bytes, and a file that breaks the contract is not believed."""

import io
import os
from dataclasses import replace

import h5py
import numpy as np
import pytest

from bimangrasp.errors import InputError
from bimangrasp.files import final_format, shard_format
from bimangrasp.files import header as header_room
from bimangrasp.files.checksums import Content
from bimangrasp.files.header import Ending, HandTable, Header
from bimangrasp.files.schema import FINAL_FIELDS, SHARD_FIELDS, FormatError, shape_of
from bimangrasp.files.shard_format import ShardColumns

HAND = HandTable(
    "toy", "ab" * 32, ("j0", "j1"), np.array([["tip", "palm"], ["tip", ""]]), np.zeros((2, 2, 3), np.float32)
)
HEADER = Header(
    "böx", 3, "cd" * 32, HAND, {"w_fc": 1.0}, {"seed_base": 7}, {"mesh_sha256": "cd" * 32}, ({"torch": "2"},)
)
ENDING = Ending({"filter.name": "none"}, 5, True, "quota")
SIZES = {"N": 5, "J": 2, "C": 4, "R": 1, "P": 3}


def shard_columns(rows=5, round_id=2, seed=9):
    draw = np.random.default_rng(seed)
    sizes = SIZES | {"N": rows}
    columns = {f.name: draw.normal(size=shape_of(f, sizes)).astype(f.dtype) for f in SHARD_FIELDS}
    columns |= {"seed": np.full(rows, seed), "round": np.full(rows, round_id), "row": np.arange(rows)}
    columns |= {
        "rounds/seed": np.array([seed]),
        "rounds/round": np.array([round_id]),
        "rounds/rows": np.array([rows]),
    }
    return columns


def other_sizes(joints, contacts):
    """Columns of a shard whose bytes are as many when seven joints more go with two contacts less."""
    draw, sizes = np.random.default_rng(1), SIZES | {"J": joints, "C": contacts}
    return {f.name: draw.normal(size=shape_of(f, sizes)).astype(f.dtype) for f in SHARD_FIELDS}


def write_final(path, columns, ending=ENDING):
    sizes = SIZES | {"N": len(columns["row"])}
    content = Content()
    for f in FINAL_FIELDS:
        content.update(f.name, columns[f.name])
    layout = final_format.lay_out(HEADER, ending, sizes, content.hexdigest(sizes))
    with path.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, layout.length)
        for offset, page in layout.pages:
            os.pwrite(file.fileno(), page, offset)
        for name, offset in layout.offsets.items():
            if offset is not None:
                os.pwrite(file.fileno(), columns[name].tobytes(), offset)


def final_columns(rows=5, accepted=6):
    columns = shard_columns(rows, round_id=0)
    table = {
        "accepted": np.array([accepted]),
        "kept": np.array([rows]),
        "shard_sha256": np.array([b"e" * 64]),
    }
    return columns | {f"rounds/{name}": value for name, value in table.items()}


def test_equal_shards_have_equal_bytes_and_read_back():
    columns = shard_columns()
    image = shard_format.shard_image(HEADER, columns)
    assert image == shard_format.shard_image(HEADER, dict(reversed(columns.items())))
    header, again = shard_format.read_shard(image)
    assert (
        header.object_code == "böx" and header.run_key == {"seed_base": 7} and header.hand.joint_names == ("j0", "j1")
    )
    assert header.hand.candidate_link.tolist() == [["tip", "palm"], ["tip", ""]]
    assert all(np.array_equal(columns[name], again[name]) for name in columns)


def test_shard_keeps_failed_rows():
    columns = shard_columns()
    columns["energy/total"][2] = np.nan
    assert np.isnan(shard_format.read_shard(shard_format.shard_image(HEADER, columns))[1]["energy/total"][2])


@pytest.mark.parametrize(
    "name, wrong",
    [
        ("hand/rotation", np.zeros((5, 2, 6), np.float32)),
        ("hand/joints", np.zeros((5, 2, 2), np.float64)),
        ("object_scale", np.zeros(4, np.float32)),
        ("initial/joints", np.zeros((5, 2, 3), np.float32)),
    ],
)
def test_a_wrong_column_is_named(name, wrong):
    with pytest.raises(FormatError, match=name):
        shard_format.shard_image(HEADER, shard_columns() | {name: wrong})


def test_columns_of_one_shard_after_another_are_those_of_each():
    images = {
        "first": shard_format.shard_image(HEADER, shard_columns()),
        "like it": shard_format.shard_image(HEADER, shard_columns(round_id=3, seed=4)),
        "longer": shard_format.shard_image(HEADER, shard_columns(rows=6)),
        "of one length": shard_format.shard_image(HEADER, other_sizes(2, 4)),
        "and of the same": shard_format.shard_image(HEADER, other_sizes(9, 2)),
        "other words": shard_format.shard_image(replace(HEADER, object_code="cup"), shard_columns()),
    }
    assert len(images["of one length"]) == len(images["and of the same"])
    found = ShardColumns()
    for what, image in images.items():
        columns, alone = found.of(image), shard_format.shard_columns(image)
        assert all(columns[f.name].shape == alone[f.name].shape for f in SHARD_FIELDS), what
        assert all(np.array_equal(columns[f.name], alone[f.name], equal_nan=True) for f in SHARD_FIELDS), what


def test_a_copy_with_other_numbers_is_what_hdf5_would_write():
    for r, sizes in ((1, {}), (2, {}), (3, {"rows": 6}), (4, {}), (5, {"rows": 0})):
        header, columns = replace(HEADER, object_code=f"cup {r // 2}"), shard_columns(round_id=r, seed=r, **sizes)
        written = shard_format.image_of(shard_format.header_attributes(header), SHARD_FIELDS, columns)
        assert shard_format.shard_image(header, columns) == written


def test_a_reader_that_saw_others_reads_as_one_that_did_not():
    reader, odd = shard_format.ShardReader(), []
    for r in (1, 2, 1):
        for code in ("cup", "mug", "pot"):
            image = shard_format.shard_image(replace(HEADER, object_code=code), shard_columns(round_id=r, seed=r))
            (header, columns), (alone, fresh) = reader.read(image), shard_format.read_shard(image)
            odd += [code] * (header.object_code != alone.object_code or header.platforms != alone.platforms)
            odd += [f.name for f in SHARD_FIELDS if not np.array_equal(columns[f.name], fresh[f.name], equal_nan=True)]
    assert not odd
    broken = shard_format.shard_image(HEADER, shard_columns() | {"row": np.array([0, 1, 2, 3, 3])})
    with pytest.raises(FormatError, match="not those of the shard's round"):
        reader.read(broken)


def test_only_a_shard_unlike_the_one_before_is_looked_at(monkeypatch):
    looks = []
    places = shard_format._places
    monkeypatch.setattr(
        shard_format, "_places", lambda image, fields: looks.append(len(image)) or places(image, fields)
    )
    image, like = (shard_format.shard_image(HEADER, shard_columns(round_id=r, seed=r)) for r in (1, 2))
    other_key = shard_format.shard_image(replace(HEADER, run_key={"seed_base": 8}), shard_columns())
    found = ShardColumns()
    for one in (image, like, other_key, like):
        found.of(one)
    assert looks == [len(image)] * 3 and len(other_key) == len(image)


def test_missing_and_unknown_columns_are_named():
    columns = shard_columns()
    columns["extra"] = columns.pop("seed")
    with pytest.raises(FormatError, match=r"\['seed'\].*\['extra'\]"):
        shard_format.shard_image(HEADER, columns)


def test_every_dataset_says_unit_frame_and_description():
    with h5py.File(io.BytesIO(shard_format.shard_image(HEADER, shard_columns()))) as file:
        for f in SHARD_FIELDS:
            assert {"unit", "frame", "description"} <= set(file[f.name].attrs)


def test_layout_of_a_million_grasps_is_small():
    layout = final_format.lay_out(HEADER, ENDING, SIZES | {"N": 10**6})
    assert layout.length > 5e8 and sum(len(page) for _, page in layout.pages) < 1e5


def test_final_file_proves_itself(tmp_path):
    path = tmp_path / "final.h5"
    write_final(path, final_columns())
    proof = final_format.verify_final(str(path))
    assert proof.ending == ENDING and proof.sizes == SIZES and proof.header.object_index == 3
    with h5py.File(path) as file:
        assert np.array_equal(file["hand/rotation"][...], final_columns()["hand/rotation"])


def test_an_empty_final_file_is_readable(tmp_path):
    path = tmp_path / "final.h5"
    write_final(path, final_columns(rows=0, accepted=0), Ending({}, 5, False, "partial"))
    assert final_format.verify_final(str(path)).sizes["N"] == 0


def test_any_flipped_bit_of_a_final_file_is_noticed_or_without_effect(tmp_path):
    path = tmp_path / "final.h5"
    write_final(path, final_columns())
    good = path.read_bytes()
    offsets = final_format.lay_out(HEADER, ENDING, SIZES).offsets
    for name, offset in offsets.items():
        path.write_bytes(good[:offset] + bytes([good[offset] ^ 1]) + good[offset + 1 :])
        with pytest.raises(FormatError):
            final_format.verify_final(str(path))
            pytest.fail(f"a flipped bit in {name} went unseen")


@pytest.mark.parametrize("cut", [0, 10, 700, 5000, -1])
def test_a_torn_final_file_is_noticed(tmp_path, cut):
    path = tmp_path / "final.h5"
    write_final(path, final_columns())
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(FormatError):
        final_format.verify_final(str(path))


@pytest.mark.parametrize(
    "change, message",
    [
        ({"energy/total": np.array([1, 2, np.inf, 4, 5], np.float32)}, "energy/total.*finite"),
        ({"row": np.array([0, 1, 2, 2, 4])}, "unique"),
        ({"rounds/kept": np.array([4])}, "explain"),
        ({"rounds/accepted": np.array([4])}, "explain"),
        ({"rounds/round": np.array([1])}, "explain"),
    ],
)
def test_a_final_file_that_breaks_the_contract_is_refused(tmp_path, change, message):
    write_final(tmp_path / "final.h5", final_columns() | change)
    with pytest.raises(FormatError, match=message):
        final_format.verify_final(str(tmp_path / "final.h5"))


def test_complete_means_quota(tmp_path):
    write_final(tmp_path / "final.h5", final_columns(), Ending({}, 6, True, "quota"))
    with pytest.raises(FormatError, match="quota 6"):
        final_format.verify_final(str(tmp_path / "final.h5"))


def test_a_shard_with_rows_of_another_round_is_refused():
    image = shard_format.shard_image(HEADER, shard_columns() | {"round": np.array([2, 2, 3, 2, 2])})
    with pytest.raises(FormatError, match="seed, round and row"):
        shard_format.read_shard(image)


def test_a_newer_format_is_refused_with_the_remedy(monkeypatch):
    monkeypatch.setattr(header_room, "VERSION", 99)
    image = shard_format.shard_image(HEADER, shard_columns())
    monkeypatch.undo()
    with pytest.raises(InputError, match="newer program"):
        shard_format.read_shard(image)


def test_content_hash_does_not_depend_on_blocks():
    columns = final_columns()
    whole, parts = Content(), Content()
    for f in FINAL_FIELDS:
        whole.update(f.name, columns[f.name])
        for row in columns[f.name]:
            parts.update(f.name, np.asarray(row)[None])
    assert whole.hexdigest(SIZES) == parts.hexdigest(SIZES)
