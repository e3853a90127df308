"""Watches the room on the disk: no round is handed out that could not be sealed, and a full disk is waited for."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np

from bimangrasp.files.schema import GRASP_FIELDS, shape_of
from scale.errors import RunError
from scale.formatting import byte_size
from scale.store.run_folder import RunFolder

LOOK_EVERY_S = 1.0
FILE_BYTES = 1 << 20  # what a file needs besides its rows: attributes, curves, the pages of HDF5


def row_bytes(joints: int, contacts: int) -> int:
    """Returns the size of a grasp in a file."""
    sizes = {"N": 1, "J": joints, "C": contacts}
    return sum(int(np.prod(shape_of(f, sizes))) * np.dtype(f.dtype).itemsize for f in GRASP_FIELDS)


class Space:
    """Whether the run's disk has room for what comes next."""

    def __init__(self, folder: RunFolder, wait_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._folder, self._wait_s, self._clock = folder, wait_s, clock
        self._looked: float | None = None
        self._full_since: float | None = None
        self.shortage = ""

    def met(self, error: str) -> None:
        """Notes that a write found the disk full, or the user's share of it."""
        self.shortage, self._looked = error, self._clock()
        self._full_since = self._looked if self._full_since is None else self._full_since

    def sealed(self) -> None:
        """Notes a file that was written: only that proves that a shortage is over."""
        if not self.shortage:
            self._full_since = None

    def look(self, need: Callable[[], int]) -> bool:
        """Returns whether there is room; looks once in a while.

        Args:
            need: gives the bytes that the rounds in flight, one more on each idle worker and the next merge take.

        Raises:
            RunError: there has been none for too long.
        """
        now = self._clock()
        if self._looked is not None and now - self._looked < LOOK_EVERY_S:
            return not self.shortage
        self._looked = now
        wanted, free = need(), self._folder.free_bytes()
        if free < wanted:
            self.shortage = f"{byte_size(free)} free, {byte_size(wanted)} needed for running rounds and the next merge"
        elif self.shortage and self._folder.has_room(wanted):  # asks the file system: free bytes know no quotas
            self.shortage = ""
        if self.shortage:
            self._full_since = now if self._full_since is None else self._full_since
            self._give_up_after_wait(now)
        return not self.shortage

    def _give_up_after_wait(self, now: float) -> None:
        if now - self._full_since >= self._wait_s:
            raise RunError(
                f"the disk of {self._folder.root} is full ({self.shortage}), for {now - self._full_since:.0f} s by "
                f"now (disk_wait_s={self._wait_s:g}): make room, then the same command goes on"
            )
