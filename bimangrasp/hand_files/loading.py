"""Loads the pair of hands that a config describes: from a file, from one for each, or as BimanGrasp released it."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import mujoco
import numpy as np
import trimesh

from bimangrasp.errors import InputError
from bimangrasp.hand_files.config import HandConfig
from bimangrasp.hand_files.couplings import placed_on_couplings
from bimangrasp.hand_files.read_hand import hand_of, quiet_mujoco, read_bare_hand, read_mjcf_hand
from bimangrasp.hand_files.tables import by_link, check_names, joint_mean, place_candidates, unit_vector, with_tables
from bimangrasp.hands.description import (
    HandDescription,
    Primitive,
    frames_at,
    mirror,
    path_from_root,
    points_of_links,
)

SIDE = re.compile(r"(?<![a-z])(left|right|lh|rh|l|r)(?![a-z])[_:./-]*", re.IGNORECASE)
"""Marks of the side in names of links and joints, which are dropped before names of two hands are compared."""

MAX_JOINT_OFFSET = 0.005
"""Largest distance of a joint from the mirror image of the right hand's, m."""

MIN_AXIS_COSINE = 0.98
"""Least cosine of a joint's axis with the mirror image of the right hand's: 11 degrees."""

_HAND = "{side}_shadow_hand.xml"

_CANDIDATES = "{side}_hand_contact_points.json"

_KEYPOINTS = "penetration_points.json"

_BOX = "meshes/box.obj"  # a rounded cube of half extent 1; the release puts it in place of every box

_COLLISION_CLASS = "robot0:DC_Hand"

_KEPT = {"body", "inertial", "joint", "geom"}

_LINK_SUFFIX = "_child"  # the release's tables speak of "<body>_child", the frame behind the body's joint


def load_hands(config: HandConfig) -> tuple[HandDescription, HandDescription]:
    """Returns the left and the right hand.

    Raises:
        InputError: a value of the config or a file that it names cannot be used.
    """
    _check(config)
    pair = _pair(config)
    for hand in pair:
        _check_squeeze(hand, config.name)
    return pair


def _pair(config: HandConfig) -> tuple[HandDescription, HandDescription]:
    if config.format == "bimangrasp":
        return read_release_hands(config)
    hand = read_mjcf_hand(config)
    if config.side == "left":
        return hand, mirror(hand)
    if config.left_mjcf:
        return read_left_hand(hand, config), hand
    return mirror(hand), hand


def _check_squeeze(hand: HandDescription, name: str) -> None:
    """Refuses a hand none of whose joints can move a contact candidate: it holds nothing."""
    free = set(hand.joint_link[hand.joint_upper > hand.joint_lower].tolist())
    touching = sorted(set(hand.candidate_link.tolist()))
    if any(free.intersection(path_from_root(hand, link)) for link in touching):
        return
    names, fixed = ", ".join(hand.link_names[link] for link in touching), len(hand.joint_names) - len(free)
    raise InputError(
        f"hand {name!r} cannot squeeze: its contact candidates are on {names}, and no joint of its {hand.side} hand "
        f"moves these ({fixed} of {len(hand.joint_names)} joints have equal limits); wanted candidates on fingers "
        "whose joints have a range (hand.candidates.palmar, and the ranges in the hand's file)"
    )


def _check(config: HandConfig) -> None:
    """Refuses values that contradict each other, and those that only `mode=hand` may leave out."""
    if not config.side:
        raise InputError(f"hand.side={config.side!r}; wanted right or left: which hand is in {config.mjcf!r}?")
    if config.side == "left" and config.left_mjcf:
        raise InputError("hand.left_mjcf goes with hand.side=right: hand.mjcf is then the right hand's file")
    palm = unit_vector(config.palm_normal, "hand.palm_normal")
    fingers = unit_vector(config.finger_direction, "hand.finger_direction")
    if abs(palm @ fingers) > 1e-3:
        raise InputError(
            f"hand.palm_normal={list(config.palm_normal)} and hand.finger_direction="
            f"{list(config.finger_direction)} are not perpendicular; fingers are stretched along the palm."
        )
    if config.format != "mjcf":
        if config.couplings:
            raise InputError(
                f"hand.couplings={list(config.couplings)} goes with hand.format=mjcf; hands of BimanGrasp's release "
                "have 22 free joints: hand=shadow_coupled has the couplings of the real hand"
            )
        return
    if config.candidates.per_link < 1:
        raise InputError(f"hand.candidates.per_link={config.candidates.per_link}; wanted at least 1.")
    if not config.candidates.palmar:
        raise InputError("hand.candidates.palmar is empty; name each link that may touch and its palmar direction.")


def read_left_hand(right: HandDescription, config: HandConfig) -> HandDescription:
    """Returns the hand of `hand.left_mjcf` as the twin of the right one, in the frame of its own root.

    It has the right hand's names, order and directions of joints: where a joint of the file turns against the right
    hand's mirror image, its axis and limits are reversed, so that equal values bend both hands alike. So its couplings
    are the right hand's. Candidates are placed on its own shapes, by the rule for the right hand.

    Raises:
        InputError: the file has other links or joints, or its hand is not close to the mirror image.
    """
    left = _reordered(right, read_bare_hand(config.left_mjcf), config.left_mjcf)
    reflection, shift = _reflection(right, left, config.left_mjcf)
    left = _with_aligned_axes(right, left, reflection, config.left_mjcf)
    frames_right, frames_left = _frames_at_zero(right), _frames_at_zero(left)
    # entry [l] takes directions in the frame of the right hand's link l to the frame of the left hand's
    turns = np.swapaxes(frames_left[:, :3, :3], 1, 2) @ reflection @ frames_right[:, :3, :3]
    names = list(right.link_names)
    palmar = {
        name: (turns[names.index(name)] @ np.array(direction)).tolist()
        for name, direction in config.candidates.palmar.items()
    }
    links, positions = place_candidates(left.primitives, names, replace(config.candidates, palmar=palmar))
    keypoints = points_of_links(frames_right, right.keypoint_link, right.keypoint_position) @ reflection.T + shift
    T_link_hand = np.linalg.inv(frames_left)
    left, source = replace(left, couplings=right.couplings), f"hand.left_mjcf={config.left_mjcf!r}"
    return replace(
        left,
        side="left",
        joint_mean=placed_on_couplings(left, np.clip(right.joint_mean, left.joint_lower, left.joint_upper), source),
        candidate_link=links,
        candidate_position=positions,
        keypoint_link=right.keypoint_link,
        keypoint_position=points_of_links(T_link_hand, right.keypoint_link, keypoints),
        palm_normal=reflection @ right.palm_normal,
        finger_direction=reflection @ right.finger_direction,
    )


def _reordered(right: HandDescription, left: HandDescription, source: str) -> HandDescription:
    """Returns the left hand with links and joints in the right one's order, and with its names."""
    links = _order(right.link_names, left.link_names, "links", source)
    joints = _order(right.joint_names, left.joint_names, "joints", source)
    new_index = np.argsort(links)
    parent = np.array([-1 if left.parent[old] < 0 else new_index[left.parent[old]] for old in links])
    joint_link = new_index[left.joint_link[joints]]
    if not (np.array_equal(parent, right.parent) and np.array_equal(joint_link, right.joint_link)):
        raise InputError(f"hand.left_mjcf={source!r}: its links hang together in another way than the right hand's")
    shapes = [replace(shape, link=int(new_index[shape.link])) for shape in left.primitives]
    return replace(
        left,
        link_names=right.link_names,
        parent=parent,
        T_parent_link=left.T_parent_link[links],
        joint_names=right.joint_names,
        joint_link=joint_link,
        joint_axis=left.joint_axis[joints],
        joint_lower=left.joint_lower[joints],
        joint_upper=left.joint_upper[joints],
        primitives=tuple(sorted(shapes, key=lambda shape: shape.link)),
    )


def _order(right: Sequence[str], left: Sequence[str], kind: str, source: str) -> np.ndarray:
    """Returns for each of the right hand's names its counterpart's index in the left hand: by name, or by order."""
    if len(right) != len(left):
        raise InputError(
            f"hand.left_mjcf={source!r} has {len(left)} {kind}, the right hand {len(right)}; wanted the same hand for "
            "the other side. Leave hand.left_mjcf out for the mirror image"
        )
    plain = [[SIDE.sub("", name) for name in names] for names in (right, left)]
    if sorted(plain[0]) == sorted(plain[1]) and len(set(plain[0])) == len(right):
        return np.array([plain[1].index(name) for name in plain[0]])
    return np.arange(len(right))


def _reflection(right: HandDescription, left: HandDescription, source: str) -> tuple[np.ndarray, np.ndarray]:
    """Returns matrix and shift that take the right hand's joint origins, joints at 0, to the left hand's."""
    origins = [_frames_at_zero(hand)[hand.joint_link, :3, 3] for hand in (right, left)]
    middles = [points.mean(axis=0) for points in origins]
    # orthogonal Procrustes problem for reflections: the last singular direction gets the sign that makes det = -1
    u, _, vt = np.linalg.svd((origins[1] - middles[1]).T @ (origins[0] - middles[0]))
    reflection = u @ np.diag([1.0, 1.0, -np.linalg.det(u @ vt)]) @ vt
    shift = middles[1] - reflection @ middles[0]
    offset = np.linalg.norm(origins[0] @ reflection.T + shift - origins[1], axis=1)
    if offset.max() > MAX_JOINT_OFFSET:
        raise InputError(
            f"hand.left_mjcf={source!r} is no mirror image of the right hand: with all joints at 0 its joint "
            f"{right.joint_names[int(offset.argmax())]!r} is {1000 * offset.max():.0f} mm off. Two right hands? "
            "Leave hand.left_mjcf out for the mirror image"
        )
    return reflection, shift


def _with_aligned_axes(
    right: HandDescription, left: HandDescription, reflection: np.ndarray, source: str
) -> HandDescription:
    """Returns the left hand with the axes reversed of joints that turn against the right hand's mirror image."""
    axes = [
        np.einsum("jik,jk->ji", _frames_at_zero(hand)[hand.joint_link, :3, :3], hand.joint_axis)
        for hand in (right, left)
    ]
    cosine = np.einsum("ji,ji->j", -axes[0] @ reflection.T, axes[1])  # a rotation vector mirrors with the other sign
    if (np.abs(cosine) < MIN_AXIS_COSINE).any():
        worst = int(np.argmin(np.abs(cosine)))
        raise InputError(
            f"hand.left_mjcf={source!r}: joint {right.joint_names[worst]!r} turns about another axis than the mirror "
            "image of the right hand's. Leave hand.left_mjcf out for the mirror image"
        )
    turned = cosine < 0
    return replace(
        left,
        joint_axis=np.where(turned[:, None], -left.joint_axis, left.joint_axis),
        joint_lower=np.where(turned, -left.joint_upper, left.joint_lower),
        joint_upper=np.where(turned, -left.joint_lower, left.joint_upper),
    )


def _frames_at_zero(hand: HandDescription) -> np.ndarray:
    """Returns the (L, 4, 4) poses of the links in the hand's frame with all joints at 0."""
    return frames_at(hand, np.zeros(len(hand.joint_names)))


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
    mean = joint_mean(config, right)
    turns_about_y = np.abs(left.joint_axis[:, 1]) > 0.5
    twin = mirror(left)
    left = replace(
        left,
        joint_lower=0.0 - right.joint_upper,
        joint_upper=0.0 - right.joint_lower,
        joint_mean=np.where(turns_about_y, mean, 0.0 - mean),
        palm_normal=twin.palm_normal,
        finger_direction=twin.finger_direction,
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
    meshes = [shape for shape in shapes if shape.shape != "box"]
    for link in {shape.link for shape in shapes if shape.shape == "box"}:
        corners = [
            (box.vertices * shape.size) @ shape.T_link_shape[:3, :3].T + shape.T_link_shape[:3, 3]
            for shape in shapes
            if shape.shape == "box" and shape.link == link
        ]
        vertices, faces = trimesh.util.append_faces(corners, [box.faces] * len(corners))
        meshes.insert(0, Primitive(link, "mesh", np.eye(4), np.zeros(3), vertices, faces.astype(np.int64)))
    return tuple(sorted(meshes, key=lambda shape: shape.link))


def _read_table(path: Path, link_names: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Returns links (K,) and points (K, 3) of a JSON file {link: [] or point or list of points}, in its order."""
    try:
        rows = json.loads(path.read_text(encoding="utf-8"))
        named = {name.removesuffix(_LINK_SUFFIX): np.array(value, float).reshape(-1, 3) for name, value in rows.items()}
    except (ValueError, AttributeError, TypeError) as error:
        raise InputError(f"{path}: not a table of points by link: {error}.") from error
    check_names(named, link_names, str(path))
    links, position = by_link(named, link_names)
    if not len(position) or not np.isfinite(position).all():
        raise InputError(f"{path} has {len(position)} points; wanted some, all finite numbers, as in the release.")
    return links, position
