"""Resume: what earlier calls left, checked against this one, as the ledger to go on from."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any, NamedTuple

from bimangrasp.errors import InputError
from scale.formatting import listed, spans
from scale.merge import job, rejected_file
from scale.merge.final_file import Merged
from scale.settings import fingerprints
from scale.settings.consistency import check_seeds
from scale.settings.fingerprints import Key
from scale.settings.objects import ObjectEntry
from scale.state import recovery_notes, rounds
from scale.state.object_state import Done, ObjectState, Sealed, Skipped
from scale.state.request import RunRequest
from scale.state.scan import FoundShard, Survey
from scale.store.journal import Event
from scale.store.run_folder import RunFolder

ELSEWHERE = "Choose another exp_name, or go back to the folder's settings."


class Resumed(NamedTuple):
    """The ledger of a call, and what a person should hear of the way there.

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


def resume(order: RunRequest, found: Survey) -> Resumed:
    """Returns the ledger that the folder's files prove.

    Raises:
        InputError: the folder was made with other settings or other meshes, or resume=false and it was used.
    """
    if not order.config.resume and found.is_used:
        raise InputError(
            f"resume=false, but the run folder {order.folder.root} was used before: choose another exp_name, or "
            f"leave resume away to go on with it"
        )
    _check_run_keys(order, found)
    known = found.indices()
    added = rounds.assign_indices(known, [entry.code for entry in order.entries])
    check_seeds(order.config.seed_base, 1 + max((known | added).values()), order.config.max_rounds)
    objects = [_object(order, found, entry, (known | added)[entry.code]) for entry in order.entries]
    told = dict(found.told_indices())
    indices = {code: index for code, index in (known | added).items() if code not in told}
    adopted = [(state, r) for state in objects for r in sorted(state.finished) if _is_adopted(state, r)]
    others = _others(found, {entry.code for entry in order.entries}, order.folder)
    notes = recovery_notes.notes(order, found, objects) + _notes(adopted, others)
    return Resumed(objects, indices, adopted, others, _platforms(found), _verdict_platforms(found), notes)


def _is_adopted(state: ObjectState, round_id: int) -> bool:
    """Whether a round counts by a shard of which the journal knows nothing."""
    one = state.finished[round_id]
    return isinstance(one, Done) and one.shard is not None and round_id not in state.told


def _others(found: Survey, codes: set[str], folder: RunFolder) -> dict[str, Any]:
    """Returns the manifest's entries of other objects, from their final files where it was lost."""
    others = {code: entry for code, entry in found.manifest.items() if code not in codes}
    for code, final in found.finals.items():
        if code not in codes and code not in others:
            facts = final.facts() | {"collected": final.proof.sizes["N"], "path": folder.relative(final.path)}
            others[code] = {"index": final.proof.header.object_index} | facts
    return others


def _check_run_keys(order: RunRequest, found: Survey) -> None:
    """Refuses another run key, in the journal or in any file."""
    call = json.loads(json.dumps(order.run_key))
    told = [event["run_key"] for event in found.events if event["event"] == "start"]
    for key in _distinct([*told, *(header.run_key for header in found.headers())]):
        differing = fingerprints.differences(key, call)
        if differing:
            raise fingerprints.refuse(f"the run folder {order.folder.root}", differing, ELSEWHERE)


def _distinct(values: Iterable[Any]) -> list[Any]:
    return list({json.dumps(value, sort_keys=True): value for value in values}.values())


def _platforms(found: Survey) -> list[dict[str, str]]:
    return _distinct(platform for header in found.headers() for platform in header.platforms)


def _verdict_platforms(found: Survey) -> list[dict[str, str]]:
    judging = [final.proof.ending.judging or {} for final in found.finals.values()]
    in_files = [platform for one in judging for platform in one.get("platforms", [])]
    return _distinct([*in_files, *(one.platform for some in found.verdicts.values() for one in some)])


def _notes(adopted: list[tuple[ObjectState, int]], others: dict[str, Any]) -> list[str]:
    """Returns what is taken over and what stays as it is."""
    notes = []
    if adopted:
        named = listed([f"{state.code} {round_id}" for state, round_id in adopted])
        notes.append(f"rounds that were sealed and not yet in the journal are taken over: {named}")
    if others:
        notes.append(f"objects of earlier calls that are not in this one keep their files: {listed(sorted(others))}")
    return notes


def _object(order: RunRequest, found: Survey, entry: ObjectEntry, index: int) -> ObjectState:
    """Returns the state of one object as its files prove it."""
    report = order.meshes[entry.code]
    quota, max_barren = order.quotas[entry.code], order.config.max_barren_rounds
    state = ObjectState(entry.code, str(entry.path.absolute()), report.sha256, index, quota, max_barren)
    events = [event for event in found.events if event.get("code") == entry.code]
    if not order.config.allow_mixed_platform:
        told = [event for event in events if event["event"] in ("sealed", "done", "adopted")]
        state.told = {event["round"]: (event["tile_used"], event["sha256"]) for event in told}
    state.verdicts = list(found.verdicts.get(entry.code, []))
    final, shards = found.finals.get(entry.code), found.shards.get(entry.code, {})
    _check_object_key(order, state, final, shards)
    skips = {event["round"]: event for event in events if event["event"] == "skip"}
    if final is not None and not _must_rebuild(order, state, final, shards, _misfit(order, found, final)):
        state.final, state.final_sha256 = final.proof, final.sha256
        _take_table(order, state, final, shards, skips)
    else:
        final = None
    _take_shards(order, state, shards)
    for round_id, event in skips.items():
        is_open = round_id not in {*state.finished, *state.unjudged, *state.undecided, *state.promised}
        if is_open and not order.config.retry_skipped:
            seed = rounds.seed_of(order.config.seed_base, index, round_id)
            state.finished[round_id] = Skipped(seed, event["traceback"])
    if order.config.retry_skipped:
        state.notes += _retries(state, sorted(skips))
    return state


def _retries(state: ObjectState, skips: list[int]) -> list[str]:
    """Returns what becomes of skipped rounds under retry_skipped=true."""
    passed = [round_id for round_id in state.skipped if round_id < state.rounds_in_file]
    again = [round_id for round_id in skips if round_id not in state.finished and round_id not in state.promised]
    notes = [f"skipped rounds are tried again: {spans(again)}"] if again else []
    if passed:
        notes.append(
            f"skipped rounds that its final file has passed stay skipped: {spans(passed)}; move that file "
            f"away, or choose another exp_name, to have them tried again"
        )
    return notes


def _check_object_key(
    order: RunRequest, state: ObjectState, final: Merged | None, shards: dict[int, list[FoundShard]]
) -> None:
    """Refuses another mesh under the same code."""
    headers = [final.proof.header] if final else []
    headers += [one.header for some in shards.values() for one in some]
    call = fingerprints.object_key(state.mesh_sha256)
    for key in _distinct(header.object_key for header in headers):
        differing = fingerprints.differences(key, call)
        if differing:
            remedy = "Give the mesh another code, or bring the old one back."
            raise fingerprints.refuse(f"object {state.code!r} in {order.folder.root}", differing, remedy)


def _misfit(order: RunRequest, found: Survey, final: Merged) -> str:
    """Returns why an object's file of rejected grasps cannot be gone on with, where they are kept."""
    if not order.config.keep_failed:
        return ""
    code = final.proof.header.object_code
    damage = found.damaged.get(order.folder.rejected(code), "")
    key = order.acceptance_key_of(code)
    return rejected_file.misfit(found.rejects.get(code), damage, final.proof, key, order.config.rejected_cap)


def _must_rebuild(
    order: RunRequest, state: ObjectState, final: Merged, shards: dict[int, list[FoundShard]], misfit: str
) -> bool:
    """Returns whether rows are to be told apart anew and all shards are there for it; refuses where they are not.

    `misfit`: why the file of rejected grasps cannot be gone on with, empty where it can.
    """
    call: Key = order.acceptance_key_of(state.code)
    differing = fingerprints.differences(final.proof.ending.acceptance_key, call)
    if not differing and not misfit:
        return False
    table = final.proof.rounds
    done = [r for r in range(final.proof.sizes["R"]) if table["rounds/state"][r] == job.DONE]
    has_all = all(_named(table["rounds/shard_sha256"][r], shards.get(r, [])) is not None for r in done)
    if differing and not has_all:
        remedy = f"Its shards are gone (keep_intermediate=false), so it cannot be filtered anew. {ELSEWHERE}"
        raise fingerprints.refuse(f"the final file of object {state.code!r}", differing, remedy)
    if not has_all:
        path = order.folder.rejected(state.code)
        raise InputError(
            f"keep_failed=true cannot go on with the rejected grasps of object {state.code!r} in {path}: "
            f"{misfit}, and shards of its rounds are gone (keep_intermediate=false); leave keep_failed away, move "
            f"{final.path} away to have the object made again, or choose another exp_name"
        )
    state.notes += ["filtered anew: " + "; ".join(differing)] if differing else []
    state.notes += [f"its rejected grasps are gathered anew: {misfit}"] if misfit else []
    return True


def _named(sha256: bytes, shards: list[FoundShard]) -> Done | Sealed | None:
    """Returns the shard that a table names, if it is there."""
    return next((one.done for one in shards if one.done.sha256 == sha256.decode()), None)


def _take_table(
    order: RunRequest, state: ObjectState, final: Merged, shards: dict[int, list[FoundShard]], skips: dict[int, Event]
) -> None:
    """Enters the rounds that the final file's table proves.

    A cut round is proven for the quota that the file has; for more its shard is needed, or its hash once again.
    """
    table, platforms = final.proof.rounds, final.proof.header.platforms
    wants_more = state.quota > state.rows_in_file
    for r in range(final.proof.sizes["R"]):
        seed, rows, accepted, kept = (int(table[f"rounds/{name}"][r]) for name in ("seed", "rows", "accepted", "kept"))
        if table["rounds/state"][r] == job.SKIPPED:
            state.finished[r] = Skipped(seed, skips.get(r, {}).get("traceback", "skipped in an earlier call"))
            continue
        named = _named(table["rounds/shard_sha256"][r], shards.get(r, []))
        sha256 = table["rounds/shard_sha256"][r].decode()
        verdict_sha256 = table["rounds/verdict_sha256"][r].decode() if final.proof.is_judged else ""
        verdict = named.verdict if isinstance(named, Done) else None
        is_whole = named is not None and (verdict.sha256 if verdict else "") == verdict_sha256
        if kept < accepted and wants_more and is_whole and order.dedup:
            state.undecided[r] = named
            continue
        if kept < accepted and wants_more and not is_whole:
            state.promised |= {} if named else {r: sha256}
            state.unjudged |= {r: _unjudged(named)} if named else {}
            state.promised_verdicts |= {r: verdict_sha256} if final.proof.is_judged else {}
            continue
        platform, tile_used = platforms[table["rounds/platform"][r]], int(table["rounds/tile_used"][r])
        shard = named.shard if named else None
        facts = (seed, rows, accepted, tile_used, platform, sha256, shard)
        state.finished[r] = Done(*facts, verdict=verdict, verdict_sha256=verdict_sha256)


def _unjudged(one: Done | Sealed) -> Sealed:
    """Returns a shard without what the simulator said of it."""
    return Sealed(one.seed, one.rows, one.tile_used, one.platform, one.sha256, one.shard)


def _take_shards(order: RunRequest, state: ObjectState, shards: dict[int, list[FoundShard]]) -> None:
    """Adopts the shards of rounds that no table has; of several the one at the full tile, then the smallest hash."""
    for round_id, some in sorted(shards.items()):
        known = state.finished.get(round_id) or state.shard_of(round_id)
        if known is None:
            best = min(some, key=lambda one: (-one.done.tile_used, one.done.sha256)).done
            if state.promised.get(round_id, best.sha256) == best.sha256 and round_id < order.config.max_rounds:
                whole = state.undecided if order.dedup else state.finished
                taken = whole if isinstance(best, Done) else state.unjudged
                taken[round_id] = best
                state.promised.pop(round_id, None)
        kept = state.finished.get(round_id) or state.shard_of(round_id)
        if isinstance(kept, Done | Sealed):
            state.spare += [one.done.shard for one in some if one.done.shard != kept.shard]
        _report_broken_determinism(state, round_id, [one.done for one in some])


def _report_broken_determinism(state: ObjectState, round_id: int, some: list[Done | Sealed]) -> None:
    """Notes two hashes of one round at one tile and platform: this must not happen."""
    for a in some:
        like = [b for b in some if a.sha256 < b.sha256 and (a.tile_used, a.platform) == (b.tile_used, b.platform)]
        if like:
            state.notes.append(broken_determinism(round_id, a.sha256, like[0].sha256))
            return


def broken_determinism(round_id: int, one: str, other: str) -> str:
    """Returns the sentence for what must not happen: two hashes of one round at one tile and platform."""
    return (
        f"BROKEN DETERMINISM: round {round_id} was computed twice at one tile and platform, with different bytes "
        f"({one[:16]} and {other[:16]}): these grasps cannot be had again; please report it with the manifest"
    )
