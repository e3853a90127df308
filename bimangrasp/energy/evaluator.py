"""What a batch of grasps costs, and which way it goes down from there: by autograd, or by the fused kernels."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from bimangrasp.energy.backends import WARP, chosen_path
from bimangrasp.energy.energies import Energies, EnergyConfig, energies
from bimangrasp.grasp import Grasps
from bimangrasp.hands.model import HandModel
from bimangrasp.mala import Evaluation
from bimangrasp.objects.model import ObjectModel


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


def evaluator(
    kernels: str,
    hands: HandModel,
    obj: ObjectModel,
    object_scale: Float[Tensor, " batch"],
    config: EnergyConfig,
    tile: int,
    contacts: int,
) -> Evaluator:
    """Returns the evaluator of a batch on the kernel path of that name.

    Args:
        kernels: "auto" or a path of `kernel_paths`.
        hands: both hands.
        obj: the object, on the same device.
        object_scale: its size for each grasp of the batch.
        config: weights and constants.
        tile: the most grasps that will be asked for at once.
        contacts: of a hand.
    """
    if chosen_path(kernels) == WARP:
        from bimangrasp.energy.fused.evaluator import FusedEvaluator  # an extra of the installation, and slow to load

        return FusedEvaluator(hands, obj, object_scale, config, tile, contacts)
    return PlainEvaluator(hands, obj, object_scale, config)


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
