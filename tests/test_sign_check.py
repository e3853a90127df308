"""The test of the sign of signed distances, by an independent oracle and on meshes whose sign is wrong."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import trimesh

from bimangrasp.geometry.triangle_mesh import winding_number
from bimangrasp.objects import preparation as room
from bimangrasp.objects.model import Mesh
from bimangrasp.objects.preparation import SignCheck, check_sign

BALL = trimesh.creation.icosphere(subdivisions=2)
HOLLOW = trimesh.util.concatenate([BALL, BALL.copy().apply_scale(0.5)])
HOLLOW.faces[len(BALL.faces) :] = HOLLOW.faces[len(BALL.faces) :, ::-1]


def mesh_of(mesh, sign="normal"):
    return Mesh(np.array(mesh.vertices), np.array(mesh.faces), sign, "key")


@pytest.mark.slow
@pytest.mark.parametrize("mesh", [BALL, HOLLOW, trimesh.creation.annulus(0.4, 1.0, 0.5), trimesh.creation.box()])
@pytest.mark.parametrize("sign", ["normal", "winding"])
def test_sound_meshes_have_the_right_sign_everywhere(mesh, sign):
    found = check_sign(mesh_of(mesh, sign))
    if mesh is HOLLOW and sign == "winding":
        pytest.skip("meshes with holes in them are closed: they have the normal's sign")
    assert found == SignCheck(600, 0, 300, 0, 60, 0) and found.tried == 960 and found.wrong == 0


def test_an_inverted_mesh_is_wrong_everywhere():
    turned = BALL.copy()
    turned.invert()
    found = check_sign(mesh_of(turned))
    assert found.wrong == found.tried


def test_overlapping_bodies_are_wrong_inside_of_each_other():
    both = trimesh.util.concatenate([BALL, BALL.copy().apply_translation((1, 0.1, 0))])
    found = check_sign(mesh_of(both))
    assert found.far_wrong == 0 and 0.05 < found.box_wrong / found.box < 0.5 and found.beside_wrong > 0


def test_the_sides_are_those_of_trimesh():
    solid = trimesh.creation.annulus(0.4, 1.0, 0.5).subdivide()
    corners = torch.as_tensor(solid.triangles.copy())
    for points in room._test_points(corners, torch.Generator().manual_seed(1)):
        number = winding_number(points, corners)
        assert (number - number.round()).abs().max() <= room.DECIDED
        assert (number.round() != 0).tolist() == solid.contains(points.numpy()).tolist()


def test_points_beside_faces_are_as_near_as_they_say():
    corners = torch.as_tensor(BALL.triangles.copy())
    points = room._test_points(corners, torch.Generator().manual_seed(1))[0].numpy()
    _, distance, face = BALL.nearest.on_surface(points)
    step = room.STEP * np.linalg.norm(BALL.extents)
    assert distance[:300] == pytest.approx(step) and distance[300:].max() <= step * (1 + 1e-9)
    assert (BALL.contains(points) == np.repeat([False, True], 300)).all()
    share = np.bincount(face[:300], minlength=320) / 300
    assert share.max() < 0.04  # by area, of 320 alike faces


def test_points_of_which_an_open_mesh_does_not_know_the_side_are_left_out():
    half = BALL.submesh([np.flatnonzero(BALL.triangles_center[:, 2] < 0)])[0]
    found = check_sign(mesh_of(half, "winding"))
    assert found.box < 250 and found.wrong == 0
