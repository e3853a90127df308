"""Describes a grasp file: its header, how its rows end, and both as HDF5 attributes."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, fields
from typing import Any, TypeVar

import h5py
import numpy as np

from bimangrasp.errors import InputError
from bimangrasp.files.schema import FormatError

FORMAT, VERDICT_FORMAT = "bimangrasp-grasps", "bimangrasp-verdicts"
VERSION = 1
LICENSE = "Apache-2.0"
CITATION = "Y. Shao and C. Xiao, Bimanual Grasp Synthesis for Dexterous Robot Hands, IEEE RA-L, 2024"


@dataclass(frozen=True)
class HandTable:
    """Names and contact candidates of a pair of hands. K candidates a hand; a shorter list ends in "" and NaN.

    Attributes:
        name, sha256: the pair of hands.
        joint_names: J names, in the order of `hand/joints`.
        candidate_link: (2, K) names of the links that carry the candidates.
        candidate_position: (2, K, 3) float32, m, link coordinates.
        couplings: joint or tendon -> which joint it follows or which joints share it, see `coupling_rules`; of both
            hands.
    """

    name: str
    sha256: str
    joint_names: tuple[str, ...]
    candidate_link: np.ndarray
    candidate_position: np.ndarray
    couplings: dict[str, dict[str, Any]] = field(default_factory=dict)


@dataclass(frozen=True)
class Header:
    """What a grasp file is about. Nothing in it depends on worker, device number, time, host or path.

    Attributes:
        object_code, object_index: of the object, in the run.
        mesh_sha256: of the object's mesh file.
        hand: the pair of hands.
        energy_weights: name of a weight -> its value.
        run_key, object_key: settings on which the rows of all objects, and of this one, depend.
        platforms: where the rows were computed, without repeats.
    """

    object_code: str
    object_index: int
    mesh_sha256: str
    hand: HandTable
    energy_weights: dict[str, float]
    run_key: dict[str, Any]
    object_key: dict[str, Any]
    platforms: tuple[dict[str, str], ...] = field(default=())


@dataclass(frozen=True)
class Ending:
    """What a final file says of its rows, beside the header: which count, how many are wanted, why they end.

    Attributes:
        acceptance_key: which rows count.
        quota, complete: rows wanted, and whether they are there.
        end_reason: quota, partial, barren or max_rounds.
        rejected: reason -> rows of the rounds in its table that do not count for that.
        judging: how its verdicts are to be read, and `platforms` on which they were found; None where no grasp of
            it was simulated.
    """

    acceptance_key: dict[str, Any]
    quota: int
    complete: bool
    end_reason: str
    rejected: dict[str, int] = field(default_factory=dict)
    judging: dict[str, Any] | None = None


@dataclass(frozen=True)
class RejectsEnding:
    """What a file of rejected grasps says of its rows, beside the header.

    Attributes:
        acceptance_key: which rows count.
        rejected_cap: most rows that the file holds; with as many its table ends in the round of the last.
        reject_reasons: why rows do not count, as `reject/reason` numbers them; of several the first.
        judging: as in `Ending`.
    """

    acceptance_key: dict[str, Any]
    rejected_cap: int
    reject_reasons: tuple[str, ...]
    judging: dict[str, Any] | None = None


AnyEnding = TypeVar("AnyEnding", Ending, RejectsEnding)


def as_json(value: Any) -> str:
    """Returns the text of an attribute that is no text or number."""
    return json.dumps(value, sort_keys=True, ensure_ascii=False)


def header_attributes(header: Header) -> dict[str, Any]:
    """Returns the file attributes of a header; dicts become JSON text."""
    hand = header.hand
    couplings = {"couplings": as_json(hand.couplings)} if hand.couplings else {}
    return {
        "format": FORMAT,
        "format_version": VERSION,
        "object_code": header.object_code,
        "object_index": header.object_index,
        "mesh_sha256": header.mesh_sha256,
        "hand_name": hand.name,
        "hand_sha256": hand.sha256,
        "joint_names": _texts(np.array(hand.joint_names)),
        "candidate_link": _texts(hand.candidate_link),
        "candidate_position": np.asarray(hand.candidate_position, np.float32),
        **couplings,
        "energy_weights": as_json(header.energy_weights),
        "run_key": as_json(header.run_key),
        "object_key": as_json(header.object_key),
        "platforms": as_json(list(header.platforms)),
        "licence": LICENSE,
        "citation": CITATION,
    }


def ending_attributes(ending: Ending | RejectsEnding) -> dict[str, Any]:
    """Returns the file attributes of an ending, by the names of its fields; what is None is left out."""
    return {name: _attribute(value) for name, value in vars(ending).items() if value is not None}


def _attribute(value: Any) -> Any:
    if isinstance(value, dict):
        return as_json(value)
    if isinstance(value, tuple):
        return _texts(np.array(value))
    return np.uint8(value) if isinstance(value, bool) else value


def read_ending(file: h5py.File, kind: type[AnyEnding]) -> AnyEnding:
    """Returns the ending of an open file; a field that the file lacks has its default."""
    known = {f.name: (f.type, file.attrs[f.name]) for f in fields(kind) if f.name in file.attrs}
    return kind(**{name: _READERS.get(annotation, json.loads)(value) for name, (annotation, value) in known.items()})


def _texts(names: np.ndarray) -> np.ndarray:
    """Returns names as fixed-length UTF-8."""
    return np.char.encode(names.astype(np.str_), "utf-8")


def read_header(file: h5py.File, name: str = "") -> Header:
    """Returns the header of an open file.

    Args:
        file: the file.
        name: what a message calls it; its own name where that is empty.

    Raises:
        FormatError: it is no grasp file.
        InputError: it has a newer format.
    """
    attributes = file.attrs
    if text(attributes.get("format", b"")) != FORMAT:
        raise FormatError(f"not a {FORMAT} file")
    if attributes["format_version"] > VERSION:
        raise InputError(
            f"{name or file.filename} has format version {attributes['format_version']}; this program reads up to "
            f"{VERSION}: use the newer program that wrote it"
        )
    hand = HandTable(
        name=text(attributes["hand_name"]),
        sha256=text(attributes["hand_sha256"]),
        joint_names=tuple(text(name) for name in attributes["joint_names"]),
        candidate_link=np.char.decode(attributes["candidate_link"], "utf-8"),
        candidate_position=attributes["candidate_position"],
        couplings=json.loads(attributes.get("couplings", "{}")),
    )
    return Header(
        object_code=text(attributes["object_code"]),
        object_index=int(attributes["object_index"]),
        mesh_sha256=text(attributes["mesh_sha256"]),
        hand=hand,
        energy_weights=json.loads(attributes["energy_weights"]),
        run_key=json.loads(attributes["run_key"]),
        object_key=json.loads(attributes["object_key"]),
        platforms=tuple(json.loads(attributes["platforms"])),
    )


def text(value: Any) -> str:
    """Returns an attribute's value as text."""
    return value.decode() if isinstance(value, bytes) else str(value)


_READERS = {"int": int, "bool": bool, "str": text, "tuple[str, ...]": lambda names: tuple(map(text, names))}
"""Type of a field of an ending -> what reads its attribute; every other is JSON text."""
