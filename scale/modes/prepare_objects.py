"""Runs `mode=objects`: checks a folder of meshes, prepares them in another one in DexGraspNet's layout, and reports."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import trimesh

from bimangrasp.errors import InputError
from bimangrasp.objects import preparation
from bimangrasp.objects.config import ObjectConfig
from bimangrasp.objects.convex_pieces import convex_pieces, is_convex, piece_files
from bimangrasp.objects.decomposition import decomposed
from bimangrasp.objects.files import DECOMPOSED, RECORD, check_size, object_scales, piece_files_of
from bimangrasp.objects.model import Mesh, is_closed, load_triangles, report_of, volume_of
from bimangrasp.objects.pieces import Pieces, PiecesFit
from bimangrasp.objects.pieces_fit import CRACK, joined_pieces
from scale.errors import RunError
from scale.formatting import count, table
from scale.screen import Stage, stage
from scale.settings.mesh_checks import unreadable
from scale.settings.parsing import ObjectEntry, is_safe
from scale.settings.schema import Config
from scale.store.convex_pieces import pieces_of
from scale.store.run_folder import RunFolder

STATES = ("can be used", "to be decomposed", "prepared", "kept", "cannot be used")
READY, UNTRIED, PREPARED, KEPT, LEFT_OUT = STATES
"""States of an object after the run: of an untried one only the pieces are wanting, which a check does not make; a kept
one was prepared before, with the same content."""

NOT_TRIED = (
    "not tried yet: whether CoACD finds convex pieces that follow the file's mesh; out= makes the prepared mesh of them"
)
"""What a check says of a mesh whose surface will be that of pieces."""

MESH_NOT_TRIED = (
    "not tried yet: whether CoACD finds convex pieces that follow the prepared mesh, for a simulator; out= makes "
    "them, prepare.decompose=false leaves them out"
)
"""What a check says of a mesh that stays, and to which pieces are added."""

HEADINGS = ("object", "vertices", "faces", "closed", "bodies", "pieces", "extents in the file", "state")
NUMBER_COLUMNS = (1, 2, 4, 5)
EXIT_UNUSABLE = 3
"""Exit code where an object cannot be used."""


class PreparedObject(NamedTuple):
    """The result for one object.

    Attributes:
        code: name of the object.
        state: one of the states above.
        original: the mesh of its file; None where it could not be read.
        prepared: the prepared mesh, at unit scale; None where there is none.
        is_of_file: whether `prepared` is the file's mesh instead, repaired, moved and resized: the surface of the
            prepared one will be that of pieces which a check does not make.
        pieces: number of convex pieces; None where none were made.
        fit: how far they are from the prepared mesh; None where it was not measured.
        repairs: the repairs, as text.
        warnings: what a person should know, a line each.
        reason: why it cannot be used, and what to do; empty where it can.
    """

    code: str
    state: str
    original: preparation.MeshFacts | None = None
    prepared: preparation.MeshFacts | None = None
    is_of_file: bool = False
    pieces: int | None = None
    fit: PiecesFit | None = None
    repairs: str = ""
    warnings: tuple[str, ...] = ()
    reason: str = ""

    def record(self, ready: preparation.Preparation) -> dict[str, Any]:
        """Returns the JSON record that is stored beside the files of the object."""
        return {
            "found": self.original._asdict(),
            "made": self.prepared._asdict(),
            "convex_pieces": self.pieces,
            "fit": self.fit and self.fit._asdict(),
            "repairs": self.repairs,
            "warnings": list(self.warnings),
            "center": ready.placement.center.tolist(),
            "factor": ready.placement.factor,
            "sign": ready.sign._asdict(),
        }

    @classmethod
    def from_record(cls, code: str, state: str, record: dict[str, Any]) -> PreparedObject:
        """Returns the object that a stored record describes."""
        return cls(
            code=code,
            state=state,
            original=_facts_of(record["found"]),
            prepared=_facts_of(record["made"]),
            pieces=record["convex_pieces"],
            fit=record["fit"] and PiecesFit(**record["fit"]),
            repairs=record["repairs"],
            warnings=tuple(record["warnings"]),
        )


class PreparationReport(NamedTuple):
    """The results for all objects. `str(report)` is a table for people.

    Attributes:
        objects: the results, sorted by code.
        sizes: the sizes at which the objects will be grasped.
        out: the folder of the prepared objects; None where they were only checked.
    """

    objects: tuple[PreparedObject, ...]
    sizes: ObjectConfig
    out: Path | None

    @property
    def exit_code(self) -> int:
        """0, or 3 where an object cannot be used."""
        return EXIT_UNUSABLE if any(entry.state == LEFT_OUT for entry in self.objects) else 0

    def __str__(self) -> str:
        head, *rows = table(HEADINGS, [_row(entry) for entry in self.objects], right=NUMBER_COLUMNS)
        lines = [head]
        for entry, row in zip(self.objects, rows, strict=True):
            lines += [row, *(f"    {detail}" for detail in self._details(entry))]
        return "\n".join([*lines, self._end()])

    def _details(self, entry: PreparedObject) -> Iterator[str]:
        """Yields the lines below an object's row: its sizes, repairs, warnings and reason."""
        if entry.prepared:
            has_scales = self.sizes.sizes is None
            settings = self.sizes.scales if has_scales else self.sizes.sizes
            scales = object_scales(self.sizes, max(entry.prepared.extents))
            sizes = [_size_at(entry.prepared, scale) for scale in scales]
            parts = [f"{setting:g}: {size}" for setting, size in zip(settings, sizes, strict=True)]
            which = "the file's mesh" if entry.is_of_file else "the prepared mesh"
            yield f"{which} at {'object.scales' if has_scales else 'object.sizes'} {'; '.join(parts)}"
            if entry.fit:
                yield f"convex pieces and mesh at {max(settings):g}: {entry.fit.at(max(scales))}"
        if entry.repairs:
            yield f"{'would be repaired' if entry.state in (READY, UNTRIED) else 'repaired'}: {entry.repairs}"
        yield from (f"note: {warning}" for warning in entry.warnings)
        if entry.reason:
            yield f"{LEFT_OUT}: {entry.reason}"

    def _end(self) -> str:
        """Returns the last line: the number of objects in each state."""
        states = [entry.state for entry in self.objects]
        counts = {state: f"{states.count(state)} {state}" for state in STATES if state in states}
        in_folder = [counts.pop(state) for state in (PREPARED, KEPT) if state in counts]
        parts = [f"{' and '.join(in_folder)} in {self.out}"] if in_folder else []
        end = "" if self.out else "; only checked, out=<folder> prepares them"
        return f"{count(len(states), 'object')}: {', '.join([*parts, *counts.values()])}{end}"


def prepare_objects(config: Config, entries: list[ObjectEntry], left_out: dict[str, str]) -> PreparationReport:
    """Returns the report on the meshes of `paths.mesh_choice`; with `out` they are also prepared there.

    Unusable meshes are in the report.

    Raises:
        RunError: the disk cannot be written.
    """
    writes = bool(config.out) and not config.dry_run
    with (
        stage("preparing meshes" if writes else "checking meshes", len(entries), "done") as work,
        ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool,
    ):
        rows = list(pool.map(lambda entry: _outcome(entry, config, writes, work), entries))
    rows += [PreparedObject(code, LEFT_OUT, reason=reason) for code, reason in left_out.items()]
    rows.sort(key=lambda row: row.code)
    return PreparationReport(tuple(rows), config.object, Path(config.out) if writes else None)


def _outcome(entry: ObjectEntry, config: Config, writes: bool, work: Stage) -> PreparedObject:
    """Returns the result for one object, with the reason if it cannot be used."""
    try:
        with work.on(entry.code):
            for reason in unreadable([entry]).values():
                raise InputError(reason)
            return _result(entry, config, writes)
    except InputError as error:
        return PreparedObject(entry.code, LEFT_OUT, _original_facts(entry, config), reason=str(error))
    except OSError as error:
        raise RunError(
            f"object {entry.code!r}: {error}; what is prepared stays, and the same command goes on"
        ) from error


def _original_facts(entry: ObjectEntry, config: Config) -> preparation.MeshFacts | None:
    """Returns the facts of the file of an unusable object, or None if it cannot be read."""
    try:
        return preparation.make_draft(str(entry.path), config.prepare).original
    except InputError:
        return None


def _result(entry: ObjectEntry, config: Config, writes: bool) -> PreparedObject:
    """Returns what becomes of one object. An existing one with the same content is kept.

    Unless it `writes`, it decomposes nothing either.
    """
    folder, origin = Path(config.out) / entry.code / DECOMPOSED.parent, {}
    if writes:
        origin = _origin(entry, config)
        existing = _existing_record(folder, origin)
        if existing:
            return PreparedObject.from_record(entry.code, KEPT, existing)
    draft = preparation.make_draft(str(entry.path), config.prepare)
    pieces, notes = _given_pieces(entry, draft, config)
    body = _body(draft)
    if config.prepare.surface == "pieces" and not _is_solid_hull(body, config):
        if not (pieces or writes):
            return _untried(entry, draft, body, notes, config)
        pieces = pieces or decomposed(str(entry.path), body, config.pieces)
        draft = _with_surface(draft, pieces, CRACK * body.diagonal, config)
    ready = preparation.finish_draft(draft, config.prepare)
    check_size(report_of(ready.mesh), config.object, entry.code)
    if writes and config.prepare.decompose and not pieces:
        pieces = _pieces_in({DECOMPOSED.name: ready.image}, entry, config, is_cached=True)
    pieces_count, state = len(pieces.pieces) if pieces else None, PREPARED if writes else READY
    if not (pieces or writes) and config.prepare.decompose:
        if is_convex(ready.mesh, config.pieces):
            pieces_count = 1  # as it will be
        else:
            state, notes = UNTRIED, (*notes, MESH_NOT_TRIED)
    if pieces and pieces.fallback:
        notes = (*notes, f"CoACD failed with these settings, its pieces are made with {pieces.fallback}")
    row = PreparedObject(
        code=entry.code,
        state=state,
        original=ready.original,
        prepared=ready.prepared,
        pieces=pieces_count,
        fit=pieces.fit if pieces else None,
        repairs=str(ready.repairs),
        warnings=(*notes, *ready.warnings),
    )
    if writes:
        files = {DECOMPOSED.name: ready.image}
        for number, piece in enumerate(pieces.pieces if pieces else ()):
            files[f"coacd_convex_piece_{number}.obj"] = preparation.obj_image([piece])
        record = origin | row.record(ready) | {"files": {name: _sha256(image) for name, image in files.items()}}
        image = json.dumps(record, indent=1, sort_keys=True).encode() + b"\n"
        if pieces:
            _pieces_in(files | {RECORD: image}, entry, config)  # as a run will read them
        _write(folder, files, image)
    return row


def _untried(
    entry: ObjectEntry, draft: preparation.Draft, body: Mesh, notes: tuple[str, ...], config: Config
) -> PreparedObject:
    """Returns what a check says of a mesh whose surface will be that of pieces: nothing of what these replace."""
    check_size(report_of(body), config.object, entry.code)
    return PreparedObject(
        code=entry.code,
        state=UNTRIED,
        original=draft.original,
        prepared=preparation.facts_of(body.vertices, body.faces),
        is_of_file=True,
        repairs=str(draft.mesh.repairs),
        warnings=(*notes, *preparation.unit_warnings(draft, config.prepare), NOT_TRIED),
    )


def _body(draft: preparation.Draft) -> Mesh:
    """Returns the mesh of a draft for a decomposition, without the checks of one that is grasped itself."""
    vertices, faces = draft.mesh.vertices, draft.mesh.faces
    has_inside = is_closed(vertices, faces) and volume_of(vertices[faces]) > 0
    return Mesh(vertices, faces, "normal" if has_inside else "", "")


def _is_solid_hull(body: Mesh, config: Config) -> bool:
    """Returns whether a mesh is closed and convex, and so a piece as it is."""
    return bool(body.sign) and is_convex(body, config.pieces)


def _with_surface(draft: preparation.Draft, pieces: Pieces, growth: float, config: Config) -> preparation.Draft:
    """Returns a draft with the surface of convex pieces, joined and grown as `joined_pieces` does, or as they are."""
    if config.prepare.interior_faces == "remove":
        vertices, faces = joined_pieces(pieces.pieces, growth)
    else:
        vertices, faces = trimesh.util.append_faces(*zip(*pieces.pieces, strict=True))
    return draft._replace(mesh=draft.mesh._replace(vertices=preparation.as_written(vertices), faces=faces, holes=()))


def _given_pieces(
    entry: ObjectEntry, draft: preparation.Draft, config: Config
) -> tuple[Pieces | None, tuple[str, ...]]:
    """Returns the pieces in files beside a mesh, moved like the mesh; None and a note where they do not fit it."""
    try:
        files = piece_files(entry.path) if entry.path.name == DECOMPOSED.name else []
        if not files:
            return None, ()
        images = {DECOMPOSED.name: preparation.obj_image([(draft.mesh.vertices, draft.mesh.faces)])}
        for file in files:
            vertices, faces = load_triangles(str(file))
            images[file.name] = preparation.obj_image([(draft.placement(vertices), faces)])
        return _pieces_in(images, entry, config), ()
    except InputError as error:
        return None, (f"its coacd_convex_piece files are left out, new ones are made: {error}",)


def _pieces_in(files: dict[str, bytes], entry: ObjectEntry, config: Config, is_cached: bool = False) -> Pieces:
    """Returns the convex pieces that are found in a folder of these files; messages name the mesh of `entry`."""
    with tempfile.TemporaryDirectory() as name:
        try:
            for file, image in files.items():
                (Path(name) / file).write_bytes(image)
        except OSError as error:
            raise InputError(
                f"mesh {entry.path} cannot be looked at in the temporary folder {tempfile.gettempdir()} "
                f"({error.strerror}); make room there, or let TMPDIR name another folder"
            ) from error
        mesh = Path(name) / DECOMPOSED.name
        try:
            return pieces_of(mesh, config.pieces) if is_cached else convex_pieces(str(mesh), config.pieces)
        except InputError as error:
            message = str(error).replace(str(mesh), str(entry.path)).replace(f"{name}{os.sep}", "")
            raise InputError(message) from error


def _origin(entry: ObjectEntry, config: Config) -> dict[str, Any]:
    """Returns what determines the files of a prepared object: its source, the pieces beside it, and the settings."""
    beside = piece_files_of(entry.path) if entry.path.name == DECOMPOSED.name else []
    return {
        "source": entry.path.name,
        "source_sha256": hashlib.sha256(b"".join(_read(path) for path in (entry.path, *beside))).hexdigest(),
        **{section: asdict(getattr(config, section)) for section in ("prepare", "pieces")},
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


def _facts_of(record: dict[str, Any]) -> preparation.MeshFacts:
    """Returns the facts of a mesh from their JSON record."""
    return preparation.MeshFacts(**record | {"extents": tuple(record["extents"])})


def _row(entry: PreparedObject) -> tuple[str, ...]:
    """Returns the cells of an object under `HEADINGS`."""
    name = entry.code if is_safe(entry.code) else repr(entry.code)
    if not entry.original:
        return (name, *[""] * (len(HEADINGS) - 2), entry.state)
    original = entry.original
    extents = " x ".join(f"{extent:.4g}" for extent in original.extents)
    counts = (str(original.vertices), str(original.faces), "yes" if original.closed else "no", str(original.bodies))
    pieces = "-" if entry.pieces is None else str(entry.pieces)
    return name, *counts, pieces, extents, entry.state


def _size_at(prepared: preparation.MeshFacts, scale: float) -> str:
    """Returns extents and volume of a mesh at a scale, as text."""
    extents = " x ".join(f"{extent * scale:.3g}" for extent in prepared.extents)
    return f"{extents} m" + (f", {prepared.volume * scale**3 * 1000:.3g} l" if prepared.closed else "")
