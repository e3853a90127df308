"""First grasps: both hands around the inflated convex hull of the object, opposite to each other."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class InitializationConfig:
    """Where the hands start.

    Attributes:
        hull_inflation: every hull vertex moves outward from the origin by this much, m.
        distance_min, distance_max: range of the hand's distance to its point on the inflated hull, m.
        cone_rad: the approach direction deviates from the hull's normal by up to this angle.
        tilt_rad: the hand is turned back by this angle about its knuckle axis.
        joint_spread: standard deviation of the joints as a share of their range.
        hull_samples_per_grasp: area-uniform samples per grasp from which the farthest points are chosen.
    """

    hull_inflation: float
    distance_min: float
    distance_max: float
    cone_rad: float
    tilt_rad: float
    joint_spread: float
    hull_samples_per_grasp: int
