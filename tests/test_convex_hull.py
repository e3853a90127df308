"""The nearest point of a convex hull, found by walking, against all triangles measured."""

import numpy as np
import pytest
import torch
import trimesh
from scipy.spatial import ConvexHull

from bimangrasp.geometry.convex_hull import HullSurface
from bimangrasp.geometry.triangle_mesh import TriangleMesh

RANDOM = np.random.default_rng(5)
BODIES = {
    "box": trimesh.creation.box((0.3, 0.02, 0.1)).vertices,
    "thin wedge": np.array([[-1, -1, 0.0], [1, -1, 0], [0, 1, 0], [0, 0, -0.05]]),
    "needle": RANDOM.normal(size=(60, 3)) * [1, 0.02, 0.01],
    "ball": trimesh.creation.icosphere(subdivisions=3, radius=0.15).vertices,
    "cylinder": trimesh.creation.cylinder(0.05, 0.4, sections=64).vertices,
    "points": RANDOM.uniform(-0.2, 0.2, (200, 3)),
}


def around(points, count, generator):
    """Returns points outside of a hull: near it, far from it, and on its surface."""
    hull = ConvexHull(points)
    size = np.ptp(points, axis=0).max()
    away = generator.normal(size=(count, 3))
    away *= size * generator.choice([0.05, 0.6, 20], (count, 1)) / np.linalg.norm(away, axis=1, keepdims=True)
    free = points[generator.integers(len(points), size=count)] + away
    free = free[(free @ hull.equations[:, :3].T + hull.equations[:, 3]).max(axis=1) > 0]
    chosen = hull.points[hull.simplices][generator.integers(len(hull.simplices), size=count)]
    weights = generator.dirichlet([0.5] * 3, count)
    return np.concatenate((free, (chosen * weights[..., None]).sum(axis=1), points[hull.vertices]))


@pytest.mark.parametrize("body", BODIES)
def test_no_triangle_is_nearer_than_what_is_found(body):
    points = np.asarray(BODIES[body], dtype=np.float64)
    queries = torch.as_tensor(around(points, 3000, np.random.default_rng(1)))
    corners = points[ConvexHull(points).simplices].reshape(-1, 3)
    truth = TriangleMesh(corners, np.arange(len(corners)).reshape(-1, 3), dtype=torch.float64).nearest(queries)
    feet = HullSurface(points, "cpu", torch.float64).nearest(queries)
    size = np.ptp(points, axis=0).max()
    torch.testing.assert_close(feet, truth.point, atol=1e-8 * float(size), rtol=0)


def test_a_point_far_behind_the_nearest_corner_finds_the_face_before_it():
    """The corner below is nearest to a point above a wide triangle, and none of its triangles faces the point."""
    points = BODIES["thin wedge"]
    query = torch.tensor([[0.0, -0.1, 0.1]], dtype=torch.float64)
    feet = HullSurface(points, "cpu", torch.float64).nearest(query)
    torch.testing.assert_close(feet, torch.tensor([[0.0, -0.1, 0.0]], dtype=torch.float64))


def test_single_precision_is_as_near_to_its_rounding():
    points = np.asarray(BODIES["ball"])
    queries = torch.as_tensor(around(points, 2000, np.random.default_rng(2)))
    exact, single = (HullSurface(points, "cpu", dtype) for dtype in (torch.float64, torch.float32))
    wanted = (exact.nearest(queries) - queries).norm(dim=1)
    given = (single.nearest(queries.float()).double() - queries).norm(dim=1)
    torch.testing.assert_close(given, wanted, atol=1e-6, rtol=1e-6)
