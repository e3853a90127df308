"""What `mode=hand` found, as a table for people."""

from __future__ import annotations

import shlex
from collections import Counter
from pathlib import Path
from typing import NamedTuple

from bimangrasp.hand_files.compile import is_urdf
from bimangrasp.hand_files.config import HandConfig
from bimangrasp.hand_setup.inspection import Guess, Survey
from bimangrasp.hands.description import HandDescription


class Asked(NamedTuple):
    """Something that the file does not say.

    Attributes:
        key: of the setting.
        meaning: of it.
        guess: what it may be.
    """

    key: str
    meaning: str
    guess: Guess


class HandReport(NamedTuple):
    """What was found, asked and written. `str(report)` is for people.

    Attributes:
        survey: of the file.
        hand: the settings, complete if nothing is asked.
        asked: what the user has to say.
        yaml: what was written; None if something is asked, or for a shipped hand.
        picture: its path, or why there is none.
        warnings: about what was given; those about the file are in the survey.
        out: where the YAML shall go, as it was given.
        pair: the left and the right hand, if nothing is asked.
    """

    survey: Survey
    hand: HandConfig
    asked: list[Asked]
    yaml: Path | None
    picture: Path | str
    warnings: list[str]
    out: str
    pair: tuple[HandDescription, HandDescription] | None = None

    @property
    def exit_code(self) -> int:
        """2 if something is asked, else 0."""
        return 2 if self.asked else 0

    def __str__(self) -> str:
        warnings = [f"note: {line}" for line in (*self.survey.warnings, *self.warnings)]
        end = self._questions() if self.asked else self._result()
        return "\n".join([*_overview(self.survey), "", *_joints(self.survey, self.hand), *warnings, "", *end])

    def _questions(self) -> list[str]:
        """Returns what the user is asked, and the line to type."""
        lines = [f"The file does not say {len(self.asked)} things, in the frame of the hand's root:"]
        for key, meaning, guess in self.asked:
            perhaps = f"perhaps {guess.value}: {guess.reason}" if guess.value else "no guess"
            lines += [f"  {key}: {meaning}", f"      {perhaps}"]
        if isinstance(self.picture, Path):
            lines.append(f"{self.picture} shows the hand along x, -y and z of that frame (x red, y green, z blue).")
        else:
            lines.append(self.picture)
        return [*lines, "Type what is right, for instance:", f"  {self._line()}"]

    def _line(self) -> str:
        """Returns the command with the guesses; a question mark stands where there is none."""
        given = {"hand.mjcf": self.hand.mjcf}
        known = {"hand.palm_normal": self.hand.palm_normal, "hand.finger_direction": self.hand.finger_direction}
        given |= {key: f"[{','.join(f'{x:g}' for x in value)}]" for key, value in known.items() if value}
        given |= {key: guess.value or "?" for key, _, guess in self.asked}
        given |= {"out": self.out} if self.out else {}
        return " ".join(["python main.py mode=hand", *(shlex.quote(f"{key}={value}") for key, value in given.items())])

    def _result(self) -> list[str]:
        """Returns what the complete hand has and where it is."""
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


def _overview(survey: Survey) -> list[str]:
    """Returns a line about the whole, and one about each finger."""
    hand = survey.hand
    shapes = Counter("sphere" if s.shape == "capsule" and not s.size[1] else s.shape for s in hand.primitives)
    kinds = ", ".join(f"{count} {kind}" for kind, count in shapes.items())
    size = " x ".join(f"{side:.3f}" for side in survey.size)
    lines = [
        f"{survey.path}: {'URDF' if is_urdf(survey.path) else 'MJCF'}, {len(hand.link_names)} links, "
        f"{len(hand.joint_names)} joints, {len(hand.primitives)} collision shapes ({kinds}), {size} m",
        f"palm: {hand.link_names[survey.palm]}",
    ]
    for number, chain in enumerate(survey.chains):
        name = "thumb" if number == survey.thumb else "finger"
        lines.append(f"{name}: {' -> '.join(hand.link_names[link] for link in chain.links)}")
    return lines


def _joints(survey: Survey, config: HandConfig) -> list[str]:
    """Returns a table of the joints."""
    hand = survey.hand
    width = max(len(name) for name in ("joint", *hand.joint_names))
    moved = max(len(hand.link_names[link]) for link in hand.joint_link)
    lines = [f"{'joint':{width}}  {'moves':{moved}}  {'lower':>7} {'upper':>7} {'mean':>7}  rad"]
    for joint, name in enumerate(hand.joint_names):
        mean = f"{config.joint_mean[name]:7.3f}" if name in config.joint_mean else f"{'':7}"
        limits = f"{hand.joint_lower[joint]:7.3f} {hand.joint_upper[joint]:7.3f}"
        lines.append(f"{name:{width}}  {hand.link_names[hand.joint_link[joint]]:{moved}}  {limits} {mean}".rstrip())
    return lines
