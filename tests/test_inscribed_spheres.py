import numpy as np
import pytest
import torch
from scene import shadow_hands

from bimangrasp.geometry.farthest_point_sampling import uniform_points
from bimangrasp.geometry.triangle_mesh import TriangleMesh
from bimangrasp.hands.collision_shapes import MAX_SPHERES, UNCOVERED, inscribed_spheres, shape_surface
from bimangrasp.hands.description import mirror

HAND = shadow_hands().descriptions[1]
SPHERES = inscribed_spheres(HAND)


@pytest.mark.slow
@pytest.mark.parametrize("index", range(len(HAND.primitives)))
def test_spheres_lie_inside_their_shape_and_fill_it(index):
    surface = shape_surface(HAND.primitives[index])
    chosen = SPHERES.shape == index
    center, radius = torch.as_tensor(SPHERES.center[chosen]), torch.as_tensor(SPHERES.radius[chosen])
    nearest = TriangleMesh(surface.vertices, surface.faces, dtype=torch.float64).nearest(center)
    depth = -nearest.sign * (center - nearest.point).norm(dim=1)
    torch.testing.assert_close(depth, radius, rtol=0, atol=1e-9)
    samples = uniform_points(np.asarray(surface.triangles), torch.rand((2000, 3)))
    uncovered = (torch.cdist(samples, center) - radius).amin(dim=1).mean()
    assert 0 < len(radius) <= MAX_SPHERES
    assert uncovered < (1.3 * UNCOVERED if len(radius) < MAX_SPHERES else 0.0035)


def test_the_spheres_of_a_shape_stand_together():
    assert (np.diff(SPHERES.shape) >= 0).all() and set(SPHERES.shape) == set(range(len(HAND.primitives)))


@pytest.mark.slow
def test_the_left_hand_has_the_mirror_image():
    left = inscribed_spheres(mirror(HAND))
    np.testing.assert_array_equal(left.center, SPHERES.center * [1, -1, 1])
    np.testing.assert_array_equal(left.radius, SPHERES.radius)
