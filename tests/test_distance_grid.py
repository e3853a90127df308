import numpy as np
import pytest
import torch
import trimesh
from scene import built_in, slope

from bimangrasp.geometry.distances import MARGIN, DistanceGrid
from bimangrasp.geometry.triangle_mesh import TriangleMesh

F64 = torch.float64


def grid_of(mesh, cells, dtype=F64):
    return DistanceGrid.of(TriangleMesh(mesh.vertices, mesh.faces, dtype=dtype), cells, dtype)


def scattered(count, reach, seed=0):
    return reach * (2 * torch.rand((count, 3), generator=torch.Generator().manual_seed(seed), dtype=F64) - 1)


@pytest.mark.slow
def test_over_a_face_of_a_box_the_distance_is_exact():
    """Trilinear interpolation is exact where the distance is linear."""
    grid = grid_of(trimesh.creation.box([1.0, 1.0, 1.0]), 24)
    points = scattered(200, 0.2)
    points[:, 2] = 0.4 + points[:, 2].abs()
    torch.testing.assert_close(grid.distance(points), points[:, 2] - 0.5, rtol=0, atol=1e-12)


@pytest.mark.slow
def test_a_ball_is_off_by_less_than_its_curvature_over_a_cell():
    """A linear interpolation over a cell h is off by up to 3 h^2 / (8 r), as each axis bends by 1 / r."""
    grid = grid_of(trimesh.creation.icosphere(subdivisions=4), 24)
    points = scattered(500, 1.1)
    points = points[points.norm(dim=1) > 0.5]
    error = grid.distance(points) - (points.norm(dim=1) - 1)
    assert error.abs().max() < 3 * grid.cell**2 / (8 * 0.5) + 2e-3  # the mesh lies up to 2e-3 inside of the ball


@pytest.mark.slow
def test_finer_cells_are_nearer_to_the_search():
    mesh = built_in("mug").mesh
    points = scattered(400, 0.5)
    nearest = mesh.nearest(points)
    exact = nearest.sign * (points - nearest.point).norm(dim=1)
    coarse, fine = (DistanceGrid.of(mesh, cells, F64) for cells in (12, 36))
    errors = [float((grid.distance(points) - exact).abs().mean()) for grid in (coarse, fine)]
    assert errors[1] < errors[0] / 3 and errors[1] < fine.cell / 20


def test_the_gradient_is_the_slope_on_and_off_the_grid():
    grid = grid_of(trimesh.creation.icosphere(subdivisions=2), 12)
    points = scattered(200, 2.0, seed=3).requires_grad_()
    (gradient,) = torch.autograd.grad(grid.distance(points).sum(), points)
    direction = scattered(200, 1.0, seed=4)
    measured = slope(grid.distance, points.detach(), direction, 1e-7)
    torch.testing.assert_close((gradient * direction).sum(-1), measured, rtol=1e-5, atol=1e-6)


def test_normals_of_a_ball_turn_by_one_over_the_radius_across_and_not_along():
    grid = grid_of(trimesh.creation.icosphere(subdivisions=4), 48)
    points = scattered(300, 1.1, seed=5)
    points = points[(points.norm(dim=1) - 1).abs() < 0.1]
    turn = grid.normal_turn(points[:, None], torch.full((len(points),), 0.1, dtype=F64))[:, 0]
    outward = points / points.norm(dim=1, keepdim=True)
    exact = (torch.eye(3, dtype=F64) - outward[:, :, None] * outward[:, None]) / points.norm(dim=1)[:, None, None]
    assert len(points) > 30 and (turn - exact).abs().mean() < 0.05


def test_over_an_edge_the_normal_turns_along_the_way_that_crosses_it():
    """From a face of x to one of y within 0.1 to both sides: the first axis takes the first part away."""
    grid = grid_of(trimesh.creation.box([1.0, 1.0, 1.0]), 48)
    turn = grid.normal_turn(torch.tensor([[[0.51, 0.51, 0.0]]], dtype=F64), torch.full((1,), 0.1, dtype=F64))[0, 0]
    assert turn[0, 0] > 3 and turn[0, 1] < -3 and turn[1, 1] > 3 and turn[1, 0] < -3
    assert turn[2].abs().max() < 1e-6 and turn[:, 2].abs().max() < 1e-6


def test_off_the_grid_the_way_there_is_added():
    grid = grid_of(trimesh.creation.box([1.0, 1.0, 1.0]), 24)
    away = torch.tensor([[0.0, 0.0, 3.0], [0.1, -4.0, 0.0]], dtype=F64)
    torch.testing.assert_close(grid.distance(away), torch.tensor([2.5, 3.5], dtype=F64), rtol=0, atol=1e-9)


def test_a_point_that_is_not_finite_has_no_distance():
    grid = grid_of(trimesh.creation.box([1.0, 1.0, 1.0]), 8)
    assert grid.distance(torch.tensor([[torch.nan, 0.0, 0.0]], dtype=F64)).isnan().all()


@pytest.mark.parametrize("extents", [(1.0, 1.0, 1.0), (1.0, 0.3, 0.5)])
def test_cells_are_cubes_and_the_rim_is_as_wide_as_said(extents):
    grid, corner = grid_of(trimesh.creation.box(extents), 24), torch.tensor(extents, dtype=F64) / 2 + MARGIN
    high = grid.low + grid.cell * (torch.tensor(grid.values.shape, dtype=F64) - 1)
    assert (grid.low <= -corner + 1e-9).all() and (high >= corner - 1e-9).all()
    assert max(grid.values.shape) in (25, 26) and np.isclose(grid.cell, 1.2 / 24)
