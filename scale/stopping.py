"""How a run is stopped from outside: signals, taken only in the main thread and given back afterwards, and time."""

from __future__ import annotations

import signal
import threading
import time
from types import FrameType
from typing import Any

GRACE_S = 20.0  # what preemption leaves for the rounds under way
PREEMPTION = (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)


class Stop:
    """Whether new rounds are handed out, running ones finish, or all ends now."""

    def __init__(self, max_hours: float | None) -> None:
        self._until = None if max_hours is None else time.monotonic() + max_hours * 3600
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
            self._stop(143, f"{name}: {GRACE_S:.0f} s for the running rounds", GRACE_S)

    def _stop(self, exit_code: int, reason: str, grace: float | None) -> None:
        self.exit_code, self.reason = exit_code, reason
        self._deadline = None if grace is None else time.monotonic() + grace

    def look(self) -> bool:
        """Returns whether no new rounds are to be handed out."""
        now = time.monotonic()
        if not self.exit_code and self._until is not None and now >= self._until:
            self._stop(3, f"max_hours: {GRACE_S:.0f} s for the running rounds", GRACE_S)
        if self._deadline is not None and now >= self._deadline:
            self.is_immediate = True
        return bool(self.exit_code)
