"""A data set says what h5py says of the same files, whatever is chosen, wherever it is read, and reads no more."""

from __future__ import annotations

import os
import pickle
import re
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from toy_files import GRASP_NAMES, add_column, held, shadow_table, write_final, write_links, write_shard

import bimangrasp
from bimangrasp.errors import InputError
from bimangrasp.files import dataset, reader
from bimangrasp.files.dataset import GraspDataset
from bimangrasp.files.schema import row_fields
from scale.store.run_folder import RunFolder

ROOT = Path(__file__).resolve().parents[1]
ROWS = {"bowl": 11, "empty": 0, "storage_bin": 7}


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    """A run's folder with three final files, of which one has no grasps."""
    folder = tmp_path_factory.mktemp("run")
    for seed, (code, rows) in enumerate(ROWS.items()):
        write_final(folder / "final" / f"{code}.h5", code, rows, seed)
    write_links(folder)
    return folder


@pytest.fixture(scope="module")
def truth(run) -> dict[str, np.ndarray]:
    """All columns of all files as h5py reads them."""
    parts: dict[str, list] = {name: [] for name in GRASP_NAMES}
    for code in ROWS:
        with h5py.File(run / "final" / f"{code}.h5") as file:
            for name in GRASP_NAMES:
                parts[name].append(file[name][...])
    return {name: np.concatenate(columns) for name, columns in parts.items()}


def same(found: dict, wanted: dict) -> None:
    assert set(found) == set(wanted)
    for name, column in wanted.items():
        np.testing.assert_array_equal(found[name], column, err_msg=name)
        assert np.asarray(found[name]).dtype == column.dtype, name


@pytest.mark.slow
def test_a_run_its_links_and_its_files_are_the_same_grasps(run, truth):
    truth = truth | {"object": np.repeat(np.arange(3), list(ROWS.values()))}
    for path in (run, str(run), run / "dataset.h5", run / "final", sorted((run / "final").glob("*.h5"))):
        data = bimangrasp.load(path)
        assert len(data) == 18 and data.codes == tuple(ROWS)
        same(data.arrays(), truth)


def test_the_names_of_a_runs_folder_are_those_that_runs_write(run):
    folder = RunFolder(run)
    assert folder.dataset.name == reader.LINKS
    assert [folder.finals.name, "generate", ""] == list(reader.FOLDERS)  # generate/ is of earlier versions


@pytest.mark.slow
@given(st.data())
def test_whatever_is_chosen_is_what_numpy_chooses(run, truth, data):
    """Chains of slices, masks and row numbers, over the bounds of files."""
    grasps, rows = bimangrasp.load(run).select("hand/joints", "seed"), np.arange(18)
    for _ in range(data.draw(st.integers(1, 3))):
        kind = data.draw(st.sampled_from(["slice", "rows", "mask"]))
        if kind == "slice":
            bound = st.none() | st.integers(-20, 20)
            key = slice(data.draw(bound), data.draw(bound), data.draw(st.sampled_from([None, 1, 2, 5, -1, -3])))
        elif kind == "mask":
            key = np.array(data.draw(st.lists(st.booleans(), min_size=len(rows), max_size=len(rows))), bool)
        else:
            number = st.integers(-len(rows), len(rows) - 1)
            key = data.draw(st.lists(number, max_size=9)) if len(rows) else []
        grasps, rows = grasps[key], rows[np.array(key, int) if kind == "rows" else key]
    assert len(grasps) == len(rows)
    for name in ("hand/joints", "seed"):
        np.testing.assert_array_equal(grasps[name], truth[name][rows])
    for number in range(-len(rows), len(rows)):
        np.testing.assert_array_equal(grasps[number]["hand/joints"], truth["hand/joints"][rows[number]])


def test_one_grasp_has_its_columns_and_its_object(run, truth):
    data = bimangrasp.load(run)
    for row, number in ((10, 0), (11, 2), (-1, 2), (np.int64(17), 2)):
        same(data[row], {name: column[row] for name, column in truth.items()} | {"object": np.int64(number)})
        assert data.code(row) == data.codes[number] == data.header(row).object_code
    with pytest.raises(IndexError, match="row 18 of 18"):
        data[18]
    assert len(list(data)) == 18


def test_tensors_are_the_same_numbers(run, truth):
    data = bimangrasp.load(run, tensors=True)
    assert all(isinstance(value, torch.Tensor) for value in data[3].values())
    assert torch.equal(data["hand/joints"], torch.as_tensor(truth["hand/joints"]))
    assert {name: tensor.dtype for name, tensor in bimangrasp.load(run).tensors().items()} == {
        name: tensor.dtype for name, tensor in data[:].tensors().items()
    }


def test_filters_are_masks(run, truth):
    data = bimangrasp.load(run)
    chosen = data.where(lambda g: g["energy/total"] < 2).where(lambda g: g["hand/joints"].max(axis=(1, 2)) > 1)
    mask = (truth["energy/total"] < 2) & (truth["hand/joints"].max(axis=(1, 2)) > 1)
    assert 0 < mask.sum() < 18
    np.testing.assert_array_equal(chosen["row"], truth["row"][mask])
    tensors = bimangrasp.load(run, tensors=True).where(lambda g: g["energy/total"] < 2)
    assert len(tensors) == (truth["energy/total"] < 2).sum()
    assert set(data.of("storage_bin", "empty")["object"]) == {2} and len(data.of("empty")) == 0
    assert len(data[:0].where(lambda g: g["energy/total"] < 2)) == 0


def test_filters_look_at_blocks(run, monkeypatch):
    monkeypatch.setattr(dataset, "BLOCK", 4)
    sizes = []
    chosen = bimangrasp.load(run).where(lambda g: sizes.append(len(g["row"])) or g["row"] % 2 == 0)
    assert sizes == [4, 4, 4, 4, 2] and (chosen["row"] % 2 == 0).all() and len(chosen) == 10


def test_fields_tell_units_and_frames(run):
    data = bimangrasp.load(run).select("hand/joints", "hand/translation")
    assert data.fields["hand/joints"].unit == "rad" and data.fields["hand/translation"].frame == "object"
    assert data.fields["hand/joints"].shape == ("N", 2, 22) and data.joint_names == shadow_table().joint_names
    assert data.hand_name == "shadow" and set(data[0]) == {"hand/joints", "hand/translation", "object"}


def test_columns_that_the_format_does_not_know_come_along(tmp_path):
    for seed, code in enumerate(("bowl", "storage_bin")):
        write_final(tmp_path / f"{code}.h5", code, 5, seed)
        add_column(tmp_path / f"{code}.h5", "mine/place", np.full((5, 3, 2), seed, "<f4"), "m")
    add_column(tmp_path / "bowl.h5", "mine/deep/label", np.arange(5, dtype="<i4"))
    add_column(tmp_path / "bowl.h5", "mine/table", np.arange(3))  # not of the grasps
    both, one = bimangrasp.load(tmp_path), bimangrasp.load(tmp_path / "bowl.h5")
    assert both[7]["mine/place"].tolist() == [[1, 1]] * 3 and both.fields["mine/place"].unit == "m"
    assert one["mine/deep/label"].tolist() == [0, 1, 2, 3, 4] and "mine/table" not in one.columns
    with pytest.raises(InputError, match="no column 'mine/deep/label'; 1 of 2 files have it: load these alone"):
        both["mine/deep/label"]


def test_poses_and_verdicts_of_judged_grasps_are_columns(tmp_path):
    columns = write_final(tmp_path / "bowl.h5", "bowl", 9, is_judged=True)
    data = bimangrasp.load(tmp_path / "bowl.h5")
    names = {f.name for f in row_fields(is_judged=True)}
    same(data.arrays(), {name: columns[name] for name in names} | {"object": np.zeros(9, np.int64)})
    held = data.where(lambda g: g["verdict/reason"] == 0)
    assert len(held) == (columns["verdict/reason"] == 0).sum()
    assert data.fields["verdict/displacement"].unit == "m" and data[2]["pose/joints"].shape == (3, 2, 22)


def test_a_round_is_no_grasp_even_where_there_are_as_many(tmp_path):
    write_final(tmp_path / "bowl.h5", "bowl", 1)
    assert sorted(bimangrasp.load(tmp_path / "bowl.h5").columns) == GRASP_NAMES


def test_shards_and_generated_files_are_read(tmp_path):
    columns = write_shard(tmp_path / "generate" / "bowl.h5", "bowl", 6)
    (tmp_path / "generate" / ".tmp-1.h5").write_bytes(b"half")
    for path in (tmp_path, tmp_path / "generate" / "bowl.h5"):
        data = bimangrasp.load(path)
        same(data.arrays(), {name: columns[name] for name in GRASP_NAMES} | {"object": np.zeros(6, np.int64)})


def test_what_is_given_is_ones_own(run, truth):
    data = bimangrasp.load(run)
    data[0]["hand/joints"][:] = 7
    data.arrays()["hand/joints"][:] = 7
    np.testing.assert_array_equal(data[:2]["hand/joints"], truth["hand/joints"][:2])


def test_pickles_hold_no_open_file(run, truth):
    data = bimangrasp.load(run)[3:15]
    data[0], data.arrays()
    image = pickle.dumps(data)
    assert len(image) < 10_000
    np.testing.assert_array_equal(pickle.loads(image)["hand/joints"], truth["hand/joints"][3:15])


def test_few_files_are_mapped_at_a_time(tmp_path, monkeypatch):
    monkeypatch.setattr(dataset, "MAX_MAPPED", 2)
    hand = shadow_table()
    for seed in range(5):
        write_final(tmp_path / f"{seed}.h5", str(seed), 2, seed, hand)
    data = bimangrasp.load(tmp_path)
    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208
    for row in (0, 3, 5, 9, 1, 6):
        assert data[row]["seed"] == row // 2
        assert len(os.listdir("/proc/self/fd")) <= before + 2  # noqa: PTH208


@pytest.mark.slow
@pytest.mark.parametrize("method", ["fork", "spawn"])
@pytest.mark.parametrize("collate", [None, GraspDataset.collate], ids=["torchs", "ours"])
def test_workers_of_a_loader_give_every_grasp_once(run, truth, method, collate):
    data = bimangrasp.load(run)
    data[0]  # a map that is open when workers are forked
    loader = torch.utils.data.DataLoader(
        data, batch_size=4, shuffle=True, num_workers=2, multiprocessing_context=method, collate_fn=collate
    )
    batches = list(loader)
    assert [len(batch["object"]) for batch in batches] == [4, 4, 4, 4, 2]
    found = {name: torch.cat([batch[name] for batch in batches]).numpy() for name in batches[0]}
    order = np.lexsort((found["row"], found["object"]))
    same({name: found[name][order] for name in truth}, truth)


@pytest.mark.slow
def test_importing_the_package_stays_light():
    code = "import sys, bimangrasp; print('torch' in sys.modules); bimangrasp.load; print('mujoco' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]
    with pytest.raises(AttributeError, match="'bimangrasp' has no attribute 'lod'"):
        bimangrasp.lod  # noqa: B018


def test_a_file_that_changed_is_not_read_as_the_old_one(tmp_path):
    path = tmp_path / "bowl.h5"
    write_final(path, "bowl", 3)
    data = bimangrasp.load(path)
    write_final(path, "bowl", 4)
    with pytest.raises(InputError, match="bowl.h5 is another file since it was loaded"):
        data[0]
    path.unlink()
    with pytest.raises(InputError, match="bowl.h5 is gone since it was loaded"):
        data[0]


def test_what_cannot_be_loaded_is_refused_by_name(tmp_path, run):
    (tmp_path / "notes.h5").write_text("notes")
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["x"] = np.zeros(3)
    with h5py.File(tmp_path / "links.h5", "w") as file:
        file["mug"] = h5py.ExternalLink("final/mug.h5", "/")
    (tmp_path / "empty").mkdir()
    for name, words in {
        "gone": "gone is not there; wanted a grasp file",
        "notes.h5": "notes.h5 is not a readable grasp file: it is no HDF5 file; wanted one that is whole",
        "other.h5": "other.h5 is not a readable grasp file: not a bimangrasp-grasps file",
        "links.h5": r"links.h5 has no grasps itself but links to final/\*.h5 .*first .*/final/mug.h5: move it together",
        "empty": "empty has no grasp files",
    }.items():
        with pytest.raises(InputError, match=words):
            bimangrasp.load(tmp_path / name)
    with pytest.raises(InputError, match="an empty list of paths"):
        bimangrasp.load([])


def test_a_file_says_what_is_the_matter_with_it(tmp_path):
    write_final(tmp_path / "whole.h5", "bowl", 5)
    whole = (tmp_path / "whole.h5").read_bytes()
    for name, (content, words) in {
        "short.h5": (whole[:-700], "short.h5 is damaged: its end is missing; the command of its run mends it"),
        "none.h5": (b"", "none.h5 is empty: copy it again.*; wanted a grasp file"),
        "pointer.h5": (
            b"version https://git-lfs.github.com/spec/v1\noid sha256:12\n",
            "pointer of Git LFS.*git lfs pull",
        ),
        "mug.npy": (b"\x93NUMPY", "mug.npy is not a readable grasp file.*mode=import makes a grasp file"),
    }.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(InputError, match=words):
            bimangrasp.load(tmp_path / name)
        with pytest.raises(InputError, match=words):
            reader.header_of(tmp_path / name)
    with held(tmp_path / "whole.h5"), pytest.raises(reader.HeldError, match="whole.h5 is open elsewhere for writing"):
        bimangrasp.load(tmp_path / "whole.h5")
    assert len(bimangrasp.load(tmp_path / "whole.h5")) == 5


def test_grasps_are_not_loaded_twice(run, tmp_path):
    code = next(code for code, rows in ROWS.items() if rows)
    (tmp_path / "copies").mkdir()
    copied = tmp_path / "copies" / "other_name.h5"
    copied.write_bytes((run / "final" / f"{code}.h5").read_bytes())
    final, end = run / "final" / f"{code}.h5", "; wanted each grasp once: name a file, or its folder, once"
    for paths, words in (
        ([run, run], f"{run} is given twice"),
        ([str(run), run / "dataset.h5"], f"{run / 'dataset.h5'} has the same grasps as {run}"),
        ([final, run], f"{run} has the same grasps as {final}"),
        ([copied, run], f"{final} (of {run}) has the same grasps as {copied}"),
    ):
        with pytest.raises(InputError, match=f"^{re.escape(words + end)}$"):
            bimangrasp.load(paths)
    empty = next(code for code, rows in ROWS.items() if not rows)
    assert len(bimangrasp.load([run, run / "final" / f"{empty}.h5"])) == sum(ROWS.values())


def test_grasps_of_different_hands_are_not_joined(tmp_path):
    write_final(tmp_path / "bowl.h5", "bowl", 2)
    other = shadow_table()
    write_final(tmp_path / "mug.h5", "mug", 2, hand=type(other)(**{**vars(other), "sha256": "ab" * 32}))
    with pytest.raises(InputError, match="bowl.h5 has grasps of the hands 'shadow'.*mug.h5 of 'shadow'.*one by one"):
        bimangrasp.load(tmp_path)


def test_a_newer_format_and_packed_columns_are_refused(tmp_path):
    write_final(tmp_path / "newer.h5", "bowl", 2)
    with h5py.File(tmp_path / "newer.h5", "r+") as file:
        file.attrs["format_version"] = 99
    with pytest.raises(InputError, match="format version 99; this program reads up to"):
        bimangrasp.load(tmp_path / "newer.h5")
    write_final(tmp_path / "packed.h5", "bowl", 2)
    with h5py.File(tmp_path / "packed.h5", "r+") as file:
        file.create_dataset("verdict/held", data=np.zeros((2, 6), "|u1"), compression="gzip")
    with pytest.raises(InputError, match="verdict/held is not stored in one piece.*h5repack"):
        bimangrasp.load(tmp_path / "packed.h5")


@pytest.mark.parametrize(
    ("use", "words"),
    [
        (lambda data: data["energy"], "no column 'energy'; there are contact/candidate, "),
        (lambda data: data.select("hand/joint"), "no column 'hand/joint'"),
        (lambda data: data.of("mug"), "no grasps of mug; the objects are bowl, empty, storage_bin"),
        (lambda data: data[np.ones(3, bool)], r"a mask of shape \(3,\) for 18 grasps"),
        (lambda data: data[[0.5]], "rows of float64"),
        (lambda data: data[np.zeros((2, 2), int)], r"rows of int64 and shape \(2, 2\)"),
        (lambda data: data.where(lambda g: g["row"]), "returned int64 of shape .*; wanted a truth value for each"),
        (lambda data: data.where(lambda g: g["hand/joints"] > 0), r"returned bool of shape \(18, 2, 22\)"),
    ],
)
def test_wrong_uses_are_refused_with_what_is_there(run, use, words):
    with pytest.raises(InputError, match=words):
        use(bimangrasp.load(run))


def test_rows_that_are_not_there_are_no_rows_from_the_end(run):
    data = bimangrasp.load(run)
    for rows in ([18], [-19], [0, 99]):
        with pytest.raises(IndexError, match="of 18 grasps"):
            data[rows]
