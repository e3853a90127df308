from __future__ import annotations

import re

import mujoco
import numpy as np
import pytest
import quick_conf
import trimesh

from bimangrasp.builtin import ASSET_ROOT, OBJECT_ROOT

OBJECTS = ("bottle", "bowl", "box", "mug", "storage_bin")
HAND = ASSET_ROOT / "shadow_hand" / "right_hand.xml"


def test_the_package_ships_these_objects():
    assert sorted(path.stem for path in OBJECT_ROOT.glob("*.obj")) == list(OBJECTS)


@pytest.mark.parametrize("code", OBJECTS)
def test_an_object_is_a_closed_body_of_unit_size_and_even_triangles(code: str):
    path = OBJECT_ROOT / f"{code}.obj"
    mesh = trimesh.load(path, process=False)
    assert path.stat().st_size < 200_000
    assert 500 <= len(mesh.faces) <= 3000
    assert mesh.is_watertight
    assert mesh.is_winding_consistent
    assert mesh.volume > 0.2
    assert mesh.body_count == 1
    assert np.linalg.norm(mesh.vertices, axis=1).max() == pytest.approx(1, abs=2e-6)
    np.testing.assert_allclose(mesh.bounds.sum(axis=0), 0, atol=2e-6)
    smallest = np.degrees(mesh.face_angles.min(axis=1))
    assert smallest.min() > 2
    assert np.quantile(smallest, 0.02) > 7
    assert mesh.area_faces.min() > 1e-5


def test_only_the_mug_has_a_handle():
    euler = {code: trimesh.load(OBJECT_ROOT / f"{code}.obj", process=False).euler_number for code in OBJECTS}
    assert euler == {code: 0 if code == "mug" else 2 for code in OBJECTS}


@pytest.fixture
def warnings() -> list[str]:
    heard: list[str] = []
    before = mujoco.get_mju_user_warning()
    mujoco.set_mju_user_warning(heard.append)
    yield heard
    mujoco.set_mju_user_warning(before)


def test_the_hand_compiles_and_stays_at_rest_without_a_warning(warnings: list[str]):
    model = mujoco.MjModel.from_xml_path(str(HAND))
    model.opt.gravity[:] = 0
    data = mujoco.MjData(model)
    for name, value in quick_conf.load().hand.joint_mean.items():
        data.joint(name).qpos = value
    start = data.qpos.copy()
    for _ in range(200):
        mujoco.mj_step(model, data)
        assert data.ncon == 0
    np.testing.assert_allclose(data.qpos, start, atol=1e-6)
    assert warnings == []
    assert not data.warning.number.any()


def test_every_body_of_the_hand_has_mass_and_every_shape_may_touch():
    model = mujoco.MjModel.from_xml_path(str(HAND))
    assert (model.body_mass[1:] > 0).all()
    assert (model.geom_contype == 1).all()
    assert model.ngeom == 18
    names = [model.joint(joint).name for joint in range(model.njnt)]
    fingers = [f"{finger}FJ{j}" for finger in "FMR" for j in (3, 2, 1, 0)]
    assert names == fingers + [f"LFJ{j}" for j in (4, 3, 2, 1, 0)] + [f"THJ{j}" for j in (4, 3, 2, 1, 0)]


def test_the_hand_says_whose_figures_it_has():
    for text in (HAND.read_text(), (HAND.parent / "NOTICE").read_text()):
        assert re.search(r"Gymnasium-Robotics.*\(C\) Vikash Kumar, CSE, UW.*Apache License", text, re.DOTALL)
