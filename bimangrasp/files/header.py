"""What a grasp file says of itself: its header, how its rows end, and both as attributes."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from typing import Any

import h5py
import numpy as np

from bimangrasp.errors import InputError
from bimangrasp.files.schema import FormatError

FORMAT, VERDICT_FORMAT = "bimangrasp-grasps", "bimangrasp-verdicts"
VERSION = 1
LICENCE = "Apache-2.0"
CITATION = "Y. Shao and C. Xiao, Bimanual Grasp Synthesis for Dexterous Robot Hands, IEEE RA-L, 2024"


@dataclass(frozen=True)
class HandTable:
    """What a reader must know of the hands. K contact candidates a hand, a shorter list ends in "" and NaN.

    Attributes:
        name, sha256: the pair of hands.
        joint_names: J names, in the order of `hand/joints`.
        candidate_link: (2, K) names of the links that carry the candidates.
        candidate_position: (2, K, 3) float32, m, link coordinates.
    """

    name: str
    sha256: str
    joint_names: tuple[str, ...]
    candidate_link: np.ndarray
    candidate_position: np.ndarray


@dataclass(frozen=True)
class Header:
    """What shard and final file say of themselves: nothing of worker, device number, time, host or path."""

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
    """What only a final file says of its rows and their end.

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
    """What only a file of grasps that do not count says of its rows and their end.

    Attributes:
        acceptance_key: which rows count.
        cap: most rows that the file holds; with as many its table ends in the round of the last.
        reasons: why rows do not count, as `reject/reason` numbers them; of several the first.
        judging: as in `Ending`.
    """

    acceptance_key: dict[str, Any]
    cap: int
    reasons: tuple[str, ...]
    judging: dict[str, Any] | None = None


def as_json(value: Any) -> str:
    """Returns an attribute that is no text or number."""
    return json.dumps(value, sort_keys=True, ensure_ascii=False)


def header_attributes(header: Header) -> dict[str, Any]:
    """Returns the file attributes of a header; dicts become JSON text."""
    hand = header.hand
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
        "energy_weights": as_json(header.energy_weights),
        "run_key": as_json(header.run_key),
        "object_key": as_json(header.object_key),
        "platforms": as_json(list(header.platforms)),
        "licence": LICENCE,
        "citation": CITATION,
    }


def ending_attributes(ending: Ending) -> dict[str, Any]:
    """Returns the file attributes of an ending."""
    attributes = asdict(ending) | {
        "acceptance_key": as_json(ending.acceptance_key),
        "complete": np.uint8(ending.complete),
        "rejected": as_json(ending.rejected),
        "judging": as_json(ending.judging),
    }
    if ending.judging is None:
        del attributes["judging"]
    return attributes


def rejects_attributes(ending: RejectsEnding) -> dict[str, Any]:
    """Returns the file attributes of the ending of a file of grasps that do not count."""
    attributes = {
        "acceptance_key": as_json(ending.acceptance_key),
        "rejected_cap": ending.cap,
        "reject_reasons": _texts(np.array(ending.reasons)),
    }
    return attributes | ({} if ending.judging is None else {"judging": as_json(ending.judging)})


def read_rejects_ending(file: h5py.File) -> RejectsEnding:
    """Returns the ending of an open file of grasps that do not count."""
    a = file.attrs
    judging = json.loads(a["judging"]) if "judging" in a else None
    reasons = tuple(text(reason) for reason in a["reject_reasons"])
    return RejectsEnding(json.loads(a["acceptance_key"]), int(a["rejected_cap"]), reasons, judging)


def _texts(names: np.ndarray) -> np.ndarray:
    """Returns names as fixed-length UTF-8."""
    return np.char.encode(names.astype(np.str_), "utf-8")


def read_header(file: h5py.File) -> Header:
    """Returns the header of an open file; raises FormatError, or InputError for a newer format."""
    a = file.attrs
    if text(a.get("format", b"")) != FORMAT:
        raise FormatError(f"not a {FORMAT} file")
    if a["format_version"] > VERSION:
        raise InputError(
            f"{file.filename} has format version {a['format_version']}; this program reads up to {VERSION}: "
            f"use the newer program that wrote it"
        )
    names = tuple(text(name) for name in a["joint_names"])
    links = np.char.decode(a["candidate_link"], "utf-8")
    hand = HandTable(text(a["hand_name"]), text(a["hand_sha256"]), names, links, a["candidate_position"])
    weights, run_key, object_key, platforms = (
        json.loads(a[name]) for name in ("energy_weights", "run_key", "object_key", "platforms")
    )
    code, mesh = text(a["object_code"]), text(a["mesh_sha256"])
    return Header(code, int(a["object_index"]), mesh, hand, weights, run_key, object_key, tuple(platforms))


def read_ending(file: h5py.File) -> Ending:
    """Returns the ending of an open final file."""
    a = file.attrs
    key, rejected = json.loads(a["acceptance_key"]), json.loads(a["rejected"])
    judging = json.loads(a["judging"]) if "judging" in a else None
    return Ending(key, int(a["quota"]), bool(a["complete"]), text(a["end_reason"]), rejected, judging)


def text(value: Any) -> str:
    """Returns an attribute's value as text."""
    return value.decode() if isinstance(value, bytes) else str(value)
