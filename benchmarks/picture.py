"""Draws grasps from final files with the shapes that the optimizer uses, rendered by MuJoCo without a window.

    python benchmarks/picture.py final/mug.h5 [final/bowl.h5 ...] [--rows 3 7 ...] --out picture.png

draws a panel for each chosen grasp, side by side. Seen are the object's mesh and the collision shapes of both hands,
each at its pose, and nothing else: no visual meshes, no decoration. The right hand is the darker one. The camera of a
panel is the one of a ring around the object that sees most of both hands, the object and the contacts; +z is up.

Needs OpenGL; without a display, EGL (`MUJOCO_GL=egl`, the default here; Debian: libegl1 libgl1-mesa-dri).
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import NamedTuple

os.environ.setdefault("MUJOCO_GL", "egl")  # read when mujoco is first imported

import h5py
import numpy as np
import torch

import conf
from bimangrasp.builtin import OBJECT_ROOT
from bimangrasp.energy_terms import TERMS
from bimangrasp.errors import InputError
from bimangrasp.files.header import Header, read_header
from bimangrasp.hand_files.loading import load_hands
from bimangrasp.hands.model import HandModel
from bimangrasp.objects.model import read_mesh
from bimangrasp.visualization.renderer import (
    THOROUGH_SEARCH,
    BestViewRenderer,
    LinkPoses,
    SceneBodies,
    ViewSearch,
    encode,
)

COLUMNS = ("hand/rotation", "hand/translation", "hand/joints", "object_scale", "contact/candidate", "contact/point")
SAME_POINT = 1e-4  # m: single precision over a hand's length leaves far less between two ways to one contact


class PlacedGrasp(NamedTuple):
    """One grasp of a file in the object's frame, m.

    Attributes:
        source: file and row, as text.
        bodies: hands and object.
        poses: where the links are.
        energies: term -> value.
    """

    source: str
    bodies: SceneBodies
    poses: LinkPoses
    energies: dict[str, float]


class GraspRows(NamedTuple):
    """Rows of a final file as it has them: header, row numbers, columns and energies of these rows."""

    header: Header
    rows: list[int]
    columns: dict[str, torch.Tensor]
    energies: dict[str, np.ndarray]


def read_rows(path: Path, rows: list[int] | None, count: int) -> GraspRows:
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
        return GraspRows(read_header(file), chosen, columns, energies)


def grasps_of(path: Path, chosen: GraspRows, mesh: Path | None, settings: list[str]) -> list[PlacedGrasp]:
    """Returns the grasps with hands and object as the file's header names them.

    Raises:
        InputError: the hands or the mesh that were found are not those of the file.
    """
    header, columns = chosen.header, chosen.columns
    config = conf.load([f"hand={header.hand.name}", *settings]).hand
    hands = HandModel(*load_hands(config), surface_points=1)
    if hands.joint_names != header.hand.joint_names:
        raise InputError(f"{path} has joints {header.hand.joint_names}, hand={header.hand.name} {hands.joint_names}")
    solid = read_mesh(str(mesh or OBJECT_ROOT / f"{header.object_code}.obj"))
    if solid.sha256 != header.mesh_sha256:
        raise InputError(f"{path} was made with another mesh (sha256 {header.mesh_sha256}); name it with --mesh")
    frames = hands.frames_from_root(columns["hand/rotation"], columns["hand/translation"], columns["hand/joints"])
    contacts = hands.contact_points(frames, columns["contact/candidate"].long())
    if (contacts - columns["contact/point"]).abs().max() > SAME_POINT:
        raise InputError(f"{path}: hand={header.hand.name} does not have its contacts where the file has them")
    poses = frames.rotation.numpy(), frames.translation.numpy(), contacts.flatten(1, 2).numpy()
    return [
        PlacedGrasp(
            source=f"{path.name} row {row}",
            bodies=SceneBodies(hands.descriptions, solid.vertices * float(columns["object_scale"][i]), solid.faces),
            poses=LinkPoses(*(part[i] for part in poses)),
            energies={term: float(values[i]) for term, values in chosen.energies.items()},
        )
        for i, row in enumerate(chosen.rows)
    ]


def render(
    grasp: PlacedGrasp, width: int, height: int, search: ViewSearch = THOROUGH_SEARCH
) -> tuple[np.ndarray, np.ndarray]:
    """Returns the (height, width, 3) uint8 panel of a grasp, and the part that each of its pixels shows."""
    renderer = BestViewRenderer(grasp.bodies, width, height, search)
    picture = renderer.render(grasp.poses)
    parts = renderer.parts(picture.view)
    renderer.close()
    return picture.pixels, parts


def main(arguments: list[str] | None = None, search: ViewSearch = THOROUGH_SEARCH) -> int:
    """Draws the grasps of the command line, from the best of the views of `search`."""
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
    options = parser.parse_args(arguments)
    if options.rows and len(options.files) not in (1, len(options.rows)):
        parser.error(f"{len(options.rows)} rows for {len(options.files)} files: wanted one file, or a row for each")
    if options.mesh and len(options.mesh) != len(options.files):
        parser.error(f"{len(options.mesh)} meshes for {len(options.files)} files: wanted a mesh for each")
    grasps = []
    for i, path in enumerate(options.files):
        rows = options.rows if not options.rows or len(options.files) == 1 else options.rows[i : i + 1]
        mesh = options.mesh[i] if options.mesh else None
        grasps += grasps_of(path, read_rows(path, rows, options.count), mesh, options.settings)
    panels = []
    for grasp in grasps:
        panels.append(render(grasp, options.size[0] // len(grasps), options.size[1], search)[0])
        print(grasp.source, *(f"{term} {value:.4g}" for term, value in grasp.energies.items()), sep="  ", flush=True)
    options.out.write_bytes(encode(np.concatenate(panels, axis=1), "PNG", optimize=True))
    return 0


if __name__ == "__main__":
    sys.exit(main())
