"""The guard against a script that starts itself anew."""

from __future__ import annotations

import multiprocessing

from bimangrasp.errors import InputError


def refuse_unguarded_script() -> None:
    """Refuses a call from a script that a starting worker imports: it would start workers without end."""
    if getattr(multiprocessing.current_process(), "_inheriting", False):
        raise InputError(
            "scale was called while a worker process was starting, which imports your script anew: put the call "
            'under `if __name__ == "__main__":`'
        )
