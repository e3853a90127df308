from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from tree_product import link_frames

import conf
from bimangrasp.errors import InputError
from bimangrasp.hand_files.loading import load_hands
from bimangrasp.hands.description import HandDescription

SIDES = ("left", "right")


def load(root: Path | str) -> dict[str, HandDescription]:
    hands = load_hands(conf.load(["hand=release", f"hand.root='{root}'"]).hand)
    assert tuple(hand.side for hand in hands) == SIDES
    return dict(zip(SIDES, hands, strict=True))


@pytest.fixture(scope="module")
def root(shared: Path) -> Path:
    return shared / "data" / "bimangrasp_hands"


@pytest.fixture(scope="module")
def hands(root: Path) -> dict[str, HandDescription]:
    return load(root)


@pytest.fixture
def copied(root: Path, tmp_path: Path) -> Path:
    for file in [*root.glob("*.xml"), *root.glob("*.json"), root / "meshes" / "box.obj"]:
        target = tmp_path / "mjcf" / file.relative_to(root)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, target)
    return tmp_path / "mjcf"


@pytest.fixture(scope="module")
def golden(shared: Path) -> dict[str, np.ndarray]:
    return dict(np.load(shared / "golden" / "hands.npz"))


@pytest.fixture(scope="module")
def names(shared: Path) -> dict:
    return json.loads((shared / "golden" / "hands.json").read_text())


@pytest.mark.parametrize("side", SIDES)
def test_tables_are_the_recorded_ones(hands: dict, golden: dict, names: dict, side: str):
    hand = hands[side]
    assert list(hand.joint_names) == names[side]["joint_names"]
    recorded = {
        "joint_lower": "joints_lower",
        "joint_upper": "joints_upper",
        "joint_mean": "initial_joint_mean",
        "candidate_position": "contact_candidates",
        "keypoint_position": "penetration_keypoints",
    }
    for ours, theirs in recorded.items():
        np.testing.assert_allclose(getattr(hand, ours), golden[f"{side}_{theirs}"], rtol=1e-6, atol=1e-8)
    for table, key in (("candidate", "contact_candidate"), ("keypoint", "penetration_keypoint")):
        links = [hand.link_names[link] for link in getattr(hand, f"{table}_link")]
        wanted = [names[side]["mesh_link_names"][link] for link in golden[f"{side}_{key}_link"]]
        assert links == [name.removesuffix("_child") for name in wanted]


@pytest.mark.parametrize("side", SIDES)
def test_link_frames_are_the_recorded_ones(hands: dict, golden: dict, names: dict, side: str):
    hand, order = hands[side], names[side]["fk_link_names"]
    rows = [order.index(name if name == "robot0:palm" else f"{name}_child") for name in hand.link_names]
    pairs = zip(golden[f"{side}_fk_joints"], golden[f"{side}_fk_matrices"], strict=True)
    for joints, matrices in pairs:
        np.testing.assert_allclose(link_frames(hand, joints), matrices[rows], atol=1e-6)


@pytest.mark.parametrize("side", SIDES)
def test_boxes_are_the_recorded_meshes_triangle_for_triangle(hands: dict, golden: dict, side: str):
    meshes = {hands[side].link_names[s.link]: s for s in hands[side].primitives if s.shape == "mesh"}
    for link, recorded in (
        ("robot0:palm", "robot0:palm"),
        ("robot0:lfmetacarpal", "robot0:lfmetacarpal_child"),
    ):
        vertices = golden[f"{side}_boxmesh_vertices_{recorded}"]
        faces = golden[f"{side}_boxmesh_faces_{recorded}"]
        assert meshes[link].vertices.shape == vertices.shape
        ours = meshes[link].vertices[meshes[link].faces]
        np.testing.assert_allclose(ours, vertices[faces], atol=1e-7)
        assert (meshes[link].T_link_shape == np.eye(4)).all()


@pytest.mark.parametrize("side", SIDES)
def test_shapes_are_fifteen_capsules_and_two_meshes(hands: dict, names: dict, side: str):
    hand = hands[side]
    shapes = [shape.shape for shape in hand.primitives]
    assert (shapes.count("capsule"), shapes.count("mesh"), len(shapes)) == (15, 2, 17)
    for shape in (s for s in hand.primitives if s.shape == "capsule"):
        recorded = names[side]["capsules"][f"{hand.link_names[shape.link]}_child"]
        half = recorded["length_between_centres"] / 2
        np.testing.assert_allclose(shape.size, [recorded["radius"], half, 0], atol=1e-9)
        np.testing.assert_allclose(shape.T_link_shape[:3, 3], [0, 0, half], atol=1e-9)


def test_palms_look_out_of_their_palms(hands: dict):
    assert (hands["right"].palm_normal == [0, -1, 0]).all()
    assert (hands["left"].palm_normal == [0, 1, 0]).all()
    assert all((hand.finger_direction == [0, 0, 1]).all() for hand in hands.values())


@pytest.mark.slow
def test_files_stay_as_they_are(copied: Path):
    def hashes() -> dict[Path, str]:
        files = [path for path in copied.rglob("*") if path.is_file()]
        return {path: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}

    before = hashes()
    load(copied)
    assert hashes() == before


@pytest.mark.slow
def test_no_folder_is_refused_with_what_is_wanted():
    with pytest.raises(InputError, match=r"hand.root='' lacks left_shadow_hand.xml.*BimanGrasp.*hand.root=<its path>"):
        load("")


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    ["left_shadow_hand.xml", "right_hand_contact_points.json", "penetration_points.json", "meshes/box.obj"],
)
def test_a_missing_file_is_named(copied: Path, name: str):
    (copied / name).unlink()
    with pytest.raises(InputError, match=f"lacks {name}"):
        load(copied)


@pytest.mark.slow
def test_a_broken_table_is_named(copied: Path):
    table = copied / "left_hand_contact_points.json"
    table.write_text('{"robot0:ffdistal_child": [[0, 1]]}')
    with pytest.raises(InputError, match=r"left_hand_contact_points.json: not a table of points"):
        load(copied)
    table.write_text('{"robot0:ffdistel_child": [[0, 1, 2]]}')
    with pytest.raises(InputError, match=r"left_hand_contact_points.json names 'robot0:ffdistel'.*robot0:ffdistal"):
        load(copied)


@pytest.mark.slow
def test_another_xml_is_refused(copied: Path):
    (copied / "right_shadow_hand.xml").write_text("<mujoco>")
    with pytest.raises(InputError, match="right_shadow_hand.xml: not the hand of the BimanGrasp release"):
        load(copied)


@pytest.mark.slow
@pytest.mark.parametrize(
    "text", ["{}", '{"robot0:palm": {"x": 1}}', '{"robot0:palm": [[0, 0, NaN]]}', '{"robot0:palm": []}', "[1]", "{"]
)
def test_a_table_without_points_is_refused_by_its_file(copied: Path, text: str):
    (copied / "left_hand_contact_points.json").write_text(text)
    with pytest.raises(InputError, match="left_hand_contact_points.json"):
        load(copied)


def test_a_hand_that_lacks_a_joint_is_refused_by_the_names(copied: Path):
    path = copied / "left_shadow_hand.xml"
    path.write_text(path.read_text().replace("robot0:FFJ3", "robot0:other"))
    with pytest.raises(InputError, match="the left hand's joints are.*robot0:other"):
        load(copied)


def test_an_empty_box_is_refused(copied: Path):
    (copied / "meshes" / "box.obj").write_text("v 0 0 0\n")
    with pytest.raises(InputError, match="box.obj"):
        load(copied)
