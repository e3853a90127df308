"""Checks all settings of a run: each in the range of its field, then those that several of them must keep together."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from functools import reduce
from operator import getitem
from typing import Any

from bimangrasp.config import SynthesisConfig
from bimangrasp.errors import InputError
from bimangrasp.objects.config import PreparationConfig
from bimangrasp.ranges import all_rules, field_rules, refuse_unless
from scale.settings.schema import SEED_LIMIT, SEED_STRIDE, Config

RULES = field_rules(SynthesisConfig) | all_rules(Config)
"""Dotted key -> what its value may be; the fields of `SynthesisConfig` are keys at the top."""


def check_settings(config: Config) -> None:
    """Refuses a setting out of its range, and settings that contradict each other.

    Raises:
        InputError: names the keys, their values and what is allowed.
    """
    check_ranges(asdict(config))
    _check_lengths(config)
    _check_dedup(config)
    _check_terms(config)
    _check_preparation(config.prepare)
    check_seeds(config.seed_base, 1, config.max_rounds)


def check_ranges(values: Mapping[str, Any]) -> None:
    """Refuses a value out of the range of its field.

    Args:
        values: the settings as nested mappings.

    Raises:
        InputError: names the key, its value and what is allowed.
    """
    for key, rule in RULES.items():
        refuse_unless(rule, reduce(getitem, key.split("."), values), key)


def _check_lengths(config: Config) -> None:
    """Refuses an empty range of distances from which hands start."""
    start = config.initialization
    if start.distance_min > start.distance_max:
        raise InputError(
            f"initialization.distance_min={start.distance_min!r} is above "
            f"initialization.distance_max={start.distance_max!r}: wanted the smaller first"
        )


def _check_dedup(config: Config) -> None:
    """Refuses thresholds of near-duplicates of which some are missing."""
    given = [value is not None for value in vars(config.dedup).values()]
    if any(given) and not all(given):
        raise InputError(
            f"dedup has {vars(config.dedup)}: wanted numbers for translation (m), rotation and joints (rad), or null "
            f"for all three"
        )


def _check_terms(config: Config) -> None:
    """Refuses a filter on terms that are not computed, and a sampler that accepts nothing."""
    if config.filter.name == "firm" and not (config.energy.w_depth and config.energy.w_equilibrium):
        raise InputError(
            f"filter=firm looks at terms that are not computed without weight: w_depth={config.energy.w_depth!r}, "
            f"w_equilibrium={config.energy.w_equilibrium!r}; wanted both above 0, as experiment=firm has them"
        )
    if config.optimizer.proposal_ratio and not config.optimizer.noise_factor:
        raise InputError(
            "optimizer.noise_factor=0 with optimizer.proposal_ratio=true accepts nothing: proposals without noise have "
            "no density; wanted a factor above 0, such as 1"
        )


def _check_preparation(given: PreparationConfig) -> None:
    """Refuses settings of `mode=objects` that contradict each other."""
    if given.unit != "m" and given.normalize != "keep":
        raise InputError(
            f"prepare.unit={given.unit} says nothing with prepare.normalize={given.normalize}, which sets the size "
            "itself; wanted prepare.normalize=keep with it, or no unit"
        )
    if given.surface == "pieces" and not given.decompose:
        raise InputError("prepare.surface=pieces needs convex pieces; wanted prepare.decompose=true with it")


def check_seeds(seed_base: int, objects: int, max_rounds: int) -> None:
    """Refuses seeds that PyTorch's CPU generator cannot tell apart.

    Args:
        seed_base: seed of round 0 of object 0.
        objects: how many object indices are in use.
        max_rounds: most rounds of one object.

    Raises:
        InputError: the largest seed reaches 2^32.
    """
    largest = seed_base + SEED_STRIDE * objects + max_rounds
    if largest >= SEED_LIMIT:
        room = SEED_LIMIT - 1 - SEED_STRIDE * objects - max_rounds
        advice = f"wanted seed_base at most {room}" if room >= 0 else "wanted fewer objects in one run"
        raise InputError(
            f"seed_base={seed_base} with {objects} objects and max_rounds={max_rounds} gives seeds up to "
            f"{largest}, and they must stay below 2^32: {advice}"
        )
