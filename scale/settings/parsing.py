"""Parses the settings that people write in many forms: object codes, quotas, devices."""

from __future__ import annotations

import difflib
import json
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from bimangrasp.errors import InputError
from scale.formatting import listed

DEFAULT = "default"
"""The entry of a quota mapping that stands for every object it does not name."""
LEAST_LIKE = 0.6
"""Names that are less alike than this, of 1, are not taken for misspellings of each other."""
MOST_NAMED = 3


def parse_object_codes(value: Any) -> str | list[str]:
    """Returns `object_code_list` as text ("all", a glob, a file, one code) or a list of codes.

    Raises:
        InputError: something that is not text, which YAML makes of a bare 2026_11_20 or 1e5; an empty list.
    """
    if isinstance(value, str) and value.strip():
        return value.strip()
    if not isinstance(value, list | tuple) or not value:
        raise InputError(
            f"object_code_list={value!r}: wanted a list of codes such as [mug,bowl], all, a glob, or a "
            f".json or .txt file{_quote_hint(value)}"
        )
    return [_code(item) for item in value]


def parse_target(value: Any, codes: Iterable[str]) -> dict[str, int]:
    """Returns object code -> quota, for every listed object.

    Args:
        value: `target_count_per_object`: a number, a mapping, or the path of a JSON file with a mapping.
        codes: the resolved object list.

    Raises:
        InputError: a quota below 1 or not whole, an object without one, one for an object not listed.
    """
    codes = list(codes)
    target = read_target(value)
    if isinstance(target, int):
        return dict.fromkeys(codes, target)
    _refuse_strangers(target, codes)
    missing = [code for code in codes if code not in target and DEFAULT not in target]
    if missing:
        raise InputError(
            f"target_count_per_object has no number for {listed(missing)}: wanted one for every listed "
            f"object, or an entry {DEFAULT!r}"
        )
    return {code: target.get(code, target.get(DEFAULT)) for code in codes}


def read_target(value: Any) -> int | dict[str, int]:
    """Returns `target_count_per_object` as a number or a mapping, without knowing the objects.

    Raises:
        InputError: see `parse_target`; a file that is missing or holds no mapping.
    """
    if isinstance(value, str) and not value.strip().isdigit():
        value = _read_json(value)
    if not isinstance(value, dict):
        return _count(value, "target_count_per_object")
    if not value:
        raise InputError("target_count_per_object={}: wanted a number for every listed object, or default")
    return {_target_code(code): _count(number, f"target_count_per_object[{code}]") for code, number in value.items()}


def parse_gpus(value: Any) -> str | list[str]:
    """Returns `gpus` as "auto" or a list with a token for each worker: a device number, an UUID, or "cpu".

    Raises:
        InputError: something else. Whether a device exists is not looked up here.
    """
    if value == "auto":
        return "auto"
    items = list(value) if isinstance(value, list | tuple) else [value]
    if not items:
        raise InputError("gpus=[]: wanted at least one device, such as [0,1], [cpu,cpu] or auto")
    return [_device(item) for item in items]


def _code(item: Any) -> str:
    """Returns one code of a list."""
    if not isinstance(item, str):
        raise InputError(
            f"object_code_list has {item!r}, read as {type(item).__name__}; wanted text{_quote_hint(item)}"
        )
    return item


def _quote_hint(value: Any) -> str:
    """Returns how to quote a value that was meant as a code; nothing for other values."""
    if isinstance(value, bool | int | float):
        return f": quote it as it is spelled, for {value} 'object_code_list=[\"{value}\"]'"
    return ""


def _target_code(code: Any) -> str:
    """Returns a key of the quota mapping."""
    if not isinstance(code, str):
        raise InputError(
            f"target_count_per_object has the key {code!r}, read as {type(code).__name__}; wanted a code "
            f"as text: quote it, or write the mapping into a .json file"
        )
    return code


def _count(value: Any, name: str) -> int:
    """Returns a quota as a whole number above 0; 1e5 is 100000."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    is_digits = isinstance(value, str) and value.strip().isdigit()
    if not (is_number or is_digits) or not float(value).is_integer() or int(value) < 1:
        raise InputError(f"{name}={value!r}: wanted a whole number, 1 or more")
    return int(value)


def _read_json(path: str) -> dict[str, Any]:
    """Returns the mapping in a JSON file; a code that stands there twice is refused."""
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"), object_pairs_hook=_pairs)
    except (OSError, ValueError) as error:
        raise InputError(
            f"target_count_per_object={path!r} cannot be read ({error}): wanted a number, a mapping such as "
            f"{{mug:100,default:50}}, or a JSON file with such a mapping"
        ) from error
    if not isinstance(content, dict):
        raise InputError(f"target_count_per_object={path!r} holds {type(content).__name__}; wanted a mapping")
    return content


def _pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Returns a JSON object as a dict; refuses a name that stands twice."""
    twice = [name for name, count in Counter(name for name, _ in pairs).items() if count > 1]
    if twice:
        raise ValueError(f"{listed(twice)} stands there twice")
    return dict(pairs)


def _refuse_strangers(target: dict[str, int], codes: list[str]) -> None:
    """Refuses a quota for an object that is not in the list: most often a misspelled one."""
    strangers = sorted(set(target) - set(codes) - {DEFAULT})
    if strangers:
        raise InputError(
            f"target_count_per_object names {listed(strangers)}, not in object_code_list"
            f"{hint(strangers[0], codes)}: name listed objects only"
        )


def _device(item: Any) -> str:
    """Returns one device's token."""
    number = item if isinstance(item, int) and not isinstance(item, bool) else None
    if isinstance(item, str) and item.isdigit():
        number = int(item)
    if number is not None and number >= 0:
        return str(number)
    if isinstance(item, str) and (item == "cpu" or item.startswith(("GPU-", "MIG-"))):
        return item
    raise InputError(
        f"gpus has {item!r}: wanted auto, a device number, an UUID (GPU-... or MIG-...), cpu, or a list of "
        f"them, such as [0,1] or [cpu,cpu]"
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


def nearest(name: str, choices: Iterable[str]) -> list[str]:
    """Returns the choices that `name` most likely means, the likeliest first; none where none is near."""
    likeness = {choice: _likeness(name.lower(), choice.lower()) for choice in choices}
    near = [choice for choice, score in likeness.items() if score >= LEAST_LIKE]
    return sorted(near, key=lambda choice: -likeness[choice])[:MOST_NAMED]


def hint(name: str, choices: Iterable[str]) -> str:
    """Returns " (nearest: a, b, c)" with the choices most like `name`, or nothing where none is."""
    near = nearest(name, choices)
    return f" (nearest: {', '.join(near)})" if near else ""


def _likeness(name: str, choice: str) -> float:
    """Returns how alike a name is to a choice or to the last part of a dotted one, 0 to 1."""
    last = choice.rpartition(".")[2]
    return max(difflib.SequenceMatcher(None, name, target).ratio() for target in (choice, last))
