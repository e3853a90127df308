"""Gathers the gallery of a run or of a grasp file: its grasps, with the hands and meshes they were made with."""

from __future__ import annotations

from dataclasses import replace
from fnmatch import fnmatchcase
from pathlib import Path

from bimangrasp.errors import InputError
from bimangrasp.files.provenance import check_hands, mesh_made_with
from bimangrasp.files.reader import find_files
from bimangrasp.hand_files.loading import load_hands
from bimangrasp.visualization.page import Gallery, Shape
from scale.formatting import listed
from scale.screen import stage
from scale.settings.schema import Config
from scale.store.parts import folders_of
from scale.store.path_settings import GraspSource
from scale.store.run_folder import file_name
from scale.viewer.cards import FileGrasps, of_file


def gallery_of(config: Config, source: GraspSource) -> Gallery:
    """Returns the grasps of a run or a file with all that its files know of them, without thumbnails.

    Raises:
        InputError: there are none, or they were made with other hands or another mesh.
    """
    notes: list[str] = []
    files = _shown_files(config, source, notes)
    if not files:
        raise InputError(
            f"{source.path} has no grasps to show yet: no final file, no generated one and no rejected ones; wanted a "
            "run that has merged some rounds, or path= a grasp file, such as a shard of a run that goes on"
        )
    hands = load_hands(config.hand)
    places: dict[str, int] = {}
    shapes: list[Shape] = []
    grasps = []
    for file in files:
        check_hands(file.made_with, hands, config.hand.name)
        code = file.made_with.object_code
        if code not in places:
            places[code] = len(shapes)
            mesh = mesh_made_with(file.made_with, config.object_root)
            shapes.append(Shape(code, mesh.vertices, mesh.faces))
        grasps += file.shown(places[code])
    grasps.sort(key=lambda grasp: grasp.shape)
    return Gallery(source.path.name, tuple(notes), hands, tuple(shapes), tuple(grasps))


def _shown_files(config: Config, source: GraspSource, notes: list[str]) -> list[FileGrasps]:
    """Returns the chosen grasps of a file, or of the final files of a run and of those of its rejected grasps.

    Args:
        config: which to choose.
        source: the file or the run.
        notes: gains what a reader must know.
    """
    root = source.folder.root
    if not source.is_run:
        return of_file(source.path, root, config, config.view, notes)
    folders = list(folders_of(root).values())
    files = [path for folder in folders for path in _files(folder.root)]
    rejected = [path for folder in folders for path in folder.reject_files()] if config.view.rows is None else []
    names = _wanted(sorted({path.stem for path in (*files, *rejected)}), config.view.objects)
    kinds = 2 if rejected else 1  # the final file of an object, and that of its rejected grasps
    shown = names[: max(1, config.view.most // kinds)]
    # what the page may have, shared by all files, but at least one grasp of each
    count = max(1, min(config.view.count, config.view.most // max(1, kinds * len(names))))
    files, rejected = ([path for path in paths if path.stem in set(shown)] for paths in (files, rejected))
    chosen = []
    with stage("reading grasp files", len(files) + len(rejected), "done") as reading:
        for path in files:
            chosen += of_file(path, root, config, replace(config.view, count=count), notes)
            reading.advance()
        for path in rejected:
            chosen += _rejected(path, root, config, count, notes)
            reading.advance()
    if config.view.rows is None:
        notes += _limits(config, len(names), len(shown), count, bool(rejected))
    return chosen


def _files(root: Path) -> list[Path]:
    """Returns the grasp files of a run, none where it has merged nothing yet."""
    try:
        return find_files(root)
    except InputError:
        if not root.is_dir():
            raise
        return []


def _rejected(path: Path, root: Path, config: Config, count: int, notes: list[str]) -> list[FileGrasps]:
    """Returns some rejected grasps of an object: over the whole range of energies, for the best say little of them."""
    try:
        return of_file(path, root, config, replace(config.view, count=count, choose="even"), notes)
    except InputError as error:
        notes.append(f"{path.relative_to(root)} cannot be read and is left out: {error}")
        return []


def _wanted(names: list[str], objects: str | list[str]) -> list[str]:
    """Returns the objects that the settings ask for, by their names as files.

    Raises:
        InputError: one that the run does not have, or a glob that fits none.
    """
    if isinstance(objects, str):
        chosen = [name for name in names if objects == "all" or fnmatchcase(name, objects)]
        missing = [objects] if names and not chosen else []
    else:
        chosen = [file_name(code) for code in objects]
        missing = [code for code in objects if file_name(code) not in names]
    if missing:
        raise InputError(f"view.objects has {listed(missing)}; this run has {listed(names)}")
    return chosen


def _limits(config: Config, objects: int, shown: int, count: int, has_rejected: bool) -> list[str]:
    """Returns what is not shown, so that the page has no more grasps than it may."""
    notes = []
    reason = f"so that the page has no more than view.most={config.view.most} grasps"
    if count < config.view.count:
        others = " and as many rejected ones" if has_rejected else ""
        notes.append(f"at most {count} of each object{others}, {reason}")
    if shown < objects:
        notes.append(f"{shown} of {objects} objects, {reason}; view.objects= names others")
    return notes
