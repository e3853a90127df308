"""`conf.load` from plain values for tests that are not about it: composing is slow, so equal overrides do it once."""

from __future__ import annotations

import copy
from dataclasses import replace
from functools import cache
from pathlib import Path

import conf
from scale.settings.schema import Config

PLAIN = ("experiment=null", "filter=none")
"""The values of config.yaml as they stand, and every finite grasp counts, unless a later override chooses others."""
_composed = cache(lambda overrides: conf.load([*PLAIN, *overrides]))

BUILT_IN = ("shadow", "allegro")
"""The hands that the package brings."""


def load(*overrides: str, output_root: Path | str | None = None) -> Config:
    """Returns settings of one's own; the folder, which is another one in each test, is put in afterwards."""
    config = copy.deepcopy(_composed(overrides))
    return config if output_root is None else replace(config, output_root=str(output_root))
