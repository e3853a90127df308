"""Draws how a grasp came about as a GIF: kept steps of a round, rendered by MuJoCo without a window."""

from __future__ import annotations

import io
import os

os.environ.setdefault("MUJOCO_GL", "egl")  # read when mujoco is first imported: draws without a display

import mujoco
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from bimangrasp.files.scene_export import SIDES, Placed, grasp_scene
from bimangrasp.grasp import LEFT, RIGHT
from bimangrasp.hands.description import HandDescription
from bimangrasp.objects.model import Mesh
from bimangrasp.trajectory import Trajectory

SIZE = 480  # pixels, of width and height
FRAME_MS, LAST_MS = 120, 2500  # how long a frame is seen, and the last one
FIELD_OF_VIEW = 30.0  # degrees, vertical
ELEVATION = -22.0  # degrees: the camera looks down a little
AIR = 0.01  # m around everything
GLIDE = 0.88  # the camera comes nearer by no more than this a frame, when the hands do
PAPER, INK = (0.96, 0.965, 0.975), (40, 44, 52)
COLORS = 160  # of the palette, that of the last frame: an equal background costs nothing in the frames between


def animation(trajectory: Trajectory, grasp: int, hands: tuple[HandDescription, HandDescription], mesh: Mesh) -> bytes:
    """Returns the GIF of one grasp of a trajectory. The camera looks across both hands and comes nearer as they do.

    Args:
        trajectory: of a round.
        grasp: which of the trajectory's grasps.
        hands: the left and the right one.
        mesh: of the object, in its own unit.
    """
    scene = _AnimatedScene(trajectory, grasp, hands, mesh)
    try:
        pictures = [scene.picture(frame) for frame in range(len(trajectory.step))]
    finally:
        scene.close()
    palette = pictures[-1].quantize(COLORS)
    drawn = [picture.quantize(palette=palette, dither=Image.Dither.NONE) for picture in pictures]
    file, times = io.BytesIO(), [FRAME_MS] * (len(drawn) - 1) + [LAST_MS]
    drawn[0].save(file, "GIF", save_all=True, append_images=drawn[1:], duration=times, loop=0)
    return file.getvalue()


class _AnimatedScene:
    """The scene of one grasp, whose hands are put where a frame has them."""

    def __init__(
        self, trajectory: Trajectory, grasp: int, hands: tuple[HandDescription, HandDescription], mesh: Mesh
    ) -> None:
        self._trajectory, self._grasp, self._hands = trajectory, grasp, hands
        self._vertices = mesh.vertices * float(trajectory.object_scale[grasp])
        self._model = _scene(Placed(hands, *self._pose(-1), self._vertices, mesh.faces))
        self._data = mujoco.MjData(self._model)
        self._renderer = mujoco.Renderer(self._model, SIZE, SIZE)
        self._camera, self._distances = self._framed()

    def close(self) -> None:
        """Gives the OpenGL context back."""
        self._renderer.close()

    def picture(self, frame: int) -> Image.Image:
        """Returns a frame as a picture with the step and the energy in its corner."""
        self._put(frame)
        self._camera.distance = self._distances[frame]
        self._renderer.update_scene(self._data, self._camera)
        picture = Image.fromarray(self._renderer.render())
        text = f"step {self._trajectory.step[frame]}   energy {self._trajectory.energy[frame, self._grasp]:.4g}"
        ImageDraw.Draw(picture).text((12, 10), text, INK, ImageFont.load_default(18))
        return picture

    def _pose(self, frame: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        columns = (self._trajectory.translation, self._trajectory.rotation, self._trajectory.joints)
        return tuple(column[frame, self._grasp].astype(np.float64) for column in columns)

    def _put(self, frame: int) -> None:
        """Moves both hands to where a frame has them."""
        translation, rotation, joints = self._pose(frame)
        for side in (LEFT, RIGHT):
            root = self._model.body(f"{SIDES[side]}/{self._hands[side].link_names[0]}").id
            self._model.body_pos[root] = translation[side]
            mujoco.mju_mat2Quat(self._model.body_quat[root], np.ascontiguousarray(rotation[side]).ravel())
        self._data.qpos[:] = joints.ravel()
        mujoco.mj_forward(self._model, self._data)

    def _framed(self) -> tuple[mujoco.MjvCamera, list[float]]:
        """Returns a camera before which the hands lie beside each other at the end, and its distance at each frame."""
        last = len(self._trajectory.step) - 1
        across = self._center("right", last) - self._center("left", last)
        azimuth = np.arctan2(across[1], across[0]) + np.pi / 2
        axes = _axes(azimuth, np.radians(ELEVATION))
        centers, radii = self._balls(last)
        seen = centers @ axes.T
        middle = ((seen - radii).min(axis=0) + (seen + radii).max(axis=0)) / 2
        distances = []
        for frame in range(last + 1):
            centers, radii = self._balls(frame)
            distances.append(_distance(centers @ axes.T - middle, radii))
        for frame in range(1, last + 1):
            distances[frame] = max(distances[frame], GLIDE * distances[frame - 1])
        camera = mujoco.MjvCamera()
        camera.azimuth, camera.elevation, camera.lookat[:] = np.degrees(azimuth), ELEVATION, middle @ axes
        self._model.light_dir[0] = np.array([0.5, -0.7, 1.0]) @ axes  # from the upper left, behind the camera
        self._model.light_pos[0] = -2.0 * self._model.light_dir[0]
        return camera, distances

    def _balls(self, frame: int) -> tuple[np.ndarray, np.ndarray]:
        """Returns what has to be in the picture of a frame as balls, (N, 3) and (N, 1): hands, and the object, m."""
        self._put(frame)
        is_hand = [not self._is_of("object", body) for body in self._model.geom_bodyid]
        centers = np.concatenate((self._data.geom_xpos[is_hand], self._vertices))
        radii = np.concatenate((self._model.geom_rbound[is_hand], np.zeros(len(self._vertices))))
        return centers, radii[:, None] + AIR

    def _center(self, side: str, frame: int) -> np.ndarray:
        """Returns the middle of a hand at a frame, m."""
        self._put(frame)
        return np.mean([self._data.body(i).xpos for i in range(self._model.nbody) if self._is_of(side, i)], axis=0)

    def _is_of(self, owner: str, body: int) -> bool:
        return self._model.body(body).name.partition("/")[0] == owner


def _axes(azimuth: float, elevation: float) -> np.ndarray:
    """Returns the directions right, up and forward of a camera as rows; angles in rad, as MuJoCo has them."""
    flat = np.array([np.cos(azimuth), np.sin(azimuth), 0.0])
    forward = np.cos(elevation) * flat + np.array([0.0, 0.0, np.sin(elevation)])
    right = np.cross(flat, [0.0, 0.0, 1.0])
    return np.stack((right, np.cross(right, forward), forward))


def _distance(centers: np.ndarray, radii: np.ndarray) -> float:
    """Returns how far from the middle a camera has to stand that sees all balls; right, up, forward of it, m."""
    half = np.radians(FIELD_OF_VIEW / 2)
    aside = np.abs(centers[:, :2]).max(axis=1) + radii[:, 0] / np.cos(half)
    return float((aside / np.tan(half) - centers[:, 2]).max())


def _scene(grasp: Placed) -> mujoco.MjModel:
    """Returns the grasp's bodies on light paper, lit from the camera and from above."""
    spec = grasp_scene(grasp)
    kind, builtin = mujoco.mjtTexture.mjTEXTURE_SKYBOX, mujoco.mjtBuiltin.mjBUILTIN_FLAT
    spec.add_texture(name="paper", type=kind, builtin=builtin, rgb1=PAPER, rgb2=PAPER, width=64, height=64)
    spec.visual.global_.fovy = FIELD_OF_VIEW
    spec.visual.global_.offwidth = spec.visual.global_.offheight = SIZE
    spec.visual.headlight.ambient, spec.visual.headlight.diffuse = (0.4,) * 3, (0.4,) * 3
    spec.visual.headlight.specular = (0.1,) * 3
    return spec.compile()
