import numpy as np
import pytest
import torch

from bimangrasp.geometry.farthest_point_sampling import farthest_of, farthest_of_each, key_generator, uniform_points


def test_points_are_uniform_by_area():
    corners = np.array([[[0.0, 0, 0], [1, 0, 0], [0, 1, 0]], [[5.0, 0, 0], [8, 0, 0], [5, 3, 0]]])
    points = uniform_points(corners, torch.rand((20000, 3), generator=torch.Generator().manual_seed(1)))
    large = points[:, 0] >= 5
    assert large.double().mean().item() == pytest.approx(0.9, abs=0.01)
    torch.testing.assert_close(points[large].mean(0), torch.tensor([6.0, 1.0, 0.0]).double(), atol=0.03, rtol=0)


def test_each_point_is_the_farthest_from_all_before_it():
    points = torch.rand((300, 3), generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    chosen = farthest_of(points, 20)
    assert torch.equal(chosen[0], points[0])
    for k in range(1, 20):
        gaps = torch.cdist(points, chosen[:k]).amin(1)
        assert torch.cdist(chosen[k : k + 1], chosen[:k]).amin() == pytest.approx(float(gaps.max()))


def test_generators_differ_with_every_part_of_their_key():
    def draw(*key):
        return float(torch.rand(1, generator=key_generator(*key)))

    assert draw("a", 1) == draw("a", 1)
    assert len({draw("a", 1), draw("a", 2), draw("b", 1)}) == 3


@pytest.mark.parametrize("kind", ["scattered", "on a lattice", "twice", "on a line"])
def test_measuring_what_is_within_reach_chooses_like_measuring_all(kind):
    """On a lattice many points are equally far: the first of them is taken."""
    points = torch.rand((600, 3), generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    if kind == "on a lattice":
        points = (8 * points).floor()
    elif kind == "twice":
        points = torch.cat((points[:200], points[:200]))
    elif kind == "on a line":
        points[:, 1:] = 0.25
    points = points.float()
    nearest, chosen = torch.full((len(points),), torch.inf), [0]
    for _ in range(1, 150):
        x, y, z = (points - points[chosen[-1]]).T
        nearest = torch.minimum(nearest, x.square().addcmul(y, y).addcmul(z, z))
        chosen.append(int(nearest.argmax()))
    if kind == "on a lattice":
        assert len({tuple(point) for point in points[chosen].tolist()}) == 150
    assert torch.equal(farthest_of(points, 150), points[chosen])


def test_groups_are_spread_each_by_itself():
    points = torch.rand((5, 400, 3), generator=key_generator("groups"), dtype=torch.float64)
    each = farthest_of_each(points, 40)
    assert torch.equal(each, torch.stack([farthest_of(group, 40) for group in points]))
