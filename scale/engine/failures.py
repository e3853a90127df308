"""What a failure means: decisions about rounds, devices and the whole call, from what went wrong so far. Pure."""

from __future__ import annotations

import signal
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

OUTSIDE = (-signal.SIGKILL, -signal.SIGTERM)
"""Exit codes of a death that came from outside, unless the parent sent it."""
BROKEN_DEVICE = 86
"""Exit code of a worker that ended itself, for nothing may go on with the context of a failed GPU."""
CASES = 3
"""So many different objects in a row tell a broken device or configuration from a difficult object."""

Key = tuple[str, int]
"""A round: object code and round id."""


class Death(NamedTuple):
    """How a process ended.

    Attributes:
        how: for people.
        from_outside: whether it says nothing of what the process did.
    """

    how: str
    from_outside: bool


def death(exitcode: int, parents_reason: str) -> Death:
    """Returns what an exit code tells; `parents_reason` is empty unless the parent ended the process."""
    how = signal.Signals(-exitcode).name if exitcode < 0 else f"exit code {exitcode}"
    if parents_reason:
        return Death(f"{how}, by the parent: {parents_reason}", False)
    return Death(how, exitcode in OUTSIDE)


_OUT_OF_MEMORY = ("cuda out of memory", "cuda error: out of memory", "defaultcpuallocator")
_BROKEN = ("cuda error", "cublas", "cusolver", "cusparse", "cudnn", "device-side assert")


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """Yields an error and what it was raised from."""
    while error is not None:
        yield error
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether less at once may succeed. torch is not imported for it, so its errors are told by their names."""
    return any(
        isinstance(one, MemoryError)
        or type(one).__name__ == "OutOfMemoryError"
        or (isinstance(one, RuntimeError) and any(word in str(one).lower() for word in _OUT_OF_MEMORY))
        for one in _chain(error)
    )


def is_broken_device(error: BaseException) -> bool:
    """Whether the device's context cannot be trusted any more."""
    return not is_out_of_memory(error) and any(
        type(one).__name__ == "AcceleratorError"
        or (isinstance(one, RuntimeError) and any(word in str(one).lower() for word in _BROKEN))
        for one in _chain(error)
    )


@dataclass
class Attempts:
    """What befell a round in this call.

    Attributes:
        failed_on: slot of each failed attempt.
        kills: deaths from outside while others ran beside it.
        lonely_kills: the same while it ran alone.
    """

    failed_on: list[int] = field(default_factory=list)
    kills: int = 0
    lonely_kills: int = 0


@dataclass
class RetryPolicy:
    """The rounds that went wrong, and what becomes of them.

    Attributes:
        max_retries: further attempts at a round that failed.
        max_kills: deaths from outside before a round runs alone, and alone before it is given up; 0 never.
    """

    max_retries: int
    max_kills: int
    _of: dict[Key, Attempts] = field(default_factory=dict)

    def of(self, key: Key) -> Attempts:
        """Returns what befell a round so far."""
        return self._of.get(key, Attempts())

    def failed(self, key: Key, slot: int) -> int:
        """Notes a failed attempt and returns how many there are."""
        trial = self._of.setdefault(key, Attempts())
        trial.failed_on.append(slot)
        return len(trial.failed_on)

    def is_used_up(self, key: Key) -> bool:
        """Whether a round has failed as often as it may."""
        return len(self.of(key).failed_on) > self.max_retries

    def forgive(self, key: Key, slot: int) -> int:
        """Takes back the attempts that failed on a slot and returns how many these were."""
        trial = self.of(key)
        before = len(trial.failed_on)
        trial.failed_on[:] = [other for other in trial.failed_on if other != slot]
        return before - len(trial.failed_on)

    def killed(self, key: Key, alone: bool) -> None:
        """Notes a death from outside."""
        trial = self._of.setdefault(key, Attempts())
        trial.kills += not alone
        trial.lonely_kills += alone

    def runs_alone(self, key: Key) -> bool:
        """Whether no other round may run beside this one."""
        return 0 < self.max_kills <= self.of(key).kills

    def is_deadly(self, key: Key) -> bool:
        """Whether a round was killed alone as often as it may."""
        return 0 < self.max_kills <= self.of(key).lonely_kills

    def barred(self, key: Key, slots: Collection[int]) -> frozenset[int]:
        """Returns the slots that a round keeps away from: those where it failed, as long as there are others."""
        failed_on = frozenset(self.of(key).failed_on)
        return failed_on if set(slots) - failed_on else frozenset()


@dataclass
class Slots:
    """Which devices are worked with.

    Attributes:
        count: one slot per device.
        aside: those that are set aside.
    """

    count: int
    aside: set[int] = field(default_factory=set)
    _streaks: dict[int, list[Key]] = field(default_factory=dict)
    _outdone: set[int] = field(default_factory=set)
    _never_ready: Counter[int] = field(default_factory=Counter)

    @property
    def used(self) -> list[int]:
        """The others."""
        return [slot for slot in range(self.count) if slot not in self.aside]

    def succeeded(self, slot: int) -> None:
        """Notes a sealed round: the end of a slot's bad streak, and a witness against those of the others."""
        self._streaks.pop(slot, None)
        self._outdone.discard(slot)
        self._outdone |= self._streaks.keys()

    def failed(self, slot: int, key: Key) -> None:
        """Notes a failed attempt."""
        self._streaks.setdefault(slot, []).append(key)

    def all_fail(self, slots: Collection[int]) -> bool:
        """Whether the last round on each of some slots failed."""
        return all(slot in self._streaks for slot in slots)

    def on_hold(self, slot: int) -> bool:
        """Whether a slot gets no rounds until the others have shown whether it is to blame."""
        return self._is_suspect(slot) and not self.all_fail(self.used)

    def _is_suspect(self, slot: int) -> bool:
        return len({code for code, _ in self._streaks.get(slot, [])}) >= CASES

    def condemned(self) -> Iterator[tuple[int, list[Key]]]:
        """Sets the slots aside that failed different objects in a row while another one succeeded, never the last.

        Yields each with the rounds of its streak.
        """
        for slot in self.used:
            if slot in self._outdone and self._is_suspect(slot) and len(self.used) > 1:
                self.aside.add(slot)
                yield slot, self._streaks.pop(slot)

    def ready(self, slot: int) -> None:
        """Notes that a slot's worker has loaded its models."""
        self._never_ready.pop(slot, None)

    def died_early(self, slot: int, most: int) -> bool:
        """Notes a worker that died before it was ready; returns whether its slot is now set aside."""
        self._never_ready[slot] += 1
        if self._never_ready[slot] < most or len(self.used) < 2:
            return False
        self.aside.add(slot)
        return True

    def none_starts(self, most: int, any_was_ready: bool) -> bool:
        """Whether early deaths leave nothing to work with: the last slot, or any before one worker was ever ready."""
        deaths = [self._never_ready[slot] for slot in self.used]
        return sum(deaths) >= most and all(deaths) and (len(deaths) == 1 or not any_was_ready)


@dataclass
class ConfigErrorDetector:
    """Whether it is the configuration that fails: nothing has succeeded in this call, and different objects fail.

    Objects with rounds that an earlier call gave up are known to be difficult and accuse nobody. A call with fewer
    than three objects waits until each has used up a round, or three where an earlier call had success with it.

    Attributes:
        patience: object code -> rounds to use up, of the objects that this call has to work on.
        difficult: those of them with rounds that were given up earlier.
        has_success: whether a round was sealed in this call.
        failed: objects with a failed attempt.
    """

    patience: Mapping[str, int]
    difficult: Collection[str] = ()
    has_success: bool = False
    failed: set[str] = field(default_factory=set)
    _used_up: Counter[str] = field(default_factory=Counter)

    def falls_on_configuration(self, code: str, is_used_up: bool) -> bool:
        """Notes a failed attempt and returns whether the call is to end."""
        self.failed.add(code)
        self._used_up[code] += is_used_up
        if self.has_success or code in self.difficult:
            return False
        if len(self.patience) >= CASES:
            return len(self.failed - set(self.difficult)) >= CASES
        return not self.difficult and all(self._used_up[one] >= rounds for one, rounds in self.patience.items())
