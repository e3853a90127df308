"""Keeps what is known of all objects together, brought up to date from those that changed since it was last asked."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import NamedTuple

from scale.state.records import ObjectState
from scale.state.round_table import SEALED, RoundState


class Totals(NamedTuple):
    """Sums over objects.

    Attributes:
        collected: grasps that count, of each object at most its quota.
        missing: grasps that are still to be made, of the open objects.
        failures, skipped: failed attempts and rounds given up.
    """

    collected: int = 0
    missing: int = 0
    failures: int = 0
    skipped: int = 0


class Standing:
    """All objects of a call. A run may have ten thousand, so nothing here but its start walks all of them.

    Attributes:
        open: code -> each object of which more rounds may be wanted, in the order of the call.
        quota: grasps wanted, of all objects.
    """

    def __init__(self, objects: Iterable[ObjectState]):
        """Takes the objects, in the order of the call; from here on each tells when a round of it changes."""
        self._objects = {state.code: state for state in objects}
        self._place = {code: place for place, code in enumerate(self._objects)}
        self.open = {code: state for code, state in self._objects.items() if not state.ended}
        self.quota = sum(state.quota for state in self._objects.values())
        self._sealed = {code: count for code, state in self.open.items() if (count := state.rounds.count(SEALED))}
        self._counted: dict[str, Totals] = {}
        self._totals = Totals()
        self._uncounted, self._unwritten = set(self._objects), set(self._objects)
        self._texts: dict[str, str] = dict.fromkeys(self._objects, "")
        for code, state in self._objects.items():
            state.rounds.on_move = partial(self._moved, code)

    def __len__(self) -> int:
        """How many objects there are."""
        return len(self._objects)

    def touch(self, code: str) -> None:
        """Notes that something about an object changed that its rounds do not tell."""
        self._uncounted.add(code)
        self._unwritten.add(code)

    def end(self, code: str) -> None:
        """Notes that no more rounds of an object are wanted."""
        self.open.pop(code, None)
        self._sealed.pop(code, None)
        self.touch(code)

    def _moved(self, code: str, before: RoundState, to: RoundState) -> None:
        """Notes that a round of an object went from one state to another."""
        self.touch(code)
        change = (to is SEALED) - (before is SEALED)
        if change and code in self.open:
            self._sealed[code] = self._sealed.get(code, 0) + change
            if not self._sealed[code]:
                del self._sealed[code]

    @property
    def waiting(self) -> int:
        """How many rounds of open objects have a shard and no verdict."""
        return sum(self._sealed.values())

    def with_waiting(self) -> list[ObjectState]:
        """Returns the open objects that have such rounds, in the order of the call."""
        return [self._objects[code] for code in sorted(self._sealed, key=self._place.__getitem__)]

    def totals(self) -> Totals:
        """Returns the sums as they stand."""
        for code in self._uncounted:
            now, before = self._count(self._objects[code]), self._counted.get(code, Totals())
            self._totals = Totals(
                *(total + new - old for total, new, old in zip(self._totals, now, before, strict=True))
            )
            self._counted[code] = now
        self._uncounted.clear()
        return self._totals

    @staticmethod
    def _count(state: ObjectState) -> Totals:
        missing = 0 if state.ended else state.missing
        collected, skipped = min(state.quota, state.collected), len(state.rounds.skipped)
        return Totals(collected, missing, state.failures.total(), skipped)

    def texts(self, text_of: Callable[[ObjectState], str]) -> dict[str, str]:
        """Returns object code -> what `text_of` says of each as it stands, in the order of the call."""
        for code in self._unwritten:
            self._texts[code] = text_of(self._objects[code])
        self._unwritten.clear()
        return self._texts
