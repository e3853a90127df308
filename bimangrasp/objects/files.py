"""Finds the meshes in a folder by object code, describes them, and refuses sizes that two hands cannot hold."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import NamedTuple

import numpy as np

from bimangrasp.builtin import OBJECT_ROOT
from bimangrasp.errors import InputError
from bimangrasp.objects.config import ObjectConfig

SUFFIXES = (".obj", ".stl", ".ply", ".glb", ".off")
SHOWN = 8
"""Codes in a message."""

DECOMPOSED = Path("coacd", "decomposed.obj")
"""Path of an object's mesh below the folder of its code, in DexGraspNet and BimanGrasp."""

PIECE_FILES = "coacd_convex_piece_*.obj"
"""Names of the files with convex pieces (DexGraspNet)."""

RECORD = "prepared.json"
"""Name of the file beside a mesh with the source of a prepared object, how it was moved, and the hashes of its files.
It is written last and marks the object complete."""

SMALLEST_SIZE, LARGEST_SIZE = 0.03, 0.8
"""Sizes of an object that two Shadow hands (0.2 m long) can hold, m: its diagonal is at least the smallest size, its
largest extent along an axis at most the largest size."""

ROUNDING = 1e-9
"""Relative tolerance of the largest size, so that object.sizes=[0.8] passes."""


def root_of(object_root: Path | str) -> Path:
    """Returns the folder of meshes; for an empty text, that of the built-in objects."""
    return Path(object_root).absolute() if object_root else OBJECT_ROOT


def meshes_below(root: Path) -> dict[str, list[Path]]:
    """Returns code -> its meshes below the root; hidden names are left out.

    Raises:
        InputError: the root is no folder, or cannot be read.
    """
    if not root.is_dir():
        raise InputError(
            f"object_root={str(root)!r} is no folder: wanted one with <code>/{DECOMPOSED} or <code>.obj, or "
            f"empty for the built-in objects"
        )
    try:
        items = list(root.iterdir())
    except OSError as error:
        raise InputError(f"object_root={str(root)!r} cannot be read ({error}); wanted a readable folder") from error
    meshes: dict[str, list[Path]] = {}
    for item in items:
        if item.name.startswith("."):
            continue
        if item.suffix.lower() in SUFFIXES and item.is_file():
            meshes.setdefault(item.stem, []).append(item)
        elif (item / DECOMPOSED).is_file():
            meshes.setdefault(item.name, []).append(item / DECOMPOSED)
    return meshes


def mesh_of(object_root: Path | str, code: str) -> Path:
    """Returns the mesh of one object.

    Raises:
        InputError: there is no mesh, or several.
    """
    root = root_of(object_root)
    meshes = meshes_below(root)
    meshes_of_code = meshes.get(code, [])
    if len(meshes_of_code) != 1:
        others = ", ".join(map(repr, sorted(meshes)[:SHOWN])) + (", ..." if len(meshes) > SHOWN else "")
        raise InputError(
            f"object {code!r} has {len(meshes_of_code)} meshes in {root}, which has those of {others or 'no object'}; "
            f"wanted one, as <code>/{DECOMPOSED} or as <code>{'|'.join(SUFFIXES)}: set object_root to the folder that "
            "the grasps were made with"
        )
    return meshes_of_code[0]


def piece_files_of(mesh: Path) -> list[Path]:
    """Returns the files with the convex pieces of a mesh, by name: in its own folder, else in `<folder>/<its name>`."""
    return sorted(mesh.parent.glob(PIECE_FILES)) or sorted(mesh.with_suffix("").glob(PIECE_FILES))


def is_prepared(mesh: Path) -> bool:
    """Whether a mesh and the pieces beside it are those of a prepared object, by the hashes in its record."""
    try:
        hashes = json.loads((mesh.parent / RECORD).read_text(encoding="utf-8"))["files"]
        names = {mesh.name, *(path.name for path in piece_files_of(mesh))}
        return hashes == {name: hashlib.sha256((mesh.parent / name).read_bytes()).hexdigest() for name in names}
    except (OSError, ValueError, LookupError, TypeError):  # no record, or one that says nothing
        return False


class MeshReport(NamedTuple):
    """What a run needs to know of a mesh file before it starts.

    Attributes:
        sha256: of the file.
        vertices, faces: counts.
        sign: see `Mesh`.
        low, high: corners of the bounding box, unit scale, m.
        diameter: length of the bounding box's diagonal, unit scale, m.
    """

    sha256: str
    vertices: int
    faces: int
    sign: str
    low: tuple[float, float, float]
    high: tuple[float, float, float]
    diameter: float

    @property
    def extent(self) -> float:
        """Largest extent along the axes, unit scale, m."""
        return max(high - low for low, high in zip(self.low, self.high, strict=True))


def object_scales(config: ObjectConfig, extent: float) -> list[float]:
    """Returns the factors on a mesh of which each grasp draws one.

    Args:
        config: `scales`, or `sizes` in their place.
        extent: largest extent of the unit mesh along its axes, m.
    """
    return config.scales if config.sizes is None else [size / extent for size in config.sizes]


def check_size(report: MeshReport, config: ObjectConfig, code: str) -> None:
    """Refuses an object that two hands cannot hold at its sizes, or whose origin lies far from it.

    Raises:
        InputError: naming the object, its size and what to do.
    """
    scales = object_scales(config, report.extent)
    if report.diameter * min(scales) < SMALLEST_SIZE or report.extent * max(scales) > LARGEST_SIZE * (1 + ROUNDING):
        sizes = " to ".join(f"{report.extent * scale:.4g}" for scale in (min(scales), max(scales)))
        setting = f"object.scales={config.scales}" if config.sizes is None else f"object.sizes={config.sizes}"
        raise InputError(
            f"object {code!r} is {sizes} m across (mesh {report.extent:.4g} m, {setting}); two hands hold "
            f"{SMALLEST_SIZE} to {LARGEST_SIZE} m: is the mesh in millimeters? Rescale the mesh (mode=objects) or set "
            "object.scales or object.sizes"
        )
    low, high = np.array(report.low), np.array(report.high)
    margin = (high - low).max() / 2
    if (low > margin).any() or (high < -margin).any():
        raise InputError(
            f"object {code!r} lies at {low.round(4).tolist()} to {high.round(4).tolist()}, far from its origin, about "
            "which hands are placed; mode=objects centers meshes"
        )
