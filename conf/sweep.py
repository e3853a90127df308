"""Lists the jobs of a sweep (-m), refuses those that clash, and names the folder of each."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from functools import reduce
from operator import getitem
from pathlib import Path
from typing import Any
from urllib.parse import quote

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.types import Override, ValueType
from hydra.errors import HydraException

import conf
from bimangrasp.config import SynthesisConfig
from bimangrasp.errors import InputError
from conf.own_run import with_own_meshes_and_hands
from scale.settings.schema import Config

SECTIONS = ("energy", "optimizer", "initialization", "object", "filter", "hand")
"""Sections whose values stand in the run key or in the acceptance key."""
NAMES = {field.name for field in dataclasses.fields(SynthesisConfig)} | {"seed_base", "threads"}
"""The same for values at the top."""
PATHS = {"hand.root", "hand.mjcf", "hand.left_mjcf"}
PART = "part"
"""Which objects a job makes; it decides nothing about their grasps."""
LONGEST = 120
"""Characters of a job's folder; beyond, its end is a hash."""


def jobs(overrides: list[str], config_dir: str | Path | None = None) -> list[Config]:
    """Returns the jobs of a sweep, `exp_name` of each naming its own run, checked: every one composes, no two clash.

    A folder's name has the choices and the values that decide the grasps of its job. Quota, devices and paths are left
    out, so that the same sweep resumes where they change. Parts of a run have one folder, which is `exp_name` itself
    where nothing else is swept.

    Raises:
        InputError: a sweep over a key that decides nothing about the grasps, seeds too near to each other,
            two jobs that are the same.
    """
    folder = Path(config_dir) if config_dir else None
    parsed, known = conf.parse(overrides, folder), conf.groups(folder)
    for override in parsed:
        _check_sweep(override, known)
    try:
        split = BasicSweeper.split_arguments(parsed, max_batch_size=None)[0]
    except HydraException as error:
        raise InputError(f"the sweep cannot be listed: {error}") from error
    is_one_run = {override.key_or_group for override in parsed if override.is_sweep_override()} == {PART}
    configs: dict[tuple[str, str | None], Config] = {}
    for job in split:
        config, typed = conf.composed(job, folder)
        name = _job_folder(conf.parse(list(job), folder), config, known)
        if (name, config.part) in configs:
            raise InputError(f"two jobs of the sweep are the same run {name!r}: wanted each value once")
        exp_name = config.exp_name if is_one_run else f"{config.exp_name}/{name}"
        own = dataclasses.replace(config, exp_name=exp_name)
        configs[name, config.part] = with_own_meshes_and_hands(own, typed)
    _check_seeds(list(configs.values()))
    return list(configs.values())


def _job_folder(overrides: list[Override], config: Config, known: dict[str, list[str]]) -> str:
    """Returns the folder of a job below `exp_name`."""
    parts = set()
    for override in overrides:
        key = override.key_or_group
        if key in known:
            parts.add(f"{key}={quote(str(override.value()), safe='')}")
        elif _decides(key):
            value = reduce(getitem, key.split("."), dataclasses.asdict(config))
            parts.add(f"{key}={quote(_text(value), safe='')}")
    name = ",".join(sorted(parts)) or "default"
    if len(name) <= LONGEST:
        return name
    digest = hashlib.sha256(name.encode()).hexdigest()[:12]
    return f"{name[: LONGEST - 13]}~{digest}"


def _check_sweep(override: Override, known: dict[str, list[str]]) -> None:
    """Refuses a sweep over anything but choices and values that decide the grasps."""
    key = override.key_or_group
    if not override.is_sweep_override() or key in known:
        return
    if not (_decides(key) or key == PART) or override.value_type == ValueType.GLOB_CHOICE_SWEEP:
        raise InputError(
            f"{override.input_line!r}: {key} cannot be swept, only choices ({', '.join(sorted(known))}) and "
            f"values that decide the grasps (seed_base, energy.w_pen, ...), and part; a list goes in brackets"
        )


def _decides(key: str) -> bool:
    """Whether a key stands in the run key or in the acceptance key."""
    return key in NAMES or (key.split(".")[0] in SECTIONS and key not in PATHS)


def _check_seeds(configs: list[Config]) -> None:
    """Refuses jobs whose seeds overlap without being equal: some of their rounds would be the same."""
    max_rounds = max(config.max_rounds for config in configs)
    ordered = sorted({config.seed_base for config in configs})
    for low, high in zip(ordered, ordered[1:], strict=False):
        if high - low < max_rounds:
            raise InputError(
                f"seed_base={low} and seed_base={high} are less than max_rounds={max_rounds} apart, so that "
                f"rounds of both jobs share seeds: wanted equal ones or a step of {max_rounds} or more, such "
                f"as seed_base={low},{low + max_rounds}"
            )


def _text(value: Any) -> str:
    """Returns a value as text that is the same however it was typed: 100 for 100, 100.0 and 1e2."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return value if isinstance(value, str) else json.dumps(value, separators=(",", ":"), sort_keys=True)
