"""A URDF gives the same hand as an MJCF; what cannot be read is refused with the remedy."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import quick_conf
import trimesh
from scipy.spatial.transform import Rotation

from bimangrasp.builtin import ASSET_ROOT
from bimangrasp.errors import InputError
from bimangrasp.hand_files.loading import load_hands
from bimangrasp.hand_files.read_hand import read_bare_hand
from bimangrasp.hand_files.urdf import is_urdf
from bimangrasp.hand_setup.inspection import inspect_hand
from bimangrasp.hands.description import HandDescription


def origin(T: np.ndarray) -> str:
    place, angles = (
        " ".join(str(float(x)) for x in row) for row in (T[:3, 3], Rotation.from_matrix(T[:3, :3]).as_euler("xyz"))
    )
    return f'<origin xyz="{place}" rpy="{angles}"/>'


def shape_of(shape: object) -> str:
    a, b, c = (float(x) for x in shape.size)
    if shape.shape == "box":
        return f'<box size="{2 * a} {2 * b} {2 * c}"/>'
    if shape.shape == "mesh":
        return '<mesh filename="package://my_hand/meshes/tip.stl"/>'
    return f'<cylinder radius="{a}" length="{2 * b}"/>'


def urdf(hand: HandDescription, mesh: str = "") -> str:
    """The hand as a URDF; capsules, which URDF lacks, become cylinders, or the mesh of that package path."""
    links, joints = [], []
    for link, name in enumerate(hand.link_names):
        shapes = "".join(
            f"<collision>{origin(shape.T_link_shape)}<geometry>"
            f"{mesh if mesh and shape.shape == 'capsule' else shape_of(shape)}</geometry></collision>"
            for shape in hand.primitives
            if shape.link == link
        )
        seen = '<visual><geometry><mesh filename="package://my_hand/meshes/looks.dae"/></geometry></visual>'
        links.append(f'<link name="{name}">{seen}{shapes}</link>')
    for link, parent in enumerate(hand.parent[1:], start=1):
        (joint,) = np.flatnonzero(hand.joint_link == link)
        axis = " ".join(repr(float(x)) for x in hand.joint_axis[joint])
        lower, upper = float(hand.joint_lower[joint]), float(hand.joint_upper[joint])
        joints.append(
            f'<joint name="{hand.joint_names[joint]}" type="revolute"><parent link="{hand.link_names[parent]}"/>'
            f'<child link="{hand.link_names[link]}"/>{origin(hand.T_parent_link[link])}<axis xyz="{axis}"/>'
            f'<limit lower="{lower}" upper="{upper}" effort="1" velocity="1"/></joint>'
        )
    return f'<?xml version="1.0"?><robot name="hand">{"".join(links + joints)}</robot>'


@pytest.fixture(scope="module")
def allegro() -> HandDescription:
    return load_hands(quick_conf.load("hand=allegro").hand)[1]


@pytest.mark.slow
def test_a_urdf_is_the_same_hand(allegro: HandDescription, tmp_path: Path):
    path = tmp_path / "hand.urdf"
    path.write_text(urdf(allegro))
    hand = read_bare_hand(str(path))
    assert is_urdf(path) and not is_urdf(ASSET_ROOT / "allegro_hand" / "right_hand.xml")
    assert (hand.link_names, hand.joint_names) == (allegro.link_names, allegro.joint_names)
    assert np.array_equal(hand.parent, allegro.parent)
    for name in ("T_parent_link", "joint_axis", "joint_lower", "joint_upper"):
        np.testing.assert_allclose(getattr(hand, name), getattr(allegro, name), atol=1e-6)
    kinds = {"capsule": "cylinder", "box": "box"}
    for ours, theirs in zip(hand.primitives, allegro.primitives, strict=True):
        assert (ours.link, ours.shape) == (theirs.link, kinds[theirs.shape])
        np.testing.assert_allclose(ours.T_link_shape, theirs.T_link_shape, atol=1e-6)
        np.testing.assert_allclose(ours.size, theirs.size, atol=1e-9)


def test_meshes_of_a_package_are_found_above_the_file(allegro: HandDescription, tmp_path: Path):
    package = tmp_path / "my_hand"
    for folder in ("meshes", "urdf"):
        (package / folder).mkdir(parents=True)
    trimesh.creation.box((0.02, 0.02, 0.03)).export(package / "meshes" / "tip.stl")
    for name in ("package://my_hand/meshes/tip.stl", "../meshes/tip.stl", f"file://{package}/meshes/tip.stl"):
        path = package / "urdf" / "hand.urdf"
        path.write_text(urdf(allegro, f'<mesh filename="{name}"/>'))
        hand = read_bare_hand(str(path))
        tips = [shape for shape in hand.primitives if shape.shape == "mesh"]
        assert len(tips) == 4
        np.testing.assert_allclose(np.ptp(tips[0].vertices, axis=0), [0.02, 0.02, 0.03], atol=1e-6)


def test_a_mimic_joint_follows(allegro: HandDescription, tmp_path: Path):
    text = urdf(allegro).replace(
        'name="index_3" type="revolute">', 'name="index_3" type="revolute"><mimic joint="index_2" multiplier="1"/>'
    )
    (tmp_path / "hand.urdf").write_text(text)
    inspection = inspect_hand(str(tmp_path / "hand.urdf"))
    (follower,) = inspection.hand.couplings.followers
    assert [inspection.hand.joint_names[node] for node in follower[:2]] == ["index_3", "index_2"]
    assert not [line for line in inspection.warnings if "mimic" in line or "equality" in line]


URDF = '<robot name="r"><link name="a"><collision><geometry>{}</geometry></collision></link></robot>'
REFUSED = {
    "not xml": ("hello", ["no XML", "MJCF or a URDF"]),
    "sdf": ("<sdf/>", ["begins with <sdf>", "<mujoco>", "<robot>"]),
    "fragment": ("<mujocoinclude/>", ["fragment for <include>"]),
    "xacro": (
        '<robot xmlns:xacro="http://www.ros.org/wiki/xacro"><xacro:include filename="x"/></robot>',
        ["expand it first: xacro hand.xml > hand.urdf"],
    ),
    "missing mesh": (
        '<mujoco><asset><mesh file="a.stl"/></asset><worldbody><body><geom type="mesh" mesh="a"/></body></worldbody>'
        "</mujoco>",
        ["a.stl", "Put it there"],
    ),
    "missing mesh of a package": (
        URDF.format('<mesh filename="package://p/a.stl"/>'),
        ["'package://p/a.stl'", "above"],
    ),
    "missing mesh beside it": (URDF.format('<mesh filename="b/a.stl"/>'), ["'b/a.stl'", "looked at"]),
    "no geometry": ('<robot name="r"><link name="a"/></robot>', ["hand.xml", "no body has a joint"]),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_read_is_refused(case: str, tmp_path: Path):
    text, words = REFUSED[case]
    (tmp_path / "hand.xml").write_text(text)
    with pytest.raises(InputError) as error:
        read_bare_hand(str(tmp_path / "hand.xml"))
    for word in ["hand.xml", *words]:
        assert word in str(error.value), str(error.value)


TWO_LINKS = (
    '<robot name="r"><link name="palm"><collision><geometry>{}</geometry></collision></link>'
    '<link name="finger"><collision><geometry>{}</geometry></collision></link><joint name="bend" type="revolute">'
    '<parent link="palm"/><child link="finger"/><origin xyz="0 0 0.1"/><axis xyz="0 1 0"/>'
    '<limit lower="0" upper="1" effort="1" velocity="1"/></joint></robot>'
)


def test_meshes_that_mujoco_does_not_read_are_converted(tmp_path: Path):
    box, ball = trimesh.creation.box((0.02, 0.04, 0.06)), trimesh.creation.icosphere(subdivisions=1, radius=0.01)
    scene = trimesh.Scene([box])
    scene.add_geometry(ball, transform=trimesh.transformations.translation_matrix((0.0, 0.0, 0.05)))
    scene.export(tmp_path / "palm.glb")
    box.export(tmp_path / "a.b.ply")
    glb, ply = (f'<mesh filename="{name}" scale="1 1 2"/>' for name in ("palm.glb", "a.b.ply"))
    (tmp_path / "hand.urdf").write_text(TWO_LINKS.format(glb, ply))
    sizes = [
        np.ptp(shape.vertices @ shape.T_link_shape[:3, :3].T, axis=0)
        for shape in read_bare_hand(str(tmp_path / "hand.urdf")).primitives
    ]
    assert sizes[0] == pytest.approx((0.02, 0.04, 2 * 0.09), abs=1e-5), "all parts, in their places"
    assert sizes[1] == pytest.approx((0.02, 0.04, 2 * 0.06), abs=1e-5)


def test_a_mesh_with_a_unit_of_its_own_is_refused(tmp_path: Path):
    (tmp_path / "a.dae").write_text("<COLLADA/>")
    (tmp_path / "hand.urdf").write_text(URDF.format('<mesh filename="a.dae"/>'))
    with pytest.raises(InputError, match=r"'a.dae'; wanted .stl, .obj, .msh, .glb, .* Convert it, in meters"):
        read_bare_hand(str(tmp_path / "hand.urdf"))


@pytest.mark.parametrize("name", ["a.off", "a.glb", "empty.ply"])
def test_a_mesh_that_nothing_reads_is_refused_with_the_reason(name: str, tmp_path: Path):
    (tmp_path / name).write_text("<COLLADA/>")
    (tmp_path / "hand.urdf").write_text(URDF.format(f'<mesh filename="{name}"/>'))
    with pytest.raises(InputError, match=rf"collision mesh '{name}', which cannot be read: \w+: .+Convert it to STL"):
        read_bare_hand(str(tmp_path / "hand.urdf"))
