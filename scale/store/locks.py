"""Locks a run folder: one run at a time, and no worker of a dead run beside a living one."""

from __future__ import annotations

import fcntl
import json
import os
import socket
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from bimangrasp.errors import InputError
from scale.store import durable_io
from scale.store.run_folder import RunFolder

ORPHAN_WAIT_S = 30.0
LOOKS, LOOK_S = 5, 0.02
BEAT_S = 5.0
WATCH_S = 20.0
"""A run on another machine is gone whose heartbeat stays what it is for so long; no two clocks are compared for it."""
FOREIGN_FRESH_S = 120.0
"""The same for those who only look and do not wait: by the clocks, whichever those are."""


def boot_id() -> str:
    """Returns the identity of this machine's boot: a pid means nothing on another one."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


class RunLock:
    """The exclusive lock of a run; held until `release` or the end of the process, with a heartbeat of its own."""

    def __init__(self, folder: RunFolder) -> None:
        self._fd = durable_io.create(folder.run_lock, 0)
        held = read_lock(folder)
        if not _taken(self._fd) or _beats_elsewhere(folder, held):
            os.close(self._fd)
            raise _in_use(folder, held)
        self._started, self._is_over = time.time(), threading.Event()
        self._beat()
        self._heart = threading.Thread(target=self._beat_on, daemon=True)
        self._heart.start()

    def _beat_on(self) -> None:
        while not self._is_over.wait(BEAT_S):
            with suppress(OSError):  # a full disk, or one that is away for a moment, ends no run here
                self._beat()

    def _beat(self) -> None:
        """Writes who holds the lock, and that it lives."""
        now = time.time()
        line = {"host": socket.gethostname(), "pid": os.getpid(), "boot_id": boot_id()}
        data = json.dumps(line | {"started": self._started, "heartbeat": now, "running": True}).encode()
        durable_io.write(self._fd, data.ljust(512) + b"\n", 0)

    def release(self) -> None:
        """Lets the next run in."""
        self._is_over.set()
        self._heart.join()
        durable_io.truncate(self._fd, 0)
        os.close(self._fd)


def read_lock(folder: RunFolder) -> dict[str, Any]:
    """Returns what the lock file says of the run that holds or held it; empty where nobody does."""
    try:
        return json.loads(folder.run_lock.read_bytes() or b"{}")
    except (OSError, ValueError):  # torn by a crash, or zeros after a power-down: then nobody holds it
        return {}


def running(folder: RunFolder) -> dict[str, Any] | None:
    """Returns what the lock file says of the run that holds it; None where none does, as far as this machine can tell.

    The lock itself is asked: the kernel lets go of it when its holder dies, while a process id may be given to another
    process. A lock of another machine is told by its heartbeat.
    """
    held = read_lock(folder)
    if not held:
        return None
    if _is_foreign(held) and time.time() - held.get("heartbeat", 0) < FOREIGN_FRESH_S:
        return held
    try:
        fd = os.open(folder.run_lock, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return held
    finally:
        os.close(fd)
    return None


def _is_foreign(held: dict[str, Any]) -> bool:
    """Whether another machine holds or held the lock; flock does not tell on some network file systems."""
    return held.get("host", socket.gethostname()) != socket.gethostname()


def _beats_elsewhere(folder: RunFolder, held: dict[str, Any]) -> bool:
    """Whether a run on another machine lives that holds the lock: its heartbeat changes while it is watched."""
    deadline = time.monotonic() + WATCH_S
    while _is_foreign(held) and time.monotonic() < deadline:
        if read_lock(folder) not in ({}, held):
            return True
        time.sleep(LOOK_S)
    return False


def _in_use(folder: RunFolder, held: dict[str, Any]) -> InputError:
    started = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(held.get("started", 0)))
    who = f"pid {held.get('pid', '?')} on {held.get('host', '?')}, started {started}" if held else "another process"
    return InputError(f"the run folder {folder.root} is in use by {who}: wait for it, or choose another exp_name")


def hold_as_worker(folder: RunFolder) -> int:
    """Takes the workers' shared lock until the process ends and returns its descriptor."""
    fd = durable_io.create(folder.workers_lock, 0)
    fcntl.flock(fd, fcntl.LOCK_SH)
    return fd


def wait_for_orphans(folder: RunFolder, wait_s: float = ORPHAN_WAIT_S) -> None:
    """Returns when no worker of an earlier run is left; raises InputError that names those that stay."""
    fd = durable_io.create(folder.workers_lock, 0)
    deadline = time.monotonic() + wait_s
    try:
        while not _try_exclusive(fd):
            if time.monotonic() > deadline:
                raise InputError(
                    f"workers of an earlier run on {folder.root} still live after {wait_s:.0f} s: "
                    f"pids {_holders(folder.workers_lock)}: end them, then start again"
                )
            time.sleep(0.05)
    finally:
        os.close(fd)


def _taken(fd: int) -> bool:
    """Takes a lock and returns whether it is taken; somebody who only looks at it holds it for a moment."""
    for _ in range(LOOKS):
        if _try_exclusive(fd):
            return True
        time.sleep(LOOK_S)
    return False


def _try_exclusive(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _holders(path: Path) -> list[int]:
    """Returns the pids that the kernel lists as holders of locks on this file."""
    inode = str(path.stat().st_ino)
    lines = (line.split() for line in Path("/proc/locks").read_text().splitlines())
    return sorted({int(parts[-4]) for parts in lines if parts[-3].rpartition(":")[2] == inode})
