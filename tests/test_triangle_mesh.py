import numpy as np
import pytest
import torch
import trimesh
from hypothesis import given
from hypothesis import strategies as st

from bimangrasp.geometry.triangle_mesh import TriangleMesh, closest_on_triangle, winding_number


def torus():
    return trimesh.creation.torus(1.0, 0.3, major_sections=40, minor_sections=20)


def cloud(seed, count=300, spread=1.5):
    return torch.as_tensor(np.random.default_rng(seed).normal(scale=spread, size=(count, 3)))


def exhaustive(mesh, points):
    """Squared distances of all points to all triangles."""
    corners = torch.as_tensor(mesh.vertices[mesh.faces])
    pairs = closest_on_triangle(points.repeat_interleave(len(corners), 0), corners.repeat(len(points), 1, 1))[0].view(
        len(points), len(corners), 3
    )
    return (pairs - points[:, None]).square().sum(-1)


@pytest.mark.slow
@pytest.mark.parametrize("mesh", [torus(), trimesh.creation.box((2, 1, 0.5)), trimesh.creation.cone(1, 5, sections=90)])
def test_culling_never_misses_the_nearest_triangle(mesh):
    points = torch.cat((cloud(1), cloud(2, spread=0.3), cloud(3, spread=10)))
    found = TriangleMesh(mesh.vertices, mesh.faces, dtype=torch.float64).nearest(points)
    squared = exhaustive(mesh, points)
    torch.testing.assert_close((found.point - points).square().sum(-1), squared.amin(1))
    assert (found.face == torch.as_tensor(squared.numpy().argmin(axis=1))).all()


def test_distance_to_a_triangle_equals_trimesh():
    corners = np.random.default_rng(4).normal(size=(500, 3, 3))
    points = np.random.default_rng(5).normal(size=(500, 3))
    ours = closest_on_triangle(torch.as_tensor(points), torch.as_tensor(corners))[0].numpy()
    theirs = trimesh.triangles.closest_point(corners, points)
    np.testing.assert_allclose(np.linalg.norm(ours - points, axis=1), np.linalg.norm(theirs - points, axis=1))


def test_a_triangle_without_area_counts_as_its_edges():
    corners = torch.tensor([[[0.0, 0, 0], [1, 0, 0], [2, 0, 0]], [[0, 0, 0], [0, 0, 0], [0, 0, 0]]])
    points = torch.tensor([[1.5, 2, 0], [1.0, 0, 0]])
    expected = torch.tensor([[1.5, 0, 0], [0.0, 0, 0]])
    torch.testing.assert_close(closest_on_triangle(points, corners)[0], expected)


@pytest.mark.slow
@given(st.integers(0, 10**6))
def test_both_signs_tell_the_inside_of_a_torus(seed):
    mesh, points = torus(), cloud(seed, 40, 0.7)
    ring = torch.stack((points[:, :2].norm(dim=1) - 1, points[:, 2]), dim=1).norm(dim=1)
    points, ring = points[(ring - 0.3).abs() > 0.02], ring[(ring - 0.3).abs() > 0.02]
    for sign in ("normal", "winding"):
        found = TriangleMesh(mesh.vertices, mesh.faces, dtype=torch.float64, sign=sign).nearest(points)
        assert ((found.sign < 0) == (ring < 0.3)).all()


def test_the_side_is_told_right_behind_sharp_edges_and_corners():
    corners = np.array([[0, 0, 0], [0.03, 0, 0], [0, 0.02, 0], [0.01, 0.02, 0.04], [0.002, 0.002, 0.004]])
    wedge = trimesh.convex.convex_hull(corners)
    planes = np.einsum("fi,fi->f", wedge.face_normals, wedge.triangles[:, 0])
    points = cloud(7, 4000, 0.03)
    inside = (points.numpy() @ wedge.face_normals.T <= planes).all(axis=1)
    found = TriangleMesh(wedge.vertices, wedge.faces, dtype=torch.float64).nearest(points)
    assert inside.sum() > 20 and ((found.sign < 0).numpy() == inside).all()


def test_a_cut_between_two_solids_does_not_spoil_the_outer_edges():
    halves = [trimesh.creation.box(bounds=[[0, 0, z], [1, 1, z + 1]]) for z in (-1, 0)]
    both = trimesh.util.concatenate(halves)
    points = cloud(8, 2000, 1.0)
    points = points[points[:, 2].abs() > 0.6]
    inside = ((points > torch.tensor([0, 0, -1])) & (points < 1)).all(dim=1)
    found = TriangleMesh(both.vertices, both.faces, dtype=torch.float64).nearest(points)
    assert ((found.sign < 0) == inside).all()


def test_winding_number_counts_shells():
    mesh = trimesh.creation.icosphere(subdivisions=2)
    corners = torch.as_tensor(np.concatenate((mesh.triangles, mesh.triangles)))
    numbers = winding_number(torch.tensor([[0.0, 0, 0.1], [0, 3, 0]], dtype=torch.float64), corners)
    torch.testing.assert_close(numbers, torch.tensor([2.0, 0.0], dtype=torch.float64))


def test_the_first_of_equally_near_triangles_is_named():
    triangle = np.array([[0.0, 0, 0], [1, 0, 0], [0, 1, 0]])
    mesh = TriangleMesh(np.concatenate([triangle] * 3), np.arange(9).reshape(3, 3))
    assert mesh.nearest(torch.tensor([[0.2, 0.2, 1.0]])).face.tolist() == [0]


def test_a_point_that_is_not_finite_harms_no_other():
    mesh = TriangleMesh(torus().vertices, torus().faces, dtype=torch.float64)
    points = cloud(6, 20)
    spoiled = points.clone()
    spoiled[3] = torch.nan
    a, b = mesh.nearest(points), mesh.nearest(spoiled)
    keep = torch.arange(20) != 3
    assert torch.equal(a.point[keep], b.point[keep]) and b.point[3].isnan().any()


def test_the_winding_sign_does_not_depend_on_the_orientation():
    ball = trimesh.creation.icosphere(subdivisions=2)
    mesh = TriangleMesh(ball.vertices, ball.faces[4:, ::-1].copy(), dtype=torch.float64, sign="winding")
    assert mesh.nearest(torch.tensor([[0.0, 0, 0.1], [0, 0, 2]]).double()).sign.tolist() == [-1, 1]
