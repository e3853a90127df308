"""Decides which worker gets which round, and what failures mean for rounds, slots and the whole call. Pure."""

from __future__ import annotations

import signal
from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from scale.store.durable_io import DISK_FULL

OUTSIDE = (-signal.SIGKILL, -signal.SIGTERM)
"""Exit codes of a death that came from outside, unless the parent sent it."""
BROKEN_DEVICE = 86
"""Exit code of a worker that ended itself, for nothing may go on with the context of a failed GPU."""
IN_A_ROW = 3
"""So many failures in a row speak against a device, or against the configuration."""
EARLY_EXITS = 2
"""So many processes in a row that die before they are ready end the use of their slot."""
EARLY_KILLS = 20
"""So many deaths by signals from outside, in a row and before any process was ready, end the run."""
_OUT_OF_MEMORY = ("out of memory", "failed to allocate", "alloc_failed", "defaultcpuallocator")
"""What PyTorch, Warp, the driver, cuBLAS and cuSOLVER say, in lower case."""
_BROKEN = ("cuda error", "cublas", "cusolver", "cusparse", "cudnn", "device-side assert")
Key = tuple[str, int]
"""A round: object code and round id."""


class RoundRequest(NamedTuple):
    """A round to hand out.

    Attributes:
        key: the round.
        barred: slots that must not have it.
        is_ahead: whether it cannot be handed out yet, and only workers for it may be started.
    """

    key: Key
    barred: frozenset[int] = frozenset()
    is_ahead: bool = False


class FreeSlots(NamedTuple):
    """The slots that could take a round, in order.

    Attributes:
        idle: with a worker that waits.
        starting: with a worker that is not ready.
        empty: without a worker.
    """

    idle: list[int]
    starting: list[int]
    empty: list[int]


class Dispatch(NamedTuple):
    """What to do now: rounds for idle slots, and slots to start a worker on."""

    rounds: list[tuple[int, RoundRequest]]
    starts: list[int]


def dispatch(wanted: Iterable[RoundRequest], free: FreeSlots) -> Dispatch:
    """Returns which rounds go where, lowest slots first.

    A round whose slots are all taken waits, and the next one is looked at. A round for which only a slot with a
    starting worker is free is left to it.

    Args:
        wanted: the rounds to hand out next; only as many are looked at as there are slots for.
        free: the slots that could take one.
    """
    result, waiting = Dispatch([], []), iter(wanted)
    free = FreeSlots(*(list(slots) for slots in free))
    while any(free) and (request := next(waiting, None)):
        able = free[1:] if request.is_ahead else free
        usable = ((slots, slot) for slots in able for slot in slots if slot not in request.barred)
        slots, slot = next(usable, (None, None))
        if slots is free.idle:
            result.rounds.append((slot, request))
        elif slots is free.empty:
            result.starts.append(slot)
        if slots is not None:
            slots.remove(slot)
    return result


class Death(NamedTuple):
    """How a process ended.

    Attributes:
        how: for people.
        from_outside: whether it says nothing of what the process did.
    """

    how: str
    from_outside: bool


def death(exitcode: int, parents_reason: str) -> Death:
    """Returns what an exit code tells; `parents_reason` is empty unless its pool ended the process."""
    how = signal.Signals(-exitcode).name if exitcode < 0 else f"exit code {exitcode}"
    if parents_reason:
        return Death(f"{how}, by the parent: {parents_reason}", False)
    return Death(how, exitcode in OUTSIDE)


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """Yields an error and what it was raised from."""
    while error is not None:
        yield error
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether less at once may succeed. torch is not imported for it, so its errors are told by their names."""
    return any(
        isinstance(cause, MemoryError)
        or type(cause).__name__ == "OutOfMemoryError"
        or (isinstance(cause, RuntimeError) and any(word in str(cause).lower() for word in _OUT_OF_MEMORY))
        for cause in _chain(error)
    )


def is_broken_device(error: BaseException) -> bool:
    """Whether the device's context cannot be trusted any more."""
    return not is_out_of_memory(error) and any(
        type(cause).__name__ == "AcceleratorError"
        or (isinstance(cause, RuntimeError) and any(word in str(cause).lower() for word in _BROKEN))
        for cause in _chain(error)
    )


def is_disk_full(error: BaseException) -> bool:
    """Whether a write found the disk full, or the user's share of it."""
    return isinstance(error, OSError) and error.errno in DISK_FULL


@dataclass
class RetryPolicy:
    """The rounds that went wrong in this call, and how often they may.

    Attributes:
        max_retries: further attempts at a round that failed.
        max_kills: deaths from outside after which a round is given up; 0 never. They count apart: a round that the
            kernel kills for its memory must not go round for ever, and a preempted worker says nothing of its round.
    """

    max_retries: int
    max_kills: int
    _failed_on: dict[Key, list[int]] = field(default_factory=dict)
    _kills: Counter[Key] = field(default_factory=Counter)

    def failed(self, key: Key, slot: int) -> int:
        """Notes a failed attempt on a slot and returns how many there are."""
        slots = self._failed_on.setdefault(key, [])
        slots.append(slot)
        return len(slots)

    def failed_on(self, key: Key) -> list[int]:
        """Returns the slot of each failed attempt at a round."""
        return self._failed_on.get(key, [])

    def is_used_up(self, key: Key) -> bool:
        """Whether a round has failed as often as it may."""
        return len(self.failed_on(key)) > self.max_retries

    def killed(self, key: Key) -> int:
        """Notes a death from outside and returns how many there are."""
        self._kills[key] += 1
        return self._kills[key]

    def is_deadly(self, key: Key) -> bool:
        """Whether a round's workers were killed as often as they may."""
        return 0 < self.max_kills <= self._kills[key]

    def barred(self, key: Key, slots: Collection[int]) -> frozenset[int]:
        """Returns the slots that a round keeps away from: those where it failed, as long as there are others."""
        failed_on = frozenset(self.failed_on(key))
        return failed_on if set(slots) - failed_on else frozenset()


@dataclass
class Slots:
    """The slots of a pool, and which of them are no longer used.

    Attributes:
        known: those that there are.
        aside: those that are set aside.
    """

    known: set[int]
    aside: set[int] = field(default_factory=set)
    _to_blame: Counter[int] = field(default_factory=Counter)
    _early_deaths: Counter[int] = field(default_factory=Counter)

    @property
    def used(self) -> list[int]:
        """The slots that are worked with."""
        return sorted(self.known - self.aside)

    def left(self, slot: int) -> None:
        """Notes that a slot is no longer there."""
        self.known.discard(slot)

    def succeeded(self, slot: int, failed_on: Collection[int]) -> list[int]:
        """Notes a sealed round and returns the slots that are now set aside.

        A slot is to blame for each round that failed there and was sealed elsewhere, until it seals one itself. So a
        broken device shows, and an object whose rounds fail everywhere accuses none.

        Args:
            slot: where the round was sealed.
            failed_on: the slots where it had failed.
        """
        del self._to_blame[slot]
        self._to_blame.update(set(failed_on) - {slot})
        broken = [other for other in self.used if self._to_blame[other] >= IN_A_ROW]
        self.aside.update(broken)
        return broken

    def ready(self, slot: int) -> None:
        """Notes that a slot's process has loaded what it needs."""
        del self._early_deaths[slot]

    def died_early(self, slot: int) -> bool:
        """Notes a process that died before it was ready; returns whether its slot is of no use."""
        self._early_deaths[slot] += 1
        return self._early_deaths[slot] >= EARLY_EXITS

    def set_aside(self, slot: int) -> bool:
        """Sets a slot aside, unless it is the last one; returns whether it is."""
        if self.used == [slot]:
            return False
        self.aside.add(slot)
        return True


@dataclass
class ConfigErrorDetector:
    """Whether it is the configuration, or the machine, that fails: failures in a row with no success in this call.

    Attributes:
        max_retries: further attempts at a round that failed; fewer failures than a single round may have prove nothing.
        objects: how many objects the call has to work on; with several, one that always fails is not enough.
        goes_on: whether earlier calls had success with some of them: then a round that always fails is skipped before
            the configuration is suspected, else no call would ever get past it.
        has_success: whether a round was sealed in this call.
        failed: objects with a failed attempt.
    """

    max_retries: int
    objects: int
    goes_on: bool = False
    has_success: bool = False
    failed: set[str] = field(default_factory=set)
    _failures: int = 0
    _slots: set[int] = field(default_factory=set)

    def failed_at(self, code: str, slot: int, at_work: Collection[int]) -> bool:
        """Notes a failed attempt and returns whether the call is to end.

        Args:
            code: the object.
            slot: where it failed.
            at_work: the slots with a worker; as long as one of them has not failed yet, it may still succeed.
        """
        self.failed.add(code)
        self._slots.add(slot)
        self._failures += 1
        enough = max(IN_A_ROW, self.max_retries + 1) * (IN_A_ROW if self.goes_on else 1)
        if self.has_success or self._failures < enough:
            return False
        return len(self.failed) >= min(IN_A_ROW, self.objects) and set(at_work) <= self._slots
