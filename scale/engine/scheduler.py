"""Decides which worker gets which round, and where a worker is started for one. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from scale.engine.failures import Key


class RoundRequest(NamedTuple):
    """A round to hand out.

    Attributes:
        key: the round.
        barred: slots that must not have it.
    """

    key: Key
    barred: frozenset[int] = frozenset()


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

    def take(self, barred: frozenset[int]) -> tuple[list[int], int] | None:
        """Takes the first slot that is not barred out and returns it with its list's rest; None without one."""
        for slots in self:
            for slot in slots:
                if slot not in barred:
                    slots.remove(slot)
                    return slots, slot
        return None


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
    result = Dispatch([], [])
    free = FreeSlots(*(list(slots) for slots in free))
    if not any(free):
        return result
    for request in wanted:
        taken = free.take(request.barred)
        if taken is not None:
            slots, slot = taken
            if slots is free.idle:
                result.rounds.append((slot, request))
            elif slots is free.empty:
                result.starts.append(slot)
        if not any(free):
            break
    return result
