"""The wrench kernel against PyTorch in float64: the reason why it is in float64, which costs on cards for consumers."""

from __future__ import annotations

import importlib

import numpy as np
import pytest
import torch

from bimangrasp.energy.wrench import force_closure, grasp_matrix, singular_values, wrench_volume
from bimangrasp.energy_terms import ENERGY_TERMS, Slot

wp = pytest.importorskip("warp", reason="needs NVIDIA Warp")
records = importlib.import_module("bimangrasp.energy.fused.records")
wrench_kernel = importlib.import_module("bimangrasp.energy.fused.wrench_kernel").wrench_kernel
BATCH = 50


def flat_contacts(height, seed=1):
    """Contacts that lie in a plane but for `height`, turned at random: near singular, and no axis is the weak one."""
    generator = torch.Generator().manual_seed(seed)
    point, normal = torch.randn((2, BATCH, 8, 3), generator=generator, dtype=torch.float64)
    turn = torch.linalg.qr(torch.randn((BATCH, 3, 3), generator=generator, dtype=torch.float64))[0]
    flat = torch.tensor([1.0, 1.0, height], dtype=torch.float64)
    return 0.1 * point * flat @ turn, torch.nn.functional.normalize(normal * flat, dim=-1) @ turn


def launched(point, normal):
    """Force closure, wrench volume, and the gradient of their sum by each point, from the kernel."""
    table, wrenches = records.ContactTable(), records.Wrenches()
    table.point, table.normal = (wp.array(x.view(BATCH, 2, 4, 3).numpy(), dtype=wp.vec3d) for x in (point, normal))
    wrenches.closure = wp.zeros((BATCH, 2, 4), dtype=wp.vec3)
    terms = wp.zeros((len(ENERGY_TERMS) + 1, BATCH), dtype=float)
    weights = np.zeros(len(ENERGY_TERMS))
    weights[[Slot.force_closure, Slot.wrench_volume]] = 1
    arguments = [table, records.Weights(*weights), terms, wrenches]
    wp.launch(wrench_kernel(8), BATCH, arguments, device="cpu")
    terms = terms.numpy()
    return terms[Slot.force_closure], terms[Slot.wrench_volume], wrenches.closure.numpy().reshape(BATCH, 8, 3)


@pytest.mark.parametrize("height", [1.0, 1e-2, 1e-3])
def test_values_and_gradients_near_singularity(height):
    """In float32 the gradients are off by 2e-6, 4e-5 and 4e-4."""
    point, normal = flat_contacts(height)
    values = singular_values(grasp_matrix(point.requires_grad_(), normal))
    closure, volume = force_closure(values), wrench_volume(values)
    (closure + volume).sum().backward()
    assert 0.2 < float(values[:, -1].detach().median()) / (0.1 * height) < 5
    ours = launched(point.detach(), normal)
    np.testing.assert_allclose(ours[0], closure.detach(), rtol=1e-6)
    np.testing.assert_allclose(ours[1], volume.detach(), rtol=1e-6)
    truth = point.grad.numpy()
    off = np.linalg.norm((ours[2] - truth).reshape(BATCH, -1), axis=1) / np.linalg.norm(
        truth.reshape(BATCH, -1), axis=1
    )
    assert off.max() < 1e-6
