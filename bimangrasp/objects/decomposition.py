"""Decomposes a mesh into convex pieces with CoACD, and with other settings of it where it fails."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from bimangrasp.builtin import install_command
from bimangrasp.errors import InputError
from bimangrasp.geometry.triangle_mesh import outer_surface
from bimangrasp.objects.config import PiecesConfig
from bimangrasp.objects.mesh_repair import bodies_of, split_bodies
from bimangrasp.objects.model import Mesh, is_closed, volume_of
from bimangrasp.objects.pieces import Pieces
from bimangrasp.objects.pieces_fit import measured_pieces

DECOMPOSED = "decomposed"
"""Source of pieces from CoACD."""

DECOMPOSE_TIMEOUT_S = 3600.0
"""CoACD is stopped after this time, s; scanned objects take seconds to minutes."""

SHOWN_LETTERS = 160
"""Last letters of what CoACD said, in a message: its assertions are longer."""

_NOT_FOR_COACD = ("convex_tolerance", "cover_tolerance", "largest_distance", "smallest_volume")


def decomposed(mesh: str, body: Mesh, config: PiecesConfig) -> Pieces:
    """Returns CoACD's pieces of a mesh, computed by one thread.

    Where CoACD fails, or its pieces are far from the mesh, the settings of `fallbacks` are tried in their order.

    Args:
        mesh: what messages call the mesh.
        body: the mesh; with an empty sign one that does not tell inside from outside, such as a sheet.
        config: tolerances, and CoACD's settings.

    Raises:
        InputError: CoACD is not installed, takes too long, or cannot decompose the mesh with any of the settings.
    """
    if not can_decompose():
        raise InputError(
            f"mesh {mesh} is not convex and has no coacd_convex_piece_<k>.obj beside it; to decompose it, "
            f"{install_command('objects')}"
        )
    solid = _joined(body)
    failures: dict[str, str] = {}
    if config.preprocess_mode == "auto":
        config = replace(config, preprocess_mode="off" if body.sign else "on")
    for name, settings in fallbacks(config):
        result = _attempt(mesh, body, solid, settings)
        if isinstance(result, Pieces):
            return result._replace(fallback=name)
        failures.setdefault(result, name or "the settings as they are")
    reasons = "; ".join(f"with {name}, {reason}" for reason, name in failures.items())
    raise InputError(
        f"mesh {mesh} cannot be decomposed: {reasons}; repair the mesh, or lay coacd_convex_piece_<k>.obj beside it"
    )


def can_decompose() -> bool:
    """Whether CoACD is installed."""
    return find_spec("coacd") is not None


def fallbacks(config: PiecesConfig) -> Iterator[tuple[str, PiecesConfig]]:
    """Yields the settings to try in turn, each with the name of what is changed: first the ones that are asked for.

    The seed may avoid a cut that ends in an assertion. Remeshing takes any mesh, but makes it thicker: by about half
    a cell, of which `preprocess_resolution` are as long as half the mesh.
    """
    yield "", config
    resolution = config.preprocess_resolution
    changes: tuple[dict[str, Any], ...] = (
        {"seed": config.seed + 1},
        {"preprocess_mode": "on"},
        {"preprocess_mode": "on", "preprocess_resolution": 2 * resolution},
        {"preprocess_mode": "on", "preprocess_resolution": max(1, resolution // 2)},
    )
    tried = [config]
    for change in changes:
        changed = replace(config, **change)
        if changed not in tried:
            tried.append(changed)
            yield ", ".join(f"pieces.{name}={value}" for name, value in change.items()), changed


def too_far(body: Mesh, pieces: Pieces, config: PiecesConfig) -> str:
    """Returns how far pieces are from their mesh, in words; empty up to `largest_distance`, or if it is not known."""
    if pieces.fit is None:
        return ""
    away, out = pieces.fit.distance / body.diagonal, pieces.fit.uncovered / body.diagonal
    if max(away, out) <= config.largest_distance:
        return ""
    return (
        f"{len(pieces.pieces)} convex pieces are {away:.2g} of the mesh's diagonal from it (95 % of the surface is "
        f"nearer) and leave {out:.2g} of it out, more than pieces.largest_distance={config.largest_distance}"
    )


def _joined(body: Mesh) -> Mesh:
    """Returns the outer surface of several solid bodies, as CoACD may not end where they cut each other.

    Any other mesh stays as it is: one body, one that is open, or one with a cavity.
    """
    number = bodies_of(body.vertices, body.faces)
    volumes = [volume_of(body.vertices[body.faces[number == k]]) for k in range(number.max() + 1)]
    is_solid = len(volumes) > 1 and min(volumes) > 0 and is_closed(body.vertices, body.faces)
    if not is_solid or find_spec("manifold3d") is None:
        return body
    try:
        vertices, faces = outer_surface(*split_bodies(body.vertices, body.faces))
    except InputError:  # manifold3d takes no body that touches itself; the distance of the pieces is measured anyway
        return body
    return body._replace(vertices=vertices, faces=faces)


def _attempt(mesh: str, body: Mesh, solid: Mesh, config: PiecesConfig) -> Pieces | str:
    """Returns CoACD's pieces of a mesh, whose outer surface is a solid, or why there are none that can be used."""
    settings = {name: value for name, value in asdict(config).items() if name not in _NOT_FOR_COACD}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        np.savez(folder / "mesh.npz", vertices=solid.vertices, faces=solid.faces.astype(np.int32))
        (folder / "settings.json").write_text(json.dumps(settings), encoding="utf-8")
        process = _run(mesh, folder)
        if process.returncode:
            message = (process.stderr.strip() or process.stdout.strip() or "nothing").splitlines()[-1]
            return f"CoACD ended with {process.returncode} and said: {message[-SHOWN_LETTERS:]}"
        with np.load(folder / "pieces.npz", allow_pickle=False) as file:
            clouds = [file[f"vertices_{number}"] for number in range(len(file.files))]
    try:
        pieces = measured_pieces(mesh, body, clouds, DECOMPOSED, config)
    except InputError as error:
        return str(error)
    return too_far(body, pieces, config) or pieces


def _run(mesh: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Returns CoACD's process after its end; see `coacd_process` for the folder."""
    command = [sys.executable, "-P", str(Path(__file__).with_name("coacd_process.py")), str(folder)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    try:
        return subprocess.run(
            command, env=environment, capture_output=True, text=True, errors="replace", timeout=DECOMPOSE_TIMEOUT_S
        )
    except subprocess.TimeoutExpired as error:
        raise InputError(
            f"mesh {mesh} is not decomposed after {DECOMPOSE_TIMEOUT_S:g} s; wanted one that CoACD can take: "
            "simplify it, raise pieces.threshold, set pieces.preprocess_mode=on, or lay coacd_convex_piece_<k>.obj "
            "beside it"
        ) from error
