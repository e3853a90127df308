"""Runs `mode=hand`: inspects a hand's file, asks what it does not state, writes its YAML, draws, tests and reports."""

from __future__ import annotations

import shlex
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from bimangrasp.builtin import ASSET_ROOT
from bimangrasp.diagnosis.causes import Diagnosis
from bimangrasp.energy.energies import keypoint_penetration
from bimangrasp.errors import InputError
from bimangrasp.hand_files.config import HandConfig, find_mjcf
from bimangrasp.hand_files.loading import load_hands
from bimangrasp.hand_files.urdf import is_urdf
from bimangrasp.hand_setup.guesses import guess_palm_normal, guess_side, vector_of
from bimangrasp.hand_setup.inspection import HandInspection, inspect_hand
from bimangrasp.hand_setup.picture import Panel, draw, is_ours, panels_of, panels_of_frame, png
from bimangrasp.hand_setup.proposal import hand_yaml, left_out, propose, rounded
from bimangrasp.hands.couplings import DEGREES, coupling_rules
from bimangrasp.hands.description import HandDescription, frames_at, points_of_links
from scale.formatting import table
from scale.modes.diagnose_hand import diagnose_hand
from scale.modes.hand_questions import Question, command, question_lines, questions_of
from scale.modes.paths import HandPaths
from scale.settings.parsing import resolve_objects
from scale.settings.schema import Config
from scale.store import path_settings

PICTURE = 2000, 640
"""Width and height, pixels."""

PERPENDICULAR_RAD = 0.35
"""Finger direction and palm normal may deviate from a right angle by this (20 degrees) and are then corrected."""

MIN_GUESS_COSINE = 0.5
"""A palm normal whose cosine with the guessed normal is below this causes a warning."""

SHOWN_RAD = 5e-4
"""What angles of three decimals tell apart."""


class HandReport(NamedTuple):
    """The contents of a hand's file, open questions and written files. `str(report)` is for people.

    Attributes:
        inspection: the contents of the file.
        hand: the settings, complete if no question is open.
        questions: what the user has to answer.
        yaml: the YAML that was written; None with open questions, or for a shipped hand.
        picture: what the picture shows and where it is, or the reason why there is none.
        warnings: warnings about the settings; `inspection` has those about the file.
        command: with open questions what to type, with all that was typed of the hand and the guesses.
        pair: the left and the right hand, if no question is open.
        diagnoses: why grasps fail, object by object, if `hand_test` asks for some.
    """

    inspection: HandInspection
    hand: HandConfig
    questions: list[Question]
    yaml: Path | None
    picture: str
    warnings: list[str]
    command: str = ""
    pair: tuple[HandDescription, HandDescription] | None = None
    diagnoses: tuple[Diagnosis, ...] = ()

    @property
    def exit_code(self) -> int:
        """2 with open questions, else 0."""
        return 2 if self.questions else 0

    def __str__(self) -> str:
        warnings = [f"note: {line}" for line in (*self.inspection.warnings, *self.warnings)]
        end = self._question_lines() if self.questions else self._result_lines()
        return "\n".join([*_overview(self.inspection), "", *_joints(self.inspection, self.hand), *warnings, "", *end])

    def _question_lines(self) -> list[str]:
        """Returns the questions to the user, and what to type."""
        return [
            *question_lines(self.questions),
            self.picture,
            "All at once, where the guesses are right:",
            f"  {self.command}",
        ]

    def _result_lines(self) -> list[str]:
        """Returns what the complete hand has and where its files are."""
        right = self.pair[1]
        links = len(set(right.candidate_link.tolist()))
        other = {"right": "left", "left": "right"}[self.hand.side]
        twin = (
            f"the left one is {self.hand.left_mjcf}" if self.hand.left_mjcf else f"the {other} one is its mirror image"
        )
        lines = [
            f"a {self.hand.side} hand, {twin}: {len(right.candidate_link)} contact candidates on {links} links, "
            f"{len(right.keypoint_link)} penetration keypoints",
            self.picture,
        ]
        lines += [line for diagnosis in self.diagnoses for line in str(diagnosis).splitlines()]
        if self.yaml:
            folder = self.yaml.parent.parent
            lines += [
                f"{self.yaml}: look at it and change what is wrong, then",
                f"  python main.py mode=scale --config-dir {shlex.quote(str(folder))} hand={self.hand.name}",
            ]
        return lines


def check_hand(config: Config, paths: HandPaths) -> HandReport:
    """Returns the report on the file of `hand`: its contents, open questions, and what was written.

    Raises:
        InputError: the file cannot be a hand, the settings contradict it, or the YAML exists already.
    """
    hand = config.hand
    objects = resolve_objects(config.object_root, config.object_code_list) if config.hand_test else []
    if paths.picture.exists() and not is_ours(paths.picture):
        raise path_settings.taken(paths.picture, "picture of mode=hand")
    inspection = inspect_hand(hand.mjcf, hand.couplings)
    questions = questions_of(inspection, hand)
    if questions:
        shown = "shows the hand along x, -y and z of that frame (x red, y green, z blue)."
        picture = _draw(paths.picture, panels_of_frame(inspection.hand), shown, config)
        return HandReport(inspection, hand, questions, None, picture, [], command(config, questions))
    files = {key: _absolute(getattr(hand, key)) for key in ("mjcf", "left_mjcf")}
    hand_config = replace(hand, name=paths.name, **files, **_directions(hand))
    warnings = [*_direction_warnings(inspection, hand_config), *_candidate_warnings(inspection, hand_config)]
    complete = propose(inspection, hand_config, config.energy.keypoint_distance)
    left, right = load_hands(complete)
    warnings += _keypoint_warnings((left, right), config.energy.keypoint_distance)
    if paths.yaml:
        path_settings.write(paths.yaml, hand_yaml(complete, inspection.path.name).encode())
    shown = "shows left and right hand, right hand from both sides; candidates red, keypoints blue"
    shown += ", orange from each joint to the next that moves with it" if right.couplings else ""
    picture = _draw(paths.picture, panels_of(left, right), shown, config)
    diagnoses = diagnose_hand(replace(config, hand=complete), (left, right), objects) if objects else []
    return HandReport(
        inspection, complete, [], paths.yaml, picture, warnings, pair=(left, right), diagnoses=tuple(diagnoses)
    )


def _absolute(file: str) -> str:
    """Returns the path of a file for the YAML: that of an asset unchanged, any other as an absolute path."""
    if not file:
        return ""
    path = find_mjcf(file)
    return file if path.is_relative_to(ASSET_ROOT) and not Path(file).is_absolute() else str(path.absolute())


def _directions(hand: HandConfig) -> dict[str, list[float]]:
    """Returns palm normal and finger direction as unit vectors at a right angle.

    Raises:
        InputError: the angle between them is far from a right angle.
    """
    palm, fingers = (np.array(v, float) / np.linalg.norm(v) for v in (hand.palm_normal, hand.finger_direction))
    if abs(palm @ fingers) > np.sin(PERPENDICULAR_RAD):
        angle = np.degrees(np.arccos(np.clip(palm @ fingers, -1, 1)))
        across = ",".join(f"{x:g}" for x in np.eye(3)[np.argmin(np.abs(palm))])
        raise InputError(
            f"hand.palm_normal={list(hand.palm_normal)} and hand.finger_direction={list(hand.finger_direction)} stand "
            f"at {angle:.0f} degrees; wanted 90: stretched fingers lie along the palm, and the normal looks out of it. "
            f"Where fingers point out of the palm, any direction across it does: 'hand.finger_direction=[{across}]'"
        )
    fingers = fingers - (fingers @ palm) * palm
    fingers /= np.linalg.norm(fingers)
    return {"palm_normal": rounded(palm, 6), "finger_direction": rounded(fingers, 6)}


def _direction_warnings(inspection: HandInspection, hand: HandConfig) -> list[str]:
    """Returns a warning where the given palm normal is not the guessed one.

    Raises:
        InputError: the thumb is on the side of the other hand.
    """
    side = guess_side(inspection, np.array(hand.palm_normal), np.array(hand.finger_direction))
    if side.value and side.value != hand.side:
        opposite = [0.0 - x for x in hand.palm_normal]
        raise InputError(
            f"hand.side={hand.side}, but with hand.palm_normal={hand.palm_normal} and hand.finger_direction="
            f"{hand.finger_direction} this is a {side.value} hand: {side.reason}. Set hand.side={side.value}, or, if "
            f"the palm looks the other way, hand.palm_normal={opposite}"
        )
    guess = guess_palm_normal(inspection)
    if guess.value and vector_of(guess) @ np.array(hand.palm_normal) < MIN_GUESS_COSINE:
        return [
            f"hand.palm_normal={hand.palm_normal} is not where the fingertips go when the joints close, {guess.value}"
        ]
    return []


def _candidate_warnings(inspection: HandInspection, hand: HandConfig) -> list[str]:
    """Returns a warning of links that get no candidates by themselves."""
    names = [] if hand.candidates.palmar else left_out(inspection, hand.palm_normal)
    if not names:
        return []
    return [
        f"no joint bends {', '.join(names)}, so no contact candidates are proposed there: write the link and its "
        "palmar direction in the YAML, below candidates.palmar, if it may touch"
    ]


def _keypoint_warnings(pair: tuple[HandDescription, HandDescription], minimum_distance: float) -> list[str]:
    """Returns a warning where keypoints cost energy in the open hands."""
    keypoints = [
        points_of_links(frames_at(hand, hand.joint_mean), hand.keypoint_link, hand.keypoint_position) for hand in pair
    ]
    energy = float(keypoint_penetration(torch.as_tensor(np.stack(keypoints)[None]), minimum_distance))
    if energy > 0:
        return [
            f"the keypoints cost {energy:.4f} m in the open hand: some are nearer to each other than "
            f"energy.keypoint_distance={minimum_distance}; leave out hand.keypoints for a proposal"
        ]
    return []


def _draw(path: Path, panels: list[Panel], shown: str, config: Config) -> str:
    """Returns what the picture that was written shows, or the reason why there is none."""
    try:
        picture = draw(panels, config.energy.keypoint_distance, *PICTURE)
    except InputError as error:
        return str(error)
    path_settings.write(path, png(picture))
    return f"{path} {shown}"


def _overview(inspection: HandInspection) -> list[str]:
    """Returns a line about the file, the palm, and each finger."""
    hand = inspection.hand
    shapes = Counter("sphere" if s.shape == "capsule" and not s.size[1] else s.shape for s in hand.primitives)
    kinds = ", ".join(f"{count} {kind}" for kind, count in shapes.items())
    size = " x ".join(f"{side:.3f}" for side in inspection.size)
    lines = [
        f"{inspection.path}: {'URDF' if is_urdf(inspection.path) else 'MJCF'}, {len(hand.link_names)} links, "
        f"{len(hand.joint_names)} joints{_motors(hand)}, {len(hand.primitives)} collision shapes ({kinds}), {size} m",
        f"palm: {hand.link_names[inspection.palm]}",
    ]
    for number, chain in enumerate(inspection.chains):
        name = "thumb" if number == inspection.thumb else "finger"
        lines.append(f"{name}: {' -> '.join(hand.link_names[link] for link in chain.links)}")
    return lines


def _motors(hand: HandDescription) -> str:
    """Returns how many motors move the joints, where these are fewer."""
    return f" moved by {len(hand.coordinates.free)} motors" if hand.couplings else ""


def _joints(inspection: HandInspection, config: HandConfig) -> list[str]:
    """Returns a table of the joints, and the couplings that hold more than one."""
    hand = inspection.hand
    rows = []
    for joint, name in enumerate(hand.joint_names):
        moved = hand.link_names[hand.joint_link[joint]]
        mean = f"{config.joint_mean[name]:.3f}" if name in config.joint_mean else ""
        rows.append((name, moved, f"{hand.joint_lower[joint]:.3f}", f"{hand.joint_upper[joint]:.3f}", mean))
    head = ("joint", "moves", "lower (rad)", "upper (rad)", "mean (rad)")
    if not hand.couplings:
        return table(head, rows, right=(2, 3, 4))
    rules = coupling_rules(hand.couplings, hand.joint_names)
    member_of = {joint: name for name, rule in rules.items() for joint in rule.get("tendon", ())}
    rows = [(*row, _coupling(rules.get(row[0], {}), member_of.get(row[0]))) for row in rows]
    return [*table((*head, "coupling"), rows, right=(2, 3, 4)), *_tendons(hand, rules), *_narrowed(hand)]


def _narrowed(hand: HandDescription) -> list[str]:
    """Returns a line for each joint that stays in a part of its range, where what follows it is within limits."""
    coordinates, lines = hand.coordinates, []
    for node, low, high in zip(coordinates.free, coordinates.lower, coordinates.upper, strict=True):
        if node < len(hand.joint_names):
            own = hand.joint_lower[node], hand.joint_upper[node]
            if max(abs(low - own[0]), abs(high - own[1])) > SHOWN_RAD:
                lines.append(f"{hand.joint_names[node]} stays within {_span(low, high)} for what follows it")
    return lines


def _span(low: float, high: float) -> str:
    """Returns a range of angles; 0 has no sign."""
    return f"{round(low, 3) + 0.0:.3f} to {round(high, 3) + 0.0:.3f} rad"


def _coupling(rule: dict[str, Any], tendon: str | None) -> str:
    """Returns how a joint is coupled; empty where it moves by itself."""
    return f"shares tendon {tendon}" if tendon else _formula(rule) if rule else ""


def _formula(rule: dict[str, Any]) -> str:
    """Returns the polynomial by which a node follows another."""
    powers = ["", f" {rule['follows']}", *(f" {rule['follows']}^{degree}" for degree in range(2, DEGREES))]
    terms = [f"{c:.4g}{power}" for c, power in zip(rule["polynomial"], powers, strict=False) if c]
    return f"= {' + '.join(terms) or '0'}".replace("+ -", "- ")


def _tendons(hand: HandDescription, rules: dict[str, dict[str, Any]]) -> list[str]:
    """Returns a line for each tendon, with the range of its value where a motor pulls it."""
    coordinates, joints = hand.coordinates, len(hand.joint_names)
    lines = []
    for number, tendon in enumerate(hand.couplings.tendons, start=joints):
        shared = " + ".join(f"{c:.4g} {joint}" for joint, c in rules[tendon.name]["tendon"].items())
        line = f"tendon {tendon.name} = {shared}"
        if number in coordinates.free:
            place = coordinates.free.tolist().index(number)
            line += f", {_span(coordinates.lower[place], coordinates.upper[place])} by a motor"
        else:
            line += f" {_formula(rules[tendon.name])}"
        lines.append(line.replace("+ -", "- "))
    return lines
