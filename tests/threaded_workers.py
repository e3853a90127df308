"""Workers as threads of this process: no start costs, and one recorder sees all that a run does to the disk."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from typing import Any

from scale.engine import process_pool, worker
from scale.store import locks


class ThreadProcess:
    """What the engine asks of a process, as a thread; it cannot be killed, only told that its pipe is gone."""

    pid = None  # so that nobody signals the tests themselves

    def __init__(self, target: Callable[..., None], args: tuple[Any, ...], **_: object) -> None:
        connection, *rest = args
        self._connection = Connection(os.dup(connection.fileno()))  # the engine closes the one that it gave
        self._target, self._rest = target, rest
        self.sentinel, self._alive = os.pipe()
        self.exitcode: int | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.start, self.join, self.is_alive = self._thread.start, self._thread.join, self._thread.is_alive

    def _run(self) -> None:
        try:
            self._target(self._connection, *self._rest)
            self.exitcode = 0
        except OSError:  # the pipe was shut: the kill
            self.exitcode = -9
        except BaseException:
            self.exitcode = 1
            raise
        finally:
            self._connection.close()
            os.close(self._alive)

    def kill(self) -> None:
        """Shuts the pipe; the thread ends when it looks."""
        if self._thread.is_alive():
            try:
                with socket.socket(fileno=os.dup(self._connection.fileno())) as pipe:
                    pipe.shutdown(socket.SHUT_RDWR)
            except OSError:  # it ended meanwhile
                return


class ThreadContext:
    """What the engine asks of a multiprocessing context."""

    Pipe, Process = staticmethod(Pipe), ThreadProcess


def use_threads(monkeypatch: Any) -> None:
    """Lets every engine start threads; what belongs to a process of its own is left out."""
    monkeypatch.setattr(process_pool.multiprocessing, "get_context", lambda _: ThreadContext)
    monkeypatch.setattr(locks, "hold_as_worker", lambda _: -1)
    for name in ("_end_with_parent", "_leave_signals_to_parent"):
        monkeypatch.setattr(worker, name, lambda *_: None)
    monkeypatch.setattr(worker.faulthandler, "enable", lambda *_, **__: None)
