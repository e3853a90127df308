"""What a setting may be stands beside its field, and whoever makes the dataclass is held to it."""

from __future__ import annotations

import math
from dataclasses import dataclass, is_dataclass, replace
from typing import Annotated, get_type_hints

import pytest
import quick_conf

from bimangrasp.errors import InputError
from bimangrasp.ranges import POSITIVE, Checked, Rule, all_rules, among, at_least, between, numbers, several_of
from scale.settings.schema import RULES, Config


@dataclass
class Inner(Checked):
    count: Annotated[int, at_least(1)]


@dataclass
class Outer(Checked):
    word: Annotated[str, among("a", "b")]
    free: str
    inner: Inner


@pytest.mark.parametrize("bad", [-1.0, 0.0, math.nan, math.inf])
def test_a_library_user_is_told_field_value_and_what_is_wanted(bad):
    optimizer = quick_conf.load().optimizer
    wanted = rf"OptimizerConfig.step_size={bad!r} is out of range: wanted a finite number above 0"
    with pytest.raises(InputError, match=wanted):
        replace(optimizer, step_size=bad)


def test_every_dataclass_of_settings_checks_its_fields():
    def sections(record):
        yield record
        for declared in get_type_hints(record).values():
            if is_dataclass(declared):
                yield from sections(declared)

    assert {record.__name__ for record in sections(Config) if not issubclass(record, Checked)} <= {"LimitsConfig"}


def test_the_rules_of_nested_settings_have_dotted_keys():
    assert set(all_rules(Outer)) == {"word", "inner.count"}
    assert {"optimizer.step_size", "hand.candidates.per_link", "round_batch_size", "mode"} <= set(RULES)


def test_a_frozen_or_extended_check_still_looks_at_the_ranges():
    with pytest.raises(InputError, match="ProtocolConfig.name=' '.*wanted text"):
        replace(quick_conf.load().validation, name=" ")


@pytest.mark.parametrize(
    ("rule", "good", "bad"),
    [
        (POSITIVE, [1, 0.5], [-1, 0, math.nan, math.inf, "much", None]),
        (at_least(1), [1, 2**40], [0, 1.0, "1", None]),
        (between(0, 1), [0, 0.5, 1], [-0.1, 1.1, math.nan, "a"]),
        (among("a", "b"), ["a"], ["c", 1, None]),
        (several_of("a", "b"), [["a"], ["b", "a"]], [[], ["c"], None, 3]),
        (numbers(2), [[1, 2]], [[1], None, 2]),
    ],
)
def test_rules_hold_for_values_in_range_and_for_no_others(rule: Rule, good, bad):
    assert all(rule.allows(value) for value in good)
    assert not any(rule.allows(value) for value in bad)
