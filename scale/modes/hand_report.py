"""Formats the result of `mode=hand` as a report for people."""

from __future__ import annotations

import shlex
from collections import Counter
from pathlib import Path
from typing import NamedTuple

from bimangrasp.hand_files.config import HandConfig
from bimangrasp.hand_files.read_hand import is_urdf
from bimangrasp.hand_setup.inspection import Guess, HandInspection
from bimangrasp.hands.description import HandDescription
from scale.formatting import table


class Question(NamedTuple):
    """Something that the file does not state.

    Attributes:
        key: name of the setting.
        meaning: what the setting says, for people.
        guess: a possible value, with its reason.
    """

    key: str
    meaning: str
    guess: Guess


class HandReport(NamedTuple):
    """The contents of a hand's file, open questions and written files. `str(report)` is for people.

    Attributes:
        inspection: the contents of the file.
        hand: the settings, complete if no question is open.
        questions: what the user has to answer.
        yaml: the YAML that was written; None with open questions, or for a shipped hand.
        picture: the path of the picture, or the reason why there is none.
        warnings: warnings about the settings; `inspection` has those about the file.
        out: the setting `out`: where the YAML is to be written.
        pair: the left and the right hand, if no question is open.
    """

    inspection: HandInspection
    hand: HandConfig
    questions: list[Question]
    yaml: Path | None
    picture: Path | str
    warnings: list[str]
    out: str
    pair: tuple[HandDescription, HandDescription] | None = None

    @property
    def exit_code(self) -> int:
        """2 with open questions, else 0."""
        return 2 if self.questions else 0

    def __str__(self) -> str:
        warnings = [f"note: {line}" for line in (*self.inspection.warnings, *self.warnings)]
        end = self._question_lines() if self.questions else self._result_lines()
        return "\n".join([*_overview(self.inspection), "", *_joints(self.inspection, self.hand), *warnings, "", *end])

    def _question_lines(self) -> list[str]:
        """Returns the questions to the user, and the command to type."""
        lines = [f"The file does not say {len(self.questions)} things, in the frame of the hand's root:"]
        for key, meaning, guess in self.questions:
            suggestion = f"perhaps {guess.value}: {guess.reason}" if guess.value else "no guess"
            lines += [f"  {key}: {meaning}", f"      {suggestion}"]
        if isinstance(self.picture, Path):
            lines.append(f"{self.picture} shows the hand along x, -y and z of that frame (x red, y green, z blue).")
        else:
            lines.append(self.picture)
        return [*lines, "Type what is right, for instance:", f"  {self._command()}"]

    def _command(self) -> str:
        """Returns the command with the guesses, and question marks where there is none."""
        overrides = {"hand.mjcf": self.hand.mjcf}
        for key in ("palm_normal", "finger_direction"):
            direction = getattr(self.hand, key)
            if direction:
                overrides[f"hand.{key}"] = f"[{','.join(f'{x:g}' for x in direction)}]"
        overrides |= {key: guess.value or "?" for key, _, guess in self.questions}
        if self.out:
            overrides["out"] = self.out
        words = [shlex.quote(f"{key}={value}") for key, value in overrides.items()]
        return " ".join(["python main.py mode=hand", *words])

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
            f"{len(right.keypoint_link)} penetration keypoints"
        ]
        if isinstance(self.picture, Path):
            lines.append(
                f"{self.picture}: left and right hand, right hand from both sides; candidates red, keypoints blue"
            )
        else:
            lines.append(self.picture)
        if self.yaml:
            folder = self.yaml.parent.parent
            lines += [
                f"{self.yaml}: look at it and change what is wrong, then",
                f"  python main.py mode=scale --config-dir {shlex.quote(str(folder))} hand={self.hand.name}",
            ]
        return lines


def _overview(inspection: HandInspection) -> list[str]:
    """Returns a line about the file, the palm, and each finger."""
    hand = inspection.hand
    shapes = Counter("sphere" if s.shape == "capsule" and not s.size[1] else s.shape for s in hand.primitives)
    kinds = ", ".join(f"{count} {kind}" for kind, count in shapes.items())
    size = " x ".join(f"{side:.3f}" for side in inspection.size)
    lines = [
        f"{inspection.path}: {'URDF' if is_urdf(inspection.path) else 'MJCF'}, {len(hand.link_names)} links, "
        f"{len(hand.joint_names)} joints, {len(hand.primitives)} collision shapes ({kinds}), {size} m",
        f"palm: {hand.link_names[inspection.palm]}",
    ]
    for number, chain in enumerate(inspection.chains):
        name = "thumb" if number == inspection.thumb else "finger"
        lines.append(f"{name}: {' -> '.join(hand.link_names[link] for link in chain.links)}")
    return lines


def _joints(inspection: HandInspection, config: HandConfig) -> list[str]:
    """Returns a table of the joints."""
    hand = inspection.hand
    rows = []
    for joint, name in enumerate(hand.joint_names):
        moved = hand.link_names[hand.joint_link[joint]]
        mean = f"{config.joint_mean[name]:.3f}" if name in config.joint_mean else ""
        rows.append((name, moved, f"{hand.joint_lower[joint]:.3f}", f"{hand.joint_upper[joint]:.3f}", mean))
    return table(("joint", "moves", "lower (rad)", "upper (rad)", "mean (rad)"), rows, right=(2, 3, 4))
