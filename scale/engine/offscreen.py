"""Lets processes draw without a window."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from bimangrasp.visualization.thumbnails import LIBRARY, drawing_environment


@contextmanager
def drawing_processes() -> Iterator[None]:
    """Lets processes that are started here draw without a window."""
    before = os.environ.get(LIBRARY)
    os.environ[LIBRARY] = drawing_environment()[LIBRARY]
    try:
        yield
    finally:
        if before is None:
            del os.environ[LIBRARY]
        else:
            os.environ[LIBRARY] = before
