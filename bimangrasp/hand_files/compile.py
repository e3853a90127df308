"""The file of a hand, MJCF or URDF, as a compiled MuJoCo model."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

import mujoco

from bimangrasp.errors import InputError

MESHES = (".stl", ".obj", ".msh")
"""Kinds of mesh files that MuJoCo reads."""

WANTED = "Wanted an MJCF that MuJoCo compiles on its own, or a URDF."

SMALLEST_MASS, SMALLEST_INERTIA = 1e-6, 1e-9
"""kg and kg m2 of a URDF's links that have none: MuJoCo wants some, and a hand is only measured here."""


def compile_hand(path: Path) -> mujoco.MjModel:
    """Returns the model of an MJCF or URDF file.

    Of a URDF the visual meshes are left out, every link stays a body, and `package://` paths are looked up in the
    folders above the file.

    Raises:
        InputError: no XML, a file that must be expanded first, a mesh that is not there, or MuJoCo refuses it.
    """
    root = _parsed(path)
    urdf = _as_mujoco_takes_it(root, path) if root.tag == "robot" else None
    try:
        spec = mujoco.MjSpec.from_string(urdf) if urdf else mujoco.MjSpec.from_file(str(path))
        return spec.compile()
    except ValueError as error:
        said = str(error).strip().removeprefix("Error: ")
        missing = "opening file" in said
        advice = f"Put it there: paths are relative to {path.resolve().parent} and meshdir." if missing else WANTED
        raise InputError(f"hand.mjcf={str(path)!r}: MuJoCo cannot read it: {said}. {advice}") from error


def is_urdf(path: Path) -> bool:
    """Whether a file that can be read is a URDF."""
    return _parsed(path).tag == "robot"


def _parsed(path: Path) -> ElementTree.Element:
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


def _as_mujoco_takes_it(root: ElementTree.Element, path: Path) -> str:
    """Returns the text of a URDF with absolute paths of meshes, without what is only seen."""
    macros = [element.tag for element in root.iter() if isinstance(element.tag, str) and "xacro" in element.tag]
    if macros:
        raise InputError(
            f"hand.mjcf={str(path)!r} has xacro macros; expand it first: xacro {path.name} > {path.stem}.urdf"
        )
    for link in root.iter("link"):
        for visual in link.findall("visual"):
            link.remove(visual)
    for mesh in root.iter("mesh"):
        mesh.set("filename", str(_mesh_file(mesh.get("filename", ""), path)))
    for extension in root.findall("mujoco"):
        root.remove(extension)  # its paths are for the file as it was
    compiler = ElementTree.SubElement(ElementTree.SubElement(root, "mujoco"), "compiler")
    settings = {"strippath": "false", "fusestatic": "false", "discardvisual": "false", "balanceinertia": "true"}
    masses = {"boundmass": str(SMALLEST_MASS), "boundinertia": str(SMALLEST_INERTIA)}
    compiler.attrib.update(settings | masses)
    return ElementTree.tostring(root, encoding="unicode")


def _mesh_file(name: str, urdf: Path) -> Path:
    """Returns the absolute path of a mesh that a URDF names.

    Raises:
        InputError: it is not there, or of a kind that MuJoCo does not read.
    """
    asked = name.removeprefix("file://")
    if name.startswith("package://"):
        package, _, inside = name.removeprefix("package://").partition("/")
        above = urdf.resolve().parents
        tried = [folder / part for folder in above for part in (f"{package}/{inside}", inside)]
    else:
        tried = [urdf.resolve().parent / asked]
    found = next((file for file in tried if file.is_file()), None)
    if found is None:
        where = f"below {urdf.resolve().parent} or a folder above it" if "package://" in name else f"at {tried[0]}"
        raise InputError(
            f"hand.mjcf={str(urdf)!r} names the mesh {name!r}, which is not there (looked {where}). Put it there, or "
            "change the path in the file."
        )
    if found.suffix.lower() not in MESHES:
        raise InputError(
            f"hand.mjcf={str(urdf)!r} names the collision mesh {name!r}; MuJoCo reads {', '.join(MESHES)}. Convert it, "
            "for instance trimesh.load(file, force='mesh').export('file.stl'), and change the path."
        )
    return found
