"""What a hand's file says by itself: fingers, thumb, size, what is odd; and guesses at what it cannot say."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

import mujoco
import numpy as np
import trimesh

from bimangrasp.errors import InputError
from bimangrasp.hand_files.compile import compile_hand
from bimangrasp.hand_files.read_hand import find_mjcf, quiet_mujoco, read_bare_hand
from bimangrasp.hands.description import HandDescription
from bimangrasp.hands.shape_surface import shape_surface
from bimangrasp.hands.tree import Chain, at_rest, find_chains, find_palm, frames_at, rigid_parts

SNAP_RAD = 0.35
"""A guessed direction this near to an axis of the hand's frame, 20 degrees, is that axis."""

CLOSING = 0.5
"""Share of the way to their farther limits at which joints show where fingertips go."""

ALIKE = 0.8
"""A joint whose nearer limit is farther than this share of the other one spreads a finger and does not close it."""

THUMB_NAMES = re.compile(r"(^|[^a-z])(thumb|th)([^a-z]|j\d|$)", re.IGNORECASE)
APART = 0.94
"""Fingers are parallel whose directions have cosines above this (20 degrees); the one that is not is the thumb."""

SURE_SIDE = 0.1
"""A thumb that stands aside by less than this share of the hand's size tells no side."""

SMALLEST, LARGEST = 0.05, 0.6
"""Sizes of hands, m; others are most likely in millimeters or hold more than a hand."""

MANY_FACES = 500
"""Of a convex hull; each step looks at every face."""

MOST_FINGERS = 5


class Guess(NamedTuple):
    """A value that the file does not say, and why it may be this one; empty without a guess."""

    value: str
    reason: str


class Survey(NamedTuple):
    """What was found.

    Attributes:
        path: the file.
        hand: its tree and shapes; side, palm normal, finger direction, candidates and keypoints are empty.
        palm: the link that carries the fingers.
        chains: the fingers, in the order of the tree.
        thumb: which of them is the thumb; None where none stands out.
        tips: (finger, 3) m, the farthest point of each finger from its last joint, in that link's frame.
        size: (3,) m, of the box around the hand with its joints at 0.
        warnings: what is odd or does not count, one line each.
    """

    path: Path
    hand: HandDescription
    palm: int
    chains: list[Chain]
    thumb: int | None
    tips: np.ndarray
    size: np.ndarray
    warnings: list[str]


def survey_hand(mjcf: str) -> Survey:
    """Returns what the file of one hand says by itself.

    Raises:
        InputError: it cannot be a hand; the message says what to change.
    """
    path = find_mjcf(mjcf)
    with quiet_mujoco():
        model = compile_hand(path)
    _refuse_unlimited(model, path)
    hand = read_bare_hand(mjcf)
    chains = find_chains(hand)
    if len(chains) > MOST_FINGERS:
        _refuse_two_hands(hand, path)
    tips = np.stack([_tip(hand, chain) for chain in chains])
    frames = frames_at(hand, at_rest(hand))
    corners = [trimesh.transform_points(shape_surface(s).vertices, frames[s.link]) for s in hand.primitives]
    size = np.ptp(np.concatenate(corners), axis=0)
    warnings = [*_oddities(model), *_shape_oddities(hand, chains), *_size_oddities(size, chains)]
    return Survey(path, hand, find_palm(hand), chains, _find_thumb(hand, chains, tips), tips, size, warnings)


def guess_finger_direction(survey: Survey) -> Guess:
    """Returns where the stretched fingers point."""
    directions = [_direction(survey, number) for number in fingers_of(survey)]
    value = _snapped(np.sum(directions, axis=0))
    return Guess(_text(value), "the fingers point there with their joints at 0") if value is not None else NO_GUESS


def guess_palm_normal(survey: Survey) -> Guess:
    """Returns where the fingertips go when the joints close."""
    fingers = fingers_of(survey)
    along = np.sum([_direction(survey, number) for number in fingers], axis=0)
    along = along / max(np.linalg.norm(along), 1e-12)
    rest = at_rest(survey.hand)
    motion = np.zeros(3)
    for number in fingers:
        closed = rest.copy()
        for joint in survey.chains[number].joints:
            closed[joint] += CLOSING * farther_limit(survey.hand, joint)
        moved = tip_at(survey, number, closed) - tip_at(survey, number, rest)
        motion += moved - (moved @ along) * along
    value = _snapped(motion)
    reason = "the fingertips move there when their joints turn towards their farther limits"
    return Guess(_text(value), reason) if value is not None else NO_GUESS


def guess_side(survey: Survey, palm_normal: np.ndarray, finger_direction: np.ndarray) -> Guess:
    """Returns "right" or "left": fingers up and the palm to the viewer, a right hand's thumb is on the left."""
    if survey.thumb is None:
        return NO_GUESS
    rest = at_rest(survey.hand)
    frames = frames_at(survey.hand, rest)
    middles = [(base_at(survey, i, frames) + tip_at(survey, i, rest)) / 2 for i in range(len(survey.chains))]
    others = np.delete(middles, survey.thumb, axis=0)
    aside = (middles[survey.thumb] - others.mean(axis=0)) @ np.cross(finger_direction, palm_normal)
    if abs(aside) < SURE_SIDE * survey.size.max():
        return NO_GUESS
    name = survey.hand.link_names[survey.chains[survey.thumb].tip]
    return Guess("right" if aside > 0 else "left", f"the thumb, which ends in {name!r}, stands on that side")


NO_GUESS = Guess("", "")


def tip_at(survey: Survey, finger: int, joints: np.ndarray) -> np.ndarray:
    """Returns where a fingertip is in the hand's frame, m."""
    frame = frames_at(survey.hand, joints)[survey.chains[finger].tip]
    return frame[:3, :3] @ survey.tips[finger] + frame[:3, 3]


def base_at(survey: Survey, finger: int, frames: np.ndarray) -> np.ndarray:
    """Returns where a finger begins, its first joint, in the hand's frame, m."""
    return frames[survey.hand.joint_link[survey.chains[finger].joints[0]], :3, 3]


def fingers_of(survey: Survey) -> list[int]:
    """Returns the numbers of all fingers but the thumb."""
    return [number for number in range(len(survey.chains)) if number != survey.thumb]


def farther_limit(hand: HandDescription, joint: int) -> float:
    """Returns how far a joint can turn from 0 to the side where it can go farther, rad; 0 where both are alike."""
    rest = at_rest(hand)[joint]
    up, down = hand.joint_upper[joint] - rest, rest - hand.joint_lower[joint]
    if min(up, down) > ALIKE * max(up, down):
        return 0.0
    return float(up if up > down else -down)


def _direction(survey: Survey, finger: int) -> np.ndarray:
    """Returns the unit vector from the base of a finger to its tip, joints at 0."""
    rest = at_rest(survey.hand)
    along = tip_at(survey, finger, rest) - base_at(survey, finger, frames_at(survey.hand, rest))
    return along / max(np.linalg.norm(along), 1e-12)


def _snapped(vector: np.ndarray) -> np.ndarray | None:
    """Returns the unit vector, or the axis that it is near to; None where there is no direction in it."""
    length = np.linalg.norm(vector)
    if length < 1e-3:
        return None
    unit = vector / length
    axis = np.argmax(np.abs(unit))
    near = np.sign(unit[axis]) * np.eye(3)[axis]
    return near if unit @ near > np.cos(SNAP_RAD) else unit


def _text(vector: np.ndarray) -> str:
    """Returns a direction as it is typed."""
    return "[" + ",".join(f"{round(float(x), 4) + 0.0:g}" for x in vector) + "]"


def _tip(hand: HandDescription, chain: Chain) -> np.ndarray:
    """Returns the point of a finger farthest from its last joint, m, in the last link's frame."""
    frames = frames_at(hand, at_rest(hand))
    parts = rigid_parts(hand)
    T = np.linalg.inv(frames[chain.tip])
    points = [
        trimesh.transform_points(shape_surface(shape).vertices, T @ frames[shape.link])
        for shape in hand.primitives
        if parts[shape.link] == chain.tip
    ]
    cloud = np.concatenate(points)
    distance = np.linalg.norm(cloud, axis=1)
    return cloud[distance > distance.max() - 1e-6].mean(axis=0)


def _find_thumb(hand: HandDescription, chains: list[Chain], tips: np.ndarray) -> int | None:
    """Returns the finger that is called a thumb, else the one that points away from the others."""
    names = [
        " ".join([hand.link_names[chain.tip], *(hand.joint_names[joint] for joint in chain.joints)]) for chain in chains
    ]
    called = [number for number, name in enumerate(names) if THUMB_NAMES.search(name)]
    if len(called) == 1:
        return called[0]
    if len(chains) < 3:
        return None
    frames = frames_at(hand, at_rest(hand))
    ends = [frames[c.tip, :3, :3] @ tip + frames[c.tip, :3, 3] for c, tip in zip(chains, tips, strict=True)]
    ways = np.stack([e - frames[hand.joint_link[c.joints[0]], :3, 3] for c, e in zip(chains, ends, strict=True)])
    ways /= np.linalg.norm(ways, axis=1, keepdims=True)
    parallel = [np.linalg.norm(np.delete(ways, number, axis=0).mean(axis=0)) for number in range(len(chains))]
    odd = int(np.argmax(parallel))
    rest = np.delete(ways, odd, axis=0).mean(axis=0)
    return odd if ways[odd] @ rest / np.linalg.norm(rest) < APART else None


def _refuse_unlimited(model: mujoco.MjModel, path: Path) -> None:
    """Refuses joints without limits, all at once."""
    hinge = int(mujoco.mjtJoint.mjJNT_HINGE)
    names = [model.joint(j).name for j in range(model.njnt) if model.jnt_type[j] == hinge and not model.jnt_limited[j]]
    if names:
        raise InputError(
            f"{path}: {len(names)} of {model.njnt} joints have no limits: {', '.join(map(repr, names))}. Give each one "
            'its range in the file: range="lower upper" of an MJCF\'s <joint>, <limit lower="" upper=""/> and type '
            '"revolute" (not "continuous") in a URDF, in rad.'
        )


def _refuse_two_hands(hand: HandDescription, path: Path) -> None:
    """Refuses a file with many fingers whose joints are called left and right."""
    marks = {"left": r"(^|[^a-z])(left|lh|l)(?=[^a-z])", "right": r"(^|[^a-z])(right|rh|r)(?=[^a-z])"}
    found = {
        side: [name for name in hand.joint_names if re.search(mark, name, re.IGNORECASE)]
        for side, mark in marks.items()
    }
    if all(len(names) > 2 for names in found.values()):
        raise InputError(
            f"{path} has joints of two hands, such as {found['left'][0]!r} and {found['right'][0]!r}; keep one hand in "
            "the file, or give one file for each: hand.mjcf=<right> hand.left_mjcf=<left>."
        )


def _oddities(model: mujoco.MjModel) -> list[str]:
    """Returns a line for each thing in the model that does not count."""
    found = []
    if model.neq:
        found.append(f"{model.neq} equality or mimic constraints do not count: every hinge moves on its own")
    if model.ntendon:
        found.append(f"{model.ntendon} tendons do not count: every hinge moves on its own")
    if (model.jnt_type == int(mujoco.mjtJoint.mjJNT_FREE)).any():
        found.append("the free joint of the root does not count: the optimizer places the hand")
    trees = {int(root) for root in model.body_rootid[1:]} - {int(model.body_rootid[b]) for b in model.jnt_bodyid}
    if trees:
        names = ", ".join(repr(model.body(root).name) for root in sorted(trees))
        found.append(f"bodies without joints are left out: {names}")
    if (model.geom_bodyid == 0).any():
        found.append("shapes of the world, such as a floor, are left out")
    return found


def _shape_oddities(hand: HandDescription, chains: list[Chain]) -> list[str]:
    """Returns a line for links without shapes, joints that move nothing, and meshes with many faces."""
    shaped = {shape.link for shape in hand.primitives}
    bare = [name for link, name in enumerate(hand.link_names) if link not in shaped and ":" not in name]
    found = [f"links without collision shapes: {', '.join(bare)}"] if bare else []
    above = {joint for chain in chains for joint in _above(hand, chain)} - {j for chain in chains for j in chain.joints}
    if above:
        names = ", ".join(hand.joint_names[joint] for joint in sorted(above))
        found.append(f"joints above the palm move with the others, and the hand's frame is above them: {names}")
    idle = set(range(len(hand.joint_names))) - {joint for chain in chains for joint in _above(hand, chain)}
    if idle:
        found.append(f"joints that move no shape: {', '.join(hand.joint_names[joint] for joint in sorted(idle))}")
    for shape in hand.primitives:
        if len(shape.faces) > MANY_FACES:
            found.append(
                f"the mesh of {hand.link_names[shape.link]!r} has a hull of {len(shape.faces)} faces, which makes each "
                f"step slow: simplify it to {MANY_FACES} or fewer, or put capsules and boxes in its place"
            )
    return found


def _above(hand: HandDescription, chain: Chain) -> list[int]:
    """Returns all joints that move a finger, those above the palm too."""
    links, joints = [chain.tip], []
    while links[-1]:
        joints += np.flatnonzero(hand.joint_link == links[-1]).tolist()
        links.append(int(hand.parent[links[-1]]))
    return joints


def _size_oddities(size: np.ndarray, chains: list[Chain]) -> list[str]:
    """Returns a line where this is hardly one hand in meters."""
    found = []
    if not SMALLEST < size.max() < LARGEST:
        found.append(f"the hand is {size.max():.4g} m long; is the file in meters?")
    if len(chains) > MOST_FINGERS:
        found.append(f"{len(chains)} fingers: is there more than one hand in the file?")
    return found
