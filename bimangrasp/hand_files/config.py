"""Holds what the YAML of a hand says: where its file is, and what the file cannot tell."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

from bimangrasp.builtin import ASSET_ROOT
from bimangrasp.errors import InputError
from bimangrasp.ranges import DIRECTION_OR_NONE, TEXT, Checked, Rule, among, at_least, between

SIDE = Rule(lambda value: value in ("right", "left", ""), "right or left")
"""Under `mode=hand` an empty text asks for a proposal."""


@dataclass
class CandidateRule(Checked):
    """Where contact candidates lie on a link's capsules.

    Attributes:
        per_link: how many candidates each listed link gets.
        spread_rad: half the opening angle around the palmar direction that the candidates cover.
        palmar: link name -> unit vector in the link's frame, out of the palmar side; under `mode=hand` an empty list
            asks for a proposal.
    """

    per_link: Annotated[int, at_least(0)]
    spread_rad: Annotated[float, between(0, math.pi / 2)]
    palmar: dict[str, list[float]]


@dataclass
class CouplingRule(Checked):
    """How a joint, or a tendon, is coupled.

    Attributes:
        follows: the joint or tendon of which the value is a polynomial; empty for a constant.
        polynomial: up to five coefficients in ascending degree, rad: [offset, factor, ...]; by default [0, 1].
        tendon: joint -> coefficient, for a tendon by which these joints share one value, their weighted sum.
        coupled: false for a coupling of the file that does not count; its joints move by themselves.
    """

    follows: str = ""
    polynomial: list[float] = field(default_factory=list)
    tendon: dict[str, float] = field(default_factory=dict)
    coupled: bool = True


@dataclass
class HandConfig(Checked):
    """A pair of hands.

    Attributes:
        name: written into every file.
        format: "mjcf" (a file of one hand; the other one is its mirror, or has a file of its own) or "bimangrasp" (a
            `mjcf/` folder of the BimanGrasp release, files as they are).
        mjcf: the hand's MJCF or URDF; a relative path is looked up in the package's assets, then in the current folder.
        root: the folder of the release; only for format "bimangrasp".
        palm_normal: unit vector in the hand's frame, out of the palm.
        finger_direction: unit vector in the hand's frame, along the stretched fingers.
        joint_mean: joint name -> mean of its first value in rad.
        candidates: the rule for contact candidates; ignored for format "bimangrasp", which brings its own.
        keypoints: link name -> penetration keypoints in m, link coordinates; ignored for format "bimangrasp".
        surface_points: how many points on each hand's collision geometry stand for it in the inter-hand term.
        side: which hand the file has, "right" or "left".
        left_mjcf: the left hand's own file, where `mjcf` is the right one; empty for the mirror image.
        couplings: name of a joint or tendon -> how it is coupled, beside or in place of what the file says.
    """

    name: Annotated[str, TEXT]
    format: Annotated[str, among("mjcf", "bimangrasp")]
    mjcf: str
    root: str
    palm_normal: Annotated[list[float], DIRECTION_OR_NONE]
    finger_direction: Annotated[list[float], DIRECTION_OR_NONE]
    joint_mean: dict[str, float]
    candidates: CandidateRule
    keypoints: dict[str, list[list[float]]]
    surface_points: Annotated[int, at_least(1)]
    side: Annotated[str, SIDE] = "right"
    left_mjcf: str = ""
    couplings: dict[str, CouplingRule] = field(default_factory=dict)


def find_mjcf(mjcf: str) -> Path:
    """Returns the file that `hand.mjcf` means: an asset of the package, else a path from the current folder.

    Raises:
        InputError: there is no such file.
    """
    candidates = [ASSET_ROOT / mjcf, Path(mjcf).expanduser()] if mjcf else []
    for path in candidates:
        if path.is_file():
            return path
    where = f" (looked for {' and '.join(str(path.absolute()) for path in candidates)})" if candidates else ""
    raise InputError(f"hand.mjcf={mjcf!r} is no file{where}; give the path of the hand's MJCF or URDF.")
