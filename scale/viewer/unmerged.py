"""Grasps of a run that no final file has, for `mode=view`: those that do not count, with the reason, and the newest."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np
import yaml

from bimangrasp.files.schema import FormatError
from bimangrasp.files.shard_format import read_verdict
from scale.merge import rejected_file
from scale.merge.deduplication import DUPLICATE
from scale.settings.filters import Accept, acceptance
from scale.settings.schema import Config, FilterConfig
from scale.store import shards, verdict_files
from scale.store.run_folder import RunFolder, parse_shard_name
from scale.viewer.cards import ACCEPTED, Columns, Found, Showing, labels_of

UNMERGED, SURPLUS, UNCOMPARED = "not merged yet", "beyond the quota", "not compared yet"
MOST_SHARDS = 8
"""Of an object that are read, the last rounds first: they are there for the rows that do not count."""


class Rules(NamedTuple):
    """What decided which rows count.

    Attributes:
        accept: the filter.
        has_dedup: whether near-duplicates do not count.
    """

    accept: Accept
    has_dedup: bool


def add_others(showing: Showing, folder: RunFolder, config: Config, names: list[str], count: int) -> None:
    """Adds rows of a run that no final file has: those that do not count, with the reason, and the newest.

    Args:
        showing: gains them.
        folder: of the run.
        config: whose filter is taken where the run's own is not known.
        names: of the objects, as files are called.
        count: of each object at most.
    """
    rules = _rules(folder, config, showing.notes)
    of_object: dict[str, list[Path]] = defaultdict(list)
    for path in folder.shard_files():
        of_object[parse_shard_name(path.name).code_name].append(path)
    known = _round_verdicts(folder, showing.notes) if rules.accept.needs_verdict else {}
    for name in names:
        kept, paths, rooms = _kept(folder, name, showing.notes), of_object[name], {True: count, False: count}
        if kept.rejected is not None:
            _add(showing, kept.rejected, rooms)
        paths.sort(key=lambda path: parse_shard_name(path.name).round_id, reverse=True)
        for path in paths[:MOST_SHARDS]:
            found = _of_shard(path, folder, kept, rules, known, showing.notes) if any(rooms.values()) else None
            if found is not None:
                _add(showing, found, rooms)
        if len(paths) > MOST_SHARDS:
            showing.notes.append(f"{name}: of {len(paths)} shards the last {MOST_SHARDS} rounds were looked through")


def _add(showing: Showing, found: Found, rooms: dict[bool, int]) -> None:
    """Adds rows while there is room: for those that count, and for those that do not."""
    for counts, room in rooms.items():
        fitting = [i for i, labels in enumerate(found.labels) if (ACCEPTED in labels) == counts]
        some = found.at(np.array(fitting, np.int64)).some(room)
        if len(some.rows):
            showing.found.append(some)
            rooms[counts] -= len(some.rows)


class Kept(NamedTuple):
    """What the files of an object have that stay when its shards are gone.

    Attributes:
        keys: round and row in it of every grasp in the final file.
        last: the last of them; (-1, -1) where there is none.
        is_complete: whether the quota is reached.
        rejected: the grasps that do not count, where they are kept.
    """

    keys: frozenset[tuple[int, int]]
    last: tuple[int, int]
    is_complete: bool
    rejected: Found | None

    @property
    def all_keys(self) -> frozenset[tuple[int, int]]:
        """Round and row in it of every grasp."""
        return self.keys | (_keys(self.rejected.columns) if self.rejected else frozenset())


def _keys(columns: Columns) -> frozenset[tuple[int, int]]:
    return frozenset(zip(columns["round"].tolist(), columns["row"].tolist(), strict=True))


def _kept(folder: RunFolder, name: str, notes: list[str]) -> Kept:
    path, keys, is_complete = folder.finals / f"{name}.h5", frozenset(), False
    if path.is_file():
        with h5py.File(path, "r") as file:
            keys = _keys({key: file[key][...] for key in ("round", "row")})
            is_complete = bool(file.attrs["complete"])
    rejected = folder.rejects / f"{name}.h5"
    return Kept(
        keys,
        max(keys, default=(-1, -1)),
        is_complete,
        _of_rejects(rejected, folder, notes) if rejected.is_file() else None,
    )


def _of_rejects(path: Path, folder: RunFolder, notes: list[str]) -> Found | None:
    """Returns the grasps of an object that do not count, None where there are none."""
    try:
        found = rejected_file.read(path)
    except (FormatError, OSError) as error:
        notes.append(f"{folder.relative(path)} cannot be read and is left out: {error}")
        return None
    columns = {name: column for name, column in found.columns.items() if _is_of_rows(name)}
    labels = [(found.ending.reasons[reason],) for reason in columns.pop("reject/reason")]
    header, rows = found.header, np.arange(len(labels))
    about = (header.object_code, header.mesh_sha256, header.hand.sha256, folder.relative(path))
    return Found(*about, rows, columns, labels) if labels else None


def _of_shard(
    path: Path, folder: RunFolder, kept: Kept, rules: Rules, known: Mapping[str, Path], notes: list[str]
) -> Found | None:
    """Returns the rows of a shard that the final file lacks; None where it has all, or the shard is gone."""
    try:
        shard = shards.verify(path)
        columns = {name: column for name, column in shard.columns.items() if _is_of_rows(name)}
        if shard.sha256 in known:
            columns |= read_verdict(known[shard.sha256].read_bytes())[1]
    except FileNotFoundError:  # merged meanwhile: then the final file has what counts of it
        return None
    except (FormatError, OSError) as error:
        notes.append(f"{folder.relative(path)} cannot be read and is left out: {error}")
        return None
    labels = labels_of(columns, rules.accept)
    keys = [(shard.round_id, row) for row in range(shard.rows)]
    elsewhere = kept.all_keys
    fresh = np.array([key not in elsewhere for key in keys])
    labels = [_unkept(label, key, kept, rules) for label, key in zip(labels, keys, strict=True)]
    header, rows = shard.header, np.flatnonzero(fresh)
    some = {name: column[rows] for name, column in columns.items()}
    about = (header.object_code, header.mesh_sha256, header.hand.sha256, folder.relative(path))
    return Found(*about, rows, some, [labels[row] for row in rows]) if len(rows) else None


def _is_of_rows(name: str) -> bool:
    return name.partition("/")[0] not in ("rounds", "curve")


def _unkept(labels: tuple[str, ...], key: tuple[int, int], kept: Kept, rules: Rules) -> tuple[str, ...]:
    """Returns the labels of a row that is not in the final file: one that passes the filter says why it is not."""
    if labels != (ACCEPTED,):
        return labels
    if rules.has_dedup and key <= kept.last:
        return (DUPLICATE,)
    if kept.is_complete:
        return (SURPLUS,)
    return (UNCOMPARED,) if rules.has_dedup else (ACCEPTED, UNMERGED)


def _round_verdicts(folder: RunFolder, notes: list[str]) -> dict[str, Path]:
    """Returns shard hash -> the verdict on it."""
    found = {}
    for path in folder.verdict_files():
        try:
            found[verdict_files.verify(path).shard_sha256] = path
        except FileNotFoundError:
            continue
        except (FormatError, OSError) as error:
            notes.append(f"{folder.relative(path)} cannot be read and is left out: {error}")
    return found


def _rules(folder: RunFolder, config: Config, notes: list[str]) -> Rules:
    """Returns what decides in a run which rows count, as its settings say; else as this call's do."""
    try:
        settings: Any = yaml.safe_load(folder.config.read_text(encoding="utf-8"))
        accept = acceptance(FilterConfig(**settings["filter"]))
        return Rules(accept, settings["dedup"]["translation"] is not None)
    except (OSError, yaml.YAMLError, LookupError, TypeError) as error:
        notes.append(f"{folder.config} does not tell the run's filter ({error}); that of this call is used")
        return Rules(acceptance(config.filter), config.dedup.thresholds is not None)
