"""Meshes and scenes of a grasp are where its hand model and its object's mesh say, by two ways of computing it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import mujoco
import numpy as np
import pytest
import quick_conf
from scipy.spatial import cKDTree
from toy_files import write_final
from tree_product import link_frames

import bimangrasp
from bimangrasp.builtin import OBJECT_ROOT
from bimangrasp.errors import InputError
from bimangrasp.hand_files.loading import load_hands
from bimangrasp.objects.model import read_mesh

ROW = 4


@pytest.fixture(scope="module")
def hands():
    return load_hands(quick_conf.load().hand)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    path = tmp_path_factory.mktemp("bodies") / "bowl.h5"
    write_final(path, "bowl", 6, seed=3)
    return bimangrasp.load(path)


@pytest.fixture(scope="module")
def frames(data, hands) -> np.ndarray:
    """(hand, link, 4, 4) by the slow reference."""
    grasp, found = data[ROW], []
    for side in range(2):
        root = np.eye(4)
        root[:3, :3], root[:3, 3] = grasp["hand/rotation"][side], grasp["hand/translation"][side]
        found.append(root @ link_frames(hands[side], grasp["hand/joints"][side].astype(float)))
    return np.stack(found)


@pytest.fixture(scope="module")
def scene(data, hands):
    model = data.scene(ROW, hands).compile()
    state = mujoco.MjData(model)
    mujoco.mj_resetDataKeyframe(model, state, model.key("grasp").id)
    mujoco.mj_forward(model, state)
    return model, state


def test_links_of_the_scene_are_where_the_tree_says(scene, frames, hands):
    model, state = scene
    for side, name in enumerate(("left", "right")):
        for link, link_name in enumerate(hands[side].link_names):
            body = state.body(f"{name}/{link_name}")
            np.testing.assert_allclose(body.xpos, frames[side, link, :3, 3], atol=1e-6)
            np.testing.assert_allclose(body.xmat.reshape(3, 3), frames[side, link, :3, :3], atol=1e-6)


def test_joints_of_the_scene_have_the_files_values_by_their_names(scene, data, hands):
    model, state = scene
    for side, name in enumerate(("left", "right")):
        for joint, joint_name in enumerate(data.joint_names):
            found = state.joint(f"{name}/{joint_name}")
            assert found.qpos[0] == data[ROW]["hand/joints"][side, joint]
            limits = hands[side].joint_lower[joint], hands[side].joint_upper[joint]
            np.testing.assert_allclose(model.joint(f"{name}/{joint_name}").range, limits, atol=1e-12)


def test_the_scene_can_be_simulated(scene):
    model, state = scene
    mujoco.mj_step(model, state)
    assert np.isfinite(state.qpos).all()


def test_meshes_of_the_hands_are_their_shapes_at_the_links(data, hands, frames):
    meshes = data.meshes(ROW, hands)
    for side, mesh in enumerate((meshes.left, meshes.right)):
        assert mesh.is_watertight
        away = cKDTree(mesh.vertices)
        for shape in (s for s in hands[side].primitives if s.shape == "capsule"):
            T = frames[side, shape.link] @ shape.T_link_shape
            radius, half = shape.size[:2]
            ends = (T @ np.array([[0, 0, half + radius, 1], [0, 0, -half - radius, 1]]).T).T[:, :3]
            assert away.query(ends)[0].max() < 1e-6  # the poles of the capsule are corners of its mesh


def test_the_object_has_the_grasps_size(data, hands, scene):
    mesh = read_mesh(str(OBJECT_ROOT / "bowl.obj"))
    scale = float(data[ROW]["object_scale"])
    np.testing.assert_allclose(data.meshes(ROW, hands).object.vertices, scale * mesh.vertices, atol=1e-9)
    model, state = scene
    geom = model.geom("object")
    start, count = model.mesh_vertadr[geom.dataid[0]], model.mesh_vertnum[geom.dataid[0]]
    vertices = model.mesh_vert[start : start + count] @ state.geom("object").xmat.reshape(3, 3).T
    found = vertices + state.geom("object").xpos
    assert cKDTree(found).query(scale * mesh.vertices)[0].max() < 1e-5


def test_other_hands_and_other_meshes_are_refused(data, hands, tmp_path):
    with pytest.raises(InputError, match=r"bowl.h5 has grasps of the hands 'shadow'.*load_hands\(conf.load"):
        data.meshes(0, hands[::-1])
    with pytest.raises(InputError, match="those given have"):
        data.scene(0, (hands[0], replace(hands[1], joint_mean=hands[1].joint_mean + 1)))
    with pytest.raises(InputError, match="object 'bowl' has 0 meshes in .*set object_root"):
        data.meshes(0, hands, tmp_path)
    (tmp_path / "bowl.obj").write_bytes((OBJECT_ROOT / "bowl.obj").read_bytes() + b"# changed\n")
    with pytest.raises(InputError, match="was made with another mesh of 'bowl'"):
        data.meshes(0, hands, tmp_path)
    (tmp_path / "bowl.stl").write_bytes(b"")
    with pytest.raises(InputError, match="object 'bowl' has 2 meshes"):
        data.meshes(0, hands, str(tmp_path))


@pytest.mark.slow
def test_meshes_are_found_in_the_layout_of_dexgraspnet(data, hands, tmp_path: Path):
    target = tmp_path / "bowl" / "coacd" / "decomposed.obj"
    target.parent.mkdir(parents=True)
    target.write_bytes((OBJECT_ROOT / "bowl.obj").read_bytes())
    assert data.meshes(0, hands, tmp_path).object.vertices.shape == data.meshes(0, hands).object.vertices.shape


def test_a_failed_grasp_has_no_pose(tmp_path, hands):
    path = tmp_path / "bowl.h5"
    columns = write_final(path, "bowl", 2)
    image = bytearray(path.read_bytes())
    at = image.index(columns["hand/translation"].tobytes())
    image[at : at + 4] = np.float32("nan").tobytes()
    path.write_bytes(image)
    with pytest.raises(InputError, match="not finite; it failed and has no pose"):
        bimangrasp.load(path).meshes(0, hands)
