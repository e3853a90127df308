"""Places a camera so that a grasp fills its picture. Pure geometry, +z is up."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

FIELD_OF_VIEW = 24.0
"""Degrees, vertical: that of a long lens."""

FILL = 0.94
"""Share of the picture's width or height that the grasp takes."""


class View(NamedTuple):
    """A camera: azimuth and elevation in degrees, the point it looks at and its distance from it in m."""

    azimuth: float
    elevation: float
    lookat: np.ndarray
    distance: float

    @property
    def axes(self) -> np.ndarray:
        """Rows right, up, forward in the object's frame."""
        return camera_axes(self.azimuth, self.elevation)


def camera_axes(azimuth: float, elevation: float) -> np.ndarray:
    """Returns rows right, up, forward of MuJoCo's free camera, world z upward; below 0 it looks down."""
    a, e = np.radians(azimuth), np.radians(elevation)
    right = [np.sin(a), -np.cos(a), 0.0]
    up = [-np.sin(e) * np.cos(a), -np.sin(e) * np.sin(a), np.cos(e)]
    return np.array([right, up, [np.cos(e) * np.cos(a), np.cos(e) * np.sin(a), np.sin(e)]])


def project(view: View, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns (N, 2) tangents to the right and upward, and the depths along the view, m."""
    seen = (points - view.lookat) @ view.axes.T
    depth = seen[:, 2] + view.distance
    return seen[:, :2] / depth[:, None], depth


def frame_tightly(points: np.ndarray, azimuth: float, elevation: float, aspect: float) -> View:
    """Returns the view from this side in which the points fill a picture of this width over height, centerd."""
    view = View(azimuth, elevation, points.mean(axis=0), 1.0)
    room = 2 * FILL * np.tan(np.radians(FIELD_OF_VIEW / 2)) * np.array([aspect, 1.0])
    for _ in range(20):  # shrinks the error by about ten each time
        tangents, _ = project(view, points)
        low, high = tangents.min(axis=0), tangents.max(axis=0)
        shift = (low + high) / 2 * view.distance @ view.axes[:2]
        distance = view.distance * float(((high - low) / room).max())
        view = view._replace(lookat=view.lookat + shift, distance=distance)
    return view
