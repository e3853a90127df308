"""Draws a pair of hands with MuJoCo: collision shapes, contact candidates and penetration keypoints."""

from __future__ import annotations

import os
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import mujoco
import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from bimangrasp.errors import InputError
from bimangrasp.hand_files.read_hand import quiet_mujoco
from bimangrasp.hands.collision_shapes import shape_surface
from bimangrasp.hands.description import HandDescription, frames_at, points_of_links
from bimangrasp.hands.mujoco_bodies import NO_CONTACT, add_shape, quaternion
from bimangrasp.visualization.renderer import (
    FILL,
    OVERSAMPLING,
    Quality,
    View,
    downsampled,
    encode,
    set_look,
    take_camera,
)

HAND, GLASS = (0.80, 0.76, 0.72, 1.0), (0.80, 0.76, 0.72, 0.35)
CANDIDATE, KEYPOINT, COUPLING = (0.85, 0.12, 0.10, 1.0), (0.15, 0.45, 0.85, 0.6), (0.95, 0.55, 0.05, 1.0)
AXES = ((0.85, 0.2, 0.2, 1.0), (0.2, 0.65, 0.25, 1.0), (0.2, 0.35, 0.85, 1.0))
FACING_Y = 90.0
"""Azimuth of a camera that looks along y, degrees."""

DOT = 0.1
"""Radius of a marked candidate, share of the distance at which keypoints cost energy."""

ROD = 0.0045
"""Radius of the arrows of the hand's frame, share of the hand's length."""

ARROW = 0.08
"""Length by which the arrows of the hand's frame stick out of it, share of the hand's length."""

SHRINK = 2e-5
"""Each shape is drawn this much smaller than the one before, m: coplanar faces would be lit twice."""

SOFTWARE = ("Software", "bimangrasp mode=hand")
"""PNG text entry that marks pictures written by this module."""

OUTLINE_SECTIONS = 16
"""Corners of the circles of round shapes where only their extent matters."""

QUALITY = Quality(samples=0, slices=32, shadows=True)


class Panel(NamedTuple):
    """One hand from one side.

    Attributes:
        hand: the hand, with its joints at their means.
        back: (3,) unit vector from the hand to the viewer, in the hand's frame.
        up: (3,) unit vector that is up in the picture.
        inside: show keypoints inside a transparent hand instead of the candidates on it.
        coupled: show inside a transparent hand which joints move together instead.
    """

    hand: HandDescription
    back: np.ndarray
    up: np.ndarray
    inside: bool = False
    coupled: bool = False


def panels_of(left: HandDescription, right: HandDescription) -> list[Panel]:
    """Returns both hands with the palm to the viewer, and the right one from both sides: candidates, keypoints.

    Of a hand with couplings there is one panel more, with these.
    """
    aside = np.cross(right.finger_direction, right.palm_normal)
    normal, up = right.palm_normal, right.finger_direction
    panels = [
        Panel(left, left.palm_normal, left.finger_direction),
        Panel(right, normal, up),
        Panel(right, 0.7 * normal - aside, up),
        Panel(right, 0.4 * normal + aside, up, inside=True),
    ]
    return [*panels, Panel(right, normal + 0.7 * aside, up, coupled=True)] if right.couplings else panels


def panels_of_frame(hand: HandDescription) -> list[Panel]:
    """Returns views of a hand along each axis of its frame, for a hand whose directions are not given yet."""
    x, y, z = np.eye(3)
    return [Panel(hand, x, z), Panel(hand, -y, z), Panel(hand, z, y)]


def draw(panels: list[Panel], keypoint_distance: float, width: int, height: int) -> np.ndarray:
    """Returns a (height, width, 3) uint8 picture with the panels side by side.

    Candidates are small red balls, keypoints blue ones as wide as the distance at which two of them cost energy: they
    never overlap in an open hand. Orange rods in a hand of glass join joints that move together. Red, green and blue
    arrows are x, y and z of the hand's frame.

    Args:
        panels: what to draw.
        keypoint_distance: m.
        width: of the whole, pixels.
        height: pixels.

    Raises:
        InputError: there is no OpenGL to draw with.
    """
    each = width // len(panels)
    size = OVERSAMPLING * each, OVERSAMPLING * height
    context = _context(*size)
    try:
        pictures = [_render(panel, keypoint_distance, *size) for panel in panels]
    finally:
        context.free()
    return downsampled(np.concatenate(pictures, axis=1))


def png(picture: np.ndarray) -> bytes:
    """Returns a (height, width, 3) uint8 picture as a PNG file."""
    about = PngInfo()
    about.add_text(*SOFTWARE)
    return encode(picture, "PNG", pnginfo=about, optimize=True)


def is_ours(path: Path) -> bool:
    """Whether a file is a picture that `png` encoded."""
    try:
        with Image.open(path) as image:
            return image.info.get(SOFTWARE[0]) == SOFTWARE[1]
    except (OSError, SyntaxError, ValueError):  # what Pillow raises on a file that is no picture
        return False


def _context(width: int, height: int) -> object:
    """Returns a current OpenGL context: the one that MUJOCO_GL asks for, else EGL, which needs no display."""
    try:
        if os.environ.get("MUJOCO_GL"):
            from mujoco.gl_context import GLContext
        else:
            from mujoco.egl import GLContext
        context = GLContext(width, height)
        context.make_current()
    except (ImportError, AttributeError, RuntimeError, OSError) as error:
        raise InputError(
            f"no picture can be drawn, there is no OpenGL ({type(error).__name__}: {error}); on Debian: "
            "apt install libegl1 libgl1-mesa-dri"
        ) from error
    return context


def _render(panel: Panel, keypoint_distance: float, width: int, height: int) -> np.ndarray:
    """Returns one panel as (height, width, 3) uint8."""
    spec, points = _scene(panel, keypoint_distance)
    set_look(spec, width, height, QUALITY)
    spec.visual.headlight.diffuse = [0.3] * 3  # brighter than grasps, whose colors need no telling apart
    low, high = points.min(axis=0), points.max(axis=0)
    spec.visual.global_.fovy = max(high[2] - low[2], (high[0] - low[0]) * height / width) / FILL  # m
    with quiet_mujoco():
        model = spec.compile()
    data, scene = mujoco.MjData(model), mujoco.MjvScene(model, 5000)
    camera = take_camera(model, View(FACING_Y, 0.0, (low + high) / 2, 1.0))
    camera.orthographic = 1  # without perspective every arrow sticks out of the hand
    mujoco.mj_forward(model, data)
    mujoco.mjv_updateScene(model, data, mujoco.MjvOption(), None, camera, mujoco.mjtCatBit.mjCAT_ALL, scene)
    context = mujoco.MjrContext(model, mujoco.mjtFontScale.mjFONTSCALE_150)
    mujoco.mjr_setBuffer(mujoco.mjtFramebuffer.mjFB_OFFSCREEN, context)
    viewport = mujoco.MjrRect(0, 0, width, height)
    mujoco.mjr_render(viewport, scene, context)
    picture = np.zeros((height, width, 3), np.uint8)
    mujoco.mjr_readPixels(picture, None, viewport, context)
    context.free()
    return picture[::-1]


def _scene(panel: Panel, keypoint_distance: float) -> tuple[mujoco.MjSpec, np.ndarray]:
    """Returns the hand with its marks, turned so that the viewer looks along y, and points on all of it, m."""
    hand, spec, rotation = panel.hand, mujoco.MjSpec(), _turn(panel)
    body = spec.worldbody.add_body(quat=quaternion(rotation))
    frames = frames_at(hand, hand.joint_mean)
    corners = []
    for number, shape in enumerate(hand.primitives):
        shrunk = replace(shape, size=np.maximum(shape.size - number * SHRINK * (shape.size > 0), 0.0))
        T = frames[shape.link] @ shape.T_link_shape
        add_shape(
            spec, body, str(number), shrunk, T, rgba=GLASS if panel.inside or panel.coupled else HAND, **NO_CONTACT
        )
        corners.append(shape_surface(replace(shrunk, T_link_shape=T), OUTLINE_SECTIONS).vertices)
    points = np.concatenate(corners)
    length = float(np.ptp(points, axis=0).max())
    if panel.coupled:
        for ends in joined_joints(hand, frames):
            _add_rod(body, ends, 2 * ROD * length, COUPLING)
            for end in ends:
                _add_ball(body, end, 4 * ROD * length, COUPLING)
    else:
        _add_points(body, panel, frames, keypoint_distance)
    arrow_tips = []
    for axis, color in enumerate(AXES):
        tip = (max(points[:, axis].max(), 0.0) + ARROW * length) * np.eye(3)[axis]
        _add_rod(body, np.stack((np.zeros(3), tip)), ROD * length, color)
        _add_ball(body, tip, 3 * ROD * length, color)
        arrow_tips.append(tip + 3 * ROD * length * np.eye(3)[axis])
    points = np.concatenate((points, arrow_tips)) @ rotation.T
    spec.stat.center, spec.stat.extent = points.mean(axis=0), length
    return spec, points


def _add_points(body: mujoco.MjsBody, panel: Panel, frames: np.ndarray, keypoint_distance: float) -> None:
    """Adds a ball for each keypoint in a hand, or for each candidate on it."""
    hand = panel.hand
    if panel.inside:
        marks, radius, color = (hand.keypoint_link, hand.keypoint_position), keypoint_distance / 2, KEYPOINT
    else:
        marks, radius, color = (hand.candidate_link, hand.candidate_position), DOT * keypoint_distance, CANDIDATE
    for center in points_of_links(frames, *marks):
        _add_ball(body, center, radius, color)


def joined_joints(hand: HandDescription, frames: np.ndarray) -> list[np.ndarray]:
    """Returns the ends (2, 3) of rods between joints that move together, each from one to the next in the tree, m."""
    places = frames[hand.joint_link, :3, 3]
    return [places[list(pair)] for joints in hand.coordinates.moved for pair in pairwise(joints)]


def _add_rod(body: mujoco.MjsBody, ends: np.ndarray, radius: float, color: tuple) -> None:
    rod = mujoco.mjtGeom.mjGEOM_CAPSULE
    body.add_geom(type=rod, fromto=ends.ravel(), size=[radius, 0, 0], rgba=color, **NO_CONTACT)


def _add_ball(body: mujoco.MjsBody, center: np.ndarray, radius: float, color: tuple) -> None:
    body.add_geom(type=mujoco.mjtGeom.mjGEOM_SPHERE, pos=center, size=[radius, 0, 0], rgba=color, **NO_CONTACT)


def _turn(panel: Panel) -> np.ndarray:
    """Returns the rotation that takes the viewer's right to x, forward to y and up to z."""
    forward = -panel.back / np.linalg.norm(panel.back)
    up = panel.up - (panel.up @ forward) * forward
    up /= np.linalg.norm(up)
    return np.stack((np.cross(forward, up), forward, up))
