"""Galleries without a run: a bowl and a box between both palms, for the tests of pages and pictures."""

from __future__ import annotations

import base64

import numpy as np
import torch
from scene import shadow_hands

from bimangrasp import builtin
from bimangrasp.objects.model import read_mesh
from bimangrasp.poses import Poses
from bimangrasp.visualization.page import NOT_TESTED, Gallery, Shape, ShownGrasp

ROTATION = np.array([[[0, 1, 0], [-1, 0, 0], [0, 0, 1]]] * 2, float)  # the back of the right hand along +x
GAPS = (0.3, 0.13, 0.11, 0.11)
"""Of the hands' roots from the object's middle at each stage, m."""


def toy_gallery() -> Gallery:
    """Five grasps: bowl, bowl with all stages, box, one that is rejected, and one that failed."""
    shapes = tuple(_shape(code) for code in ("bowl", "box"))
    grasps = (
        _shown_grasp(0, 0, {"total": 2.0, "penetration": 1e-4}),
        _shown_grasp(0, 1, {"total": 1.0, "penetration": 5e-5}, stages=(0, 1, 2, 3), verdict="holds", bend=0.2),
        _shown_grasp(1, 2, {"total": 3.0, "penetration": 0.0}),
        _shown_grasp(1, 3, {"total": 9.0, "penetration": 3e-2}, labels=("energy/penetration",)),
        _shown_grasp(1, 4, {"total": float("nan"), "penetration": 0.0}, labels=("not_finite",), stages=()),
    )
    return Gallery("toys", ("made for tests",), shadow_hands().descriptions, shapes, grasps)


def _shape(code: str) -> Shape:
    mesh = read_mesh(str(builtin.OBJECT_ROOT / f"{code}.obj"))
    return Shape(code, mesh.vertices, mesh.faces)


def _shown_grasp(
    shape: int,
    number: int,
    energies: dict[str, float],
    labels: tuple[str, ...] = ("accepted",),
    stages: tuple[int, ...] = (0, 2),
    verdict: str = NOT_TESTED,
    bend: float = 0.0,
) -> ShownGrasp:
    """A grasp whose joints bend a little further from stage to stage; others than `stages` are not known."""
    hands = shadow_hands()
    translation = np.array([[[-gap, 0.0, -0.1], [gap, 0.0, -0.1]] for gap in GAPS])
    joints = np.stack([hands.joint_mean.numpy() * (1 + bend * stage) for stage in range(len(GAPS))])
    poses = Poses(translation, np.stack([ROTATION] * len(GAPS)), joints)
    for part in poses:
        part[[stage for stage in range(len(GAPS)) if stage not in stages]] = np.nan
    root = (torch.as_tensor(part[2:3]) for part in (poses.rotation, poses.translation, poses.joints))
    candidate = torch.arange(0, 40, 10).expand(1, 2, 4)
    point = hands.contact_points(hands.frames_from_root(*root), candidate)[0].numpy()
    normal = np.zeros_like(point)
    normal[0, :, 0], normal[1, :, 0] = -1, 1
    origin = {"seed": 100 + number, "round": 0, "row": number}
    physics = {"bears load": "left and right"} if verdict != NOT_TESTED else {}
    known = (origin, 0.16, energies, labels, verdict, physics, poses)
    return ShownGrasp(shape, "final/toy.h5", number, *known, point, normal)


def unpacked(packed: dict) -> np.ndarray:
    """Returns the array that `page.packed` packed."""
    return np.frombuffer(base64.b64decode(packed["data"]), packed["dtype"]).reshape(packed["shape"])
