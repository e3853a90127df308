"""Writes to the screen as long as somebody reads it: what is shown is no reason for a run to end."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TextIO

GONE = (errno.EPIPE, errno.EIO, errno.EBADF)
"""What a write meets when the reader of a pipe has ended, or a terminal was closed."""


class Screen:
    """A stream of which the reader may go: what is written from then on is dropped."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

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
            if error.errno not in GONE:
                raise
            self._drop()

    def _drop(self) -> None:
        """Puts nothing in the reader's place, so that what is still in a buffer goes there, too."""
        nothing = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nothing, self._stream.fileno())
        os.close(nothing)


@contextmanager
def lenient() -> Iterator[None]:
    """Lets output be dropped where nobody reads it."""
    before = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = (Screen(stream) for stream in before)
    try:
        yield
        sys.stdout.flush()
    finally:
        sys.stdout, sys.stderr = before
