"""Files, scenes and exports of hands with couplings say which joint follows which; those of free hands say nothing."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import h5py
import mujoco
import numpy as np
import pytest
import quick_conf
import torch
from toy_files import grasp_columns, header, shadow_table, write_final

import bimangrasp.builtin
import scale
from bimangrasp.errors import InputError
from bimangrasp.files.formats import shard_image
from bimangrasp.files.header import header_attributes, read_header
from bimangrasp.hand_files.config import CouplingRule
from bimangrasp.hand_files.couplings import coupled
from bimangrasp.hand_files.loading import load_hands
from bimangrasp.hand_files.read_hand import compile_hand
from bimangrasp.hands.model import HandModel
from bimangrasp.interop.bimangrasp_results import PREFIX, SHADOW, left_signs, released_couplings
from scale.engine.synthesizer import Synthesizer

TENDONS = {f: {"tendon": {f"{f}J1": 0.5, f"{f}J0": 0.5}} for f in ("FF", "MF", "RF", "LF")}
CHAIN = "+hand.couplings.THJ0={follows:THJ1,polynomial:[-0.4,0.2,0.1]}"
HAND = ("hand=shadow_coupled", CHAIN, "hand.joint_mean.THJ0=-0.436")


def hands() -> HandModel:
    return HandModel(*load_hands(quick_conf.load(*HAND).hand), 64, dtype=torch.float64)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Three grasps of the coupled Shadow hands around the mug."""
    config, model = quick_conf.load(*HAND), hands()
    table = Synthesizer(config.hand, config.synthesis).hand_table()
    columns = grasp_columns(3, 0, table)
    low, high = model.coordinate_lower, model.coordinate_upper
    for group in ("hand", "initial"):
        uniform = torch.rand((3, 2, model.coordinate_count), generator=torch.Generator().manual_seed(1))
        columns[f"{group}/joints"] = model.joints_at((low + (high - low) * uniform).float()).numpy()
    path = tmp_path / "mug.h5"
    path.write_bytes(shard_image(header("mug", table), columns))
    return path


def settings(path: Path, *overrides: str):
    config = quick_conf.load("mode=export", *HAND, *overrides)
    config.path = str(path)
    return config


def test_a_file_says_which_joints_follow_which(file: Path):
    data = bimangrasp.load(file)
    assert data.couplings == TENDONS | {"THJ0": {"follows": "THJ1", "polynomial": [-0.4, 0.2, 0.1]}}
    assert pickle.loads(pickle.dumps(data)).couplings == data.couplings
    with h5py.File(file) as opened:
        assert json.loads(opened.attrs["couplings"]) == data.couplings
        assert read_header(opened).hand.couplings == data.couplings


@pytest.mark.slow
def test_a_run_carries_couplings_into_its_final_files(small_config):
    config = small_config("hand=shadow_coupled", "experiment=null", target_count_per_object=4)
    assert scale.run(config).exit_code == 0
    data = bimangrasp.load(Path(config.output_root) / config.exp_name)
    assert data.couplings == TENDONS and len(data) == 4
    model = HandModel(*load_hands(config.hand), 64, dtype=torch.float64)
    for name in ("hand/joints", "initial/joints"):
        joints = torch.as_tensor(data[name]).double()
        assert (model.joints_at(model.coordinates_of(joints)) - joints).abs().max() < 1e-6


def test_a_file_of_free_hands_is_as_before(tmp_path: Path):
    write_final(tmp_path / "bowl.h5", "bowl", 2)
    with h5py.File(tmp_path / "bowl.h5") as opened:
        assert "couplings" not in opened.attrs
    assert bimangrasp.load(tmp_path / "bowl.h5").couplings == {}
    assert "couplings" not in header_attributes(header("bowl", shadow_table()))


def test_rules_of_a_file_make_the_hand_again(file: Path):
    rules = {name: CouplingRule(**rule) for name, rule in bimangrasp.load(file).couplings.items()}
    right = load_hands(quick_conf.load().hand)[1]
    made = coupled(right, compile_hand(Path(bimangrasp.builtin.ASSET_ROOT) / "shadow_hand" / "right_hand.xml"), rules)
    table, known = made.coordinates, hands().descriptions[1].coordinates
    pulls = np.linspace(known.lower, known.upper, 9)
    np.testing.assert_allclose(table.joints_at(pulls), known.joints_at(pulls))


def test_the_scene_of_a_grasp_has_its_couplings(file: Path):
    data, pair = bimangrasp.load(file), hands().descriptions
    model = data.scene(1, pair).compile()
    state = mujoco.MjData(model)
    mujoco.mj_resetDataKeyframe(model, state, model.key("grasp").id)
    mujoco.mj_forward(model, state)
    assert model.neq == 2 and model.ntendon == 8
    residual = state.efc_pos[state.efc_type == int(mujoco.mjtConstraint.mjCNSTR_EQUALITY)]
    np.testing.assert_allclose(residual, 0, atol=1e-6)
    joints = data[1]["hand/joints"]
    at = [data.joint_names.index(name) for name in ("FFJ1", "FFJ0")]
    assert state.tendon("right/FF").length == pytest.approx(joints[1, at].mean(), abs=1e-6)
    assert bimangrasp.load(file).scene(1, pair).to_xml().count("<fixed") == 8


def test_dexgraspbench_says_which_joints_follow_which(file: Path):
    report = scale.export(settings(file, "format=dexgraspbench"))
    entry = np.load(report.paths[0] / "right" / "mug" / "0.npy", allow_pickle=True)[()]
    assert entry["couplings"] == bimangrasp.load(file).couplings
    model = hands()
    for stage in ("pregrasp_qpos", "grasp_qpos", "squeeze_qpos"):
        joints = torch.as_tensor(entry[stage][7:]).double().expand(1, 2, -1)
        assert (model.joints_at(model.coordinates_of(joints)) - joints).abs().max() < 1e-6


def test_dexgraspbench_of_free_hands_is_as_before(tmp_path: Path):
    write_final(tmp_path / "bowl.h5", "bowl", 1)
    config = quick_conf.load("mode=export", "format=dexgraspbench")
    config.path = str(tmp_path / "bowl.h5")
    (folder,) = scale.export(config).paths
    assert "couplings" not in np.load(folder / "right" / "bowl" / "0.npy", allow_pickle=True)[()]


def test_npy_says_which_joints_follow_which_in_the_signs_of_its_hands(file: Path):
    (path,) = scale.export(settings(file)).paths
    entry = np.load(path, allow_pickle=True)[0]
    for side in ("left", "right"):
        qpos, rules = entry[f"qpos_{side}"], entry["couplings"][side]
        rule = rules[f"{PREFIX}THJ0"]
        value = sum(c * qpos[rule["follows"]] ** k for k, c in enumerate(rule["polynomial"]))
        assert value == pytest.approx(qpos[f"{PREFIX}THJ0"], abs=1e-6)
        (pulled,) = [name for name in rules if name == "MF"]
        shares = {joint: c * qpos[joint] for joint, c in rules[pulled]["tendon"].items()}
        assert sum(shares.values()) > 0 and len(shares) == 2


def test_npy_of_free_hands_has_no_further_key(tmp_path: Path):
    write_final(tmp_path / "bowl.h5", "bowl", 1)
    config = quick_conf.load("mode=export")
    config.path = str(tmp_path / "bowl.h5")
    (path,) = scale.export(config).paths
    assert "couplings" not in np.load(path, allow_pickle=True)[0] and released_couplings({}) == {}


def test_a_joint_of_either_sign_follows_in_the_signs_of_the_release():
    """FFJ2 turns the other way in the release's left hand, FFJ3 does not."""
    signs = dict(zip(SHADOW, left_signs(SHADOW), strict=True))
    assert (signs["FFJ2"], signs["FFJ3"]) == (-1, 1)
    rules = {
        "FFJ2": {"follows": "FFJ3", "polynomial": [0.1, 0.5, 0.2]},
        "FFJ3": {"follows": "MFJ2", "polynomial": [0, 2.0]},
    }
    left = released_couplings(rules)["left"]
    assert left[f"{PREFIX}FFJ2"] == {"follows": f"{PREFIX}FFJ3", "polynomial": [-0.1, -0.5, -0.2]}
    assert left[f"{PREFIX}FFJ3"] == {"follows": f"{PREFIX}MFJ2", "polynomial": [0, -2.0]}
    assert released_couplings(rules)["right"][f"{PREFIX}FFJ2"]["polynomial"] == [0.1, 0.5, 0.2]


def test_npy_goes_there_and_back(file: Path):
    (path,) = scale.export(settings(file)).paths
    config = quick_conf.load("mode=import", *HAND, "hand.surface_points=32", "object.surface_points=64")
    config.path, config.out = str(path), str(path.with_name("again.h5"))
    scale.import_results(config)
    again, first = bimangrasp.load(config.out), bimangrasp.load(file)
    assert again.couplings == first.couplings
    np.testing.assert_allclose(again["hand/joints"], first["hand/joints"], atol=2e-7)


def test_grasps_of_free_hands_are_not_imported_for_coupled_ones(tmp_path: Path):
    write_final(tmp_path / "bowl.h5", "bowl", 2)
    config = quick_conf.load("mode=export")
    config.path = str(tmp_path / "bowl.h5")
    (path,) = scale.export(config).paths
    config = quick_conf.load("mode=import", *HAND, "hand.surface_points=32", "object.surface_points=64")
    config.path, config.out = str(path), str(tmp_path / "again.h5")
    with pytest.raises(InputError, match=r"bowl\.npy has joints off the couplings of these hands: '\w+J\d' of grasp"):
        scale.import_results(config)


def test_npz_says_which_joints_follow_which(file: Path):
    (path,) = scale.export(settings(file, "format=npz")).paths
    with np.load(path) as arrays:
        assert json.loads(str(arrays["couplings"])) == bimangrasp.load(file).couplings
