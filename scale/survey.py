"""What lies in a run folder: journal, final files, shards, each verified. Reads only; `resume` acts on it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from bimangrasp import grasp_file
from bimangrasp.errors import InputError
from bimangrasp.grasp_fields import FormatError
from bimangrasp.grasp_file import Header, Proof
from scale import journal, shards
from scale.acceptance import Accept
from scale.journal import Event
from scale.ledger import Done
from scale.merge import file_sha256
from scale.run_folder import RunFolder, file_name

Say = Callable[[str], None]


class FoundShard(NamedTuple):
    """A verified shard, its rows counted and let go."""

    header: Header
    round_id: int
    done: Done


class FoundFinal(NamedTuple):
    """A verified final file."""

    path: Path
    proof: Proof
    sha256: str


class Survey(NamedTuple):
    """What a run folder proves.

    Attributes:
        events: of the journal.
        bad_lines: lines of the journal, before its tail, that cannot be read.
        finals: object code -> its final file.
        shards: object code -> round -> its shards.
        damaged: files that are not what they should be, with the reason.
    """

    events: list[Event]
    bad_lines: int
    finals: dict[str, FoundFinal]
    shards: dict[str, dict[int, list[FoundShard]]]
    damaged: dict[Path, str]

    def headers(self) -> Iterator[Header]:
        """Yields what every file says of itself."""
        yield from (found.proof.header for found in self.finals.values())
        for of_object in self.shards.values():
            yield from (found.header for some in of_object.values() for found in some)

    def indices(self) -> dict[str, int]:
        """Returns object code -> index, as journal and files have it.

        Raises:
            InputError: they contradict each other.
        """
        known: dict[str, int] = {}
        told = [pair for e in self.events if e["event"] == "objects" for pair in e["indices"].items()]
        for code, index in (*told, *((h.object_code, h.object_index) for h in self.headers())):
            if known.setdefault(code, index) != index:
                raise InputError(
                    f"object {code!r} has index {known[code]} and {index} in one folder: its seeds cannot be told; "
                    f"start again under another exp_name"
                )
        twice = len(set(known.values())) < len(known)
        if twice:
            raise InputError(f"two objects share an index in this folder: {known}; use another exp_name")
        return known

    def merged(self) -> dict[str, Event]:
        """Returns object code -> the last line of the journal about its final file."""
        return {event["code"]: event for event in self.events if event["event"] == "merged"}


def survey(folder: RunFolder, accept: Accept, verify: str, say: Say) -> Survey:
    """Returns what the folder proves.

    Args:
        folder: need not exist.
        accept: counts a shard's accepted rows.
        verify: "auto" reads a final file in full unless it has size and time of its journal's line, "full"
            reads all.
        say: is told of progress where much is to be read.

    Raises:
        InputError: a file was written by a newer version.
    """
    replayed, damaged = journal.replay(folder), {}
    newer = max((e.get("format_version", 0) for e in replayed.events if e["event"] == "start"), default=0)
    if newer > journal.VERSION:
        raise InputError(
            f"the run folder {folder.root} was written by a newer version (format {newer}, this program knows "
            f"{journal.VERSION}): use that version, or another exp_name"
        )
    found = Survey(replayed.events, replayed.bad_lines, {}, {}, damaged)
    paths, merged = folder.final_files() if folder.finals.exists() else [], found.merged()
    for n, path in enumerate(paths):
        if verify == "full":
            say(f"reading final file {n + 1} of {len(paths)}")
        try:
            final = _final(path, merged, verify)
        except FormatError as error:
            damaged[path] = str(error)
        else:
            found.finals[final.proof.header.object_code] = final
    for path in folder.shard_files():
        try:
            shard = _shard(path, accept)
        except (FormatError, OSError) as error:
            damaged[path] = str(error)
        else:
            of_object = found.shards.setdefault(shard.header.object_code, {})
            of_object.setdefault(shard.round_id, []).append(shard)
    return found


def _final(path: Path, merged: dict[str, Event], verify: str) -> FoundFinal:
    """Returns what a final file says, read in full unless it looks untouched since its journal's line."""
    state = path.stat()
    lines = [e for e in merged.values() if (e["size"], e["mtime_ns"]) == (state.st_size, state.st_mtime_ns)]
    proof = grasp_file.verify_final(str(path), content=verify == "full" or not lines)
    line: dict[str, Any] = merged.get(proof.header.object_code, {})
    if path.stem != file_name(proof.header.object_code):
        raise FormatError(f"{path} holds grasps of {proof.header.object_code!r}")
    return FoundFinal(path, proof, line["sha256"] if line in lines else file_sha256(path))


def _shard(path: Path, accept: Accept) -> FoundShard:
    """Returns a shard's facts."""
    shard = shards.verify(path)
    return FoundShard(shard.header, shard.round_id, done_of(shard, accept))


def done_of(shard: shards.Shard, accept: Accept) -> Done:
    """Returns what the ledger keeps of a shard."""
    accepted = int(accept(shard.columns).sum())
    return Done(shard.seed, shard.rows, accepted, shard.tile_used, shard.platform, shard.sha256, shard.path)
