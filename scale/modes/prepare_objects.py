"""Runs `mode=objects`: checks a folder of meshes, and prepares them in another folder in DexGraspNet's layout."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from bimangrasp.errors import InputError
from bimangrasp.objects.convex_pieces import Pieces, convex_pieces, decomposed, is_convex, piece_files
from bimangrasp.objects.files import DECOMPOSED
from bimangrasp.objects.mesh_report import check_size
from bimangrasp.objects.model import Mesh, load_triangles, report_of
from bimangrasp.objects.preparation import (
    Draft,
    MeshFacts,
    Preparation,
    as_written,
    finish_draft,
    make_draft,
    obj_image,
)
from scale.errors import RunError
from scale.modes.preparation_report import KEPT, LEFT_OUT, PREPARED, READY, PreparationReport, PreparedObject
from scale.settings.mesh_checks import progress_printer, unreadable
from scale.settings.parsing import ObjectEntry
from scale.settings.schema import Config
from scale.store.convex_pieces import pieces_of
from scale.store.run_folder import RunFolder

RECORD = "prepared.json"
"""File with the source of a prepared object and how it was moved; it is written last and marks the object complete."""

_SETTINGS = ("prepare", "pieces")


def prepare_objects(config: Config, entries: list[ObjectEntry], left_out: dict[str, str]) -> PreparationReport:
    """Returns the report on the meshes of `paths.mesh_choice`; with `out` they are also prepared there.

    Unusable meshes are in the report.

    Raises:
        RunError: the disk cannot be written.
    """
    work = _prepare if config.out and not config.dry_run else _check
    report_progress = progress_printer("prepared" if work is _prepare else "checked")
    rows = []
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        for done, row in enumerate(pool.map(lambda entry: _outcome(work, entry, config), entries), start=1):
            report_progress(done, len(entries))
            rows.append(row)
    rows += [PreparedObject(code, LEFT_OUT, reason=reason) for code, reason in left_out.items()]
    written = Path(config.out) if work is _prepare else None
    return PreparationReport(tuple(sorted(rows, key=lambda row: row.code)), config.object, written)


def _outcome(
    work: Callable[[ObjectEntry, Config], PreparedObject], entry: ObjectEntry, config: Config
) -> PreparedObject:
    """Returns the result for one object, with the reason if it cannot be used."""
    try:
        for reason in unreadable([entry]).values():
            raise InputError(reason)
        return work(entry, config)
    except InputError as error:
        return PreparedObject(entry.code, LEFT_OUT, _original_facts(entry, config), reason=str(error))
    except OSError as error:
        raise RunError(
            f"object {entry.code!r}: {error}; what is prepared stays, and the same command goes on"
        ) from error


def _original_facts(entry: ObjectEntry, config: Config) -> MeshFacts | None:
    """Returns the facts of the file of an unusable object, or None if it cannot be read."""
    try:
        return make_draft(str(entry.path), config.prepare).original
    except InputError:
        return None


def _check(entry: ObjectEntry, config: Config) -> PreparedObject:
    """Returns the facts of a mesh and of its prepared form. Writes nothing and decomposes nothing."""
    draft = make_draft(str(entry.path), config.prepare)
    given_pieces, notes = _given_pieces(entry, draft, config)
    if config.prepare.surface == "pieces":
        if not given_pieces:
            return PreparedObject(
                entry.code, READY, draft.original, repairs=str(draft.repairs), warnings=(*notes, _PIECES_LATER)
            )
        draft = _with_surface_of(draft, given_pieces)
    ready = finish_draft(draft, config.prepare)
    check_size(report_of(ready.mesh), config.object, entry.code)
    return _report_row(entry.code, READY, ready, _piece_count(given_pieces, ready.mesh, config), notes)


def _piece_count(given_pieces: Pieces | None, mesh: Mesh, config: Config) -> int | None:
    """Returns the number of convex pieces as far as it is known without decomposing the mesh."""
    if given_pieces:
        return len(given_pieces.pieces)
    return 1 if is_convex(mesh, config.pieces) else None


_PIECES_LATER = "its convex pieces, which will be its surface, are not made yet: out= makes them"


def _prepare(entry: ObjectEntry, config: Config) -> PreparedObject:
    """Prepares one object and returns the result; an existing one with the same content is kept."""
    folder = Path(config.out) / entry.code / DECOMPOSED.parent
    origin = _origin(entry, config)
    existing = _existing_record(folder, origin)
    if existing:
        return PreparedObject.from_record(entry.code, KEPT, existing)
    draft = make_draft(str(entry.path), config.prepare)
    pieces, notes = _given_pieces(entry, draft, config)
    if config.prepare.surface == "pieces":
        pieces = pieces or decomposed(str(entry.path), Mesh(draft.vertices, draft.faces, "", ""), config.pieces)
        draft = _with_surface_of(draft, pieces)
    ready = finish_draft(draft, config.prepare)
    check_size(report_of(ready.mesh), config.object, entry.code)
    if config.prepare.decompose and not pieces:
        pieces = _decomposed(entry, ready, config)
    files = {DECOMPOSED.name: ready.image} | _piece_images(pieces)
    _check_pieces_fit(entry, files, config)
    row = _report_row(entry.code, PREPARED, ready, len(pieces.pieces) if pieces else None, notes)
    record = origin | row.record(ready) | {"files": {name: _sha256(image) for name, image in files.items()}}
    _write(folder, files, json.dumps(record, indent=1, sort_keys=True).encode() + b"\n")
    return row


def _report_row(code: str, state: str, ready: Preparation, count: int | None, notes: tuple[str, ...]) -> PreparedObject:
    return PreparedObject(
        code, state, ready.original, ready.prepared, count, str(ready.repairs), (*notes, *ready.warnings)
    )


def _with_surface_of(draft: Draft, pieces: Pieces) -> Draft:
    """Returns the draft with the surface of its convex pieces."""
    starts = np.cumsum([0, *(len(piece.vertices) for piece in pieces.pieces)])
    faces = [piece.faces + start for piece, start in zip(pieces.pieces, starts, strict=False)]
    vertices = as_written(np.concatenate([piece.vertices for piece in pieces.pieces]))
    return draft._replace(vertices=vertices, faces=np.concatenate(faces), holes=())


def _given_pieces(entry: ObjectEntry, draft: Draft, config: Config) -> tuple[Pieces | None, tuple[str, ...]]:
    """Returns the pieces in files beside a mesh, moved like the mesh; None and a note where they do not fit it."""
    try:
        files = piece_files(entry.path.parent) if entry.path.name == DECOMPOSED.name else []
        if not files:
            return None, ()
        with tempfile.TemporaryDirectory() as name:
            for file in files:
                vertices, faces = load_triangles(str(file))
                (Path(name) / file.name).write_bytes(obj_image([(draft.placement(vertices), faces)]))
            (Path(name) / DECOMPOSED.name).write_bytes(obj_image([(draft.vertices, draft.faces)]))
            return convex_pieces(str(Path(name) / DECOMPOSED.name), config.pieces), ()
    except InputError as error:
        return None, (f"its coacd_convex_piece files are left out, new ones are made: {error}",)


def _decomposed(entry: ObjectEntry, ready: Preparation, config: Config) -> Pieces:
    """Returns the convex pieces of a prepared mesh, from the user's cache if they were computed before."""
    with tempfile.TemporaryDirectory() as name:
        mesh = Path(name) / DECOMPOSED.name
        mesh.write_bytes(ready.image)
        try:
            return pieces_of(mesh, config.pieces)
        except InputError as error:
            raise InputError(str(error).replace(str(mesh), str(entry.path))) from error


def _piece_images(pieces: Pieces | None) -> dict[str, bytes]:
    """Returns file name -> bytes of the convex pieces."""
    images = [obj_image([(piece.vertices, piece.faces)]) for piece in pieces.pieces] if pieces else []
    return {f"coacd_convex_piece_{number}.obj": image for number, image in enumerate(images)}


def _check_pieces_fit(entry: ObjectEntry, files: dict[str, bytes], config: Config) -> None:
    """Refuses pieces that, read back from their files, do not fill the mesh as a simulation requires."""
    if len(files) == 1:
        return
    with tempfile.TemporaryDirectory() as name:
        for file, image in files.items():
            (Path(name) / file).write_bytes(image)
        try:
            convex_pieces(str(Path(name) / DECOMPOSED.name), config.pieces)
        except InputError as error:
            reason = str(error).replace(f"{name}{os.sep}", "")
            raise InputError(
                f"the convex pieces of {entry.path} do not fit it ({reason}); prepare.surface=pieces takes them as its "
                "surface, a smaller pieces.threshold makes them finer"
            ) from error


def _origin(entry: ObjectEntry, config: Config) -> dict[str, Any]:
    """Returns what determines the files of a prepared object: its source, the pieces beside it, and the settings."""
    beside = sorted(entry.path.parent.glob("coacd_convex_piece_*.obj")) if entry.path.name == DECOMPOSED.name else []
    return {
        "source": entry.path.name,
        "source_sha256": hashlib.sha256(b"".join(_read(path) for path in (entry.path, *beside))).hexdigest(),
        **{section: asdict(getattr(config, section)) for section in _SETTINGS},
    }


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"mesh {path} cannot be read ({error.strerror})") from error


def _existing_record(folder: Path, origin: dict[str, Any]) -> dict[str, Any] | None:
    """Returns the record of an object that was prepared before; None if it was not, or not completely.

    Raises:
        InputError: it was prepared from another mesh or with other settings, or its files were changed since.
    """
    path = folder / RECORD
    if not path.exists():
        return None
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        files = dict(record["files"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path} is damaged ({error}); remove {folder} to have it made again") from error
    differing = [name for name, value in origin.items() if record.get(name) != value]
    if differing:
        raise InputError(
            f"{folder} was prepared from another mesh or with other settings ({', '.join(differing)} differ); remove "
            "it, or set out= to another folder"
        )
    for name, sha256 in files.items():
        if (folder / name).exists() and _sha256((folder / name).read_bytes()) != sha256:
            raise InputError(f"{folder / name} was changed since it was made; remove {folder} to have it made again")
    return record if all((folder / name).exists() for name in files) else None


def _write(folder: Path, files: dict[str, bytes], record: bytes) -> None:
    """Writes a prepared object, the record last. Existing files must have the same content."""
    existing = {path.name for path in folder.glob("*.obj")}
    differing = sorted(name for name in existing if name not in files or (folder / name).read_bytes() != files[name])
    if differing:
        raise InputError(
            f"{folder} has other content in {differing[0]}; move it away, or set out= to another folder: nothing is "
            "overwritten"
        )
    run_folder = RunFolder(folder)
    for name, image in files.items():
        if name not in existing:
            run_folder.write(folder / name, image)
    run_folder.write(folder / RECORD, record)
    run_folder.remove_leftovers()


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
