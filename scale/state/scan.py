"""What lies in a run folder: journal, final files, shards, each verified. Reads only; `resume` acts on it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from bimangrasp.errors import InputError
from bimangrasp.files import final_format
from bimangrasp.files.final_format import Header
from bimangrasp.files.schema import FormatError
from scale.merge import rejected_file
from scale.merge.dataset_index import check_dataset
from scale.merge.final_file import Merged
from scale.merge.rejected_file import RejectedSummary
from scale.settings.filters import Accept
from scale.settings.fingerprints import Key
from scale.state.object_state import Done, Sealed
from scale.store import journal, shards, verdict_files
from scale.store.journal import Event, Replay
from scale.store.manifest import read_manifest
from scale.store.run_folder import RunFolder, file_name
from scale.store.shards import Shard
from scale.store.verdict_files import Verdict

Say = Callable[[str], None]
KeyOf = Callable[[str], Key]
Found = TypeVar("Found")


class FoundShard(NamedTuple):
    """A verified shard, its rows counted and let go.

    Attributes:
        header, round_id: what it says of itself.
        done: what it gave; sealed alone where it waits for its verdict.
    """

    header: Header
    round_id: int
    done: Done | Sealed


class Survey(NamedTuple):
    """What a run folder proves.

    Attributes:
        journal: what is whole of it.
        manifest: what it says of the objects; empty where it is missing or torn.
        finals: object code -> its final file.
        untold: final files that the journal describes otherwise or not at all.
        shards: object code -> round -> its shards.
        verdicts: object code -> the verdicts on its rounds.
        rejects: object code -> what its file of grasps that do not count says of its rounds.
        damaged: files that are not what they should be, with the reason.
    """

    journal: Replay
    manifest: dict[str, Any]
    finals: dict[str, Merged]
    untold: list[Merged]
    shards: dict[str, dict[int, list[FoundShard]]]
    verdicts: dict[str, list[Verdict]]
    rejects: dict[str, RejectedSummary]
    damaged: dict[Path, str]

    @property
    def events(self) -> list[Event]:
        """Those of the journal."""
        return self.journal.events

    @property
    def is_used(self) -> bool:
        """Whether an earlier call left anything that counts."""
        return bool(self.events or self.finals or self.shards)

    def headers(self) -> Iterator[Header]:
        """Yields what every file says of itself."""
        yield from (found.proof.header for found in self.finals.values())
        for of_object in self.shards.values():
            yield from (found.header for some in of_object.values() for found in some)

    def indices(self) -> dict[str, int]:
        """Returns object code -> index, as journal and files have it; the manifest tells of what they lost.

        Raises:
            InputError: they contradict each other.
        """
        known: dict[str, int] = {}
        in_files = ((header.object_code, header.object_index) for header in self.headers())
        for code, index in (*self.told_indices(), *in_files):
            if known.setdefault(code, index) != index:
                raise InputError(
                    f"object {code!r} has index {known[code]} and {index} in one folder: its seeds cannot be told; "
                    f"start again under another exp_name"
                )
        twice = len(set(known.values())) < len(known)
        if twice:
            raise InputError(f"two objects share an index in this folder: {known}; use another exp_name")
        for code, entry in self.manifest.items():
            if entry["index"] not in known.values():
                known.setdefault(code, entry["index"])
        return known

    def told_indices(self) -> list[tuple[str, int]]:
        """Returns object codes and indices, as the journal has them."""
        return [pair for e in self.events if e["event"] == "objects" for pair in e["indices"].items()]

    def merged(self) -> dict[str, Event]:
        """Returns object code -> the last line of the journal about its final file."""
        return {event["code"]: event for event in self.events if event["event"] == "merged"}


def survey(folder: RunFolder, accept: Accept, key_of: KeyOf, verify: str, say: Say) -> Survey:
    """Returns what the folder proves.

    Args:
        folder: need not exist.
        accept: counts a shard's accepted rows.
        key_of: object code -> acceptance key that a verdict must have to be counted by.
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
    found = Survey(replayed, _manifest(folder, damaged), {}, [], {}, {}, {}, damaged)
    for final, is_told in _finals(folder, found, verify, say):
        found.finals[final.proof.header.object_code] = final
        found.untold.extend([] if is_told else [final])
    for verdict in _whole(folder.verdict_files(), verdict_files.verify, damaged):
        found.verdicts.setdefault(verdict.code, []).append(verdict)
    read = partial(_shard, accept=accept, known=found.verdicts, key_of=key_of)
    for shard in _whole(folder.shard_files(), read, damaged):
        found.shards.setdefault(shard.header.object_code, {}).setdefault(shard.round_id, []).append(shard)
    for file in _whole(folder.reject_files(), rejected_file.read, damaged):
        found.rejects[file.header.object_code] = file.summary
    if folder.dataset.exists():
        list(_whole([folder.dataset], check_dataset, damaged))
    return found


def _whole(paths: Iterable[Path], read: Callable[[Path], Found], damaged: dict[Path, str]) -> Iterator[Found]:
    """Yields what files hold; those that are not what they should be go to `damaged`."""
    for path in paths:
        try:
            found = read(path)
        except (FormatError, OSError) as error:
            damaged[path] = str(error)
        else:
            yield found


def _finals(folder: RunFolder, found: Survey, verify: str, say: Say) -> Iterator[tuple[Merged, bool]]:
    """Yields the final files that are whole, and whether the journal says the same of each."""
    paths, merged = folder.final_files() if folder.finals.exists() else [], found.merged()
    for n, path in enumerate(paths, start=1):
        if verify == "full":
            say(f"reading final file {n} of {len(paths)}")
        yield from _whole([path], partial(_final, merged=merged, verify=verify), found.damaged)


def _manifest(folder: RunFolder, damaged: dict[Path, str]) -> dict[str, Any]:
    """Returns the manifest's entries of objects that can be read."""
    objects = read_manifest(folder).get("objects")
    if not isinstance(objects, dict):
        if folder.manifest.exists():
            damaged[folder.manifest] = "not a manifest in JSON"
        return {}
    return {code: one for code, one in objects.items() if isinstance(one, dict) and type(one.get("index")) is int}


def _final(path: Path, merged: dict[str, Event], verify: str) -> tuple[Merged, bool]:
    """Returns what a final file says, and whether the journal says the same.

    It is read in full unless it looks untouched since its journal's line.
    """
    state = path.stat()
    line = next((event for code, event in merged.items() if file_name(code) == path.stem), {})
    is_told = (line.get("size"), line.get("mtime_ns")) == (state.st_size, state.st_mtime_ns)
    is_trusted = is_told and verify != "full"
    proof = final_format.verify_final(str(path), content=not is_trusted)
    if path.stem != file_name(proof.header.object_code):
        raise FormatError(f"it holds grasps of {proof.header.object_code!r}")
    if is_trusted:
        proof = proof._replace(sha256=line["sha256"])
    final = Merged(path, state.st_size, state.st_mtime_ns, proof)
    if not line or line["sha256"] == proof.sha256:
        return final, is_told
    if all(line[name] == final.facts()[name] for name in ("content_sha256", "quota", "end_reason")):
        raise FormatError("its columns are whole, and the bytes around them are not those that were written")
    return final, False


def _shard(path: Path, accept: Accept, known: Mapping[str, list[Verdict]], key_of: KeyOf) -> FoundShard:
    """Returns what is kept of a shard."""
    shard = shards.verify(path)
    code = shard.header.object_code
    verdict = verdict_files.on(shard.sha256, known.get(code, []), key_of(code))
    return FoundShard(shard.header, shard.round_id, done_of(shard, accept, verdict))


def done_of(shard: Shard, accept: Accept, verdict: Verdict | None = None) -> Done | Sealed:
    """Returns what the ledger keeps of a shard, and of the verdict on it where rows count by that."""
    if accept.needs_verdict and verdict is None:
        return Sealed(shard.seed, shard.rows, shard.tile_used, shard.platform, shard.sha256, shard.path)
    columns = shard.columns
    if accept.needs_verdict:
        if len(verdict.reason) != shard.rows:
            raise FormatError(f"{verdict.path} has {len(verdict.reason)} rows, its shard {shard.rows}")
        columns = columns | {"verdict/reason": verdict.reason}
    else:
        verdict = None
    facts = (shard.seed, shard.rows, int(accept(columns).sum()), shard.tile_used, shard.platform, shard.sha256)
    return Done(*facts, shard.path, accept.rejected(columns), verdict, verdict.sha256 if verdict else "")
