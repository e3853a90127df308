"""Loads the pair of hands that a config describes."""

from __future__ import annotations

from bimangrasp.errors import InputError
from bimangrasp.hand_files.bimangrasp_release import read_release_hands
from bimangrasp.hand_files.config import HandConfig
from bimangrasp.hand_files.left_hand import read_left_hand
from bimangrasp.hand_files.read_hand import read_mjcf_hand
from bimangrasp.hand_files.tables import unit_vector
from bimangrasp.hands.description import HandDescription, mirror


def load_hands(config: HandConfig) -> tuple[HandDescription, HandDescription]:
    """Returns the left and the right hand.

    Raises:
        InputError: a value of the config or a file that it names cannot be used.
    """
    _check(config)
    if config.format == "bimangrasp":
        return read_release_hands(config)
    hand = read_mjcf_hand(config)
    if config.side == "left":
        return hand, mirror(hand)
    if config.left_mjcf:
        return read_left_hand(hand, config), hand
    return mirror(hand), hand


def _check(config: HandConfig) -> None:
    """Refuses values that contradict each other, and those that only `mode=hand` may leave out."""
    if not config.side:
        raise InputError(f"hand.side={config.side!r}; wanted right or left: which hand is in {config.mjcf!r}?")
    if config.side == "left" and config.left_mjcf:
        raise InputError("hand.left_mjcf goes with hand.side=right: hand.mjcf is then the right hand's file")
    palm = unit_vector(config.palm_normal, "hand.palm_normal")
    fingers = unit_vector(config.finger_direction, "hand.finger_direction")
    if abs(palm @ fingers) > 1e-3:
        raise InputError(
            f"hand.palm_normal={list(config.palm_normal)} and hand.finger_direction="
            f"{list(config.finger_direction)} are not perpendicular; fingers are stretched along the palm."
        )
    if config.format == "mjcf":
        _check_rule(config)


def _check_rule(config: HandConfig) -> None:
    rule = config.candidates
    if rule.per_link < 1:
        raise InputError(f"hand.candidates.per_link={rule.per_link}; wanted at least 1.")
    if not rule.palmar:
        raise InputError("hand.candidates.palmar is empty; name each link that may touch and its palmar direction.")
