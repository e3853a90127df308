"""Proposes what a hand's YAML says beyond its file: palmar sides, mean joint values, penetration keypoints."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import numpy as np
from scipy.optimize import minimize

from bimangrasp.errors import InputError
from bimangrasp.hand_files.config import HandConfig
from bimangrasp.hand_files.tables import check_names
from bimangrasp.hand_setup.inspection import Survey, base_at, farther_limit, fingers_of, tip_at
from bimangrasp.hands.description import HandDescription
from bimangrasp.hands.tree import at_rest, frames_at

LINKS_OF_FINGER, LINKS_OF_THUMB = 3, 2
"""So many links with shapes, from the tip on, get contact candidates."""

ACROSS = 0.5
"""A joint bends a link whose axis has a cosine below this with it; one along it turns it."""

FACING = 0.3
"""A side whose cosine with the palm normal is above this is the palmar one."""

BENT = 0.15
"""Share of the way to their limits at which the fingers' joints start."""

IN_FRONT, ABOVE = 0.5, 0.25
"""Where the thumb starts: so many lengths of a finger out of the palm and up from the fingers' bases."""

EFFORT = 1e-4
"""m2; weighs how far the thumb's joints turn, as shares of their ranges, against the tip's distance from there."""

MARGIN = 1.02
"""Keypoints lie this much farther from each other than the distance at which they cost energy."""

STEP = 0.0025
"""m between the places along a link among which keypoints are chosen."""

POSES = 64
"""Random joint values at which keypoints of neighboring links must not cost energy."""


def propose(survey: Survey, config: HandConfig, keypoint_distance: float) -> HandConfig:
    """Returns the config with everything filled in that it lacks; what it has stays as it is.

    Args:
        survey: of the hand's file.
        config: with side, palm normal and finger direction.
        keypoint_distance: of `energy`, m.

    Raises:
        InputError: it names a link that cannot carry candidates.
    """
    palmar = _palmar(survey, config)
    means = _joint_mean(survey, config)
    given = replace(config, candidates=replace(config.candidates, palmar=palmar), joint_mean=means)
    if config.keypoints:
        return given
    mean = np.array([means[name] for name in survey.hand.joint_names])
    return replace(given, keypoints=_keypoints(survey, mean, keypoint_distance))


def _palmar(survey: Survey, config: HandConfig) -> dict[str, list[float]]:
    """Returns link -> direction out of its palmar side, for the links that are named or by default."""
    names = survey.hand.link_names
    check_names(config.candidates.palmar, names, "hand.candidates.palmar")
    chosen = config.candidates.palmar or {names[link]: [] for link in _default_links(survey)}
    return {name: value or _rounded(_side(survey, config, names.index(name)), 6) for name, value in chosen.items()}


def _default_links(survey: Survey) -> list[int]:
    """Returns the last links of each finger that have shapes, and the palm where it has some."""
    shaped = {shape.link for shape in survey.hand.primitives}
    links = [survey.palm] if survey.palm in shaped else []
    for number, chain in enumerate(survey.chains):
        count = LINKS_OF_THUMB if number == survey.thumb else LINKS_OF_FINGER
        links += [link for link in chain.links if link in shaped][-count:]
    return sorted(links)


def _side(survey: Survey, config: HandConfig, link: int) -> np.ndarray:
    """Returns the unit vector out of the palmar side of a link, in its frame."""
    hand, rest = survey.hand, at_rest(survey.hand)
    frames = frames_at(hand, rest)
    normal = np.array(config.palm_normal)
    finger = next((number for number, chain in enumerate(survey.chains) if link in chain.links), None)
    if finger is None:
        return frames[link, :3, :3].T @ normal
    bend = _bend(survey, finger, link, frames)
    if bend is None:
        raise InputError(
            f"no joint bends the link {hand.link_names[link]!r}, so its palmar side is not known; give it: "
            f"hand.candidates.palmar.{hand.link_names[link]}=[x,y,z], a unit vector in its frame"
        )
    joint, side = bend
    sign = _closing(survey, finger, joint, frames, side @ normal)
    if not sign:
        middle = frames[link, :3, 3]
        sign = np.sign(side @ (_before_palm(survey, config) - middle))
    return frames[link, :3, :3].T @ (sign * side)


def _bend(survey: Survey, finger: int, link: int, frames: np.ndarray) -> tuple[int, np.ndarray] | None:
    """Returns the joint that bends a link and the side that leads when it turns in its positive sense, hand's frame."""
    hand, chain = survey.hand, survey.chains[finger]
    along = _along(survey, finger, link, frames)
    for joint in reversed([j for j in chain.joints if hand.joint_link[j] <= link]):
        axis = frames[hand.joint_link[joint], :3, :3] @ hand.joint_axis[joint]
        if abs(axis @ along) < ACROSS:
            side = np.cross(axis, along)
            return joint, side / np.linalg.norm(side)
    return None


def _along(survey: Survey, finger: int, link: int, frames: np.ndarray) -> np.ndarray:
    """Returns the unit vector along a link of a finger, from its joint towards the tip, in the hand's frame."""
    chain = survey.chains[finger]
    below = [frames[other, :3, 3] for other in chain.links if other > link and other <= chain.tip]
    tip = frames[chain.tip, :3, :3] @ survey.tips[finger] + frames[chain.tip, :3, 3]
    for point in [*below, tip]:
        way = point - frames[link, :3, 3]
        if np.linalg.norm(way) > 1e-6:
            return way / np.linalg.norm(way)
    return np.zeros(3)


def _closing(survey: Survey, finger: int, joint: int, frames: np.ndarray, facing: float) -> float:
    """Returns 1 or -1: the sense in which a joint closes its finger; 0 where neither palm nor limits tell.

    Args:
        survey: of the hand.
        finger: its number.
        joint: that bends a link.
        frames: of the links, joints at 0.
        facing: cosine of the palm normal with the side that leads when the joint turns in its positive sense.
    """
    if finger != survey.thumb and abs(facing) > FACING:
        return float(np.sign(facing))
    hand = survey.hand
    axes = {j: frames[hand.joint_link[j], :3, :3] @ hand.joint_axis[j] for j in survey.chains[finger].joints}
    alike = {j: axes[j] @ axes[joint] for j in axes}
    votes = [np.sign(cosine) * farther_limit(hand, j) for j, cosine in alike.items() if abs(cosine) > FACING]
    return float(np.sign(sum(votes)))


def _before_palm(survey: Survey, config: HandConfig) -> np.ndarray:
    """Returns the point in front of the palm where fingers and thumb meet, in the hand's frame, m."""
    rest = at_rest(survey.hand)
    frames = frames_at(survey.hand, rest)
    fingers = fingers_of(survey)
    bases = np.stack([base_at(survey, number, frames) for number in fingers])
    tips = np.stack([tip_at(survey, number, rest) for number in fingers])
    length = np.linalg.norm(tips - bases, axis=1).mean()
    ahead = IN_FRONT * np.array(config.palm_normal) + ABOVE * np.array(config.finger_direction)
    return bases.mean(axis=0) + length * ahead


def _joint_mean(survey: Survey, config: HandConfig) -> dict[str, float]:
    """Returns joint -> mean first value, rad: fingers slightly bent, the thumb in front of the palm."""
    hand = survey.hand
    check_names(config.joint_mean, hand.joint_names, "hand.joint_mean")
    mean = at_rest(hand)
    frames = frames_at(hand, mean)
    for number in fingers_of(survey):
        for joint in survey.chains[number].joints:
            mean[joint] += _slight_bend(survey, config, number, joint, frames)
    if survey.thumb is not None:
        mean = _opposed(survey, mean, _before_palm(survey, config))
    values = {name: _inside(hand, joint, mean[joint]) for joint, name in enumerate(hand.joint_names)}
    return values | config.joint_mean


def _slight_bend(survey: Survey, config: HandConfig, finger: int, joint: int, frames: np.ndarray) -> float:
    """Returns by how much a joint of a finger starts bent, rad; 0 for one that spreads it."""
    hand = survey.hand
    bend = _bend(survey, finger, int(hand.joint_link[joint]), frames)
    if bend is None or bend[0] != joint or abs(bend[1] @ np.array(config.palm_normal)) < ACROSS:
        return 0.0
    rest = at_rest(hand)[joint]
    closes = bend[1] @ np.array(config.palm_normal) > 0
    return BENT * float((hand.joint_upper if closes else hand.joint_lower)[joint] - rest)


def _opposed(survey: Survey, mean: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Returns the joint values with those of the thumb that bring its tip nearest to `target`, within limits."""
    hand, joints = survey.hand, list(survey.chains[survey.thumb].joints)
    bounds = np.stack((hand.joint_lower[joints], hand.joint_upper[joints]), axis=1)

    def posed(values: np.ndarray) -> np.ndarray:
        joint_values = mean.copy()
        joint_values[joints] = values
        return joint_values

    def cost(values: np.ndarray) -> float:
        gap = tip_at(survey, survey.thumb, posed(values)) - target
        turned = (values - mean[joints]) / np.ptp(bounds, axis=1)
        return float(1e4 * (gap @ gap + EFFORT * turned @ turned))  # in cm2: the solver stops at small numbers

    starts = [mean[joints], bounds.mean(axis=1)]
    return posed(min((minimize(cost, start, bounds=bounds) for start in starts), key=lambda found: found.fun).x)


def _inside(hand: HandDescription, joint: int, value: float) -> float:
    """Returns a joint value with three decimals that is within the limits."""
    low, high = float(hand.joint_lower[joint]), float(hand.joint_upper[joint])
    short = round(float(value), 3) + 0.0
    return short if low <= short <= high else float(np.clip(value, low, high))


def _keypoints(survey: Survey, mean: np.ndarray, least: float) -> dict[str, list[list[float]]]:
    """Returns link -> keypoints in its frame, m: along the fingers, from the tips on, as dense as they may be.

    No two are nearer than `least` with the joints at their means, nor, on one link or on neighbors, at any
    joint values: only fingers that meet each other or curl up cost energy.
    """
    hand = survey.hand
    generator = np.random.default_rng(0)
    poses = generator.uniform(hand.joint_lower, hand.joint_upper, (POSES, len(mean)))
    poses = np.concatenate((mean[None], poses, [hand.joint_lower, hand.joint_upper]))
    frames = np.stack([frames_at(hand, pose) for pose in poses])
    chosen: list[_Place] = []
    for number in range(len(survey.chains)):
        for place, link, point in _places(survey, number):
            seen = np.einsum("pij,j->pi", frames[:, link, :3, :3], point) + frames[:, link, :3, 3]
            new = _Place(number, place, link, point, seen)
            if _is_free(new, chosen, MARGIN * least):
                chosen.append(new)
    named: dict[str, list[list[float]]] = {}
    for one in sorted(chosen, key=lambda place: place.link):
        named.setdefault(hand.link_names[one.link], []).append(_rounded(one.point, 4))
    return named


class _Place(NamedTuple):
    """Where a keypoint may be.

    Attributes:
        finger, part: which finger, and which of its links with shapes.
        link, point: the link, and the point in its frame, m.
        seen: (pose, 3) where it is in the hand's frame at each of the poses, the first of which are the means.
    """

    finger: int
    part: int
    link: int
    point: np.ndarray
    seen: np.ndarray


def _is_free(new: _Place, chosen: list[_Place], least: float) -> bool:
    """Returns whether a place is far enough from the chosen ones; from neighboring links' at all poses."""
    open_hand = np.array([one.seen[0] for one in chosen]).reshape(-1, 3)
    if (np.linalg.norm(open_hand - new.seen[0], axis=1) < least).any():
        return False
    near = [one.seen for one in chosen if one.finger == new.finger and abs(one.part - new.part) <= 1]
    return all(np.linalg.norm(seen - new.seen, axis=1).min() >= least for seen in near)


def _places(survey: Survey, finger: int) -> list[tuple[int, int, np.ndarray]]:
    """Returns (number of the link with shapes, link, point in its frame) along a finger, from the tip on."""
    hand, chain = survey.hand, survey.chains[finger]
    frames = frames_at(hand, at_rest(hand))
    shaped = {shape.link: shape for shape in hand.primitives}
    links = [link for link in chain.links if link in shaped and link <= chain.tip]
    ends = [frames[link, :3, 3] for link in links[1:]]
    tip = frames[chain.tip, :3, :3] @ survey.tips[finger] + frames[chain.tip, :3, 3]
    way = tip - frames[links[-1], :3, 3]
    thickness = _thickness(shaped[links[-1]])
    ends.append(tip - way / np.linalg.norm(way) * min(thickness, np.linalg.norm(way)))
    places = []
    for number in reversed(range(len(links))):
        T = np.linalg.inv(frames[links[number]])
        end = T[:3, :3] @ ends[number] + T[:3, 3]
        count = max(int(np.linalg.norm(end) / STEP), 1)
        places += [(number, links[number], end * share) for share in np.linspace(1, 0, count + 1)]
    return places


def _thickness(shape: object) -> float:
    """Returns about the radius of a shape, m."""
    if shape.shape in ("capsule", "cylinder"):
        return float(shape.size[0])
    sides = shape.size if shape.shape == "box" else np.ptp(shape.vertices, axis=0) / 2
    return float(np.min(sides))


def _rounded(vector: np.ndarray, digits: int) -> list[float]:
    return [round(float(x), digits) + 0.0 for x in vector]
