"""Reads and writes BimanGrasp's result files, `.npy` with a list of dicts, one a grasp; converts their joint values.

Each dict has `qpos_left` and `qpos_right`, where the hands start as `qpos_left_st` and `qpos_right_st` (optional), the
object's `scale`, and energies under their names. A qpos has the hand's joints by name (`robot0:FFJ3`, ...), its root's
translation `WRJTx, WRJTy, WRJTz` (m) and its rotation `WRJRx, WRJRy, WRJRz` (rad, Euler angles in sxyz order), in the
object's frame. Of hands with couplings ours have `couplings`, which BimanGrasp's code does not read: hand -> rules.

Joint values are those of the release's hands (`hand=release`). They and the built-in Shadow hands have the same links,
joint axes and order of joints. The release puts `robot0:` before the names; and where our left hand mirrors the right
one at the same joint values, the release's has the right hand's axes, so that its joints have the other sign, but for
those about y.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int

from bimangrasp.errors import InputError
from bimangrasp.geometry.rotation import euler_to_matrix, matrix_to_euler
from bimangrasp.hands.model import HandModel
from bimangrasp.interop.restricted_pickle import as_number, load_object_array, object_image
from bimangrasp.objects.model import ObjectModel
from bimangrasp.poses import Poses

_TRANSLATION = ("WRJTx", "WRJTy", "WRJTz")
_ROTATION = ("WRJRx", "WRJRy", "WRJRz")
_HANDS = ("qpos_left", "qpos_right")
_STARTS = ("qpos_left_st", "qpos_right_st")
_SCALE = "scale"
_COUPLINGS = "couplings"

RELEASED_TERMS = {
    "energy": "total",
    "E_fc": "force_closure",
    "E_dis": "distance",
    "E_pen": "penetration",
    "E_spen": "self_penetration",
    "E_joints": "joint_limits",
}
"""The energies of BimanGrasp's files, and what ours are called; it has no key for the wrench volume."""

PREFIX = "robot0:"

_COUNTS = {"FF": 4, "MF": 4, "RF": 4, "LF": 5, "TH": 5}

SHADOW = tuple(f"{finger}J{number}" for finger, count in _COUNTS.items() for number in reversed(range(count)))

NAMED = 5
"""So many joints are named in a message."""

RELEASED = tuple(PREFIX + name for name in SHADOW)

ABOUT_Y = ("FFJ3", "MFJ3", "RFJ3", "LFJ3", "THJ1", "THJ0")


class ReleasedResults(NamedTuple):
    """The grasps of one result file, in its order; NaN where it has NaN.

    Attributes:
        poses: the grasps.
        starts: the poses from which they were optimized; None where the file has none.
        joint_names: of the joint axis, in the order of the file.
        scale: factor on the object's mesh.
        energies: name -> (N,) values.
        unread: keys of the file whose values are no numbers, which are left out.
        couplings: "left" and "right" -> which joints follow which, see `coupling_rules`; empty where all are free.
    """

    poses: Poses
    starts: Poses | None
    joint_names: tuple[str, ...]
    scale: Float[np.ndarray, " grasp"]
    energies: dict[str, Float[np.ndarray, " grasp"]]
    unread: tuple[str, ...] = ()
    couplings: dict[str, dict[str, Any]] = {}  # noqa: RUF012 - a default that nobody writes to


def read_results(path: str) -> ReleasedResults:
    """Returns the grasps of a result file of BimanGrasp, without running what it may contain.

    Raises:
        InputError: it is missing, cut off, harmful, no list of dicts, or its dicts lack a key or differ in their keys.
    """
    entries = load_object_array(path)
    for row, entry in enumerate(entries):
        _check_keys(path, row, entry, entries[0])
    first = entries[0] if entries else {}
    joint_names = _joint_names(entries)
    others = [key for key in first if key not in (*_HANDS, *_STARTS, _SCALE, _COUPLINGS)]
    energies = [key for key in others if isinstance(key, str) and as_number(first[key]) is not None]
    return ReleasedResults(
        _poses(path, entries, _HANDS, joint_names),
        _poses(path, entries, _STARTS, joint_names) if _STARTS[0] in first else None,
        joint_names,
        _column(path, entries, _SCALE),
        {key: _column(path, entries, key) for key in energies},
        tuple(str(key) for key in others if key not in energies),
    )


def no_grasps(path: Path) -> InputError:
    """Returns the refusal of a result file that has none."""
    return InputError(f"result file {path} has no grasps; wanted a list with a dict for each")


def results_image(results: ReleasedResults) -> bytes:
    """Returns a file that BimanGrasp's own code and `read_results` read: the inverse of it, but for `unread`."""
    entries = np.empty(results.poses.count, object)
    for row in range(len(entries)):
        entries[row] = _entry(results, row)
    return object_image(entries)


def _check_keys(path: str, row: int, entry: Any, first: Any) -> None:
    """Refuses a grasp that is no dict, lacks what every grasp has, or has other keys than the first one."""
    if not isinstance(entry, dict):
        raise InputError(f"result file {path}: grasp {row} is a {type(entry).__name__}; wanted a dict")
    starts = _STARTS if any(key in entry for key in _STARTS) else ()
    missing = [key for key in (*_HANDS, *starts, _SCALE) if key not in entry]
    if missing:
        raise InputError(
            f"result file {path}: grasp {row} lacks {', '.join(missing)}; it has {_listed(entry)}. Wanted the dicts "
            "that BimanGrasp writes, for both hands"
        )
    if entry.keys() != first.keys():
        differing = unlike([str(key)[:40] for key in entry], [str(key)[:40] for key in first])
        raise InputError(f"result file {path}: grasp {row} {differing}; wanted the keys of grasp 0")


def _joint_names(entries: Sequence[Mapping[str, Any]]) -> tuple[str, ...]:
    """Returns the joints that every qpos is to have: the release's where any has them, or those of the first."""
    given = (_joints_of(entry[key]) for entry in entries for key in _HANDS)
    first = _joints_of(entries[0][_HANDS[0]]) if entries else ()
    return next((names for names in given if set(names) == set(RELEASED)), first)


def _joints_of(qpos: Any) -> tuple[str, ...]:
    """Returns the names of a qpos that are joints, in its order; none where it is no dict, which is refused later."""
    names = [name for name in qpos if isinstance(name, str)] if isinstance(qpos, dict) else []
    return tuple(name for name in names if name not in (*_TRANSLATION, *_ROTATION))


def _poses(path: str, entries: Sequence[Mapping[str, Any]], keys: Sequence[str], joints: Sequence[str]) -> Poses:
    """Returns the poses under the keys of the left and the right hand."""
    names = (*_TRANSLATION, *_ROTATION, *joints)
    table = np.empty((len(entries), 2, len(names)))
    for row, entry in enumerate(entries):
        for hand, key in enumerate(keys):
            table[row, hand] = _values(path, f"grasp {row}, {key}", entry[key], names)
    return Poses(table[..., :3], euler_to_matrix(table[..., 3:6]), table[..., 6:])


def _values(path: str, where: str, qpos: Any, names: Sequence[str]) -> list[float]:
    """Returns the numbers of one qpos by these names; it must have them and no others."""
    if not isinstance(qpos, dict):
        raise InputError(f"result file {path}: {where} is a {type(qpos).__name__}; wanted a dict")
    if qpos.keys() != set(names):
        raise InputError(
            f"result file {path}: {where} {unlike([str(key)[:40] for key in qpos], names)}; wanted the same names for "
            f"both hands of every grasp, the root's {names[0]} to {_ROTATION[-1]} and the joints"
        )
    return [_number(path, f"{where}, {name}", qpos[name]) for name in names]


def _column(path: str, entries: Sequence[Mapping[str, Any]], key: str) -> np.ndarray:
    return np.array([_number(path, f"grasp {row}, {key}", entry[key]) for row, entry in enumerate(entries)], float)


def _number(path: str, where: str, value: Any) -> float:
    number = as_number(value)
    if number is None:
        raise InputError(f"result file {path}: {where} is a {type(value).__name__}; wanted a number")
    return number


def _listed(entry: Mapping[Any, Any]) -> str:
    return ", ".join(str(key)[:40] for key in entry) or "nothing"


def _entry(results: ReleasedResults, row: int) -> dict[str, Any]:
    """Returns one grasp as BimanGrasp's dict of plain numbers."""
    entry: dict[str, Any] = {_SCALE: float(results.scale[row])}
    for poses, keys in ((results.poses, _HANDS), (results.starts, _STARTS)):
        if poses is not None:
            entry |= {key: _qpos(poses, row, hand, results.joint_names) for hand, key in enumerate(keys)}
    if results.couplings:
        entry[_COUPLINGS] = results.couplings
    return entry | {name: float(values[row]) for name, values in results.energies.items()}


def _qpos(poses: Poses, row: int, hand: int, joints: Sequence[str]) -> dict[str, float]:
    angles = matrix_to_euler(poses.rotation[row, hand])
    parts = ((joints, poses.joints[row, hand]), (_ROTATION, angles), (_TRANSLATION, poses.translation[row, hand]))
    return {name: float(value) for names, values in parts for name, value in zip(names, values, strict=True)}


def left_signs(joint_names: Sequence[str]) -> Float[np.ndarray, " joint"]:
    """Returns by what a joint value of our left hand is multiplied to be one of the release's, and the other way."""
    return np.array([1.0 if name.removeprefix(PREFIX) in ABOUT_Y else -1.0 for name in joint_names])


def released_couplings(rules: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Returns the couplings of our Shadow hands as those of the release's, "left" and "right" -> rules.

    Args:
        rules: of our hands, see `coupling_rules`; those of the release's own hands are empty, as these have none.
    """
    signs = {"left": dict(zip(SHADOW, left_signs(SHADOW).tolist(), strict=True)), "right": dict.fromkeys(SHADOW, 1.0)}
    return {side: {_renamed(n): _signed(n, r, sign) for n, r in rules.items()} for side, sign in signs.items() if rules}


def _renamed(name: str) -> str:
    return PREFIX + name if name in SHADOW else name


def _signed(name: str, rule: Mapping[str, Any], sign: Mapping[str, float]) -> dict[str, Any]:
    """Returns the rule of a joint or tendon where joints have these signs."""
    signed: dict[str, Any] = {}
    if "tendon" in rule:
        signed["tendon"] = {_renamed(joint): c * sign[joint] for joint, c in rule["tendon"].items()}
    if "polynomial" in rule:
        own, leader = sign.get(name, 1.0), sign.get(rule["follows"], 1.0)
        polynomial = [own * c * leader**degree for degree, c in enumerate(rule["polynomial"])]
        signed |= {"follows": _renamed(rule["follows"]), "polynomial": polynomial}
    return signed


def to_released(poses: Poses, joint_names: tuple[str, ...], what: str) -> Poses:
    """Returns poses of our hands, or of the release's, as those of the release's, joints in the order of `RELEASED`.

    Args:
        poses: of either.
        joint_names: of their joint axis.
        what: where they are from, for the message.

    Raises:
        InputError: they are of other hands.
    """
    if set(joint_names) == set(RELEASED):
        return _ordered(poses, joint_names, RELEASED)
    if set(joint_names) == set(SHADOW):
        return _flipped(_ordered(poses, joint_names, SHADOW))
    raise InputError(
        f"{what} has the joints {', '.join(joint_names)}; BimanGrasp's format is for the Shadow hands alone, with the "
        f"joints {', '.join(SHADOW)}: format=npz takes any hand"
    )


def from_released(poses: Poses, joint_names: tuple[str, ...], wanted: tuple[str, ...], what: str) -> Poses:
    """Returns poses of the release's hands as those of the hands with the joints `wanted`: the release's, or ours.

    Raises:
        InputError: they are of other hands, or other hands are wanted.
    """
    if set(joint_names) != set(RELEASED):
        raise InputError(
            f"{what} has other joints than the hands of BimanGrasp's release: it {unlike(joint_names, RELEASED)}; "
            f"wanted the {len(RELEASED)} from {RELEASED[0]} to {RELEASED[-1]}"
        )
    if set(wanted) == set(RELEASED):
        return _ordered(poses, joint_names, wanted)
    if set(wanted) == set(SHADOW):
        return _ordered(_flipped(_ordered(poses, joint_names, RELEASED)), SHADOW, wanted)
    raise InputError(f"{what} is of the Shadow hands; wanted hand=shadow or hand=release, not one with {wanted[0]}")


def unlike(given: Sequence[str], wanted: Sequence[str]) -> str:
    """Returns which joints lack and which are not meant."""
    if not given:
        return "has none"
    lacking, others = ([name for name in a if name not in b] for a, b in ((wanted, given), (given, wanted)))
    lists = (("lacks", lacking), ("has", others))
    parts = [f"{verb} {', '.join(names[:NAMED])}{_more(names)}" for verb, names in lists if names]
    return " and ".join(parts)


def _more(names: Sequence[str]) -> str:
    return f" and {len(names) - NAMED} more" if len(names) > NAMED else ""


def _ordered(poses: Poses, names: tuple[str, ...], wanted: tuple[str, ...]) -> Poses:
    return poses._replace(joints=poses.joints[:, :, [names.index(name) for name in wanted]])


def _flipped(poses: Poses) -> Poses:
    """Returns poses with the other convention for the left hand, joints in the order of `SHADOW`."""
    signs = np.stack((left_signs(SHADOW), np.ones(len(SHADOW)))).astype(poses.joints.dtype)
    return poses._replace(joints=poses.joints * signs)


_ROWS = 1024
"""Grasps that are looked at together: a table of all links and candidates takes 60 KB for each."""


def nearest_contacts(
    hands: HandModel, obj: ObjectModel, poses: Poses, object_scale: Float[np.ndarray, " grasp"], count: int
) -> tuple[Int[np.ndarray, "grasp 2 contact"], Float[np.ndarray, "grasp 2 contact 3"]]:
    """Returns for each hand its `count` candidates nearest to the surface, no two on one link, and the normals there.

    Args:
        hands: both hands, on the CPU.
        obj: the object.
        poses: the grasps.
        object_scale: factor on the object's mesh.
        count: contacts of a hand, at most as many as links have candidates.
    """
    rows = [slice(first, first + _ROWS) for first in range(0, max(1, poses.count), _ROWS)]
    parts = [_nearest(hands, obj, poses.select(some), object_scale[some], count) for some in rows]
    candidate, normal = (np.concatenate(column) for column in zip(*parts, strict=True))
    return candidate, normal


def _nearest(
    hands: HandModel, obj: ObjectModel, poses: Poses, object_scale: np.ndarray, count: int
) -> tuple[np.ndarray, np.ndarray]:
    """Returns the same for grasps that are looked at together."""
    translation, rotation, joints = (torch.as_tensor(part).double() for part in poses)
    scale = torch.as_tensor(object_scale).double()
    every = torch.arange(hands.candidate_count).expand(poses.count, 2, -1)
    points = hands.contact_points(hands.frames_from_root(rotation, translation, joints), every)
    distance, normal = obj.signed_distance(points.flatten(1, 2), scale)
    away, normal = distance.abs().view(points.shape[:3]), normal.view(points.shape)
    links = torch.unique(hands.candidate_link)
    on_link = hands.candidate_link[None, :, None] == links[:, None]
    best = torch.where(on_link, away[:, :, None], torch.inf).min(dim=3)
    nearest = best.values.argsort(dim=2)[:, :, :count]
    candidate = best.indices.gather(2, nearest)
    return candidate.numpy(), normal.gather(2, candidate[..., None].expand(-1, -1, -1, 3)).numpy()
