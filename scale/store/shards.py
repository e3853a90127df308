"""Seals the rounds that workers compute as shards, and verifies shards."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from bimangrasp.files import formats
from bimangrasp.files.header import Header
from bimangrasp.files.schema import CURVE_FIELDS, GRASP_FIELDS, FormatError
from scale.store.run_folder import RunFolder, ShardName, file_name, parse_shard_name, shard_name


class Shard(NamedTuple):
    """A verified shard in memory.

    Attributes:
        path, sha256: of its file.
        header, columns: what it holds.
        round_id, seed: the round.
        rows: all grasps of the round, accepted or not.
        tile_used: how many grasps were evaluated at once.
        platform: where it was computed.
    """

    path: Path
    sha256: str
    header: Header
    columns: dict[str, np.ndarray]
    round_id: int
    seed: int
    rows: int
    tile_used: int
    platform: dict[str, str]


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
    image = formats.shard_image(header, columns)
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
    sealed = read_sealed(path)
    header, columns = formats.read_shard(sealed.image)
    if len(header.platforms) != 1:
        raise FormatError(f"{path} names {len(header.platforms)} platforms, a shard has one")
    round_id, *facts = (int(columns[f"rounds/{name}"][0]) for name in ("round", "seed", "rows", "tile_used"))
    if (sealed.name.code_name, sealed.name.round_id) != (file_name(header.object_code), round_id):
        raise FormatError(f"{path} holds round {round_id} of {header.object_code!r}")
    return Shard(path, sealed.sha256, header, columns, round_id, *facts, header.platforms[0])


class SealedFile(NamedTuple):
    """The bytes of a shard or a verdict, their hash, and what the file's name says."""

    image: bytes
    sha256: str
    name: ShardName


def read_sealed(path: Path) -> SealedFile:
    """Returns a sealed file whose bytes are those that its name promises: HDF5 need not survive damaged ones.

    Raises:
        FormatError: they are others, or the name promises none.
        OSError: it cannot be read.
    """
    image, name = path.read_bytes(), parse_shard_name(path.name)
    sha256 = hashlib.sha256(image).hexdigest()
    if name is None:
        raise FormatError(f"{path} is not named as a shard is")
    if name.sha16 != sha256[:16]:
        raise FormatError(f"{path} has sha256 {sha256[:16]}..., its name says {name.sha16}")
    return SealedFile(image, sha256, name)


def is_damaged(path: Path) -> bool:
    """Whether a sealed file, of a shard or a verdict, is gone or has other bytes than its name promises."""
    try:
        read_sealed(path)
    except (FormatError, OSError):
        return True
    return False
