"""Computes how far hands reach along a direction, without the poses of their links."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float
from scipy.spatial import ConvexHull, QhullError
from torch import Tensor

from bimangrasp.geometry.rotation import cross_matrix
from bimangrasp.hands.description import HandDescription


class HandReach:
    """The surface points of both hands of which the farthest along any direction is one, by link.

    A direction is taken down the tree instead of the links' frames up to it: three numbers a link and not twelve.
    """

    def __init__(self, hands: tuple[HandDescription, HandDescription], surface: Float[Tensor, "hand point weight"]):
        """Takes hands of one tree and the weights of their surface points (`HandModel.surface`)."""
        self._parent = hands[0].parent.tolist()
        self._joint = {link: joint for joint, link in enumerate(hands[0].joint_link.tolist())}
        tables = [torch.stack([self._columns(hand, link) for hand in hands]) for link in range(len(self._parent))]
        self._down = [table.to(surface.device, surface.dtype) for table in tables]
        self._points = [_by_link(weights, len(self._parent)) for weights in surface]

    def __call__(
        self,
        rotation: Float[Tensor, "batch hand 3 3"],
        joints: Float[Tensor, "batch hand joint"],
        direction: Float[Tensor, "batch hand 3"],
    ) -> Float[Tensor, "batch hand"]:
        """Returns the largest way from each hand's root to a surface point of it along a direction, m.

        Args:
            rotation: of the roots.
            joints: rad.
            direction: unit vectors, in the frame in which the rotations are given.
        """
        along = [(direction[:, :, None] @ rotation)[:, :, 0].transpose(0, 1)]  # of the links, in their coordinates
        way = [torch.zeros_like(along[0][..., 0])]  # from the root to the links
        angle = joints.permute(2, 1, 0)[..., None].contiguous()
        sine, rest = angle.sin(), 1 - angle.cos()
        for link, parent in enumerate(self._parent[1:], start=1):
            parts = along[parent] @ self._down[link]
            way.append(way[parent] + parts[..., 0])
            turned, joint = parts[..., 1:4], self._joint.get(link)
            if joint is not None:
                turned = turned + sine[joint] * parts[..., 4:7] + rest[joint] * parts[..., 7:]
            along.append(turned)
        hands = []
        for hand, points in enumerate(self._points):
            links = [(along[link][hand] @ own.T).amax(dim=1) + way[link][hand] for link, own in points.items()]
            hands.append(torch.stack(links).amax(dim=0))
        return torch.stack(hands, dim=1)

    def _columns(self, hand: HandDescription, link: int) -> Float[Tensor, "3 column"]:
        """Returns what a direction in the parent's coordinates is multiplied by: offset, link, and turn about the axis.

        By Rodrigues the rows of a direction turn by sin(q) K + (1 - cos(q)) K^2, with K of the joint's axis.
        """
        fixed, joint = torch.as_tensor(hand.T_parent_link[link], dtype=torch.float64), self._joint.get(link)
        columns = [fixed[:3, 3:], fixed[:3, :3]]
        if joint is not None:
            turn = cross_matrix(torch.as_tensor(hand.joint_axis[joint], dtype=torch.float64))
            columns += [fixed[:3, :3] @ turn, fixed[:3, :3] @ turn @ turn]
        return torch.cat(columns, dim=1)


def _by_link(weights: Float[Tensor, "point weight"], links: int) -> dict[int, Float[Tensor, "_ 3"]]:
    """Returns link -> the corners of the convex hull of its surface points, in its coordinates."""
    by_link = weights.view(len(weights), links, 4)
    link = by_link[:, :, 3].argmax(dim=1)
    points = {number: by_link[link == number, number, :3] for number in link.unique().tolist()}
    return {number: own[_corners(own.cpu().numpy())] for number, own in points.items()}


def _corners(points: np.ndarray) -> np.ndarray:
    """Returns the indices of the corners of the points' convex hull; all where it is flat."""
    try:
        return ConvexHull(points).vertices
    except QhullError:
        return np.arange(len(points))
