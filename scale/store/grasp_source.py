"""Finds the grasps that a call is given: a grasp file, or the folder of a run."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from scale.settings.schema import Config
from scale.store.run_folder import RunFolder


class GraspSource(NamedTuple):
    """What a call is given: a run, or a single file.

    Attributes:
        path: a grasp file, or the folder of a run. Neither need be there.
        is_run: which of them.
    """

    path: Path
    is_run: bool

    @property
    def folder(self) -> RunFolder:
        """The folder of the run, or that in which the file is."""
        return RunFolder(self.path if self.is_run else self.path.parent)

    def final_files(self) -> list[Path]:
        """Returns the final files of a run, sorted; none where it has merged nothing yet."""
        return self.folder.final_files() if self.is_run and self.folder.finals.is_dir() else []


def given_path(config: Config) -> Path:
    """Returns `path`, or the run's folder where that is empty."""
    return Path(config.path) if config.path else Path(config.output_root) / config.exp_name


def grasp_source(config: Config) -> GraspSource:
    """Returns what the settings name: a run, by its folder or by its `dataset.h5`, or a single file."""
    path = given_path(config)
    if path == RunFolder(path.parent).dataset:
        return GraspSource(path.parent, is_run=True)
    return GraspSource(path, is_run=path.is_dir())
