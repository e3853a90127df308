"""Defines the error that a user's mistake raises, and tells of files that have no content yet."""

from pathlib import Path


class InputError(ValueError):
    """An input that cannot be used. The message says what was given, what was wanted and what to do."""


LFS = b"version https://git-lfs"
"""How a file begins that Git has left a pointer of."""


def why_no_content(path: Path) -> str:
    """Returns why a file that is there has no content yet, and what to do; empty where it has some."""
    with path.open("rb") as file:
        begin = file.read(len(LFS))
    if not begin:
        return "is empty: copy it again"
    return "is a pointer of Git LFS and not the file: `git lfs pull` fetches it" if begin == LFS else ""
