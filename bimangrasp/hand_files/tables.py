"""Converts the tables of a hand's YAML to arrays: joint means, keypoints, directions; checks every name."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from difflib import get_close_matches

import numpy as np

from bimangrasp.errors import InputError
from bimangrasp.hand_files.config import HandConfig


def check_names(mentioned: Iterable[str], names: Sequence[str], key: str) -> None:
    """Refuses the first name that the hand does not have, and names the nearest ones.

    Raises:
        InputError: naming the key and the name.
    """
    for name in mentioned:
        if name not in names:
            nearest = get_close_matches(name, names, n=3, cutoff=0.4) or list(names)
            raise InputError(f"{key} names {name!r}, which the hand does not have. Nearest: {', '.join(nearest)}.")


def joint_mean(config: HandConfig, names: Sequence[str], lower: np.ndarray, upper: np.ndarray) -> np.ndarray:
    """Returns the (J,) means of the joints' first values, rad; every joint must have one within its limits.

    Raises:
        InputError: an unknown or missing joint, or a mean outside of the limits.
    """
    check_names(config.joint_mean, names, "hand.joint_mean")
    missing = [name for name in names if name not in config.joint_mean]
    if missing:
        raise InputError(f"hand.joint_mean lacks {', '.join(missing)}; give each joint its mean first value in rad.")
    for name, low, high in zip(names, lower, upper, strict=True):
        if not low <= config.joint_mean[name] <= high:
            raise InputError(
                f"hand.joint_mean of {name!r} is {config.joint_mean[name]:g} rad; "
                f"wanted a value within the joint's limits, {low:g} to {high:g} rad."
            )
    return np.array([config.joint_mean[name] for name in names], np.float64)


def keypoints(config: HandConfig, link_names: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Returns (P,) link indices and (P, 3) positions of the penetration keypoints, in link order.

    Raises:
        InputError: an unknown link, or points that are not rows of three numbers.
    """
    check_names(config.keypoints, link_names, "hand.keypoints")
    links, positions = [np.zeros(0, np.int64)], [np.zeros((0, 3))]
    for name in sorted(config.keypoints, key=link_names.index):
        points = _rows_of_three(config.keypoints[name], name)
        links.append(np.full(len(points), link_names.index(name)))
        positions.append(points)
    return np.concatenate(links), np.concatenate(positions)


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
