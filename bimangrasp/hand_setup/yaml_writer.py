"""Writes a hand's config as a commented YAML for people to read and edit."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping

from bimangrasp.hand_files.config import HandConfig

_PLAIN = re.compile(r"[A-Za-z_][A-Za-z0-9_.\-]*")
_WORDS = {"true", "false", "null", "yes", "no", "on", "off", "y", "n"}
"""Names that YAML would read as booleans or null."""


def hand_yaml(config: HandConfig, head: str) -> str:
    """Returns the commented YAML of a hand; the lines of `head` become its first comments."""
    rule = config.candidates
    return "\n".join(
        [
            *(f"# {line}".rstrip() for line in head.splitlines()),
            "# Lengths in meters, angles in radians. The frame of the hand is that of its root link in the file.",
            f"name: {_text(config.name)}",
            f"format: {config.format}",
            f"mjcf: {_text(config.mjcf)}  # MJCF or URDF; change the path when you move the file",
            f"root: {_text(config.root)}  # only for hand=release",
            f"side: {_text(config.side)}  # which hand the file has",
            f"left_mjcf: {_text(config.left_mjcf)}  # the left hand's own file; empty: the mirror image",
            "",
            f"palm_normal: {_row(config.palm_normal)}  # out of the palm",
            f"finger_direction: {_row(config.finger_direction)}  # along the stretched fingers",
            "",
            "# Mean of the first joint values, rad.",
            "joint_mean:",
            *(f"  {_text(name)}: {value!r}" for name, value in config.joint_mean.items()),
            "",
            "# Contact candidates: so many on each of these links, within the spread about its palmar direction.",
            "candidates:",
            f"  per_link: {rule.per_link}",
            f"  spread_rad: {rule.spread_rad!r}",
            "  palmar:  # out of the palmar side, in the link's frame",
            *(f"    {_text(name)}: {_row(direction)}" for name, direction in rule.palmar.items()),
            "",
            "# Penetration keypoints, m in the link's frame: two nearer than energy.keypoint_distance cost energy.",
            *_keypoints(config.keypoints),
            "",
            f"surface_points: {config.surface_points}  # points on each hand that stand for it in the inter-hand term",
            "",
        ]
    )


def _keypoints(keypoints: Mapping[str, list[list[float]]]) -> list[str]:
    if not keypoints:
        return ["keypoints: {}"]
    rows = [f"  {_text(name)}: [{', '.join(map(_row, points))}]" for name, points in keypoints.items()]
    return ["keypoints:", *rows]


def _row(values: list[float]) -> str:
    return f"[{', '.join(repr(float(value)) for value in values)}]"


def _text(name: str) -> str:
    """Returns a YAML scalar: quoted where YAML could read the plain text as another type."""
    plain = _PLAIN.fullmatch(name) and name.lower() not in _WORDS
    return name if plain else json.dumps(name)
