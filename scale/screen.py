"""Writes to the screen as long as somebody reads it, which ends no run, and speaks there of what takes long."""

from __future__ import annotations

import errno
import os
import shutil
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TextIO

from scale.formatting import duration

GONE = (errno.EPIPE, errno.EIO, errno.EBADF)
"""What a write meets when the reader of a pipe has ended, or a terminal was closed."""
FULL = (errno.ENOSPC, errno.EDQUOT)
"""What a write into a file meets when its disk has no room."""


class Screen:
    """A stream of which the reader may go, or the room: what is written from then on is dropped.

    Attributes:
        loss: why somebody who still reads lacks words; empty where nobody does.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self.loss = ""

    def write(self, text: str) -> int:
        """Writes, or drops."""
        self._attempt(self._stream.write, text)
        return len(text)

    def flush(self) -> None:
        """Brings out what was written, or drops it."""
        self._attempt(self._stream.flush)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def _attempt(self, action: Any, *arguments: str) -> None:
        try:
            action(*arguments)
        except OSError as error:
            if error.errno not in GONE + FULL:
                raise
            if error.errno in FULL:
                self.loss = error.strerror
            self._drop()

    def _drop(self) -> None:
        """Puts nothing in the reader's place, so that what is still in a buffer goes there, too."""
        nothing = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nothing, self._stream.fileno())
        os.close(nothing)


@contextmanager
def lenient() -> Iterator[None]:
    """Lets output be dropped where nobody reads it, or where nothing can be written."""
    before = sys.stdout, sys.stderr
    _hold_closed_descriptors()
    with open(os.devnull, "w", encoding="utf-8") as nothing:  # noqa: PTH123 - in place of a stream that was closed
        sys.stdout, sys.stderr = shown = [Screen(stream or nothing) for stream in before]
        try:
            yield
        finally:
            for name, screen in zip(("stdout", "stderr"), shown, strict=True):
                screen.flush()
                if screen.loss:
                    sys.stderr.write(f"{_what_lacks(name, screen.loss)}\n")
            sys.stdout, sys.stderr = before


def _hold_closed_descriptors() -> None:
    """Puts nothing in the place of closed standard streams: a file that is opened later would get their words."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # it gets the lowest number that is free, this one


def _what_lacks(name: str, why: str) -> str:
    return (
        f"warning: {name} cannot be written ({why}), and the rest of it was dropped: make room or let it go elsewhere; "
        "a run has all of it in logs/run.log"
    )


FIRST_S, PLAIN_EVERY_S, LIVE_EVERY_S = 5.0, 10.0, 0.5
"""Seconds until work is spoken of, and between two lines of it in a file or a pipe, and on a terminal."""

NAMED = 3  # things that are worked on, in a line


class Stage:
    """Something that may take long: what it is, how far it is, and on what it is. Threads may share one."""

    def __init__(self, doing: str, total: int = 0, things: str = "") -> None:
        self._doing, self._total, self._things = doing, total, things
        self._start, self._done = time.monotonic(), 0
        self._begun: dict[str, float] = {}
        self._lock = threading.Lock()

    def advance(self, count: int = 1) -> None:
        """Counts things that are done."""
        with self._lock:
            self._done += count

    @contextmanager
    def on(self, name: str) -> Iterator[None]:
        """Says what is worked on meanwhile, which is done then."""
        with self._lock:
            self._begun[name] = time.monotonic()
        try:
            yield
        finally:
            with self._lock:
                del self._begun[name]
                self._done += 1

    def line(self, now: float) -> str:
        """Returns what is to be said at a time of `time.monotonic`."""
        with self._lock:
            begun, done = sorted(self._begun.items(), key=lambda item: item[1]), self._done
        counted = f", {done} of {self._total} {self._things}" if self._total else ""
        named = ", ".join(f"{name} for {duration(now - start)}" for name, start in begun[:NAMED])
        more = f" and {len(begun) - NAMED} more" if len(begun) > NAMED else ""
        return f"{self._doing}{counted}, for {duration(now - self._start)}" + (f" (at {named}{more})" if begun else "")


class _Speaker(threading.Thread):
    """Shows the innermost of the stages that are going on: a line now and then, or one that is renewed."""

    def __init__(self) -> None:
        super().__init__(name="progress", daemon=True)
        self.stages: list[Stage] = []
        self._ended = threading.Event()
        self._is_live = sys.stderr.isatty()
        self._next = time.monotonic() + FIRST_S
        self._has_spoken = False

    def run(self) -> None:
        """Speaks until the last stage has ended."""
        while not self._ended.wait(max(0.0, min(self._next - time.monotonic(), LIVE_EVERY_S))):
            now = time.monotonic()
            if now >= self._next:
                self._show(self.stages[-1].line(now))
                self._next = now + (LIVE_EVERY_S if self._is_live else PLAIN_EVERY_S)

    def end(self) -> None:
        """Ends, with nothing left on a terminal."""
        if self._ended.is_set():
            return
        self._ended.set()
        self.join()
        if self._is_live and self._has_spoken:
            sys.stderr.write("\x1b[K")
            sys.stderr.flush()

    def _show(self, line: str) -> None:
        """Shows a line. On a terminal whatever comes next takes its place, as the cursor goes back."""
        self._has_spoken = True
        if self._is_live:
            line = line[: shutil.get_terminal_size().columns - 1]
        sys.stderr.write(f"{line}\x1b[K\r" if self._is_live else f"{line}\n")
        sys.stderr.flush()


def hush() -> None:
    """Lets the stages that go on say nothing more, as something else speaks from now on."""
    for speaker in _speakers:
        speaker.end()


_speakers: list[_Speaker] = []  # none, or the one of this process: there is one screen


@contextmanager
def stage(doing: str, total: int = 0, things: str = "") -> Iterator[Stage]:
    """Speaks on stderr of what is done meanwhile, where that takes longer than five seconds; stages may be nested.

    Args:
        doing: what is done, such as "checking meshes".
        total: how many things there are to do; 0 where nobody counts.
        things: what they are.
    """
    begun, is_first = Stage(doing, total, things), not _speakers
    if is_first:
        _speakers.append(_Speaker())
    speaker = _speakers[0]
    speaker.stages.append(begun)
    if is_first:
        speaker.start()
    try:
        yield begun
    finally:
        if is_first:
            _speakers.clear()
            speaker.end()
        else:
            speaker.stages.remove(begun)
