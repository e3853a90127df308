"""One object: its mesh at given object scales, surface points, signed distance and normal."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class ObjectConfig:
    """How a mesh becomes an object to grasp.

    Attributes:
        scales: sizes by which the unit mesh is multiplied; each grasp draws one of them.
        surface_points: how many points on the surface stand for the object in the penetration term.
        surface_samples_per_point: area-uniform samples per point from which the farthest points are chosen.
    """

    scales: list[float]
    surface_points: int
    surface_samples_per_point: int
