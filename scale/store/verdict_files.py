"""Seals a simulator's verdicts on rounds, verifies them, and chooses the verdict on a shard."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from bimangrasp.files.formats import read_verdict, verdict_image
from bimangrasp.files.header import text
from bimangrasp.files.schema import Columns, FormatError
from scale.store.run_folder import RunFolder, file_name, shard_name
from scale.store.shards import read_sealed

if TYPE_CHECKING:  # the settings load the optimizer, which validators do without
    from scale.settings.fingerprints import Key


class Verdict(NamedTuple):
    """A verified verdict on a round.

    Attributes:
        path, sha256: of its file.
        code, round_id: the round.
        shard_sha256: of the shard whose rows it is about.
        acceptance_key: under which it was found.
        platform: where.
        judging: how its columns are to be read.
        reason: why each row fails; 0 where it holds.
        links: of a hand, on the axis L of the columns.
    """

    path: Path
    sha256: str
    code: str
    round_id: int
    shard_sha256: str
    acceptance_key: Key
    platform: dict[str, str]
    judging: dict[str, Any]
    reason: np.ndarray
    links: int


def seal(folder: RunFolder, place: Path, about: Mapping[str, Any], columns: Columns) -> Path:
    """Writes a verdict into a validator's folder and returns its path, when it is on the disk.

    Args:
        folder: of the run.
        place: the validator's.
        about: the attributes of `Verdict`, by name.
        columns: `VERDICT_FIELDS`, a row for each row of the shard.
    """
    image = verdict_image(about, columns)
    path = place / shard_name(about["code"], about["round_id"], hashlib.sha256(image).hexdigest())
    folder.write(path, image)
    return path


def verify(path: Path) -> Verdict:
    """Returns the verdict at `path`, read in full.

    Raises:
        FormatError: its bytes are not those that its name promises, or break the contract.
        OSError: it cannot be read.
    """
    image, sha256, name = read_sealed(path)
    attributes, columns = read_verdict(image)
    try:
        code, round_id = text(attributes["code"]), int(attributes["round_id"])
        shard_sha256 = text(attributes["shard_sha256"])
        key, platform, judging = (json.loads(attributes[part]) for part in ("acceptance_key", "platform", "judging"))
    except (KeyError, ValueError) as error:
        raise FormatError(f"{path} does not say what it is about: {error}") from error
    if (name.code_name, name.round_id) != (file_name(code), round_id):
        raise FormatError(f"{path} holds a verdict on round {round_id} of {code!r}")
    reason, links = columns["verdict/reason"].copy(), columns["verdict/link_distance"].shape[2]
    return Verdict(path, sha256, code, round_id, shard_sha256, key, platform, judging, reason, links)


def on(sha256: str, verdicts: Iterable[Verdict], key: Key) -> Verdict | None:
    """Returns the verdict on a shard under an acceptance key, None without one; of several the smallest hash."""
    fitting = [verdict for verdict in verdicts if verdict.shard_sha256 == sha256 and verdict.acceptance_key == key]
    return min(fitting, key=lambda verdict: verdict.sha256, default=None)
