"""Holds the records of a call: its checked request, and what is known of each object while it goes on."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any, NamedTuple

from bimangrasp.files.formats import Ending, Proof
from bimangrasp.files.header import HandTable, Header
from bimangrasp.objects.files import MeshReport, object_scales
from bimangrasp.validation.config import DuplicateThresholds
from scale.engine.devices import Device
from scale.engine.interfaces import RoundFactory, VerdictFactory
from scale.merge.job import DistinctPoses, MergeJob, MergeRound
from scale.merge.round_records import JudgedRound, SkippedRound
from scale.settings import fingerprints
from scale.settings.filters import Accept
from scale.settings.fingerprints import Key
from scale.settings.parsing import ObjectEntry
from scale.settings.schema import SEED_STRIDE, Config
from scale.state.round_table import DONE, JUDGED, SEALED, RoundTable
from scale.store.run_folder import RunFolder
from scale.store.verdict_files import Verdict

if TYPE_CHECKING:
    from scale.store.convex_pieces import SealedPieces


class RunRequest(NamedTuple):
    """A checked call.

    Attributes:
        config: the settings.
        folder: of the run.
        entries: the objects, in order.
        indices: object code -> its index in the list of the whole run, of a part; None where the folder gives them.
        listed_codes: all objects of the run, of which a part has some.
        quotas: object code -> rows wanted.
        meshes: object code -> what its mesh holds.
        devices: one per worker; none where a cluster's nodes give them.
        factory: of the rounds.
        hand: what files say of the hands.
        run_key, acceptance_key: what an earlier call must have had; the latter but for an object's pieces.
        accept: columns -> mask of rows that count.
        verdict_factory: of the validators; None where no row counts by what a simulator says.
        second_factory: of what judges a sample again; None where validators do not simulate on a device.
        dedup: which grasps are near-duplicates; None where all count.
        notes: what a person should hear at the start of devices, kernels and hands.
        pieces: object code -> its sealed convex pieces; a validator finds those that are missing as the run goes on.
    """

    config: Config
    folder: RunFolder
    entries: list[ObjectEntry]
    indices: dict[str, int] | None
    listed_codes: list[str]
    quotas: dict[str, int]
    meshes: dict[str, MeshReport]
    devices: list[Device]
    factory: RoundFactory
    hand: HandTable
    run_key: Key
    acceptance_key: Key
    accept: Accept
    verdict_factory: VerdictFactory | None = None
    second_factory: VerdictFactory | None = None
    dedup: DuplicateThresholds | None = None
    notes: Sequence[str] = ()
    pieces: dict[str, SealedPieces] = {}  # noqa: RUF012 - a request gets its own before the first is entered

    @property
    def validators(self) -> int:
        """How many processes simulate: those asked for, or one for each core or device.

        CPU workers share these cores, but a grasp takes longer to test than to make, so they mostly wait.
        """
        if not self.accept.needs_verdict:
            return 0
        is_on_device = self.config.validation.simulator.is_on_device
        return self.config.validators or (len(set(self.devices)) if is_on_device else len(os.sched_getaffinity(0)))

    @property
    def validator_devices(self) -> list[Device]:
        """Where the validators simulate: on the CPU, or on the workers' devices in turn."""
        if not self.config.validation.simulator.is_on_device:
            return [Device("cpu", "")] * self.validators
        return [self.devices[number % len(self.devices)] for number in range(self.validators)]

    @property
    def validator_threads(self) -> int:
        """CPU threads of each validator: one that simulates on a device uses them for what MuJoCo has to decide."""
        if not self.config.validation.simulator.is_on_device or not self.validators:
            return 1
        return max(1, len(os.sched_getaffinity(0)) // self.validators)

    def acceptance_key_of(self, code: str) -> Key:
        """Returns what decides which rows of an object count."""
        if code not in self.pieces:
            return self.acceptance_key
        return self.acceptance_key | {"pieces_sha256": self.pieces[code].sha256}

    def lacks_pieces(self, code: str) -> bool:
        """Whether an object's convex pieces are still to be found, so that its rounds have to wait."""
        return self.accept.needs_verdict and code not in self.pieces

    def pieces_note(self) -> str:
        """Returns how far the convex pieces are from their meshes; empty where nobody measured it."""
        fits = {code: record["fit"] for code in self.pieces if (record := self.pieces_record(code)) and record["fit"]}
        if not fits:
            return ""
        distances = {code: 1000 * self.largest_scale(code) * fit["distance"] for code, fit in fits.items()}
        worst = max(distances, key=distances.__getitem__)
        return (
            f"convex pieces, which are simulated, are {median(distances.values()):.2g} mm (median object) to "
            f"{distances[worst]:.2g} mm ({worst}) from the mesh, for 95 % of the surface at the largest size"
        )

    def pieces_record(self, code: str) -> dict[str, Any] | None:
        """Returns what the manifest says of an object's convex pieces; None where there are none."""
        if code not in self.pieces:
            return None
        return self.pieces[code].record | {"largest_scale": self.largest_scale(code)}

    def largest_scale(self, code: str) -> float:
        """Returns the largest factor on an object's mesh of which grasps draw one."""
        return max(object_scales(self.config.object, self.meshes[code].extent))

    def seed(self, index: int, round_id: int) -> int:
        """Returns the seed of a round of the object with this index: seed_base + 100000 index + round id."""
        return self.config.seed_base + SEED_STRIDE * index + round_id

    def header(self, code: str = "", index: int = 0, mesh_sha256: str = "") -> Header:
        """Returns what an object's files say, but for the platforms; without a code the part that is common."""
        object_key = fingerprints.object_key(mesh_sha256)
        return Header(code, index, mesh_sha256, self.hand, self.config.energy.weights, self.run_key, object_key)


@dataclass
class ObjectState:
    """One object of a run.

    Attributes:
        code, mesh, mesh_sha256, index: identity.
        quota: rows wanted.
        rounds: its rounds, each in one state.
        expected_sha256: round -> the hash that its shard must have when it is computed again.
        expected_verdict_sha256: round -> the hash that its verdict must have when it is found again.
        verdicts: all that there are on its rounds, of this acceptance key or another.
        journaled: round -> tile and hash that the journal has of it.
        duplicate_shards: further shards of finished rounds, wanted by nobody.
        failures: failed attempts at each round, in this run.
        small_tiles: round -> how many grasps were evaluated at once, where memory was short.
        distinct: the grasps that later ones are compared with, where near-duplicates do not count.
        final: what its verified final file says; None where there is none.
        final_sha256: of that file.
        ended: why no more rounds are wanted: quota, barren, max_rounds, changed, no_pieces; empty while some are.
        is_merging: whether a merge of it is under way.
        is_deduplicating: whether a round's near-duplicates are being looked for.
        notes: what the report should say of it.
    """

    code: str
    mesh: str
    mesh_sha256: str
    index: int
    quota: int
    rounds: RoundTable
    expected_sha256: dict[int, str] = field(default_factory=dict)
    expected_verdict_sha256: dict[int, str] = field(default_factory=dict)
    verdicts: list[Verdict] = field(default_factory=list)
    journaled: dict[int, tuple[int, str]] = field(default_factory=dict)
    duplicate_shards: list[Path] = field(default_factory=list)
    failures: Counter[int] = field(default_factory=Counter)
    small_tiles: dict[int, int] = field(default_factory=dict)
    distinct: DistinctPoses = field(default_factory=DistinctPoses)
    final: Proof | None = None
    final_sha256: str = ""
    ended: str = ""
    is_merging: bool = False
    is_deduplicating: bool = False
    notes: list[str] = field(default_factory=list)

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
        return max(self.rounds.prefix.kept, self.rows_in_file)

    @property
    def missing(self) -> int:
        """Accepted rows that are still to be made; what waits beyond a gap counts as made."""
        return max(0, self.quota - self.rounds.accepted_rows)

    @property
    def has_larger_file(self) -> bool:
        """Whether the final file was made for a larger quota, has enough for this one, and lacks nothing."""
        if self.final is None or self.expected_sha256:
            return False
        return self.final.ending.quota > self.quota <= self.rows_in_file

    def is_expected(self, round_id: int) -> bool:
        """Whether a round is computed or simulated again for what its final file has of it."""
        return round_id in self.expected_sha256 or round_id in self.expected_verdict_sha256

    # ---- the final file

    def ending(self, reason: str, acceptance_key: dict, is_judged: bool) -> Ending:
        """Returns what the final file of the prefix as it stands says of its end."""
        judging = self._judging() if is_judged else None
        rejected = dict(self.rounds.rejected)
        return Ending(acceptance_key, self.quota, reason == "quota", reason, rejected, judging)

    def _judging(self) -> dict[str, Any]:
        """Returns how the verdicts of the prefix are to be read, and on which platforms they were found."""
        in_file = self.final.ending.judging if self.final else None
        judging = dict(in_file or {"platforms": []})
        judging["platforms"] = list(judging["platforms"])
        for round_id in range(self.rounds_in_file, self.rounds.prefix.rounds):
            record = self.rounds.record(round_id)
            if isinstance(record, JudgedRound) and record.verdict:
                judging |= record.verdict.judging
                if record.verdict.platform not in judging["platforms"]:
                    judging["platforms"].append(record.verdict.platform)
        return judging

    def has_final(self, reason: str, acceptance_key: dict, is_judged: bool) -> bool:
        """Whether the final file is the one of the prefix as it stands."""
        if self.final is None:
            return False
        prefix, ending = self.rounds.prefix, self.ending(reason, acceptance_key, is_judged)
        has_its_rows = (self.rounds_in_file, self.rows_in_file) == (prefix.rounds, prefix.kept)
        return has_its_rows and self.final.ending == ending

    def merge_job(self, header: Header, reason: str, acceptance_key: dict, old: Path, accept: Accept) -> MergeJob:
        """Returns the merge of the prefix as it stands; `old` is where the final file is, if there is one."""
        ending = self.ending(reason, acceptance_key, accept.needs_verdict)
        old_file = old if self.final else None
        return MergeJob(header, ending, tuple(self._merge_rounds()), old_file, self.rounds_in_file, accept)

    def _merge_rounds(self) -> Iterator[MergeRound]:
        """Yields the rounds of the prefix, the last one cut at the quota."""
        total = 0
        for round_id in range(self.rounds.prefix.rounds):
            record = self.rounds.record(round_id)
            already = int(self.final.rounds["rounds/kept"][round_id]) if round_id < self.rounds_in_file else 0
            kept = min(record.accepted, self.quota - total)
            total += kept
            # The old file has the rows of its rounds; a shard is read for new rounds, and for a cut one that grows.
            is_new = round_id >= self.rounds_in_file or kept > already
            yield MergeRound(round_id, record, kept, already, is_new and isinstance(record, JudgedRound))

    # ---- files that are no longer needed

    def take_spent_files(self) -> list[Path]:
        """Lets go of the shards that the final file has made superfluous and returns them with their verdicts.

        Shards of rounds whose accepted rows are all kept; where the quota is reached, those beyond the cut as well.
        Verdicts on shards that the object does not have or want any more go with them.
        """
        shards = self._take_spent_shards()
        spent = [verdict for verdict in self.verdicts if self._is_spent(verdict)]
        self.verdicts = [verdict for verdict in self.verdicts if verdict not in spent]
        return shards + [verdict.path for verdict in spent]

    def _is_spent(self, verdict: Verdict) -> bool:
        """Whether a verdict is on a shard that is not there and will not be made again."""
        record = self.rounds.record(verdict.round_id)
        if record is None:
            is_complete = self.final is not None and self.final.ending.complete
            return is_complete and verdict.round_id not in self.expected_sha256
        if isinstance(record, SkippedRound):
            return False
        return record.shard is None or record.sha256 != verdict.shard_sha256

    def _take_spent_shards(self) -> list[Path]:
        spent, self.duplicate_shards = self.duplicate_shards, []
        if self.final is None:
            return spent
        for round_id, record in self.rounds.having(SEALED, JUDGED, DONE).items():
            if record.shard is None:
                continue
            if self.rounds.state(round_id) is DONE and round_id < self.rounds_in_file:
                if self.final.rounds["rounds/kept"][round_id] == record.accepted:
                    spent.append(record.shard)
                    self.rounds.release(round_id)
            elif self.final.ending.complete:
                spent.append(record.shard)
                self.rounds.reopen(round_id)
        return spent

    def why_skipped(self) -> list[dict[str, Any]]:
        """Returns round, seed and traceback of each round that was given up."""
        skipped = sorted(self.rounds.skipped.items())
        return [{"round": r, "seed": record.seed, "traceback": record.reason} for r, record in skipped]
