"""Takes the meshes and the hands of a run that was made before from the run's own settings, unless they are typed."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from bimangrasp.errors import InputError
from bimangrasp.hand_files.config import HandConfig
from scale.settings.schema import Config
from scale.store.parts import folders_of
from scale.store.path_settings import grasp_source
from scale.store.run_folder import RunFolder

MODES = ("view", "validate", "export")
"""Modes that look at grasps with the meshes and hands that they were made with."""


def with_own_meshes_and_hands(config: Config, typed: Collection[str]) -> Config:
    """Returns settings with `object_root` and `hand` of the run that they name, each where nothing of it is typed.

    Whether meshes and hands are those of the grasps is checked later, by their hashes, whoever names them.

    Args:
        config: the settings.
        typed: keys of the overrides; an experiment may set either.

    Raises:
        InputError: the run's own settings cannot be read.
    """
    keys = {key.lstrip("+").partition(".")[0] for key in typed}
    wanted = {"object_root", "hand"} - keys if config.mode in MODES and "experiment" not in keys else set()
    path = next(_own_settings(config), None) if wanted else None
    return config if path is None else replace(config, **{key: _read(path, key) for key in sorted(wanted)})


def _own_settings(config: Config) -> Iterator[Path]:
    """Yields the files of settings of the run that is named, or that a named file lies in, or of its parts."""
    source = grasp_source(config)
    root = source.folder.root if source.is_run else source.folder.root.parent
    for folder in (RunFolder(root), *folders_of(root).values()):
        if folder.config.is_file() and folder.journal.is_file():
            yield folder.config


def _read(path: Path, key: str) -> Any:
    """Returns a section, or a value, of a file of settings."""
    try:
        own = OmegaConf.load(path)
        if not isinstance(own, DictConfig):
            raise TypeError("no mapping of settings")
        value = own[key]
        if key != "hand":
            return str(value)
        return OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(HandConfig), value))
    except (OSError, OmegaConfBaseException, YAMLError, ValueError, TypeError) as error:
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise InputError(f"{path} does not say {key} of its run ({reason}); type {key}= as the run had it") from error
