"""What is exported has the same grasps, readable by the tools that others have; what is imported again is the same."""

from __future__ import annotations

import csv
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import quick_conf
import torch
from scipy.spatial.transform import Rotation
from toy_files import add_column, shadow_table, write_final, write_run, write_shard

import bimangrasp
import scale
from bimangrasp.errors import InputError
from bimangrasp.hand_files.loading import load_hands
from bimangrasp.hands.model import HandModel
from scale.settings.schema import Config


def settings(path: Path, *overrides: str) -> Config:
    config = quick_conf.load("mode=export", "hand.surface_points=16", *overrides)
    config.path = str(path)
    return config


@pytest.fixture
def run(tmp_path) -> Path:
    return write_run(tmp_path / "run")


def euler(entry: dict) -> np.ndarray:
    """The rotation of a qpos as transforms3d's euler2mat, by SciPy: turns about the fixed axes x, y, z."""
    return Rotation.from_euler("xyz", [entry[f"WRJR{axis}"] for axis in "xyz"]).as_matrix()


@pytest.mark.slow
def test_npy_is_read_by_numpy_alone_and_has_the_same_links(run, shared):
    """Each hand of each dict, driven as BimanGrasp drives its hands, has its links where ours has them."""
    report = scale.export(settings(run / "final" / "bowl.h5"))
    assert report.paths == [run / "final" / "bowl.npy"] and (report.grasps, report.left_out) == (5, 0)
    entries = np.load(report.paths[0], allow_pickle=True)
    columns = bimangrasp.load(run / "final" / "bowl.h5").arrays()
    root = shared / "data" / "bimangrasp_hands"
    theirs = HandModel(*load_hands(quick_conf.load("hand=release", f"hand.root='{root}'").hand), surface_points=1)
    ours = HandModel(*load_hands(quick_conf.load().hand), surface_points=1)
    for suffix, group in (("", "hand"), ("_st", "initial")):
        parts = [torch.as_tensor(columns[f"{group}/{part}"]) for part in ("rotation", "translation", "joints")]
        wanted = ours.frames_from_root(*parts)
        qpos = [[entry[f"qpos_{side}{suffix}"] for side in ("left", "right")] for entry in entries]
        rotation = torch.tensor(np.array([[euler(one) for one in pair] for pair in qpos]))
        translation = torch.tensor([[[one[f"WRJT{axis}"] for axis in "xyz"] for one in pair] for pair in qpos])
        joints = torch.tensor([[[one[name] for name in theirs.joint_names] for one in pair] for pair in qpos])
        found = theirs.frames_from_root(rotation, translation, joints)
        torch.testing.assert_close(found.translation, wanted.translation, atol=1e-6, rtol=0)
        torch.testing.assert_close(found.rotation, wanted.rotation, atol=1e-6, rtol=0)
    assert list(entries[0]) == ["scale", "qpos_left", "qpos_right", "qpos_left_st", "qpos_right_st", "energy"] + [
        f"E_{term}" for term in ("fc", "dis", "pen", "spen", "joints")
    ]
    assert [entry["scale"] for entry in entries] == columns["object_scale"].tolist()
    terms = {"energy": "total", "E_fc": "force_closure", "E_dis": "distance", "E_pen": "penetration"}
    for key, term in (terms | {"E_spen": "self_penetration", "E_joints": "joint_limits"}).items():
        assert [entry[key] for entry in entries] == columns[f"energy/{term}"].tolist()
    assert all(type(value) is float for value in (entries[0]["energy"], entries[0]["qpos_left"]["robot0:FFJ3"]))


@pytest.mark.slow
def test_what_is_exported_and_imported_is_the_same_grasps(run):
    wanted = bimangrasp.load(run / "final" / "bowl.h5").arrays()
    config = settings(run / "final" / "bowl.h5")
    scale.export(config)
    config.path, config.out = str(run / "final" / "bowl.npy"), str(run / "again.h5")
    report = scale.import_results(config)
    assert (report.grasps, report.failed, report.code) == (5, 0, "bowl") and report.computed == ("wrench_volume",)
    data = bimangrasp.load(run / "again.h5")
    found = data.arrays()
    for group in ("hand", "initial"):
        np.testing.assert_array_equal(found[f"{group}/translation"], wanted[f"{group}/translation"])
        np.testing.assert_array_equal(found[f"{group}/joints"], wanted[f"{group}/joints"])
        np.testing.assert_allclose(found[f"{group}/rotation"], wanted[f"{group}/rotation"], atol=2e-7)
    np.testing.assert_array_equal(found["object_scale"], wanted["object_scale"])
    without_key = {"energy/wrench_volume", "energy/depth", "energy/equilibrium"}
    for name in (name for name in wanted if name.startswith("energy/") and name not in without_key):
        np.testing.assert_array_equal(found[name], wanted[name])
    assert data.header(0).mesh_sha256 == bimangrasp.load(run).header(0).mesh_sha256


@pytest.mark.slow
@pytest.mark.parametrize("form", ["npy", "npz", "csv"])
def test_equal_grasps_give_equal_bytes(run, form):
    images = []
    for out in ("one", "two"):
        config = settings(run, f"format={form}")
        config.out = str(run / out)
        images.append([path.read_bytes() for path in scale.export(config).paths])
    assert images[0] == images[1] and all(images[0])


NPZ = {
    "hand_translation": ("<f4", (2, 3)),
    "hand_rotation": ("<f4", (2, 3, 3)),
    "hand_joints": ("<f4", (2, 22)),
    "initial_translation": ("<f4", (2, 3)),
    "initial_rotation": ("<f4", (2, 3, 3)),
    "initial_joints": ("<f4", (2, 22)),
    "contact_candidate": ("<i4", (2, 4)),
    "contact_point": ("<f4", (2, 4, 3)),
    "contact_normal": ("<f4", (2, 4, 3)),
    "object_scale": ("<f4", ()),
    **{f"energy_{term}": ("<f4", ()) for term in ("force_closure", "distance", "penetration", "self_penetration")},
    **{f"energy_{term}": ("<f4", ()) for term in ("joint_limits", "wrench_volume", "depth", "equilibrium", "total")},
    **{name: ("<i8", ()) for name in ("seed", "round", "row")},
}
ABOUT = {
    "object_code",
    "mesh_sha256",
    "hand_name",
    "hand_sha256",
    "joint_names",
    "candidate_link",
    "candidate_position",
}


@pytest.mark.slow
def test_npz_has_fixed_keys_and_dtypes_and_no_pickle(run):
    report = scale.export(settings(run, "format=npz"))
    assert report.paths == [run / "export" / "npz" / f"{code}.npz" for code in ("bowl", "storage_bin")]
    for path, rows in zip(report.paths, (5, 3), strict=True):
        columns = bimangrasp.load(run / "final" / f"{path.stem}.h5").arrays()
        assert {member.date_time for member in zipfile.ZipFile(path).infolist()} == {(1980, 1, 1, 0, 0, 0)}
        with np.load(path) as file:
            assert set(file) == set(NPZ) | ABOUT
            for name, (dtype, shape) in NPZ.items():
                assert (file[name].dtype.str, file[name].shape) == (dtype, (rows, *shape)), name
            for name in columns.keys() - {"object"}:
                np.testing.assert_array_equal(file[name.replace("/", "_")], columns[name])
            assert str(file["object_code"]) == path.stem and tuple(file["joint_names"]) == shadow_table().joint_names


def test_poses_and_verdicts_of_judged_grasps_are_exported_too(tmp_path):
    columns = write_final(tmp_path / "bowl.h5", "bowl", 9, is_judged=True)
    with np.load(scale.export(settings(tmp_path / "bowl.h5", "format=npz")).paths[0]) as file:
        for name in ("pose/joints", "verdict/held", "verdict/link_distance"):
            np.testing.assert_array_equal(file[name.replace("/", "_")], columns[name])
    (path,) = scale.export(settings(tmp_path / "bowl.h5", "format=csv")).paths
    reasons = [int(line["verdict_reason"]) for line in csv.DictReader(path.open())]
    assert reasons == columns["verdict/reason"].tolist()


def test_csv_has_the_scalars_of_all_objects(run):
    (path,) = scale.export(settings(run, "format=csv")).paths
    data = bimangrasp.load(run)
    lines = list(csv.DictReader(path.open()))
    assert path == run / "export" / "csv" / "grasps.csv" and len(lines) == 8
    assert [line["object_code"] for line in lines] == [data.code(row) for row in range(8)]
    for name in (name for name, field in data.fields.items() if len(field.shape) == 1):
        found = np.array([line[name.replace("/", "_")] for line in lines]).astype(data[name].dtype)
        np.testing.assert_array_equal(found, data[name])
    assert lines[0]["object_scale"] in ("0.15", "0.16", "0.17")
    assert len(lines[0]) == 14


def test_parquet_has_the_same_table(run):
    parquet = pytest.importorskip("pyarrow.parquet")
    (path,) = scale.export(settings(run, "format=parquet")).paths
    table, data = parquet.read_table(path), bimangrasp.load(run)
    assert table.num_rows == 8 and table["object_code"].to_pylist()[-1] == "storage_bin"
    total = table["energy_total"].to_numpy()
    assert total.dtype == np.float32 and (total == data["energy/total"]).all()
    assert table.schema.field("energy_total").metadata == {b"unit": b"1"}


def test_without_pyarrow_parquet_says_what_to_install(run, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(InputError, match=r"format=parquet needs pyarrow.*pip install -e '.*\[parquet\]'"):
        scale.export(settings(run, "format=parquet"))
    assert not (run / "export").exists()


@pytest.mark.slow
def test_bench_files_place_each_hand_where_it_was(run):
    report = scale.export(settings(run, "format=dexgraspbench", "poses.rule=none", "poses.retreat=0.01"))
    (folder,) = report.paths
    assert folder == run / "export" / "dexgraspbench" and report.grasps == 8
    files = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.npy"))
    assert len(files) == 16 and files[0] == "left/bowl/0.npy" and files[-1] == "right/storage_bin/2.npy"
    data = bimangrasp.load(run)
    hands = load_hands(quick_conf.load().hand)
    for row, name in ((4, "bowl/4"), (5, "storage_bin/0")):
        for side, side_name in enumerate(("left", "right")):
            entry = np.load(folder / side_name / f"{name}.npy", allow_pickle=True).item()
            grasp, qpos = data[row], entry["grasp_qpos"]
            assert qpos.shape == (29,) and qpos.dtype == np.float32
            np.testing.assert_array_equal(qpos[:3], grasp["hand/translation"][side])
            turn = Rotation.from_quat(qpos[3:7], scalar_first=True).as_matrix()
            np.testing.assert_allclose(turn, grasp["hand/rotation"][side], atol=1e-6)
            np.testing.assert_allclose(qpos[7:], grasp["hand/joints"][side], atol=1e-6)
            back = grasp["hand/rotation"][side] @ hands[side].palm_normal
            np.testing.assert_allclose(entry["pregrasp_qpos"][:3], qpos[:3] - 0.01 * back, atol=1e-6)
            np.testing.assert_array_equal(entry["squeeze_qpos"][:7], qpos[:7])
            assert entry["obj_pose"].tolist() == [0, 0, 0, 1, 0, 0, 0]
            assert entry["obj_scale"] == grasp["object_scale"] and entry["obj_path"].endswith(name.split("/")[0])
            assert tuple(entry["joint_names"]) == data.joint_names and entry["hand_side"] == side_name
            assert b"numpy._core" not in (folder / side_name / f"{name}.npy").read_bytes()  # NumPy 1 has no _core


def test_bench_files_have_the_poses_of_the_file_where_it_has_some(run):
    path = run / "final" / "bowl.h5"
    columns = bimangrasp.load(path).arrays()
    steps = np.array([-0.02, 0.0, 0.03], "<f4")
    for part in ("translation", "rotation", "joints"):
        stages = np.repeat(columns[f"hand/{part}"][:, None], 3, axis=1)
        if part == "joints":
            stages += steps[:, None, None]
        add_column(path, f"pose/{part}", stages)
    (folder,) = scale.export(settings(path, "format=dexgraspbench")).paths
    entry = np.load(folder / "left" / "bowl" / "3.npy", allow_pickle=True).item()
    for stage, step in zip(("pregrasp_qpos", "grasp_qpos", "squeeze_qpos"), steps, strict=True):
        np.testing.assert_allclose(entry[stage][7:], columns["hand/joints"][3, 0] + step, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("form", ["npy", "dexgraspbench"])
def test_failed_grasps_are_left_out_and_counted(tmp_path, form):
    path = tmp_path / "bowl.h5"
    columns = write_shard(path, "bowl", 4)
    image = bytearray(path.read_bytes())
    at = image.index(columns["energy/total"].tobytes())
    image[at + 4 : at + 8] = np.float32("nan").tobytes()
    path.write_bytes(image)
    report = scale.export(settings(path, f"format={form}"))
    assert (report.grasps, report.left_out) == (3, 1) and "3 grasps, 1 failed ones left out" in str(report)
    if form == "npy":
        scales = [entry["scale"] for entry in np.load(report.paths[0], allow_pickle=True)]
        assert scales == columns["object_scale"][[0, 2, 3]].tolist()
    else:
        assert sorted(path.name for path in report.paths[0].glob("left/bowl/*")) == ["0.npy", "2.npy", "3.npy"]


def test_targets(run, tmp_path):
    (tmp_path / "there").mkdir()
    for path, out, wanted in (
        (run / "final" / "bowl.h5", "", run / "final" / "bowl.csv"),
        (run / "final" / "bowl.h5", tmp_path / "there", tmp_path / "there" / "bowl.csv"),
        (run / "final" / "bowl.h5", tmp_path / "mine.txt", tmp_path / "mine.txt"),
        (run / "dataset.h5", "", run / "export" / "csv" / "grasps.csv"),
        (run, tmp_path / "new", tmp_path / "new" / "grasps.csv"),
    ):
        config = settings(path, "format=csv")
        config.out = str(out)
        assert scale.export(config).paths == [wanted] and wanted.is_file()
        with pytest.raises(InputError, match="is there already; move it away, or set out="):
            scale.export(config)
    config.out = str(tmp_path / "mine.txt")
    with pytest.raises(InputError, match="mine.txt' is a file; .* has several grasp files: name a folder"):
        scale.export(config)


def test_without_a_path_the_run_is_exported(run):
    config = quick_conf.load("mode=export", "format=csv", "exp_name=run", output_root=run.parent)
    assert scale.export(config).paths == [run / "export" / "csv" / "grasps.csv"]
    config.exp_name = "gone"
    with pytest.raises(InputError, match="gone is not there; wanted a grasp file"):
        scale.export(config)


def test_grasps_of_other_hands_are_refused_where_the_format_is_of_one_hand(tmp_path):
    hand = shadow_table()
    other = type(hand)(
        **{**vars(hand), "name": "toy", "sha256": "ab" * 32, "joint_names": tuple(f"j{i}" for i in range(22))}
    )
    write_final(tmp_path / "bowl.h5", "bowl", 2, hand=other)
    with pytest.raises(InputError, match="bowl.h5 has the joints j0, .*format=npz takes any hand"):
        scale.export(settings(tmp_path / "bowl.h5"))
    with pytest.raises(InputError, match="bowl.h5 has grasps of the hands 'toy'.*this call has hand=shadow"):
        scale.export(settings(tmp_path / "bowl.h5", "format=dexgraspbench"))
    assert scale.export(settings(tmp_path / "bowl.h5", "format=npz")).grasps == 2


def test_an_unknown_format_is_refused_with_those_there_are():
    with pytest.raises(InputError, match="format='xml' is out of range: wanted one of npy, npz, csv, parquet, dexgra"):
        quick_conf.load("format=xml")
