"""`mode=objects`: a folder of meshes is checked, and prepared in another folder in DexGraspNet's layout."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from bimangrasp.builtin import install_command
from bimangrasp.errors import InputError
from bimangrasp.objects.convex_pieces import Pieces, convex_pieces, decomposed, is_convex, piece_files
from bimangrasp.objects.files import DECOMPOSED, root_of
from bimangrasp.objects.mesh_report import check_size
from bimangrasp.objects.model import Mesh, load_triangles, report_of
from bimangrasp.objects.preparation import Draft, Facts, Preparation, as_written, draft, finished, obj_image
from scale.errors import RunError
from scale.modes.preparation_report import KEPT, LEFT_OUT, PREPARED, READY, PreparationReport, PreparedObject
from scale.settings.mesh_checks import progress_printer, unreadable
from scale.settings.objects import ObjectEntry, sorted_out
from scale.settings.schema import Config
from scale.store.convex_pieces import pieces_of
from scale.store.run_folder import RunFolder

RECORD = "prepared.json"
"""What a prepared object was made from and how it was moved; written last, so an object with it is whole."""

_SETTINGS = ("prepare", "pieces")


def prepare_objects(config: Config) -> PreparationReport:
    """Returns what the meshes of a folder are; with `out` they are also prepared there.

    Raises:
        InputError: the folder, the list or `out` cannot be used. Meshes that cannot are in the report.
        RunError: the disk cannot be written.
    """
    _check_door(config)
    entries, left_out = sorted_out(config.object_root, config.object_code_list)
    if not entries and not left_out:
        raise InputError(
            f"object_root={config.object_root!r} has no mesh at all; wanted <code>.obj, .stl, .ply, .glb, .off or "
            f"<code>/{DECOMPOSED}"
        )
    work = _prepared if config.out and not config.dry_run else _checked
    tell, rows = progress_printer("prepared" if work is _prepared else "checked"), []
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        for done, row in enumerate(pool.map(lambda entry: _guarded(work, entry, config), entries), start=1):
            tell(done, len(entries))
            rows.append(row)
    rows += [PreparedObject(code, LEFT_OUT, reason=reason) for code, reason in left_out.items()]
    written = Path(config.out) if work is _prepared else None
    return PreparationReport(tuple(sorted(rows, key=lambda row: row.code)), config.object, written)


def _check_door(config: Config) -> None:
    """Refuses what no mesh can cure."""
    if not config.out:
        return
    if Path(config.out).resolve().is_relative_to(root_of(config.object_root).resolve()):
        raise InputError(
            f"out={config.out!r} is the folder of the meshes, or in it, which is never changed: name another"
        )
    if Path(config.out).exists() and not Path(config.out).is_dir():
        raise InputError(f"out={config.out!r} is a file; wanted a folder for the prepared objects")
    settings = config.prepare
    for wanted, module, key in (
        (settings.decompose, "coacd", "prepare.decompose=false"),
        (settings.interior_faces == "remove", "manifold3d", "prepare.interior_faces=keep"),
    ):
        if wanted and find_spec(module) is None:
            raise InputError(f"mode=objects with out= needs {module}: {install_command('objects')}, or set {key}")


def _guarded(
    work: Callable[[ObjectEntry, Config], PreparedObject], entry: ObjectEntry, config: Config
) -> PreparedObject:
    """Returns what became of one object, the reason where it cannot be used."""
    try:
        for reason in unreadable([entry]).values():
            raise InputError(reason)
        return work(entry, config)
    except InputError as error:
        return PreparedObject(entry.code, LEFT_OUT, _found(entry, config), reason=str(error))
    except OSError as error:
        raise RunError(
            f"object {entry.code!r}: {error}; what is prepared stays, and the same command goes on"
        ) from error


def _found(entry: ObjectEntry, config: Config) -> Facts | None:
    """Returns what the file of an object that cannot be used has, as far as it can be read."""
    try:
        return draft(str(entry.path), config.prepare).found
    except InputError:
        return None


def _checked(entry: ObjectEntry, config: Config) -> PreparedObject:
    """Returns what a mesh is and would become. Nothing is written and nothing decomposed."""
    made = draft(str(entry.path), config.prepare)
    given, notes = _given(entry, made, config)
    if config.prepare.surface == "pieces":
        if not given:
            return PreparedObject(entry.code, READY, made.found, repairs=str(made.repairs), warnings=(*notes, _LATER))
        made = _of_pieces(made, given)
    ready = finished(made, config.prepare)
    check_size(report_of(ready.mesh), config.object, entry.code)
    count = len(given.pieces) if given else 1 if is_convex(ready.mesh, config.pieces) else None
    return _row(entry.code, READY, ready, count, notes)


_LATER = "its convex pieces, which will be its surface, are not made yet: out= makes them"


def _prepared(entry: ObjectEntry, config: Config) -> PreparedObject:
    """Returns what was written for one object; what is there with the same content is kept."""
    folder = Path(config.out) / entry.code / DECOMPOSED.parent
    origin = _origin(entry, config)
    known = _known(folder, origin)
    if known:
        return PreparedObject.from_record(entry.code, KEPT, known)
    made = draft(str(entry.path), config.prepare)
    given, notes = _given(entry, made, config)
    pieces = given
    if config.prepare.surface == "pieces":
        pieces = given or decomposed(str(entry.path), Mesh(made.vertices, made.faces, "", ""), config.pieces)
        made = _of_pieces(made, pieces)
    ready = finished(made, config.prepare)
    check_size(report_of(ready.mesh), config.object, entry.code)
    if config.prepare.decompose and not pieces:
        pieces = _decomposed(entry, ready, config)
    files = {DECOMPOSED.name: ready.image} | _piece_images(pieces)
    _check_pair(entry, files, config)
    row = _row(entry.code, PREPARED, ready, len(pieces.pieces) if pieces else None, notes)
    record = origin | row.record(ready) | {"files": {name: _sha256(image) for name, image in files.items()}}
    _write(folder, files, json.dumps(record, indent=1, sort_keys=True).encode() + b"\n")
    return row


def _row(code: str, state: str, ready: Preparation, count: int | None, notes: tuple[str, ...]) -> PreparedObject:
    return PreparedObject(code, state, ready.found, ready.made, count, str(ready.repairs), (*notes, *ready.warnings))


def _of_pieces(made: Draft, pieces: Pieces) -> Draft:
    """Returns the draft with its convex pieces as its surface."""
    starts = np.cumsum([0, *(len(piece.vertices) for piece in pieces.pieces)])
    faces = [piece.faces + start for piece, start in zip(pieces.pieces, starts, strict=False)]
    vertices = as_written(np.concatenate([piece.vertices for piece in pieces.pieces]))
    return made._replace(vertices=vertices, faces=np.concatenate(faces), holes=())


def _given(entry: ObjectEntry, made: Draft, config: Config) -> tuple[Pieces | None, tuple[str, ...]]:
    """Returns the pieces that lie beside a mesh, moved as it was; None and a note where they do not fit it."""
    try:
        files = piece_files(entry.path.parent) if entry.path.name == DECOMPOSED.name else []
        if not files:
            return None, ()
        with tempfile.TemporaryDirectory() as name:
            for file in files:
                vertices, faces = load_triangles(str(file))
                (Path(name) / file.name).write_bytes(obj_image([(made.place(vertices), faces)]))
            (Path(name) / DECOMPOSED.name).write_bytes(obj_image([(made.vertices, made.faces)]))
            return convex_pieces(str(Path(name) / DECOMPOSED.name), config.pieces), ()
    except InputError as error:
        return None, (f"its coacd_convex_piece files are left out, new ones are made: {error}",)


def _decomposed(entry: ObjectEntry, ready: Preparation, config: Config) -> Pieces:
    """Returns the convex pieces of a prepared mesh, from the user's cache where they were found before."""
    with tempfile.TemporaryDirectory() as name:
        mesh = Path(name) / DECOMPOSED.name
        mesh.write_bytes(ready.image)
        try:
            return pieces_of(mesh, config.pieces)
        except InputError as error:
            raise InputError(str(error).replace(str(mesh), str(entry.path))) from error


def _piece_images(pieces: Pieces | None) -> dict[str, bytes]:
    """Returns the files of convex pieces by their names."""
    found = pieces.pieces if pieces else ()
    return {f"coacd_convex_piece_{k}.obj": obj_image([(piece.vertices, piece.faces)]) for k, piece in enumerate(found)}


def _check_pair(entry: ObjectEntry, files: dict[str, bytes], config: Config) -> None:
    """Refuses pieces that do not fill the mesh as whoever simulates it wants: read back from their files."""
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
    """Returns what decides the files of a prepared object: its file, the pieces beside it, and the settings."""
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


def _known(folder: Path, origin: dict[str, Any]) -> dict[str, Any] | None:
    """Returns the record of an object that is prepared already; None where it is not, or not wholly.

    Raises:
        InputError: it was prepared from another mesh, with other settings, or was changed since.
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
    """Writes a prepared object, the record last. Files that are there must be the same."""
    there = {path.name for path in folder.glob("*.obj")}
    other = sorted(name for name in there if name not in files or (folder / name).read_bytes() != files[name])
    if other:
        raise InputError(
            f"{folder} has other content in {other[0]}; move it away, or set out= to another folder: nothing is "
            "overwritten"
        )
    place = RunFolder(folder)
    for name, image in files.items():
        if name not in there:
            place.write(folder / name, image)
    place.write(folder / RECORD, record)
    place.remove_leftovers()


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
