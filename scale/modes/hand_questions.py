"""Asks what the file of a hand does not state: all of it at once, with guesses and with lines to type."""

from __future__ import annotations

import re
import shlex
from operator import attrgetter
from typing import Any, NamedTuple

import numpy as np

from bimangrasp.hand_files.config import CouplingRule, HandConfig
from bimangrasp.hand_setup.guesses import (
    Guess,
    guess_finger_direction,
    guess_palm_normal,
    guess_side,
    vector_of,
)
from bimangrasp.hand_setup.inspection import HandInspection
from bimangrasp.hand_setup.proposal import is_unbent, rounded
from scale.modes.paths import UNKNOWN_HAND
from scale.settings.schema import Config

ANY_SIDE = Guess("right", "no thumb tells; of a hand that is its own mirror image either is true")
LOOK = Guess("", "nothing in the file tells; the picture does")
EXAMPLES = {"hand.palm_normal": "[0,0,1]", "hand.finger_direction": "[1,0,0]", "hand.side": "right"}
"""What is typed, for instance, where nothing can be guessed."""


DEFAULTS = {
    "hand.candidates.per_link": 10,
    "hand.candidates.spread_rad": 0.6,
    "hand.surface_points": 2000,
    "energy.keypoint_distance": 0.02,
    "hand_test": 0,
}
"""What need not be typed: the values of `hand=own` and of the settings."""

HYDRA_WORDS = ("null", "true", "false", "nan", "inf")
"""What Hydra's grammar reads as something other than text."""


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

    @property
    def typed(self) -> str:
        """The override with the guess, or with an example."""
        plus = "+" if self.key.startswith("hand.candidates.palmar.") else ""
        return f"{plus}{self.key}={self.guess.value or EXAMPLES.get(self.key, '[0,0,1]')}"


def questions_of(inspection: HandInspection, hand: HandConfig) -> list[Question]:
    """Returns all questions that the user must answer, with a guess where there is one."""
    normal = guess_palm_normal(inspection, _given(hand.finger_direction))
    palm = _given(hand.palm_normal) if hand.palm_normal else vector_of(normal)
    along = guess_finger_direction(inspection, palm)
    fingers = _given(hand.finger_direction) if hand.finger_direction else vector_of(along)
    has_directions = palm is not None and fingers is not None
    side = guess_side(inspection, palm, fingers) if has_directions else LOOK
    questions = [
        Question("hand.palm_normal", "which way the palm looks, a unit vector", normal if normal.value else LOOK),
        Question("hand.finger_direction", "which way the stretched fingers point", along if along.value else LOOK),
        Question("hand.side", "right or left: which hand it is", side if side.value else ANY_SIDE),
    ]
    asked = [question for question in questions if not getattr(hand, question.key.removeprefix("hand."))]
    return [*asked, *_palmar_questions(inspection, hand, palm)]


def _given(direction: list[float]) -> np.ndarray | None:
    """Returns a direction of the settings; None where it is not given."""
    return np.array(direction, float) if direction else None


def _palmar_questions(inspection: HandInspection, hand: HandConfig, palm: np.ndarray | None) -> list[Question]:
    """Returns a question for each link that is named without a direction and that no joint bends."""
    questions = []
    for name, direction in hand.candidates.palmar.items():
        if direction or name not in inspection.hand.link_names:
            continue
        link = inspection.hand.link_names.index(name)
        if palm is None or not is_unbent(inspection, link, palm):
            continue
        side = rounded(inspection.frames[link, :3, :3].T @ (palm / np.linalg.norm(palm)), 4)
        guess = Guess(hydra_text(side), "the palm looks there, with the joints at 0")
        meaning = f"out of the palmar side of {name!r}, which no joint bends, in its own frame"
        questions.append(Question(f"hand.candidates.palmar.{hydra_key(name)}", meaning, guess))
    return questions


def question_lines(questions: list[Question]) -> list[str]:
    """Returns the questions for people, each with its guess and what to type."""
    count = "a thing" if len(questions) == 1 else f"{len(questions)} things"
    lines = [f"The file does not say {count}, in the frame of the hand's root:"]
    for question in questions:
        value, reason = question.guess
        lines += [
            f"  {question.key}: {question.meaning}",
            f"      {f'perhaps {value}: {reason}' if value else f'no guess: {reason}'}",
            f"      type {shlex.quote(question.typed)}{'' if value else ', for instance'}",
        ]
    return lines


def command(config: Config, questions: list[Question]) -> str:
    """Returns the command with all that was typed of the hand, and the guesses; a shell and Hydra take it as it is."""
    hand = config.hand
    words = [] if hand.name == UNKNOWN_HAND else [f"hand={hand.name}"]
    words.append(f"hand.mjcf={hand.mjcf}")
    words += [f"hand.left_mjcf={hand.left_mjcf}"] if hand.left_mjcf else []
    for key in ("palm_normal", "finger_direction", "side"):
        value = getattr(hand, key)
        words += [f"hand.{key}={hydra_text(value)}"] if value else []
        words += [question.typed for question in questions if question.key == f"hand.{key}"]
    mappings = {
        "candidates.palmar": hand.candidates.palmar,
        "joint_mean": hand.joint_mean,
        "keypoints": hand.keypoints,
        "couplings": {name: _stated(rule) for name, rule in hand.couplings.items()},
    }
    # an answer comes after the empty list that asked for it
    words += [f"+hand.{key}={hydra_text(value)}" for key, value in mappings.items() if value]
    words += [question.typed for question in questions if question.typed.startswith("+")]
    words += [f"{key}={hydra_text(value)}" for key, value in _changed(config).items()]
    words += [f"out={config.out}"] if config.out else []
    return " ".join(["python main.py mode=hand", *map(shlex.quote, words)])


def _changed(config: Config) -> dict[str, Any]:
    """Returns setting -> value of those that say how a hand is proposed and tested, where they are not the usual ones.

    A test needs its objects.
    """
    values = {key: attrgetter(key)(config) for key in DEFAULTS}
    changed = {key: value for key, value in values.items() if value != DEFAULTS[key]}
    if config.hand_test:
        changed |= {"object_root": config.object_root} if config.object_root else {}
        changed["object_code_list"] = config.object_code_list
    return changed


def _stated(rule: CouplingRule) -> dict[str, Any]:
    """Returns what a rule of a coupling says beyond its defaults."""
    return {key: value for key, value in vars(rule).items() if value != vars(CouplingRule())[key]}


def hydra_key(name: str) -> str:
    """Returns a name as a key in Hydra's grammar."""
    return re.sub(r"([\\()\[\]{}:=, ])", r"\\\1", name)


def hydra_text(value: object) -> str:
    """Returns a value in Hydra's grammar for overrides."""
    if isinstance(value, dict):
        return "{" + ",".join(f"{hydra_key(key)}:{hydra_text(part)}" for key, part in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ",".join(map(hydra_text, value)) + "]"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float | int):
        return f"{value:.12g}"
    plain = re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", value) and value.lower() not in HYDRA_WORDS
    return value if plain else "'" + value.replace("'", r"\'") + "'"
