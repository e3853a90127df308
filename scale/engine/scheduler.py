"""Which worker gets which round, and where a worker is started for one. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import NamedTuple

from scale.engine.failures import Key


class RoundRequest(NamedTuple):
    """A round to hand out.

    Attributes:
        key: the round.
        barred: slots that must not have it.
        alone: whether no other round may be in flight beside it.
    """

    key: Key
    barred: frozenset[int] = frozenset()
    alone: bool = False


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


def dispatch(wanted: Iterable[RoundRequest], slack: FreeSlots, in_flight: Collection[bool]) -> Dispatch:
    """Returns which rounds go where, lowest slots first.

    A round whose slots are all taken waits, and the next one is looked at. One that has to run alone comes when
    nothing else is left to hand out and nothing is in flight, and while it runs nothing is handed out.

    Args:
        wanted: the rounds to hand out next; only as many are looked at as there are slots for.
        slack: the slots that could take one.
        in_flight: of each round that a worker has, whether it has to run alone.
    """
    found, lonely = Dispatch([], []), None
    slack = FreeSlots(*(list(slots) for slots in slack))
    if any(in_flight) or not any(slack):
        return found
    for one in wanted:
        if one.alone:
            lonely = lonely or one
        else:
            _place(one, slack, found)
            if not any(slack):
                break
    is_quiet = not (in_flight or found.rounds or found.starts)
    if lonely is not None and is_quiet:
        _place(lonely, slack, found)
    return found


def _place(one: RoundRequest, slack: FreeSlots, found: Dispatch) -> None:
    """Gives a round to an idle slot, leaves it to one that starts, or asks for a start."""
    taken = slack.take(one.barred)
    if taken is None:
        return
    slots, slot = taken
    if slots is slack.idle:
        found.rounds.append((slot, one))
    elif slots is slack.empty:
        found.starts.append(slot)
