"""Holds a batch of bimanual grasps as an immutable value. Hand axis 0 = left, 1 = right."""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch
from jaxtyping import Float, Int
from torch import Tensor

LEFT, RIGHT = 0, 1


@dataclass(frozen=True)
class Grasps:
    """A batch of grasps: both hands' poses and contact choices.

    Attributes:
        translation: origin of the hand's root link in the object's frame, m.
        rotation: the two vectors (a, b) of a 6D rotation, hand frame to object frame; not of unit length in general.
        joints: joint values, rad.
        candidate: indices of the chosen contact candidates.
    """

    translation: Float[Tensor, "batch hand 3"]
    rotation: Float[Tensor, "batch hand 6"]
    joints: Float[Tensor, "batch hand joint"]
    candidate: Int[Tensor, "batch hand contact"]

    def __len__(self) -> int:
        return self.translation.shape[0]

    @property
    def pose(self) -> Float[Tensor, "batch hand dof"]:
        """All coordinates of a hand in one row: translation, rotation, joints."""
        return torch.cat((self.translation, self.rotation, self.joints), dim=-1)

    @classmethod
    def from_pose(cls, pose: Float[Tensor, "batch hand dof"], candidate: Int[Tensor, "batch hand contact"]) -> Grasps:
        """Returns the grasps whose `pose` is the given one (views, no copy)."""
        return cls(pose[..., :3], pose[..., 3:9], pose[..., 9:], candidate)

    def select(self, rows: Int[Tensor, " row"] | slice) -> Grasps:
        """Returns the grasps of these rows."""
        return Grasps(*(getattr(self, field.name)[rows] for field in fields(self)))

    def to(self, device: torch.device | str) -> Grasps:
        """Returns the grasps on another device."""
        return Grasps(*(getattr(self, field.name).to(device) for field in fields(self)))
