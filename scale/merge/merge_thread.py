"""Merges final files and finds near-duplicates in a thread, one job after the other, while the parent's loop runs."""

from __future__ import annotations

import multiprocessing
import queue
import threading
from typing import NamedTuple

from scale.merge.final_file import Merged, merge
from scale.merge.job import DedupJob, MergeJob, duplicates
from scale.store.run_folder import RunFolder


class Outcome(NamedTuple):
    """How a job ended: with a final file, or with the near-duplicates among a round's rows, or with an error."""

    job: MergeJob | DedupJob
    result: Merged | tuple[int, ...] | None
    error: Exception | None


class MergeThread:
    """The thread and its queue of jobs; `wake` can be read when an outcome waits."""

    def __init__(self, folder: RunFolder) -> None:
        self._folder = folder
        self._jobs: queue.SimpleQueue[MergeJob | DedupJob | None] = queue.SimpleQueue()
        self._outcomes: queue.SimpleQueue[Outcome] = queue.SimpleQueue()
        self.wake, self._ring = multiprocessing.Pipe(duplex=False)
        self._thread = threading.Thread(target=self._work, name="merge", daemon=True)
        self._thread.start()
        self.pending = 0
        self._is_closing = False

    def submit(self, job: MergeJob | DedupJob) -> None:
        """Queues work."""
        self.pending += 1
        self._jobs.put(job)

    def outcomes(self) -> list[Outcome]:
        """Returns what has ended since the last call."""
        outcomes = []
        while self.wake.poll():
            self.wake.recv_bytes()
            outcomes.append(self._outcomes.get())
        self.pending -= len(outcomes)
        return outcomes

    def close(self) -> None:
        """Waits for the work under way, drops the queued ones and ends the thread."""
        self._is_closing = True
        self._jobs.put(None)
        self._thread.join()
        for end in (self.wake, self._ring):
            end.close()

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None and not self._is_closing:
            self._outcomes.put(self._done(job))
            self._ring.send_bytes(b".")

    def _done(self, job: MergeJob | DedupJob) -> Outcome:
        """Does one job; of any error the parent decides what it means."""
        try:
            result = duplicates(job) if isinstance(job, DedupJob) else merge(self._folder, job)
            return Outcome(job, result, None)
        except Exception as error:
            return Outcome(job, None, error)
