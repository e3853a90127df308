"""What is imported says what the result file says, and of what the file lacks what our own code computes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import quick_conf
import torch
from test_released_joints import drawn

import bimangrasp
import scale
from bimangrasp.energy.energies import energies
from bimangrasp.energy_terms import TERMS
from bimangrasp.errors import InputError
from bimangrasp.files.formats import read_shard
from bimangrasp.geometry.rotation import matrix_to_rot6d
from bimangrasp.grasp import Grasps
from bimangrasp.hand_files.loading import load_hands
from bimangrasp.hands.model import HandModel
from bimangrasp.interop.bimangrasp_results import RELEASED, SHADOW, ReleasedResults, results_image, to_released
from bimangrasp.objects.files import mesh_of
from bimangrasp.objects.model import ObjectModel, read_mesh
from bimangrasp.poses import Poses
from scale.settings.schema import Config

QUICK = ["hand.surface_points=32", "object.surface_points=64", "object.surface_samples_per_point=4"]

WEIGHED = tuple(term for term in TERMS if term not in ("depth", "equilibrium"))
"""The energies that the default settings compute."""


def settings(path: Path | str, *overrides: str) -> Config:
    config = quick_conf.load("mode=import", *QUICK, *overrides)
    config.path = str(path)
    return config


def near(count: int) -> Poses:
    """Poses of the built-in hands some centimeters off the object."""
    poses = drawn(count)
    away = poses.translation / np.linalg.norm(poses.translation, axis=2, keepdims=True)
    return poses._replace(translation=0.12 * away)


def write(path: Path, poses: Poses, starts: Poses | None = None, **energy: np.ndarray) -> Path:
    released = [None if one is None else to_released(one, SHADOW, "test") for one in (poses, starts)]
    path.write_bytes(results_image(ReleasedResults(*released, RELEASED, np.full(poses.count, 0.16), energy)))
    return path


@pytest.mark.slow
def test_missing_energies_and_contacts_are_those_of_our_code(tmp_path):
    poses = near(3)
    report = scale.import_results(settings(write(tmp_path / "bowl.npy", poses, E_fc=np.array([7.0, 8.0, 9.0]))))
    assert report.path == tmp_path / "bowl.h5" and report.computed == tuple(t for t in WEIGHED if t != "force_closure")
    data = bimangrasp.load(report.path)
    found = data.arrays()
    config = settings("")
    hands = HandModel(*load_hands(config.hand), config.hand.surface_points)
    obj = ObjectModel(read_mesh(str(mesh_of("", "bowl"))), config.object)
    translation, rotation, joints = (torch.as_tensor(found[f"hand/{part}"]) for part in Poses._fields)
    candidate = torch.as_tensor(found["contact/candidate"]).long()
    grasps = Grasps(translation, matrix_to_rot6d(rotation), joints, candidate)
    terms = energies(hands, obj, torch.full((3,), 0.16), grasps, config.energy)
    assert found["energy/force_closure"].tolist() == [7, 8, 9]
    for term in report.computed:
        np.testing.assert_allclose(found[f"energy/{term}"], getattr(terms, term), rtol=1e-4, atol=1e-6)
    point = hands.contact_points(hands.frames_from_root(rotation, translation, joints), candidate)
    np.testing.assert_allclose(found["contact/point"], point, atol=1e-6)
    size = torch.full((3,), 0.16, dtype=torch.float64)
    distance = obj.signed_distance(point.flatten(1, 2).double(), size)[0]
    np.testing.assert_allclose(found["energy/distance"], distance.abs().sum(1), rtol=1e-4)
    np.testing.assert_allclose(np.linalg.norm(found["contact/normal"], axis=-1), 1, atol=1e-3)
    links = hands.candidate_link[torch.arange(2)[:, None], candidate]
    assert all(len(set(of_hand.tolist())) == 4 for pair in links for of_hand in pair)


@pytest.mark.slow
def test_the_file_is_one_round_of_our_format(tmp_path):
    report = scale.import_results(settings(write(tmp_path / "bowl.npy", near(2))))
    header, columns = read_shard(report.path.read_bytes())
    assert (header.object_code, header.hand.name) == ("bowl", "shadow")
    assert header.run_key["computed_energies"] == list(WEIGHED) and len(header.run_key["imported_sha256"]) == 64
    assert np.isnan(columns["initial/joints"]).all() and columns["row"].tolist() == [0, 1]


@pytest.mark.slow
def test_failed_grasps_stay_failed(tmp_path):
    poses = near(3)
    poses.joints[1, 0, 5] = np.nan
    report = scale.import_results(settings(write(tmp_path / "bowl.npy", poses, near(3))))
    found = bimangrasp.load(report.path).arrays()
    assert report.failed == 1 and "3 grasps of bowl, 1 of them failed" in str(report)
    for name in ("energy/total", "contact/point", "hand/joints"):
        finite = np.isfinite(found[name]).reshape(3, -1).all(axis=1)
        assert finite.tolist() == [True, False, True], name
    assert np.isfinite(found["initial/joints"]).all()


@pytest.mark.slow
def test_more_grasps_than_are_computed_at_a_time_keep_their_order(tmp_path, monkeypatch):
    monkeypatch.setattr("scale.modes.import_results.AT_ONCE", 2)
    path = write(tmp_path / "bowl.npy", near(5))
    few = bimangrasp.load(scale.import_results(settings(path)).path).arrays()
    monkeypatch.setattr("scale.modes.import_results.AT_ONCE", 64)
    config = settings(path)
    config.out = str(tmp_path / "other.h5")
    many = bimangrasp.load(scale.import_results(config).path).arrays()
    for name in many:
        np.testing.assert_allclose(few[name], many[name], rtol=1e-5, atol=1e-6)


@pytest.mark.slow
def test_the_releases_hands_keep_the_files_values(tmp_path, shared):
    root = shared / "data" / "bimangrasp_hands"
    poses = near(2)
    path = write(tmp_path / "bowl.npy", poses)
    report = scale.import_results(settings(path, "hand=release", f"hand.root='{root}'"))
    data = bimangrasp.load(report.path)
    assert data.joint_names == RELEASED and data.hand_name == "release"
    wanted = to_released(poses, SHADOW, "test").joints.astype(np.float32)
    np.testing.assert_array_equal(data["hand/joints"], wanted)
    config = quick_conf.load("mode=export")
    config.path, config.out = str(report.path), str(tmp_path / "again.npy")
    scale.export(config)
    again = np.load(config.out, allow_pickle=True)
    assert again[1]["qpos_left"]["robot0:FFJ2"] == wanted[1, 0, RELEASED.index("robot0:FFJ2")]
    assert "qpos_left_st" not in again[1]  # the file had no starting poses


@pytest.mark.slow
def test_an_imported_file_can_be_validated_and_shown(tmp_path):
    report = scale.import_results(settings(write(tmp_path / "box.npy", near(1))))
    config = quick_conf.load("mode=validate", *QUICK)
    config.path = str(report.path)
    assert scale.validate(config).objects[0].tried == 1
    meshes = bimangrasp.load(report.path).meshes(0, load_hands(config.hand))
    assert meshes.object.extents.max() < 0.4


@pytest.mark.slow
def test_keys_that_are_no_numbers_are_named(tmp_path):
    path = write(tmp_path / "bowl.npy", near(1))
    (entry,) = np.load(path, allow_pickle=True)
    np.save(path, [entry | {"note": "held"}])
    report = scale.import_results(settings(path))
    assert report.unread == ("note",) and "left out: note" in str(report)


@pytest.mark.slow
def test_what_cannot_be_imported_is_refused_by_name(tmp_path):
    write(tmp_path / "bowl.npy", near(1))
    write(tmp_path / "dish.npy", near(1))
    (tmp_path / "bowl.h5").touch()
    hands = near(1)._replace(joints=np.zeros((1, 2, 3)))
    names = ("thumb", "index", "little")
    (tmp_path / "mug.npy").write_bytes(results_image(ReleasedResults(hands, None, names, np.full(1, 0.16), {})))
    (tmp_path / "pointer.npy").write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:aa\nsize 12\n")
    (tmp_path / "empty.npy").touch()
    whole = (tmp_path / "dish.npy").read_bytes()
    (tmp_path / "cut.npy").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "short.npy").write_bytes(whole[:60])
    np.save(tmp_path / "nothing.npy", np.array([], object), allow_pickle=True)
    np.save(tmp_path / "numbers.npy", np.zeros(3))
    for name, words in {
        "": "path='' is no result file of BimanGrasp; wanted path=<folder>/<object code>.npy",
        "bowl.h5": "bowl.h5' is no result file of BimanGrasp",
        "gone.npy": "gone.npy is not there",
        "bowl.npy": "bowl.h5 is there already; move it away, or set out=",
        "dish.npy": "object 'dish' has 0 meshes in .*set object_root",
        "pointer.npy": "pointer.npy is a pointer of Git LFS and not the file: `git lfs pull` fetches it",
        "empty.npy": "empty.npy is empty: copy it again",
        "cut.npy": "cut.npy cannot be read: .* is it cut off",
        "short.npy": "short.npy cannot be read: EOF: .* is it cut off",
        "nothing.npy": "nothing.npy has no grasps; wanted a list with a dict for each",
        "numbers.npy": "numbers.npy holds an array of float64 of shape .*; wanted a list of dicts",
        "mug.npy": "mug.npy has other joints than .*: it lacks .* and has thumb, index, little;",
    }.items():
        with pytest.raises(InputError, match=words):
            scale.import_results(settings(tmp_path / name if name else ""))
    assert [path.name for path in tmp_path.glob("*.h5")] == ["bowl.h5"]


@pytest.mark.slow
def test_grasps_with_numbers_that_are_not_finite_are_kept_and_counted_as_failed(tmp_path):
    path = write(tmp_path / "bowl.npy", near(3))
    entries = np.load(path, allow_pickle=True)
    entries[0]["qpos_right"]["robot0:FFJ2"] = entries[1]["scale"] = float("nan")
    np.save(path, entries, allow_pickle=True)
    report = scale.import_results(settings(path))
    assert (report.grasps, report.failed) == (3, 2)
    assert np.isfinite(bimangrasp.load(report.path)["energy/distance"]).tolist() == [False, False, True]
