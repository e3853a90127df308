"""The table of a validation: the figures that papers report, object by object."""

from __future__ import annotations

import math
from collections import Counter
from typing import NamedTuple

import numpy as np

from bimangrasp.hands.description import HandDescription
from bimangrasp.validation.duplicates import unique_count
from bimangrasp.validation.evaluate import Judged
from bimangrasp.validation.metrics import (
    UNIQUE_THRESHOLDS,
    both_hands_share,
    contact_distance_consistency,
    contact_link_number,
    first_component_share,
    grasp_success_rate,
    histogram_entropy,
)
from bimangrasp.validation.verdict import Reason


class Summary(NamedTuple):
    """One object under one protocol. NaN where there is nothing to take a mean of.

    Attributes:
        code: the object.
        tried: grasps.
        held: of them those that hold.
        gsr: held over tried.
        both_hands: share of those that hold in which both hands bear load.
        pd, spd: mean over grasps of the largest depth of a hand in the object, and of hands in each other or in
            themselves, m.
        cln: mean number of links in contact.
        cdc: mean contact distance consistency, m.
        d, h: diversity of all grasps, see `metrics`.
        unique: how many grasps differ at each of `metrics.UNIQUE_THRESHOLDS`.
        reasons: why grasps fail, in the order of `Reason`.
    """

    code: str
    tried: int
    held: int
    gsr: float
    both_hands: float
    pd: float
    spd: float
    cln: float
    cdc: float
    d: float
    h: float
    unique: tuple[int, ...]
    reasons: dict[str, int]


def summary_of(code: str, judged: Judged, hand: HandDescription) -> Summary:
    """Returns the figures of one object; grasps that are not finite count as tried and nowhere else.

    Args:
        code: the object.
        judged: its grasps.
        hand: either hand, for what is a finger.
    """
    reasons = [Reason(reason) for reason in judged.reason.tolist()]
    holds = judged.reason == Reason.HELD
    finite = judged.reason != Reason.NOT_FINITE  # a finite grasp may have a pre-grasp that is not
    grasps, depth = judged.stages[1].select(finite), judged.penetration[finite]
    distance = judged.link_distance[finite]
    cdc = contact_distance_consistency(distance, fingers(hand))
    return Summary(
        code,
        len(holds),
        int(holds.sum()),
        grasp_success_rate(holds),
        both_hands_share(holds, judged.bears_load),
        _mean(depth[:, 0]),
        _mean(depth[:, 1:].max(axis=1, initial=0)),
        _mean(contact_link_number(distance)),
        _mean(cdc),
        first_component_share(grasps),
        histogram_entropy(grasps),
        tuple(unique_count(grasps, thresholds) for thresholds in UNIQUE_THRESHOLDS),
        {reason.name.lower(): count for reason, count in sorted(Counter(reasons).items()) if reason is not Reason.HELD},
    )


def fingers(hand: HandDescription) -> np.ndarray:
    """Returns the number of each link's finger, -1 for links of none: a finger is what moves against the root."""
    number = np.full(len(hand.parent), -1)
    for link, parent in enumerate(hand.parent.tolist()[1:], start=1):
        starts = number[parent] < 0 and link in hand.joint_link
        number[link] = number.max() + 1 if starts else number[parent]
    return number


def _mean(values: np.ndarray) -> float:
    return float(values.mean()) if len(values) else float("nan")


HEADINGS = ("object", "GSR", "both hands", "PD mm", "SPD mm", "CLN", "CDC mm", "D", "H", "unique", "failed by")


def cells(one: Summary) -> tuple[str, ...]:
    """Returns a row of the table, under `HEADINGS`; "-" where there is nothing to take a mean of."""
    return (
        one.code,
        f"{_number(one.gsr, '.1%')} ({one.held}/{one.tried})",
        _number(one.both_hands, ".0%"),
        _number(1e3 * one.pd, ".2f"),
        _number(1e3 * one.spd, ".2f"),
        _number(one.cln, ".1f"),
        _number(1e3 * one.cdc, ".2f"),
        _number(one.d, ".3f"),
        _number(one.h, ".2f"),
        "/".join(map(str, one.unique)),
        ", ".join(f"{name} {count}" for name, count in one.reasons.items()) or "none",
    )


def _number(value: float, form: str) -> str:
    return "-" if math.isnan(value) else format(value, form)
