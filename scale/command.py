"""Does what `mode` says, and returns how it ended: for the command line, and for the jobs of a cluster."""

from __future__ import annotations

import os
import shutil
import signal
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from multiprocessing import util
from pathlib import Path
from types import FrameType
from typing import Any

import scale
from bimangrasp.builtin import keep_caches_without_a_home, temporary_prefix
from bimangrasp.errors import InputError
from scale.screen import stage
from scale.settings.schema import Config
from scale.store.path_settings import given_path
from scale.store.run_folder import remove_unfinished

ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""What ends a mode that only shows at once: Ctrl-C, a polite request, a closed terminal."""
UNLINKING_S = 1.0
"""For removing the semaphores of pools of processes."""
OUTLIVING = {signal.SIGHUP: signal.SIG_IGN}
"""A closed terminal ends no run: neither this process nor those that it starts."""
SWEEPS, SWEEP_S = 10, 0.02
"""How often what a thread had just begun is looked for, and how far apart."""

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
        with _ending_children(*ENDING), stage(f"plan of mode={config.mode}"):
            plan = scale.plan(config)
        print(plan)
        return 0
    with _ending_children(signal.SIGTERM), _handling(OUTLIVING), stage(f"start of mode={config.mode}"):
        return scale.run(config).exit_code


@contextmanager
def _leaving_nothing() -> Iterator[None]:
    """Ends at a signal of `ENDING` with nothing left, and keeps temporary files where all go then.

    A mode that only shows has nothing to finish, and its threads may wait for a process for minutes.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = tempfile.tempdir
    keep_caches_without_a_home()  # else they would be among what goes
    with tempfile.TemporaryDirectory(prefix=temporary_prefix()) as folder, _ending_children(*ENDING):
        tempfile.tempdir = folder
        try:
            yield
        finally:
            tempfile.tempdir = before


@contextmanager
def _ending_children(*numbers: int) -> Iterator[None]:
    """Ends at these signals with 128 and their number, with the processes that were started and temporary files.

    No exception is raised, as threads that wait for a process would be waited for. A run that has begun hears the
    signals itself; until then it has nothing to finish either. What is ignored already stays so, as under nohup.
    """
    temporary = Path(tempfile.gettempdir())

    def end(number: int, _frame: FrameType | None) -> None:
        # else the process that watches over semaphores speaks of a leak; aside, as what is interrupted may hold a lock
        unlinking = threading.Thread(target=util._run_finalizers, args=(0,), daemon=True)
        unlinking.start()
        unlinking.join(UNLINKING_S)
        tempfile.tempdir = os.devnull  # threads that go on meanwhile can begin nothing new
        for _ in range(SWEEPS):
            _sweep(temporary)
        remove_unfinished()
        os._exit(128 + number)

    heard = (number for number in numbers if signal.getsignal(number) is not signal.SIG_IGN)
    with _handling(dict.fromkeys(heard, end)):
        yield


@contextmanager
def _handling(handlers: dict[int, Any]) -> Iterator[None]:
    """Handles signals, which `main.py` may have blocked until somebody does; only a main thread can."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    mask = signal.pthread_sigmask(signal.SIG_UNBLOCK, handlers)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        for number, handler in before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)


def _sweep(temporary: Path) -> None:
    """Ends the processes that this one has started, and removes its temporary folders; waits where there were any."""
    children, folders = _children(), list(temporary.glob(f"{temporary_prefix()}*"))
    for pid in children:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    for folder in folders:
        shutil.rmtree(folder, ignore_errors=True)
    if children or folders:
        time.sleep(SWEEP_S)


def _children() -> list[int]:
    """Returns the processes that this one has started and that run, as Linux tells; none where it does not."""
    children = []
    for path in Path("/proc/self/task").glob("*/children"):
        with suppress(OSError):  # a thread that has ended meanwhile
            children += map(int, path.read_text().split())
    return children


def refused(error: InputError) -> int:
    """Says what cannot be used and returns the exit code of a usage error."""
    print(f"error: {error}", file=sys.stderr)
    return 2
