"""`mode=hand`: looks at a hand's file, asks what it cannot say, writes the hand's YAML and draws it."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from bimangrasp.builtin import ASSET_ROOT
from bimangrasp.energy.energies import keypoint_penetration
from bimangrasp.errors import InputError
from bimangrasp.hand_files.config import HandConfig
from bimangrasp.hand_files.loading import load_hands
from bimangrasp.hand_files.read_hand import find_mjcf
from bimangrasp.hand_setup.inspection import (
    Guess,
    Survey,
    guess_finger_direction,
    guess_palm_normal,
    guess_side,
    survey_hand,
)
from bimangrasp.hand_setup.picture import Panel, draw, is_ours, panels_of, panels_of_frame, png
from bimangrasp.hand_setup.proposal import propose
from bimangrasp.hand_setup.yaml_writer import hand_yaml
from bimangrasp.hands.description import HandDescription
from bimangrasp.hands.tree import frames_at, points_of_links
from scale.modes.hand_report import Asked, HandReport
from scale.settings.schema import Config
from scale.store import output_paths

GROUP = "hand"
"""Name of the folder in which Hydra looks for hands."""

OWN = "own"
"""Name of the preset of which nothing is known but the file."""

SHIPPED = ("allegro", OWN, "release", "shadow")
"""Names of the package's own YAMLs, which Hydra would read in place of the user's."""

PICTURE = 2000, 640
"""Width and height, pixels."""

PERPENDICULAR_RAD = 0.35
"""Finger direction and palm normal may be off a right angle by this, 20 degrees: it is then made one."""

OPPOSITE = 0.5
"""A palm normal whose cosine with the guessed one is below this is worth a second look."""


class Target(NamedTuple):
    """What is written: the hand's name, its YAML (None for a shipped hand without `out`) and its picture."""

    name: str
    yaml: Path | None
    picture: Path


def check_hand(config: Config) -> HandReport:
    """Returns what was found in the file of `hand`, what it still asks for, and what was written.

    Raises:
        InputError: the file cannot be a hand, what was given contradicts it, or the YAML is there already.
    """
    hand, target = config.hand, _target(config)
    if target.picture.exists() and not is_ours(target.picture):
        raise output_paths.taken(target.picture, "picture of mode=hand")
    survey = survey_hand(hand.mjcf)
    asked = _asked(survey, hand)
    if asked:
        shown = _draw(target.picture, panels_of_frame(survey.hand), config.energy.keypoint_distance)
        return HandReport(survey, hand, asked, None, shown, [], config.out)
    files = {key: _absolute(getattr(hand, key)) for key in ("mjcf", "left_mjcf")}
    given = replace(hand, name=target.name, **files, **_directions(hand))
    warnings = _contradictions(survey, given)
    complete = propose(survey, given, config.energy.keypoint_distance)
    left, right = load_hands(complete)
    warnings += _cramped((left, right), config.energy.keypoint_distance)
    if target.yaml:
        output_paths.write(target.yaml, hand_yaml(complete, _head(survey)).encode())
    shown = _draw(target.picture, panels_of(left, right), config.energy.keypoint_distance)
    return HandReport(survey, complete, [], target.yaml, shown, warnings, config.out, (left, right))


def _target(config: Config) -> Target:
    """Returns where things go; `hand/` is the folder in which `--config-dir` looks for hands."""
    hand = config.hand
    if hand.format != "mjcf":
        raise InputError(f"mode=hand looks at MJCF and URDF files; hand={hand.name} has the format {hand.format!r}")
    if not hand.mjcf:
        raise InputError("mode=hand wants the file of a hand: hand.mjcf=<MJCF or URDF>, or a shipped one: hand=shadow")
    out = Path(config.out).expanduser() if config.out else None
    if out and out.suffix in (".yml", ".xml", ".png"):
        raise InputError(f"out={config.out!r}: wanted a .yaml, which is what Hydra reads, or a folder for one")
    given = out.stem if out and out.suffix == ".yaml" else hand.name if hand.name != OWN else Path(hand.mjcf).stem
    name = re.sub(r"[^A-Za-z0-9_-]+", "_", given).strip("_") or OWN
    if out is None and hand.name != OWN and hand.candidates.palmar:
        return Target(name, None, Path(f"{name}.png"))
    if name in SHIPPED and given == (out.stem if out else None):
        raise InputError(f"out={config.out!r}: hand={name} is one of the package; give the YAML another name")
    name = f"my_{name}" if name in SHIPPED else name
    folder = (out.parent if out.suffix == ".yaml" else out) if out else Path()
    folder = folder if folder.name == GROUP else folder / GROUP
    target = Target(name, folder / f"{name}.yaml", folder / f"{name}.png")
    if target.yaml.exists():
        raise InputError(f"{target.yaml} is there already; move it away, or set out= to another YAML")
    return target


def _absolute(file: str) -> str:
    """Returns a file as the YAML names it: an asset as it was given, any other one by its absolute path."""
    if not file:
        return ""
    found = find_mjcf(file)
    return file if found.is_relative_to(ASSET_ROOT) and not Path(file).is_absolute() else str(found.absolute())


def _asked(survey: Survey, hand: HandConfig) -> list[Asked]:
    """Returns what the user must say, with a guess where there is one."""
    normal, along = guess_palm_normal(survey), guess_finger_direction(survey)
    asked = []
    if not hand.palm_normal:
        asked.append(Asked("hand.palm_normal", "which way the palm looks, a unit vector", normal))
    if not hand.finger_direction:
        asked.append(Asked("hand.finger_direction", "which way the stretched fingers point, a unit vector", along))
    if not hand.side:
        palm, fingers = hand.palm_normal or _vector(normal), hand.finger_direction or _vector(along)
        known = palm is not None and fingers is not None
        side = guess_side(survey, np.array(palm), np.array(fingers)) if known else Guess("", "")
        asked.append(Asked("hand.side", "right or left: which hand it is", side))
    return asked


def _vector(guess: Guess) -> list[float] | None:
    return json.loads(guess.value) if guess.value else None


def _directions(hand: HandConfig) -> dict[str, list[float]]:
    """Returns palm normal and finger direction as unit vectors at a right angle.

    Raises:
        InputError: they are far from one.
    """
    palm, fingers = (np.array(v, float) / np.linalg.norm(v) for v in (hand.palm_normal, hand.finger_direction))
    if abs(palm @ fingers) > np.sin(PERPENDICULAR_RAD):
        angle = np.degrees(np.arccos(np.clip(palm @ fingers, -1, 1)))
        raise InputError(
            f"hand.palm_normal={list(hand.palm_normal)} and hand.finger_direction={list(hand.finger_direction)} stand "
            f"at {angle:.0f} degrees; wanted 90: stretched fingers lie along the palm, and the normal looks out of it"
        )
    fingers = fingers - (fingers @ palm) * palm
    fingers /= np.linalg.norm(fingers)
    return {"palm_normal": _short(palm), "finger_direction": _short(fingers)}


def _short(vector: np.ndarray) -> list[float]:
    return [round(float(x), 6) + 0.0 for x in vector]


def _contradictions(survey: Survey, hand: HandConfig) -> list[str]:
    """Returns what is odd about what was given.

    Raises:
        InputError: the thumb is on the other hand's side.
    """
    side = guess_side(survey, np.array(hand.palm_normal), np.array(hand.finger_direction))
    if side.value and side.value != hand.side:
        turned = [0.0 - x for x in hand.palm_normal]
        raise InputError(
            f"hand.side={hand.side}, but with hand.palm_normal={hand.palm_normal} and hand.finger_direction="
            f"{hand.finger_direction} this is a {side.value} hand: {side.reason}. Set hand.side={side.value}, or, if "
            f"the palm looks the other way, hand.palm_normal={turned}"
        )
    guess = guess_palm_normal(survey)
    if guess.value and np.array(_vector(guess)) @ np.array(hand.palm_normal) < OPPOSITE:
        return [
            f"hand.palm_normal={hand.palm_normal} is not where the fingertips go when the joints close, {guess.value}"
        ]
    return []


def _open_keypoints(hand: HandDescription) -> np.ndarray:
    """Returns the keypoints of a hand whose joints are at their means, (P, 3) m in the hand's frame."""
    return points_of_links(frames_at(hand, hand.joint_mean), hand.keypoint_link, hand.keypoint_position)


def _cramped(pair: tuple[HandDescription, HandDescription], least: float) -> list[str]:
    """Returns whether keypoints cost energy in the open hands."""
    found = []
    energy = float(
        keypoint_penetration(torch.as_tensor(np.stack([_open_keypoints(hand) for hand in pair])[None]), least)
    )
    if energy > 0:
        found.append(
            f"the keypoints cost {energy:.4f} m in the open hand: some are nearer to each other than "
            f"energy.keypoint_distance={least}; leave out hand.keypoints for a proposal"
        )
    return found


def _draw(path: Path, panels: list[Panel], keypoint_distance: float) -> Path | str:
    """Returns the picture that was written, or why there is none."""
    try:
        picture = draw(panels, keypoint_distance, *PICTURE)
    except InputError as error:
        return str(error)
    output_paths.write(path, png(picture))
    return path


def _head(survey: Survey) -> str:
    """Returns the first lines of comment of a YAML."""
    return (
        f"The hand of {survey.path.name}, proposed by mode=hand: look at its picture and change what is wrong.\n"
        "The directions of the palm and the side are as they were given."
    )
