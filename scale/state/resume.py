"""Resumes a run: checks what earlier calls left against this one, and returns the objects' states to go on from."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from itertools import count
from typing import Any, NamedTuple

from bimangrasp.errors import InputError
from scale.formatting import listed, spans
from scale.merge import job, rejected_file
from scale.merge.final_file import Merged
from scale.merge.round_records import JudgedRound, SealedRound, SkippedRound
from scale.settings import fingerprints
from scale.settings.fingerprints import Key
from scale.settings.parsing import ObjectEntry
from scale.settings.schema import check_seeds
from scale.state.journal_facts import distinct
from scale.state.records import ObjectState, RunRequest
from scale.state.round_table import DONE, FINISHED, WANTED, RoundTable
from scale.state.scan import FolderScan, ScannedShard, recovery_notes
from scale.store.events import RoundSkipped
from scale.store.run_folder import RunFolder

ELSEWHERE = "Choose another exp_name, or go back to the folder's settings."
Shards = dict[int, list[ScannedShard]]
"""Round -> its shards."""


class Resumed(NamedTuple):
    """The state to go on from, and what a person should hear of the way there.

    Attributes:
        objects: in the order of the call.
        indices: those that the journal lacks.
        adopted: rounds whose shards count and that the journal lacks.
        others: entries of the manifest about objects that are not in the call.
        platforms: on which the folder's rounds were computed.
        verdict_platforms: on which its rounds were simulated.
        notes: for the screen, the log and the manifest.
    """

    objects: list[ObjectState]
    indices: dict[str, int]
    adopted: list[tuple[ObjectState, int]]
    others: dict[str, Any]
    platforms: list[dict[str, str]]
    verdict_platforms: list[dict[str, str]]
    notes: list[str]


def resume(request: RunRequest, scan: FolderScan) -> Resumed:
    """Returns the state that the folder's files prove.

    Raises:
        InputError: the folder was made with other settings or other meshes, or resume=false and it was used.
    """
    if not request.config.resume and scan.is_used:
        raise used_before(request.folder)
    _check_run_keys(request, scan)
    known = scan.indices()
    if request.indices is None:
        indices = known | assign_indices(known, [entry.code for entry in request.entries])
    else:
        indices = known | _listed_indices(request.indices, known, request.folder)
    check_seeds(request.config.seed_base, 1 + max(indices.values(), default=0), request.config.max_rounds)
    objects = [_object(request, scan, entry, indices[entry.code]) for entry in request.entries]
    journaled = dict(scan.journal.indexed)
    new_indices = {code: index for code, index in indices.items() if code not in journaled}
    done = [(state, r, record) for state in objects for r, record in state.rounds.having(DONE).items()]
    adopted = [(state, r) for state, r, record in done if record.shard is not None and r not in state.journaled]
    others = _others(scan, {entry.code for entry in request.entries}, request.folder)
    notes = recovery_notes(request, scan, objects) + _notes(adopted, others)
    platforms = distinct(platform for header in scan.headers() for platform in header.platforms)
    return Resumed(objects, new_indices, adopted, others, platforms, _verdict_platforms(scan), notes)


def assign_indices(known: Mapping[str, int], codes: Iterable[str]) -> dict[str, int]:
    """Returns the lowest free indices for the codes that have none, in their order.

    Gaps are there only where the journal was lost; filling them in the order of the list gives back what it said.
    """
    taken = set(known.values())
    free = (index for index in count() if index not in taken)
    return {code: next(free) for code in codes if code not in known}


def _listed_indices(given: Mapping[str, int], known: Mapping[str, int], folder: RunFolder) -> dict[str, int]:
    """Returns the indices that a part's objects have in the list of the whole run; refuses others than they had."""
    for code, index in given.items():
        if known.get(code, index) != index:
            raise InputError(
                f"object {code!r} has index {known[code]} in {folder.root} and {index} in this call's list: give the "
                "objects in the order that they had, new ones behind them"
            )
    return dict(given)


def used_before(folder: RunFolder) -> InputError:
    """Returns the refusal of a folder that an earlier call has used, for `resume=false`."""
    return InputError(
        f"resume=false, but the run folder {folder.root} was used before: choose another exp_name, or leave resume "
        "away to go on with it"
    )


def _others(scan: FolderScan, codes: set[str], folder: RunFolder) -> dict[str, Any]:
    """Returns the manifest's entries of other objects, from their final files where it was lost."""
    others = {code: entry for code, entry in scan.manifest.items() if code not in codes}
    for code, final in scan.finals.items():
        if code not in codes and code not in others:
            facts = final.facts() | {
                "code": code,
                "collected": final.proof.sizes["N"],
                "path": folder.relative(final.path),
            }
            others[code] = {"index": final.proof.header.object_index} | facts
    return others


def _check_run_keys(request: RunRequest, scan: FolderScan) -> None:
    """Refuses another run key, in the journal or in any file."""
    call = json.loads(json.dumps(request.run_key))
    for key in distinct([*scan.journal.run_keys, *(header.run_key for header in scan.headers())]):
        fingerprints.check(f"the run folder {request.folder.root}", key, call, ELSEWHERE)


def _verdict_platforms(scan: FolderScan) -> list[dict[str, str]]:
    judging = [final.proof.ending.judging or {} for final in scan.finals.values()]
    in_finals = [platform for facts in judging for platform in facts.get("platforms", [])]
    in_verdicts = [verdict.platform for verdicts in scan.verdicts.values() for verdict in verdicts]
    return distinct([*in_finals, *in_verdicts])


def _notes(adopted: list[tuple[ObjectState, int]], others: dict[str, Any]) -> list[str]:
    """Returns what is taken over and what stays as it is."""
    notes = []
    if adopted:
        names = listed([f"{state.code} {round_id}" for state, round_id in adopted])
        notes.append(f"rounds that were sealed and not yet in the journal are taken over: {names}")
    if others:
        notes.append(f"objects of earlier calls that are not in this one keep their files: {listed(sorted(others))}")
    return notes


def _object(request: RunRequest, scan: FolderScan, entry: ObjectEntry, index: int) -> ObjectState:
    """Returns the state of one object as its files prove it."""
    config, sha256 = request.config, request.meshes[entry.code].sha256
    final, shards = scan.finals.get(entry.code), scan.shards.get(entry.code, {})
    _check_object_key(request, entry.code, sha256, final, shards)
    notes: list[str] = []
    if final is not None and _must_rebuild(request, final, shards, _misfit(request, scan, final), notes):
        final = None
    quota = request.quotas[entry.code]
    table = RoundTable(quota, config.max_barren_rounds, final.proof if final else None)
    state = ObjectState(entry.code, str(entry.path.absolute()), sha256, index, quota, table, notes=notes)
    state.journaled = {} if config.allow_mixed_platform else dict(scan.journal.sealed.get(entry.code, {}))
    state.verdicts = list(scan.verdicts.get(entry.code, []))
    skips = scan.journal.skipped.get(entry.code, {})
    if final is not None:
        state.final, state.final_sha256 = final.proof, final.sha256
        _take_table(request, state, shards, skips)
    _take_shards(request, state, shards)
    _take_skips(request, state, skips)
    if config.record:
        _expect_recorded_round(state)
    done = state.rounds.having(DONE).items()
    state.small_tiles = {r: record.tile_used for r, record in done if record.tile_used < config.full_tile}
    return state


def _take_skips(request: RunRequest, state: ObjectState, skips: dict[int, RoundSkipped]) -> None:
    """Enters the rounds that the journal says were given up, unless they are to be tried again."""
    if request.config.retry_skipped:
        state.notes += _retries(state, sorted(skips))
        return
    for round_id, event in skips.items():
        if state.rounds.state(round_id) is WANTED and not state.is_expected(round_id):
            seed = request.seed(state.index, round_id)
            state.rounds.skip(round_id, SkippedRound(seed, event.traceback))


def _retries(state: ObjectState, skips: list[int]) -> list[str]:
    """Returns what becomes of skipped rounds under retry_skipped=true."""
    passed = [round_id for round_id in sorted(state.rounds.skipped) if round_id < state.rounds_in_file]
    again = [r for r in skips if state.rounds.state(r) not in FINISHED and r not in state.expected_sha256]
    notes = [f"skipped rounds are tried again: {spans(again)}"] if again else []
    if passed:
        notes.append(
            f"skipped rounds that its final file has passed stay skipped: {spans(passed)}; move that file "
            f"away, or choose another exp_name, to have them tried again"
        )
    return notes


def _expect_recorded_round(state: ObjectState) -> None:
    """Has round 0 computed again, to the same bytes, so that the way to its grasps can be recorded."""
    record = state.rounds.record(0)
    if not isinstance(record, SealedRound):
        return
    state.expected_sha256[0] = record.sha256
    state.duplicate_shards += [record.shard] if record.shard else []
    state.rounds.reopen(0)


def _check_object_key(request: RunRequest, code: str, sha256: str, final: Merged | None, shards: Shards) -> None:
    """Refuses another mesh under the same code."""
    headers = [final.proof.header] if final else []
    headers += [shard.header for shards_of_round in shards.values() for shard in shards_of_round]
    call = fingerprints.object_key(sha256)
    for key in distinct(header.object_key for header in headers):
        remedy = "Give the mesh another code, or bring the old one back."
        fingerprints.check(f"object {code!r} in {request.folder.root}", key, call, remedy)


def _misfit(request: RunRequest, scan: FolderScan, final: Merged) -> str:
    """Returns why an object's file of rejected grasps cannot be gone on with, where they are kept."""
    if not request.config.keep_failed:
        return ""
    code = final.proof.header.object_code
    damage = scan.damaged.get(request.folder.rejected(code), "")
    key = request.acceptance_key_of(code)
    return rejected_file.misfit(scan.rejects.get(code), damage, final.proof, key, request.config.rejected_cap)


def _must_rebuild(request: RunRequest, final: Merged, shards: Shards, misfit: str, notes: list[str]) -> bool:
    """Returns whether rows are to be told apart anew and all shards are there for it; refuses where they are not.

    Args:
        request: the call.
        final: the object's final file.
        shards: of the object.
        misfit: why the file of rejected grasps cannot be gone on with, empty where it can.
        notes: gains what is done and why.
    """
    code = final.proof.header.object_code
    call: Key = request.acceptance_key_of(code)
    differing = fingerprints.differences(final.proof.ending.acceptance_key, call)
    if not differing and not misfit:
        return False
    table = final.proof.rounds
    done = [r for r in range(final.proof.sizes["R"]) if table["rounds/state"][r] == job.DONE]
    has_all = all(_named(table["rounds/shard_sha256"][r], shards.get(r, [])) is not None for r in done)
    if differing and not has_all:
        remedy = f"Its shards are gone (keep_intermediate=false), so it cannot be filtered anew. {ELSEWHERE}"
        raise fingerprints.refuse(f"the final file of object {code!r}", differing, remedy)
    if not has_all:
        raise InputError(
            f"keep_failed=true cannot go on with the rejected grasps of object {code!r} in "
            f"{request.folder.rejected(code)}: {misfit}, and shards of its rounds are gone "
            f"(keep_intermediate=false); leave keep_failed away, move {final.path} away to have the object made "
            f"again, or choose another exp_name"
        )
    notes += ["filtered anew: " + "; ".join(differing)] if differing else []
    notes += [f"its rejected grasps are gathered anew: {misfit}"] if misfit else []
    return True


def _named(sha256: bytes, shards: list[ScannedShard]) -> SealedRound | None:
    """Returns the shard that a table names, if it is there."""
    return next((shard.record for shard in shards if shard.record.sha256 == sha256.decode()), None)


def _take_table(request: RunRequest, state: ObjectState, shards: Shards, skips: dict[int, RoundSkipped]) -> None:
    """Enters the rounds that the final file's table proves.

    A cut round is proven for the quota that the file has; for more its shard is needed, or its hash once again.
    """
    table = state.final.rounds
    wants_more = state.quota > state.rows_in_file
    for r in range(state.rounds_in_file):
        if table["rounds/state"][r] == job.SKIPPED:
            reason = skips[r].traceback if r in skips else "skipped in an earlier call"
            state.rounds.skip(r, SkippedRound(int(table["rounds/seed"][r]), reason))
            continue
        shard = _named(table["rounds/shard_sha256"][r], shards.get(r, []))
        is_cut = table["rounds/kept"][r] < table["rounds/accepted"][r]
        if is_cut and wants_more and not _is_whole(state, r, shard):
            _expect_cut_round(state, r, shard)
        elif is_cut and wants_more and request.dedup:
            state.rounds.judge(r, shard)
        else:
            state.rounds.finish(r, _proven(state, r, shard))


def _verdict_sha256(state: ObjectState, round_id: int) -> str:
    """Returns the hash of a round's verdict as the final file's table has it; empty where it was not simulated."""
    return state.final.rounds["rounds/verdict_sha256"][round_id].decode() if state.final.is_judged else ""


def _is_whole(state: ObjectState, round_id: int, shard: SealedRound | None) -> bool:
    """Whether a round of the table has its shard, and the verdict on it."""
    verdict = shard.verdict if isinstance(shard, JudgedRound) else None
    return shard is not None and (verdict.sha256 if verdict else "") == _verdict_sha256(state, round_id)


def _expect_cut_round(state: ObjectState, round_id: int, shard: SealedRound | None) -> None:
    """Has a cut round computed again where its shard is gone, and simulated again where only its verdict is."""
    if shard is None:
        state.expected_sha256[round_id] = state.final.rounds["rounds/shard_sha256"][round_id].decode()
    else:
        state.rounds.seal(round_id, shard.unjudged() if isinstance(shard, JudgedRound) else shard)
    if state.final.is_judged:
        state.expected_verdict_sha256[round_id] = _verdict_sha256(state, round_id)


def _proven(state: ObjectState, round_id: int, shard: SealedRound | None) -> JudgedRound:
    """Returns a done round as the final file's table has it, with its shard where that is still there."""
    table, platforms = state.final.rounds, state.final.header.platforms
    return JudgedRound(
        int(table["rounds/seed"][round_id]),
        int(table["rounds/rows"][round_id]),
        int(table["rounds/tile_used"][round_id]),
        platforms[table["rounds/platform"][round_id]],
        table["rounds/shard_sha256"][round_id].decode(),
        shard.shard if shard else None,
        int(table["rounds/accepted"][round_id]),
        verdict=shard.verdict if isinstance(shard, JudgedRound) else None,
        verdict_sha256=_verdict_sha256(state, round_id),
    )


def _take_shards(request: RunRequest, state: ObjectState, shards: Shards) -> None:
    """Adopts the shards of rounds that no table has; of several the one at the full tile, then the smallest hash."""
    for round_id, candidates in sorted(shards.items()):
        records = [shard.record for shard in candidates]
        if state.rounds.state(round_id) is WANTED and round_id < request.config.max_rounds:
            best = min(records, key=lambda record: (-record.tile_used, record.sha256))
            if state.expected_sha256.get(round_id, best.sha256) == best.sha256:
                state.expected_sha256.pop(round_id, None)
                state.rounds.enter(round_id, best, request.dedup is not None)
        kept = state.rounds.record(round_id)
        if isinstance(kept, SealedRound):
            state.duplicate_shards += [record.shard for record in records if record.shard != kept.shard]
        _report_broken_determinism(state, round_id, records)


def _report_broken_determinism(state: ObjectState, round_id: int, records: list[SealedRound]) -> None:
    """Notes two hashes of one round at one tile and platform: this must not happen."""
    for a in records:
        like = [b for b in records if a.sha256 < b.sha256 and (a.tile_used, a.platform) == (b.tile_used, b.platform)]
        if like:
            state.notes.append(broken_determinism(round_id, a.sha256, like[0].sha256))
            return


def broken_determinism(round_id: int, sha256: str, other: str) -> str:
    """Returns the sentence for what must not happen: two hashes of one round at one tile and platform."""
    return (
        f"BROKEN DETERMINISM: round {round_id} was computed twice at one tile and platform, with different bytes "
        f"({sha256[:16]} and {other[:16]}): these grasps cannot be had again; please report it with the manifest"
    )
