"""Hands, objects and random grasps in float64 for the tests of the optimizer; the built-in ones, few points."""

from __future__ import annotations

from functools import cache

import numpy as np
import quick_conf
import torch
import trimesh

from bimangrasp import builtin
from bimangrasp.energy.config import EnergyConfig
from bimangrasp.grasp import Grasps
from bimangrasp.hand_files.loading import load_hands
from bimangrasp.hands.model import HandModel
from bimangrasp.objects.config import ObjectConfig
from bimangrasp.objects.model import Mesh, ObjectModel, read_mesh

POINTS = ObjectConfig(
    scales=[0.15], sizes=None, surface_points=400, surface_samples_per_point=10, interior_faces="keep", grid_cells=24
)


@cache
def built_in_hands(name: str, dtype: torch.dtype = torch.float64) -> HandModel:
    """Hands that the package brings, with 200 surface points."""
    return HandModel(*load_hands(quick_conf.load(f"hand={name}").hand), surface_points=200, dtype=dtype)


def shadow_hands(dtype: torch.dtype = torch.float64) -> HandModel:
    """The Shadow hands with 200 surface points."""
    return built_in_hands("shadow", dtype)


@cache
def built_in(code: str, dtype: torch.dtype = torch.float64) -> ObjectModel:
    """A built-in object with 400 surface points."""
    return ObjectModel(read_mesh(str(builtin.OBJECT_ROOT / f"{code}.obj")), POINTS, dtype=dtype)


def solid(mesh: trimesh.Trimesh, dtype: torch.dtype = torch.float64) -> ObjectModel:
    """An object from a mesh of trimesh."""
    return ObjectModel(Mesh(mesh.vertices, mesh.faces, "normal", "solid"), POINTS, dtype=dtype)


def energy_config(inter_hand: str = "right_points") -> EnergyConfig:
    """The released weights."""
    config = quick_conf.load().energy
    config.inter_hand = inter_hand
    return config


def grasps_near(hands: HandModel, count: int, seed: int, distance: float = 0.11) -> Grasps:
    """Random grasps whose hands lie around the origin, close enough to touch an object of 0.15 m and each other."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    direction = torch.nn.functional.normalize(normal(count, 1, 3), dim=-1)
    direction = direction * torch.tensor([1.0, -1.0], dtype=torch.float64)[:, None]
    reach = hands.joint_upper - hands.joint_lower
    joints = hands.joint_mean + 0.3 * reach * normal(count, 2, hands.joint_count)
    candidate = torch.randint(hands.candidate_count, (count, 2, 4), generator=generator)
    grasps = Grasps(distance * direction + 0.01 * normal(count, 2, 3), normal(count, 2, 6), joints, candidate)
    return Grasps(*(t.to(hands.dtype) if t.is_floating_point() else t for t in vars(grasps).values()))


def random_rotation(seed: int) -> torch.Tensor:
    """A random proper rotation, float64."""
    matrix = np.linalg.qr(np.random.default_rng(seed).normal(size=(3, 3)))[0]
    return torch.as_tensor(matrix * np.sign(np.linalg.det(matrix)))


def slope(function, at: torch.Tensor, direction: torch.Tensor, step: float = 1e-6) -> torch.Tensor:
    """Central difference of a function of a (batch, ...) tensor along a direction, one value a sample."""
    return (function(at + step * direction) - function(at - step * direction)) / (2 * step)
