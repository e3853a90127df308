"""Prepares URDF files of hands for MuJoCo: finds their meshes, converts those that MuJoCo does not read."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree

import trimesh

from bimangrasp.errors import InputError

MESHES = (".stl", ".obj", ".msh")
"""Suffixes of the mesh files that MuJoCo reads."""

CONVERTED = (".glb", ".gltf", ".ply", ".off")
"""Suffixes of those that are converted: in meters, or without a unit of their own, as MuJoCo's are."""

SMALLEST_MASS, SMALLEST_INERTIA = 1e-6, 1e-9
"""Mass, kg, and inertia, kg m2, of links of a URDF that have none: MuJoCo requires them, and nothing here uses them."""


class PreparedUrdf(NamedTuple):
    """A URDF as MuJoCo reads it.

    Attributes:
        text: with absolute mesh paths, without visuals, with our settings alone.
        assets: name of a converted mesh in the text -> its contents.
    """

    text: str
    assets: dict[str, bytes]


def is_urdf(path: Path) -> bool:
    """Whether a file that can be read is a URDF."""
    return parsed_hand(path).tag == "robot"


def unread_mimics(path: Path) -> list[str]:
    """Returns a phrase for each joint of a URDF that mimics something else than a hinge, which MuJoCo leaves free."""
    root = parsed_hand(path)
    kinds = {joint.get("name"): joint.get("type") for joint in root.findall("joint")}
    mimics = [
        (joint, joint.find("mimic").get("joint")) for joint in root.findall("joint") if joint.find("mimic") is not None
    ]
    return [
        f"joint {joint.get('name')!r} mimics {leader!r}, which is no hinge of the file"
        for joint, leader in mimics
        if kinds.get(leader) not in ("revolute", "continuous")
    ]


def parsed_hand(path: Path) -> ElementTree.Element:
    """Returns the top element of the file."""
    try:
        root = ElementTree.parse(path).getroot()
    except (ElementTree.ParseError, UnicodeDecodeError) as error:
        raise InputError(
            f"hand.mjcf={str(path)!r}: MuJoCo cannot read it, it is no XML ({error}). Wanted an MJCF or a URDF."
        ) from error
    if root.tag == "mujocoinclude":
        raise InputError(f"hand.mjcf={str(path)!r} is a fragment for <include>; give the complete MJCF of one hand.")
    if root.tag not in ("mujoco", "robot"):
        raise InputError(
            f"hand.mjcf={str(path)!r} begins with <{root.tag}>; wanted an MJCF, which begins with <mujoco>, or a URDF, "
            "which begins with <robot>."
        )
    return root


def prepared_urdf(root: ElementTree.Element, path: Path) -> PreparedUrdf:
    """Returns a URDF as MuJoCo can read it.

    Raises:
        InputError: it must be expanded first, or a mesh is missing or cannot be converted.
    """
    macros = [element.tag for element in root.iter() if isinstance(element.tag, str) and "xacro" in element.tag]
    if macros:
        raise InputError(
            f"hand.mjcf={str(path)!r} has xacro macros; expand it first: xacro {path.name} > {path.stem}.urdf"
        )
    for link in root.iter("link"):
        for visual in link.findall("visual"):
            link.remove(visual)
    assets = {}
    for mesh in root.iter("mesh"):
        name = mesh.get("filename", "")
        file = _mesh_file(name, path)
        if file.suffix.lower() not in MESHES:
            file = Path(f"{file}.obj")
            if str(file) not in assets:
                assets[str(file)] = _as_obj(file.with_suffix(""), name, path)
        mesh.set("filename", str(file))
    for extension in root.findall("mujoco"):
        root.remove(extension)  # its paths were relative to the original file
    compiler = ElementTree.SubElement(ElementTree.SubElement(root, "mujoco"), "compiler")
    settings = {"strippath": "false", "fusestatic": "false", "discardvisual": "false", "balanceinertia": "true"}
    masses = {"boundmass": str(SMALLEST_MASS), "boundinertia": str(SMALLEST_INERTIA)}
    compiler.attrib.update(settings | masses)
    return PreparedUrdf(ElementTree.tostring(root, encoding="unicode"), assets)


def _as_obj(mesh: Path, name: str, urdf: Path) -> bytes:
    """Returns a mesh file of another kind as OBJ, all of its parts as one.

    Raises:
        InputError: it cannot be read.
    """
    if mesh.suffix.lower() not in CONVERTED:
        raise InputError(
            f"hand.mjcf={str(urdf)!r} names the collision mesh {name!r}; wanted {', '.join(MESHES + CONVERTED)}. "
            "Convert it, in meters, and change the path."
        )
    try:
        loaded = trimesh.load_mesh(str(mesh))
        if loaded.is_empty:
            raise ValueError("it has no triangles")
    except Exception as error:  # readers of files raise anything
        raise InputError(
            f"hand.mjcf={str(urdf)!r} names the collision mesh {name!r}, which cannot be read: "
            f"{type(error).__name__}: {error}. Convert it to STL or OBJ, and change the path."
        ) from error
    return loaded.export(file_type="obj").encode()


def _mesh_file(name: str, urdf: Path) -> Path:
    """Returns the absolute path of a mesh that a URDF names.

    Raises:
        InputError: it is missing.
    """
    relative = name.removeprefix("file://")
    if name.startswith("package://"):
        package, _, inside = name.removeprefix("package://").partition("/")
        folders = urdf.resolve().parents
        paths = [folder / part for folder in folders for part in (f"{package}/{inside}", inside)]
    else:
        paths = [urdf.resolve().parent / relative]
    mesh = next((file for file in paths if file.is_file()), None)
    if mesh is None:
        where = f"below {urdf.resolve().parent} or a folder above it" if "package://" in name else f"at {paths[0]}"
        raise InputError(
            f"hand.mjcf={str(urdf)!r} names the mesh {name!r}, which is not there (looked {where}). Put it there, or "
            "change the path in the file."
        )
    return mesh
