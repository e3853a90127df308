"""What tests measure collision shapes by: the distances of all points to all shapes, none culled."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from bimangrasp.hands.collision_shapes import HandShapes, LinkFrames, _distance, _local


def penetration_depth_reference(
    shapes: HandShapes, links: LinkFrames, points: Float[Tensor, "batch point 3"]
) -> Float[Tensor, "batch hand"]:
    """Returns the value of `penetration_depth`, computed from all distances of all points, m."""
    return (-signed_distance(shapes, links, points)).clamp_min(0).sum(-1)


def signed_distance(
    shapes: HandShapes, links: LinkFrames, points: Float[Tensor, "batch point 3"]
) -> Float[Tensor, "batch hand point"]:
    """Returns the signed distance of each point to each hand, m, negative inside: the least over its shapes."""
    frames = shapes.frames(links)
    hands, count = shapes.radius.shape
    size = (len(points), hands, points.shape[1], count)
    index = torch.arange(np.prod(size), device=points.device)
    b, h, n, s = torch.unravel_index(index, size)
    return _distance(shapes, _local(frames, points, b, h, n, s), h, s).view(size).amin(-1)
