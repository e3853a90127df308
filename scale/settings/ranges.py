"""What each setting of a run may be: one rule a key, checked once at the door."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import reduce
from typing import Any, NamedTuple

from bimangrasp.energy_terms import ENERGY_TERMS
from bimangrasp.errors import InputError
from bimangrasp.objects.normalization import CONVENTIONS, UNITS
from bimangrasp.objects.preparation import PreparationConfig
from scale.settings.schema import FILTERS, TENSORBOARD, Config

SEED_STRIDE = 100_000
"""Seeds between two objects, and so the most rounds of one object."""
SEED_LIMIT = 2**32
"""PyTorch's CPU generator keeps 32 bits of a seed."""


class Rule(NamedTuple):
    """What a value may be.

    Attributes:
        holds: whether a value is allowed.
        wanted: the same in words.
    """

    holds: Callable[[Any], bool]
    wanted: str


def _at_least(least: int) -> Rule:
    return Rule(lambda value: value >= least, f"a whole number, {least} or more")


def _between_whole(least: int, most: int) -> Rule:
    return Rule(lambda value: least <= value <= most, f"a whole number from {least} to {most}")


def _among(*names: str) -> Rule:
    return Rule(lambda value: value in names, "one of " + ", ".join(names))


def _between(least: float, most: float) -> Rule:
    return Rule(lambda value: least <= value <= most, f"a number from {least:g} to {most:g}")


TEXT = Rule(lambda value: value.strip() != "", "text")
POSITIVE = Rule(lambda value: 0 < value < math.inf, "a finite number above 0")
NOT_NEGATIVE = Rule(lambda value: 0 <= value < math.inf, "a finite number, 0 or more")
NULL_OR_NOT_NEGATIVE = Rule(lambda value: value is None or 0 <= value < math.inf, "null or a finite number, 0 or more")
DECAY = Rule(lambda value: 0 < value <= 1, "a number above 0, 1 or less")
DIRECTION = Rule(
    lambda value: len(value) == 0 or (len(value) == 3 and 0 < sum(x * x for x in value) < math.inf),
    "three numbers, not all 0, as in [0,-1,0]",
)

RULES: dict[str, Rule] = {
    "mode": _among("scale", "generate", "status", "validate", "export", "import", "report", "view", "hand", "objects"),
    "exp_name": Rule(lambda value: is_folder_name(value), "a folder's name: no leading dot, no \\, 200 bytes at most"),
    "output_root": TEXT,
    "round_batch_size": _at_least(1),
    "num_iterations": _at_least(1),
    "contacts_per_hand": _at_least(1),
    "tile": _at_least(0),
    "curve_stride": _at_least(0),
    "kernels": TEXT,
    "seed_base": Rule(lambda value: 0 <= value < SEED_LIMIT, "a whole number from 0 to 2^32 - 1"),
    "threads": _at_least(1),
    "max_rounds": _between_whole(1, SEED_STRIDE),
    "max_retries": _at_least(0),
    "max_kills": _at_least(0),
    "max_barren_rounds": _at_least(0),
    "startup_timeout_s": POSITIVE,
    "heartbeat_timeout_s": POSITIVE,
    "grace_s": NOT_NEGATIVE,
    "disk_wait_s": NOT_NEGATIVE,
    "max_hours": Rule(lambda value: value is None or 0 < value < math.inf, "null or a number of hours above 0"),
    "merge_stride": _at_least(0),
    "rejected_cap": _between_whole(1, 1_000_000),
    "verify": _among("auto", "full"),
    "frame_stride": _at_least(1),
    "record_rows": Rule(
        lambda value: len(value) > 0 and all(row >= 0 for row in value) and len(set(value)) == len(value),
        "a list of different rows, 0 or more",
    ),
    "logger": _among("none", TENSORBOARD),
    "filter.name": _among(*FILTERS),
    "dedup.translation": NULL_OR_NOT_NEGATIVE,
    "dedup.rotation": NULL_OR_NOT_NEGATIVE,
    "dedup.joints": NULL_OR_NOT_NEGATIVE,
    **{f"filter.{term.name}": POSITIVE for term in ENERGY_TERMS if term.filter},
    "hand.name": TEXT,
    "hand.format": _among("mjcf", "bimangrasp"),
    "hand.side": Rule(lambda value: value in ("right", "left", ""), "right or left"),
    "hand.palm_normal": DIRECTION,
    "hand.finger_direction": DIRECTION,
    "hand.candidates.per_link": _at_least(0),
    "hand.candidates.spread_rad": _between(0, math.pi / 2),
    "hand.surface_points": _at_least(1),
    **{f"energy.{term.weight}": NOT_NEGATIVE for term in ENERGY_TERMS},
    "energy.friction": NOT_NEGATIVE,
    "energy.keypoint_distance": NOT_NEGATIVE,
    "energy.inter_hand": _among("right_points", "symmetric"),
    "optimizer.step_size": POSITIVE,
    "optimizer.step_decay": DECAY,
    "optimizer.step_decay_every": _at_least(1),
    "optimizer.temperature": POSITIVE,
    "optimizer.temperature_decay": DECAY,
    "optimizer.temperature_decay_every": _at_least(1),
    "optimizer.second_moment_decay": Rule(lambda value: 0 <= value < 1, "a number from 0 to below 1"),
    "optimizer.preconditioner_floor": POSITIVE,
    "optimizer.noise_factor": NOT_NEGATIVE,
    "optimizer.switch_probability": _between(0, 1),
    "optimizer.switch_probability_max": _between(0, 1),
    "optimizer.preconditioner": _among("batch", "sample"),
    "optimizer.keep": _among("last", "best"),
    "optimizer.schedule_steps": Rule(
        lambda value: value == "auto" or (isinstance(value, int) and value >= 1),
        "auto or a whole number, 1 or more",
    ),
    "initialization.hull_inflation": POSITIVE,
    "initialization.distance_min": NOT_NEGATIVE,
    "initialization.distance_max": NOT_NEGATIVE,
    "initialization.cone_rad": _between(0, math.pi),
    "initialization.tilt_rad": _between(-math.pi, math.pi),
    "initialization.joint_spread": POSITIVE,
    "initialization.hull_samples_per_grasp": _at_least(1),
    "object.scales": Rule(
        lambda value: len(value) > 0 and all(0 < size < math.inf for size in value),
        "a list of sizes above 0, in m",
    ),
    "object.sizes": Rule(
        lambda value: value is None or (len(value) > 0 and all(0 < size < math.inf for size in value)),
        "null or a list of sizes above 0, in m",
    ),
    "object.surface_points": _at_least(1),
    "object.surface_samples_per_point": _at_least(1),
    "object.grid_cells": _at_least(8),
    "object.interior_faces": _among("keep", "remove"),
    "format": _among("npy", "npz", "csv", "parquet", "dexgraspbench"),
    "view.objects": Rule(
        lambda value: all(
            isinstance(one, str) and one for one in ([value] if isinstance(value, str) else value or [""])
        ),
        "all, a glob, or a list of codes such as [mug,bowl]; numbers in quotes",
    ),
    "view.count": _at_least(1),
    "view.most": _at_least(1),
    "view.choose": _among("best", "even", "first"),
    "view.rows": Rule(
        lambda value: value is None or (len(value) > 0 and min(value) >= 0), "null or a list of row numbers from 0 on"
    ),
    "port": Rule(lambda value: 0 <= value < 65536, "0, or a port's number up to 65535"),
    "validators": _at_least(0),
    "backlog": _at_least(1),
    "validation.name": TEXT,
    "poses.rule": _among("contacts", "palm", "none"),
    "poses.clearance": NOT_NEGATIVE,
    "poses.damping": POSITIVE,
    "poses.opening": NOT_NEGATIVE,
    "poses.retreat": NOT_NEGATIVE,
    "poses.squeeze": NOT_NEGATIVE,
    "prepare.normalize": _among(*CONVENTIONS),
    "prepare.unit": _among(*UNITS),
    "prepare.largest_hole": _between(0, 1),
    "prepare.interior_faces": _among("keep", "remove"),
    "prepare.surface": _among("mesh", "pieces"),
    "pieces.threshold": POSITIVE,
    "pieces.preprocess_mode": _among("auto", "on", "off"),
    "pieces.convex_tolerance": NOT_NEGATIVE,
    "pieces.cover_tolerance": NOT_NEGATIVE,
    "pieces.smallest_volume": NOT_NEGATIVE,
}


def check_ranges(config: Config) -> None:
    """Refuses a setting out of its range.

    Raises:
        InputError: names the key, its value and what is allowed.
    """
    for key, rule in RULES.items():
        value = reduce(getattr, key.split("."), config)
        if not rule.holds(value):
            raise InputError(f"{key}={value!r} is out of range: wanted {rule.wanted}")
    start = config.initialization
    if start.distance_min > start.distance_max:
        raise InputError(
            f"initialization.distance_min={start.distance_min!r} is above "
            f"initialization.distance_max={start.distance_max!r}: wanted the smaller first"
        )
    given = [value is not None for value in vars(config.dedup).values()]
    if any(given) and not all(given):
        raise InputError(
            f"dedup has {vars(config.dedup)}: wanted numbers for translation (m), rotation and joints (rad), or null "
            f"for all three"
        )
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
    _check_preparation(config.prepare)
    check_seeds(config.seed_base, 1, config.max_rounds)


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


def is_folder_name(name: str) -> bool:
    """Whether a text can be the name of a folder, or of a folder below another (parted by /)."""
    return all(is_safe(part) for part in name.split("/"))


def is_safe(part: str) -> bool:
    """Whether a text can be one part of a path anywhere: no separator, control code, leading dot."""
    try:
        size = len(part.encode())
    except UnicodeEncodeError:
        return False
    printable = not any(ord(char) < 32 or ord(char) == 127 or char in "/\\" for char in part)
    return 0 < size <= 200 and part.strip() == part and not part.startswith(".") and printable
