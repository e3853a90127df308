"""Resolves the object codes of a run to meshes in the folder of meshes."""

from __future__ import annotations

import json
from collections import Counter
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, NamedTuple

from bimangrasp.builtin import OBJECT_ROOT
from bimangrasp.errors import InputError
from bimangrasp.objects.files import DECOMPOSED, SUFFIXES, meshes_below, root_of
from scale.formatting import listed
from scale.settings.parsing import hint, is_safe, parse_object_codes

OTHER_SUFFIXES = (".stp", ".step", ".dae", ".fbx", ".3ds", ".gltf", ".blend", ".usd", ".usdz", ".3mf", ".x3d", ".wrl")
"""Suffixes of mesh formats that are not supported."""


class ObjectEntry(NamedTuple):
    """One object of a run.

    Attributes:
        code: name of the object.
        path: path of its mesh.
    """

    code: str
    path: Path


def resolve_objects(object_root: str, object_code_list: Any) -> list[ObjectEntry]:
    """Returns the objects of a run, in the order of the list; `all` and globs sorted by code.

    Args:
        object_root: folder with `<code>/coacd/decomposed.obj` or `<code>.obj|.stl|.ply|.glb|.off`; empty for
            the built-in objects.
        object_code_list: a list of codes, "all", a glob, the path of a JSON or text file, or one code.

    Raises:
        InputError: a root that is missing, a code that is unknown, listed twice or unsafe as a name.
    """
    root = root_of(object_root)
    meshes = meshes_below(root)
    codes = _resolve_codes(parse_object_codes(object_code_list), meshes, root)
    _check_codes(codes)
    _refuse_unknown(codes, meshes, root)
    return [ObjectEntry(code, _single_mesh(code, meshes[code])) for code in codes]


def select_usable(object_root: str, object_code_list: Any) -> tuple[list[ObjectEntry], dict[str, str]]:
    """Returns the usable objects that `resolve_objects` would, and code -> reason for those that are left out.

    With the list "all", other files in the folder that look like meshes are left out with a reason as well. A list of
    built-in objects, which is the default, stands for all meshes of another folder that has none of them.

    Raises:
        InputError: a root that is missing, a code that is unknown or listed twice.
    """
    root = root_of(object_root)
    meshes = meshes_below(root)
    wanted = "all" if _is_builtin_choice(object_code_list, root, meshes) else parse_object_codes(object_code_list)
    others = _other_files(root, meshes) if wanted == "all" else {}
    codes = [] if wanted == "all" and not meshes else _resolve_codes(wanted, meshes, root)
    safe = [code for code in codes if is_safe(code)]
    rejected = {code: _unsafe_codes_message([code]) for code in codes if not is_safe(code)}
    _check_codes(safe)
    _refuse_unknown(safe, meshes, root)
    rejected |= {code: _several_meshes_message(code, meshes[code]) for code in safe if len(meshes[code]) > 1}
    return [ObjectEntry(code, *meshes[code]) for code in safe if code not in rejected], rejected | others


def _is_builtin_choice(object_code_list: Any, root: Path, meshes: dict[str, list[Path]]) -> bool:
    """Whether a list names built-in objects, and the folder is another one without them."""
    wanted = set(object_code_list) if isinstance(object_code_list, list) else set()
    return root != OBJECT_ROOT and bool(wanted) and wanted <= set(meshes_below(OBJECT_ROOT)) - set(meshes)


def _other_files(root: Path, meshes: dict[str, list[Path]]) -> dict[str, str]:
    """Returns name -> advice for files and folders that look like meshes but cannot be used."""
    reasons = {}
    for item in sorted(root.iterdir()):
        if item.name.startswith("."):
            continue
        if item.is_file() and item.suffix.lower() in OTHER_SUFFIXES:
            reasons[item.name] = f"{item.suffix} files are not read: convert it to one of {', '.join(SUFFIXES)}"
        elif item.is_dir() and item.name not in meshes:
            inside = sorted(path for path in item.rglob("*") if path.suffix.lower() in SUFFIXES)
            if inside:
                first = inside[0].relative_to(root)
                reasons[item.name] = (
                    f"this folder has {len(inside)} meshes ({first}...) and no {DECOMPOSED}: move the one that is "
                    f"meant to <code>{inside[0].suffix}"
                )
    return reasons


def _resolve_codes(wanted: str | list[str], meshes: dict[str, list[Path]], root: Path) -> list[str]:
    """Returns the codes that `object_code_list` stands for."""
    if isinstance(wanted, list):
        return wanted
    if wanted == "all" or (wanted not in meshes and any(char in wanted for char in "*?[")):
        pattern = "*" if wanted == "all" else wanted
        codes = sorted(code for code in meshes if fnmatchcase(code, pattern))
        if not codes:
            raise InputError(f"object_code_list={wanted!r} fits no object in {root}, {_available(meshes)}")
        return codes
    if wanted not in meshes and wanted.lower().endswith((".json", ".txt")):
        return _read_codes(Path(wanted))
    return [wanted]


def _read_codes(path: Path) -> list[str]:
    """Returns the codes in a file: a JSON list, or a line each (empty lines and # comments left out)."""
    try:
        text = path.read_text(encoding="utf-8")
        content = json.loads(text) if path.suffix.lower() == ".json" else _lines(text)
    except (OSError, ValueError) as error:
        raise InputError(
            f"object_code_list={str(path)!r} cannot be read ({error}): wanted a JSON list of codes or a text "
            f"file with a code on each line"
        ) from error
    codes = parse_object_codes(content)
    if isinstance(codes, str):
        raise InputError(f"object_code_list={str(path)!r} holds one text; wanted a JSON list of codes")
    return codes


def _lines(text: str) -> list[str]:
    """Returns the lines of a text that are neither empty nor comments."""
    stripped = (line.strip() for line in text.splitlines())
    return [line for line in stripped if line and not line.startswith("#")]


def _check_codes(codes: list[str]) -> None:
    """Refuses codes that cannot name a file and codes that are listed twice."""
    unsafe = [code for code in codes if not is_safe(code)]
    if unsafe:
        raise InputError(_unsafe_codes_message(unsafe))
    twice = [code for code, count in Counter(codes).items() if count > 1]
    if twice:
        raise InputError(f"object_code_list names {listed(twice)} more than once; wanted each object once")


def _unsafe_codes_message(unsafe: list[str]) -> str:
    """Returns the message for codes that cannot name a file."""
    return (
        f"object_code_list has {listed(unsafe)}: a code names a file, so it is UTF-8, has no / or \\, no control "
        f"character, no leading dot or outer space, and 200 bytes at most; rename the mesh"
    )


def _several_meshes_message(code: str, paths: list[Path]) -> str:
    """Returns the message for a code with several meshes."""
    names = ", ".join(sorted(str(path) for path in paths))
    return f"object {code!r} has {len(paths)} meshes ({names}): wanted one; move the others away"


def _refuse_unknown(codes: list[str], meshes: dict[str, list[Path]], root: Path) -> None:
    """Refuses codes without a mesh."""
    unknown = [code for code in codes if code not in meshes]
    if unknown:
        raise InputError(
            f"object_code_list names {listed(unknown)}, and there is no <code>/{DECOMPOSED} and no <code>"
            f"{'|'.join(SUFFIXES)} of that name in {root}{hint(unknown[0], meshes)}, {_available(meshes)}"
        )


def _available(meshes: dict[str, list[Path]]) -> str:
    """Returns a clause that lists the objects that exist."""
    return f"which has {listed(sorted(meshes))}" if meshes else "which has no mesh at all"


def _single_mesh(code: str, paths: list[Path]) -> Path:
    """Returns the only mesh of a code; refuses several."""
    if len(paths) > 1:
        raise InputError(_several_meshes_message(code, paths))
    return paths[0]
