"""Sums up the grasp files of a run: how the energies are distributed, how they fell, what was rejected."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from bimangrasp.energy_terms import TERMS
from bimangrasp.errors import InputError
from bimangrasp.files.header import text
from bimangrasp.files.reader import HeldError, opened
from scale.screen import stage
from scale.store import shards
from scale.store.run_folder import RunFolder, parse_shard_name

GRASPS = 200_000  # read for the distributions; more of them change no line that a person could see
ROUNDS = 400  # read for the curves
FILES = 100  # read for either; of the others the table of objects needs a column alone
SHARDS = 200  # opened, where no final file has their rounds yet


@dataclass
class FileStatistics:
    """The sum of many files.

    Attributes:
        source: what the distributions are of, in words.
        grasps, grasps_read: how many grasps these files have, and how many were read: every k-th of a file.
        energies: term -> finite values of the grasps that were read.
        rounds, rounds_read: how many rounds have a curve, and how many were read.
        step: steps made at each point of the curves.
        curves: term -> (round, point, 3) quartiles.
        acceptance: (round, point) share of proposals accepted since the point before.
        median_total: object code -> median of the total energy of its grasps.
        rejected: object code -> reason -> rows, as its final file says.
        unreadable: file that could not be read -> why.
        held: files that were open elsewhere for writing, in words: nothing is wrong with them.
    """

    source: str = ""
    grasps: int = 0
    grasps_read: int = 0
    energies: dict[str, np.ndarray] = field(default_factory=dict)
    rounds: int = 0
    rounds_read: int = 0
    step: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))
    curves: dict[str, np.ndarray] = field(default_factory=dict)
    acceptance: np.ndarray = field(default_factory=lambda: np.zeros((0, 0)))
    median_total: dict[str, float] = field(default_factory=dict)
    rejected: dict[str, dict[str, int]] = field(default_factory=dict)
    unreadable: dict[str, str] = field(default_factory=dict)
    held: list[str] = field(default_factory=list)


def statistics_of(folders: Iterable[RunFolder]) -> FileStatistics:
    """Returns what the files of a run tell in sum. Those that vanish meanwhile were merged, and are left out.

    Args:
        folders: the run's, or those of its parts, which may be at work.
    """
    folders = list(folders)
    reader, finals = _Reader(), [path for folder in folders for path in folder.final_files()]
    reader.read(finals, len(finals), "final files")
    names = [(parse_shard_name(path.name), path) for folder in folders for path in folder.shard_files()]
    waiting = [path for name, path in names if name.round_id >= reader.merged.get(name.code_name, 0)]
    reader.read(_evenly(waiting, SHARDS), len(waiting), "sealed rounds that no final file has yet, accepted or not")
    return reader.result()


def _evenly(items: Sequence[Any], most: int) -> list[Any]:
    """Returns so many of some items, from the first to the last."""
    chosen = np.linspace(0, len(items) - 1, min(most, len(items))).round().astype(int)
    return [items[i] for i in chosen]


class _Reader:
    """Adds file to file. Distributions are of the first kind of file that has grasps, curves are of all kinds.

    Attributes:
        merged: name of each file that was read, without its ending -> how many rounds it has.
    """

    def __init__(self) -> None:
        self.merged: dict[str, int] = {}
        self._statistics = FileStatistics()
        self._energies: dict[str, list[np.ndarray]] = {term: [np.zeros(0)] for term in TERMS}
        self._curves: list[dict[str, np.ndarray]] = []

    def read(self, paths: list[Path], among: int, source: str) -> None:
        """Reads files of one kind, which were chosen among so many; a few of many files in depth."""
        is_first, deep = not self._statistics.grasps, set(_evenly(paths, FILES))
        for path in self._going_through(paths, source):
            rounds, grasps = (ROUNDS // len(deep), GRASPS // len(deep) * is_first) if path in deep else (0, 0)
            try:
                self._add(path, rounds, grasps, is_first)
            except HeldError as error:
                self._statistics.held.append(str(error))
            except (InputError, OSError) as error:
                if path.exists():
                    self._statistics.unreadable[str(path)] = str(error)
        if is_first and self._statistics.grasps:
            share = "" if len(paths) == among else f" ({len(paths)} of {among} read)"
            self._statistics.source = source + share

    @staticmethod
    def _going_through(paths: list[Path], source: str) -> Iterator[Path]:
        """Yields files, and speaks of it."""
        with stage(f"reading {source}", len(paths), "files") as reading:
            for path in paths:
                yield path
                reading.advance()

    def _add(self, path: Path, rounds: int, grasps: int, is_first: bool) -> None:
        """Takes in what a file says of itself, and so many of its rounds and grasps."""
        if parse_shard_name(path.name) and path.exists() and shards.is_damaged(path):
            raise InputError(f"{path} is damaged: its bytes are not those of its name")  # HDF5 need not survive them
        with opened(path) as file:
            done = np.flatnonzero(file["rounds/state"][:] == 0)
            self.merged[path.stem] = len(file["rounds/state"])
            self._statistics.rounds += len(done)
            if is_first:
                self._add_summary(file)
            if grasps:
                self._add_energies(file, grasps)
            if rounds and len(done) and file["curve/step"].shape[1]:
                self._add_curves(file, _evenly(done.tolist(), rounds))

    def _add_summary(self, file: h5py.File) -> None:
        """Takes in how many grasps a file has, their median energy, and what it says of those that do not count."""
        code, total = text(file.attrs["object_code"]), file["energy/total"][:]
        self._statistics.grasps += len(total)
        if "rejected" in file.attrs:
            self._statistics.rejected[code] = json.loads(file.attrs["rejected"])
        if "end_reason" in file.attrs and len(total):
            self._statistics.median_total[code] = float(np.median(total))

    def _add_energies(self, file: h5py.File, most: int) -> None:
        """Takes in the energies of every k-th grasp."""
        rows = len(file["energy/total"])
        stride = max(1, -(-rows // most))
        self._statistics.grasps_read += len(range(0, rows, stride))
        for term in TERMS:
            values = file[f"energy/{term}"][::stride].astype(float)
            self._energies[term].append(values[np.isfinite(values)])

    def _add_curves(self, file: h5py.File, chosen: list[int]) -> None:
        """Takes in the curves of some rounds."""
        curves = {name: file[f"curve/{name}"][chosen] for name in ("step", "acceptance", *TERMS)}
        if self._curves and curves["step"].shape[1] != self._curves[0]["step"].shape[1]:
            raise ValueError("its curves have other steps than those of the other files")
        self._statistics.rounds_read += len(chosen)
        self._curves.append(curves)

    def result(self) -> FileStatistics:
        """Returns the sum."""
        statistics = self._statistics
        statistics.energies = {term: np.concatenate(parts) for term, parts in self._energies.items()}
        if self._curves:
            joined = {name: np.concatenate([curves[name] for curves in self._curves]) for name in self._curves[0]}
            statistics.step, statistics.acceptance = joined["step"][0], joined["acceptance"]
            statistics.curves = {term: joined[term] for term in TERMS}
        return statistics
