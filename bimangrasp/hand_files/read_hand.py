"""Reads a hand from an MJCF or URDF file and its YAML, through MuJoCo."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import mujoco

from bimangrasp.errors import InputError
from bimangrasp.hand_files.config import HandConfig, find_mjcf
from bimangrasp.hand_files.kinematic_tree import hand_of
from bimangrasp.hand_files.tables import joint_mean, keypoints, place_candidates, unit_vector
from bimangrasp.hands.description import HandDescription

MESHES = (".stl", ".obj", ".msh")
"""Suffixes of the mesh files that MuJoCo reads."""

WANTED = "Wanted an MJCF that MuJoCo compiles on its own, or a URDF."

SMALLEST_MASS, SMALLEST_INERTIA = 1e-6, 1e-9
"""Mass, kg, and inertia, kg m2, of links of a URDF that have none: MuJoCo requires them, and nothing here uses them."""


def read_mjcf_hand(config: HandConfig) -> HandDescription:
    """Returns the hand of `config.mjcf`.

    `read_tree` and `read_primitives` define what is a link, a joint and a collision shape. Tendons, equalities and
    actuators of the file are ignored: every hinge moves independently.

    Raises:
        InputError: the file is missing, MuJoCo refuses it, it holds something that a hand cannot have, or the
            YAML names a link or joint that it does not have.
    """
    hand = read_bare_hand(config.mjcf)
    candidate_link, candidate_position = place_candidates(hand.primitives, hand.link_names, config.candidates)
    keypoint_link, keypoint_position = keypoints(config, hand.link_names)
    return replace(
        hand,
        side=config.side,
        joint_mean=joint_mean(config, hand.joint_names, hand.joint_lower, hand.joint_upper),
        candidate_link=candidate_link,
        candidate_position=candidate_position,
        keypoint_link=keypoint_link,
        keypoint_position=keypoint_position,
        palm_normal=unit_vector(config.palm_normal, "hand.palm_normal"),
        finger_direction=unit_vector(config.finger_direction, "hand.finger_direction"),
    )


def read_bare_hand(mjcf: str) -> HandDescription:
    """Returns tree and shapes of a file, as `hand_of` does.

    Raises:
        InputError: see `read_mjcf_hand`.
    """
    path = find_mjcf(mjcf)
    with quiet_mujoco():
        model = compile_hand(path)
    return hand_of(model, str(path))


@contextmanager
def quiet_mujoco() -> Iterator[None]:
    """Keeps MuJoCo from writing its warnings into MUJOCO_LOG.TXT in the current folder."""
    before = mujoco.get_mju_user_warning()
    mujoco.set_mju_user_warning(lambda message: None)  # noqa: ARG005 - a hand is only measured, never simulated here
    try:
        yield
    finally:
        mujoco.set_mju_user_warning(before)


def compile_hand(path: Path) -> mujoco.MjModel:
    """Returns the model of an MJCF or URDF file.

    A URDF is read without its visual meshes, with every link as a body, and with `package://` paths looked up in the
    folders above the file.

    Raises:
        InputError: no XML, a file that must be expanded first, a missing mesh, or MuJoCo refuses it.
    """
    root = _parsed(path)
    urdf = _prepared_urdf(root, path) if root.tag == "robot" else None
    try:
        spec = mujoco.MjSpec.from_string(urdf) if urdf else mujoco.MjSpec.from_file(str(path))
        return spec.compile()
    except ValueError as error:
        reason = str(error).strip().removeprefix("Error: ")
        is_file_missing = "opening file" in reason
        advice = (
            f"Put it there: paths are relative to {path.resolve().parent} and meshdir." if is_file_missing else WANTED
        )
        raise InputError(f"hand.mjcf={str(path)!r}: MuJoCo cannot read it: {reason}. {advice}") from error


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


def _prepared_urdf(root: ElementTree.Element, path: Path) -> str:
    """Returns the text of a URDF as MuJoCo can read it: absolute mesh paths, no visuals, only our settings."""
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
        root.remove(extension)  # its paths were relative to the original file
    compiler = ElementTree.SubElement(ElementTree.SubElement(root, "mujoco"), "compiler")
    settings = {"strippath": "false", "fusestatic": "false", "discardvisual": "false", "balanceinertia": "true"}
    masses = {"boundmass": str(SMALLEST_MASS), "boundinertia": str(SMALLEST_INERTIA)}
    compiler.attrib.update(settings | masses)
    return ElementTree.tostring(root, encoding="unicode")


def _mesh_file(name: str, urdf: Path) -> Path:
    """Returns the absolute path of a mesh that a URDF names.

    Raises:
        InputError: it is missing, or of a kind that MuJoCo does not read.
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
    if mesh.suffix.lower() not in MESHES:
        raise InputError(
            f"hand.mjcf={str(urdf)!r} names the collision mesh {name!r}; MuJoCo reads {', '.join(MESHES)}. Convert it, "
            "for instance trimesh.load(file, force='mesh').export('file.stl'), and change the path."
        )
    return mesh
