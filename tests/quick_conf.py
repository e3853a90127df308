"""`conf.load` for tests that are not about it: composing takes a fifth of a second, so equal overrides do it once."""

from __future__ import annotations

import copy
from dataclasses import replace
from functools import cache
from pathlib import Path

import conf
from scale.settings.schema import Config

_composed = cache(lambda overrides: conf.load(list(overrides)))


BUILT_IN = ("shadow", "allegro")
"""The hands that the package brings."""


def load(*overrides: str, output_root: Path | str | None = None) -> Config:
    """Returns settings of one's own; the folder, which is another one in each test, is put in afterwards."""
    config = copy.deepcopy(_composed(overrides))
    return config if output_root is None else replace(config, output_root=str(output_root))
