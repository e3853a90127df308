"""A disk as calls leave it: records what a run asks of `durable_io`, and rebuilds what a crash at any point leaves."""

from __future__ import annotations

import hashlib
import inspect
import os
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from scale.store import durable_io

DATA = ("kept", "synced", "zeros")  # unsynced bytes: all there, none there, or only the file's length
ENTRIES = ("kept", "synced")  # unsynced creations, renames and removals
CALLS = ("write", "reserve", "truncate", "sync", "sync_folder", "create", "replace", "remove", "make_folder")
CALLS = (*CALLS, "remove_folder")


class Op(NamedTuple):
    """One change: what, on which path or file, and with what."""

    what: str
    on: Any
    argument: Any = None
    data: bytes = b""
    mtime_ns: int = 0

    def __str__(self) -> str:
        return f"{self.what} {self.on} {self.argument if self.argument is not None else ''} {len(self.data) or ''}"


@cache
def _digest(data: bytes) -> bytes:
    """Taken once of each content: the journal's reserve alone, a megabyte, lies in thousands of trees."""
    return hashlib.sha256(data).digest()


class Tree(NamedTuple):
    """The folders and files that somebody finds; a file is its bytes and its time."""

    folders: frozenset[str]
    files: dict[str, tuple[bytes, int]]

    def key(self) -> str:
        """Equal for trees between which a run cannot tell: it reads neither temporary files nor logs.

        What a crash may leave in the lock file has a test of its own.
        """
        digest = hashlib.sha256(repr(sorted(self.folders)).encode())
        for path, (data, _) in sorted(self.files.items()):
            is_unread = "/.tmp-" in path or "/logs/" in path or path.endswith("/run.lock")
            content = b"" if is_unread else _digest(data)
            digest.update(repr((path, content)).encode())
        return digest.hexdigest()

    def lay_down(self, base: Path) -> None:
        """Makes the tree below an empty folder."""
        for folder in sorted(self.folders):
            (base / folder).mkdir(parents=True, exist_ok=True)
        for path, (data, mtime_ns) in self.files.items():
            (base / path).write_bytes(data)
            if mtime_ns:
                os.utime(base / path, ns=(mtime_ns, mtime_ns))


@dataclass
class File:
    """The bytes of a file, those that would survive a power-down, and when it was changed.

    They are replaced, never changed, so that trees share them.
    """

    data: bytes = b""
    synced: bytes = b""
    mtime_ns: int = 0


class Disk:
    """The state of a disk: what is there, and what of it survives a power-down."""

    def __init__(self, tree: Tree = Tree(frozenset(), {})) -> None:  # noqa: B008
        self.files: dict[int, File] = {}
        self.folders = set(tree.folders)
        self.names: dict[str, int] = {}
        for path, (data, mtime_ns) in tree.files.items():
            self.names[path] = len(self.files)
            self.files[len(self.files)] = File(data, data, mtime_ns)
        self.safe_entries = {folder: self._entries(folder) for folder in ("", *self.folders)}

    def _entries(self, folder: str) -> dict[str, int | None]:
        """The entries of a folder: path -> file, None for a folder."""
        inside = {path: number for path, number in self.names.items() if _parent(path) == folder}
        return inside | {path: None for path in self.folders if _parent(path) == folder}

    def apply(self, op: Op) -> None:
        """Makes a change."""
        getattr(self, f"_{op.what}")(op)

    def _create(self, op: Op) -> None:
        number = self.names.setdefault(op.on, op.argument)
        file = self.files.setdefault(number, File())
        if op.data:  # with O_TRUNC
            file.data = b""
            file.mtime_ns = op.mtime_ns

    def _write(self, op: Op) -> None:
        file = self.files[op.on]
        before = file.data[: op.argument]
        before += bytes(op.argument - len(before))
        file.data = before + op.data + file.data[op.argument + len(op.data) :]
        file.mtime_ns = op.mtime_ns

    def _reserve(self, op: Op) -> None:
        file = self.files[op.on]
        file.data += bytes(max(0, op.argument - len(file.data)))

    def _truncate(self, op: Op) -> None:
        self.files[op.on].data = self.files[op.on].data[: op.argument]
        self._reserve(op)

    def _sync(self, op: Op) -> None:
        self.files[op.on].synced = self.files[op.on].data

    def _sync_folder(self, op: Op) -> None:
        self.safe_entries[op.on] = self._entries(op.on)

    def _replace(self, op: Op) -> None:
        self.names[op.argument] = self.names.pop(op.on)

    def _remove(self, op: Op) -> None:
        self.names.pop(op.on, None)

    def _make_folder(self, op: Op) -> None:
        self.folders.add(op.on)
        self.safe_entries[op.on] = {}

    def _remove_folder(self, op: Op) -> None:
        self.folders.discard(op.on)

    def tree(self, data: str = "kept", entries: str = "kept") -> Tree:
        """What is found after a crash, in which unsynced bytes and unsynced entries became of what is said."""
        if entries == "kept":
            folders, names = frozenset(self.folders), self.names
        else:
            folders, names = self._safe("")
        return Tree(folders, {path: (self._bytes(n, data), self.files[n].mtime_ns) for path, n in names.items()})

    def _safe(self, folder: str) -> tuple[frozenset[str], dict[str, int]]:
        """The folders and files that can be reached through synced entries."""
        folders: set[str] = set()
        names: dict[str, int] = {}
        for path, number in self.safe_entries[folder].items():
            if number is not None:
                names[path] = number
                continue
            inner_folders, inner_names = self._safe(path)
            folders |= {path, *inner_folders}
            names |= inner_names
        return frozenset(folders), names

    def _bytes(self, number: int, data: str) -> bytes:
        file = self.files[number]
        if data == "kept" or file.data == file.synced:
            return file.data
        if data == "synced":
            return file.synced
        length = len(file.data)
        return file.synced[:length] + bytes(max(0, length - len(file.synced)))


def _parent(path: str) -> str:
    return path.rpartition("/")[0]


def _name_of(path: str, base: Path) -> str:
    return Path(path).relative_to(base).as_posix().removeprefix(".")


class Recorder:
    """Does what `scale.store.durable_io` does below a folder, and writes it down in the order in which it is done."""

    def __init__(self, base: Path) -> None:
        self.base, self.ops = base, []
        self.disk = Disk(read_tree(base))
        self._start = read_tree(base)
        self._lock = threading.RLock()
        self._files: dict[int, int] = {}

    def install(self, monkeypatch: Any) -> None:
        """Stands in for every call of the module, until the test is over."""
        for name in CALLS:
            monkeypatch.setattr(durable_io, name, self._recorded(name, getattr(durable_io, name)))

    def _recorded(self, name: str, inner: Callable[..., Any]) -> Callable[..., Any]:
        note = getattr(self, f"_note_{name}")

        def call(*arguments: Any, **named: Any) -> Any:
            with self._lock:
                return note(inner, **inspect.signature(inner).bind(*arguments, **named).arguments)

        return call

    def _add(self, *parts: Any, **named: Any) -> None:
        op = Op(*parts, **named)
        self.ops.append(op)
        self.disk.apply(op)

    def _note_write(self, inner: Callable, fd: int, data: Any, offset: int | None = None) -> None:
        at = os.fstat(fd).st_size if offset is None else offset
        inner(fd, data, offset)
        self._add("write", self._files[fd], at, bytes(memoryview(data).cast("B")), os.fstat(fd).st_mtime_ns)

    def _note_reserve(self, inner: Callable, fd: int, length: int) -> None:
        inner(fd, length)
        self._add("reserve", self._files[fd], length)

    def _note_truncate(self, inner: Callable, fd: int, length: int) -> None:
        inner(fd, length)
        self._add("truncate", self._files[fd], length)

    def _note_sync(self, inner: Callable, fd: int) -> None:
        inner(fd)
        self._add("sync", self._files[fd])

    def _note_sync_folder(self, inner: Callable, folder: Path) -> None:
        inner(folder)
        if folder.is_relative_to(self.base):
            self._add("sync_folder", _name_of(folder, self.base))

    def _note_create(self, inner: Callable, path: Path, flags: int = os.O_TRUNC) -> int:
        fd = inner(path, flags)
        name, is_cut = _name_of(path, self.base), bool(flags & os.O_TRUNC)
        self._files[fd] = self.disk.names.get(name, len(self.disk.files))
        self._add("create", name, self._files[fd], b"cut" if is_cut else b"", os.fstat(fd).st_mtime_ns)
        return fd

    def _note_replace(self, inner: Callable, source: Path, target: Path) -> None:
        inner(source, target)
        self._add("replace", _name_of(source, self.base), _name_of(target, self.base))

    def _note_remove(self, inner: Callable, path: Path) -> None:
        inner(path)
        self._add("remove", _name_of(path, self.base))

    def _note_make_folder(self, inner: Callable, path: Path) -> None:
        missing = [folder for folder in (path, *path.parents) if not folder.exists()]
        for folder in reversed(missing):
            self._add("make_folder", _name_of(folder, self.base))
        inner(path)  # makes them first of all, and syncs them through the recorded call

    def _note_remove_folder(self, inner: Callable, path: Path) -> bool:
        was_there = path.exists()
        is_gone = inner(path)
        if was_there and is_gone:
            self._add("remove_folder", _name_of(path, self.base))
        return is_gone

    def crashes(self) -> Iterator[tuple[str, Disk, Op | None]]:
        """Yields the disk after every prefix of the calls, with the last call's name and the next call."""
        replayed = Disk(self._start)
        yield "at the start", replayed, self.ops[0]
        for n, op in enumerate(self.ops):
            replayed.apply(op)
            yield f"call {n + 1}, {self._told(replayed, op)}", replayed, (*self.ops[n + 1 : n + 2], None)[0]

    def torn(self, once: bool = False) -> Iterator[tuple[str, Tree]]:
        """Yields the tree after every prefix whose last call is a write of which only a part came through.

        Each write is torn at several lengths, or only in the middle.
        """
        for told, replayed, following in self.crashes():
            if following is None or following.what != "write":
                continue
            length = len(following.data)
            for part in sorted(({length // 2} if once else {0, 1, length // 2, length - 1}) - {length}):
                cut = Disk(replayed.tree())
                number = cut.names.get(next((p for p, n in replayed.names.items() if n == following.on), ""))
                if number is not None:
                    cut.apply(following._replace(on=number, data=following.data[:part]))
                    yield f"{told}, then {part} of {length} bytes", cut.tree()

    def _told(self, replayed: Disk, op: Op) -> str:
        name = next((path for path, number in replayed.names.items() if number == op.on), op.on)
        return f"{op.what} {name}"


def read_tree(base: Path) -> Tree:
    """Returns what lies below a folder."""
    found = sorted(base.rglob("*"))
    folders = frozenset(path.relative_to(base).as_posix() for path in found if path.is_dir())
    files = {path.relative_to(base).as_posix(): path for path in found if path.is_file()}
    return Tree(folders, {name: (path.read_bytes(), path.stat().st_mtime_ns) for name, path in files.items()})
