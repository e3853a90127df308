"""Stops a run from outside: by signals, taken only in the main thread and given back afterwards, and by time."""

from __future__ import annotations

import signal
import threading
import time
from types import FrameType
from typing import Any

from scale.settings.schema import Config

PREEMPTION = (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)


class Stop:
    """Whether new rounds are handed out, running ones finish, or all ends now."""

    def __init__(self, config: Config) -> None:
        hours, self._grace_s = config.max_hours, config.grace_s
        self._until = None if hours is None else time.monotonic() + hours * 3600
        self._deadline: float | None = None
        self._before: dict[int, Any] = {}
        self.exit_code = 0
        self.reason = ""
        self.is_immediate = False

    def __enter__(self) -> Stop:
        if threading.current_thread() is threading.main_thread():
            self._before = {n: signal.signal(n, self._hear) for n in (signal.SIGINT, *PREEMPTION)}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)

    def _hear(self, number: int, _frame: FrameType | None) -> None:
        """Ctrl-C: finish, at the second time end now. Preemption: finish within the grace."""
        if number == signal.SIGINT:
            self.is_immediate = self.exit_code == 130
            self._stop(130, "Ctrl-C: running rounds finish; once more ends them now", None)
        elif not self.exit_code:
            name = signal.Signals(number).name
            self._stop(143, f"{name}: {self._grace_s:.0f} s for the running rounds", self._grace_s)

    def _stop(self, exit_code: int, reason: str, grace: float | None) -> None:
        self.exit_code, self.reason = exit_code, reason
        self._deadline = None if grace is None else time.monotonic() + grace

    def look(self) -> bool:
        """Returns whether no new rounds are to be handed out."""
        now = time.monotonic()
        if not self.exit_code and self._until is not None and now >= self._until:
            self._stop(3, f"max_hours: {self._grace_s:.0f} s for the running rounds", self._grace_s)
        if self._deadline is not None and now >= self._deadline:
            self.is_immediate = True
        return bool(self.exit_code)
