from __future__ import annotations

import json
from pathlib import Path

import mujoco
import numpy as np
import pytest
import quick_conf
from tree_product import TOY, link_frames, random_joints, toy_config

from bimangrasp.errors import InputError
from bimangrasp.hand_files.config import CandidateRule, HandConfig, find_mjcf
from bimangrasp.hand_files.loading import load_hands
from bimangrasp.hand_files.read_hand import quiet_mujoco, read_mjcf_hand

BUILTIN = quick_conf.load().hand


@pytest.fixture(params=["toy", *quick_conf.BUILT_IN])
def config(request: pytest.FixtureRequest, tmp_path: Path) -> HandConfig:
    return toy_config(tmp_path) if request.param == "toy" else quick_conf.load(f"hand={request.param}").hand


def mujoco_at(config: HandConfig, joints: dict[str, float]) -> tuple[mujoco.MjModel, mujoco.MjData]:
    """MuJoCo's own forward kinematics of the file."""
    model = mujoco.MjModel.from_xml_path(str(find_mjcf(config.mjcf)))
    data = mujoco.MjData(model)
    for name, value in joints.items():
        data.joint(name).qpos = value
    mujoco.mj_forward(model, data)
    return model, data


def frame(position: np.ndarray, rotation: np.ndarray) -> np.ndarray:
    T = np.eye(4)
    T[:3, :3], T[:3, 3] = rotation.reshape(3, 3), position
    return T


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_link_frames_and_shapes_are_mujocos(config: HandConfig, seed: int):
    hand = read_mjcf_hand(config)
    joints = random_joints(hand, seed)
    frames = link_frames(hand, joints)
    model, data = mujoco_at(config, dict(zip(hand.joint_names, joints, strict=True)))
    root = data.body(hand.link_names[0])
    T_root_world = np.linalg.inv(frame(root.xpos, root.xmat))
    bodies = [body for body in range(1, model.nbody) if model.body(body).name]
    for body in bodies:
        ours = frames[hand.link_names.index(model.body(body).name)]
        np.testing.assert_allclose(ours, T_root_world @ frame(data.xpos[body], data.xmat[body]), atol=1e-12)
    colliding = [g for g in range(model.ngeom) if model.geom_bodyid[g] and model.geom_contype[g]]
    assert len(colliding) == len(hand.primitives)
    for geom, shape in zip(colliding, hand.primitives, strict=True):
        theirs = T_root_world @ frame(data.geom_xpos[geom], data.geom_xmat[geom])
        np.testing.assert_allclose(frames[shape.link] @ shape.T_link_shape, theirs, atol=1e-12)


def test_toy_reads_as_written(tmp_path: Path):
    hand = read_mjcf_hand(toy_config(tmp_path))
    assert hand.side == "right"
    assert hand.link_names[0] == "root"
    assert set(hand.link_names) == {
        *("root", "wrist:wrist_a", "wrist:wrist_b", "wrist", "finger", "bare", "tip:twist", "tip")
    }
    assert hand.joint_names == ("wrist_a", "wrist_b", "bend", "twist")
    np.testing.assert_allclose(hand.joint_lower, [-1, -0.5, 0, -1])
    np.testing.assert_allclose(hand.joint_upper, [0.5, 1, 1.5, 1])
    np.testing.assert_allclose(np.linalg.norm(hand.joint_axis, axis=1), 1, atol=1e-12)
    assert (hand.joint_mean == [0.1, 0.2, 0.3, 0.4]).all()
    shapes = [(hand.link_names[shape.link], shape.shape, *shape.size) for shape in hand.primitives]
    assert shapes == [
        ("root", "box", 0.03, 0.01, 0.04),
        ("wrist", "capsule", 0.012, 0.0, 0.0),
        ("finger", "cylinder", 0.008, 0.02, 0.0),
        ("tip", "mesh", 0.0, 0.0, 0.0),
        ("tip", "capsule", 0.005, 0.01, 0.0),
    ]
    assert [hand.link_names[link] for link in hand.keypoint_link] == ["wrist", "wrist", "tip"]
    assert (hand.keypoint_position[2] == [0, 0, 0.01]).all()
    assert (hand.parent < np.arange(len(hand.parent))).all()
    assert all(np.bincount(hand.joint_link) <= 1)


def test_a_mesh_is_its_convex_hull_where_the_file_puts_it(tmp_path: Path):
    hand = read_mjcf_hand(toy_config(tmp_path))
    shape = hand.primitives[3]
    corners = np.array([[0, 0, 0], [0.03, 0, 0], [0, 0.02, 0], [0.01, 0.02, 0.04]])  # one more is inside
    quaternion = np.array([0.6, 0.3, 0.2, 0.7])
    rotation = np.zeros(9)
    mujoco.mju_quat2Mat(rotation, quaternion / np.linalg.norm(quaternion))
    wanted = corners @ rotation.reshape(3, 3).T + [0, 0.001, 0.01]
    T = shape.T_link_shape
    vertices = shape.vertices @ T[:3, :3].T + T[:3, 3]
    distances = np.linalg.norm(wanted[:, None] - vertices[None], axis=-1)
    assert len(vertices) == 4
    assert distances.min(axis=1).max() < 1e-8
    triangles = shape.vertices[shape.faces]
    assert np.linalg.det(triangles - shape.vertices.mean(axis=0)).min() > 0  # counter-clockwise from outside


def test_geoms_that_touch_nothing_are_left_out_unless_a_pair_names_them(tmp_path: Path):
    seen_only = TOY.replace('name="ball"', 'name="ball" contype="0" conaffinity="0"')
    pair = '<contact><pair geom1="ball" geom2="pad"/></contact></mujoco>'
    assert len(read_mjcf_hand(toy_config(tmp_path, seen_only)).primitives) == 4
    assert len(read_mjcf_hand(toy_config(tmp_path, seen_only.replace("</mujoco>", pair))).primitives) == 5


def test_a_free_joint_on_the_root_and_its_place_in_the_world_do_not_count(tmp_path: Path):
    plain = read_mjcf_hand(toy_config(tmp_path))
    free = TOY.replace('pos="0.1 0.2 0.3" quat="0.5 0.5 -0.5 0.5">', 'pos="1 2 3"><freejoint/>')
    assert read_mjcf_hand(toy_config(tmp_path, free)).sha256 == plain.sha256


NO_BODIES = "<mujoco><worldbody><geom size='1'/></worldbody></mujoco>"
TWO_HANDS = TOY.replace("</worldbody>", "<body name='other'><joint axis='0 0 1'/><geom size='0.1'/></body></worldbody>")
JOINTLESS = "<mujoco><worldbody><body name='a'><geom size='1'/></body></worldbody></mujoco>"
REFUSED = {
    "fragment": (NO_BODIES, ["without bodies", "<include>"]),
    "two hands": (TWO_HANDS, ["2 separate trees", "'root'", "'other'"]),
    "no joint": (JOINTLESS, ["no body has a joint"]),
    "not xml": ("<mujoco>", ["MuJoCo cannot read it", "Wanted an MJCF"]),
    "unknown attribute": (TOY.replace('name="ball"', 'apirate="3"'), ["apirate"]),
    "slide": (TOY.replace('"bend" axis', '"bend" type="slide" axis'), ["'bend'", "'finger'", "slide joint"]),
    "ball joint": (
        TOY.replace('"bend" axis="1 0 0" ref="0.3" range="0 1.5"', '"bend" type="ball" range="0 1.5"'),
        ["'bend'", "ball joint", "Make it a hinge"],
    ),
    "no range": (TOY.replace(' range="0 1.5"', ""), ["'bend'", "no limits", "range="]),
    "no name": (TOY.replace('joint name="bend"', "joint"), ["'finger'", "has no name"]),
    "root moves": (
        TOY.replace('<geom name="palm"', '<joint name="base" axis="0 0 1" range="0 1"/><geom name="palm"'),
        ["'base'", "'root'", "body without joints"],
    ),
    "ellipsoid": (
        TOY.replace(' contype="0" conaffinity="0"', ""),
        ["'looks'", "'root'", "ellipsoid", "capsule, sphere, cylinder, box and mesh"],
    ),
    "no collision": (
        TOY.replace("<geom ", '<geom contype="0" conaffinity="0" ').replace(
            'conaffinity="0" name="looks" type="ellipsoid" size="0.03 0.01 0.04" contype="0" conaffinity="0"',
            'conaffinity="0" name="looks" type="ellipsoid" size="0.03 0.01 0.04"',
        ),
        ["no collision geometry", "contype=1"],
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_file_that_is_no_hand_is_refused_with_the_culprit_and_the_remedy(tmp_path: Path, case: str):
    xml, words = REFUSED[case]
    with pytest.raises(InputError) as error:
        read_mjcf_hand(toy_config(tmp_path, xml))
    for word in ["toy.xml", *words]:
        assert word in str(error.value)


WRONG_TABLES = {
    "unknown joint": ({"joint_mean": {"bond": 0.0}}, ["hand.joint_mean", "'bond'", "bend"]),
    "missing joint": ({"joint_mean": {"bend": 0.3, "twist": 0.0}}, ["lacks wrist_a, wrist_b"]),
    "mean outside": (
        {"joint_mean": {"wrist_a": 0.7, "wrist_b": 0.2, "bend": 0.3, "twist": 0.4}},
        ["'wrist_a'", "0.7", "-1 to 0.5"],
    ),
    "unknown keypoint link": (
        {"keypoints": {"tipp": [[0.0, 0.0, 0.0]]}},
        ["hand.keypoints", "'tipp'", "tip"],
    ),
    "bad keypoint": ({"keypoints": {"tip": [[0.0, 0.0]]}}, ["hand.keypoints", "'tip'", "[x, y, z]"]),
    "NaN keypoint": ({"keypoints": {"tip": [[0.0, 0.0, float("nan")]]}}, ["hand.keypoints", "nan"]),
    "unknown palmar link": (
        {"candidates": CandidateRule(4, 0.5, {"fingr": [0.0, -1.0, 0.0]})},
        ["hand.candidates.palmar", "'fingr'", "finger"],
    ),
    "no geometry": (
        {"candidates": CandidateRule(4, 0.5, {"bare": [0.0, -1.0, 0.0]})},
        ["'bare'", "no collision geometry", "tip"],
    ),
    "no candidates": ({"candidates": CandidateRule(4, 0.5, {})}, ["hand.candidates.palmar is empty"]),
    "only the palm": (
        {"candidates": CandidateRule(4, 0.5, {"root": [0.0, -1.0, 0.0]})},
        ["'toy' cannot squeeze", "are on root", "0 of 4 joints have equal limits", "hand.candidates.palmar"],
    ),
    "none a link": ({"candidates": CandidateRule(0, 0.5, {"tip": [0.0, -1.0, 0.0]})}, ["per_link=0"]),
    "no unit vector": (
        {"palm_normal": [0.0, -2.0, 0.0]},
        ["hand.palm_normal", "[0.0, -2.0, 0.0]", "length 1"],
    ),
    "not perpendicular": ({"finger_direction": [0.0, 1.0, 0.0]}, ["hand.palm_normal", "perpendicular"]),
    "side": ({"side": "", "mjcf": "x.xml"}, ["hand.side=''", "right or left"]),
    "format": ({"format": "urdf"}, ["HandConfig.format='urdf'", "one of mjcf, bimangrasp"]),
    "no surface points": ({"surface_points": 0}, ["HandConfig.surface_points=0", "1 or more"]),
    "no file": ({"mjcf": "nowhere.xml"}, ["hand.mjcf='nowhere.xml'", "looked for"]),
    "no path": ({"mjcf": ""}, ["hand.mjcf=''", "MJCF or URDF"]),
}


def test_candidates_beyond_a_right_angle_from_the_palmar_direction_are_refused():
    with pytest.raises(InputError, match=r"spread_rad=2.0 .*from 0 to 1.5708"):
        CandidateRule(4, 2.0, {"tip": [0.0, -1.0, 0.0]})


@pytest.mark.parametrize("case", WRONG_TABLES)
def test_a_yaml_that_does_not_fit_the_hand_is_refused_by_name(tmp_path: Path, case: str):
    changes, words = WRONG_TABLES[case]
    with pytest.raises(InputError) as error:
        load_hands(toy_config(tmp_path, **changes))
    for word in words:
        assert word in str(error.value)


def test_an_own_hand_is_found_from_the_current_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    config = toy_config(tmp_path, mjcf="toy.xml")
    monkeypatch.chdir(tmp_path)
    assert read_mjcf_hand(config).link_names[0] == "root"


def test_mujoco_leaves_no_log_in_the_current_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    model = mujoco.MjModel.from_xml_string(JOINTLESS.replace("<geom", "<freejoint/><geom"))
    data = mujoco.MjData(model)
    data.qvel[:] = 1e30
    before = mujoco.get_mju_user_warning()
    with quiet_mujoco():
        mujoco.mj_step(model, data)  # warns
    assert list(tmp_path.iterdir()) == []
    assert mujoco.get_mju_user_warning() is before


def test_the_builtin_hand_has_the_recorded_kinematics(shared: Path):
    right = load_hands(BUILTIN)[1]
    golden = np.load(shared / "golden" / "hands.npz")
    names = json.loads((shared / "golden" / "hands.json").read_text())["right"]["fk_link_names"]
    theirs = [name.replace("robot0:", "") for name in names]
    rows = [theirs.index(f"{name.replace('_', '')}_child") for name in right.link_names[1:]]
    for joints, matrices in zip(golden["right_fk_joints"], golden["right_fk_matrices"], strict=True):
        np.testing.assert_allclose(link_frames(right, joints)[1:], matrices[rows], atol=1e-6)
    np.testing.assert_allclose(right.joint_lower, golden["right_joints_lower"], atol=1e-7)
    np.testing.assert_allclose(right.joint_upper, golden["right_joints_upper"], atol=1e-7)
    np.testing.assert_allclose(right.joint_mean, golden["right_initial_joint_mean"], atol=1e-7)
    np.testing.assert_allclose(right.keypoint_position, golden["right_penetration_keypoints"], atol=1e-8)


def test_the_builtin_hand_has_the_recorded_capsules(shared: Path):
    right = load_hands(BUILTIN)[1]
    recorded = json.loads((shared / "golden" / "hands.json").read_text())["right"]["capsules"]
    capsules = [shape for shape in right.primitives if shape.shape == "capsule"]
    assert len(capsules) == len(recorded) == 15
    for shape in capsules:
        wanted = recorded[f"robot0:{right.link_names[shape.link].replace('_', '')}_child"]
        half = wanted["length_between_centres"] / 2
        np.testing.assert_allclose(shape.size, [wanted["radius"], half, 0], atol=1e-9)
        np.testing.assert_allclose(shape.T_link_shape, frame(np.array([0, 0, half]), np.eye(3)), atol=1e-9)
