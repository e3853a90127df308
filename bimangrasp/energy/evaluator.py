"""Evaluates the energy of a batch and its gradient by autograd, and declares what the fused kernels do as well."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from bimangrasp.energy.config import EnergyConfig
from bimangrasp.energy.energies import Energies, energies
from bimangrasp.grasp import Grasps
from bimangrasp.hands.model import HandModel
from bimangrasp.objects.model import ObjectModel
from bimangrasp.sampler.mala import Evaluation


@runtime_checkable
class Evaluator(Protocol):
    """The energies of one batch; `rows` says which grasps of it are given.

    Attributes:
        is_recordable: whether a CUDA graph can record an evaluation.
    """

    is_recordable: bool

    def terms(self, grasps: Grasps, rows: slice) -> Energies:
        """Returns all terms of each grasp, without gradient."""
        ...

    def evaluation(
        self, pose: Float[Tensor, "batch hand dof"], candidate: Int[Tensor, "batch hand contact"], rows: slice
    ) -> Evaluation:
        """Returns the total of each grasp and its gradient by the pose."""
        ...


class PlainEvaluator:
    """PyTorch and its autograd: the oracle, and the path for machines without Warp. Its shapes depend on data."""

    is_recordable = False

    def __init__(self, hands: HandModel, obj: ObjectModel, object_scale: Tensor, config: EnergyConfig):
        self._hands, self._obj, self._scale, self._config = hands, obj, object_scale, config

    def terms(self, grasps: Grasps, rows: slice) -> Energies:
        """See `Evaluator`."""
        with torch.no_grad():
            return energies(self._hands, self._obj, self._scale[rows], grasps, self._config)

    def evaluation(self, pose: Tensor, candidate: Tensor, rows: slice) -> Evaluation:
        """See `Evaluator`."""
        pose = pose.detach().requires_grad_()
        grasps = Grasps.from_pose(pose, candidate)
        total = energies(self._hands, self._obj, self._scale[rows], grasps, self._config).total
        (gradient,) = torch.autograd.grad(total.sum(), pose)
        return Evaluation(total.detach(), gradient)
