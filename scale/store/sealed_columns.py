"""The columns of rounds that were verified before: the shard's, and those of the verdict on its rows."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Protocol

import numpy as np

from bimangrasp.files.schema import VERDICT_FIELDS, FormatError
from bimangrasp.files.shard_format import ShardColumns


class SealedRound(Protocol):
    """Which files hold a round.

    Attributes:
        shard, shard_sha256: its rows.
        verdict, verdict_sha256: what the simulator said of them; None where rows do not count by that.
    """

    shard: Path
    shard_sha256: str
    verdict: Path | None
    verdict_sha256: str


class SealedColumns:
    """Reads rounds one after the other; for any thread. It knows where the columns of the files before lay."""

    def __init__(self) -> None:
        self._shards, self._verdicts = ShardColumns(), ShardColumns(VERDICT_FIELDS)

    def of(self, one: SealedRound) -> dict[str, np.ndarray]:
        """Returns all columns of a round.

        Raises:
            FormatError: the bytes of a file are no longer those that were verified.
            OSError: it cannot be read.
        """
        columns = self._shards.of(_image(one.shard, one.shard_sha256))
        if one.verdict is not None:
            columns |= self._verdicts.of(_image(one.verdict, one.verdict_sha256))
        return columns


def _image(path: Path, sha256: str) -> bytes:
    """Returns the bytes of a file, which has this hash."""
    image = path.read_bytes()
    if hashlib.sha256(image).hexdigest() != sha256:
        raise FormatError(f"{path} no longer has the sha256 {sha256}, with which it was verified")
    return image
