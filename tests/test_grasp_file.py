"""The HDF5 contract: equal input gives equal bytes, and a file that breaks the contract is not believed."""

import hashlib
import io

import h5py
import numpy as np
import pytest

from bimangrasp.errors import InputError
from bimangrasp.files import formats
from bimangrasp.files import header as header_room
from bimangrasp.files.header import Ending, HandTable, Header
from bimangrasp.files.schema import FINAL_FIELDS, SHARD_FIELDS, FormatError, content_sha256, shape_of

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


def write_final(path, columns, ending=ENDING):
    path.write_bytes(formats.final_image(HEADER, ending, columns))


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
    image = formats.shard_image(HEADER, columns)
    assert image == formats.shard_image(HEADER, dict(reversed(columns.items())))
    header, again = formats.read_shard(image)
    assert (
        header.object_code == "böx" and header.run_key == {"seed_base": 7} and header.hand.joint_names == ("j0", "j1")
    )
    assert header.hand.candidate_link.tolist() == [["tip", "palm"], ["tip", ""]]
    assert all(np.array_equal(columns[name], again[name]) for name in columns)


def test_shard_keeps_failed_rows():
    columns = shard_columns()
    columns["energy/total"][2] = np.nan
    assert np.isnan(formats.read_shard(formats.shard_image(HEADER, columns))[1]["energy/total"][2])


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
        formats.shard_image(HEADER, shard_columns() | {name: wrong})


def test_missing_and_unknown_columns_are_named():
    columns = shard_columns()
    columns["extra"] = columns.pop("seed")
    with pytest.raises(FormatError, match=r"\['seed'\].*\['extra'\]"):
        formats.shard_image(HEADER, columns)


def test_every_dataset_says_unit_frame_and_description():
    with h5py.File(io.BytesIO(formats.shard_image(HEADER, shard_columns()))) as file:
        for f in SHARD_FIELDS:
            assert {"unit", "frame", "description"} <= set(file[f.name].attrs)


def test_final_file_proves_itself(tmp_path):
    path = tmp_path / "final.h5"
    write_final(path, final_columns())
    proof = formats.verify_final(str(path))
    assert proof.ending == ENDING and proof.sizes == SIZES and proof.header.object_index == 3
    with h5py.File(path) as file:
        assert np.array_equal(file["hand/rotation"][...], final_columns()["hand/rotation"])


def test_an_empty_final_file_is_readable(tmp_path):
    path = tmp_path / "final.h5"
    write_final(path, final_columns(rows=0, accepted=0), Ending({}, 5, False, "partial"))
    assert formats.verify_final(str(path)).sizes["N"] == 0


@pytest.mark.slow
def test_any_flipped_bit_of_a_final_file_is_noticed_or_without_effect(tmp_path):
    path = tmp_path / "final.h5"
    write_final(path, final_columns())
    good = path.read_bytes()
    with h5py.File(path) as file:
        offsets = {f.name: file[f.name].id.get_offset() for f in FINAL_FIELDS}
    for name, offset in offsets.items():
        path.write_bytes(good[:offset] + bytes([good[offset] ^ 1]) + good[offset + 1 :])
        with pytest.raises(FormatError):
            formats.verify_final(str(path))
            pytest.fail(f"a flipped bit in {name} went unseen")


@pytest.mark.parametrize("cut", [0, 10, 700, 5000, -1])
def test_a_torn_final_file_is_noticed(tmp_path, cut):
    path = tmp_path / "final.h5"
    write_final(path, final_columns())
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(FormatError):
        formats.verify_final(str(path))


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
        formats.verify_final(str(tmp_path / "final.h5"))


def in_chunks(image, name):
    """The same file, one column stored in chunks."""
    data = io.BytesIO(image)
    with h5py.File(data, "r+") as file:
        column = file[name][...]
        del file[name]
        file.create_dataset(name, data=column, chunks=True)
    return data.getvalue()


def test_a_column_that_is_not_stored_in_one_piece_is_refused(tmp_path):
    path, message = tmp_path / "final.h5", "hand/joints is not stored in one piece"
    path.write_bytes(in_chunks(formats.final_image(HEADER, ENDING, final_columns()), "hand/joints"))
    with pytest.raises(FormatError, match=message):
        formats.verify_final(path)
    with pytest.raises(FormatError, match=message):
        formats.read_shard(in_chunks(formats.shard_image(HEADER, shard_columns()), "hand/joints"))


def test_a_final_file_of_other_bytes_than_were_written_is_not_opened(tmp_path, monkeypatch):
    path = tmp_path / "final.h5"
    write_final(path, final_columns())
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    assert formats.verify_final(path, sha256=digest).sha256 == digest
    path.write_bytes(path.read_bytes() + b"x")
    assert formats.verify_final(path).sha256 != digest
    monkeypatch.setattr(h5py, "File", lambda *_, **__: pytest.fail("HDF5 was given damaged bytes"))
    with pytest.raises(FormatError, match="as it was written"):
        formats.verify_final(path, sha256=digest)


def test_complete_means_quota(tmp_path):
    write_final(tmp_path / "final.h5", final_columns(), Ending({}, 6, True, "quota"))
    with pytest.raises(FormatError, match="quota 6"):
        formats.verify_final(str(tmp_path / "final.h5"))


@pytest.mark.parametrize("change", [{"round": np.array([2, 2, 3, 2, 2])}, {"row": np.array([0, 1, 2, 3, 3])}])
def test_a_shard_with_rows_of_another_round_is_refused(change):
    image = formats.shard_image(HEADER, shard_columns() | change)
    with pytest.raises(FormatError, match="seed, round and row"):
        formats.read_shard(image)


def test_a_newer_format_is_refused_with_the_remedy(monkeypatch):
    monkeypatch.setattr(header_room, "VERSION", 99)
    image = formats.shard_image(HEADER, shard_columns())
    monkeypatch.undo()
    with pytest.raises(InputError, match="newer program"):
        formats.read_shard(image)


def test_the_content_hash_is_of_names_dtypes_shapes_and_bytes():
    columns = final_columns()
    lines = (
        f"{f.name} {f.dtype} {columns[f.name].shape} {hashlib.sha256(columns[f.name].tobytes()).hexdigest()}\n"
        for f in FINAL_FIELDS
    )
    wanted = hashlib.sha256("".join(lines).encode()).hexdigest()
    assert content_sha256(columns, FINAL_FIELDS) == wanted
    turned = columns | {"hand/rotation": np.asfortranarray(columns["hand/rotation"])}
    assert content_sha256(turned, FINAL_FIELDS) == wanted
    other = columns | {"row": columns["row"] + 1}
    assert content_sha256(other, FINAL_FIELDS) != wanted
