"""What a page shows is what the files hold: poses, meshes, numbers; and a camera frames what it should."""

from __future__ import annotations

import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
import trimesh
from gallery_toys import toy_gallery, unpacked
from html_page import read_page
from hypothesis import given
from hypothesis import strategies as st
from scene import shadow_hands
from scipy.spatial.transform import Rotation

from bimangrasp.builtin import install_command
from bimangrasp.hands.collision_shapes import shape_surface
from bimangrasp.visualization.page import (
    GRASP,
    MAX_FACES,
    STAGES,
    object_mesh,
    packed,
    page,
    page_data,
    three_library,
)
from bimangrasp.visualization.renderer import FIELD_OF_VIEW, FILL, frame_tightly, project


@pytest.fixture(scope="module")
def gallery():
    return toy_gallery()


@pytest.fixture(scope="module")
def data(gallery, tmp_path_factory):
    """What a browser finds in the file."""
    path = tmp_path_factory.mktemp("page") / "page.html"
    path.write_text(page(page_data(gallery)), encoding="utf-8")
    return read_page(path)


def matrix(pose7: np.ndarray) -> np.ndarray:
    T = np.eye(4)
    T[:3, :3], T[:3, 3] = Rotation.from_quat(pose7[3:]).as_matrix(), pose7[:3]
    return T


def frames(data: dict, row: np.ndarray, side: int) -> list[np.ndarray]:
    """The links of one hand by the page's tree and one row of its poses, as the page bends them."""
    hand, tree = data["hands"]["sides"][side], data["hands"]
    fixed, axes = unpacked(hand["fixed"]), unpacked(hand["axis"])
    found = [matrix(row[:7])]
    for link in range(1, len(tree["links"])):
        T = matrix(fixed[link])
        if link in tree["joint_link"]:
            joint = tree["joint_link"].index(link)
            T[:3, :3] = T[:3, :3] @ Rotation.from_rotvec(axes[joint] * row[7 + joint]).as_matrix()
        found.append(found[tree["parent"][link]] @ T)
    return found


def test_a_pose_of_the_page_has_the_links_where_the_hand_model_has_them(gallery, data):
    model = shadow_hands()
    poses = unpacked(data["poses"])
    for number, one in enumerate(gallery.grasps):
        for stage in range(len(STAGES)):
            if not np.isfinite(one.stages.joints[stage]).all():
                assert np.isnan(poses[number, stage]).all()
                continue
            root = (torch.as_tensor(part[stage])[None] for part in (one.stages.rotation, *one.stages[::2]))
            wanted = model.frames_from_root(*root)
            for side in (0, 1):
                links = np.stack(frames(data, poses[number, stage, side], side))
                np.testing.assert_allclose(links[:, :3, 3], wanted.translation[0, side], atol=1e-6)
                np.testing.assert_allclose(links[:, :3, :3], wanted.rotation[0, side], atol=1e-5)


def test_each_shape_of_a_hand_is_where_its_link_has_it(gallery, data):
    solids = [np.asarray(unpacked(mesh["vertices"])) for mesh in data["hands"]["meshes"]]
    assert len(solids) < len(gallery.hands[0].primitives), "equal shapes of both hands are there once"
    for side, hand in enumerate(gallery.hands):
        shapes = data["hands"]["sides"][side]["shapes"]
        for shape, primitive in zip(shapes, hand.primitives, strict=True):
            T = matrix(np.array(shape["pose"]))
            placed = solids[shape["mesh"]] @ T[:3, :3].T + T[:3, 3]
            wanted = shape_surface(primitive).vertices
            assert shape["link"] == primitive.link
            np.testing.assert_allclose(placed.min(axis=0), wanted.min(axis=0), atol=2e-4)
            np.testing.assert_allclose(placed.max(axis=0), wanted.max(axis=0), atol=2e-4)


def test_every_number_of_a_grasp_is_on_the_page(gallery, data):
    assert data["title"] == gallery.title and len(data["grasps"]) == len(gallery.grasps)
    contacts = unpacked(data["contacts"])
    for number, one in enumerate(gallery.grasps):
        row = data["grasps"][number]
        assert (row["source"], row["number"], row["labels"]) == (one.source, one.number, list(one.labels))
        assert {name: row[name] for name in ("seed", "round", "row")} == one.origin
        energies = {term: value if np.isfinite(value) else None for term, value in one.energies.items()}
        assert row["energies"] == energies and (row["verdict"], row["physics"]) == (one.verdict, one.physics)
        np.testing.assert_array_equal(contacts[number, ..., :3], one.contact_point.astype(np.float32))
        np.testing.assert_array_equal(contacts[number, ..., 3:], one.contact_normal.astype(np.float32))


def test_names_cannot_break_the_page(gallery, tmp_path):
    shape = gallery.shapes[0]._replace(code="</script><script>alert('x')//{{style}}")
    odd = replace(gallery, title="<b>&amp;", shapes=(shape, *gallery.shapes[1:]))
    (tmp_path / "page.html").write_text(page(page_data(odd)), encoding="utf-8")
    found = read_page(tmp_path / "page.html")
    assert found["title"] == "<b>&amp;" and found["objects"][0]["code"] == shape.code
    assert "<script>alert" not in (tmp_path / "page.html").read_text(encoding="utf-8")


def test_a_few_hundred_grasps_make_a_page_of_a_few_megabytes(gallery):
    many = replace(gallery, grasps=gallery.grasps[:1] * 200)
    assert len(page(page_data(many))) < 3e6


def test_the_page_has_a_released_three_js_with_its_version_and_its_license(data):
    library = three_library()
    notice, _, code = library.partition("*/")
    assert "three.js 0.140.2, MIT" in notice and "npm package three@0.140.2" in notice
    assert "The MIT License" in notice and "Permission is hereby granted" in notice
    assert 'const e="140"' in code[:1000], "its own revision is not the one that is named"
    assert "Three.js Authors" in code[:200] and "TrackballControls" in code
    assert len(library) < 700_000 and "</script" not in library
    assert library in page(data)


def test_a_large_mesh_is_decimated_and_the_page_says_so():
    pytest.importorskip("fast_simplification", reason="needs the extra `view`")
    ball = trimesh.creation.icosphere(subdivisions=6)
    found = object_mesh(ball.vertices, ball.faces)
    assert len(ball.faces) > MAX_FACES >= len(found.faces)
    assert found.note == f"decimated for this page from {len(ball.faces)} to {len(found.faces)} triangles"
    assert np.abs(np.linalg.norm(found.vertices, axis=1) - 1).max() < 1e-2


def test_without_the_extra_a_large_mesh_is_shown_whole_and_the_page_says_so(monkeypatch):
    monkeypatch.setitem(sys.modules, "fast_simplification", None)
    ball = trimesh.creation.icosphere(subdivisions=6)
    found = object_mesh(ball.vertices, ball.faces)
    assert len(found.faces) == len(ball.faces) and install_command("view") in found.note


def test_edges_stay_edges_and_round_surfaces_round():
    """A normal for each vertex: a box needs its 8 corners thrice, a ball each vertex once."""
    box, ball = trimesh.creation.box(), trimesh.creation.icosphere(subdivisions=3)
    assert len(object_mesh(box.vertices, box.faces).vertices) == 24
    assert len(object_mesh(ball.vertices, ball.faces).vertices) == len(ball.vertices)


@given(st.floats(0, 360), st.floats(-60, 60), st.floats(0.5, 2), st.integers(0, 99))
def test_a_tight_frame_is_filled_and_nothing_is_outside(azimuth, elevation, aspect, seed):
    points = np.random.default_rng(seed).normal(scale=0.1, size=(40, 3)) + 1
    view = frame_tightly(points, azimuth, elevation, aspect)
    tangents, depth = project(view, points)
    half = np.tan(np.radians(FIELD_OF_VIEW / 2)) * np.array([aspect, 1.0])
    low, high = tangents.min(axis=0) / half, tangents.max(axis=0) / half
    assert depth.min() > 0
    np.testing.assert_allclose((low + high) / 2, 0, atol=1e-3)
    assert ((high - low) / 2).max() == pytest.approx(FILL, abs=1e-3)


@given(st.sampled_from(["<f4", "<u2", "<u4"]), st.lists(st.integers(1, 4), min_size=1, max_size=3))
def test_packed_arrays_come_back(dtype, shape):
    array = np.arange(np.prod(shape)).reshape(shape).astype(dtype)
    found = unpacked(packed(array, dtype))
    assert found.dtype == np.dtype(dtype) and np.array_equal(found, array)


def test_a_gallery_poses_its_stage_as_the_hand_model_does(gallery):
    one = gallery.grasps[0]
    (posed,) = gallery.link_poses([one])
    root = (torch.as_tensor(part[GRASP])[None] for part in (one.stages.rotation, *one.stages[::2]))
    wanted = shadow_hands().frames_from_root(*root)
    np.testing.assert_allclose(posed.translation, wanted.translation[0], atol=1e-12)
    assert posed.contacts.shape == (8, 3)
