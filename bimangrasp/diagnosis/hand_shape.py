"""Measures what the joints of a hand can do: where its fingers close, how far they reach, how wide they open."""

from __future__ import annotations

from itertools import combinations

import numpy as np
from jaxtyping import Float
from scipy.spatial.distance import cdist
from scipy.stats import qmc

from bimangrasp.hands.description import (
    Chain,
    HandDescription,
    find_chains,
    find_palm,
    frames_at,
    on_couplings,
    points_of_links,
)

SAMPLES = 256
"""Joint values at which reach and opening are measured; a power of two, as Sobol's points want it."""

CLOSING_SHARE = 0.5
"""Of the way to the farther limit, by which joints turn when a hand closes."""


def fingers_with_candidates(hand: HandDescription) -> list[tuple[Chain, np.ndarray]]:
    """Returns the fingers that may touch, each with the indices of its contact candidates."""
    chains = [(chain, np.flatnonzero(np.isin(hand.candidate_link, chain.links))) for chain in find_chains(hand)]
    return [(chain, candidates) for chain, candidates in chains if len(candidates)]


def closing_direction(hand: HandDescription) -> Float[np.ndarray, "3"]:
    """Returns the unit direction in which the fingers' candidates move when all joints turn to their farther limits.

    In the hand's frame, at a right angle to the fingers; zeros where they move nowhere else. It knows nothing of the
    palm normal that was given.
    """
    rest = on_couplings(hand, np.clip(np.zeros(len(hand.joint_names)), hand.joint_lower, hand.joint_upper))
    farther = np.where(hand.joint_upper - rest >= rest - hand.joint_lower, hand.joint_upper, hand.joint_lower)
    closed = on_couplings(hand, rest + CLOSING_SHARE * (farther - rest))
    moved = _candidates_at(hand, closed) - _candidates_at(hand, rest)
    motion = np.sum([moved[candidates].mean(axis=0) for _, candidates in fingers_with_candidates(hand)], axis=0)
    motion = motion - (motion @ hand.finger_direction) * hand.finger_direction
    length = np.linalg.norm(motion)
    return motion / length if length > 0 else np.zeros(3)


def reach_and_opening(hand: HandDescription) -> tuple[float, float]:
    """Returns the largest distance of a candidate from the palm link, and between candidates of two fingers, m.

    Over `SAMPLES` joint values within the limits. A hand of one finger opens between it and the palm.
    """
    fingers, palm = fingers_with_candidates(hand), find_palm(hand)
    shares = qmc.Sobol(len(hand.joint_names), scramble=False).random(SAMPLES)
    reach = opening = 0.0
    for joints in hand.joint_lower + shares * (hand.joint_upper - hand.joint_lower):
        posed = on_couplings(hand, joints)
        points, base = _candidates_at(hand, posed), frames_at(hand, posed)[palm, :3, 3]
        away = np.linalg.norm(points - base, axis=1)
        reach = max(reach, float(away.max()))
        pairs = [float(cdist(points[a], points[b]).max()) for (_, a), (_, b) in combinations(fingers, 2)]
        opening = max([opening, *pairs]) if pairs else reach
    return reach, opening


def _candidates_at(hand: HandDescription, joints: np.ndarray) -> Float[np.ndarray, "candidate 3"]:
    """Returns the contact candidates at joint values, in the hand's frame, m."""
    return points_of_links(frames_at(hand, joints), hand.candidate_link, hand.candidate_position)
