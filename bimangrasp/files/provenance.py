"""Checks that hands and meshes are those that the grasps of a file were made with."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np

from bimangrasp.errors import InputError
from bimangrasp.files.header import HandTable, Header
from bimangrasp.hands.description import HandDescription, pair_sha256
from bimangrasp.objects.files import mesh_of
from bimangrasp.objects.model import Mesh, read_mesh

CANDIDATE_TOLERANCE = 1e-5
"""Candidates of one hand may differ by this, m: libraries round differently from machine to machine."""


class MadeWith(NamedTuple):
    """What a grasp file says that its grasps were made with.

    Attributes:
        path: the file.
        hand_name, hand_sha256: the pair of hands.
        object_code, mesh_sha256: the object.
    """

    path: Path | str
    hand_name: str
    hand_sha256: str
    object_code: str
    mesh_sha256: str


def made_with(path: Path | str, header: Header) -> MadeWith:
    """Returns what a file's header says that its grasps were made with."""
    return MadeWith(path, header.hand.name, header.hand.sha256, header.object_code, header.mesh_sha256)


def check_hands(file: MadeWith, hands: tuple[HandDescription, HandDescription], name: str = "") -> None:
    """Refuses hands that differ in anything from those of a file.

    Args:
        file: what it says of itself.
        hands: the left and the right one that are given.
        name: of the pair, as `hand=` names it; empty where a caller from Python gives them.

    Raises:
        InputError: they are other ones.
    """
    sha256 = pair_sha256(*hands)
    if sha256 == file.hand_sha256:
        return
    given = f"this call has hand={name} with" if name else "those given have"
    remedy = f"name the hands of the file: hand={file.hand_name}"
    if name == file.hand_name:
        remedy = "use the MJCF and the YAML that the file was made with"
    raise InputError(
        f"{file.path} has grasps of the hands {file.hand_name!r} with sha256 {file.hand_sha256[:16]}..., {given} "
        f"{sha256[:16]}...; {remedy}. In Python load_hands(conf.load(['hand={file.hand_name}']).hand) gives a pair"
    )


def check_hand_table(path: Path | str, theirs: HandTable, ours: HandTable) -> None:
    """Refuses hands that differ from those of a file by more than rounding: in name, joints or contact candidates.

    Args:
        path: the file.
        theirs: the hands of the file.
        ours: those that are given.

    Raises:
        InputError: they are other ones.
    """
    if theirs.name != ours.name or theirs.joint_names != ours.joint_names:
        raise InputError(
            f"{path} has grasps of the hand {theirs.name!r} with {len(theirs.joint_names)} joints, this call has "
            f"hand={ours.name} with {len(ours.joint_names)}; name the hand of the file"
        )
    has_same_links = np.array_equal(theirs.candidate_link, ours.candidate_link)
    positions = theirs.candidate_position, ours.candidate_position
    if not has_same_links or not np.allclose(*positions, rtol=0, atol=CANDIDATE_TOLERANCE, equal_nan=True):
        raise InputError(
            f"{path} was made with other contact candidates of the hand {theirs.name!r} than hand={ours.name} has "
            "now; use the MJCF and the YAML that it was made with"
        )


def mesh_named(path: Path | str, code: str, object_root: Path | str) -> Mesh:
    """Returns the mesh of the object that a file names; whether it was made with that one the file may not say.

    Raises:
        InputError: the folder has none of that name, several, or one that cannot be read.
    """
    try:
        return read_mesh(str(mesh_of(object_root, code)))
    except InputError as error:
        raise InputError(f"{path} has no usable mesh: {error}") from error


def mesh_made_with(file: MadeWith, object_root: Path | str) -> Mesh:
    """Returns the mesh of a file's object.

    Raises:
        InputError: the folder has none, several, or another one than the file was made with.
    """
    mesh = mesh_named(file.path, file.object_code, object_root)
    if mesh.sha256 != file.mesh_sha256:
        raise InputError(
            f"{file.path} was made with another mesh of {file.object_code!r} (sha256 {file.mesh_sha256[:16]}...) than "
            f"object_root has ({mesh.sha256[:16]}...); set object_root to the folder it was made with"
        )
    return mesh
