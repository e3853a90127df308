"""Holds what is known of one round: sealed, judged or skipped; decides which of its rows are accepted; reads them."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import numpy as np

from bimangrasp.files import formats
from bimangrasp.files.schema import FormatError
from scale.settings.filters import Accept
from scale.store.events import RoundEvent
from scale.store.run_folder import RunFolder
from scale.store.shards import Shard
from scale.store.verdict_files import Verdict

DUPLICATE = "duplicate"
"""Why a row does not count that is like an earlier one that does."""


@dataclass(frozen=True)
class SealedRound:
    """A round whose shard is verified. Which rows count is not known yet.

    Attributes:
        seed, rows, tile_used, platform: what it was.
        sha256: of its shard.
        shard: where that is; None where the final file has every accepted row, or as many as its quota needs.
    """

    seed: int
    rows: int
    tile_used: int
    platform: dict[str, str]
    sha256: str
    shard: Path | None

    def event(self, kind: type[RoundEvent], code: str, round_id: int, folder: RunFolder, **facts: Any) -> RoundEvent:
        """Returns the journal's event about the round.

        Args:
            kind: of the event.
            code: the object.
            round_id: the round.
            folder: of the run; paths are told relative to it.
            facts: further fields, such as which worker sealed it.
        """
        own = {name: getattr(self, name) for name in ("seed", "rows", "sha256", "tile_used")}
        return kind(code=code, round_id=round_id, shard=folder.relative(self.shard), **own, **facts)


@dataclass(frozen=True)
class JudgedRound(SealedRound):
    """A round of which it is known how many rows count.

    Attributes:
        accepted: rows that count, but for near-duplicates as long as these are not known.
        rejected: reason -> rows that do not count for that; empty where the final file has the round.
        verdict: what the simulator said of it; None where it was not asked, or the final file has it.
        verdict_sha256: of that file; empty where the simulator was not asked.
        duplicates: rows that are like an earlier one and so do not count.
    """

    accepted: int = 0
    rejected: dict[str, int] = field(default_factory=dict)
    verdict: Verdict | None = None
    verdict_sha256: str = ""
    duplicates: tuple[int, ...] = ()

    def without(self, duplicates: tuple[int, ...]) -> JudgedRound:
        """Returns the round when it is known which of its accepted rows are like an earlier one."""
        rejected = self.rejected | {DUPLICATE: len(duplicates)}
        return replace(self, accepted=self.accepted - len(duplicates), rejected=rejected, duplicates=duplicates)

    def unjudged(self) -> SealedRound:
        """Returns the round without what was said of its rows."""
        return SealedRound(**{f.name: getattr(self, f.name) for f in fields(SealedRound)})

    def event(self, kind: type[RoundEvent], code: str, round_id: int, folder: RunFolder, **facts: Any) -> RoundEvent:
        """Returns the journal's event about the round; see `SealedRound.event`."""
        facts |= {"accepted": self.accepted}
        if self.verdict:
            facts |= {"verdict": folder.relative(self.verdict.path), "verdict_sha256": self.verdict_sha256}
        return super().event(kind, code, round_id, folder, **facts)


@dataclass(frozen=True)
class SkippedRound:
    """A round that was given up, with the end of its last traceback; it has no rows and no files."""

    seed: int
    reason: str
    rows: int = 0
    accepted: int = 0
    tile_used: int = 0
    sha256: str = ""
    verdict_sha256: str = ""


def accept_round(shard: Shard, accept: Accept, verdict: Verdict | None = None) -> SealedRound | JudgedRound:
    """Returns the record of a shard, judged where its rows can be: without a simulator, or with its verdict.

    Raises:
        FormatError: the verdict is not about as many rows as the shard has.
    """
    sealed = (shard.seed, shard.rows, shard.tile_used, shard.platform, shard.sha256, shard.path)
    columns = shard.columns
    if not accept.needs_verdict:
        return JudgedRound(*sealed, int(accept(columns).sum()), accept.rejected(columns))
    if verdict is None:
        return SealedRound(*sealed)
    if len(verdict.reason) != shard.rows:
        raise FormatError(f"{verdict.path} has {len(verdict.reason)} rows, its shard {shard.rows}")
    columns = columns | {"verdict/reason": verdict.reason}
    return JudgedRound(*sealed, int(accept(columns).sum()), accept.rejected(columns), verdict, verdict.sha256)


def sealed_columns(record: JudgedRound) -> dict[str, np.ndarray]:
    """Returns the columns of a round that was verified before: the shard's, and the verdict's where there is one.

    Raises:
        FormatError: the bytes of a file are no longer those that were verified.
        OSError: it cannot be read.
    """
    _, columns = formats.read_shard(_verified_image(record.shard, record.sha256))
    if record.verdict is not None:
        _, verdict = formats.read_verdict(_verified_image(record.verdict.path, record.verdict_sha256))
        columns |= verdict
    return columns


def _verified_image(path: Path, sha256: str) -> bytes:
    """Returns the bytes of a file; raises FormatError unless they have this hash."""
    image = path.read_bytes()
    if hashlib.sha256(image).hexdigest() != sha256:
        raise FormatError(f"{path} no longer has the sha256 {sha256}, with which it was verified")
    return image
