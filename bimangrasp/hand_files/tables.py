"""Converts the tables of a hand's YAML to arrays: joint means, keypoints, directions, and places candidates."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from difflib import get_close_matches

import numpy as np

from bimangrasp.errors import InputError
from bimangrasp.hand_files.config import CandidateRule, HandConfig
from bimangrasp.hands.collision_shapes import shape_surface
from bimangrasp.hands.description import HandDescription, Primitive, on_couplings

MEAN_TOLERANCE = 1e-3
"""How far a mean in a YAML, which has three decimals, may be off its coupling, rad."""

_GOLDEN = (np.sqrt(5.0) - 1.0) / 2.0  # fractional parts of its multiples spread evenly, whatever their number
_PLASTIC = np.array([0.7548776662466927, 0.5698402909980532])  # the same in two dimensions
_DENSITY = 100  # samples of faces per candidate, from which the candidates are chosen


def check_names(mentioned: Iterable[str], names: Sequence[str], key: str) -> None:
    """Refuses the first name that the hand does not have, and names the nearest ones.

    Raises:
        InputError: naming the key and the name.
    """
    for name in mentioned:
        if name not in names:
            nearest = get_close_matches(name, names, n=3, cutoff=0.4) or list(names)
            raise InputError(f"{key} names {name!r}, which the hand does not have. Nearest: {', '.join(nearest)}.")


def joint_mean(config: HandConfig, hand: HandDescription) -> np.ndarray:
    """Returns the (J,) means of the joints' first values, rad, on the couplings of the hand.

    Every joint must have one within its limits, but for those that follow others: their leaders have it.

    Raises:
        InputError: an unknown or missing joint, or a mean outside of the limits or off its coupling.
    """
    names, lower, upper = hand.joint_names, hand.joint_lower, hand.joint_upper
    check_names(config.joint_mean, names, "hand.joint_mean")
    following = {names[follower.node] for follower in hand.couplings.followers if follower.node < len(names)}
    missing = [name for name in names if name not in config.joint_mean and name not in following]
    if missing:
        raise InputError(f"hand.joint_mean lacks {', '.join(missing)}; give each joint its mean first value in rad.")
    for name, low, high in zip(names, lower, upper, strict=True):
        if name in config.joint_mean and not low <= config.joint_mean[name] <= high:
            raise InputError(
                f"hand.joint_mean of {name!r} is {config.joint_mean[name]:g} rad; "
                f"wanted a value within the joint's limits, {low:g} to {high:g} rad."
            )
    mean = np.array([config.joint_mean.get(name, 0.0) for name in names], np.float64)
    return _coupled_mean(config, hand, mean, following) if hand.couplings else mean


def _coupled_mean(config: HandConfig, hand: HandDescription, mean: np.ndarray, following: set[str]) -> np.ndarray:
    """Returns the means of all joints where the leaders and tendons of these are."""
    table = hand.coordinates
    placed = table.joints_at(table.coordinates_of(mean))
    for name, value, low, high in zip(hand.joint_names, placed, hand.joint_lower, hand.joint_upper, strict=True):
        if name in following and abs(config.joint_mean.get(name, value) - value) > MEAN_TOLERANCE:
            raise InputError(
                f"hand.joint_mean of {name!r} is {config.joint_mean[name]:g} rad, but it follows by a coupling and is "
                f"then at {value:.4g} rad; give it that value: hand.joint_mean.{name}={value:.4g}."
            )
        if not low - MEAN_TOLERANCE <= value <= high + MEAN_TOLERANCE:
            raise InputError(
                f"hand.joint_mean puts {name!r} at {value:.4g} rad by its coupling; wanted its leader's mean so that "
                f"it is within its limits, {low:g} to {high:g} rad."
            )
    return on_couplings(hand, mean)


def keypoints(config: HandConfig, link_names: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Returns (P,) link indices and (P, 3) positions of the penetration keypoints, in link order.

    Raises:
        InputError: an unknown link, or points that are not rows of three numbers.
    """
    check_names(config.keypoints, link_names, "hand.keypoints")
    names = sorted(config.keypoints, key=link_names.index)
    return by_link({name: _rows_of_three(config.keypoints[name], name) for name in names}, link_names)


def with_tables(
    hand: HandDescription,
    config: HandConfig,
    candidates: tuple[np.ndarray, np.ndarray],
    keypoints: tuple[np.ndarray, np.ndarray],
) -> HandDescription:
    """Returns the hand with the directions of its YAML; candidates and keypoints are (links, positions).

    Raises:
        InputError: a direction is none.
    """
    return replace(
        hand,
        candidate_link=candidates[0],
        candidate_position=candidates[1],
        keypoint_link=keypoints[0],
        keypoint_position=keypoints[1],
        palm_normal=unit_vector(config.palm_normal, "hand.palm_normal"),
        finger_direction=unit_vector(config.finger_direction, "hand.finger_direction"),
    )


def by_link(points: dict[str, np.ndarray], link_names: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Returns (K,) link indices and (K, 3) positions of points that are given by the name of their link, in order."""
    links = [np.full(len(part), link_names.index(name), np.int64) for name, part in points.items()]
    return np.concatenate([np.zeros(0, np.int64), *links]), np.concatenate([np.zeros((0, 3)), *points.values()])


def _rows_of_three(rows: list[list[float]], name: str) -> np.ndarray:
    if any(len(row) != 3 for row in rows) or not np.isfinite([x for row in rows for x in row]).all():
        raise InputError(f"hand.keypoints of {name!r} is {rows}; wanted a list of points [x, y, z] in m.")
    return np.array(rows, np.float64).reshape(-1, 3)


def unit_vector(value: Sequence[float], key: str) -> np.ndarray:
    """Returns a direction of the config as a (3,) vector of length 1.

    Raises:
        InputError: not three finite numbers, or a length that is not 1.
    """
    vector = np.array(list(value), np.float64)
    if vector.shape != (3,) or not abs(np.linalg.norm(vector) - 1) < 1e-3:
        raise InputError(f"{key} is {list(value)}; wanted three numbers [x, y, z] of length 1, a direction.")
    return vector / np.linalg.norm(vector)


def place_candidates(
    primitives: Sequence[Primitive], link_names: Sequence[str], rule: CandidateRule
) -> tuple[np.ndarray, np.ndarray]:
    """Returns (K,) link indices and (K, 3) candidates in link coordinates, in link order, on the surface.

    On a link with several shapes, the shape that reaches farthest to the palmar side carries the candidates. Equal
    hands and rules give equal candidates; there is no randomness.

    Raises:
        InputError: a listed link that the hand does not have or that has no shape.
    """
    check_names(rule.palmar, link_names, "hand.candidates.palmar")
    placed = {}
    for name in sorted(rule.palmar, key=link_names.index):
        palmar = unit_vector(rule.palmar[name], f"hand.candidates.palmar of {name!r}")
        shapes = [shape for shape in primitives if shape.link == link_names.index(name)]
        if not shapes:
            carriers = [link_names[link] for link in sorted({shape.link for shape in primitives})]
            raise InputError(
                f"hand.candidates.palmar names {name!r}, which has no collision geometry to carry them; "
                f"links that have one: {', '.join(carriers)}."
            )
        placed[name] = _on_shape(max(shapes, key=lambda shape: _reach(shape, palmar)), palmar, rule)
    return by_link(placed, link_names)


def _reach(shape: Primitive, direction: np.ndarray) -> float:
    """Returns how far the shape extends along a direction of the link's frame, m."""
    along = shape.T_link_shape[:3, :3].T @ direction
    center = float(shape.T_link_shape[:3, 3] @ direction)
    radius, half_length = shape.size[:2]
    if shape.shape == "capsule":
        return center + abs(along[2]) * half_length + radius
    if shape.shape == "cylinder":
        return center + abs(along[2]) * half_length + radius * np.hypot(along[0], along[1])
    if shape.shape == "box":
        return center + float(np.abs(along) @ shape.size)
    return center + float((shape.vertices @ along).max())


def _on_shape(shape: Primitive, palmar_link: np.ndarray, rule: CandidateRule) -> np.ndarray:
    """Returns (per_link, 3) candidates on one shape, in link coordinates."""
    rotation, origin = shape.T_link_shape[:3, :3], shape.T_link_shape[:3, 3]
    palmar = rotation.T @ palmar_link
    if shape.shape in ("box", "mesh"):
        surface = shape_surface(replace(shape, T_link_shape=np.eye(4)))
        points = _on_faces(np.array(surface.vertices), np.array(surface.faces), palmar, rule)
    else:
        points = _on_round_shape(shape, palmar, rule)
    return points @ rotation.T + origin


def _on_round_shape(shape: Primitive, palmar: np.ndarray, rule: CandidateRule) -> np.ndarray:
    """Returns candidates on a capsule or cylinder about z: on its side, or on the palmar end."""
    radius, half_length = shape.size[:2]
    if half_length == 0.0:
        return radius * _cap(palmar, rule)
    if abs(palmar[2]) < np.sqrt(0.5):
        inset = half_length / rule.per_link if shape.shape == "cylinder" else 0.0  # off its edges
        return _strip(palmar, radius, half_length - inset, rule)
    end = np.array([0.0, 0.0, np.copysign(1.0, palmar[2])])
    on_end = _cap(end, rule) if shape.shape == "capsule" else _disc(end, rule.per_link)
    return half_length * end + radius * on_end


def _strip(palmar: np.ndarray, radius: float, half_length: float, rule: CandidateRule) -> np.ndarray:
    """Returns points on the side: even steps along z, angles within the spread of the palm direction."""
    z = np.linspace(-half_length, half_length, rule.per_link) if rule.per_link > 1 else np.zeros(1)
    middle = np.arctan2(palmar[1], palmar[0])
    angle = middle + rule.spread_rad * (2.0 * _even(rule.per_link) - 1.0)
    return np.stack((radius * np.cos(angle), radius * np.sin(angle), z), axis=1)


def _cap(middle: np.ndarray, rule: CandidateRule) -> np.ndarray:
    """Returns unit vectors within the spread of `middle`, even in area."""
    share = (np.arange(rule.per_link) + 0.5) / rule.per_link
    height = 1.0 - share * (1.0 - np.cos(rule.spread_rad))
    return _around(middle, np.sqrt(1.0 - height**2)) + height[:, None] * middle


def _disc(middle: np.ndarray, count: int) -> np.ndarray:
    """Returns points of the unit disc across `middle`, even in area."""
    return _around(middle, np.sqrt((np.arange(count) + 0.5) / count))


def _around(middle: np.ndarray, distance: np.ndarray) -> np.ndarray:
    """Returns points of the plane across `middle`, at these distances from 0, at even angles."""
    first = np.cross(middle, np.eye(3)[np.argmin(np.abs(middle))])
    first /= np.linalg.norm(first)
    angle = 2.0 * np.pi * _even(len(distance))[:, None]
    return distance[:, None] * (np.cos(angle) * first + np.sin(angle) * np.cross(middle, first))


def _even(count: int) -> np.ndarray:
    """Returns `count` numbers in [0, 1) that cover it evenly, as does any run of consecutive ones."""
    return (0.5 + np.arange(count) * _GOLDEN) % 1.0


def _on_faces(vertices: np.ndarray, faces: np.ndarray, palmar: np.ndarray, rule: CandidateRule) -> np.ndarray:
    """Returns points evenly spread over the faces whose normals lie within the spread of the palm direction.

    Where no face does, the faces that come nearest are used.
    """
    corners = vertices[faces]
    cross = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    area = np.linalg.norm(cross, axis=1)
    cosine = (cross @ palmar) / np.maximum(area, 1e-30)
    chosen = cosine >= min(np.cos(rule.spread_rad), cosine.max() - 1e-6)
    return _thin_out(_area_samples(corners[chosen], area[chosen], _DENSITY * rule.per_link), rule.per_link)


def _area_samples(corners: np.ndarray, area: np.ndarray, count: int) -> np.ndarray:
    """Returns points spread over triangles by area: a fixed sequence, no random numbers."""
    level = (np.arange(count) + 0.5) / count * area.sum()
    face = np.searchsorted(np.cumsum(area), level).clip(max=len(area) - 1)
    u = (0.5 + np.arange(count)[:, None] * _PLASTIC) % 1.0
    u = np.where(u.sum(axis=1, keepdims=True) > 1.0, 1.0 - u, u)
    weight = np.concatenate((1.0 - u.sum(axis=1, keepdims=True), u), axis=1)
    return np.einsum("nk,nkd->nd", weight, corners[face])


def _thin_out(samples: np.ndarray, count: int) -> np.ndarray:
    """Returns `count` of the samples, each near the middle of the samples that are nearest to it."""
    chosen = [0]  # farthest-point sampling, then rounds of k-medoids
    while len(chosen) < count:
        chosen.append(int(_distances(samples, samples[chosen]).min(axis=1).argmax()))
    for _ in range(20):
        owner = _distances(samples, samples[chosen]).argmin(axis=1)
        means = np.stack([samples[owner == k].mean(axis=0) for k in range(count)])
        chosen = list(_distances(samples, means).argmin(axis=0))
    return samples[chosen]


def _distances(points: np.ndarray, others: np.ndarray) -> np.ndarray:
    return np.linalg.norm(points[:, None] - others[None], axis=-1)
