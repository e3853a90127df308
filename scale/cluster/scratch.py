"""Keeps an agent's folder on its node: files by their hash, and nothing of agents that were killed."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from scale.store import durable_io
from scale.store.run_folder import RunFolder

_UNBORN, _DOOMED = ".new-", ".gone-"
YOUNG_S = 3600.0


class Scratch:
    """A folder that lives as long as an agent; what it seals lies there until the parent has it.

    Attributes:
        folder: laid out as a run's.
    """

    def __init__(self, base: str, name: str) -> None:
        root = Path(base or tempfile.gettempdir()) / f"bimangrasp_agents_{os.getuid()}"
        root.mkdir(parents=True, exist_ok=True)
        remove_forsaken(root)
        born = Path(tempfile.mkdtemp(prefix=_UNBORN, dir=root))
        self._lock = _locked(born)
        self.folder = RunFolder(root / f"{name}_{born.name.removeprefix(_UNBORN)}")
        born.rename(self.folder.root)  # only a locked folder has a name that others look at
        self.folder.prepare()
        self._files = self.folder.root / "files"

    def keep(self, files: Mapping[str, tuple[str, bytes]]) -> None:
        """Writes files: sha256 -> name and content."""
        for sha256, (name, data) in files.items():
            path = self.path(sha256, name)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)

    def path(self, sha256: str, name: str) -> Path:
        """Returns where a file lies; its name is kept, for it tells the format and what is in it."""
        return self._files / sha256 / name

    def beside(self, mesh: str, places: Mapping[str, str]) -> dict[str, str]:
        """Returns where files lie beside a mesh, as they did where they come from.

        Args:
            mesh: path of the mesh there.
            places: path there, of it and the files beside it -> path here.
        """
        top = Path(tempfile.mkdtemp(dir=self.folder.root))
        together = {path: top / Path(path).relative_to(Path(mesh).parent) for path in places}
        for path, place in together.items():
            place.parent.mkdir(parents=True, exist_ok=True)
            place.symlink_to(places[path])
        return {path: str(place) for path, place in together.items()}

    def forget(self, hashes: list[str]) -> None:
        """Deletes files that no job needs."""
        for sha256 in hashes:
            shutil.rmtree(self._files / sha256, ignore_errors=True)

    def take(self, path: Path) -> bytes:
        """Returns a file's content and deletes it."""
        data = path.read_bytes()
        durable_io.remove(path)
        return data

    def remove(self) -> None:
        """Deletes the folder."""
        _remove(self.folder.root)
        os.close(self._lock)


def remove_forsaken(root: Path) -> None:
    """Deletes the folders whose agents and their processes are gone: nobody holds their locks."""
    for folder in root.iterdir():
        if not folder.is_dir() or (folder.name.startswith(_UNBORN) and _is_young(folder)):
            continue
        if folder.name.startswith(_DOOMED):
            shutil.rmtree(folder, ignore_errors=True)  # of an agent that was killed while it deleted; nobody looks in
            continue
        of_agent = _free(folder / "agent.lock")
        if of_agent is None:
            continue  # also when another agent is about to delete it: two that hold one lock each would both give up
        of_workers = _free(folder / "workers.lock")
        if of_workers is not None:
            _remove(folder)
            os.close(of_workers)
        os.close(of_agent)


def _remove(folder: Path) -> None:
    """Deletes a folder under another name: whoever looks for its locks meanwhile would make new ones in it."""
    doomed = folder.with_name(f"{_DOOMED}{folder.name}")
    with suppress(FileNotFoundError):
        folder.rename(doomed)
        shutil.rmtree(doomed, ignore_errors=True)


def _is_young(folder: Path) -> bool:
    """Whether a folder may be one that an agent is about to lock."""
    try:
        return time.time() - folder.stat().st_mtime < YOUNG_S
    except FileNotFoundError:
        return True


def _locked(folder: Path) -> int:
    """Takes the lock of an agent and returns its descriptor."""
    lock = durable_io.create(folder / "agent.lock", 0)
    fcntl.flock(lock, fcntl.LOCK_EX)
    return lock


def _free(path: Path) -> int | None:
    """Returns a descriptor that holds a lock; None where somebody else does, or the folder is gone meanwhile."""
    try:
        lock = durable_io.create(path, 0)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        return None
    return lock
