"""Tells which texts can name a folder, and which name a misspelled one most likely means."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

LEAST_LIKE = 0.6
"""Names that are less alike than this, of 1, are not taken for misspellings of each other."""
MOST_NAMED = 3


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
