"""Tells which final files of a run are gone, or are not those of its journal any more."""

from __future__ import annotations

from scale.report.history import History
from scale.store.events import FileMerged
from scale.store.run_folder import RunFolder

MENDED = "the same command makes it again"


def lost_files(history: History, folder: RunFolder) -> dict[str, str]:
    """Returns object code -> what is wrong with its final file, by its size alone; of a run that nobody works on."""
    faults = ((code, _fault(merged, folder)) for code, merged in history.merged.items())
    return {code: fault for code, fault in faults if fault}


def _fault(merged: FileMerged, folder: RunFolder) -> str:
    """Returns what is wrong with the file of a journal's line; empty where nothing is."""
    path = folder.final(merged.code)
    try:
        size = path.stat().st_size
    except FileNotFoundError:
        return f"{path}: it is gone; {MENDED}"
    except OSError as error:
        return f"{path}: it cannot be read ({error.strerror})"
    if size == merged.size:
        return ""
    return f"{path}: it is damaged, with {size} bytes where it was written with {merged.size}; {MENDED}"
