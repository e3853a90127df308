"""Inspects a hand's file: finds fingers, thumb, size and oddities."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import mujoco
import numpy as np
import trimesh

from bimangrasp.errors import InputError
from bimangrasp.hand_files.config import find_mjcf
from bimangrasp.hand_files.couplings import Rules, coupled
from bimangrasp.hand_files.hulls import MAX_FACES, SHARE, TOLERANCE
from bimangrasp.hand_files.read_hand import compile_hand, hand_of, simplified_meshes, unread_of
from bimangrasp.hands.collision_shapes import shape_surface
from bimangrasp.hands.description import (
    Chain,
    HandDescription,
    find_chains,
    find_palm,
    frames_at,
    path_from_root,
    rigid_parts,
)

SYMMETRIC_RANGE = 0.8
"""A joint whose smaller range is more than this fraction of the larger one spreads a finger and does not close it."""

THUMB_NAMES = re.compile(r"(^|[^a-z])(thumb|th)([^a-z]|j\d|$)", re.IGNORECASE)
PARALLEL_COSINE = 0.94
"""Fingers are parallel if the cosine of their directions is above this (20 degrees); the thumb is not parallel."""

LEAST_LEAD = 0.02
"""A thumb is the finger without which the others agree better, by this length of their mean direction, than without any
other one."""

SMALLEST_HAND, LARGEST_HAND = 0.05, 0.6
"""Plausible sizes of a hand, m; others are probably in millimeters, or the file holds more than a hand."""

MAX_FINGERS = 5

LEAST_TURN = 0.1
"""A hand none of whose joints turns by more, rad, has its angles in the wrong unit: pi read as degrees is 0.055."""


class HandInspection(NamedTuple):
    """The facts that were read from a hand's file.

    Attributes:
        path: the file.
        hand: its tree, shapes and couplings; side, palm normal, finger direction, candidates and keypoints are empty.
        palm: the link that carries the fingers.
        chains: the fingers, in the order of the tree.
        thumb: which of them is the thumb; None where none stands out.
        tips: (finger, 3) m, the point of each finger farthest from its last joint, in that link's frame.
        size: (3,) m, of the box around the hand with its joints at 0.
        warnings: what is unusual or ignored, a line for each.
        frames: (L, 4, 4) poses of the links with the joints at rest, at the values nearest to 0, in the hand's frame.
    """

    path: Path
    hand: HandDescription
    palm: int
    chains: list[Chain]
    thumb: int | None
    tips: np.ndarray
    size: np.ndarray
    warnings: list[str]
    frames: np.ndarray


def inspect_hand(mjcf: str, couplings: Rules | None = None) -> HandInspection:
    """Returns what can be read from the file of one hand.

    Args:
        mjcf: the file.
        couplings: those of the hand's YAML.

    Raises:
        InputError: it cannot be a hand; the message says what to change.
    """
    path = find_mjcf(mjcf)
    model = compile_hand(path)
    _refuse_unlimited(model, path)
    free = hand_of(model, str(path))
    _refuse_wrong_angles(free, path)
    hand = replace(coupled(free, model, couplings or {}), joint_mean=free.joint_mean)  # what is guessed is of its shape
    chains = find_chains(hand)
    if len(chains) > MAX_FINGERS:
        _refuse_two_hands(hand, path)
    frames = frames_at(hand, hand.joint_mean)
    tips = np.stack([_tip(hand, frames, chain) for chain in chains])
    corners = [trimesh.transform_points(shape_surface(s).vertices, frames[s.link]) for s in hand.primitives]
    size = np.ptp(np.concatenate(corners), axis=0)
    warnings = [
        *_unread_couplings(unread_of(model, path, hand.joint_names), hand),
        *_ignored_parts(model),
        *_shape_warnings(hand, chains),
        *_mesh_warnings(model),
        *_size_warnings(size, chains),
    ]
    inspection = HandInspection(path, hand, find_palm(hand), chains, None, tips, size, warnings, frames)
    return inspection._replace(thumb=_find_thumb(inspection))


def tip_at(inspection: HandInspection, finger: int, frames: np.ndarray) -> np.ndarray:
    """Returns the position of a fingertip where the links have these poses, (L, 4, 4), in the hand's frame, m."""
    T_hand_link = frames[inspection.chains[finger].tip]
    return T_hand_link[:3, :3] @ inspection.tips[finger] + T_hand_link[:3, 3]


def base_of(inspection: HandInspection, finger: int) -> np.ndarray:
    """Returns the position of a finger's first joint in the hand's frame, joints at rest, m."""
    return inspection.frames[inspection.hand.joint_link[inspection.chains[finger].joints[0]], :3, 3]


def fingers_of(inspection: HandInspection) -> list[int]:
    """Returns the numbers of all fingers but the thumb."""
    return [number for number in range(len(inspection.chains)) if number != inspection.thumb]


def farther_limit(inspection: HandInspection, joint: int) -> float:
    """Returns the signed range of a joint from rest to its farther limit, rad; 0 where both are about alike."""
    hand, rest = inspection.hand, inspection.hand.joint_mean[joint]
    up, down = hand.joint_upper[joint] - rest, rest - hand.joint_lower[joint]
    if min(up, down) > SYMMETRIC_RANGE * max(up, down):
        return 0.0
    return float(up if up > down else -down)


def direction_of(inspection: HandInspection, finger: int) -> np.ndarray:
    """Returns the unit vector from the base of a finger to its tip, joints at 0."""
    along = tip_at(inspection, finger, inspection.frames) - base_of(inspection, finger)
    return along / max(np.linalg.norm(along), 1e-12)


def _tip(hand: HandDescription, frames: np.ndarray, chain: Chain) -> np.ndarray:
    """Returns the point of a finger farthest from its last joint, m, in the last link's frame."""
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


def _find_thumb(inspection: HandInspection) -> int | None:
    """Returns the finger whose name says thumb, else the one that points away from the others; None without one."""
    hand, chains = inspection.hand, inspection.chains
    names = [
        " ".join([hand.link_names[chain.tip], *(hand.joint_names[joint] for joint in chain.joints)]) for chain in chains
    ]
    named_thumb = [number for number, name in enumerate(names) if THUMB_NAMES.search(name)]
    if len(named_thumb) == 1:
        return named_thumb[0]
    if len(chains) < 3:
        return None
    directions = np.stack([direction_of(inspection, number) for number in range(len(chains))])
    # without the thumb the others agree best: the mean of their directions is then longest
    agreement = [np.linalg.norm(np.delete(directions, number, axis=0).mean(axis=0)) for number in range(len(chains))]
    thumb = int(np.argmax(agreement))
    if agreement[thumb] - np.sort(agreement)[-2] < LEAST_LEAD:
        return None  # fingers around an axis: each points away from the others alike
    mean = np.delete(directions, thumb, axis=0).mean(axis=0)
    return thumb if directions[thumb] @ mean / np.linalg.norm(mean) < PARALLEL_COSINE else None


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


def _refuse_wrong_angles(hand: HandDescription, path: Path) -> None:
    """Refuses a hand that cannot move, as one whose angles are meant in radians and are read in degrees."""
    turn = float((hand.joint_upper - hand.joint_lower).max())
    if turn < LEAST_TURN:
        raise InputError(
            f"{path}: no joint turns by more than {np.degrees(turn):.2g} degrees; if its angles are meant in radians, "
            'an MJCF has to say so: <compiler angle="radian"/>'
        )


def _refuse_two_hands(hand: HandDescription, path: Path) -> None:
    """Refuses a file with many fingers whose joints are called left and right."""
    marks = {"left": r"(^|[^a-z])(left|lh|l)(?=[^a-z])", "right": r"(^|[^a-z])(right|rh|r)(?=[^a-z])"}
    joints_of_side = {
        side: [name for name in hand.joint_names if re.search(mark, name, re.IGNORECASE)]
        for side, mark in marks.items()
    }
    if all(len(names) > 2 for names in joints_of_side.values()):
        raise InputError(
            f"{path} has joints of two hands, such as {joints_of_side['left'][0]!r} and "
            f"{joints_of_side['right'][0]!r}; keep one hand in the file, or give one file for each: "
            "hand.mjcf=<right> hand.left_mjcf=<left>."
        )


def _unread_couplings(unread: list[str], hand: HandDescription) -> list[str]:
    """Returns a warning for each coupling of the file that does not count."""
    first, last = hand.joint_names[0], hand.joint_names[-1]
    advice = f"if joints move together by it, state that, such as +hand.couplings.{last}={{follows:{first}}}"
    return [f"not read: {what}; {advice}" for what in unread]


def _ignored_parts(model: mujoco.MjModel) -> list[str]:
    """Returns a warning for each thing in the model that is ignored."""
    warnings = []
    if (model.jnt_type == int(mujoco.mjtJoint.mjJNT_FREE)).any():
        warnings.append("the free joint of the root does not count: the optimizer places the hand")
    moving = {int(model.body_rootid[body]) for body in model.jnt_bodyid}
    fixed = {int(root) for root in model.body_rootid[1:]} - moving
    if fixed:
        names = ", ".join(repr(model.body(root).name) for root in sorted(fixed))
        warnings.append(f"bodies without joints are left out: {names}")
    if (model.geom_bodyid == 0).any():
        warnings.append("shapes of the world, such as a floor, are left out")
    return warnings


def _shape_warnings(hand: HandDescription, chains: list[Chain]) -> list[str]:
    """Returns warnings of links without shapes and of joints that move nothing."""
    shaped = {shape.link for shape in hand.primitives}
    shapeless = [name for link, name in enumerate(hand.link_names) if link not in shaped and ":" not in name]
    warnings = [f"links without collision shapes: {', '.join(shapeless)}"] if shapeless else []
    moving = {joint for chain in chains for joint in _moving_joints(hand, chain)}
    above_palm = moving - {joint for chain in chains for joint in chain.joints}
    if above_palm:
        names = ", ".join(hand.joint_names[joint] for joint in sorted(above_palm))
        warnings.append(f"joints above the palm move with the others, and the hand's frame is above them: {names}")
    idle = set(range(len(hand.joint_names))) - moving
    if idle:
        warnings.append(f"joints that move no shape: {', '.join(hand.joint_names[joint] for joint in sorted(idle))}")
    return warnings


def _mesh_warnings(model: mujoco.MjModel) -> list[str]:
    """Returns a line about the meshes whose hulls are simplified."""
    meshes = [f"{name} ({whole} to {faces})" for name, whole, faces in simplified_meshes(model)]
    if not meshes:
        return []
    return [
        f"hulls of meshes of more than {MAX_FACES} faces are simplified, to within {1000 * TOLERANCE:g} mm or "
        f"1/{round(1 / SHARE)} of their extent: "
        f"{', '.join(meshes)}"
    ]


def _moving_joints(hand: HandDescription, chain: Chain) -> list[int]:
    """Returns all joints that move a finger, including those above the palm."""
    return np.flatnonzero(np.isin(hand.joint_link, path_from_root(hand, chain.tip))).tolist()


def _size_warnings(size: np.ndarray, chains: list[Chain]) -> list[str]:
    """Returns warnings where the file is hardly a single hand in meters."""
    warnings = []
    if not SMALLEST_HAND < size.max() < LARGEST_HAND:
        warnings.append(f"the hand is {size.max():.4g} m long; is the file in meters?")
    if len(chains) > MAX_FINGERS:
        warnings.append(f"{len(chains)} fingers: is there more than one hand in the file?")
    return warnings
