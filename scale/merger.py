"""The merge thread: one final file after the other, while the parent's loop goes on."""

from __future__ import annotations

import multiprocessing
import queue
import threading
from typing import NamedTuple

from scale.merge import Merged, MergeJob, merge
from scale.run_folder import RunFolder


class MergeOutcome(NamedTuple):
    """How a merge ended: `merged`, or the error."""

    job: MergeJob
    merged: Merged | None
    error: Exception | None


class Merger:
    """Merges in a thread; `wake` can be read when an outcome waits."""

    def __init__(self, folder: RunFolder) -> None:
        self._folder = folder
        self._jobs: queue.SimpleQueue[MergeJob | None] = queue.SimpleQueue()
        self._outcomes: queue.SimpleQueue[MergeOutcome] = queue.SimpleQueue()
        self.wake, self._ring = multiprocessing.Pipe(duplex=False)
        self._thread = threading.Thread(target=self._work, name="merge", daemon=True)
        self._thread.start()
        self.pending = 0
        self._is_closing = False

    def submit(self, job: MergeJob) -> None:
        """Queues a merge."""
        self.pending += 1
        self._jobs.put(job)

    def outcomes(self) -> list[MergeOutcome]:
        """Returns the merges that have ended since the last call."""
        found = []
        while self.wake.poll():
            self.wake.recv_bytes()
            found.append(self._outcomes.get())
        self.pending -= len(found)
        return found

    def close(self) -> None:
        """Waits for the merge under way, drops the queued ones and ends the thread."""
        self._is_closing = True
        self._jobs.put(None)
        self._thread.join()
        for end in (self.wake, self._ring):
            end.close()

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None and not self._is_closing:
            try:
                outcome = MergeOutcome(job, merge(self._folder, job), None)
            except Exception as error:  # the parent decides what it means
                outcome = MergeOutcome(job, None, error)
            self._outcomes.put(outcome)
            self._ring.send_bytes(b".")
