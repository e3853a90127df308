"""Checks the sign of an object's signed distance at points whose side the winding number decides."""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from bimangrasp.geometry.farthest_point_sampling import key_generator
from bimangrasp.geometry.triangle_mesh import winding_number
from bimangrasp.objects.config import ObjectConfig
from bimangrasp.objects.model import Mesh, ObjectModel

AT_FACES, IN_BOX, FAR = 300, 300, 60
"""Number of points of each kind; at faces there are as many on either side."""

STEP = 1e-3
"""Distance of points beside faces to their face, share of the mesh's diagonal."""

DECIDED = 0.25
"""Points are ignored whose winding number is farther than this from an integer: the mesh leaves their side open."""

_ONLY_DISTANCE = ObjectConfig([1.0], None, 1, 1, "keep", 8)


class SignCheck(NamedTuple):
    """Numbers of points that were tried, and of points with the wrong sign.

    Attributes:
        beside, beside_wrong: just inside and just outside of faces.
        box, box_wrong: in the bounding box.
        far, far_wrong: far outside.
    """

    beside: int
    beside_wrong: int
    box: int
    box_wrong: int
    far: int
    far_wrong: int

    @property
    def tried(self) -> int:
        """Number of points that were tried."""
        return self.beside + self.box + self.far

    @property
    def wrong(self) -> int:
        """Number of points with the wrong sign."""
        return self.beside_wrong + self.box_wrong + self.far_wrong


def check_sign(mesh: Mesh) -> SignCheck:
    """Returns how often `ObjectModel.signed_distance` has the wrong sign, at points that are keyed by the mesh."""
    generator = key_generator(mesh.sha256, "sign")
    corners = torch.as_tensor(mesh.vertices[mesh.faces])
    groups = (_beside(corners, generator), _in_box(corners, generator), _far(corners, generator))
    obj = ObjectModel(mesh, _ONLY_DISTANCE)
    counts: list[int] = []
    for points in groups:
        is_decided, inside = _side(points, corners)
        distance, _ = obj.signed_distance(points[None].float(), torch.ones(1))
        counts += [int(is_decided.sum()), int(((distance[0] < 0) != inside)[is_decided].sum())]
    return SignCheck(*counts)


def _side(
    points: Float[Tensor, "point 3"], corners: Float[Tensor, "face 3 3"]
) -> tuple[Bool[Tensor, " point"], Bool[Tensor, " point"]]:
    """Returns whether the mesh decides the side of points, and whether they are inside."""
    number = winding_number(points, corners)
    whole = number.round()
    return (number - whole).abs() <= DECIDED, whole != 0


def _beside(corners: Float[Tensor, "face 3 3"], generator: torch.Generator) -> Float[Tensor, "point 3"]:
    """Returns points on both sides of faces, chosen by area."""
    normal = torch.linalg.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0], dim=-1)
    face = torch.multinomial(torch.linalg.vector_norm(normal, dim=-1), AT_FACES, replacement=True, generator=generator)
    draws = torch.rand((AT_FACES, 3), generator=generator, dtype=corners.dtype)
    weights = draws.log() / draws.log().sum(dim=1, keepdim=True)  # uniform on the triangle
    on_face = (weights[..., None] * corners[face]).sum(dim=1)
    diagonal = torch.linalg.vector_norm(corners.amax(dim=(0, 1)) - corners.amin(dim=(0, 1)))
    step = STEP * diagonal * torch.nn.functional.normalize(normal[face], dim=-1)
    return torch.cat((on_face + step, on_face - step))


def _in_box(corners: Float[Tensor, "face 3 3"], generator: torch.Generator) -> Float[Tensor, "point 3"]:
    """Returns points anywhere in the bounding box."""
    low, high = corners.amin(dim=(0, 1)), corners.amax(dim=(0, 1))
    return low + (high - low) * torch.rand((IN_BOX, 3), generator=generator, dtype=corners.dtype)


def _far(corners: Float[Tensor, "face 3 3"], generator: torch.Generator) -> Float[Tensor, "point 3"]:
    """Returns points a diagonal away from the middle, outside for certain."""
    low, high = corners.amin(dim=(0, 1)), corners.amax(dim=(0, 1))
    away = torch.nn.functional.normalize(torch.randn((FAR, 3), generator=generator, dtype=corners.dtype), dim=-1)
    return (low + high) / 2 + away * torch.linalg.vector_norm(high - low)
