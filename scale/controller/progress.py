"""Shows a run at work: a live panel on a terminal, plain lines elsewhere; and writes its log."""

from __future__ import annotations

import os
import time
from typing import NamedTuple

from rich.console import Console
from rich.live import Live
from rich.panel import Panel
from rich.table import Table

from scale.formatting import duration
from scale.store import durable_io
from scale.store.run_folder import RunFolder

PLAIN_EVERY_S = 10.0
LIVE_EVERY_S = 0.5
FEW_WORKERS = 4  # what each of more does would fill the screen


class Snapshot(NamedTuple):
    """A moment of a run.

    Attributes:
        collected, quota: accepted grasps that count, and those wanted, of all objects.
        ended, objects: how many objects are through, of how many.
        rates: device -> accepted grasps per second.
        failures, skipped: failed attempts and rounds given up, in this call.
        workers: what each worker does.
        validators: what they do together; empty where there are none.
        eta_s: seconds to go at the rate so far; None while nothing was accepted yet.
    """

    collected: int
    quota: int
    ended: int
    objects: int
    rates: dict[str, float]
    failures: int
    skipped: int
    workers: list[str]
    validators: str
    eta_s: float | None


class Meter:
    """Accepted grasps by worker since the first one was ready."""

    def __init__(self) -> None:
        self._start: float | None = None
        self._gained: dict[str, int] = {}

    def ready(self, device: str) -> None:
        """Starts the clock."""
        self._start = self._start or time.monotonic()
        self._gained.setdefault(device, 0)

    def gained(self, device: str, accepted: int) -> None:
        """Counts a round's accepted grasps."""
        self._gained[device] = self._gained.get(device, 0) + accepted

    def rates(self) -> dict[str, float]:
        """Returns grasps per second by device."""
        passed = max(time.monotonic() - (self._start or time.monotonic()), 1e-9)
        return {device: count / passed for device, count in self._gained.items()}

    def eta(self, missing: int) -> float | None:
        """Returns the seconds to `missing` more accepted grasps, None where nothing tells."""
        rate = sum(self.rates().values())
        return missing / rate if rate > 0 else None


class Progress:
    """The screen and the log of a run."""

    def __init__(self, folder: RunFolder, title: str) -> None:
        self._console, self._title = Console(highlight=False, soft_wrap=True), title
        self._log = durable_io.create(folder.run_log, os.O_APPEND)
        self._live = Live(console=self._console, auto_refresh=False, transient=True)
        self._is_live = self._console.is_terminal
        self._shown = time.monotonic()
        if self._is_live:
            self._live.start()

    def say(self, text: str) -> None:
        """Tells something that happened, on the screen and in the log."""
        self._console.print(text, markup=False)
        self.log(text)

    def log(self, text: str) -> None:
        """Writes into the log alone."""
        stamp = time.strftime("%Y-%m-%d %H:%M:%S")
        try:
            durable_io.write(self._log, "".join(f"{stamp} {line}\n" for line in text.splitlines()).encode())
        except OSError as error:
            if error.errno not in durable_io.DISK_FULL:  # a full disk costs lines of the log, never the run
                raise

    def is_due(self) -> bool:
        """Returns whether the screen should be brought up to date."""
        return time.monotonic() - self._shown >= (LIVE_EVERY_S if self._is_live else PLAIN_EVERY_S)

    def show(self, now: Snapshot) -> None:
        """Brings the screen up to date."""
        self._shown = time.monotonic()
        if self._is_live:
            self._live.update(_panel(self._title, now), refresh=True)
        else:
            self.say(plain(now))

    def close(self) -> None:
        """Gives the terminal back."""
        if self._is_live:
            self._live.stop()
        os.close(self._log)


def plain(now: Snapshot) -> str:
    """Returns a moment as a line."""
    total = f"{sum(now.rates.values()):.2f} grasps/s"
    faults = f", {now.failures} failed attempts, {now.skipped} rounds skipped" if now.failures or now.skipped else ""
    doing = f" ({'; '.join(now.workers)})" if len(now.workers) <= FEW_WORKERS else ""
    tests = f"{now.validators}, " if now.validators else ""
    return (
        f"{now.collected}/{now.quota} grasps, {now.ended}/{now.objects} objects, {total}, "
        f"{len(now.workers)} workers{doing}, {tests}{duration(now.eta_s)} to go{faults}"
    )


def _panel(title: str, now: Snapshot) -> Panel:
    """Returns a moment as a panel."""
    grid = Table.grid(padding=(0, 2))
    share = now.collected / max(1, now.quota)
    width = 30
    bar = "█" * int(share * width) + "·" * (width - int(share * width))
    grid.add_row("grasps", f"{bar} {now.collected}/{now.quota}")
    grid.add_row("objects", f"{now.ended}/{now.objects} through")
    grid.add_row("grasps/s", "   ".join(f"{name} {rate:.2f}" for name, rate in now.rates.items()) or "none yet")
    grid.add_row("workers", "\n".join(now.workers) or "none")
    if now.validators:
        grid.add_row("tests", now.validators)
    grid.add_row("failed", f"{now.failures} attempts, {now.skipped} rounds skipped")
    grid.add_row("to go", duration(now.eta_s))
    return Panel(grid, title=title, expand=False)
