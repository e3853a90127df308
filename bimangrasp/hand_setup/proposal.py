"""Proposes what a hand's YAML says beyond its file (palmar sides, mean joint values, keypoints), and writes it."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from importlib.resources import files
from typing import NamedTuple

import numpy as np
from jinja2 import Environment
from scipy.optimize import minimize

from bimangrasp.errors import InputError
from bimangrasp.hand_files.config import HandConfig
from bimangrasp.hand_files.tables import check_names, joint_mean
from bimangrasp.hand_setup.guesses import ALONG_NORMAL, point_along
from bimangrasp.hand_setup.inspection import HandInspection, base_of, direction_of, farther_limit, fingers_of, tip_at
from bimangrasp.hands.description import HandDescription, frames_at, on_couplings

LINKS_OF_FINGER, LINKS_OF_THUMB = 3, 2
"""Number of links with shapes, counted from the tip, that get contact candidates."""

MAX_ALONG_COSINE = 0.5
"""A joint bends a link if the cosine of its axis with the link is below this; otherwise it twists the link."""

SPREAD_COSINE = 0.7
"""A joint of a finger spreads it, and bends nothing, if the cosine of its axis with the palm normal is above this."""

MIN_FACING_COSINE = 0.3
"""A side faces like the palm if its cosine with the palm normal is above this."""

BENT_SHARE = 0.15
"""Fraction of the range to their closing limits at which the joints of the fingers start."""

THUMB_AHEAD, THUMB_ABOVE = 0.5, 0.25
"""Offsets of the thumb's target from the bases of the fingers, along the palm normal and the finger direction, in
lengths of a finger."""

EFFORT_WEIGHT = 1e-4
"""Weight, m2, of the squared turns of the thumb's joints (as fractions of their ranges) against the squared distance
of its tip from the target."""

KEYPOINT_MARGIN = 1.02
"""Factor between the least distance of proposed keypoints and the distance below which they cost energy."""

KEYPOINT_STEP = 0.0025
"""Distance between candidate keypoints along a link, m."""

RANDOM_POSES = 64
"""Random joint values at which keypoints of neighboring links must not cost energy."""

_PLAIN = re.compile(r"[A-Za-z_][A-Za-z0-9_.\-]*")
_WORDS = {"true", "false", "null", "yes", "no", "on", "off", "y", "n"}
"""Names that YAML would read as booleans or null."""


def propose(inspection: HandInspection, config: HandConfig, keypoint_distance: float) -> HandConfig:
    """Returns the config with its missing values filled in; values that are given are kept.

    Args:
        inspection: the facts of the hand's file.
        config: the hand's settings, with side, palm normal and finger direction.
        keypoint_distance: distance below which two keypoints cost energy, m.

    Raises:
        InputError: the config names a link that cannot carry candidates.
    """
    palmar = _palmar(inspection, config)
    joint_means = _joint_mean(inspection, config)
    proposed = replace(config, candidates=replace(config.candidates, palmar=palmar), joint_mean=joint_means)
    if config.keypoints:
        return proposed
    mean = joint_mean(proposed, inspection.hand)
    return replace(proposed, keypoints=_keypoints(inspection, mean, keypoint_distance))


def _palmar(inspection: HandInspection, config: HandConfig) -> dict[str, list[float]]:
    """Returns link -> direction out of its palmar side, for the links that are named or by default."""
    names = inspection.hand.link_names
    check_names(config.candidates.palmar, names, "hand.candidates.palmar")
    chosen = config.candidates.palmar or {
        names[link]: [] for link in _default_links(inspection, np.array(config.palm_normal))
    }
    return {
        name: direction or rounded(_palmar_direction(inspection, config, names.index(name)), 6)
        for name, direction in chosen.items()
    }


def _default_links(inspection: HandInspection, normal: np.ndarray) -> list[int]:
    """Returns the palm and the last links of each finger that have shapes, without those that no joint bends."""
    shaped = {shape.link for shape in inspection.hand.primitives}
    palm = [inspection.palm] if inspection.palm in shaped else []
    links = [link for link in _last_links(inspection) if not is_unbent(inspection, link, normal)]
    return sorted([*palm, *links])


def _last_links(inspection: HandInspection) -> list[int]:
    """Returns the last links of each finger that have shapes."""
    shaped = {shape.link for shape in inspection.hand.primitives}
    links = []
    for number, chain in enumerate(inspection.chains):
        count = LINKS_OF_THUMB if number == inspection.thumb else LINKS_OF_FINGER
        links += [link for link in chain.links if link in shaped][-count:]
    return links


def left_out(inspection: HandInspection, palm_normal: list[float]) -> list[str]:
    """Returns the names of links without proposed candidates, of those at the fingers' ends: no joint bends them."""
    normal = np.array(palm_normal)
    links = [link for link in _last_links(inspection) if is_unbent(inspection, link, normal)]
    return [inspection.hand.link_names[link] for link in links]


def is_unbent(inspection: HandInspection, link: int, palm_normal: np.ndarray) -> bool:
    """Whether a link's palmar side is not known: no joint bends it, and its finger lies along the palm."""
    finger = _finger_of(inspection, link)
    if finger is None or point_along(inspection, palm_normal):
        return False
    return _bend(inspection, finger, link, palm_normal) is None


def _finger_of(inspection: HandInspection, link: int) -> int | None:
    """Returns the finger that has a link; None for the palm."""
    return next((number for number, chain in enumerate(inspection.chains) if link in chain.links), None)


def _palmar_direction(inspection: HandInspection, config: HandConfig, link: int) -> np.ndarray:
    """Returns the unit vector out of the palmar side of a link, in its frame."""
    frames = inspection.frames
    normal = np.array(config.palm_normal)
    finger = _finger_of(inspection, link)
    if finger is None:
        return frames[link, :3, :3].T @ normal
    if finger != inspection.thumb and point_along(inspection, normal):
        return frames[link, :3, :3].T @ _inward(inspection, finger, link, normal)
    bend = _bend(inspection, finger, link, normal)
    if bend is None:
        name = inspection.hand.link_names[link]
        raise InputError(
            f"no joint bends the link {name!r}, so its palmar side is not known; give it: "
            f"+hand.candidates.palmar.{name}=[x,y,z], a unit vector in its frame"
        )
    joint, side = bend
    sign = _closing(inspection, finger, joint, side @ normal)
    if not sign:
        sign = np.sign(side @ (_grasp_center(inspection, config) - frames[link, :3, 3]))
    return frames[link, :3, :3].T @ (sign * side)


def _inward(inspection: HandInspection, finger: int, link: int, normal: np.ndarray) -> np.ndarray:
    """Returns the unit vector from a link of a finger that points out of the palm toward the middle of the fingers."""
    bases = np.stack([base_of(inspection, number) for number in fingers_of(inspection)])
    toward = bases.mean(axis=0) - base_of(inspection, finger)
    toward -= (toward @ normal) * normal
    along = _along(inspection, finger, link)
    inward = toward - (toward @ along) * along
    return inward / max(np.linalg.norm(inward), 1e-12)


def _bend(inspection: HandInspection, finger: int, link: int, normal: np.ndarray) -> tuple[int, np.ndarray] | None:
    """Returns the joint that bends a link, and the side (hand's frame) that leads when it turns positively; or None.

    A joint about the palm normal spreads a finger and bends nothing; a thumb's may.
    """
    hand, chain = inspection.hand, inspection.chains[finger]
    along = _along(inspection, finger, link)
    for joint in reversed([j for j in chain.joints if hand.joint_link[j] <= link]):
        axis = _axis(inspection, joint)
        spreads = finger != inspection.thumb and abs(axis @ normal) > SPREAD_COSINE
        if abs(axis @ along) < MAX_ALONG_COSINE and not spreads:
            side = np.cross(axis, along)
            return joint, side / np.linalg.norm(side)
    return None


def _axis(inspection: HandInspection, joint: int) -> np.ndarray:
    """Returns the axis of a joint in the hand's frame, joints at rest."""
    hand = inspection.hand
    return inspection.frames[hand.joint_link[joint], :3, :3] @ hand.joint_axis[joint]


def _along(inspection: HandInspection, finger: int, link: int) -> np.ndarray:
    """Returns the unit vector along a link of a finger, from its joint to the tip, in the hand's frame, or 0."""
    frames, chain = inspection.frames, inspection.chains[finger]
    points = [frames[other, :3, 3] for other in chain.links if other > link and other <= chain.tip]
    for point in [*points, tip_at(inspection, finger, frames)]:
        direction = point - frames[link, :3, 3]
        if np.linalg.norm(direction) > 1e-6:
            return direction / np.linalg.norm(direction)
    return np.zeros(3)


def _closing(inspection: HandInspection, finger: int, joint: int, facing: float) -> float:
    """Returns 1 or -1, the sense in which a joint closes its finger; 0 where neither palm nor limits decide.

    Args:
        inspection: the facts of the hand's file.
        finger: index of the finger.
        joint: a joint that bends a link of the finger.
        facing: cosine of the palm normal with the side that leads when the joint turns in its positive sense.
    """
    if finger != inspection.thumb and abs(facing) > MIN_FACING_COSINE:
        return float(np.sign(facing))
    votes = 0.0
    # joints of the finger with about the same axis vote with their farther limits
    for other in inspection.chains[finger].joints:
        cosine = _axis(inspection, other) @ _axis(inspection, joint)
        if abs(cosine) > MIN_FACING_COSINE:
            votes += np.sign(cosine) * farther_limit(inspection, other)
    return float(np.sign(votes))


def _grasp_center(inspection: HandInspection, config: HandConfig) -> np.ndarray:
    """Returns the point in front of the palm where fingers and thumb can meet, in the hand's frame, m."""
    fingers = fingers_of(inspection)
    bases = np.stack([base_of(inspection, number) for number in fingers])
    tips = np.stack([tip_at(inspection, number, inspection.frames) for number in fingers])
    length = np.linalg.norm(tips - bases, axis=1).mean()
    ahead = THUMB_AHEAD * np.array(config.palm_normal)
    if not point_along(inspection, np.array(config.palm_normal)):
        ahead = ahead + THUMB_ABOVE * np.array(config.finger_direction)
    return bases.mean(axis=0) + length * ahead


def _joint_mean(inspection: HandInspection, config: HandConfig) -> dict[str, float]:
    """Returns joint -> mean first value, rad: fingers slightly bent, the thumb in front of the palm."""
    hand = inspection.hand
    check_names(config.joint_mean, hand.joint_names, "hand.joint_mean")
    mean = inspection.hand.joint_mean.copy()
    faces = inspection.thumb is not None and _faces_fingers(inspection)
    for number in range(len(inspection.chains)) if faces else fingers_of(inspection):
        for joint in inspection.chains[number].joints:
            mean[joint] += _slight_bend(inspection, config, number, joint)
    if inspection.thumb is not None and not faces:
        mean = _opposed(inspection, mean, _grasp_center(inspection, config))
    mean = on_couplings(hand, mean)
    following = {follower.node for follower in hand.couplings.followers}  # their leaders' means are theirs
    named = [(joint, name) for joint, name in enumerate(hand.joint_names) if joint not in following]
    return {name: _within_limits(hand, joint, mean[joint]) for joint, name in named} | config.joint_mean


def _faces_fingers(inspection: HandInspection) -> bool:
    """Whether the thumb is a finger that points against the others, as in a gripper, and starts bent like them."""
    others = np.mean([direction_of(inspection, number) for number in fingers_of(inspection)], axis=0)
    return float(direction_of(inspection, inspection.thumb) @ others) < -ALONG_NORMAL


def _slight_bend(inspection: HandInspection, config: HandConfig, finger: int, joint: int) -> float:
    """Returns the angle by which a joint of a finger starts bent, rad; 0 for a joint that spreads the finger."""
    hand, normal = inspection.hand, np.array(config.palm_normal)
    bend = _bend(inspection, finger, int(hand.joint_link[joint]), normal)
    if bend is None or bend[0] != joint or abs(bend[1] @ normal) < MAX_ALONG_COSINE:
        return 0.0
    closes = bend[1] @ normal > 0
    limits = hand.joint_upper if closes else hand.joint_lower
    return BENT_SHARE * float(limits[joint] - hand.joint_mean[joint])


def _opposed(inspection: HandInspection, mean: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Returns the joint values with the thumb's joints set, within limits, to bring its tip nearest to `target`."""
    hand, joints = inspection.hand, list(inspection.chains[inspection.thumb].joints)
    bounds = np.stack((hand.joint_lower[joints], hand.joint_upper[joints]), axis=1)

    def posed(values: np.ndarray) -> np.ndarray:
        joint_values = mean.copy()
        joint_values[joints] = values
        return on_couplings(hand, joint_values)

    def cost(values: np.ndarray) -> float:
        gap = tip_at(inspection, inspection.thumb, frames_at(hand, posed(values))) - target
        turned = (values - mean[joints]) / np.ptp(bounds, axis=1)
        return float(1e4 * (gap @ gap + EFFORT_WEIGHT * turned @ turned))  # in cm2: the solver's tolerance is absolute

    starts = [mean[joints], bounds.mean(axis=1)]
    solutions = [minimize(cost, start, bounds=bounds) for start in starts]
    return posed(min(solutions, key=lambda solution: solution.fun).x)


def _within_limits(hand: HandDescription, joint: int, value: float) -> float:
    """Returns a joint value within the limits, with three decimals where there is such a value within them."""
    low, high = float(hand.joint_lower[joint]), float(hand.joint_upper[joint])
    short = round(float(np.clip(round(float(value), 3), np.ceil(1000 * low) / 1000, np.floor(1000 * high) / 1000)), 3)
    return short + 0.0 if low <= short <= high else float(np.clip(value, low, high))


def _keypoints(inspection: HandInspection, mean: np.ndarray, minimum_distance: float) -> dict[str, list[list[float]]]:
    """Returns link -> keypoints in its frame, m: along the fingers, from the tips on, as dense as allowed.

    No two are nearer than `minimum_distance` with the joints at their means, nor, on one link or on neighbors, at any
    joint values: only fingers that meet each other or curl up cost energy.
    """
    hand = inspection.hand
    generator = np.random.default_rng(0)
    poses = generator.uniform(hand.joint_lower, hand.joint_upper, (RANDOM_POSES, len(mean)))
    poses = on_couplings(hand, np.concatenate((mean[None], poses, [hand.joint_lower, hand.joint_upper])))
    frames = np.stack([frames_at(hand, pose) for pose in poses])
    chosen: list[_KeypointCandidate] = []
    for number in range(len(inspection.chains)):
        for part, link, point in _keypoint_candidates(inspection, number):
            positions = np.einsum("pij,j->pi", frames[:, link, :3, :3], point) + frames[:, link, :3, 3]
            candidate = _KeypointCandidate(number, part, link, point, positions)
            if _is_free(candidate, chosen, KEYPOINT_MARGIN * minimum_distance):
                chosen.append(candidate)
    by_link: dict[str, list[list[float]]] = {}
    for candidate in sorted(chosen, key=lambda candidate: candidate.link):
        by_link.setdefault(hand.link_names[candidate.link], []).append(rounded(candidate.point, 4))
    return by_link


class _KeypointCandidate(NamedTuple):
    """A point that may become a keypoint.

    Attributes:
        finger, part: index of the finger, and of the link among its links with shapes.
        link, point: the link, and the point in its frame, m.
        positions: (pose, 3) m, positions in the hand's frame at each of the poses; the first pose has the joint means.
    """

    finger: int
    part: int
    link: int
    point: np.ndarray
    positions: np.ndarray


def _is_free(candidate: _KeypointCandidate, chosen: list[_KeypointCandidate], minimum_distance: float) -> bool:
    """Whether a candidate is far enough from the chosen ones: from those on neighboring links at all poses."""
    mean_positions = np.array([other.positions[0] for other in chosen]).reshape(-1, 3)
    if (np.linalg.norm(mean_positions - candidate.positions[0], axis=1) < minimum_distance).any():
        return False
    same_finger = [other for other in chosen if other.finger == candidate.finger]
    neighbors = [other.positions for other in same_finger if abs(other.part - candidate.part) <= 1]
    distances = [np.linalg.norm(positions - candidate.positions, axis=1).min() for positions in neighbors]
    return all(distance >= minimum_distance for distance in distances)


def _keypoint_candidates(inspection: HandInspection, finger: int) -> list[tuple[int, int, np.ndarray]]:
    """Returns (index among the links with shapes, link, point in its frame) along a finger, starting at the tip."""
    hand, chain = inspection.hand, inspection.chains[finger]
    frames = inspection.frames
    shaped = {shape.link: shape for shape in hand.primitives}
    links = [link for link in chain.links if link in shaped and link <= chain.tip]
    ends = [frames[link, :3, 3] for link in links[1:]]
    tip = tip_at(inspection, finger, frames)
    last = tip - frames[links[-1], :3, 3]
    thickness = _thickness(shaped[links[-1]])
    # the last keypoint lies inside the fingertip, about a radius behind its end
    ends.append(tip - last / np.linalg.norm(last) * min(thickness, np.linalg.norm(last)))
    candidates = []
    for number in reversed(range(len(links))):
        T = np.linalg.inv(frames[links[number]])
        end = T[:3, :3] @ ends[number] + T[:3, 3]
        count = max(int(np.linalg.norm(end) / KEYPOINT_STEP), 1)
        candidates += [(number, links[number], end * share) for share in np.linspace(1, 0, count + 1)]
    return candidates


def _thickness(shape: object) -> float:
    """Returns the approximate radius of a shape, m."""
    if shape.shape in ("capsule", "cylinder"):
        return float(shape.size[0])
    sides = shape.size if shape.shape == "box" else np.ptp(shape.vertices, axis=0) / 2
    return float(np.min(sides))


def rounded(vector: np.ndarray, digits: int) -> list[float]:
    """Returns a vector with `digits` decimals, as a YAML holds it; -0 becomes 0."""
    return [round(float(x), digits) + 0.0 for x in vector]


def hand_yaml(config: HandConfig, file: str) -> str:
    """Returns the commented YAML of a hand that was proposed for a file of this name."""
    environment = Environment(trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True)
    environment.filters["text"] = _text
    template = (files("bimangrasp.hand_setup") / "hand.yaml.jinja").read_text(encoding="utf-8")
    return environment.from_string(template).render(hand=config, file=file)


def _text(name: str) -> str:
    """Returns a YAML scalar: quoted where YAML could read the plain text as another type."""
    plain = _PLAIN.fullmatch(name) and name.lower() not in _WORDS
    return name if plain else json.dumps(name)
