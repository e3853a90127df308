"""Holds what a gallery shows: grasps with all that is known of them, whatever files they come from."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from bimangrasp.hands.description import HandDescription
from bimangrasp.poses import Poses
from bimangrasp.visualization.renderer import LinkPoses, link_poses

STAGES = ("start", "pre-grasp", "grasp", "squeeze")
"""Poses of a grasp, in the order in which the hands come by."""
GRASP = STAGES.index("grasp")
NOT_TESTED = "not tested"
"""The verdict on a grasp that no simulator has seen."""


class Shape(NamedTuple):
    """An object.

    Attributes:
        code: its name.
        vertices, faces: its mesh at size 1.
    """

    code: str
    vertices: np.ndarray
    faces: np.ndarray


class Thumbnail(NamedTuple):
    """A small picture of a grasp.

    Attributes:
        image: a WebP file.
        azimuth, elevation: degrees, from where it was drawn.
    """

    image: bytes
    azimuth: float
    elevation: float


@dataclass(frozen=True)
class ShownGrasp:
    """A grasp with all that is known of it.

    Attributes:
        shape: which of the gallery's shapes it holds.
        source, number: file and row in it.
        origin: seed, round and row in the round.
        scale: of the object.
        energies: term -> value, unweighted but for `total`.
        labels: "accepted", or why it does not count; several where several thresholds are missed.
        verdict: what a simulator says of it, or `NOT_TESTED`.
        physics: what else the simulator says, name -> text.
        stages: the poses of `STAGES`, (stage, ...); NaN where one is not known.
        contact_point, contact_normal: (hand, contact, 3), of the grasp; m, outward from the object.
    """

    shape: int
    source: str
    number: int
    origin: dict[str, int]
    scale: float
    energies: dict[str, float]
    labels: tuple[str, ...]
    verdict: str
    physics: dict[str, str]
    stages: Poses
    contact_point: np.ndarray
    contact_normal: np.ndarray

    @property
    def has_pose(self) -> bool:
        """Whether it can be drawn: the pose of the grasp is known, and so is its object's size."""
        finite = (np.isfinite(part[GRASP]).all() for part in self.stages)
        return all(finite) and bool(np.isfinite(self.scale))


@dataclass(frozen=True)
class Gallery:
    """Grasps to show.

    Attributes:
        title: of what.
        notes: what else a reader of the page must know.
        hands: the left and the right one.
        shapes: the objects.
        grasps: in the order in which they are shown.
        thumbnails: of each of them; None where the browser is to draw it.
    """

    title: str
    notes: tuple[str, ...]
    hands: tuple[HandDescription, HandDescription]
    shapes: tuple[Shape, ...]
    grasps: tuple[ShownGrasp, ...]
    thumbnails: tuple[Thumbnail | None, ...] = field(default=())

    def link_poses(self, grasps: list[ShownGrasp]) -> list[LinkPoses]:
        """Returns the poses of all links at the grasp, for a renderer; all grasps must have a pose."""
        if not grasps:
            return []
        # from (grasp, part, stage) to the parts of all grasps at one stage
        at_grasp = [[part[GRASP] for part in grasp.stages] for grasp in grasps]
        poses = Poses(*(np.stack(parts) for parts in zip(*at_grasp, strict=True)))
        contacts = np.stack([grasp.contact_point.reshape(-1, 3) for grasp in grasps])
        return link_poses(self.hands, poses, contacts)
