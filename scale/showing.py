"""Which grasps of a run or a file a gallery shows, and what is known of each: accepted or why not, verdict, poses."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np
import yaml

from bimangrasp.dataset import GraspDataset, load
from bimangrasp.errors import InputError
from bimangrasp.grasp_fields import TERMS, VERDICT_FIELDS, FormatError
from bimangrasp.grasp_file import read_verdict
from bimangrasp.grasp_header import text
from bimangrasp.poses import Poses
from bimangrasp.validation.verdict import Reason
from bimangrasp.visualization.exhibits import NOT_TESTED, STAGES, Exhibit
from scale import shards, verdicts
from scale.acceptance import Accept, acceptance
from scale.config import Config, FilterConfig
from scale.deduplication import DUPLICATE
from scale.run_folder import RunFolder, parse_shard_name

ACCEPTED, UNMERGED, SURPLUS = "accepted", "not merged yet", "beyond the quota"
UNTESTED, UNCOMPARED = "not tested yet", "not compared yet"

HOLDS = "holds"
MOST_SHARDS = 8
"""Of an object that are read, the last rounds first: they are there for the rows that do not count."""

Columns = dict[str, np.ndarray]


class Found(NamedTuple):
    """Grasps of one object from one file.

    Attributes:
        code, mesh_sha256, hand_sha256: what they are of.
        source: the file, as the page names it.
        rows: which of its rows.
        columns: theirs; with `pose/...` and `verdict/...` where a simulator has seen them.
        labels: of each, see `Exhibit`.
    """

    code: str
    mesh_sha256: str
    hand_sha256: str
    source: str
    rows: np.ndarray
    columns: Columns
    labels: list[tuple[str, ...]]

    def exhibits(self, shape: int) -> Iterator[Exhibit]:
        """Yields them for a gallery; `shape` is the object's place in it."""
        for i in range(len(self.rows)):
            yield _exhibit(shape, self, i)


@dataclass
class Showing:
    """What is shown.

    Attributes:
        found: by object, in the order of the files.
        notes: what a reader must know.
    """

    found: list[Found] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


class Rules(NamedTuple):
    """What decided which rows count.

    Attributes:
        accept: the filter.
        has_dedup: whether near-duplicates do not count.
    """

    accept: Accept
    has_dedup: bool


def of_files(files: Iterable[Path], root: Path, config: Config, rows: list[int] | None) -> Showing:
    """Returns the grasps of files, each on its own: final ones hold what was accepted, others all of a round.

    Args:
        files: grasp files.
        root: folder that the page's names of files begin below.
        config: what to choose, the filter, and under which protocol verdicts are looked for.
        rows: of each file; None chooses by the settings.
    """
    showing = Showing()
    for path in files:
        grasps = load(path)
        chosen = _chosen(path, grasps, config, rows)
        columns = grasps[chosen].arrays()
        columns |= _verdicts_on(path, chosen, config.validation.name, showing.notes)
        labels = [(ACCEPTED,)] * len(chosen)
        if not _is_final(path):
            labels = labels_of(columns, acceptance(config.filter))
        header = grasps.header(0) if len(grasps) else None
        if header is not None:
            source = path.relative_to(root).as_posix() if path.is_relative_to(root) else path.name
            known = (header.object_code, header.mesh_sha256, header.hand.sha256)
            showing.found.append(Found(*known, source, chosen, columns, labels))
    return showing


def add_shards(showing: Showing, folder: RunFolder, config: Config) -> None:
    """Adds rows of sealed shards that no final file has: those that do not count, with the reason, and the newest."""
    rules = _rules(folder, config, showing.notes)
    of_object: dict[str, list[Path]] = defaultdict(list)
    for path in folder.shard_files():
        of_object[parse_shard_name(path.name).code_name].append(path)
    known = _round_verdicts(folder, showing.notes) if rules.accept.needs_verdict else {}
    for name, paths in sorted(of_object.items()):
        kept = _kept(folder.finals / f"{name}.h5")
        room = config.view.count
        paths.sort(key=lambda path: parse_shard_name(path.name).round_id, reverse=True)
        for path in paths[:MOST_SHARDS]:
            found = _of_shard(path, folder, kept, rules, known, showing.notes)
            if found is not None and room > 0:
                some = _spread(found, room)
                room -= len(some.rows)
                showing.found.append(some)
        if len(paths) > MOST_SHARDS:
            showing.notes.append(
                f"{name}: of {len(paths)} shards only the last {MOST_SHARDS} rounds were looked through"
            )


class Kept(NamedTuple):
    """What an object's final file has.

    Attributes:
        keys: round and row in it of every grasp.
        is_complete: whether the quota is reached.
    """

    keys: frozenset[tuple[int, int]]
    is_complete: bool


def _kept(path: Path) -> Kept:
    if not path.is_file():
        return Kept(frozenset(), False)
    with h5py.File(path, "r") as file:
        keys = zip(file["round"][...].tolist(), file["row"][...].tolist(), strict=True)
        return Kept(frozenset(keys), bool(file.attrs["complete"]))


def _of_shard(
    path: Path, folder: RunFolder, kept: Kept, rules: Rules, known: Mapping[str, Path], notes: list[str]
) -> Found | None:
    """Returns the rows of a shard that the final file lacks; None where it has all, or the shard is gone."""
    try:
        shard = shards.verify(path)
        columns = {name: column for name, column in shard.columns.items() if "/" not in name or _is_of_rows(name)}
        if shard.sha256 in known:
            columns |= read_verdict(known[shard.sha256].read_bytes())[1]
    except FileNotFoundError:  # merged meanwhile: then the final file has what counts of it
        return None
    except (FormatError, OSError) as error:
        notes.append(f"{folder.relative(path)} cannot be read and is left out: {error}")
        return None
    labels = labels_of(columns, rules.accept)
    keys = [(shard.round_id, row) for row in range(shard.rows)]
    fresh = np.array([key not in kept.keys for key in keys])
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
    if rules.has_dedup and kept.keys and key <= max(kept.keys):
        return (DUPLICATE,)
    if kept.is_complete:
        return (SURPLUS,)
    return (UNCOMPARED,) if rules.has_dedup else (ACCEPTED, UNMERGED)


def labels_of(columns: Columns, accept: Accept) -> list[tuple[str, ...]]:
    """Returns for each row "accepted", or every reason for which it does not count, as final files name them."""
    rows = len(columns["object_scale"])
    if accept.needs_verdict and "verdict/reason" not in columns:
        return [(UNTESTED,)] * rows
    reasons = accept.reasons(columns)
    return [tuple(why for why, failed in reasons.items() if failed[row]) or (ACCEPTED,) for row in range(rows)]


def _spread(found: Found, most: int) -> Found:
    """Returns some of the rows, evenly over them, where there are more than `most`."""
    at = np.unique(np.linspace(0, len(found.rows) - 1, min(most, len(found.rows))).round().astype(int))
    columns = {name: column[at] for name, column in found.columns.items()}
    return found._replace(rows=found.rows[at], columns=columns, labels=[found.labels[i] for i in at])


def _chosen(path: Path, grasps: GraspDataset, config: Config, rows: list[int] | None) -> np.ndarray:
    """Returns the rows of a file that are shown, in the order in which they are."""
    count = len(grasps)
    if rows is not None:
        outside = [row for row in rows if not 0 <= row < count]
        if outside:
            raise InputError(f"view.rows has {outside[0]}; {path} has rows 0 to {count - 1}: choose among these")
        return np.array(rows, np.int64)
    order = np.argsort(grasps["energy/total"], kind="stable")  # NaN last
    most = min(config.view.count, count)
    if config.view.choose == "best":
        return order[:most]
    if config.view.choose == "first":
        return np.arange(most)
    return order[np.linspace(0, count - 1, most).round().astype(int)] if count else order


def _is_final(path: Path) -> bool:
    with h5py.File(path, "r") as file:
        return "quota" in file.attrs


def _verdicts_on(path: Path, rows: np.ndarray, protocol: str, notes: list[str]) -> Columns:
    """Returns what `mode=validate` found of these rows of a file; nothing where it was not asked, or of other bytes."""
    run = RunFolder(path.parent.parent)
    beside = [run.judgement(protocol, path.stem), path.with_name(f"{path.stem}.{protocol}.h5")]
    for place in filter(Path.is_file, beside):
        try:
            attributes, columns = read_verdict(place.read_bytes())
        except FormatError as error:
            notes.append(f"{place} cannot be read and is left out: {error}")
            continue
        if text(attributes["grasps_sha256"]) != hashlib.sha256(path.read_bytes()).hexdigest():
            notes.append(f"{place} is about another state of {path.name} and is left out: run mode=validate again")
            continue
        return {name: column[rows] for name, column in columns.items()}
    return {}


def _round_verdicts(folder: RunFolder, notes: list[str]) -> dict[str, Path]:
    """Returns shard hash -> the verdict on it."""
    found = {}
    for path in folder.verdict_files():
        try:
            found[verdicts.verify(path).shard_sha256] = path
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


def _exhibit(shape: int, found: Found, i: int) -> Exhibit:
    """Returns one row for a gallery."""
    columns = found.columns
    energies = {term: float(columns[f"energy/{term}"][i]) for term in TERMS if f"energy/{term}" in columns}
    is_judged = "verdict/reason" in columns
    return Exhibit(
        shape=shape,
        source=found.source,
        number=int(found.rows[i]),
        origin={name: int(columns[name][i]) for name in ("seed", "round", "row")},
        scale=float(columns["object_scale"][i]),
        energies=energies,
        labels=found.labels[i],
        verdict=_verdict(columns, i) if is_judged else NOT_TESTED,
        physics=_physics(columns, i) if is_judged else {},
        stages=_stages(columns, i),
        contact_point=columns["contact/point"][i],
        contact_normal=columns["contact/normal"][i],
    )


def _verdict(columns: Columns, i: int) -> str:
    reason = Reason(int(columns["verdict/reason"][i]))
    return HOLDS if reason is Reason.HELD else reason.name.lower().replace("_", " ")


def _physics(columns: Columns, i: int) -> dict[str, str]:
    """Returns what the simulator found, for people."""
    row = {f.name.partition("/")[2]: columns[f.name][i] for f in VERDICT_FIELDS if f.name.startswith("verdict/")}
    axes = [name for name, held in zip(("+x", "-x", "+y", "-y", "+z", "-z"), row["held"], strict=True) if held]
    loaded = [side for side, bears in zip(("left", "right"), row["bears_load"], strict=True) if bears]
    depths = dict(zip(("hand in object", "hand in hand", "hand in itself"), row["penetration"], strict=True))
    return {
        "withstood pushes": f"{len(axes)} of 6" + (f" ({' '.join(axes)})" if 0 < len(axes) < 6 else ""),
        "object moved": _most(1e3 * row["displacement"], "mm"),
        "object turned": _most(np.degrees(row["rotation"]), "degrees"),
        "bears load": " and ".join(loaded) or "no hand",
        **{name: _most(1e3 * depth, "mm") for name, depth in depths.items()},
    }


def _most(values: np.ndarray, unit: str) -> str:
    finite = np.atleast_1d(values)[np.isfinite(np.atleast_1d(values))]
    return f"{finite.max():.2f} {unit}" if len(finite) else "not tried"


def _stages(columns: Columns, i: int) -> Poses:
    """Returns the poses of a row at all stages; NaN where one is not in the files."""
    parts = []
    for name in Poses._fields:
        grasp = columns[f"hand/{name}"][i]
        stages = np.full((len(STAGES), *grasp.shape), np.nan, np.float32)
        stages[0], stages[2] = columns[f"initial/{name}"][i], grasp
        if f"pose/{name}" in columns:
            stages[1], stages[3] = columns[f"pose/{name}"][i][0], columns[f"pose/{name}"][i][2]
        parts.append(stages)
    return Poses(*parts)
