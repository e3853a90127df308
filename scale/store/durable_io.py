"""Changes the disk: everything that a run writes, syncs, renames or deletes goes through these few calls."""

from __future__ import annotations

import errno
import os
from pathlib import Path

DISK_FULL = (errno.ENOSPC, errno.EDQUOT)
"""Error numbers of a disk without room: of its own, or within the user's quota."""

NO_LINKS = (errno.ENOSYS, errno.EXDEV, errno.EPERM, errno.ENOTSUP, errno.EMLINK, errno.EACCES)
"""Error numbers where a file cannot get a second name: on another disk, or on one that has no such names."""


def write(fd: int, data: bytes | memoryview, offset: int | None = None) -> None:
    """Writes all of `data` at the end of an appending file, or at `offset`; raises OSError if it cannot."""
    left, at = memoryview(data).cast("B"), offset
    while left:
        done = os.write(fd, left) if at is None else os.pwrite(fd, left, at)
        left, at = left[done:], None if at is None else at + done


def reserve(fd: int, length: int) -> None:
    """Makes room for `length` bytes, so that a full disk shows before anything is written."""
    os.posix_fallocate(fd, 0, length)


def truncate(fd: int, length: int) -> None:
    """Cuts an open file."""
    os.ftruncate(fd, length)


def sync(fd: int) -> None:
    """Waits until an open file's bytes are on the disk."""
    os.fsync(fd)


def sync_folder(folder: Path) -> None:
    """Waits until a folder's entries are on the disk."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def create(path: Path, flags: int = os.O_TRUNC) -> int:
    """Opens a file for writing, making it where it is missing, and returns its descriptor."""
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | flags, 0o644)


def replace(source: Path, target: Path) -> None:
    """Renames a file over another one."""
    source.replace(target)


def link(source: Path, target: Path) -> None:
    """Gives a file a second name."""
    target.unlink(missing_ok=True)
    target.hardlink_to(source)


def remove(path: Path) -> None:
    """Deletes a file, if it is there."""
    path.unlink(missing_ok=True)


def make_folder(path: Path) -> None:
    """Makes a folder and its parents; the new entries are on the disk afterwards."""
    missing = [folder for folder in (path, *path.parents) if not folder.exists()]
    path.mkdir(parents=True, exist_ok=True)
    for folder in missing:
        sync_folder(folder.parent)


def remove_folder(path: Path) -> bool:
    """Deletes an empty folder and returns whether it is gone."""
    try:
        path.rmdir()
    except FileNotFoundError:
        return True
    except OSError:  # not empty: what is in it is still wanted
        return False
    return True
