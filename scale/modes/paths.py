"""Chooses the files that a mode reads and writes, and refuses what cannot be, before hands or meshes are read.

Nothing here loads torch, MuJoCo or trimesh, so that a wrong path is answered at once.
"""

from __future__ import annotations

import re
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

from bimangrasp.builtin import install_command
from bimangrasp.errors import InputError
from bimangrasp.files.reader import LINKS, find_files
from bimangrasp.hand_files.config import find_mjcf
from bimangrasp.objects.files import DECOMPOSED, root_of
from scale.settings.parsing import ObjectEntry, select_usable
from scale.settings.schema import Config
from scale.store import path_settings
from scale.store.path_settings import GraspSource, given_path, grasp_source
from scale.store.run_folder import RunFolder

SUFFIXES = {"npy": ".npy", "npz": ".npz", "csv": ".csv", "parquet": ".parquet", "dexgraspbench": ".dexgraspbench"}
JOINED = {"csv": "grasps.csv", "parquet": "grasps.parquet", "dexgraspbench": ""}
"""Formats in which all objects of a run are in one file, and its name; an empty one is the folder itself."""

HANDS = "hand"
"""Name of the folder in which Hydra looks for hands."""

UNKNOWN_HAND = "own"
"""Name of the preset for a hand of which only the file is known."""

SHIPPED = (
    "ability",
    "allegro",
    "inspire",
    "inspire_dex_urdf",
    "leap",
    UNKNOWN_HAND,
    "release",
    "shadow",
    "shadow_coupled",
    "xhand",
)
"""Names of the package's own YAMLs, which Hydra would read in place of the user's."""


class ExportJob(NamedTuple):
    """Grasp files, and the file or folder that is made of them."""

    sources: list[Path]
    target: Path


class ImportJob(NamedTuple):
    """A result file of BimanGrasp, and the grasp file that is made of it."""

    source: Path
    target: Path


class ValidationTarget(NamedTuple):
    """A file to validate and where its verdicts go."""

    grasps: Path
    verdicts: Path


class HandPaths(NamedTuple):
    """Where results of `mode=hand` go.

    Attributes:
        name: of the hand.
        yaml: its YAML; None for a shipped hand without `out`.
        picture: of it.
    """

    name: str
    yaml: Path | None
    picture: Path


def export_jobs(config: Config) -> list[ExportJob]:
    """Returns which files of a run, or which single one, become which.

    Raises:
        InputError: nothing to export, a target that is there already, or a format that needs a missing package.
    """
    if config.format == "parquet" and find_spec("pyarrow") is None:
        raise InputError(
            f"format=parquet needs pyarrow, which is not installed: {install_command('parquet')}; format=csv needs "
            "nothing"
        )
    jobs = _export_jobs(config)
    for job in jobs:
        path_settings.check_free(job.target)
    return jobs


def _export_jobs(config: Config) -> list[ExportJob]:
    path, suffix = given_path(config), SUFFIXES[config.format]
    sources = find_files(path)
    if sources == [path]:
        return [ExportJob(sources, path_settings.target(config.out, path.with_suffix(suffix)))]
    run = RunFolder(path if path.is_dir() else path.parent)  # a file of links lies in the folder of its run
    folder = Path(config.out) if config.out else run.exported / config.format
    if folder.is_file():
        raise InputError(f"out={str(folder)!r} is a file; {path} has several grasp files: name a folder for theirs")
    if config.format in JOINED:
        return [ExportJob(sources, folder / JOINED[config.format])]
    return [ExportJob([source], folder / f"{source.stem}{suffix}") for source in sources]


def import_job(config: Config) -> ImportJob:
    """Returns which result file becomes which grasp file.

    Raises:
        InputError: no such file, or a target that is there already.
    """
    source = Path(config.path)
    if not config.path or source.suffix != ".npy":
        raise InputError(
            f"path={config.path!r} is no result file of BimanGrasp; wanted path=<folder>/<object code>.npy"
        )
    if not source.is_file():
        raise InputError(f"result file {source} is not there; wanted path=<folder>/<object code>.npy")
    target = path_settings.target(config.out, source.with_suffix(".h5"))
    path_settings.check_free(target)
    return ImportJob(source, target)


def validation_targets(config: Config) -> list[ValidationTarget]:
    """Returns the files to validate: one, or all final files of a run.

    Raises:
        InputError: there is none.
    """
    source, protocol = grasp_source(config), config.validation.name
    path = source.path
    if path.is_file():
        return [ValidationTarget(path, path.with_name(f"{path.stem}.{protocol}.h5"))]
    finals = source.final_files()
    if not finals and (path / LINKS).is_file():
        find_files(path)  # which says what its links miss
    if not finals:
        raise InputError(
            f"{path} is no grasp file and no run folder with final files; set path= to a file of ours (.h5), a result "
            f"file of BimanGrasp (.npy) or a run's folder, or exp_name= to a run"
        )
    return [ValidationTarget(final, source.folder.judgment(protocol, final.stem)) for final in finals]


def view_paths(config: Config) -> tuple[GraspSource, Path]:
    """Returns the run or the grasp file that `mode=view` shows, and where its page goes.

    Raises:
        InputError: it is not there, or a file in the page's place that is no page.
    """
    source = grasp_source(config)
    links = source.folder.root / LINKS
    if not source.is_run:
        find_files(source.path)
    elif links.is_file() and not source.folder.journal.exists():
        find_files(links)  # which says what its links miss
    default = source.folder.page if source.is_run else source.path.with_suffix(".html")
    target = path_settings.target(config.out, default)
    path_settings.check_free(target, "page of mode=view", _is_page)
    return source, target


def _is_page(path: Path) -> bool:
    """Whether a file is a page of this mode, by the tag of its data."""
    try:
        return '<script id="data" type="application/json">' in path.read_text(encoding="utf-8")
    except (OSError, ValueError):
        return False


def hand_paths(config: Config) -> HandPaths:
    """Returns where results of `mode=hand` go; `hand/` is the folder in which `--config-dir` looks for hands.

    Raises:
        InputError: there is no file of a hand, `out` cannot be used, or the YAML exists already.
    """
    hand = config.hand
    if hand.format != "mjcf":
        raise InputError(f"mode=hand looks at MJCF and URDF files; hand={hand.name} has the format {hand.format!r}")
    if not hand.mjcf:
        raise InputError("mode=hand wants the file of a hand: hand.mjcf=<MJCF or URDF>, or a shipped one: hand=shadow")
    find_mjcf(hand.mjcf)
    out = Path(config.out).expanduser() if config.out else None
    if out and out.suffix in (".yml", ".xml", ".png"):
        raise InputError(f"out={config.out!r}: wanted a .yaml, which is what Hydra reads, or a folder for one")
    if out and out.suffix == ".yaml":
        folder, stem = out.parent, out.stem
    else:
        folder = out or Path()
        stem = hand.name if hand.name != UNKNOWN_HAND else Path(hand.mjcf).stem
    name = re.sub(r"[^A-Za-z0-9_-]+", "_", stem).strip("_") or UNKNOWN_HAND
    if out is None and hand.name != UNKNOWN_HAND and hand.candidates.palmar:
        return HandPaths(name, None, Path(f"{name}.png"))
    if name in SHIPPED and stem == (out.stem if out else None):
        raise InputError(f"out={config.out!r}: hand={name} is one of the package; give the YAML another name")
    name = f"my_{name}" if name in SHIPPED else name
    folder = folder if folder.name == HANDS else folder / HANDS
    yaml = folder / f"{name}.yaml"
    if yaml.exists():
        raise InputError(f"{yaml} is there already; move it away, or set out= to another YAML")
    return HandPaths(name, yaml, folder / f"{name}.png")


def mesh_choice(config: Config) -> tuple[list[ObjectEntry], dict[str, str]]:
    """Returns the meshes that `mode=objects` looks at, and code -> reason for those that it leaves out.

    Raises:
        InputError: there is none, `out` cannot be used, or a package is missing.
    """
    _check_preparation(config)
    entries, left_out = select_usable(config.object_root, config.object_code_list)
    if not entries and not left_out:
        raise InputError(
            f"object_root={config.object_root!r} has no mesh at all; wanted <code>.obj, .stl, .ply, .glb, .off or "
            f"<code>/{DECOMPOSED}"
        )
    return entries, left_out


def _check_preparation(config: Config) -> None:
    """Refuses settings that cannot work for any mesh."""
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
