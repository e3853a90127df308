"""Scans a run folder: journal, final files, shards and verdicts, each verified. Reads only; `resume` acts on it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from bimangrasp.errors import InputError
from bimangrasp.files import formats
from bimangrasp.files.formats import Header
from bimangrasp.files.schema import FormatError
from scale.formatting import listed, spans
from scale.merge import rejected_file
from scale.merge.final_file import Merged, check_dataset
from scale.merge.rejected_file import RejectedFile
from scale.merge.round_records import SealedRound, accept_round
from scale.settings.filters import Accept
from scale.settings.fingerprints import Key
from scale.state.journal_facts import JournalFacts
from scale.state.records import ObjectState, RunRequest
from scale.store import journal, shards, verdict_files
from scale.store.events import FileMerged
from scale.store.run_folder import RunFolder, file_name, parse_shard_name
from scale.store.verdict_files import Verdict

Say = Callable[[str], None]
KeyOf = Callable[[str], Key]
Content = TypeVar("Content")


class ScannedShard(NamedTuple):
    """A verified shard, its rows counted and let go.

    Attributes:
        header, round_id: what it says of itself.
        record: the round, judged where its rows can be.
    """

    header: Header
    round_id: int
    record: SealedRound


class FolderScan(NamedTuple):
    """What a run folder proves.

    Attributes:
        journal: what it tells.
        manifest: what it says of the objects; empty where it is missing or torn.
        finals: object code -> its final file.
        unjournaled: final files that the journal describes otherwise or not at all.
        shards: object code -> round -> its shards.
        verdicts: object code -> the verdicts on its rounds.
        rejects: object code -> what its file of grasps that do not count says of its rounds.
        damaged: files that are not what they should be, with the reason.
    """

    journal: JournalFacts
    manifest: dict[str, Any]
    finals: dict[str, Merged]
    unjournaled: list[Merged]
    shards: dict[str, dict[int, list[ScannedShard]]]
    verdicts: dict[str, list[Verdict]]
    rejects: dict[str, RejectedFile]
    damaged: dict[Path, str]

    @property
    def is_used(self) -> bool:
        """Whether an earlier call left anything that counts."""
        return bool(self.journal.replayed.events or self.finals or self.shards)

    def headers(self) -> Iterator[Header]:
        """Yields what every file says of itself."""
        yield from (final.proof.header for final in self.finals.values())
        for rounds in self.shards.values():
            yield from (shard.header for shards_of_round in rounds.values() for shard in shards_of_round)

    def indices(self) -> dict[str, int]:
        """Returns object code -> index, as journal and files have it.

        Raises:
            InputError: they contradict each other.
        """
        indices: dict[str, int] = {}
        in_files = ((header.object_code, header.object_index) for header in self.headers())
        for code, index in (*self.journal.indexed, *in_files):
            if indices.setdefault(code, index) != index:
                raise InputError(
                    f"object {code!r} has index {indices[code]} and {index} in one folder: its seeds cannot be told; "
                    f"start again under another exp_name"
                )
        if len(set(indices.values())) < len(indices):
            raise InputError(f"two objects share an index in this folder: {indices}; use another exp_name")
        return indices


def scan(
    folder: RunFolder, accept: Accept, key_of: KeyOf, verify: str, say: Say, common: Header | None = None
) -> FolderScan:
    """Returns what the folder proves.

    Args:
        folder: need not exist.
        accept: counts a shard's accepted rows.
        key_of: object code -> acceptance key that a verdict must have to be counted by.
        verify: "auto" reads a final file in full unless it has size and time of its journal's line, "full"
            reads all.
        say: is told of progress where much is to be read.
        common: header of any file of the run, with which a journal's line says all of an untouched file; None has
            each opened.

    Raises:
        InputError: a file was written by a newer version.
    """
    facts, damaged = JournalFacts.of(folder), {}
    _refuse_newer(folder, facts.format_version)
    result = FolderScan(facts, _manifest(folder, damaged), {}, [], {}, {}, {}, damaged)
    for final, is_journaled in _finals(folder, result, verify, say, common):
        result.finals[final.proof.header.object_code] = final
        result.unjournaled.extend([] if is_journaled else [final])
    for verdict in _whole(folder.verdict_files(), verdict_files.verify, damaged):
        result.verdicts.setdefault(verdict.code, []).append(verdict)

    def read_shard(path: Path) -> ScannedShard:
        shard = shards.verify(path)
        code = shard.header.object_code
        verdict = verdict_files.on(shard.sha256, result.verdicts.get(code, []), key_of(code))
        return ScannedShard(shard.header, shard.round_id, accept_round(shard, accept, verdict))

    for shard in _whole(folder.shard_files(), read_shard, damaged):
        result.shards.setdefault(shard.header.object_code, {}).setdefault(shard.round_id, []).append(shard)
    for rejects in _whole(folder.reject_files(), rejected_file.read, damaged):
        result.rejects[rejects.header.object_code] = rejects.without_rows()
    if folder.dataset.exists():
        list(_whole([folder.dataset], check_dataset, damaged))
    return result


def _refuse_newer(folder: RunFolder, newest: int) -> None:
    """Refuses a folder that a later version of this program wrote."""
    if newest > journal.VERSION:
        raise InputError(
            f"the run folder {folder.root} was written by a newer version (format {newest}, this program knows "
            f"{journal.VERSION}): use that version, or another exp_name"
        )


def _whole(paths: Iterable[Path], read: Callable[[Path], Content], damaged: dict[Path, str]) -> Iterator[Content]:
    """Yields what files hold; those that are not what they should be go to `damaged`."""
    for path in paths:
        try:
            content = read(path)
        except (FormatError, OSError) as error:
            damaged[path] = str(error)
        else:
            yield content


def _finals(
    folder: RunFolder, result: FolderScan, verify: str, say: Say, common: Header | None
) -> Iterator[tuple[Merged, bool]]:
    """Yields the final files that are whole, and whether the journal says the same of each."""
    paths = folder.final_files() if folder.finals.exists() else []
    lines = {file_name(code): event for code, event in result.journal.merged.items()}
    for number, path in enumerate(paths, start=1):
        if verify == "full":
            say(f"reading final file {number} of {len(paths)}")
        read = lambda path: verified_final(path, lines.get(path.stem), verify, common)  # noqa: E731
        yield from _whole([path], read, result.damaged)


def _manifest(folder: RunFolder, damaged: dict[Path, str]) -> dict[str, Any]:
    """Returns the manifest's entries of objects that can be read."""
    objects = journal.read_manifest(folder).get("objects")
    if not isinstance(objects, dict):
        if folder.manifest.exists():
            damaged[folder.manifest] = "not a manifest in JSON"
        return {}
    return {code: entry for code, entry in objects.items() if isinstance(entry, dict)}


def verified_final(
    path: Path, line: FileMerged | None, verify: str, common: Header | None = None
) -> tuple[Merged, bool]:
    """Returns what a final file says, and whether the journal says the same.

    It is read in full unless it looks untouched since its journal's line, and then not even opened where that line and
    the header that is common to all files say it all.

    Raises:
        FormatError: it is not what it should be.
        OSError: it cannot be read.
    """
    stat = path.stat()
    is_journaled = line is not None and (line.size, line.mtime_ns) == (stat.st_size, stat.st_mtime_ns)
    is_trusted = is_journaled and verify != "full"
    if is_trusted and common is not None and line.table is not None:
        return Merged.of_line(path, line, common), True
    proof = formats.verify_final(str(path), content=not is_trusted)
    if path.stem != file_name(proof.header.object_code):
        raise FormatError(f"it holds grasps of {proof.header.object_code!r}")
    if is_trusted:
        proof = proof._replace(sha256=line.sha256)
    final = Merged(path, stat.st_size, stat.st_mtime_ns, proof)
    if line is None or line.sha256 == proof.sha256:
        return final, is_journaled
    facts = final.facts()
    if all(getattr(line, name) == facts[name] for name in ("content_sha256", "quota", "end_reason")):
        raise FormatError("its columns are whole, and the bytes around them are not those that were written")
    return final, False


def recovery_notes(request: RunRequest, scan: FolderScan, objects: list[ObjectState]) -> list[str]:
    """Returns a line for each damaged or missing file with what is done about it."""
    damaged = [
        f"{path} is damaged and moved to damaged/ ({reason}): {_remedy(request.folder, path)}"
        for path, reason in scan.damaged.items()
    ]
    return [*_of_journal(request, scan), *damaged, *_lost(scan, objects)]


def _of_journal(request: RunRequest, scan: FolderScan) -> list[str]:
    """Returns what the journal lacks."""
    path, replayed = request.folder.journal, scan.journal.replayed
    if not replayed.events and (scan.is_used or scan.manifest):
        return [
            f"{path} is missing or empty: the files tell objects and rounds; a skipped round that no final file "
            f"carries is tried again"
        ]
    lines = [f"{path}: a torn last line of {replayed.torn_bytes} bytes is cut off"] if replayed.torn_bytes else []
    if replayed.bad_lines:
        lines.append(
            f"{path} has {replayed.bad_lines} lines that cannot be read: they are passed over, and the files tell the "
            f"rest; a skipped round that only such a line told of is tried again"
        )
    return lines


def _remedy(folder: RunFolder, path: Path) -> str:
    """Returns what is done in the place of one damaged file."""
    name = parse_shard_name(path.name)
    if path.parent == folder.root:
        return "it is written anew"
    if path.parent == folder.rejects:
        return "it is gathered anew where all shards of its object are there"
    if name is None:
        return "it is built again from shards, and from rounds computed again where those are gone"
    work = "simulated" if path.is_relative_to(folder.verdicts) else "computed"
    return f"round {name.round_id} of {name.code_name} is {work} again if it is wanted and nothing else proves it"


def _lost(scan: FolderScan, objects: list[ObjectState]) -> list[str]:
    """Returns the final files and shards of which the journal tells and that are not there."""
    damaged, merged = {path.name for path in scan.damaged}, scan.journal.merged
    gone = [state.code for state in objects if state.code in merged and state.final is None]
    gone = [code for code in gone if code not in scan.finals and f"{file_name(code)}.h5" not in damaged]
    lines = [f"final files that are gone are built again: {listed(gone)}"] if gone else []
    for state in objects:
        lost = [r for r in sorted(state.journaled) if state.rounds.record(r) is None]
        if lost and not (state.final and state.final.ending.complete):
            lines.append(f"rounds of {state.code} that are done by the journal and proven by no file: {spans(lost)}")
    return lines
