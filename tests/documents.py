"""README and the pages of docs/ as tests read them."""

from __future__ import annotations

import re
import shlex
from dataclasses import fields, is_dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGES = {
    path.relative_to(ROOT).as_posix(): path.read_text()
    for path in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
}
README = PAGES["README.md"]
COMMAND = "python main.py "


def blocks(text: str, language: str) -> list[str]:
    """Returns the code blocks of a page."""
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


def shell_lines(text: str) -> list[str]:
    """Returns the lines of a page's shell blocks, continued lines joined."""
    return "".join(blocks(text, "bash")).replace("\\\n", " ").splitlines()


def commands(text: str, mode: str = "") -> list[list[str]]:
    """Returns the words after `python main.py` of each command on a page, or of those with one mode."""
    lines = [line.partition(COMMAND)[2] for line in shell_lines(text) if COMMAND in line]
    every = [shlex.split(line, comments=True) for line in lines]
    return [words for words in every if not mode or f"mode={mode}" in words]


def keys_of(record: object, prefix: str = "") -> set[str]:
    """Returns every dotted key of the configuration."""
    keys = set()
    for field in fields(record):
        keys.add(prefix + field.name)
        value = getattr(record, field.name)
        if is_dataclass(value):
            keys |= keys_of(value, f"{prefix}{field.name}.")
    return keys
