"""Draws a grasp from the side that shows most of it."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image

from bimangrasp.grasp import LEFT, RIGHT
from bimangrasp.visualization.renderer import (
    COARSE,
    FIELD_OF_VIEW,
    FINE,
    OBJECT,
    QUICK,
    LinkPoses,
    Outline,
    Quality,
    SceneBodies,
    SceneRenderer,
    View,
    frame_tightly,
    project,
)

OVERSAMPLING = 2
CONTACT_SEEN = 0.008  # m: what lies before a contact that is seen is at most the half of a finger that touches there
CANDIDATES = 3  # of so many views one is looked at for its contacts as well, that which shows most


class ViewSearch(NamedTuple):
    """The views among which the best is looked for, and how they are drawn.

    Attributes:
        azimuths, elevations: degrees; below 0 the camera looks down.
        height: of the renders by which they are compared, pixels.
        quality: of the picture in the end.
    """

    azimuths: Sequence[float]
    elevations: Sequence[float]
    height: int
    quality: Quality


THOROUGH_SEARCH = ViewSearch(range(0, 360, 20), (-8, -20, -32, -45), 120, FINE)
"""For a picture that is shown alone."""

QUICK_SEARCH = ViewSearch(range(0, 360, 60), (-22,), 48, QUICK)
"""For thumbnails by the hundred."""


class Picture(NamedTuple):
    """A picture of a grasp.

    Attributes:
        pixels: (height, width, 3) uint8.
        view: from where.
    """

    pixels: np.ndarray
    view: View


class BestViewRenderer:
    """Draws pictures of the grasps of one object at one size, each from its best view."""

    def __init__(self, bodies: SceneBodies, width: int, height: int, search: ViewSearch = THOROUGH_SEARCH):
        """Takes OpenGL contexts for the search of a view and for the pictures.

        Args:
            bodies: hands and object.
            width: of a picture, pixels.
            height: of a picture, pixels.
            search: among which views.
        """
        self.width, self.height, self.search = width, height, search
        self._outline = Outline(bodies)
        self._small = SceneRenderer(bodies, round(search.height * width / height), search.height, COARSE)
        self._big = SceneRenderer(bodies, OVERSAMPLING * width, OVERSAMPLING * height, search.quality)

    def close(self) -> None:
        """Gives the OpenGL contexts back."""
        self._small.close()
        self._big.close()

    def render(self, grasp: LinkPoses) -> Picture:
        """Returns the picture of a grasp."""
        self._small.pose(grasp)
        self._big.pose(grasp)
        view = self._best_view(grasp)
        blocks = self._big.colors(view).reshape(self.height, OVERSAMPLING, self.width, OVERSAMPLING, 3)
        return Picture(blocks.mean(axis=(1, 3)).round().astype(np.uint8), view)

    def parts(self, view: View) -> np.ndarray:
        """Returns (height, width) what each pixel of the last picture shows, as `SceneRenderer.parts` does."""
        return self._big.parts(view)[::OVERSAMPLING, ::OVERSAMPLING]

    def _best_view(self, grasp: LinkPoses) -> View:
        """Returns the view with most of the lesser seen hand and of the object, weighted by the contacts seen."""
        points = self._outline.at(grasp)
        sides = [(a, e) for a in self.search.azimuths for e in self.search.elevations]
        views = [frame_tightly(points, a, e, self.width / self.height) for a, e in sides]
        shares = [self._share_shown(view) for view in views]
        # contacts cost a second render, so only the best third of the views is looked at for them
        count = math.ceil(len(views) / CANDIDATES)
        best = np.argsort(shares)[::-1][:count]
        seen = {i: contacts_seen(self._small.depths(views[i]), views[i], grasp.contacts) for i in best}
        return views[max(best, key=lambda i: shares[i] * (0.5 + seen[i]))]

    def _share_shown(self, view: View) -> float:
        """Returns the geometric mean of the pixels' shares of the object and of the hand that is seen less."""
        parts = self._small.parts(view)
        shares = np.bincount(parts.ravel() + 1, minlength=4)[1:] / parts.size
        return float(np.sqrt(min(shares[LEFT], shares[RIGHT]) * shares[OBJECT]))


def contacts_seen(depths: np.ndarray, view: View, contacts: np.ndarray) -> float:
    """Returns the share of contacts with little before them."""
    height, width = depths.shape
    tangents, depth = project(view, contacts)
    pixels = tangents * height / (2 * np.tan(np.radians(FIELD_OF_VIEW / 2)))
    column = np.clip(width / 2 + pixels[:, 0], 0, width - 1).astype(int)
    row = np.clip(height / 2 - pixels[:, 1], 0, height - 1).astype(int)
    return float((depths[row, column] > depth - CONTACT_SEEN).mean())


def encode(pixels: np.ndarray, kind: str) -> bytes:
    """Returns (height, width, 3) uint8 pixels as a file of this kind, PNG or WEBP."""
    options = {"PNG": {"optimize": True}, "WEBP": {"quality": 82, "method": 6}}
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind, **options[kind])
    return file.getvalue()
