"""Spells every path of a run folder, and changes the files there: no other module does either."""

from __future__ import annotations

import errno
import hashlib
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple, TypeVar
from urllib.parse import quote

from scale.store import durable_io

Verified = TypeVar("Verified")
_TEMPORARY = ".tmp-"
_RESERVE_BYTES = 1 << 20  # room for some thousand lines of the journal when the disk is full
_NAME_BYTES = 180  # of a file's 255, so that round, hash and suffix fit behind an object code
WORKER, VALIDATOR = "worker", "validator"
"""The trades: who makes rounds, and who tests them. Each process has a place of its own for what it seals."""


def file_name(code: str) -> str:
    """Returns the object code as one path component: itself, or percent-encoded, or cut with a hash."""
    name = re.sub(r"[\x00-\x1f\x7f/\\%]", lambda match: quote(match[0], safe=""), code)
    name = re.sub(r"^\.", "%2E", name)
    if len(name.encode()) <= _NAME_BYTES:
        return name
    head = name.encode()[: _NAME_BYTES - 20].decode(errors="ignore")
    return f"{head}%~{hashlib.sha256(code.encode()).hexdigest()[:16]}"


class ShardName(NamedTuple):
    """What a shard's file name says."""

    code_name: str
    round_id: int
    sha16: str


def shard_name(code: str, round_id: int, sha256: str) -> str:
    """Returns the file name of a shard."""
    return f"{file_name(code)}.{round_id:06d}.{sha256[:16]}.h5"


def parse_shard_name(name: str) -> ShardName | None:
    """Returns the parts of a shard's file name, None for any other name."""
    match = re.fullmatch(r"(.+)\.(\d{6})\.([0-9a-f]{16})\.h5", name, re.DOTALL)
    return ShardName(match[1], int(match[2]), match[3]) if match else None


class Aside(NamedTuple):
    """A file that is being written under a temporary name."""

    fd: int
    path: Path


_unfinished: dict[Path, None] = {}
"""What this process is writing aside; a dict, since other threads write while a signal is handled."""


def remove_unfinished() -> None:
    """Deletes what this process is writing aside: it ends now, with whatever its threads are doing."""
    for path in list(_unfinished):
        path.unlink(missing_ok=True)


class RunFolder:
    """The paths of one run and the ways to change what lies there."""

    def __init__(self, root: Path | str) -> None:
        self.root = Path(root)
        self.manifest = self.root / "manifest.json"
        self.journal = self.root / "journal.jsonl"
        self.reserve = self.root / "journal.reserve"
        self.config = self.root / "config.yaml"
        self.objects = self.root / "objects.json"
        self.merged = self.root / "merged.json"
        self.run_lock = self.root / "run.lock"
        self.workers_lock = self.root / "workers.lock"
        self.run_log = self.root / "logs" / "run.log"
        self.dataset = self.root / "dataset.h5"
        self.finals = self.root / "final"
        self.shards = self.root / "shards"
        self.damaged = self.root / "damaged"
        self.exported = self.root / "export"
        self.rejects = self.root / "rejected"
        self.failures = self.root / "failed"
        self.page = self.root / "view" / "index.html"
        self.verdicts = self.root / "verdicts"
        self.pieces = self.root / "pieces"
        self.report = self.root / "report.html"
        self.events = self.root / "logs" / "tensorboard"
        self.animations = self.root / "animations"
        self._places = {WORKER: self.shards, VALIDATOR: self.verdicts}

    def final(self, code: str) -> Path:
        """The final file of an object."""
        return self.finals / f"{file_name(code)}.h5"

    def rejected(self, code: str) -> Path:
        """The file of an object's grasps that do not count."""
        return self.rejects / f"{file_name(code)}.h5"

    def failed(self, code: str) -> Path:
        """The file of some grasps of an object that falls short, none of which count."""
        return self.failures / f"{file_name(code)}.h5"

    def judgment(self, protocol: str, name: str) -> Path:
        """What `mode=validate` writes about the final file of that name."""
        return self.verdicts / protocol / f"{name}.h5"

    def worker_log(self, slot: int, trade: str = WORKER) -> Path:
        """The log of the processes on a slot."""
        return self.root / "logs" / f"{trade}_{slot}.log"

    def event_file(self, code: str, round_id: int) -> Path:
        """TensorBoard's file about one round; a folder of its own makes it a line of its own in every chart."""
        return self.events / file_name(code) / f"{round_id:06d}" / "events.out.tfevents.0.curve"

    def frames(self, code: str) -> Path:
        """Poses on the way to an object's grasps; the first to go where room is wanted, with `animation`."""
        return self.animations / f"{file_name(code)}.npz"

    def animation(self, code: str, row: int) -> Path:
        """The moving picture of one row of an object's round."""
        return self.animations / f"{file_name(code)}.{row}.gif"

    def place(self, slot: int, launch: int, trade: str = WORKER) -> Path:
        """The folder of what one process seals."""
        return self._places[trade] / f"{trade}_{slot}_{launch}"

    def prepare(self) -> None:
        """Makes the folders that every run has."""
        for folder in (self.root, self.run_log.parent, self.shards, self.finals):
            durable_io.make_folder(folder)

    def check_writable(self) -> None:
        """Raises OSError where this user cannot change what lies in the run's folders."""
        for folder in (self.root, self.run_log.parent, self.shards, self.finals):
            if not os.access(folder, os.W_OK | os.X_OK):
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(folder))

    def next_launch(self, trade: str = WORKER) -> int:
        """Returns a launch number that no process of a trade has used for its place."""
        taken = [int(path.name.rpartition("_")[2]) for path in self._places_of(trade)]
        return max(taken, default=-1) + 1

    def _places_of(self, trade: str) -> list[Path]:
        return sorted(self._places[trade].glob(f"{trade}_*_*"))

    def shard_files(self) -> Iterator[Path]:
        """Yields the sealed shards, sorted by name."""
        for place in self._places_of(WORKER):
            yield from self.sealed_in(place)

    def verdict_files(self) -> Iterator[Path]:
        """Yields the sealed verdicts on rounds, sorted by name."""
        for place in self._places_of(VALIDATOR):
            yield from self.sealed_in(place)

    def sealed_in(self, place: Path) -> list[Path]:
        """Returns what one process has sealed, sorted."""
        paths = place.iterdir() if place.is_dir() else []
        return sorted(path for path in paths if parse_shard_name(path.name) and not _is_temporary(path))

    def final_files(self) -> list[Path]:
        """Returns the final files, sorted."""
        return sorted(path for path in self.finals.glob("*.h5") if not _is_temporary(path))

    def reject_files(self) -> list[Path]:
        """Returns the files of grasps that do not count, sorted."""
        return sorted(path for path in self.rejects.glob("*.h5") if not _is_temporary(path))

    def relative(self, path: Path) -> str:
        """Returns a path as the journal and `dataset.h5` name it, so that the folder may move."""
        return path.relative_to(self.root).as_posix()

    def remove_leftovers(self) -> list[str]:
        """Deletes what unfinished writes left and returns the names."""
        left = [path for path in self.root.rglob(f"{_TEMPORARY}*") if path.is_file()]
        for path in left:
            durable_io.remove(path)
        return [self.relative(path) for path in left]

    def remove_empty_places(self) -> None:
        """Deletes the places in which nothing is left."""
        for trade in self._places:
            for folder in self._places_of(trade):
                durable_io.remove_folder(folder)

    def write(self, path: Path, data: bytes) -> None:
        """Puts a whole file in place: aside, synced, renamed, folder synced. An OSError leaves nothing."""
        with self.replacement(path, len(data)) as aside:
            durable_io.write(aside.fd, data, 0)

    def write_verified(self, path: Path, data: bytes, verify: Callable[[Path], Verified]) -> Verified:
        """Puts a whole file in place as `write` does, once `verify` has read it back; returns what that returns.

        Whatever `verify` raises leaves nothing, and the old file stays.
        """
        with self.replacement(path, len(data)) as aside:
            durable_io.write(aside.fd, data, 0)
            durable_io.sync(aside.fd)
            return verify(aside.path)

    @contextmanager
    def replacement(self, path: Path, length: int) -> Iterator[Aside]:
        """Yields a file with `length` bytes of room, which takes its place when the block ends."""
        durable_io.make_folder(path.parent)
        aside = _aside(path)
        _unfinished[aside] = None
        fd = durable_io.create(aside)
        try:
            if length:
                durable_io.reserve(fd, length)
            yield Aside(fd, aside)
            durable_io.sync(fd)
            durable_io.replace(aside, path)
        except BaseException:
            durable_io.remove(aside)
            raise
        finally:
            os.close(fd)
            _unfinished.pop(aside, None)
        durable_io.sync_folder(path.parent)

    def link(self, source: Path, target: Path) -> None:
        """Puts a file of another folder in place: the same one where the disk can, else a copy, as old as the source.

        A file that is written anew there takes another's place, so this one stays as it is.
        """
        if target.exists() and target.samefile(source):
            return
        durable_io.make_folder(target.parent)
        aside = _aside(target)
        try:
            durable_io.link(source, aside)
        except OSError as error:
            if error.errno not in durable_io.NO_LINKS:
                raise
            stat = source.stat()
            self.write(target, source.read_bytes())
            os.utime(target, ns=(stat.st_atime_ns, stat.st_mtime_ns))
        else:
            durable_io.replace(aside, target)
            durable_io.sync_folder(target.parent)

    def remove(self, path: Path) -> None:
        """Deletes a file whose content is safe elsewhere."""
        durable_io.remove(path)

    def set_aside(self, path: Path) -> None:
        """Moves a damaged file, if it is still there, to a free name in `damaged/`: `<name>.<n>`.

        The target's entry is on the disk before the source's is gone.
        """
        if not path.exists():
            return
        n = 0
        while (target := self.damaged / f"{path.name}.{n}").exists():
            n += 1
        durable_io.make_folder(self.damaged)
        durable_io.replace(path, target)
        durable_io.sync_folder(self.damaged)
        durable_io.sync_folder(path.parent)

    def hold_reserve(self) -> None:
        """Makes sure that the journal's reserve takes its room."""
        if not self.reserve.exists() or self.reserve.stat().st_size < _RESERVE_BYTES:
            self.write(self.reserve, bytes(_RESERVE_BYTES))

    def release_reserve(self) -> None:
        """Gives the journal's reserve back to the disk."""
        durable_io.remove(self.reserve)

    def has_room(self, length: int) -> bool:
        """Returns whether a file of so many bytes could be written now, by the file system's own word."""
        probe = self.root / f"{_TEMPORARY}room-{os.getpid()}"
        try:
            fd = durable_io.create(probe)
            try:
                durable_io.reserve(fd, length)
            finally:
                os.close(fd)
        except OSError as error:
            if error.errno not in durable_io.DISK_FULL:
                raise
            return False
        finally:
            durable_io.remove(probe)
        return True

    def free_bytes(self) -> int:
        """Returns how much room the disk has for this user."""
        state = os.statvfs(next(folder for folder in (self.root, *self.root.parents) if folder.exists()))
        return state.f_bavail * state.f_frsize


def _aside(path: Path) -> Path:
    """Returns the name under which this process writes a file before it takes its place."""
    return path.with_name(f"{_TEMPORARY}{hashlib.sha256(path.name.encode()).hexdigest()[:16]}-{os.getpid()}")


def _is_temporary(path: Path) -> bool:
    return path.name.startswith(_TEMPORARY)
