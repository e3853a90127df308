"""The ledger: what is known of each object while a run goes on. Built from files and journal, kept by the parent."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from bimangrasp.files.final_format import Ending, Header, Proof
from scale.merge.deduplication import DUPLICATE, DistinctPoses
from scale.merge.job import MergeJob, MergeRound
from scale.settings.filters import Accept
from scale.state import rounds
from scale.state.rounds import Goal, Prefix
from scale.store.run_folder import RunFolder
from scale.store.verdict_files import Verdict


@dataclass(frozen=True)
class Done:
    """A proven round.

    Attributes:
        seed, rows, accepted, tile_used, platform: what it was.
        sha256: of its sealed shard.
        shard: where that is; None where the final file has every accepted row, or as many as its quota needs.
        rejected: reason -> rows of it that do not count for that; empty where the final file has the round.
        verdict: what the simulator said of it; None where it was not asked, or the final file has it.
        verdict_sha256: of that file; empty where the simulator was not asked.
        duplicates: rows that are like an earlier one and so do not count.
    """

    seed: int
    rows: int
    accepted: int
    tile_used: int
    platform: dict[str, str]
    sha256: str
    shard: Path | None
    rejected: dict[str, int] = field(default_factory=dict)
    verdict: Verdict | None = None
    verdict_sha256: str = ""
    duplicates: tuple[int, ...] = ()

    def without(self, duplicates: tuple[int, ...]) -> Done:
        """Returns the round when it is known which of its accepted rows are like an earlier one."""
        rejected = self.rejected | {DUPLICATE: len(duplicates)}
        return replace(self, accepted=self.accepted - len(duplicates), rejected=rejected, duplicates=duplicates)

    def facts(self, code: str, round_id: int, folder: RunFolder) -> dict[str, Any]:
        """Returns the journal's line about a round that has its shard."""
        facts = _facts(self, code, round_id, folder) | {"accepted": self.accepted}
        if self.verdict:
            facts |= {"verdict": folder.relative(self.verdict.path), "verdict_sha256": self.verdict_sha256}
        return facts


@dataclass(frozen=True)
class Sealed:
    """A round whose shard is there and whose verdict is not: the simulator has to be asked.

    Attributes:
        seed, rows, tile_used, platform, sha256, shard: see `Done`.
    """

    seed: int
    rows: int
    tile_used: int
    platform: dict[str, str]
    sha256: str
    shard: Path

    def facts(self, code: str, round_id: int, folder: RunFolder) -> dict[str, Any]:
        """Returns the journal's line about it."""
        return _facts(self, code, round_id, folder)


def _facts(one: Done | Sealed, code: str, round_id: int, folder: RunFolder) -> dict[str, Any]:
    """Returns what the journal says of a shard."""
    facts = {name: getattr(one, name) for name in ("seed", "rows", "sha256", "tile_used")}
    return {"code": code, "round": round_id} | facts | {"shard": folder.relative(one.shard)}


@dataclass(frozen=True)
class Skipped:
    """A round that was given up, with the end of its last traceback."""

    seed: int
    reason: str
    accepted: int = 0


@dataclass
class ObjectState:
    """One object of a run.

    Attributes:
        code, mesh, mesh_sha256, index: identity.
        quota: rows wanted.
        max_barren: so many rounds of the prefix in a row without an accepted row end it; 0 is never.
        finished: round -> what it gave.
        unjudged: round -> its shard, which waits for its verdict.
        undecided: round -> what it gave, near-duplicates among it: that waits for the rounds below.
        in_flight: rounds that workers have.
        promised: round -> the hash it must have when it is computed again.
        promised_verdicts: round -> the hash that its verdict must have when it is found again.
        verdicts: all that there are on its rounds, of this acceptance key or another.
        told: round -> tile and hash that the journal has of it.
        spare: further shards of finished rounds, wanted by nobody.
        failures: failed attempts at each round, in this run.
        final: what its verified final file says; None where there is none.
        final_sha256: of that file.
        ended: why no more rounds are wanted: quota, barren, max_rounds, changed; empty while some are.
        merging: whether a merge of it is under way.
        deciding: whether a round's near-duplicates are being looked for.
        notes: what the report should say of it.
    """

    code: str
    mesh: str
    mesh_sha256: str
    index: int
    quota: int
    max_barren: int = 0
    finished: dict[int, Done | Skipped] = field(default_factory=dict)
    unjudged: dict[int, Sealed] = field(default_factory=dict)
    undecided: dict[int, Done] = field(default_factory=dict)
    distinct: DistinctPoses = field(default_factory=DistinctPoses)
    in_flight: set[int] = field(default_factory=set)
    promised: dict[int, str] = field(default_factory=dict)
    promised_verdicts: dict[int, str] = field(default_factory=dict)
    verdicts: list[Verdict] = field(default_factory=list)
    told: dict[int, tuple[int, str]] = field(default_factory=dict)
    spare: list[Path] = field(default_factory=list)
    failures: Counter[int] = field(default_factory=Counter)
    final: Proof | None = None
    final_sha256: str = ""
    ended: str = ""
    merging: bool = False
    deciding: bool = False
    notes: list[str] = field(default_factory=list)

    @property
    def accepted(self) -> dict[int, int]:
        """Finished round -> accepted rows."""
        return {round_id: one.accepted for round_id, one in self.finished.items()}

    @property
    def goal(self) -> Goal:
        """Where its rounds end."""
        return Goal(self.quota, self.max_barren, self.rounds_in_file)

    @property
    def prefix(self) -> Prefix:
        """The prefix as far as the goal reaches."""
        return rounds.prefix(self.accepted, self.goal)

    @property
    def rows_in_file(self) -> int:
        """Rows of the final file."""
        return self.final.sizes["N"] if self.final else 0

    @property
    def rounds_in_file(self) -> int:
        """Rounds in the table of the final file."""
        return self.final.sizes["R"] if self.final else 0

    @property
    def collected(self) -> int:
        """Rows that the object has: those of its prefix, or of a file that a larger quota left."""
        return max(self.prefix.kept, self.rows_in_file)

    @property
    def has_larger_file(self) -> bool:
        """Whether the final file was made for a larger quota and has enough for this one."""
        return self.final is not None and self.final.ending.quota > self.quota <= self.rows_in_file

    @property
    def skipped(self) -> dict[int, Skipped]:
        """The rounds that were given up."""
        return {r: one for r, one in sorted(self.finished.items()) if isinstance(one, Skipped)}

    def needed(self, batch: int, max_rounds: int) -> Iterator[int]:
        """Yields the rounds to hand out next."""
        under_way = {*self.in_flight, *self.unjudged, *self.undecided}
        return rounds.needed(self.accepted, under_way, self.goal, batch, max_rounds)

    def why_ended(self, max_rounds: int) -> str:
        """Returns why the prefix ends: quota, barren, max_rounds, or partial while it still grows."""
        reached = self.prefix
        if reached.kept == self.quota:
            return "quota"
        if reached.is_barren:
            return "barren"
        return "max_rounds" if reached.rounds >= max_rounds else "partial"

    @property
    def rejected(self) -> dict[str, int]:
        """Reason -> rows of the prefix that do not count for that; a row can have several reasons."""
        total = Counter(self.final.ending.rejected if self.final else {})
        for round_id in range(self.rounds_in_file, self.prefix.rounds):
            one = self.finished[round_id]
            total.update(one.rejected if isinstance(one, Done) else {})
        return dict(total)

    @property
    def judging(self) -> dict[str, Any]:
        """How the verdicts of the prefix are to be read, and on which platforms they were found."""
        told = self.final.ending.judging if self.final else None
        found = dict(told or {"platforms": []})
        found["platforms"] = list(found["platforms"])
        for round_id in range(self.rounds_in_file, self.prefix.rounds):
            one = self.finished[round_id]
            if isinstance(one, Done) and one.verdict:
                found |= one.verdict.judging
                if one.verdict.platform not in found["platforms"]:
                    found["platforms"].append(one.verdict.platform)
        return found

    def ending(self, reason: str, acceptance_key: dict, is_judged: bool) -> Ending:
        """Returns what the final file of the prefix as it stands says of its end."""
        judging = self.judging if is_judged else None
        return Ending(acceptance_key, self.quota, reason == "quota", reason, self.rejected, judging)

    def has_final(self, reason: str, acceptance_key: dict, is_judged: bool) -> bool:
        """Whether the final file is the one of the prefix as it stands."""
        if self.final is None:
            return False
        reached, wanted = self.prefix, self.ending(reason, acceptance_key, is_judged)
        return (self.rounds_in_file, self.rows_in_file) == reached[:2] and self.final.ending == wanted

    def merge_job(self, header: Header, reason: str, acceptance_key: dict, old: Path, accept: Accept) -> MergeJob:
        """Returns the merge of the prefix as it stands; `old` is where the final file is, if there is one."""
        ending = self.ending(reason, acceptance_key, accept.needs_verdict)
        has_old = self.final is not None
        return MergeJob(
            header, ending, tuple(self._merge_rounds()), old if has_old else None, self.rounds_in_file, accept
        )

    def _merge_rounds(self) -> Iterator[MergeRound]:
        total = 0
        for round_id in range(self.prefix.rounds):
            one = self.finished[round_id]
            already = int(self.final.rounds["rounds/kept"][round_id]) if round_id < self.rounds_in_file else 0
            kept = min(one.accepted, self.quota - total)
            total += kept
            if isinstance(one, Skipped):
                yield MergeRound(round_id, one.seed, 0, 0, 0, 0, "", None, None, 0)
                continue
            is_new = round_id >= self.rounds_in_file or kept > already
            facts = (one.rows, one.accepted, kept, one.tile_used, one.sha256, one.platform)
            sources = (one.shard, already, one.verdict and one.verdict.path) if is_new else (None, already, None)
            yield MergeRound(round_id, one.seed, *facts, *sources, one.verdict_sha256, one.duplicates)

    def shard_of(self, round_id: int) -> Done | Sealed | None:
        """Returns a round that has its shard and does not count yet."""
        return self.unjudged.get(round_id) or self.undecided.get(round_id)

    def spent_files(self) -> list[Path]:
        """Takes the shards out that the final file has made superfluous and returns them with their verdicts.

        Shards of rounds whose accepted rows are all kept; where the quota is reached, those beyond the cut as well.
        Verdicts on shards that the object does not have or want any more go with them.
        """
        spent = self._spent_shards()
        spent += [one.path for one in self.verdicts if self._is_spent(one)]
        self.verdicts = [one for one in self.verdicts if not self._is_spent(one)]
        return spent

    def _is_spent(self, verdict: Verdict) -> bool:
        """Whether a verdict is on a shard that is not there and will not be made again."""
        r = verdict.round_id
        known = self.shard_of(r) or self.finished.get(r)
        if known is None:
            return self.final is not None and self.final.ending.complete and r not in self.promised
        return not isinstance(known, Skipped) and (known.shard is None or known.sha256 != verdict.shard_sha256)

    def _spent_shards(self) -> list[Path]:
        spent, self.spare = self.spare, []
        if self.final is None:
            return spent
        for round_id, one in list(self.finished.items()):
            if isinstance(one, Skipped) or one.shard is None:
                continue
            if round_id < self.rounds_in_file:
                if self.final.rounds["rounds/kept"][round_id] == one.accepted:
                    spent.append(one.shard)
                    self.finished[round_id] = replace(one, shard=None, verdict=None)
            elif self.final.ending.complete:
                spent.append(one.shard)
                del self.finished[round_id]
        if self.final.ending.complete:
            for waiting in (self.unjudged, self.undecided):
                spent += [one.shard for one in waiting.values()]
                waiting.clear()
        return spent
