"""Resume: what earlier calls left, checked against this one, as the ledger to go on from."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

from bimangrasp.errors import InputError
from scale import keys, merge, rounds
from scale.door import Order
from scale.journal import Event
from scale.keys import Key
from scale.ledger import Done, ObjectState, Skipped
from scale.objects import ObjectEntry
from scale.ranges import check_seeds
from scale.survey import FoundFinal, FoundShard, Survey

ELSEWHERE = "Choose another exp_name, or go back to the folder's settings."


class Resumed(NamedTuple):
    """The ledger of a call, and what a person should hear of the way there.

    Attributes:
        objects: in the order of the call.
        indices: those that this call adds.
        platforms: on which the folder's rounds were computed.
        notes: for the screen, the log and the manifest.
    """

    objects: list[ObjectState]
    indices: dict[str, int]
    platforms: list[dict[str, str]]
    notes: list[str]


def resume(order: Order, found: Survey) -> Resumed:
    """Returns the ledger that the folder's files prove.

    Raises:
        InputError: the folder was made with other settings or other meshes, or resume=false and it was used.
    """
    if not order.config.resume and (found.events or found.finals or found.shards):
        raise InputError(
            f"resume=false, but the run folder {order.folder.root} was used before: choose another exp_name, or "
            f"leave resume away to go on with it"
        )
    _check_run_keys(order, found)
    known = found.indices()
    added = rounds.assign_indices(known, [entry.code for entry in order.entries])
    check_seeds(order.config.seed_base, 1 + max((known | added).values()), order.config.max_rounds)
    objects = [_object(order, found, entry, (known | added)[entry.code]) for entry in order.entries]
    return Resumed(objects, added, _platforms(found), _notes(order, found))


def _check_run_keys(order: Order, found: Survey) -> None:
    """Refuses another run key, in the journal or in any file."""
    call = json.loads(json.dumps(order.run_key))
    told = [event["run_key"] for event in found.events if event["event"] == "start"]
    for key in _distinct([*told, *(header.run_key for header in found.headers())]):
        differing = keys.differences(key, call)
        if differing:
            raise keys.refuse(f"the run folder {order.folder.root}", differing, ELSEWHERE)


def _distinct(values: Iterable[Any]) -> list[Any]:
    return list({json.dumps(value, sort_keys=True): value for value in values}.values())


def _platforms(found: Survey) -> list[dict[str, str]]:
    return _distinct(platform for header in found.headers() for platform in header.platforms)


def _notes(order: Order, found: Survey) -> list[str]:
    """Returns what was found and what stays as it is."""
    notes = [f"{path} is damaged and set aside: {reason}" for path, reason in found.damaged.items()]
    if found.bad_lines:
        notes.append(f"{found.bad_lines} lines of {order.folder.journal} cannot be read; the files tell the rest")
    left = sorted(set(found.finals) - {entry.code for entry in order.entries})
    if left:
        notes.append(f"objects of earlier calls that are not in this one keep their files: {', '.join(left)}")
    return notes


def _object(order: Order, found: Survey, entry: ObjectEntry, index: int) -> ObjectState:
    """Returns the state of one object as its files prove it."""
    report = order.meshes[entry.code]
    state = ObjectState(entry.code, str(entry.path.absolute()), report.sha256, index, order.quotas[entry.code])
    final, shards = found.finals.get(entry.code), found.shards.get(entry.code, {})
    _check_object_key(order, state, final, shards)
    skips = {e["round"]: e for e in found.events if e["event"] == "skip" and e["code"] == entry.code}
    if final is not None and not _must_rebuild(order, state, final, shards):
        state.final, state.final_sha256 = final.proof, final.sha256
        _take_table(state, final, shards, skips)
    else:
        final = None
    _take_shards(order, state, shards)
    for round_id, event in skips.items():
        if round_id not in state.finished and round_id not in state.promised:
            state.finished[round_id] = Skipped(event["seed"], event["traceback"])
    return state


def _check_object_key(
    order: Order, state: ObjectState, final: FoundFinal | None, shards: dict[int, list[FoundShard]]
) -> None:
    """Refuses another mesh under the same code."""
    headers = [final.proof.header] if final else []
    headers += [one.header for some in shards.values() for one in some]
    call = keys.object_key(state.mesh_sha256)
    for key in _distinct(header.object_key for header in headers):
        differing = keys.differences(key, call)
        if differing:
            remedy = "Give the mesh another code, or bring the old one back."
            raise keys.refuse(f"object {state.code!r} in {order.folder.root}", differing, remedy)


def _must_rebuild(order: Order, state: ObjectState, final: FoundFinal, shards: dict[int, list[FoundShard]]) -> bool:
    """Returns whether the filter was changed and the shards of all rounds are there; refuses where they are not."""
    call: Key = json.loads(json.dumps(order.acceptance_key))
    differing = keys.differences(final.proof.ending.acceptance_key, call)
    if not differing:
        return False
    table = final.proof.rounds
    done = [r for r in range(final.proof.sizes["R"]) if table["rounds/state"][r] == merge.DONE]
    if any(_named(table["rounds/shard_sha256"][r], shards.get(r, [])) is None for r in done):
        remedy = f"Its shards are gone (keep_intermediate=false), so it cannot be filtered anew. {ELSEWHERE}"
        raise keys.refuse(f"the final file of object {state.code!r}", differing, remedy)
    state.notes.append("filtered anew: " + "; ".join(differing))
    return True


def _named(sha256: bytes, shards: list[FoundShard]) -> Done | None:
    """Returns the shard that a table names, if it is there."""
    return next((one.done for one in shards if one.done.sha256 == sha256.decode()), None)


def _take_table(
    state: ObjectState, final: FoundFinal, shards: dict[int, list[FoundShard]], skips: dict[int, Event]
) -> None:
    """Enters the rounds that the final file's table proves.

    A cut round is proven for the quota that the file has; for more its shard is needed, or its hash once again.
    """
    table, platforms = final.proof.rounds, final.proof.header.platforms
    wants_more = state.quota > state.rows_in_file
    for r in range(final.proof.sizes["R"]):
        seed, rows, accepted, kept = (int(table[f"rounds/{name}"][r]) for name in ("seed", "rows", "accepted", "kept"))
        if table["rounds/state"][r] == merge.SKIPPED:
            state.finished[r] = Skipped(seed, skips.get(r, {}).get("traceback", "skipped in an earlier call"))
            continue
        named = _named(table["rounds/shard_sha256"][r], shards.get(r, []))
        if named is None and kept < accepted and wants_more:
            state.promised[r] = table["rounds/shard_sha256"][r].decode()
            continue
        platform = platforms[table["rounds/platform"][r]]
        sha256 = table["rounds/shard_sha256"][r].decode()
        shard: Path | None = named.shard if named else None
        state.finished[r] = Done(seed, rows, accepted, int(table["rounds/tile_used"][r]), platform, sha256, shard)


def _take_shards(order: Order, state: ObjectState, shards: dict[int, list[FoundShard]]) -> None:
    """Adopts the shards of rounds that no table has; of several the one at the full tile, then the smallest hash."""
    for round_id, some in sorted(shards.items()):
        known = state.finished.get(round_id)
        if known is None:
            best = min(some, key=lambda one: (-one.done.tile_used, one.done.sha256)).done
            if state.promised.get(round_id, best.sha256) == best.sha256 and round_id < order.config.max_rounds:
                state.finished[round_id] = best
                state.promised.pop(round_id, None)
        kept = state.finished.get(round_id)
        if isinstance(kept, Done):
            state.spare += [one.done.shard for one in some if one.done.shard != kept.shard]
        _report_broken_determinism(state, round_id, [one.done for one in some])


def _report_broken_determinism(state: ObjectState, round_id: int, some: list[Done]) -> None:
    """Notes two hashes of one round at one tile and platform: this must not happen."""
    for a in some:
        if any(a.sha256 < b.sha256 and (a.tile_used, a.platform) == (b.tile_used, b.platform) for b in some):
            state.notes.append(f"BROKEN DETERMINISM: round {round_id} was computed twice with different bytes")
            return
