import numpy as np
import pytest
import torch
from scene import slope
from scipy.optimize import nnls

from bimangrasp.energy.wrench import (
    LEVER,
    _balancing_forces,
    _net_wrench,
    grasp_matrix,
    residual_wrench,
    singular_values,
)

F64 = torch.float64
X, Y, Z = torch.eye(3, dtype=F64)


def contacts_of(*pairs):
    """Points and outward normals of one sample."""
    point, normal = zip(*pairs, strict=True)
    return torch.stack(point)[None], torch.stack(normal)[None]


def random_contacts(count=8, samples=20, seed=0):
    generator = torch.Generator().manual_seed(seed)
    normal = torch.nn.functional.normalize(torch.randn((samples, count, 3), generator=generator, dtype=F64), dim=-1)
    return 0.1 * normal + 0.02 * torch.randn(normal.shape, generator=generator, dtype=F64), normal


def least_residual(point, normal, friction, edges=32):
    """The same by non-negative least squares on the edges of the cones: the oracle."""
    wrenches = []
    for x, n in zip(point.numpy(), -normal.numpy(), strict=True):
        across = np.linalg.svd(n[None])[2][1:]
        for angle in 2 * np.pi * np.arange(edges) / edges:
            force = n + friction * (np.cos(angle) * across[0] + np.sin(angle) * across[1])
            wrenches.append(np.concatenate((force, np.cross(x, force) / LEVER)))
    heavy = 1e4
    matrix = np.vstack((np.array(wrenches).T, np.full(len(wrenches), heavy)))
    share, _ = nnls(matrix, np.append(np.zeros(6), heavy))
    return np.linalg.norm(matrix[:6] @ share)


def test_two_fingers_that_face_each_other_balance():
    assert residual_wrench(*contacts_of((0.1 * X, X), (-0.1 * X, -X)), 0.0).item() == pytest.approx(0, abs=1e-12)


def test_fingers_that_all_press_one_way_leave_it_all():
    one_way = contacts_of((0.1 * Z, Z), (0.1 * Z + 0.05 * X, Z), (0.1 * Z - 0.05 * X, Z))
    assert residual_wrench(*one_way, 0.3).item() == pytest.approx(1, abs=1e-2)


def test_friction_holds_what_pressing_cannot():
    """Two faces that lean by 0.2 from facing each other are held from a friction of tan 0.2 = 0.203 on."""
    lean = torch.tensor([[np.cos(0.2), np.sin(0.2), 0.0], [-np.cos(0.2), np.sin(0.2), 0.0]], dtype=F64)
    wedge = contacts_of((0.05 * X, lean[0]), (-0.05 * X, lean[1]))
    assert residual_wrench(*wedge, 0.4).item() < 0.02
    assert residual_wrench(*wedge, 0.0).item() == pytest.approx(np.sin(0.2), abs=1e-2)


def test_it_is_near_the_least_and_never_below():
    point, normal = random_contacts()
    ours = residual_wrench(point, normal, 0.3)
    least = torch.tensor([least_residual(x, n, 0.3) for x, n in zip(point, normal, strict=True)], dtype=F64)
    assert (ours > least - 1e-2).all() and (ours < least + 0.08).all()


def test_turning_a_normal_round_changes_it():
    """The condition number of the grasp matrix does not see this."""
    point, normal = random_contacts(6)
    turned = normal.clone()
    turned[:, 0] *= -1
    change = residual_wrench(point, turned, 0.3) - residual_wrench(point, normal, 0.3)
    assert change.abs().mean() > 0.02
    values = [singular_values(grasp_matrix(point, one)) for one in (normal, turned)]
    torch.testing.assert_close(values[1], values[0])


def test_the_gradient_is_the_slope_with_the_forces_held():
    point, normal = random_contacts(6, seed=2)
    force = _balancing_forces(point, -normal, 0.3)
    point.requires_grad_()
    (gradient,) = torch.autograd.grad(residual_wrench(point, normal, 0.3).sum(), point)
    direction, _ = random_contacts(6, seed=3)
    measured = slope(lambda at: _net_wrench(at, force).norm(dim=-1), point.detach(), direction)
    torch.testing.assert_close((gradient * direction).sum(dim=(1, 2)), measured, rtol=1e-5, atol=1e-7)


def ellipsoid(point):
    """Outward normals on ellipsoids with three unlike axes through these points, and how they turn."""
    stretch = torch.tensor([1.0, 2.0, 0.5], dtype=F64)
    length = (stretch * point).norm(dim=-1, keepdim=True)
    normal = stretch * point / length
    across = torch.eye(3, dtype=F64) - normal[..., None] * normal[..., None, :]
    return normal, stretch[:, None] * across / length[..., None]


def turned(force, before, after):
    """Forces after the shortest turn (Rodrigues) that takes the normals to what they are now."""
    axis = torch.linalg.cross(before, after, dim=-1)
    cosine = (before * after).sum(-1, keepdim=True)
    along = axis * (axis * force).sum(-1, keepdim=True) / (1 + cosine)
    return cosine * force + torch.linalg.cross(axis, force, dim=-1) + along


def test_the_gradient_is_the_slope_with_forces_that_turn_with_the_normals():
    point, _ = random_contacts(6, seed=2)
    normal, turn = ellipsoid(point)
    force = _balancing_forces(point, -normal, 0.3)
    at = point.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(residual_wrench(at, normal, 0.3, turn).sum(), at)
    (constant,) = torch.autograd.grad(residual_wrench(at, normal, 0.3).sum(), at)
    assert ((gradient - constant).norm(dim=(1, 2)) > 0.1 * gradient.norm(dim=(1, 2))).all()
    direction, _ = random_contacts(6, seed=3)
    measured = slope(lambda at: _net_wrench(at, turned(force, normal, ellipsoid(at)[0])).norm(dim=-1), point, direction)
    torch.testing.assert_close((gradient * direction).sum(dim=(1, 2)), measured, rtol=1e-5, atol=1e-7)


def test_following_it_brings_wedged_contacts_to_face_each_other():
    """Three contacts on one side of a ball: only other normals can balance them, no other lever."""
    point = 0.1 * torch.nn.functional.normalize(
        torch.tensor([[[1.0, 0, 0.5], [0, 1, 0.5], [-1, -1, 0.5]]], dtype=F64), dim=-1
    )
    eye, before = torch.eye(3, dtype=F64), None
    for _ in range(100):
        normal = point / point.norm(dim=-1, keepdim=True)
        turn = (eye - normal[..., None] * normal[..., None, :]) / 0.1
        at = point.clone().requires_grad_()
        residual = residual_wrench(at, normal, 0.0, turn)
        before = residual.item() if before is None else before
        (gradient,) = torch.autograd.grad(residual.sum(), at)
        point = 0.1 * torch.nn.functional.normalize(point - 1e-3 * gradient, dim=-1)
    assert before > 0.3 and residual.item() < 0.03


def test_contacts_without_a_normal_are_no_reason_to_fail():
    point, normal = random_contacts(4)
    assert residual_wrench(point, torch.zeros_like(normal), 0.3).isfinite().all()
