"""The gallery of a run or of a grasp file: its grasps, with the hands and the meshes that they were made with."""

from __future__ import annotations

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
from scale.store.run_folder import RunFolder, file_name, parse_shard_name
from scale.viewer.cards import Found, Showing
from scale.viewer.selection import of_files
from scale.viewer.unmerged import add_others

Hands = tuple[HandDescription, HandDescription]


class NoGrasps(InputError):
    """A run or a file without a grasp, so far."""


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
        raise NoGrasps(
            f"{target.path} has no grasps to show yet: no final file, no generated one and no sealed round; wanted a "
            "run that has begun, or path= a grasp file"
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
    if not target.is_run:
        return of_files([target.path], target.path.parent, config, config.view.count)
    folder = RunFolder(target.path)
    try:
        files = find_files(target.path)
    except InputError:
        if not target.path.is_dir():
            raise
        files = []  # a run that has merged nothing yet
    sealed = (parse_shard_name(path.name).code_name for path in folder.shard_files())
    every = sorted({*(path.stem for path in files), *sealed, *(path.stem for path in folder.reject_files())})
    names = _wanted(every, config.view.objects)
    shown, count = names[: config.view.most], max(1, min(config.view.count, config.view.most // max(1, 2 * len(names))))
    showing = of_files([path for path in files if path.stem in shown], target.path, config, count)
    if config.view.rows is None:
        add_others(showing, folder, config, shown, count)
        showing.notes += _limits(config, len(names), len(shown), count)
    return showing


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


def _limits(config: Config, objects: int, shown: int, count: int) -> list[str]:
    """Returns what is not shown, so that the page has no more grasps than it may."""
    most, notes = f"so that the page has no more than view.most={config.view.most} grasps", []
    if count < config.view.count:
        notes.append(f"at most {count} of each object and as many that do not count, {most}")
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
