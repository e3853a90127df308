from __future__ import annotations

import re

import mujoco
import numpy as np
import pytest
import quick_conf
import torch
import trimesh
from scipy.spatial import ConvexHull

from bimangrasp.builtin import ASSET_ROOT, OBJECT_ROOT
from bimangrasp.geometry.triangle_mesh import winding_number
from bimangrasp.objects import convex_pieces, decomposition

OBJECTS = ("bottle", "bowl", "box", "mug", "storage_bin")
HANDS = {name: ASSET_ROOT / f"{name}_hand" / "right_hand.xml" for name in quick_conf.BUILT_IN}
SHAPES = {"shadow": 18, "allegro": 21}
JOINTS = {
    "shadow": [
        *(f"{finger}FJ{j}" for finger in "FMR" for j in (3, 2, 1, 0)),
        *(f"{finger}J{j}" for finger in ("LF", "TH") for j in (4, 3, 2, 1, 0)),
    ],
    "allegro": [f"{finger}_{j}" for finger in ("index", "middle", "ring", "thumb") for j in range(4)],
}
SOURCES = {
    "shadow": r"Gymnasium-Robotics.*\(C\) Vikash Kumar, CSE, UW.*Apache License",
    "allegro": r"allegro_hand_ros.*2016,? SimLab.*BSD-2-Clause",
}


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


@pytest.mark.parametrize("code", OBJECTS)
def test_convex_pieces_of_an_object_are_there_without_coacd(code: str, monkeypatch):
    monkeypatch.setattr(decomposition, "find_spec", lambda name: None)
    path, config = OBJECT_ROOT / f"{code}.obj", quick_conf.load().pieces
    pieces = convex_pieces.convex_pieces(str(path), config)  # refuses pieces that do not fill the mesh
    assert pieces.source == ("convex" if code == "box" else "coacd files") and not pieces.dropped
    mesh = trimesh.load(path, process=False)
    points = np.random.default_rng(1).uniform(*mesh.bounds, (2000, 3))
    corners = torch.as_tensor(mesh.triangles.copy())
    in_mesh = (winding_number(torch.as_tensor(points), corners) > 0.5).numpy()
    planes = [ConvexHull(piece.vertices).equations for piece in pieces.pieces]
    in_pieces = np.any([(points @ plane[:, :3].T + plane[:, 3] <= 0).all(axis=1) for plane in planes], axis=0)
    assert in_pieces[in_mesh].mean() > 0.999 and in_mesh[in_pieces].mean() > 0.85  # they fill the curve of thin walls


@pytest.fixture
def warnings() -> list[str]:
    heard: list[str] = []
    before = mujoco.get_mju_user_warning()
    mujoco.set_mju_user_warning(heard.append)
    yield heard
    mujoco.set_mju_user_warning(before)


@pytest.mark.slow
@pytest.mark.parametrize("hand", HANDS)
def test_a_hand_compiles_and_stays_at_rest_without_a_warning(hand: str, warnings: list[str]):
    model = mujoco.MjModel.from_xml_path(str(HANDS[hand]))
    model.opt.gravity[:] = 0
    data = mujoco.MjData(model)
    for name, value in quick_conf.load(f"hand={hand}").hand.joint_mean.items():
        data.joint(name).qpos = value
    start = data.qpos.copy()
    for _ in range(200):
        mujoco.mj_step(model, data)
        assert data.ncon == 0
    np.testing.assert_allclose(data.qpos, start, atol=1e-6)
    assert warnings == []
    assert not data.warning.number.any()


@pytest.mark.parametrize("hand", HANDS)
def test_every_body_of_a_hand_has_mass_and_every_shape_may_touch(hand: str):
    model = mujoco.MjModel.from_xml_path(str(HANDS[hand]))
    assert (model.body_mass[1:] > 0).all()
    assert (model.geom_contype == 1).all()
    assert model.ngeom == SHAPES[hand]
    assert [model.joint(joint).name for joint in range(model.njnt)] == JOINTS[hand]


@pytest.mark.parametrize("hand", HANDS)
def test_a_hand_says_whose_figures_it_has(hand: str):
    for text in (HANDS[hand].read_text(), (HANDS[hand].parent / "NOTICE").read_text()):
        assert re.search(SOURCES[hand], text, re.DOTALL)


def test_the_allegro_hand_has_the_published_figures():
    """Where the tips are, by the chain of transforms of SimLab's URDF, written out by hand."""
    model = mujoco.MjModel.from_xml_path(str(HANDS["allegro"]))
    data = mujoco.MjData(model)
    data.joint("index_1").qpos, data.joint("middle_2").qpos = 0.5, 1.0
    data.joint("thumb_0").qpos = 0.3
    mujoco.mj_kinematics(model, data)
    lean, bend = np.radians(5), 0.5
    reach = 0.054 + 0.0384
    index = [reach * np.sin(bend), 0.0, 0.0164 + reach * np.cos(bend)]
    turned = [index[0], np.sin(lean) * index[2], np.cos(lean) * index[2]]
    np.testing.assert_allclose(data.body("index_distal").xpos, np.add([0, 0.0435, -0.001542], turned), atol=2e-7)
    middle = [0.0384 * np.sin(1), 0, 0.0007 + 0.0164 + 0.054 + 0.0384 * np.cos(1)]
    np.testing.assert_allclose(data.body("middle_distal").xpos, middle, atol=1e-9)
    y, c, s = -1.65806278845, np.cos(-0.3), np.sin(-0.3)
    about_y = np.array([[np.cos(y), 0, np.sin(y)], [0, 1, 0], [-np.sin(y), 0, np.cos(y)]])
    about_z = np.array([[0, 1, 0], [-1, 0, 0], [0, 0, 1]])  # a quarter turn back
    about_x = np.array([[1, 0, 0], [0, c, -s], [0, s, c]])  # 0.3 rad about -x
    thumb = about_z @ about_y @ about_x @ ([-0.027, 0.005, 0.0399] + np.array([0, 0, 0.0177 + 0.0514]))
    np.testing.assert_allclose(data.body("thumb_distal").xpos, np.add([-0.0182, 0.019333, -0.045987], thumb), atol=1e-6)
    limits = {"index_0": 0.47, "ring_1": 1.61, "middle_2": 1.709, "index_3": 1.618}
    limits |= {"thumb_0": 1.396, "thumb_1": 1.163, "thumb_2": 1.644, "thumb_3": 1.719}
    assert {name: model.joint(name).range[1] for name in limits} == limits
