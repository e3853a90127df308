"""Reads what `path=` and `out=` name: a grasp file or a run, and a file to write."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from bimangrasp.errors import InputError
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


def target(out: str, default: Path) -> Path:
    """Returns where a file goes.

    Args:
        out: the setting: a file, or a folder for one of the default's name.
        default: its place where that is empty.
    """
    if not out:
        return default
    return Path(out) / default.name if Path(out).is_dir() else Path(out)


def check_free(path: Path, wanted: str = "", is_wanted: Callable[[Path], bool] | None = None) -> None:
    """Refuses to write over a file.

    Args:
        path: where something is to be written.
        wanted: what may be written over, as in "page of mode=view".
        is_wanted: whether a file is such.

    Raises:
        InputError: something else is there.
    """
    if path.exists() and not (is_wanted and is_wanted(path)):
        raise taken(path, wanted)


def taken(path: Path, wanted: str = "") -> InputError:
    """Returns the refusal to write over a file; `wanted`: what it would have to be, as in "page of mode=view"."""
    other = f" and is no {wanted}" if wanted else ""
    return InputError(f"{path} is there already{other}; move it away, or set out= to another place")


def write(path: Path, data: bytes) -> None:
    """Puts a whole file in place, in a folder that is made for it.

    Raises:
        InputError: it cannot be written there.
    """
    try:
        RunFolder(path.parent).write(path, data)
    except OSError as error:
        raise InputError(f"{path} cannot be written ({error}): set out= to a place that can") from error
