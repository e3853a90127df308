"""Finds the meshes in a folder by object code."""

from __future__ import annotations

from pathlib import Path

from bimangrasp.builtin import OBJECT_ROOT
from bimangrasp.errors import InputError

SUFFIXES = (".obj", ".stl", ".ply", ".glb", ".off")
SHOWN = 8
"""Codes in a message."""
DECOMPOSED = Path("coacd", "decomposed.obj")
"""Path of an object's mesh below the folder of its code, in DexGraspNet and BimanGrasp."""


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
