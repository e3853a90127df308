"""Normalizes the position and size of a mesh by a convention, and guesses the unit of its file."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from bimangrasp.errors import InputError
from bimangrasp.objects.config import UNITS
from bimangrasp.objects.mesh_report import LARGEST_SIZE, SMALLEST_SIZE

DEXGRASPNET_RADIUS = 1 / 1.03
"""Distance of the farthest vertex from the middle of the bounding box (asset_process/normalize.py of DexGraspNet)."""

ALREADY = 0.01
"""A mesh this close to a convention, as a share of its largest extent, stays unchanged: DexGraspNet's own files are up
to 0.9 % off, since they were decomposed after they were normalized."""


class Normalization(NamedTuple):
    """x_prepared = factor * (x_file - center).

    Attributes:
        center: in the file's coordinates.
        factor: lengths of the prepared mesh over those of the file.
    """

    center: Float[np.ndarray, "3"]
    factor: float

    def __call__(self, vertices: Float[np.ndarray, "vertex 3"]) -> Float[np.ndarray, "vertex 3"]:
        """Returns vertices of the file where the prepared mesh has them; bitwise the same where nothing changes."""
        return self.factor * (vertices - self.center)

    @property
    def changes(self) -> bool:
        """Whether the mesh is moved or scaled."""
        return self.factor != 1 or bool(self.center.any())


def normalization(vertices: Float[np.ndarray, "vertex 3"], convention: str, unit: str) -> Normalization:
    """Returns the map that takes a mesh to a convention.

    `dexgraspnet` puts the middle of the bounding box at the origin and the farthest vertex 1/1.03 from it; `plain` puts
    it at the origin, too, and makes the largest extent along an axis 1; `keep` only converts the unit of the file to
    meters. Repeating a normalization changes nothing.

    Args:
        vertices: the vertices of the file that faces use.
        convention: one of `CONVENTIONS`.
        unit: unit of the file, one of `UNITS`; only for `keep`.
    """
    origin = np.zeros(3)
    if convention == "keep":
        return Normalization(origin, UNITS[unit])
    low, high = vertices.min(axis=0), vertices.max(axis=0)
    middle, extent = (low + high) / 2, float((high - low).max())
    if not extent:
        raise InputError(f"all {len(vertices)} vertices are at one place, {low.tolist()}; a solid body is wanted")
    radius = float(np.linalg.norm(vertices - middle, axis=1).max())
    factor = DEXGRASPNET_RADIUS / radius if convention == "dexgraspnet" else 1 / extent
    if abs(factor - 1) <= ALREADY and np.linalg.norm(middle) <= ALREADY * extent:
        return Normalization(origin, 1.0)
    return Normalization(middle, factor)


def fitting_units(extent: float) -> list[str]:
    """Returns the units in which an object of this largest extent has a size that two hands can hold."""
    return [name for name, length in UNITS.items() if SMALLEST_SIZE <= extent * length <= LARGEST_SIZE]
