"""A picture of grasps from final files: what the optimiser computed with, rendered by MuJoCo without a window.

    python benchmarks/picture.py final/mug.h5 [final/bowl.h5 ...] [--rows 3 7 ...] --out picture.png

draws a panel for each chosen grasp, side by side. Seen are the object's mesh and the collision shapes of both hands,
each at its pose, and nothing else: no visual meshes, no decoration. The right hand is the darker one. The camera of a
panel is the one of a ring around the object that sees most of both hands, the object and the contacts; +z is up.

Needs OpenGL; without a display, EGL (`MUJOCO_GL=egl`, the default here; Debian: libegl1 libgl1-mesa-dri).
"""

from __future__ import annotations

import argparse
import os
import struct
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

os.environ.setdefault("MUJOCO_GL", "egl")  # read when mujoco is first imported

import h5py
import mujoco
import numpy as np
import torch

import conf
from bimangrasp.builtin import OBJECT_ROOT
from bimangrasp.errors import InputError
from bimangrasp.grasp import LEFT, RIGHT
from bimangrasp.grasp_fields import TERMS
from bimangrasp.grasp_file import Header, read_header
from bimangrasp.hand_description import Primitive
from bimangrasp.hand_model import HandModel
from bimangrasp.hands import load_hands
from bimangrasp.mjcf_hand import quiet_mujoco
from bimangrasp.object_model import read_mesh

OBJECT = 2
COLOURS = {LEFT: (0.93, 0.79, 0.62), RIGHT: (0.84, 0.56, 0.40), OBJECT: (0.30, 0.60, 0.76)}
BACKGROUND = (0.955, 0.96, 0.97)
AZIMUTHS, ELEVATIONS = range(0, 360, 20), (-8, -20, -32, -45)  # degrees; below 0 the camera looks down
FIELD_OF_VIEW = 24.0  # degrees, vertical: that of a long lens
FILL = 0.94  # share of the panel's width or height that the grasp takes
OVERSAMPLING = 2
SEARCH_HEIGHT = 120  # pixels of the renders among which a camera is chosen
CONTACT_SEEN = 0.008  # m: what lies before a contact that is seen is at most the half of a finger that touches there
COLUMNS = ("hand/rotation", "hand/translation", "hand/joints", "object_scale", "contact/candidate", "contact/point")
SAME_POINT = 1e-4  # m: single precision over a hand's length leaves far less between two ways to one contact


class Shown(NamedTuple):
    """One grasp of a file in the object's frame, m.

    Attributes:
        source: file and row, as text.
        rotation, translation: (hand, link, 3, 3) and (hand, link, 3) poses of the links.
        primitives: the collision shapes of the left and the right hand.
        vertices, faces: the object at the grasp's size.
        contacts: (contact, 3) points of both hands.
        surface: (point, 3) points on both hands.
        energies: term -> value.
    """

    source: str
    rotation: np.ndarray
    translation: np.ndarray
    primitives: tuple[tuple[Primitive, ...], tuple[Primitive, ...]]
    vertices: np.ndarray
    faces: np.ndarray
    contacts: np.ndarray
    surface: np.ndarray
    energies: dict[str, float]


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


class Chosen(NamedTuple):
    """Rows of a final file as it has them: header, row numbers, columns and energies of these rows."""

    header: Header
    rows: list[int]
    columns: dict[str, torch.Tensor]
    energies: dict[str, np.ndarray]


def read_rows(path: Path, rows: list[int] | None, count: int) -> Chosen:
    """Returns these rows of a final file, or the `count` of lowest total energy.

    Raises:
        InputError: a row that is not there.
    """
    with h5py.File(path, "r") as file:
        total = file["energy/total"][...]
        chosen = np.argsort(total)[:count].tolist() if rows is None else rows
        if not all(0 <= row < len(total) for row in chosen):
            raise InputError(f"--rows {chosen}: {path} has rows 0 to {len(total) - 1}; choose among these")
        columns = {name: torch.as_tensor(file[name][...][chosen]) for name in COLUMNS}
        energies = {term: file[f"energy/{term}"][...][chosen] for term in TERMS}
        return Chosen(read_header(file), chosen, columns, energies)


def grasps_of(path: Path, chosen: Chosen, mesh: Path | None, settings: list[str]) -> list[Shown]:
    """Returns the grasps with hands and object as the file's header names them.

    Raises:
        InputError: the hands or the mesh that were found are not those of the file.
    """
    header, columns = chosen.header, chosen.columns
    config = conf.load([f"hand={header.hand.name}", *settings]).hand
    hands = HandModel(*load_hands(config), config.surface_points)
    if hands.joint_names != header.hand.joint_names:
        raise InputError(f"{path} has joints {header.hand.joint_names}, hand={header.hand.name} {hands.joint_names}")
    solid = read_mesh(str(mesh or OBJECT_ROOT / f"{header.object_code}.obj"))
    if solid.sha256 != header.mesh_sha256:
        raise InputError(f"{path} was made with another mesh (sha256 {header.mesh_sha256}); name it with --mesh")
    frames = hands.frames_from_root(columns["hand/rotation"], columns["hand/translation"], columns["hand/joints"])
    contacts = hands.contact_points(frames, columns["contact/candidate"].long())
    if (contacts - columns["contact/point"]).abs().max() > SAME_POINT:
        raise InputError(f"{path}: hand={header.hand.name} does not have its contacts where the file has them")
    surface = torch.cat([hands.surface_points(frames, side) for side in (LEFT, RIGHT)], dim=1)
    left, right = hands.descriptions
    return [
        Shown(
            source=f"{path.name} row {row}",
            rotation=frames.rotation[i].numpy(),
            translation=frames.translation[i].numpy(),
            primitives=(left.primitives, right.primitives),
            vertices=solid.vertices * float(columns["object_scale"][i]),
            faces=solid.faces,
            contacts=contacts[i].reshape(-1, 3).numpy(),
            surface=surface[i].numpy(),
            energies={term: float(values[i]) for term, values in chosen.energies.items()},
        )
        for i, row in enumerate(chosen.rows)
    ]


def build(grasp: Shown) -> mujoco.MjModel:
    """Returns the scene of a grasp; a geom's group is the part it belongs to: LEFT, RIGHT or OBJECT."""
    spec = mujoco.MjSpec()
    _set_look(spec)
    for side in (LEFT, RIGHT):
        for shape in grasp.primitives[side]:
            T_object_link = np.eye(4)
            T_object_link[:3, :3] = grasp.rotation[side, shape.link]
            T_object_link[:3, 3] = grasp.translation[side, shape.link]
            _add_shape(spec, side, shape, T_object_link @ shape.T_link_shape)
    _add_mesh(spec, OBJECT, grasp.vertices, grasp.faces, np.eye(4))
    points = np.concatenate((grasp.vertices, grasp.surface))
    spec.stat.center, spec.stat.extent = points.mean(axis=0), float(np.ptp(points, axis=0).max())
    with quiet_mujoco():
        return spec.compile()


def _set_look(spec: mujoco.MjSpec) -> None:
    """Sets background, colours, lens and lights; where the lights stand depends on the view."""
    look = spec.visual
    look.global_.fovy = FIELD_OF_VIEW
    look.quality.shadowsize = 4096
    look.quality.numslices, look.quality.numstacks = 48, 32
    look.headlight.ambient, look.headlight.diffuse, look.headlight.specular = [0.44] * 3, [0.16] * 3, [0.0] * 3
    sky = spec.add_texture(name="sky", type=mujoco.mjtTexture.mjTEXTURE_SKYBOX, width=16, height=96)
    sky.builtin, sky.rgb1, sky.rgb2 = mujoco.mjtBuiltin.mjBUILTIN_FLAT, BACKGROUND, BACKGROUND
    for part, colour in COLOURS.items():
        spec.add_material(name=f"part {part}", rgba=[*colour, 1.0], specular=0.25, shininess=0.4)
    for name, shadow, strength in (("key", True, 0.42), ("fill", False, 0.18)):
        light = spec.worldbody.add_light(name=name, castshadow=shadow, cutoff=30.0, exponent=0.0)
        light.diffuse, light.specular, light.ambient = [strength] * 3, [strength / 2] * 3, [0.0] * 3


def _add_shape(spec: mujoco.MjSpec, part: int, shape: Primitive, T_object_shape: np.ndarray) -> None:
    """Adds one collision shape of a hand."""
    if shape.shape == "mesh":
        _add_mesh(spec, part, shape.vertices, shape.faces, T_object_shape)
        return
    kind = getattr(mujoco.mjtGeom, f"mjGEOM_{shape.shape.upper()}")
    size = shape.size
    if shape.shape == "capsule" and size[1] == 0:
        kind = mujoco.mjtGeom.mjGEOM_SPHERE
    _add_geom(spec, part, T_object_shape, type=kind, size=size)


def _add_mesh(spec: mujoco.MjSpec, part: int, vertices: np.ndarray, faces: np.ndarray, pose: np.ndarray) -> None:
    """Adds a triangle mesh; as a shell, since its volume does not matter and may not be closed."""
    name = f"mesh {len(spec.meshes)}"
    shell = mujoco.mjtMeshInertia.mjMESH_INERTIA_SHELL
    spec.add_mesh(name=name, uservert=vertices.ravel(), userface=faces.ravel(), inertia=shell)
    _add_geom(spec, part, pose, type=mujoco.mjtGeom.mjGEOM_MESH, meshname=name)


def _add_geom(spec: mujoco.MjSpec, part: int, pose: np.ndarray, **what: object) -> None:
    """Adds a geom of a part at its pose in the object's frame."""
    quaternion = np.zeros(4)
    mujoco.mju_mat2Quat(quaternion, np.ascontiguousarray(pose[:3, :3], np.float64).ravel())
    geom = spec.worldbody.add_geom(pos=pose[:3, 3], quat=quaternion, material=f"part {part}", group=part, **what)
    geom.contype = geom.conaffinity = 0


def camera_axes(azimuth: float, elevation: float) -> np.ndarray:
    """Returns rows right, up, forward of MuJoCo's free camera, world z upward."""
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
    """Returns the view from this side in which the points fill a panel of this width over height, centred."""
    view = View(azimuth, elevation, points.mean(axis=0), 1.0)
    room = 2 * FILL * np.tan(np.radians(FIELD_OF_VIEW / 2)) * np.array([aspect, 1.0])
    for _ in range(20):  # shrinks the error by about ten each time
        tangents, _ = project(view, points)
        low, high = tangents.min(axis=0), tangents.max(axis=0)
        shift = (low + high) / 2 * view.distance @ view.axes[:2]
        distance = view.distance * float(((high - low) / room).max())
        view = view._replace(lookat=view.lookat + shift, distance=distance)
    return view


class Stage:
    """A scene that is rendered from several sides at one size."""

    def __init__(self, model: mujoco.MjModel, width: int, height: int, samples: int):
        look = model.vis
        look.global_.offwidth, look.global_.offheight, look.quality.offsamples = width, height, samples
        self.model, self.data = model, mujoco.MjData(model)
        self.renderer = mujoco.Renderer(model, height, width)

    def close(self) -> None:
        """Gives the OpenGL context back."""
        self.renderer.close()

    def colours(self, view: View) -> np.ndarray:
        """Returns the (height, width, 3) uint8 picture."""
        self._look(view)
        return self.renderer.render()

    def parts(self, view: View) -> np.ndarray:
        """Returns the part that each pixel shows, -1 for the background."""
        self.renderer.enable_segmentation_rendering()
        self._look(view)
        geoms = self.renderer.render()[..., 0]
        self.renderer.disable_segmentation_rendering()
        return np.where(geoms >= 0, self.model.geom_group[geoms], -1)

    def depths(self, view: View) -> np.ndarray:
        """Returns the depth of each pixel along the view, m."""
        self.renderer.enable_depth_rendering()
        self._look(view)
        depth = self.renderer.render()
        self.renderer.disable_depth_rendering()
        return depth

    def _look(self, view: View) -> None:
        """Takes the camera there, and the lights with it: the key from the upper left, the fill from the right."""
        camera = mujoco.MjvCamera()
        camera.azimuth, camera.elevation = view.azimuth, view.elevation
        camera.lookat[:], camera.distance = view.lookat, view.distance
        for name, place in (("key", (-0.9, 1.5, -1.3)), ("fill", (1.4, 0.1, -1.0))):
            offset = np.array(place) @ view.axes
            light = self.model.light(name)
            light.pos[:], light.dir[:] = view.lookat + offset, -offset / np.linalg.norm(offset)
        mujoco.mj_forward(self.model, self.data)
        self.renderer.update_scene(self.data, camera)


def contacts_seen(stage: Stage, view: View, contacts: np.ndarray) -> float:
    """Returns the share of contacts with little before them."""
    depths = stage.depths(view)
    height, width = depths.shape
    tangents, depth = project(view, contacts)
    pixels = tangents * height / (2 * np.tan(np.radians(FIELD_OF_VIEW / 2)))
    column = np.clip(width / 2 + pixels[:, 0], 0, width - 1).astype(int)
    row = np.clip(height / 2 - pixels[:, 1], 0, height - 1).astype(int)
    return float((depths[row, column] > depth - CONTACT_SEEN).mean())


def best_view(model: mujoco.MjModel, grasp: Shown, aspect: float) -> View:
    """Returns the view with most of the lesser seen hand and of the object, weighted by the contacts seen."""
    stage = Stage(model, round(SEARCH_HEIGHT * aspect), SEARCH_HEIGHT, samples=0)
    stage.renderer.scene.flags[mujoco.mjtRndFlag.mjRND_SHADOW] = False  # nothing of it is in parts and depths
    points = np.concatenate((grasp.vertices, grasp.surface))

    def worth(view: View) -> float:
        shares = np.bincount(stage.parts(view).ravel() + 1, minlength=4)[1:] / (SEARCH_HEIGHT**2 * aspect)
        hands = min(shares[LEFT], shares[RIGHT])
        return float(np.sqrt(hands * shares[OBJECT])) * (0.5 + contacts_seen(stage, view, grasp.contacts))

    views = [frame_tightly(points, a, e, aspect) for a in AZIMUTHS for e in ELEVATIONS]
    best = max(views, key=worth)
    stage.close()
    return best


def render(grasp: Shown, width: int, height: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns the (height, width, 3) uint8 panel of a grasp, and the part that each of its pixels shows."""
    big = OVERSAMPLING * width, OVERSAMPLING * height
    model = build(grasp)
    view = best_view(model, grasp, width / height)
    stage = Stage(model, *big, samples=8)
    picture, parts = stage.colours(view), stage.parts(view)
    stage.close()
    blocks = picture.reshape(height, OVERSAMPLING, width, OVERSAMPLING, 3)
    return blocks.mean(axis=(1, 3)).round().astype(np.uint8), parts[::OVERSAMPLING, ::OVERSAMPLING]


def png(picture: np.ndarray) -> bytes:
    """Returns a (height, width, 3) uint8 picture as a PNG file; each row takes the filter that leaves least."""
    height, width, _ = picture.shape
    here = picture.astype(np.int16)
    left = np.pad(here, ((0, 0), (1, 0), (0, 0)))[:, :-1]
    above = np.pad(here, ((1, 0), (0, 0), (0, 0)))[:-1]
    corner = np.pad(here, ((1, 0), (1, 0), (0, 0)))[:-1, :-1]
    guess = left + above - corner
    off = [np.abs(guess - other) for other in (left, above, corner)]
    nearest = np.where((off[0] <= off[1]) & (off[0] <= off[2]), left, np.where(off[1] <= off[2], above, corner))
    guesses = np.stack([np.zeros_like(here), left, above, (left + above) // 2, nearest])
    residues = ((here - guesses) % 256).astype(np.uint8).reshape(5, height, -1)
    chosen = np.abs(residues.view(np.int8).astype(np.int16)).sum(axis=2).argmin(axis=0)
    rows = residues[chosen, np.arange(height)]
    data = zlib.compress(np.concatenate((chosen[:, None].astype(np.uint8), rows), axis=1).tobytes(), 9)
    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + b"".join(_chunks((b"IHDR", head), (b"IDAT", data), (b"IEND", b"")))


def _chunks(*pieces: tuple[bytes, bytes]) -> Iterator[bytes]:
    for kind, data in pieces:
        yield struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def main(arguments: list[str] | None = None) -> int:
    """Draws the grasps of the command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("files", type=Path, nargs="+", help="final files")
    parser.add_argument(
        "--rows", type=int, nargs="+", help="a row for each file, or several of one file; else the best"
    )
    parser.add_argument("--count", type=int, default=1, help="without --rows: how many of the best of each file")
    parser.add_argument("--out", type=Path, required=True, help="the PNG")
    parser.add_argument("--mesh", type=Path, nargs="+", help="a mesh for each file; else the built-in object")
    parser.add_argument("--settings", nargs="*", default=[], help="of the hand, such as hand.root=FOLDER")
    parser.add_argument("--size", type=int, nargs=2, default=[1600, 500], help="width and height in pixels")
    asked = parser.parse_args(arguments)
    if asked.rows and len(asked.files) not in (1, len(asked.rows)):
        parser.error(f"{len(asked.rows)} rows for {len(asked.files)} files: wanted one file, or a row for each")
    if asked.mesh and len(asked.mesh) != len(asked.files):
        parser.error(f"{len(asked.mesh)} meshes for {len(asked.files)} files: wanted a mesh for each")
    grasps = []
    for i, path in enumerate(asked.files):
        rows = asked.rows if not asked.rows or len(asked.files) == 1 else asked.rows[i : i + 1]
        mesh = asked.mesh[i] if asked.mesh else None
        grasps += grasps_of(path, read_rows(path, rows, asked.count), mesh, asked.settings)
    panels = []
    for grasp in grasps:
        panels.append(render(grasp, asked.size[0] // len(grasps), asked.size[1])[0])
        print(grasp.source, *(f"{term} {value:.4g}" for term, value in grasp.energies.items()), sep="  ", flush=True)
    asked.out.write_bytes(png(np.concatenate(panels, axis=1)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
