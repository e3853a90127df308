"""Seals the rounds that workers compute as shards, and verifies shards."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from bimangrasp.files import shard_format
from bimangrasp.files.header import Header
from bimangrasp.files.schema import CURVE_FIELDS, GRASP_FIELDS, FormatError
from scale.store.run_folder import RunFolder, file_name, parse_shard_name, shard_name


class Shard(NamedTuple):
    """A verified shard in memory."""

    path: Path
    sha256: str
    header: Header
    columns: dict[str, np.ndarray]

    @property
    def round_id(self) -> int:
        """The round that it holds."""
        return int(self.columns["rounds/round"][0])

    @property
    def seed(self) -> int:
        """The seed of that round."""
        return int(self.columns["rounds/seed"][0])

    @property
    def rows(self) -> int:
        """All grasps of the round, accepted or not."""
        return int(self.columns["rounds/rows"][0])

    @property
    def tile_used(self) -> int:
        """How many grasps were evaluated at once."""
        return int(self.columns["rounds/tile_used"][0])

    @property
    def platform(self) -> dict[str, str]:
        """Where it was computed."""
        return self.header.platforms[0]


def round_columns(
    computed: Mapping[str, np.ndarray], seed: int, round_id: int, tile_used: int
) -> dict[str, np.ndarray]:
    """Returns a shard's columns from those that a worker computed.

    Args:
        computed: the row columns without seed, round and row, and the curve's columns without the axis of rounds.
        seed: the round's.
        round_id: the round's.
        tile_used: how many grasps were evaluated at once.
    """
    rows = len(computed["object_scale"])
    columns = {f.name: np.asarray(computed[f.name]) for f in GRASP_FIELDS if f.name in computed}
    columns |= {f.name: np.asarray(computed[f.name])[None] for f in CURVE_FIELDS if f.name in computed}
    columns |= {"seed": np.full(rows, seed, np.int64), "round": np.full(rows, round_id, np.int64)}
    table = {"round": round_id, "seed": seed, "rows": rows}
    small = {"state": 0, "tile_used": tile_used, "platform": 0}
    columns |= {f"rounds/{name}": np.array([value], np.int64) for name, value in table.items()}
    columns |= {f"rounds/{name}": np.array([value], np.int32) for name, value in small.items()}
    return columns | {"row": np.arange(rows, dtype=np.int64)}


def seal(folder: RunFolder, place: Path, header: Header, columns: Mapping[str, np.ndarray]) -> Path:
    """Writes a shard into a worker's folder and returns its path, when it is on the disk."""
    image = shard_format.shard_image(header, columns)
    round_id = int(columns["rounds/round"][0])
    path = place / shard_name(header.object_code, round_id, hashlib.sha256(image).hexdigest())
    folder.write(path, image)
    return path


def verify(path: Path) -> Shard:
    """Returns the shard at `path`, read in full.

    Raises:
        FormatError: its bytes are not those that its name promises, or break the contract.
        OSError: it cannot be read.
    """
    name = parse_shard_name(path.name)
    shard = read(path)
    if name is None:
        raise FormatError(f"{path} is not named as a shard is")
    if (name.code_name, name.round_id) != (file_name(shard.header.object_code), shard.round_id):
        raise FormatError(f"{path} holds round {shard.round_id} of {shard.header.object_code!r}")
    return shard


def is_damaged(path: Path) -> bool:
    """Whether a sealed file, of a shard or a verdict, is gone or has other bytes than its name promises."""
    name = parse_shard_name(path.name)
    try:
        return name is None or hashlib.sha256(path.read_bytes()).hexdigest()[:16] != name.sha16
    except OSError:
        return True


def read(path: Path) -> Shard:
    """Returns the shard-format file at `path`, whatever its name.

    Raises:
        FormatError: its bytes are not those that a shard's name promises, or break the contract.
        OSError: it cannot be read.
    """
    image = path.read_bytes()
    digest = hashlib.sha256(image).hexdigest()
    name = parse_shard_name(path.name)
    if name is not None and name.sha16 != digest[:16]:  # HDF5 need not survive damaged bytes
        raise FormatError(f"{path} has sha256 {digest[:16]}..., its name says {name.sha16}")
    header, columns = shard_format.read_shard(image)
    if len(header.platforms) != 1:
        raise FormatError(f"{path} names {len(header.platforms)} platforms, a shard has one")
    return Shard(path, digest, header, columns)
