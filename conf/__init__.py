"""Composes YAML files and overrides, parsed as they are typed, into the checked settings of a run."""

from __future__ import annotations

import dataclasses
from functools import cache
from pathlib import Path
from typing import Any, get_origin, get_type_hints

from hydra import compose, initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, Quote, QuotedString
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import ConfigKeyError, OmegaConfBaseException

from bimangrasp.errors import InputError
from conf.own_run import with_own_meshes_and_hands
from scale.settings.parsing import nearest, parse_gpus, parse_object_codes, read_target
from scale.settings.schema import RULES, Config, check_ranges, check_settings

FOLDER = Path(__file__).resolve().parent
FIXED = "Hydra's own settings are fixed (--config-dir adds a folder of your own YAML files)"
KINDS = {bool: "true or false", int: "a whole number", float: "a number", str: "text"}


def load(overrides: list[str] | tuple[str, ...] = (), config_dir: str | Path | None = None) -> Config:
    """Returns the settings of a run: the shipped YAML files with these overrides, checked.

    Args:
        overrides: as on the command line, such as ["exp_name=mugs", "energy.w_pen=150"].
        config_dir: a folder of one's own YAML files (`hand/`, `filter/`, `experiment/`), searched as well.

    Raises:
        InputError: an unknown key or choice, a value of the wrong type or out of range, each by its name.
    """
    config, typed = composed(overrides, config_dir)
    return with_own_meshes_and_hands(config, typed)


def composed(overrides: list[str] | tuple[str, ...], config_dir: str | Path | None) -> tuple[Config, list[str]]:
    """Returns the settings as `load` does, without those of a run that was made before, and the keys that are typed."""
    folder = _checked_folder(config_dir)
    parsed = parse(list(overrides), folder)
    for override in parsed:
        if override.is_sweep_override():
            raise InputError(
                f"{override.input_line!r} has several values; a list goes in brackets, as in 'gpus=[0,1]', "
                f"text with a comma in quotes inside the shell's quotes, and a sweep over values needs -m"
            )
    config = check(_compose([override.input_line for override in parsed], folder))
    return config, [override.key_or_group for override in parsed]


def check(cfg: DictConfig) -> Config:
    """Returns a composed configuration as the dataclass, with types, ranges and free forms checked.

    Raises:
        InputError: see `load`.
    """
    _refuse_numbers_for_text(cfg)
    cfg = _with_floats(cfg)
    try:
        typed = OmegaConf.merge(OmegaConf.structured(Config), cfg)
        check_ranges(OmegaConf.to_container(typed, resolve=True))  # by the full key, which a dataclass does not know
        config = OmegaConf.to_object(typed)
    except OmegaConfBaseException as error:
        raise InputError(_explained(error, cfg)) from error
    check_settings(config)
    parse_object_codes(config.object_code_list)
    read_target(config.target_count_per_object)
    parse_gpus(config.gpus)
    return config


def _compose(overrides: list[str], config_dir: Path | None) -> DictConfig:
    """Returns the composed YAML, unchecked."""
    search = [f"hydra.searchpath=['file://{config_dir}']"] if config_dir else []
    try:
        with initialize_config_dir(str(FOLDER), version_base="1.3", job_name="bimangrasp"):
            return compose("config", overrides=[*search, *overrides])
    except (HydraException, OmegaConfBaseException) as error:
        raise InputError(f"the configuration cannot be composed: {error}") from error


def _checked_folder(config_dir: str | Path | None) -> Path | None:
    """Returns the folder as an absolute path; refuses one that is not there."""
    if config_dir is None:
        return None
    if not Path(config_dir).is_dir():
        raise InputError(f"config_dir={str(config_dir)!r} is no folder; wanted one with hand/ or experiment/")
    folder = Path(config_dir).resolve()
    for group, names in groups(None).items():
        hidden = sorted(name for name in names if folder != FOLDER and (folder / group / f"{name}.yaml").is_file())
        if hidden:
            raise InputError(
                f"{folder / group / hidden[0]}.yaml has the name of a file of the package, which is read in its place: "
                f"rename it, and choose it as {group}=<its new name>"
            )
    return folder


def _refuse_numbers_for_text(cfg: DictConfig) -> None:
    """Refuses a number in a YAML file where text is wanted: its spelling is already lost."""
    for key, declared in key_types().items():
        value = OmegaConf.select(cfg, key, throw_on_missing=False) if declared is str else None
        if value is not None and not isinstance(value, str):
            raise InputError(f"{key}={value!r} is read as {type(value).__name__}; wanted text: quote it in the YAML")


def _with_floats(cfg: DictConfig) -> DictConfig:
    """Returns the configuration with floats in the vectors of free mappings: OmegaConf refuses [0,0,1] there."""
    copy = OmegaConf.create(cfg)
    for key, declared in key_types().items():
        is_free = get_origin(declared) is dict and get_origin(declared.__args__[1]) is list
        value = OmegaConf.select(copy, key, throw_on_missing=False) if is_free else None
        if isinstance(value, DictConfig):
            OmegaConf.update(copy, key, _floats(OmegaConf.to_container(value)), merge=False)
    return copy


def _floats(value: Any) -> Any:
    """Returns the value with each whole number in it as a float."""
    if isinstance(value, dict):
        return {key: _floats(part) for key, part in value.items()}
    if isinstance(value, list):
        return [_floats(part) for part in value]
    return float(value) if isinstance(value, int) and not isinstance(value, bool) else value


def _explained(error: OmegaConfBaseException, cfg: DictConfig) -> str:
    """Returns what the schema refused: the key, the value, the type that is wanted."""
    key = str(getattr(error, "full_key", "") or "")
    if isinstance(error, ConfigKeyError):
        return unknown_key(key)
    wanted = RULES[key].wanted if key in RULES else KINDS.get(key_types().get(key), "a section of settings")
    return f"{key}={OmegaConf.select(cfg, key)!r}: wanted {wanted}"


def parse(overrides: list[str], config_dir: Path | None = None) -> list[Override]:
    """Returns the overrides, parsed and checked: known keys, known choices, text as it was typed.

    Raises:
        InputError: an override that cannot be read, or whose key or choice is unknown (the nearest is named).
    """
    choices = groups(config_dir)
    parser = OverridesParser.create(config_loader=_Choices(choices))
    parsed = [_parse_override(parser, line) for line in overrides]
    parsed += [_parse_override(parser, line) for line in _of_the_mode(parsed)]
    for override in parsed:
        _check_key(override, choices)
        _check_codes(override)
    return parsed


def groups(config_dir: Path | None = None) -> dict[str, list[str]]:
    """Returns group -> its choices, of the shipped folder and of `config_dir`."""
    choices: dict[str, set[str]] = {}
    for folder in filter(None, (FOLDER, config_dir)):
        for file in folder.glob("*/*.yaml"):
            choices.setdefault(file.parent.name, set()).add(file.stem)
    return {group: sorted(names) for group, names in choices.items()}


class _Choices:
    """What Hydra's parser asks a loader of configurations, for `filter=glob(*)`."""

    def __init__(self, choices: dict[str, list[str]]) -> None:
        self.choices = choices

    def get_group_options(self, group_name: str, *_: object, **__: object) -> list[str]:
        """Returns the choices of a group."""
        return self.choices.get(group_name, [])


def _of_the_mode(parsed: list[Override]) -> list[str]:
    """Returns the choices that a mode makes in place of the defaults, where the user has made none.

    `mode=hand` is about a file of the user's, of which nothing of the built-in hand holds; `mode=generate` keeps every
    finite grasp.
    """
    values = {override.key_or_group: override for override in parsed}
    mode = values.get("mode")
    if mode is None or mode.is_sweep_override():
        return []
    chosen = {"hand": ("hand", "own"), "generate": ("filter", "none")}.get(mode.value())
    return [] if chosen is None or chosen[0] in values else ["=".join(chosen)]


def _parse_override(parser: OverridesParser, line: str) -> Override:
    """Returns one override; a bare value of a text key, or name of a file (experiment=null), is quoted first."""
    key, equals, raw = line.partition("=")
    is_text = (key_types().get(key.lstrip("+")) is str or key in groups()) and bool(equals)
    try:
        override = parser.parse_overrides([line])[0]
    except HydraException as error:
        if not is_text:
            raise InputError(
                f"cannot read the argument {line!r}: wanted key=value. Text with commas, brackets or letters beyond "
                f"a to z goes in quotes inside the shell's quotes, as in 'object_code_list=\"[ab]*\"'"
            ) from error
        override = None
    if override and not (is_text and isinstance(override.value(), int | float | None) and not override.is_delete()):
        return override
    return parser.parse_override(f"{key}={QuotedString(text=raw.strip(), quote=Quote.single).with_quotes()}")


def _check_key(override: Override, choices: dict[str, list[str]]) -> None:
    """Refuses an override of Hydra's settings, an unknown key and an unknown choice."""
    key = override.key_or_group
    if key == "hydra" or override.is_hydra_override():
        raise InputError(f"{override.input_line!r}: {FIXED}")
    if override.is_delete():
        raise InputError(f"{override.input_line!r}: no key can be removed; give it another value")
    if key in choices:
        if not override.is_sweep_override() and override.value() not in choices[key]:  # else Hydra's splitting looks
            meant = nearest(str(override.value()), choices[key])
            hint = f"did you mean {meant[0]!r}? " if meant else ""
            raise InputError(f"{key}={override.value()}: {hint}There are {', '.join(choices[key])}")
    elif not _is_key(key):
        raise InputError(unknown_key(key))


def _check_codes(override: Override) -> None:
    """Refuses an object code that Hydra has read as a number: its spelling is lost in the value."""
    value = override.value()
    items = value if isinstance(value, list) else [value]
    if override.key_or_group != "object_code_list" or override.is_sweep_override():
        return
    for item in items:
        if not isinstance(item, str):
            raise InputError(
                f"{override.input_line!r}: {item!r} is read as {type(item).__name__}, codes are text: quote "
                f"it inside the shell's quotes, as in 'object_code_list=[\"2026_11_20\"]'"
            )


@cache
def key_types() -> dict[str, Any]:
    """Returns dotted key -> declared type, for every value of the configuration."""
    return dict(_walk(Config, ""))


def _is_key(key: str) -> bool:
    """Whether a dotted key names a value, a section, or an entry of a free mapping."""
    parts = key.split(".")
    parents = [".".join(parts[:count]) for count in range(1, len(parts))]
    above = [key_types().get(parent) for parent in parents]
    is_free = any(declared is Any or get_origin(declared) is dict for declared in above)
    return is_free or key in key_types() or any(known.startswith(f"{key}.") for known in key_types())


def unknown_key(key: str) -> str:
    """Returns the sentence for a key that there is not."""
    meant = nearest(key, key_types())
    hint = f"did you mean {meant[0]!r}?" if meant else "`python main.py --cfg job` prints every key."
    return f"there is no key {key!r} in the configuration; {hint}"


def _walk(record: type, prefix: str) -> list[tuple[str, Any]]:
    """Returns the keys and types of a dataclass and of those inside it."""
    pairs: list[tuple[str, Any]] = []
    for name, declared in get_type_hints(record).items():
        if dataclasses.is_dataclass(declared):
            pairs += _walk(declared, f"{prefix}{name}.")
        else:
            pairs.append((f"{prefix}{name}", declared))
    return pairs
