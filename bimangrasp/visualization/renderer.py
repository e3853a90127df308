"""Renders a pair of hands and an object by MuJoCo without a window, from any side or from that which shows most."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from typing import NamedTuple

import mujoco
import numpy as np
import torch
from PIL import Image
from scipy.spatial import ConvexHull

from bimangrasp.files.scene_export import COLORS
from bimangrasp.grasp import LEFT, RIGHT
from bimangrasp.hand_files.read_hand import quiet_mujoco
from bimangrasp.hands.collision_shapes import shape_surface
from bimangrasp.hands.description import HandDescription
from bimangrasp.hands.model import HandModel
from bimangrasp.hands.mujoco_bodies import NO_CONTACT, add_mesh, add_shape
from bimangrasp.poses import Poses

FIELD_OF_VIEW = 24.0
"""Degrees, vertical: that of a long lens."""

FILL = 0.94
"""Share of the picture's width or height that the grasp takes."""

OBJECT = 2
OUTLINE_SECTIONS = 8  # corners of the circles of round shapes where only their extent matters
BACKGROUND = (0.955, 0.96, 0.97)
SHADOW_SIZE = 4096  # texels of the key light's shadows at most
LIGHTS = (("key", True, 0.42, (-0.9, 1.5, -1.3)), ("fill", False, 0.18, (1.4, 0.1, -1.0)))
"""Name, whether it casts shadows, strength, and the place right, up, forward of what the camera looks at, m."""

OVERSAMPLING = 2

CONTACT_SEEN = 0.008  # m: what lies before a contact that is seen is at most the half of a finger that touches there

CANDIDATES = 3  # of so many views one is looked at for its contacts as well, that which shows most


class View(NamedTuple):
    """A camera: azimuth and elevation in degrees, the point it looks at and its distance from it in m."""

    azimuth: float
    elevation: float
    lookat: np.ndarray
    distance: float

    @property
    def axes(self) -> np.ndarray:
        """Rows right, up, forward in the object's frame, of MuJoCo's free camera: z is up, below 0 it looks down."""
        a, e = np.radians(self.azimuth), np.radians(self.elevation)
        right = [np.sin(a), -np.cos(a), 0.0]
        up = [-np.sin(e) * np.cos(a), -np.sin(e) * np.sin(a), np.cos(e)]
        return np.array([right, up, [np.cos(e) * np.cos(a), np.cos(e) * np.sin(a), np.sin(e)]])


def project(view: View, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns (N, 2) tangents to the right and upward, and the depths along the view, m."""
    seen = (points - view.lookat) @ view.axes.T
    depth = seen[:, 2] + view.distance
    return seen[:, :2] / depth[:, None], depth


def frame_tightly(points: np.ndarray, azimuth: float, elevation: float, aspect: float) -> View:
    """Returns the view from this side in which the points fill a picture of this width over height, centered."""
    view = View(azimuth, elevation, points.mean(axis=0), 1.0)
    room = 2 * FILL * np.tan(np.radians(FIELD_OF_VIEW / 2)) * np.array([aspect, 1.0])
    for _ in range(20):  # shrinks the error by about ten each time
        tangents, _ = project(view, points)
        low, high = tangents.min(axis=0), tangents.max(axis=0)
        shift = (low + high) / 2 * view.distance @ view.axes[:2]
        distance = view.distance * float(((high - low) / room).max())
        view = view._replace(lookat=view.lookat + shift, distance=distance)
    return view


class SceneBodies(NamedTuple):
    """The bodies of a scene.

    Attributes:
        hands: the left and the right one.
        vertices, faces: the object at its size, m.
    """

    hands: tuple[HandDescription, HandDescription]
    vertices: np.ndarray
    faces: np.ndarray


class LinkPoses(NamedTuple):
    """The links of both hands at one grasp, in the object's frame, m.

    Attributes:
        rotation, translation: (hand, link, 3, 3) and (hand, link, 3) poses of the links.
        contacts: (contact, 3) points of both hands.
    """

    rotation: np.ndarray
    translation: np.ndarray
    contacts: np.ndarray


def link_poses(hands: tuple[HandDescription, HandDescription], poses: Poses, contacts: np.ndarray) -> list[LinkPoses]:
    """Returns the poses of all links at each grasp.

    Args:
        hands: the left and the right one.
        poses: the grasps.
        contacts: (grasp, contact, 3) points of both hands, object's frame, m.
    """
    root = (torch.as_tensor(part) for part in (poses.rotation, poses.translation, poses.joints))
    frames = HandModel(*hands, surface_points=1).frames_from_root(*root)
    columns = (frames.rotation.numpy(), frames.translation.numpy(), contacts)
    return [LinkPoses(*row) for row in zip(*columns, strict=True)]


class Outline:
    """Points that show how far hands and object reach."""

    def __init__(self, bodies: SceneBodies):
        self._object = bodies.vertices[ConvexHull(bodies.vertices).vertices]
        self._shapes = [
            (side, shape.link, np.asarray(shape_surface(shape, OUTLINE_SECTIONS).vertices))
            for side, hand in enumerate(bodies.hands)
            for shape in hand.primitives
        ]

    def at(self, grasp: LinkPoses) -> np.ndarray:
        """Returns the points (N, 3) of a grasp in the object's frame, m."""
        hands = [
            points @ grasp.rotation[side, link].T + grasp.translation[side, link] for side, link, points in self._shapes
        ]
        return np.concatenate([self._object, *hands])


class Quality(NamedTuple):
    """How finely a scene is drawn.

    Attributes:
        samples: for each pixel, against jagged edges.
        slices: of a round shape; stacks are two thirds of them.
        shadows: whether the key light casts them.
    """

    samples: int
    slices: int
    shadows: bool


FINE, QUICK, COARSE = Quality(8, 48, True), Quality(0, 24, True), Quality(0, 12, False)
"""For a picture, for thumbnails, and for pixels to be counted. Without a GPU, samples and triangles cost: a
480 x 360 picture of the built-in hands takes 350, 60 and 20 ms on one CPU thread."""


class SceneRenderer:
    """Renders the bodies of a scene from any side at one size."""

    def __init__(self, bodies: SceneBodies, width: int, height: int, quality: Quality):
        """Takes an OpenGL context.

        Args:
            bodies: hands and object.
            width: of the pictures, pixels.
            height: of the pictures, pixels.
            quality: of the pictures.
        """
        self.model = _build(bodies, width, height, quality)
        self.data = mujoco.MjData(self.model)
        self.renderer = mujoco.Renderer(self.model, height, width)
        self.renderer.scene.flags[mujoco.mjtRndFlag.mjRND_SHADOW] = quality.shadows

    def close(self) -> None:
        """Gives the OpenGL context back."""
        self.renderer.close()

    def pose(self, grasp: LinkPoses) -> None:
        """Puts the links where a grasp has them."""
        self.data.mocap_pos[:] = grasp.translation.reshape(-1, 3)
        for quaternion, rotation in zip(self.data.mocap_quat, grasp.rotation.reshape(-1, 9), strict=True):
            mujoco.mju_mat2Quat(quaternion, np.ascontiguousarray(rotation, np.float64))

    def colors(self, view: View) -> np.ndarray:
        """Returns the (height, width, 3) uint8 picture."""
        return self._seen(view)

    def parts(self, view: View) -> np.ndarray:
        """Returns the part that each pixel shows, LEFT, RIGHT or OBJECT, -1 for the background."""
        self.renderer.enable_segmentation_rendering()
        geoms = self._seen(view)[..., 0]
        self.renderer.disable_segmentation_rendering()
        return np.where(geoms >= 0, self.model.geom_group[geoms], -1)

    def depths(self, view: View) -> np.ndarray:
        """Returns the depth of each pixel along the view, m."""
        self.renderer.enable_depth_rendering()
        depth = self._seen(view)
        self.renderer.disable_depth_rendering()
        return depth

    def _seen(self, view: View) -> np.ndarray:
        """Returns what the renderer draws with camera and lights there."""
        camera = take_camera(self.model, view)
        mujoco.mj_forward(self.model, self.data)
        self.renderer.update_scene(self.data, camera)
        return self.renderer.render()


def take_camera(model: mujoco.MjModel, view: View) -> mujoco.MjvCamera:
    """Returns the camera of a view; takes the lights with it: the key to the upper left, the fill to the right."""
    camera = mujoco.MjvCamera()
    camera.azimuth, camera.elevation = view.azimuth, view.elevation
    camera.lookat[:], camera.distance = view.lookat, view.distance
    for name, _, _, place in LIGHTS:
        offset = np.array(place) @ view.axes
        light = model.light(name)
        light.pos[:], light.dir[:] = view.lookat + offset, -offset / np.linalg.norm(offset)
    return camera


def _build(bodies: SceneBodies, width: int, height: int, quality: Quality) -> mujoco.MjModel:
    """Returns the scene: a body for each link, moved from outside; a geom's group is the part it belongs to."""
    spec = mujoco.MjSpec()
    set_look(spec, width, height, quality)
    for part, color in enumerate(COLORS):
        spec.add_material(name=f"part {part}", rgba=color, specular=0.25, shininess=0.4)
    for side in (LEFT, RIGHT):
        hand = bodies.hands[side]
        links = [spec.worldbody.add_body(mocap=True) for _ in hand.link_names]
        for number, shape in enumerate(hand.primitives):
            add_shape(spec, links[shape.link], f"{side}/{number}", shape, shape.T_link_shape, **_of(side))
    add_mesh(spec, spec.worldbody, "object", bodies.vertices, bodies.faces, **_of(OBJECT))
    spec.stat.center = bodies.vertices.mean(axis=0)
    spec.stat.extent = 1.0  # m: hands and object together; clipping planes and shadows are multiples of it
    with quiet_mujoco():
        return spec.compile()


def set_look(spec: mujoco.MjSpec, width: int, height: int, quality: Quality) -> None:
    """Sets size, fineness, background, lens and lights; where the lights stand depends on the view."""
    look = spec.visual
    look.global_.offwidth, look.global_.offheight, look.quality.offsamples = width, height, quality.samples
    look.quality.shadowsize = min(SHADOW_SIZE, 4 * max(width, height))
    look.quality.numslices, look.quality.numstacks = quality.slices, 2 * quality.slices // 3
    look.global_.fovy = FIELD_OF_VIEW
    look.headlight.ambient, look.headlight.diffuse, look.headlight.specular = [0.44] * 3, [0.16] * 3, [0.0] * 3
    sky = spec.add_texture(name="sky", type=mujoco.mjtTexture.mjTEXTURE_SKYBOX, width=16, height=96)
    sky.builtin, sky.rgb1, sky.rgb2 = mujoco.mjtBuiltin.mjBUILTIN_FLAT, BACKGROUND, BACKGROUND
    for name, shadow, strength, _ in LIGHTS:
        light = spec.worldbody.add_light(name=name, castshadow=shadow, cutoff=30.0, exponent=0.0)
        light.diffuse, light.specular, light.ambient = [strength] * 3, [strength / 2] * 3, [0.0] * 3


def _of(part: int) -> dict[str, object]:
    """Returns what the geoms of a part have."""
    return {"material": f"part {part}", "group": part, **NO_CONTACT}


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
        return Picture(downsampled(self._big.colors(view)), view)

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


def downsampled(pixels: np.ndarray) -> np.ndarray:
    """Returns the (height, width, 3) uint8 picture of one that was drawn `OVERSAMPLING` times as large."""
    height, width, _ = pixels.shape
    blocks = pixels.reshape(height // OVERSAMPLING, OVERSAMPLING, width // OVERSAMPLING, OVERSAMPLING, 3)
    return blocks.mean(axis=(1, 3)).round().astype(np.uint8)


def encode(pixels: np.ndarray, kind: str, **options: object) -> bytes:
    """Returns (height, width, 3) uint8 pixels as a file of this kind, PNG or WEBP, with Pillow's options for it."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind, **options)
    return file.getvalue()
