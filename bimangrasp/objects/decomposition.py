"""Decomposes a mesh into convex pieces with CoACD, and with other settings of it where it fails."""

from __future__ import annotations

import errno
import json
import logging
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from bimangrasp.builtin import install_command, temporary_prefix
from bimangrasp.errors import InputError
from bimangrasp.geometry.triangle_mesh import NoSolidError
from bimangrasp.objects.config import PiecesConfig
from bimangrasp.objects.mesh_repair import bodies_of, body_volumes, joined_bodies, used_vertices
from bimangrasp.objects.model import Mesh, is_closed
from bimangrasp.objects.pieces import Pieces
from bimangrasp.objects.pieces_fit import measured_pieces

DECOMPOSED = "decomposed"
"""Source of pieces from CoACD."""

DECOMPOSE_TIMEOUT_S = 3600.0
"""CoACD is stopped after this time, s; scanned objects take seconds to minutes."""

SAID_EVERY_S = 60.0
"""A mesh on which CoACD works longer than this is named, s, and again each time that this has passed."""

SHOWN_LETTERS = 100
"""Last letters of what CoACD said, in a message: its assertions are longer."""

HULLS = "the hulls of its bodies"
"""Name of the fallback that needs no CoACD."""

SHEET = 1e-12
"""A body whose volume is below this share of the mesh's diagonal cubed is a sheet with two sides."""

ADVICE = (
    "lower pieces.threshold, repair the mesh, take pieces from farther off (pieces.largest_distance), or lay "
    "coacd_convex_piece_<k>.obj beside it"
)

_LOG = logging.getLogger(__name__)

_NOT_FOR_COACD = ("convex_tolerance", "cover_tolerance", "largest_distance", "smallest_volume")


class _Failure(NamedTuple):
    """Why there are no pieces that can be used.

    Attributes:
        reason: in words.
        distance: of the pieces from the mesh, share of its diagonal; infinite where there are none.
    """

    reason: str
    distance: float = float("inf")


def decomposed(mesh: str, body: Mesh, config: PiecesConfig) -> Pieces:
    """Returns CoACD's pieces of a mesh, computed by one thread; a warning is logged while that takes minutes.

    Where CoACD fails, or its pieces are far from the mesh, the settings of `fallbacks` are tried in their order, and
    then the hulls of the mesh's own bodies.

    Args:
        mesh: what messages call the mesh.
        body: the mesh; with an empty sign one that does not tell inside from outside, such as a sheet.
        config: tolerances, and CoACD's settings.

    Raises:
        InputError: CoACD is not installed, takes too long, or no pieces follow the mesh.
    """
    if not can_decompose():
        raise InputError(
            f"mesh {mesh} is not convex and has no coacd_convex_piece_<k>.obj beside it; to decompose it, "
            f"{install_command('objects')}"
        )
    solid, not_joined = _joined(body)
    failures: dict[str, _Failure] = {}
    if config.preprocess_mode == "auto":
        config = replace(config, preprocess_mode="off" if body.sign else "on")
    for name, settings in fallbacks(config):
        result = _attempt(mesh, body, solid, settings)
        if isinstance(result, Pieces):
            return result._replace(fallback=name)
        failures[name or "the settings as they are"] = result
    result = _hulls_of_bodies(mesh, body, config)
    if isinstance(result, Pieces):
        return result._replace(fallback=HULLS)
    failures[HULLS] = result
    raise InputError(f"mesh {mesh} cannot be decomposed: {_summary(failures)}{not_joined}; {ADVICE}")


def _summary(failures: dict[str, _Failure]) -> str:
    """Returns why nothing helped: how often CoACD failed and its last words, and the distance of the nearest pieces."""
    crashed = [failure for failure in failures.values() if failure.distance == float("inf")]
    nearest, name = min((failure.distance, name) for name, failure in failures.items())
    parts = [f"{crashed[0].reason} ({len(crashed)} of {len(failures)} ways that were tried)"] if crashed else []
    if nearest < float("inf"):
        parts.append(f"with {name}, the nearest of {len(failures) - len(crashed)}, {failures[name].reason}")
    return "; ".join(parts)


def _hulls_of_bodies(mesh: str, body: Mesh, config: PiecesConfig) -> Pieces | _Failure:
    """Returns the hull of each body of a mesh, as far as these follow it: they do where each is nearly convex."""
    vertices, faces = body.vertices, body.faces
    number = bodies_of(vertices, faces)
    order = np.argsort(number, kind="stable")
    parts = np.split(faces[order], np.cumsum(np.bincount(number))[:-1])
    return _followed(mesh, body, [vertices[np.unique(part)] for part in parts], config)


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


def _joined(body: Mesh) -> tuple[Mesh, str]:
    """Returns the outer surface of several solid bodies, as CoACD may not end where they cut each other.

    Sheets, which enclose nothing, are left out of it; what is lost by that is measured. Any other mesh stays as it is:
    one body, one that is open, or one with a cavity. The second part says why bodies could not be joined; it is empty
    where they were, or need not be.
    """
    number = bodies_of(body.vertices, body.faces)
    volumes = body_volumes(body.vertices, body.faces, number)
    is_sheet = np.abs(volumes) <= SHEET * body.diagonal**3
    solid = volumes[~is_sheet]
    is_solid = len(volumes) > 1 and len(solid) and solid.min() > 0 and is_closed(body.vertices, body.faces)
    if not is_solid or find_spec("manifold3d") is None:
        return body, ""
    try:
        vertices, faces = joined_bodies(*used_vertices(body.vertices, body.faces[~is_sheet[number]]))
    except NoSolidError as error:  # such as a body that touches itself; the distance of the pieces is measured anyway
        return body, f"; its bodies could not be joined first, as {error.reason}"
    return body._replace(vertices=vertices, faces=faces), ""


def _attempt(mesh: str, body: Mesh, solid: Mesh, config: PiecesConfig) -> Pieces | _Failure:
    """Returns CoACD's pieces of a mesh, whose outer surface is a solid, or why there are none that can be used."""
    settings = {name: value for name, value in asdict(config).items() if name not in _NOT_FOR_COACD}
    try:
        with tempfile.TemporaryDirectory(prefix=temporary_prefix()) as name:
            folder = Path(name)
            np.savez(folder / "mesh.npz", vertices=solid.vertices, faces=solid.faces.astype(np.int32))
            (folder / "settings.json").write_text(json.dumps(settings), encoding="utf-8")
            code, said = _run(mesh, folder)
            if code and os.strerror(errno.ENOSPC) in said:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            if code:
                return _Failure(f"CoACD ended with {code} and said: {_last_words(said)}")
            with np.load(folder / "pieces.npz", allow_pickle=False) as file:
                clouds = [file[f"vertices_{number}"] for number in range(len(file.files))]
    except OSError as error:
        raise InputError(
            f"mesh {mesh} cannot be handed to CoACD in the temporary folder {tempfile.gettempdir()} "
            f"({error.strerror}); make room there, or let TMPDIR name another folder"
        ) from error
    return _followed(mesh, body, clouds, config)


def _followed(mesh: str, body: Mesh, clouds: list[np.ndarray], config: PiecesConfig) -> Pieces | _Failure:
    """Returns the hulls of clouds as the pieces of a mesh, or why they do not follow it."""
    try:
        pieces = measured_pieces(mesh, body, clouds, DECOMPOSED, config)
    except InputError:
        return _Failure(f"of {len(clouds)} convex pieces none is a solid body")
    reason = too_far(body, pieces, config)
    if not reason:
        return pieces
    return _Failure(reason, max(pieces.fit.distance, pieces.fit.uncovered) / body.diagonal)


def _last_words(said: str) -> str:
    """Returns the last line of what a process said, of an assertion only what it asserts."""
    line = (said.strip().splitlines() or ["nothing"])[-1]
    assertion = re.search(r"Assertion [`'\"]?(.*?)['\"]? failed", line)
    words = f"assertion {assertion[1]} failed" if assertion else line
    return words if len(words) <= SHOWN_LETTERS else f"... {words[-SHOWN_LETTERS:]}"


def _run(mesh: str, folder: Path) -> tuple[int, str]:
    """Returns the exit code of CoACD's process and what it said; see `coacd_process` for the folder."""
    command = [sys.executable, "-P", str(Path(__file__).with_name("coacd_process.py")), str(folder)]
    settings = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "errors": "replace"}
    start = time.monotonic()
    with subprocess.Popen(command, env=os.environ | {"OMP_NUM_THREADS": "1"}, **settings) as process:
        try:
            while (passed := time.monotonic() - start) < DECOMPOSE_TIMEOUT_S:
                try:
                    shown, errors = process.communicate(timeout=min(SAID_EVERY_S, DECOMPOSE_TIMEOUT_S - passed))
                except subprocess.TimeoutExpired:
                    _LOG.warning("%s", _still_at_work(mesh, time.monotonic() - start))
                else:
                    return process.returncode, errors.strip() or shown
        finally:
            process.kill()
    raise InputError(
        f"mesh {mesh} is not decomposed after {DECOMPOSE_TIMEOUT_S:g} s; wanted one that CoACD can take: "
        "simplify it, raise pieces.threshold, set pieces.preprocess_mode=on, or lay coacd_convex_piece_<k>.obj "
        "beside it"
    )


def _still_at_work(mesh: str, seconds: float) -> str:
    """Returns what is said of a mesh that takes long."""
    return (
        f"mesh {mesh}: CoACD has worked on it for {seconds:.0f} s, and is stopped after {DECOMPOSE_TIMEOUT_S:g} s; a "
        "larger pieces.threshold, pieces.preprocess_mode=on or a simpler mesh takes less"
    )
