"""Does what `mode` says, and returns how it ended: for the command line, and for the jobs of a cluster."""

from __future__ import annotations

import os
import shutil
import signal
import sys
import tempfile
import threading
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from multiprocessing import util
from pathlib import Path
from types import FrameType

import scale
from bimangrasp.builtin import temporary_prefix
from bimangrasp.errors import InputError
from scale.screen import stage
from scale.settings.schema import Config
from scale.store.path_settings import given_path

TERMINATED = 143
UNLINKING_S = 1.0
"""For removing the semaphores of pools of processes."""

SHOWN = {
    "status": lambda config: scale.status(given_path(config)),
    "merge": scale.merge_parts,
    "validate": scale.validate,
    "export": scale.export,
    "import": scale.import_results,
    "report": scale.write_report,
    "hand": scale.check_hand,
    "objects": scale.prepare_objects,
    "view": scale.view,
}
"""What the modes do that make no grasps: their report is printed, and what cannot be served raises."""


def outcome(config: Config) -> int:
    """Returns the exit code of a job, here or on a cluster. No error is raised: the other jobs of a sweep still run."""
    from scale.errors import RunError  # here, because every worker process imports this file anew

    try:
        return _dispatch(config)
    except InputError as error:
        return refused(error)
    except RunError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    except Exception:  # the door of the program: shown in full, and the sweep goes on
        traceback.print_exc()
        return 1


def _dispatch(config: Config) -> int:
    """Does what `mode` says and returns the exit code."""
    if config.mode in SHOWN:
        with _leaving_nothing(), stage(f"mode={config.mode}"):
            report = SHOWN[config.mode](config)
        print(report)
        return getattr(report, "exit_code", 0) or 0  # mode=status has that of the last call, None where none ended
    if config.dry_run:
        with _ending_children(), stage(f"plan of mode={config.mode}"):
            plan = scale.plan(config)
        print(plan)
        return 0
    with _ending_children(), stage(f"start of mode={config.mode}"):
        return scale.run(config).exit_code


@contextmanager
def _leaving_nothing() -> Iterator[None]:
    """Ends at SIGTERM with 143 and nothing left, and keeps temporary files where all go then.

    A mode that only shows has nothing to finish, and its threads may wait for a process for minutes.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = tempfile.tempdir
    with tempfile.TemporaryDirectory(prefix=temporary_prefix()) as folder, _ending_children():
        tempfile.tempdir = folder
        try:
            yield
        finally:
            tempfile.tempdir = before


@contextmanager
def _ending_children() -> Iterator[None]:
    """Ends at SIGTERM with 143, with the processes that were started and what is left in the temporary folder.

    A run that has begun hears the signal itself; until then it has nothing to finish either.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    temporary, was = Path(tempfile.gettempdir()), signal.getsignal(signal.SIGTERM)

    def end(_number: int, _frame: FrameType | None) -> None:
        # else the process that watches over semaphores speaks of a leak; aside, as what is interrupted may hold a lock
        unlinking = threading.Thread(target=util._run_finalizers, args=(0,), daemon=True)
        unlinking.start()
        unlinking.join(UNLINKING_S)
        for pid in _children():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        for folder in temporary.glob(f"{temporary_prefix()}*"):
            shutil.rmtree(folder, ignore_errors=True)
        os._exit(TERMINATED)

    signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL if was is None else was)


def _children() -> list[int]:
    """Returns the processes that this one has started and that run, as Linux tells; none where it does not."""
    lists = Path("/proc/self/task").glob("*/children")
    return [int(pid) for path in lists for pid in path.read_text().split()]


def refused(error: InputError) -> int:
    """Says what cannot be used and returns the exit code of a usage error."""
    print(f"error: {error}", file=sys.stderr)
    return 2
