"""Joins the parts of a run: verifies their final files, puts them into its folder, and writes what tells of all."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

from bimangrasp.errors import InputError
from bimangrasp.files.schema import FormatError
from scale.controller.run_report import EXIT_OK, EXIT_SHORT
from scale.formatting import count, listed, objects_table
from scale.merge.final_file import Merged, write_dataset
from scale.settings import fingerprints
from scale.settings.schema import Config
from scale.state.scan import verified_final
from scale.store import journal, locks
from scale.store.events import CallEnded, CallStarted, Event, FileMerged, ObjectsIndexed
from scale.store.parts import Part, check_siblings, listed_codes, parts_in, refuse_whole_run
from scale.store.path_settings import given_path
from scale.store.run_folder import RunFolder, file_name

SAME = "wanted parts of one run: made by the same command but for part=, gpus= and what changes no grasp"


@dataclass
class PartJournal:
    """What a part's journal tells.

    Attributes:
        replayed: how it reads.
        started: the last call; None where there was none.
        indices, quotas: object code -> number.
        merged: name of a final file -> the last line about it.
        exit_code: of the last call; None where it did not end by itself.
        until: when its last event was, Unix time, s.
    """

    replayed: journal.Replay = field(default_factory=journal.Replay)
    started: CallStarted | None = None
    indices: dict[str, int] = field(default_factory=dict)
    quotas: dict[str, int] = field(default_factory=dict)
    merged: dict[str, FileMerged] = field(default_factory=dict)
    exit_code: int | None = None
    until: float = 0.0

    @classmethod
    def of(cls, folder: RunFolder) -> PartJournal:
        """Returns what the journal of a part's folder tells."""
        own = cls()
        own.replayed = journal.replay(folder, own.take)
        return own

    def take(self, event: Event) -> None:
        """Takes the next event in."""
        self.until = max(self.until, event.time)
        match event:
            case CallStarted():
                self.started, self.exit_code = event, None
                self.quotas |= event.quotas or {}
            case CallEnded():
                self.exit_code = event.exit_code
            case ObjectsIndexed():
                self.indices |= event.indices
            case FileMerged():
                self.merged[file_name(event.code)] = event


class PartFiles(NamedTuple):
    """What a part has.

    Attributes:
        part: which.
        folder: its own.
        journal: what that tells.
        entries: of its manifest.
        finals: object code -> its final file, verified.
        damaged: final files that are not what they should be, with the reason.
        running: who works on it; None where nobody does.
        second: what its manifest says of a second judgement.
    """

    part: Part
    folder: RunFolder
    journal: PartJournal
    entries: dict[str, Any]
    finals: dict[str, Merged]
    damaged: dict[Path, str]
    running: dict[str, Any] | None
    second: dict[str, Any]

    @property
    def started(self) -> CallStarted:
        """The last call on it, which there is."""
        assert self.journal.started is not None
        return self.journal.started


class PartsReport(NamedTuple):
    """What came of a merge. `str()` of it is for people.

    Attributes:
        run_dir: the run's folder.
        objects: (code, part, grasps, quota), in the order of the run.
        lacking: a line for each part and object that is not there, or not whole.
        exit_code: 0, or 3 where something lacks or an object fell short.
    """

    run_dir: Path
    objects: list[tuple[str, Part, int, int]]
    lacking: list[str]
    exit_code: int

    def __str__(self) -> str:
        rows = [(code, f"{collected}/{quota}", str(part)) for code, part, collected, quota in self.objects]
        end = f"{self.run_dir}: {count(len(rows), 'object')} of {count(len({r[2] for r in rows}), 'part')} joined"
        return "\n".join([*objects_table(("object", "grasps", "part"), rows), *self.lacking, end])


def merge_parts(config: Config) -> PartsReport:
    """Returns what the run's folder has once the parts are joined in it; may be called again when these have grown.

    Raises:
        InputError: no parts, parts that are not of one run, or two unlike files of one object.
    """
    folder = RunFolder(given_path(config))
    parts = parts_in(folder.root)
    if not parts:
        raise InputError(
            f"{folder.root} has no parts: wanted output_root/exp_name of a run that was made with part=1/n to part=n/n"
        )
    read = [files for part, own in parts.items() if (files := _read(part, own, config.verify))]
    refuse_whole_run(folder.root, "mode=merge")
    if not read:
        raise InputError(f"{folder.root}: no part has begun ({listed([part.name for part in parts])})")
    codes = max((listed_codes(files.folder) for files in read), key=len)
    if not codes:
        raise InputError(f"{folder.root}: no part says which objects the run has (objects.json); its command writes it")
    _check_joined_before(folder, read)
    check_siblings(folder.root, read[0].part, codes)  # the longest list, of which all others are beginnings
    _check_keys(read)
    _check_indices(read)
    chosen = _chosen(read)
    _check_platforms(read, config.allow_mixed_platform)
    lacking = _lacking(read, parts, codes, chosen)
    with _lock(folder):
        folder.write(folder.merged, json.dumps([str(files.part) for files in read]).encode() + b"\n")
        for files in read:
            lacking += _link(files, folder, chosen)
        lacking += _clear(folder, read, chosen)
        return _write(folder, read, chosen, lacking)


@contextmanager
def _lock(folder: RunFolder) -> Iterator[None]:
    """Holds the lock of the run's folder."""
    lock = locks.RunLock(folder)
    try:
        yield
    finally:
        lock.release()


def _read(part: Part, folder: RunFolder, verify: str) -> PartFiles | None:
    """Returns what a part has; None where it has not begun."""
    own = PartJournal.of(folder)
    if own.started is None:
        return None
    finals: dict[str, Merged] = {}
    damaged: dict[Path, str] = {}
    for path in folder.final_files():
        common = next(iter(finals.values())).proof.header if finals else None
        try:
            final, _ = verified_final(path, own.merged.get(path.stem), verify, common)
        except (FormatError, OSError) as error:
            damaged[path] = str(error)
        else:
            finals[final.proof.header.object_code] = final
    manifest = journal.read_manifest(folder)
    entries = manifest.get("objects")
    entries = entries if isinstance(entries, dict) else {}
    second, running = manifest.get("second_judgement") or {}, locks.running(folder)
    return PartFiles(part, folder, own, entries, finals, damaged, running, second)


def _check_keys(read: list[PartFiles]) -> None:
    """Refuses parts whose grasps were made, or accepted, under other settings."""
    first, *others = read
    for files in read:
        for final in files.finals.values():
            _check_final(files, final)
    for other in others:
        for what in ("run_key", "acceptance_key"):
            keys = [getattr(files.started, what) or {} for files in (first, other)]
            differing = _told(*keys, first.part, other.part)
            if differing:
                names = f"{first.part.name} and {other.part.name}"
                raise InputError(f"{names} were made with different settings:\n  {differing}\n{SAME}")


def _check_final(files: PartFiles, final: Merged) -> None:
    """Refuses a final file that the part's last call, with other settings, has not written anew yet."""
    started, accepted = files.started, final.proof.ending.acceptance_key or {}
    wanted = started.acceptance_key or {}
    keys = ((final.proof.header.run_key, started.run_key), ({n: accepted[n] for n in wanted if n in accepted}, wanted))
    for in_file, called in keys:
        differing = fingerprints.differences(in_file, called)
        if differing:
            lines = "\n  ".join(line.replace("the folder", "the file") for line in differing)
            raise InputError(f"{final.path} was made with other settings than its part's last call:\n  {lines}\n{SAME}")


def _check_joined_before(folder: RunFolder, read: list[PartFiles]) -> None:
    """Refuses to join anew without a part that was joined before: its files and its history would contradict."""
    before = json.loads(folder.merged.read_bytes()) if folder.merged.exists() else []
    gone = sorted(set(before) - {str(files.part) for files in read})
    if gone:
        raise InputError(
            f"{folder.root} was joined with part {', '.join(gone)}, which is not there now: bring it back, or join in "
            "another folder"
        )


def _check_indices(read: list[PartFiles]) -> None:
    """Refuses an object with two indices, and an index with two objects: their seeds cannot be told."""
    index_of: dict[str, tuple[int, Part]] = {}
    code_of: dict[int, tuple[str, Part]] = {}
    for files in read:
        in_files = {code: final.proof.header.object_index for code, final in files.finals.items()}
        for code, index in {**files.journal.indices, **in_files}.items():
            known, part = index_of.setdefault(code, (index, files.part))
            if known != index:
                raise InputError(
                    f"object {code!r} has index {known} in {part.name} and {index} in {files.part.name}: {SAME}"
                )
            other, part = code_of.setdefault(index, (code, files.part))
            if other != code:
                raise InputError(f"index {index} is {other!r} in {part.name} and {code!r} in {files.part.name}: {SAME}")


def _chosen(read: list[PartFiles]) -> dict[str, PartFiles]:
    """Returns object code -> the part whose file is taken; refuses two unlike files."""
    chosen: dict[str, PartFiles] = {}
    for files in read:
        for code, final in files.finals.items():
            first = chosen.setdefault(code, files)
            other = first.finals[code]
            if other.sha256 != final.sha256:
                raise InputError(
                    f"object {code!r} has two unlike files: {other.path} ({_platform(other)}) and {final.path} "
                    f"({_platform(final)}): remove the one that is not meant"
                )
            if files.part.has(final.proof.header.object_index):
                chosen[code] = files
    return chosen


def _platform(final: Merged) -> str:
    """Returns on what a file was computed, for a sentence."""
    platforms = [", ".join(platform.values()) for platform in final.proof.header.platforms]
    return "; ".join(platforms) or "no platform"


def _platforms(read: list[PartFiles], judging: bool = False) -> dict[str, tuple[dict[str, str], Part]]:
    """Returns on which platforms the grasps of all files were made, or judged, each with a part that has it."""
    return {
        json.dumps(platform, sort_keys=True): (platform, files.part)
        for files in read
        for final in files.finals.values()
        for platform in (_judged_on(final) if judging else final.proof.header.platforms)
    }


def _judged_on(final: Merged) -> list[dict[str, str]]:
    """Returns the platforms of a file's verdicts."""
    return (final.proof.ending.judging or {}).get("platforms", [])


def _check_platforms(read: list[PartFiles], allow_mixed: bool) -> None:
    """Refuses grasps of several platforms, and verdicts of several, unless that is allowed."""
    for judging, what in ((False, "made"), (True, "judged")):
        platforms = list(_platforms(read, judging).values())
        if len(platforms) > 1 and not allow_mixed:
            (first, here), (second, there) = platforms[:2]
            raise InputError(
                f"{here.name} and {there.name} were {what} on different platforms:\n  "
                f"{_told(first, second, here, there)}\nallow_mixed_platform=true joins them"
            )


def _told(first: Mapping[str, Any], second: Mapping[str, Any], here: Part, there: Part) -> str:
    """Returns a line for each field in which two parts differ."""
    lines = fingerprints.differences(first, second)
    return "\n  ".join(line.replace("the folder", here.name).replace("this call", there.name) for line in lines)


def _lacking(
    read: list[PartFiles], parts: Mapping[Part, RunFolder], codes: list[str], chosen: Mapping[str, PartFiles]
) -> list[str]:
    """Returns a line for each part, and for each part's objects, that is not there or not whole."""
    lines = []
    begun = {files.part: files for files in read}
    for part in next(iter(parts)).all():
        missing = [code for index, code in enumerate(codes) if part.has(index) and code not in chosen]
        files = begun.get(part)
        if files is None:
            lines += [f"part {part} is missing, with {listed(missing)}"] if missing else []
            continue
        missing += [code for code in files.journal.indices if code not in chosen and code not in missing]
        if files.running:
            lines.append(f"part {part} is at work")
        elif files.journal.exit_code is None:
            lines.append(f"part {part} was broken off: its command goes on")
        elif files.journal.exit_code != EXIT_OK:
            lines.append(f"part {part} ended with {files.journal.exit_code}")
        for path, reason in files.damaged.items():
            lines.append(f"{path} is damaged ({reason}): the command of part {part} mends it")
        lines += [f"part {part} has no file of {listed(missing)}"] if missing else []
    return lines


def _link(files: PartFiles, folder: RunFolder, chosen: Mapping[str, PartFiles]) -> list[str]:
    """Puts a part's files into the run's folder; returns a line for each that was written anew meanwhile."""
    lines = []
    for code, final in files.finals.items():
        if chosen[code] is files:
            target = folder.final(code)
            folder.link(final.path, target)
            if (target.stat().st_size, target.stat().st_mtime_ns) != (final.size, final.mtime_ns):
                lines.append(f"part {files.part} wrote {code!r} anew meanwhile: call mode=merge again")
    for path in files.folder.reject_files():
        folder.link(path, folder.rejects / path.name)
    for path in sorted(files.folder.pieces.glob("*.npz")):
        folder.link(path, folder.pieces / path.name)
    return lines


def _clear(folder: RunFolder, read: list[PartFiles], chosen: Mapping[str, PartFiles]) -> list[str]:
    """Sets files aside that no part has any more, so that `dataset.h5` has what the manifest has; names them."""
    wanted = {folder.final(code) for code in chosen}
    wanted |= {folder.rejects / path.name for files in read for path in files.folder.reject_files()}
    stale = [path for path in (*folder.final_files(), *folder.reject_files()) if path not in wanted]
    for path in stale:
        folder.set_aside(path)
    return [f"{path} is of no part as it is now and moved to damaged/" for path in stale]


def _write(
    folder: RunFolder, read: list[PartFiles], chosen: Mapping[str, PartFiles], lacking: list[str]
) -> PartsReport:
    """Writes journal, manifest and `dataset.h5` of the whole, and returns the report."""
    quotas = {code: quota for files in read for code, quota in files.journal.quotas.items()}
    objects, entries = [], {}
    for code in sorted(chosen, key=lambda code: chosen[code].finals[code].proof.header.object_index):
        files, final = chosen[code], chosen[code].finals[code]
        rows = final.proof.sizes["N"]
        objects.append((code, files.part, rows, quotas.get(code, final.proof.ending.quota)))
        index, path = final.proof.header.object_index, folder.relative(folder.final(code))
        entries[code] = files.entries.get(code, {}) | final.facts() | {"index": index, "collected": rows, "path": path}
    is_short = any(collected < quota for _, _, collected, quota in objects)
    exit_code = EXIT_SHORT if lacking or is_short else EXIT_OK
    started, platforms = read[0].started, list(_platforms(read).values())
    _write_journal(folder, read, replace(started, mode="merge", quotas=quotas, notes=lacking), exit_code)
    of_part = {str(files.part): [code for code, part, _, _ in objects if part == files.part] for files in read}
    manifest = {
        "run_key": started.run_key,
        "acceptance_key": started.acceptance_key,
        "platforms": [platform for platform, _ in platforms],
        "mixed_platform": len(platforms) > 1,
        "exit_code": exit_code,
        "notes": lacking,
        "parts": of_part,
    }
    second = sorted((files.second for files in read if files.second), key=lambda second: not second.get("is_short"))
    if second:
        manifest["second_judgement"] = second[0]  # one that is short, if any is
    journal.write_manifest(folder, manifest, {code: journal.entry_text(entry) for code, entry in entries.items()})
    if folder.final_files():
        write_dataset(folder)
    return PartsReport(folder.root, objects, lacking, exit_code)


def _write_journal(folder: RunFolder, read: list[PartFiles], merge: CallStarted, exit_code: int) -> None:
    """Writes what happened on all parts, one part after the other, and the merge as the last call."""
    until = max(files.journal.until for files in read)
    ends = [replace(merge, time=until), CallEnded(exit_code=exit_code, time=until)]
    parts_lines = [journal.whole_lines(files.folder, files.journal.replayed) for files in read]
    folder.write(folder.journal, b"".join([*parts_lines, *map(journal.line, ends)]))
