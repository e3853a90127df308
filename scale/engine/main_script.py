"""Refuses programs that a starting worker cannot import: spawned processes import the main script anew."""

from __future__ import annotations

import ast
import multiprocessing
import sys
from pathlib import Path
from types import FrameType

from bimangrasp.errors import InputError

GUARD = 'put the call under `if __name__ == "__main__":`'


def refuse_bad_script(called_from: FrameType | None = None) -> None:
    """Refuses a call from a program whose workers would fail or start without end, before anything is written.

    Args:
        called_from: the frame of the call; the caller's where it is left out.

    Raises:
        InputError: the program is read from standard input, has the call outside of the guard, or is being imported by
            a worker that starts.
    """
    if getattr(multiprocessing.current_process(), "_inheriting", False):
        raise InputError(
            f"scale was called while a worker process was starting, which imports your script anew: {GUARD}"
        )
    main = sys.modules["__main__"]
    path = getattr(main, "__file__", None)
    spec = getattr(main, "__spec__", None)
    if path is None or (spec is not None and spec.name.endswith("__main__")):
        return  # an interactive session, `python -c`, or a package that is run: no worker imports those
    if not Path(path).is_file():
        raise InputError(
            f"this program is read from {path}, and worker processes have to import it anew: write it to a file, and "
            f"{GUARD} there"
        )
    line = _line_in(main.__dict__, called_from or sys._getframe(1))
    if line and not _is_guarded(Path(path), line):
        raise InputError(
            f"{path}, line {line}: worker processes import this script anew, and would call it again: {GUARD}"
        )


def _line_in(variables: dict[str, object], frame: FrameType | None) -> int:
    """Returns the line of the main script, outside of all functions, from which a call came; 0 where it did not."""
    while frame is not None:
        if frame.f_code.co_name == "<module>" and frame.f_globals is variables:
            return frame.f_lineno
        frame = frame.f_back
    return 0


def _is_guarded(path: Path, line: int) -> bool:
    """Whether a line of a script is under `if __name__ == ...`, or that cannot be told."""
    try:
        tree = ast.parse(path.read_bytes())
    except (OSError, SyntaxError, ValueError):
        return True
    guards = [node for node in tree.body if isinstance(node, ast.If) and "__name__" in ast.dump(node.test)]
    return any(node.lineno <= line <= (node.end_lineno or line) for node in guards)
