"""Declares what a setting may be, beside its field, and refuses other values. Imports no PyTorch.

A field carries its rule in its type, `step_size: Annotated[float, POSITIVE]`, and its dataclass is a `Checked`.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from functools import cache
from numbers import Integral
from typing import Annotated, Any, NamedTuple, get_args, get_origin, get_type_hints

from bimangrasp.errors import InputError


class Rule(NamedTuple):
    """What a value may be.

    Attributes:
        holds: whether a value is allowed; it may raise TypeError or ValueError for one of another type.
        wanted: the same in words.
    """

    holds: Callable[[Any], bool]
    wanted: str

    def allows(self, value: Any) -> bool:
        """Whether a value of any type is allowed."""
        try:
            return bool(self.holds(value))
        except (TypeError, ValueError, AttributeError):
            return False


class Checked:
    """Base of a dataclass of settings, which cannot be made with a value that its field's rule forbids."""

    def __post_init__(self) -> None:
        own = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        for name, rule in field_rules(type(self)).items():
            refuse_unless(rule, own[name], f"{type(self).__name__}.{name}")


def refuse_unless(rule: Rule, value: Any, name: str) -> None:
    """Refuses a value that a rule forbids.

    Raises:
        InputError: names the value, what it is and what is wanted.
    """
    if not rule.allows(value):
        raise InputError(f"{name}={value!r} is out of range: wanted {rule.wanted}")


@cache
def field_rules(record: type) -> dict[str, Rule]:
    """Returns field -> rule for the fields of a dataclass that have one."""
    hints = get_type_hints(record, include_extras=True)
    annotated = {name: get_args(hint)[1:] for name, hint in hints.items() if get_origin(hint) is Annotated}
    return {name: extra for name, extras in annotated.items() for extra in extras if isinstance(extra, Rule)}


@cache
def all_rules(record: type) -> dict[str, Rule]:
    """Returns dotted key -> rule for a dataclass and for those inside it."""
    rules = dict(field_rules(record))
    for name, declared in get_type_hints(record).items():
        if dataclasses.is_dataclass(declared):
            rules |= {f"{name}.{key}": rule for key, rule in all_rules(declared).items()}
    return rules


def at_least(least: int) -> Rule:
    """Returns the rule of whole numbers from `least` on."""
    return Rule(lambda value: isinstance(value, Integral) and value >= least, f"a whole number, {least} or more")


def whole_between(least: int, largest: int) -> Rule:
    """Returns the rule of whole numbers in a range, ends included."""
    wanted = f"a whole number from {least} to {largest}"
    return Rule(lambda value: isinstance(value, Integral) and least <= value <= largest, wanted)


def between(least: float | int, largest: float | int) -> Rule:
    """Returns the rule of numbers in a range, ends included."""
    return Rule(lambda value: least <= value <= largest, f"a number from {least:g} to {largest:g}")


def among(*names: str) -> Rule:
    """Returns the rule of texts in a list."""
    return Rule(lambda value: value in names, "one of " + ", ".join(names))


def several_of(*names: str) -> Rule:
    """Returns the rule of lists that hold at least one text, all of them in a list."""
    return Rule(lambda value: len(value) > 0 and set(value) <= set(names), "a list of " + ", ".join(names))


def numbers(count: int) -> Rule:
    """Returns the rule of lists of so many numbers."""
    return Rule(lambda value: len(value) == count, f"{count} numbers")


TEXT = Rule(lambda value: value.strip() != "", "text")
POSITIVE = Rule(lambda value: 0 < value < math.inf, "a finite number above 0")
NOT_NEGATIVE = Rule(lambda value: 0 <= value < math.inf, "a finite number, 0 or more")
NULL_OR_NOT_NEGATIVE = Rule(lambda value: value is None or 0 <= value < math.inf, "null or a finite number, 0 or more")
DECAY = Rule(lambda value: 0 < value <= 1, "a number above 0, 1 or less")
SIZES = Rule(
    lambda value: len(value) > 0 and all(0 < size < math.inf for size in value), "a list of sizes above 0, in m"
)
NULL_OR_SIZES = Rule(lambda value: value is None or SIZES.holds(value), "null or a list of sizes above 0, in m")
DIRECTION_OR_NONE = Rule(
    lambda value: len(value) == 0 or (len(value) == 3 and 0 < sum(x * x for x in value) < math.inf),
    "three numbers, not all 0, as in [0,-1,0]",
)
