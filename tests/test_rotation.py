import torch
from hypothesis import given
from hypothesis import strategies as st

from bimangrasp.geometry.rotation import cross_matrix, matrix_to_rot6d, rot6d_to_matrix, turn_x, turn_z


def vectors(seed, *shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@given(st.integers(0, 1000))
def test_every_pair_of_vectors_gives_a_proper_rotation(seed):
    matrix = rot6d_to_matrix(vectors(seed, 20, 6))
    torch.testing.assert_close(matrix @ matrix.mT, torch.eye(3, dtype=torch.float64).expand(20, 3, 3))
    torch.testing.assert_close(torch.linalg.det(matrix), torch.ones(20, dtype=torch.float64))


@given(st.integers(0, 1000))
def test_a_rotation_survives_its_six_numbers(seed):
    matrix = rot6d_to_matrix(vectors(seed, 20, 6))
    torch.testing.assert_close(rot6d_to_matrix(matrix_to_rot6d(matrix)), matrix)


def test_lengths_of_the_two_vectors_do_not_matter():
    pair = vectors(1, 8, 6)
    scaled = pair * torch.tensor([2.0, 2.0, 2.0, 0.1, 0.1, 0.1])
    torch.testing.assert_close(rot6d_to_matrix(scaled), rot6d_to_matrix(pair))


def test_both_vectors_deviate_equally_from_their_columns():
    pair = torch.nn.functional.normalize(vectors(2, 50, 2, 3), dim=-1)
    matrix = rot6d_to_matrix(pair.flatten(1))
    cosines = [(matrix[..., k] * pair[:, k]).sum(-1) for k in (0, 1)]
    torch.testing.assert_close(cosines[0], cosines[1])


def test_zero_vectors_give_no_nan_in_value_and_gradient():
    pair = torch.zeros(1, 6, requires_grad=True)
    matrix = rot6d_to_matrix(pair)
    matrix.sum().backward()
    assert matrix.isfinite().all() and pair.grad.isfinite().all()


def test_turns_are_right_handed():
    quarter = torch.tensor(torch.pi / 2, dtype=torch.float64)
    x, y, z = torch.eye(3, dtype=torch.float64)
    torch.testing.assert_close(turn_z(quarter) @ x, y)
    torch.testing.assert_close(turn_x(quarter) @ y, z)


def test_cross_matrix_is_the_cross_product():
    a, b = vectors(3, 5, 3), vectors(4, 5, 3)
    torch.testing.assert_close((cross_matrix(a) @ b[..., None]).squeeze(-1), torch.linalg.cross(a, b))
