import numpy as np
import torch

from bimangrasp.energy.wrench import force_closure, grasp_matrix, singular_values, wrench_volume


def random_contacts(seed, batch=6, contacts=8):
    generator = torch.Generator().manual_seed(seed)
    point, normal = torch.randn((2, batch, contacts, 3), generator=generator, dtype=torch.float64)
    return 0.1 * point, torch.nn.functional.normalize(normal, dim=-1)


def test_columns_are_normal_and_torque_about_the_origin():
    point, normal = random_contacts(1)
    matrix = grasp_matrix(point, 3 * normal).numpy()
    expected = np.concatenate((normal.numpy(), np.cross(point.numpy(), normal.numpy())), axis=-1)
    np.testing.assert_allclose(matrix, expected.transpose(0, 2, 1), atol=1e-8)


def test_singular_values_equal_numpy_and_descend():
    matrix = grasp_matrix(*random_contacts(2))
    np.testing.assert_allclose(singular_values(matrix), np.linalg.svd(matrix.numpy(), compute_uv=False), rtol=1e-10)


def test_terms_in_closed_form():
    values = torch.tensor([[6.0, 5.0, 4.0, 3.0, 2.0, 1.0]], dtype=torch.float64)
    np.testing.assert_allclose(force_closure(values), np.log(6 / (1 + 1e-8) + 1) / 10)
    np.testing.assert_allclose(wrench_volume(values), 720 ** (-1 / 10))


def test_a_sample_that_is_not_finite_fails_alone():
    matrix = grasp_matrix(*random_contacts(4)).clone()
    matrix[2, 0, 0] = torch.inf
    values = singular_values(matrix)
    assert values[2].isnan().all() and values[[0, 1, 3, 4, 5]].isfinite().all()


def test_gradients_equal_finite_differences():
    point, normal = random_contacts(5, batch=3)

    def terms(point):
        values = singular_values(grasp_matrix(point, normal))
        return force_closure(values) + wrench_volume(values)

    assert torch.autograd.gradcheck(terms, point.requires_grad_())


def test_singular_values_are_taken_in_float64():
    left, _, right = np.linalg.svd(np.random.default_rng(3).normal(size=(6, 8)), full_matrices=False)
    matrix = torch.as_tensor(left @ np.diag([1.7, 1.0, 0.5, 1e-2, 1e-3, 2e-6]) @ right).float()
    exact = np.linalg.svd(matrix.double().numpy(), compute_uv=False)
    np.testing.assert_allclose(singular_values(matrix[None])[0].double(), exact, rtol=1e-6)


def test_a_grasp_without_grip_has_finite_terms_in_closed_form():
    values = torch.tensor([[2.0, 1.0, 1.0, 1.0, 1.0, 0.0]], dtype=torch.float64)
    np.testing.assert_allclose(force_closure(values), np.log(2 / 1e-8 + 1) / 10)
    np.testing.assert_allclose(wrench_volume(values), (2 * 1e-8) ** (-1 / 10))


def test_a_decomposition_that_fails_fails_its_sample_alone(monkeypatch):
    matrix = grasp_matrix(*random_contacts(6))
    whole = torch.linalg.svdvals

    def stubborn(batch):
        if (batch == matrix[2]).all(-1).all(-1).any():
            raise torch.linalg.LinAlgError("no convergence")
        return whole(batch)

    monkeypatch.setattr(torch.linalg, "svdvals", stubborn)
    values = singular_values(matrix)
    assert values[2].isnan().all() and values[[0, 1, 3, 4, 5]].isfinite().all()
