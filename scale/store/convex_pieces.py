"""Seals the convex pieces of the objects of a call in its run folder; each mesh is decomposed once and cached."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

from bimangrasp.errors import InputError
from bimangrasp.objects.config import PiecesConfig
from bimangrasp.objects.convex_pieces import convex_pieces
from bimangrasp.objects.files import RECORD, piece_files_of
from bimangrasp.objects.pieces import Pieces, pieces_image, read_pieces
from scale.settings.mesh_checks import cache_folder, keep
from scale.settings.parsing import ObjectEntry
from scale.store.run_folder import RunFolder


class SealedPieces(NamedTuple):
    """The convex pieces of an object in a run folder.

    Attributes:
        path: their file.
        sha256: of their shapes.
        record: what the manifest says of them.
    """

    path: Path
    sha256: str
    record: dict[str, Any]

    @classmethod
    def of(cls, path: Path, pieces: Pieces) -> SealedPieces:
        """Returns the pieces that lie in a file."""
        return cls(path, pieces.sha256, pieces.record())


def pieces_of(mesh: Path, config: PiecesConfig) -> Pieces:
    """Returns the convex pieces of a mesh, from the user's cache where they were found before.

    Raises:
        InputError: see `convex_pieces`.
    """
    cached = cache_folder() / "pieces" / _name(mesh, config)
    try:
        return read_pieces(str(cached))
    except InputError:  # missing or damaged: it is made
        pieces = convex_pieces(str(mesh), config)
    keep(cached, pieces_image(pieces))
    return pieces


def present_pieces(folder: RunFolder, entries: Iterable[ObjectEntry], config: PiecesConfig) -> dict[str, SealedPieces]:
    """Returns the pieces that are sealed in a run folder by object code, of those that there are; changes nothing."""
    sealed = {}
    for entry in entries:
        path = folder.pieces / _name(entry.path, config)
        try:
            sealed[entry.code] = SealedPieces.of(path, read_pieces(str(path)))
        except InputError:  # missing or damaged: the run makes it
            continue
    return sealed


def sealed_pieces(
    folder: RunFolder, entries: Sequence[ObjectEntry], config: PiecesConfig, say: Callable[[str], None]
) -> dict[str, SealedPieces]:
    """Returns the pieces of objects by code, found now and sealed in the run folder; a thread for each core finds them.

    Args:
        folder: of the run.
        entries: the objects.
        config: see `PiecesConfig`.
        say: is told of damaged files, and how many meshes are looked at.

    Raises:
        InputError: a mesh has no pieces; it is named.
    """
    if entries:
        say(f"convex pieces are looked for, of {len(entries)} objects; a decomposition takes up to minutes")
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        made = pool.map(lambda entry: pieces_image(pieces_of(entry.path, config)), entries)
        return {
            entry.code: seal_pieces(folder, entry.path, image, config, say)
            for entry, image in zip(entries, made, strict=True)
        }


def seal_pieces(
    folder: RunFolder, mesh: Path, image: bytes, config: PiecesConfig, say: Callable[[str], None]
) -> SealedPieces:
    """Returns the pieces of a mesh, of which `image` is the file's content, when they lie in the run folder."""
    path = folder.pieces / _name(mesh, config)
    try:
        return SealedPieces.of(path, read_pieces(str(path)))  # of another object with an equal mesh
    except InputError:
        if path.exists():
            say(f"{path} is damaged and moved to damaged/: it is made again")
            folder.set_aside(path)
    folder.write(path, image)
    return SealedPieces.of(path, read_pieces(str(path)))


def files_beside(mesh: Path) -> list[Path]:
    """Returns the files beside a mesh that its pieces depend on."""
    record = mesh.parent / RECORD
    return [*piece_files_of(mesh), *([record] if record.exists() else [])]


def _name(mesh: Path, config: PiecesConfig) -> str:
    """Returns the name of the file that holds the pieces that these bytes and settings give."""
    made_of = hashlib.sha256(json.dumps(asdict(config), sort_keys=True).encode())
    for file in (mesh, *files_beside(mesh)):
        made_of.update(file.read_bytes())
    return f"{made_of.hexdigest()}.npz"
