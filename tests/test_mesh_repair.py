"""Repairs of meshes: broken copies of known solids become these solids again."""

from __future__ import annotations

import numpy as np
import pytest
import trimesh
from hypothesis import given, settings
from hypothesis import strategies as st

from bimangrasp.objects.mesh_repair import Repairs, bodies_of, repaired, split_bodies
from bimangrasp.objects.model import is_closed, volume_of

CUBE = trimesh.creation.box((1, 1, 1))
BALL = trimesh.creation.icosphere(subdivisions=2)
CORE = trimesh.creation.box((0.5, 0.5, 0.5))


def joined(*meshes):
    return trimesh.util.concatenate(meshes)


def moved(mesh, *shift):
    return mesh.copy().apply_translation(shift)


def inverted(mesh):
    copy = mesh.copy()
    copy.invert()
    return copy


def mended(mesh, largest_hole=0.4):
    return repaired(np.array(mesh.vertices, float), np.array(mesh.faces), largest_hole)


def volume(fixed):
    assert is_closed(fixed.vertices, fixed.faces)
    return volume_of(fixed.vertices[fixed.faces])


@pytest.mark.parametrize("mesh", [CUBE, BALL, joined(CUBE, moved(CUBE, 3, 0, 0)), joined(CUBE, inverted(CORE))])
def test_a_sound_mesh_comes_back_as_it_is(mesh):
    fixed = mended(mesh)
    assert np.array_equal(fixed.vertices, mesh.vertices) and np.array_equal(fixed.faces, mesh.faces)
    assert fixed.repairs == Repairs() and not fixed.holes and str(fixed.repairs) == ""


@pytest.mark.parametrize("missing", range(12))
def test_a_cube_without_a_triangle_is_a_cube_again(missing):
    holed = trimesh.Trimesh(CUBE.vertices, np.delete(CUBE.faces, missing, axis=0), process=False)
    fixed = mended(holed, largest_hole=0.1)
    assert volume(fixed) == pytest.approx(1.0) and fixed.repairs == Repairs(filled=1)


def test_a_hole_that_is_too_large_is_left_open_and_told():
    holed = CUBE.submesh([np.flatnonzero(CUBE.face_normals[:, 2] < 0.5)])[0]
    fixed = mended(holed, largest_hole=0.5)
    assert fixed.repairs == Repairs() and len(fixed.faces) == 10
    assert fixed.holes == pytest.approx([np.sqrt(2 / 3)])
    assert volume(mended(holed, largest_hole=0.9)) == pytest.approx(1.0)


def test_small_holes_are_filled_beside_a_large_one():
    faces = BALL.faces[(BALL.triangles_center[:, 2] < 0.7)]
    low = int(BALL.triangles_center[BALL.faces.shape[0] - len(faces) :, 2].argmin())
    fixed = mended(trimesh.Trimesh(BALL.vertices, np.delete(faces, low, axis=0), process=False), 0.2)
    assert fixed.repairs.filled >= 1 and len(fixed.holes) == 1 and fixed.holes[0] > 0.2


def test_a_soup_of_triangles_becomes_one_body():
    soup = trimesh.Trimesh(BALL.triangles.reshape(-1, 3), np.arange(3 * len(BALL.faces)).reshape(-1, 3), process=False)
    fixed = mended(soup)
    assert len(fixed.vertices) == len(BALL.vertices)
    assert fixed.repairs == Repairs(merged=3 * len(BALL.faces) - len(BALL.vertices))
    assert volume(fixed) == pytest.approx(BALL.volume)


def test_vertices_that_nearly_agree_are_merged():
    soup = BALL.triangles.reshape(-1, 3) + np.random.default_rng(1).normal(scale=1e-9, size=(3 * len(BALL.faces), 3))
    fixed = mended(trimesh.Trimesh(soup, np.arange(len(soup)).reshape(-1, 3), process=False))
    assert len(fixed.vertices) == len(BALL.vertices) and volume(fixed) == pytest.approx(BALL.volume)


@pytest.mark.slow
@settings(max_examples=8)
@given(seed=st.integers(0, 2**32 - 1))
def test_faces_in_any_order_are_turned_outward(seed):
    turned = np.random.default_rng(seed).random(len(BALL.faces)) < 0.5
    faces = np.where(turned[:, None], BALL.faces[:, ::-1], BALL.faces)
    fixed = mended(trimesh.Trimesh(BALL.vertices, faces, process=False))
    assert volume(fixed) == pytest.approx(BALL.volume)
    assert fixed.repairs.turned == turned.sum()


def test_a_solid_that_was_written_twice_is_there_once():
    for again in (CUBE.faces, CUBE.faces[:, ::-1]):
        fixed = mended(trimesh.Trimesh(CUBE.vertices, np.vstack((CUBE.faces, again)), process=False))
        assert volume(fixed) == pytest.approx(1.0) and fixed.repairs.repeated == 12


def test_a_wall_between_two_solids_goes():
    faces = np.array([[0, 2, 1], [0, 1, 3], [1, 2, 3], [2, 0, 3], [0, 1, 2], [0, 4, 1], [1, 4, 2], [2, 4, 0]])
    corners = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0], [0.3, 0.3, 1], [0.3, 0.3, -1]])
    fixed = mended(trimesh.Trimesh(corners, faces, process=False))
    assert len(fixed.faces) == 6 and fixed.repairs.repeated == 2
    assert volume(fixed) == pytest.approx(2 / 6)


def test_a_body_that_is_inside_out_is_turned_and_a_cavity_is_not():
    apart_from = moved(inverted(CORE), 3, 0, 0)
    assert volume(mended(joined(CUBE, apart_from))) == pytest.approx(1.125)
    hollow = joined(CUBE, inverted(CORE))
    assert volume(mended(hollow)) == pytest.approx(0.875)
    fixed = mended(inverted(hollow))
    assert volume(fixed) == pytest.approx(0.875) and fixed.repairs == Repairs(turned=24)


def test_faces_with_nan_or_without_area_are_left_out():
    vertices = np.vstack((CUBE.vertices, [[np.nan, 0, 0]]))
    faces = np.vstack((CUBE.faces, [[0, 1, 8], [2, 2, 3]]))
    fixed = repaired(vertices, faces, 0.4)
    assert volume(fixed) == pytest.approx(1.0)
    assert fixed.repairs == Repairs(not_finite=1, degenerate=1)
    assert str(fixed.repairs) == "faces with NaN left out: 1, faces without area left out: 1"


def test_nothing_is_left_of_a_mesh_without_area_or_numbers():
    for vertices, faces in ((np.full((3, 3), np.nan), [[0, 1, 2]]), (np.zeros((3, 3)), [[0, 0, 0]])):
        assert not len(repaired(vertices, np.array(faces), 0.4).faces)


def test_bodies_that_touch_are_two():
    corner, edge = moved(CUBE, 1, 1, 1), moved(CUBE, 1, 1, 0)
    for other in (corner, edge, moved(CUBE, 3, 0, 0)):
        mesh = joined(CUBE, other)
        mesh.merge_vertices()
        assert bodies_of(mesh.vertices, mesh.faces).tolist() == [0] * 12 + [1] * 12
        vertices, faces = split_bodies(np.array(mesh.vertices), np.array(mesh.faces))
        assert len(vertices) == 16 and faces[:12].max() == 7 and faces[12:].min() == 8
        assert volume_of(vertices[faces]) == pytest.approx(2.0)
