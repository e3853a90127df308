"""Lists the keys of the configuration with their types, and finds the one that a misspelled key means."""

from __future__ import annotations

import dataclasses
from functools import cache
from typing import Any, get_origin, get_type_hints

from scale.settings.names import nearest
from scale.settings.schema import Config


@cache
def types() -> dict[str, Any]:
    """Returns dotted key -> declared type, for every value of the configuration."""
    return dict(_walk(Config, ""))


def is_open(key: str) -> bool:
    """Whether keys below this one are free: a mapping, or a value of any form."""
    declared = types().get(key)
    return declared is Any or get_origin(declared) is dict


def is_key(key: str) -> bool:
    """Whether a dotted key names a value, a section, or an entry of a free mapping."""
    parts = key.split(".")
    parents = [".".join(parts[:count]) for count in range(1, len(parts))]
    section = any(known.startswith(f"{key}.") for known in types())
    return key in types() or section or any(is_open(parent) for parent in parents)


def unknown(key: str) -> str:
    """Returns the sentence for a key that there is not."""
    meant = nearest(key, types())
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
