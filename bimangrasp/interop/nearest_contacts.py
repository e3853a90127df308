"""Chooses contacts for grasps that come without: the candidates nearest to the object."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float, Int

from bimangrasp.hands.model import HandModel
from bimangrasp.objects.model import ObjectModel
from bimangrasp.poses import Poses

_ROWS = 1024
"""Grasps that are looked at together: a table of all links and candidates takes 60 KB for each."""


def nearest_contacts(
    hands: HandModel, obj: ObjectModel, poses: Poses, object_scale: Float[np.ndarray, " grasp"], count: int
) -> tuple[Int[np.ndarray, "grasp 2 contact"], Float[np.ndarray, "grasp 2 contact 3"]]:
    """Returns for each hand its `count` candidates nearest to the surface, no two on one link, and the normals there.

    Args:
        hands: both hands, on the CPU.
        obj: the object.
        poses: the grasps.
        object_scale: factor on the object's mesh.
        count: contacts of a hand, at most as many as links have candidates.
    """
    rows = [slice(first, first + _ROWS) for first in range(0, max(1, poses.count), _ROWS)]
    parts = [_nearest(hands, obj, poses.select(some), object_scale[some], count) for some in rows]
    candidate, normal = (np.concatenate(column) for column in zip(*parts, strict=True))
    return candidate, normal


def _nearest(
    hands: HandModel, obj: ObjectModel, poses: Poses, object_scale: np.ndarray, count: int
) -> tuple[np.ndarray, np.ndarray]:
    """Returns the same for grasps that are looked at together."""
    translation, rotation, joints = (torch.as_tensor(part).double() for part in poses)
    scale = torch.as_tensor(object_scale).double()
    every = torch.arange(hands.candidate_count).expand(poses.count, 2, -1)
    points = hands.contact_points(hands.frames_from_root(rotation, translation, joints), every)
    distance, normal = obj.signed_distance(points.flatten(1, 2), scale)
    away, normal = distance.abs().view(points.shape[:3]), normal.view(points.shape)
    links = torch.unique(hands.candidate_link)
    on_link = hands.candidate_link[None, :, None] == links[:, None]
    best = torch.where(on_link, away[:, :, None], torch.inf).min(dim=3)
    nearest = best.values.argsort(dim=2)[:, :, :count]
    candidate = best.indices.gather(2, nearest)
    return candidate.numpy(), normal.gather(2, candidate[..., None].expand(-1, -1, -1, 3)).numpy()
