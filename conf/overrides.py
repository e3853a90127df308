"""Parses overrides as they are typed: checks each key, and keeps text as text where YAML would read a number."""

from __future__ import annotations

import dataclasses
from functools import cache
from pathlib import Path
from typing import Any, get_origin, get_type_hints

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, Quote, QuotedString
from hydra.errors import HydraException

from bimangrasp.errors import InputError
from scale.settings.parsing import nearest
from scale.settings.schema import Config

FOLDER = Path(__file__).resolve().parent
FIXED = "Hydra's own settings are fixed (--config-dir adds a folder of your own YAML files)"


def parse(overrides: list[str], config_dir: Path | None = None) -> list[Override]:
    """Returns the overrides, parsed and checked: known keys, known choices, text as it was typed.

    Raises:
        InputError: an override that cannot be read, or whose key or choice is unknown (the nearest is named).
    """
    choices = groups(config_dir)
    parser = OverridesParser.create(config_loader=_Choices(choices))
    parsed = [_parse_override(parser, line) for line in overrides]
    if _looks_at_own_hand(parsed):
        parsed.append(_parse_override(parser, "hand=own"))
    for override in parsed:
        _check_key(override, choices)
        _check_codes(override)
    return parsed


def lines(parsed: list[Override]) -> list[str]:
    """Returns the overrides as Hydra is to read them."""
    return [override.input_line for override in parsed]


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


def _looks_at_own_hand(parsed: list[Override]) -> bool:
    """Whether `mode=hand` is about a file of the user's: then nothing of the built-in hand holds."""
    values = {override.key_or_group: override for override in parsed}
    mode = values.get("mode")
    return mode is not None and not mode.is_sweep_override() and mode.value() == "hand" and "hand" not in values


def _parse_override(parser: OverridesParser, line: str) -> Override:
    """Returns one override; a bare value of a text key is quoted first."""
    key, equals, raw = line.partition("=")
    is_text = key_types().get(key.lstrip("+")) is str and bool(equals)
    try:
        override = parser.parse_overrides([line])[0]
    except HydraException as error:
        if not is_text:
            raise InputError(_unreadable(line)) from error
        return parser.parse_override(_quoted(key, raw))
    if is_text and isinstance(override.value(), int | float | None) and not override.is_delete():
        return parser.parse_override(_quoted(key, raw))
    return override


def _quoted(key: str, raw: str) -> str:
    """Returns the override key='raw'."""
    return f"{key}={QuotedString(text=raw.strip(), quote=Quote.single).with_quotes()}"


def _unreadable(line: str) -> str:
    """Returns the sentence for an override that Hydra's parser refuses."""
    return (
        f"cannot read the argument {line!r}: wanted key=value. Text with commas, brackets or letters beyond "
        f"a to z goes in quotes inside the shell's quotes, as in 'object_code_list=\"[ab]*\"'"
    )


def _check_key(override: Override, choices: dict[str, list[str]]) -> None:
    """Refuses an override of Hydra's settings, an unknown key and an unknown choice."""
    key = override.key_or_group
    if key == "hydra" or override.is_hydra_override():
        raise InputError(f"{override.input_line!r}: {FIXED}")
    if override.is_delete():
        raise InputError(f"{override.input_line!r}: no key can be removed; give it another value")
    if key in choices:
        _check_choice(override, choices[key])
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


def _check_choice(override: Override, names: list[str]) -> None:
    """Refuses a choice that the group does not have; a sweep is left to Hydra's splitting."""
    value = override.value()
    if override.is_sweep_override():
        return
    if value not in names:
        meant = nearest(str(value), names)
        hint = f"did you mean {meant[0]!r}? " if meant else ""
        raise InputError(f"{override.key_or_group}={value}: {hint}There are {', '.join(names)}")


@cache
def key_types() -> dict[str, Any]:
    """Returns dotted key -> declared type, for every value of the configuration."""
    return dict(_walk(Config, ""))


def _is_open(key: str) -> bool:
    """Whether keys below this one are free: a mapping, or a value of any form."""
    declared = key_types().get(key)
    return declared is Any or get_origin(declared) is dict


def _is_key(key: str) -> bool:
    """Whether a dotted key names a value, a section, or an entry of a free mapping."""
    parts = key.split(".")
    parents = [".".join(parts[:count]) for count in range(1, len(parts))]
    section = any(known.startswith(f"{key}.") for known in key_types())
    return key in key_types() or section or any(_is_open(parent) for parent in parents)


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
