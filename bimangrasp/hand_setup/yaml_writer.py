"""Writes a hand's config as a commented YAML for people to read and edit, by the template beside this module."""

from __future__ import annotations

import json
import re
from importlib.resources import files

from jinja2 import Environment

from bimangrasp.hand_files.config import HandConfig

_PLAIN = re.compile(r"[A-Za-z_][A-Za-z0-9_.\-]*")
_WORDS = {"true", "false", "null", "yes", "no", "on", "off", "y", "n"}
"""Names that YAML would read as booleans or null."""


def hand_yaml(config: HandConfig, head: str) -> str:
    """Returns the commented YAML of a hand; the lines of `head` become its first comments."""
    environment = Environment(trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True)
    environment.filters |= {"text": _text, "row": _row}
    template = (files("bimangrasp.hand_setup") / "hand.yaml.jinja").read_text(encoding="utf-8")
    return environment.from_string(template).render(hand=config, head=head)


def _row(values: list[float]) -> str:
    return f"[{', '.join(repr(float(value)) for value in values)}]"


def _text(name: str) -> str:
    """Returns a YAML scalar: quoted where YAML could read the plain text as another type."""
    plain = _PLAIN.fullmatch(name) and name.lower() not in _WORDS
    return name if plain else json.dumps(name)
