"""Reads both hands from an unchanged `mjcf/` folder of the BimanGrasp release."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import mujoco
import numpy as np
import trimesh

from bimangrasp.errors import InputError
from bimangrasp.hand_files.config import HandConfig
from bimangrasp.hand_files.read_hand import hand_of, quiet_mujoco
from bimangrasp.hand_files.tables import by_link, check_names, joint_mean, with_tables
from bimangrasp.hands.description import HandDescription, Primitive, mirror_direction

_HAND = "{side}_shadow_hand.xml"
_CANDIDATES = "{side}_hand_contact_points.json"
_KEYPOINTS = "penetration_points.json"
_BOX = "meshes/box.obj"  # a rounded cube of half extent 1; the release puts it in place of every box
_COLLISION_CLASS = "robot0:DC_Hand"
_KEPT = {"body", "inertial", "joint", "geom"}
_LINK_SUFFIX = "_child"  # the release's tables speak of "<body>_child", the frame behind the body's joint


def read_release_hands(config: HandConfig) -> tuple[HandDescription, HandDescription]:
    """Returns the left and the right hand of the release's folder `config.root`.

    As in the release, the left hand is bent by negative joint values, its limits are the right hand's negated
    and swapped for every joint (wrong for the thumb's last), and its thumb candidates are not mirrored.

    Raises:
        InputError: the folder or a file of it is missing or is not what the release has.
    """
    root = _folder(config.root)
    right, left = (_read_side(config, root, side) for side in ("right", "left"))
    if left.joint_names != right.joint_names:
        raise InputError(
            f"the left hand's joints are {left.joint_names}, the right hand's {right.joint_names}; wanted the same."
        )
    mean = joint_mean(config, right.joint_names, right.joint_lower, right.joint_upper)
    turns_about_y = np.abs(left.joint_axis[:, 1]) > 0.5
    left = replace(
        left,
        joint_lower=0.0 - right.joint_upper,
        joint_upper=0.0 - right.joint_lower,
        joint_mean=np.where(turns_about_y, mean, 0.0 - mean),
        palm_normal=mirror_direction(left.palm_normal),
        finger_direction=mirror_direction(left.finger_direction),
    )
    return left, replace(right, joint_mean=mean)


def _folder(root: str) -> Path:
    """Returns the folder, which must hold every file that is read."""
    names = [name.format(side=side) for side in ("left", "right") for name in (_HAND, _CANDIDATES)]
    names += [_KEYPOINTS, _BOX]
    missing = [name for name in names if not root or not (Path(root) / name).is_file()]
    if missing:
        raise InputError(
            f"hand.root={root!r} lacks {', '.join(missing)}; hand=release wants the folder mjcf/ of the "
            "BimanGrasp release: set hand.root=<its path>."
        )
    return Path(root)


def _read_side(config: HandConfig, root: Path, side: str) -> HandDescription:
    """Returns one hand with the tables of the folder, boxes replaced by the release's rounded box."""
    path = root / _HAND.format(side=side)
    try:
        with quiet_mujoco():
            model = mujoco.MjSpec.from_string(_reduced(path)).compile()
    except (ValueError, ElementTree.ParseError) as error:
        raise InputError(f"{path}: not the hand of the BimanGrasp release: {str(error).strip()}.") from error
    hand = hand_of(model, str(path))
    names = (_CANDIDATES.format(side=side), _KEYPOINTS)
    tables = [_read_table(root / name, hand.link_names) for name in names]
    primitives = _with_round_boxes(hand.primitives, root / _BOX)
    return replace(with_tables(hand, config, *tables), side=side, primitives=primitives)


def _reduced(path: Path) -> str:
    """Returns the MJCF reduced to what MuJoCo needs for kinematics and collision shapes.

    The file as it is has an unknown attribute, a mesh folder that is not there, and actuators on joints that
    do not exist.
    """
    document = ElementTree.parse(path).getroot()
    model = ElementTree.Element("mujoco")
    compiler = document.find("compiler")
    angle = {} if compiler is None else {"angle": compiler.get("angle", "degree")}
    ElementTree.SubElement(model, "compiler", angle)
    model.extend(document.findall("default"))
    model.extend(document.findall("worldbody"))
    for element in model.iter():
        element.attrib.pop("material", None)
        element.attrib.pop("user", None)
    for element in [*model.iter("worldbody"), *model.iter("body")]:
        for child in [child for child in element if not _is_kept(child)]:
            element.remove(child)
    return ElementTree.tostring(model, encoding="unicode")


def _is_kept(element: ElementTree.Element) -> bool:
    """Whether a child of a body stays: 1 mm marker boxes have no collision class and go, as do sites."""
    return element.tag in _KEPT and (element.tag != "geom" or element.get("class") == _COLLISION_CLASS)


def _with_round_boxes(shapes: Sequence[Primitive], path: Path) -> tuple[Primitive, ...]:
    """Returns the shapes with all boxes of a link as one mesh in the link's frame."""
    box = trimesh.load(path, process=False, force="mesh")
    if not len(box.faces):
        raise InputError(f"{path} has no faces; wanted the rounded cube of the release.")
    boxes: dict[int, list[Primitive]] = {}
    for shape in shapes:
        if shape.shape == "box":
            boxes.setdefault(shape.link, []).append(shape)
    meshes = [_box_mesh(link, of_link, box) for link, of_link in boxes.items()]
    others = [shape for shape in shapes if shape.shape != "box"]
    return tuple(sorted([*meshes, *others], key=lambda shape: shape.link))


def _box_mesh(link: int, boxes: Sequence[Primitive], box: trimesh.Trimesh) -> Primitive:
    corners = [
        (box.vertices * shape.size) @ shape.T_link_shape[:3, :3].T + shape.T_link_shape[:3, 3] for shape in boxes
    ]
    vertices, faces = trimesh.util.append_faces(corners, [box.faces] * len(boxes))
    return Primitive(link, "mesh", np.eye(4), np.zeros(3), vertices, faces.astype(np.int64))


def _read_table(path: Path, link_names: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Returns links (K,) and points (K, 3) of a JSON file {link: [] or point or list of points}, in its order."""
    try:
        rows = json.loads(path.read_text(encoding="utf-8"))
        named = {name.removesuffix(_LINK_SUFFIX): _points(value) for name, value in rows.items()}
    except (ValueError, AttributeError, TypeError) as error:
        raise InputError(f"{path}: not a table of points by link: {error}.") from error
    check_names(named, link_names, str(path))
    links, position = by_link(named, link_names)
    if not len(position) or not np.isfinite(position).all():
        raise InputError(f"{path} has {len(position)} points; wanted some, all finite numbers, as in the release.")
    return links, position


def _points(value: list) -> np.ndarray:
    return np.array(value, np.float64).reshape(-1, 3)
