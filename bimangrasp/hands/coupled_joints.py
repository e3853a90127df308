"""Computes all joints of both hands from their coordinates, in batches, with slopes: see `couplings`."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from bimangrasp.hands.couplings import DEGREES
from bimangrasp.hands.description import HandDescription


class CoupledJoints:
    """The couplings of both hands, which have the same nodes in the same order. In float64 inside.

    Attributes:
        tables: of the left and the right hand.
        knots, polynomial: (hand, node, piece - 1), (hand, node, piece, 5) those of the tables.
    """

    def __init__(self, hands: tuple[HandDescription, HandDescription], device: torch.device | str):
        """Takes two hands with couplings to a device."""
        self.tables = tuple(hand.coordinates for hand in hands)
        first, joints = self.tables[0], len(hands[0].joint_names)
        most = max(table.polynomial.shape[1] for table in self.tables)

        def table(columns: list[np.ndarray]) -> Tensor:
            return torch.as_tensor(np.stack(columns), device=device)

        self.knots = table([_widened(t.knots, most - 1, np.inf) for t in self.tables])
        self.polynomial = table([_widened(t.polynomial, most, 0.0) for t in self.tables])
        self._weights = table([t.weights for t in self.tables])
        self._hand = torch.arange(2, device=device)[:, None]
        self._joints = joints
        self._levels = []  # nodes that are computed together, what they are computed from, and whether those are nodes
        depth = np.zeros(len(first.parent), np.int64)
        for node in first.order:
            depth[node] = 0 if first.parent[node] < 0 else depth[first.parent[node]] + 1
        for level in range(depth.max() + 1):
            nodes = np.flatnonzero(depth == level)
            source = first.parent[nodes] if level else first.coordinate[nodes]
            self._levels.append(tuple(torch.as_tensor(part, device=device) for part in (nodes, source)))

    def joints_at(self, coordinates: Float[Tensor, "batch 2 coordinate"]) -> Float[Tensor, "batch 2 joint"]:
        """Returns the values of all joints, rad, in the precision of the coordinates; with gradient."""
        given = coordinates.double()
        values = given.new_zeros((*given.shape[:2], self.knots.shape[1]))
        for level, (nodes, source) in enumerate(self._levels):
            own = (values if level else given)[:, :, source]
            values = values.index_copy(2, nodes, self._horner(own, self._pieces(own, nodes)))
        return values[:, :, : self._joints].to(coordinates.dtype)

    def jacobian(self, coordinates: Float[Tensor, "batch 2 coordinate"]) -> Float[Tensor, "batch 2 joint coordinate"]:
        """Returns how each joint moves with each coordinate."""
        given = coordinates.detach().requires_grad_()
        with torch.enable_grad():  # each joint depends on one coordinate, so one gradient has the slopes of many joints
            joints = self.joints_at(given)
            slopes = [
                torch.autograd.grad(joints[:, :, j].sum(), given, retain_graph=True)[0] for j in range(self._joints)
            ]
        return torch.stack(slopes, dim=2)

    def coordinates_of(self, joints: Float[Tensor, "batch 2 joint"]) -> Float[Tensor, "batch 2 coordinate"]:
        """Returns the coordinates of joint values: leaders as they are, and the values of the tendons."""
        return (self._weights @ joints.double()[..., None]).squeeze(-1).to(joints.dtype)

    def _pieces(self, given: Float[Tensor, "batch 2 node"], nodes: Tensor) -> Float[Tensor, "batch 2 node degree"]:
        """Returns the coefficients that hold where the nodes are."""
        piece = (given[..., None] > self.knots[:, nodes]).sum(dim=-1)
        return self.polynomial[self._hand, nodes, piece]

    def _horner(
        self, given: Float[Tensor, "batch 2 node"], coefficients: Float[Tensor, "batch 2 node degree"]
    ) -> Float[Tensor, "batch 2 node"]:
        """Returns the values of polynomials."""
        value = coefficients[..., DEGREES - 1]
        for degree in reversed(range(DEGREES - 1)):
            value = value * given + coefficients[..., degree]
        return value


def _widened(table: np.ndarray, width: int, filler: float) -> np.ndarray:
    """Returns a table whose second axis is filled up to a width."""
    missing = [(0, 0), (0, width - table.shape[1])] + [(0, 0)] * (table.ndim - 2)
    return np.pad(table, missing, constant_values=filler)
