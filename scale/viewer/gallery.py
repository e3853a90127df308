"""The gallery of a run or of a grasp file: its grasps, with the hands and the meshes that they were made with."""

from __future__ import annotations

from dataclasses import replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import NamedTuple

from bimangrasp.errors import InputError
from bimangrasp.files.reader import find_files
from bimangrasp.hand_files.loading import load_hands
from bimangrasp.hands.description import HandDescription, pair_sha256
from bimangrasp.objects.files import mesh_of
from bimangrasp.objects.model import read_mesh
from bimangrasp.visualization.gallery import Gallery, Shape
from scale.formatting import listed
from scale.settings.schema import Config
from scale.store.run_folder import RunFolder, file_name
from scale.viewer.cards import Found, Showing
from scale.viewer.selection import of_file

Hands = tuple[HandDescription, HandDescription]


class Target(NamedTuple):
    """What is shown and where the page goes.

    Attributes:
        path: a grasp file, or a run's folder.
        is_run: which of them.
        page: the HTML file.
    """

    path: Path
    is_run: bool
    page: Path


def target_of(config: Config) -> Target:
    """Returns what is shown and where the page goes."""
    path = Path(config.path) if config.path else Path(config.output_root) / config.exp_name
    is_run = path.is_dir() or path.name == "dataset.h5"
    root = path if path.is_dir() else path.parent
    beside = RunFolder(root).page if is_run else path.with_suffix(".html")
    out = Path(config.out) if config.out else beside
    return Target(root if is_run else path, is_run, out / beside.name if out.is_dir() else out)


def gallery_of(config: Config, target: Target) -> Gallery:
    """Returns the grasps of a run or a file with all that its files know of them, without thumbnails."""
    showing = _showing(config, target)
    if not showing.found:
        raise InputError(
            f"{target.path} has no grasps to show yet: no final file, no generated one and no rejected ones; wanted a "
            "run that has merged some rounds, or path= a grasp file, such as a shard of a run that goes on"
        )
    hands = load_hands(config.hand)
    places: dict[str, int] = {}
    shapes: list[Shape] = []
    exhibits = []
    for found in showing.found:
        _check_hands(found, hands, config.hand.name)
        if found.code not in places:
            places[found.code] = len(shapes)
            shapes.append(_shape(found, config.object_root))
        exhibits += found.exhibits(places[found.code])
    exhibits.sort(key=lambda one: one.shape)
    return Gallery(target.path.name, tuple(showing.notes), hands, tuple(shapes), tuple(exhibits))


def _showing(config: Config, target: Target) -> Showing:
    showing = Showing()
    if not target.is_run:
        showing.add(of_file(target.path, target.path.parent, config, config.view, showing.notes))
        return showing
    files = _files(target.path)
    rejected = RunFolder(target.path).reject_files() if config.view.rows is None else []
    names = _wanted(sorted({path.stem for path in (*files, *rejected)}), config.view.objects)
    kinds = 2 if rejected else 1  # the final file of an object, and that of its rejected grasps
    shown = names[: max(1, config.view.most // kinds)]
    count = max(1, min(config.view.count, config.view.most // max(1, kinds * len(names))))
    for path in (path for path in files if path.stem in shown):
        showing.add(of_file(path, target.path, config, replace(config.view, count=count), showing.notes))
    for path in (path for path in rejected if path.stem in shown):
        showing.add(_rejected(path, target.path, config, count, showing.notes))
    if config.view.rows is None:
        showing.notes += _limits(config, len(names), len(shown), count, bool(rejected))
    return showing


def _files(root: Path) -> list[Path]:
    """Returns the grasp files of a run, none where it has merged nothing yet."""
    try:
        return find_files(root)
    except InputError:
        if not root.is_dir():
            raise
        return []


def _rejected(path: Path, root: Path, config: Config, count: int, notes: list[str]) -> Found | None:
    """Returns some rejected grasps of an object: over the whole range of energies, for the best say little of them."""
    try:
        return of_file(path, root, config, replace(config.view, count=count, choose="even"), notes)
    except InputError as error:
        notes.append(f"{path.relative_to(root)} cannot be read and is left out: {error}")
        return None


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
    most, notes = f"so that the page has no more than view.most={config.view.most} grasps", []
    if count < config.view.count:
        others = " and as many rejected ones" if has_rejected else ""
        notes.append(f"at most {count} of each object{others}, {most}")
    if shown < objects:
        notes.append(f"{shown} of {objects} objects, {most}; view.objects= names others")
    return notes


def _check_hands(found: Found, hands: Hands, name: str) -> None:
    if pair_sha256(*hands) != found.hand_sha256:
        raise InputError(
            f"{found.source} has grasps of other hands (sha256 {found.hand_sha256[:16]}...) than hand={name} "
            f"({pair_sha256(*hands)[:16]}...); name the hand that it was made with"
        )


def _shape(found: Found, object_root: str) -> Shape:
    """Returns the object of grasps."""
    mesh = read_mesh(str(mesh_of(object_root, found.code)))
    if mesh.sha256 != found.mesh_sha256:
        raise InputError(
            f"{found.source} was made with another mesh of {found.code!r} (sha256 {found.mesh_sha256[:16]}...) than "
            f"object_root has ({mesh.sha256[:16]}...); set object_root to the folder it was made with"
        )
    return Shape(found.code, mesh.vertices, mesh.faces)
