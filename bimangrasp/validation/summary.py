"""Summarizes a validation as a table of the figures that papers report, a row for each object."""

from __future__ import annotations

import math
from collections import Counter
from typing import NamedTuple

import numpy as np

from bimangrasp.hands.description import HandDescription
from bimangrasp.validation.duplicates import unique_count
from bimangrasp.validation.evaluate import Evaluation
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
    """The figures of an object under a protocol. NaN for the mean of nothing.

    Attributes:
        code: the object.
        tried: number of grasps.
        held: number of grasps that hold.
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


def summary_of(code: str, evaluation: Evaluation, hand: HandDescription) -> Summary:
    """Returns the figures of one object; grasps that are not finite count as tried and nowhere else.

    Args:
        code: the object.
        evaluation: the verdicts on its grasps.
        hand: either hand, which defines the fingers.
    """
    reasons = [Reason(reason) for reason in evaluation.reason.tolist()]
    holds = evaluation.reason == Reason.HELD
    finite = evaluation.reason != Reason.NOT_FINITE  # a finite grasp may have a pre-grasp that is not
    grasps, depth = evaluation.stages[1].select(finite), evaluation.penetration[finite]
    distance = evaluation.link_distance[finite]
    cdc = contact_distance_consistency(distance, fingers(hand))
    return Summary(
        code,
        len(holds),
        int(holds.sum()),
        grasp_success_rate(holds),
        both_hands_share(holds, evaluation.bears_load),
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
    """Returns the index of each link's finger, -1 for links of none: a finger moves relative to the root."""
    number = np.full(len(hand.parent), -1)
    for link, parent in enumerate(hand.parent.tolist()[1:], start=1):
        starts = number[parent] < 0 and link in hand.joint_link
        number[link] = number.max() + 1 if starts else number[parent]
    return number


def _mean(values: np.ndarray) -> float:
    return float(values.mean()) if len(values) else float("nan")


HEADINGS = ("object", "GSR", "both hands", "PD mm", "SPD mm", "CLN", "CDC mm", "D", "H", "unique", "failed by")


def cells(summary: Summary) -> tuple[str, ...]:
    """Returns a row of the table, under `HEADINGS`, with "-" for NaN."""
    return (
        summary.code,
        f"{_number(summary.gsr, '.1%')} ({summary.held}/{summary.tried})",
        _number(summary.both_hands, ".0%"),
        _number(1e3 * summary.pd, ".2f"),
        _number(1e3 * summary.spd, ".2f"),
        _number(summary.cln, ".1f"),
        _number(1e3 * summary.cdc, ".2f"),
        _number(summary.d, ".3f"),
        _number(summary.h, ".2f"),
        "/".join(map(str, summary.unique)),
        ", ".join(f"{name} {count}" for name, count in summary.reasons.items()) or "none",
    )


def _number(value: float, form: str) -> str:
    return "-" if math.isnan(value) else format(value, form)
