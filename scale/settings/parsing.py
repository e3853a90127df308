"""Parses the settings that people write in many forms: object codes and their meshes, quotas, devices."""

from __future__ import annotations

import difflib
import json
from collections import Counter
from collections.abc import Iterable
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, NamedTuple

from bimangrasp.builtin import OBJECT_ROOT
from bimangrasp.errors import InputError
from bimangrasp.objects.files import DECOMPOSED, SUFFIXES, meshes_below, root_of
from scale.formatting import listed

DEFAULT = "default"
"""The entry of a quota mapping that stands for every object it does not name."""
LEAST_LIKE = 0.6
"""Names that are less alike than this, of 1, are not taken for misspellings of each other."""
MOST_NAMED = 3
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
    for code in codes:
        if len(meshes[code]) > 1:
            raise InputError(_several_meshes_message(code, meshes[code]))
    return [ObjectEntry(code, *meshes[code]) for code in codes]


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


def parse_object_codes(value: Any) -> str | list[str]:
    """Returns `object_code_list` as text ("all", a glob, a file, one code) or a list of codes.

    Raises:
        InputError: something that is not text, which YAML makes of a bare 2026_11_20 or 1e5; an empty list.
    """
    if isinstance(value, str) and value.strip():
        return value.strip()
    if not isinstance(value, list | tuple) or not value:
        raise InputError(
            f"object_code_list={value!r}: wanted a list of codes such as [mug,bowl], all, a glob, or a "
            f".json or .txt file{_quote_hint(value)}"
        )
    for item in value:
        if not isinstance(item, str):
            raise InputError(
                f"object_code_list has {item!r}, read as {type(item).__name__}; wanted text{_quote_hint(item)}"
            )
    return list(value)


def parse_target(value: Any, codes: Iterable[str]) -> dict[str, int]:
    """Returns object code -> quota, for every listed object.

    Args:
        value: `target_count_per_object`: a number, a mapping, or the path of a JSON file with a mapping.
        codes: the resolved object list.

    Raises:
        InputError: a quota below 1 or not whole, an object without one, one for an object not listed.
    """
    codes = list(codes)
    target = read_target(value)
    if isinstance(target, int):
        return dict.fromkeys(codes, target)
    _refuse_strangers(target, codes)
    missing = [code for code in codes if code not in target and DEFAULT not in target]
    if missing:
        raise InputError(
            f"target_count_per_object has no number for {listed(missing)}: wanted one for every listed "
            f"object, or an entry {DEFAULT!r}"
        )
    return {code: target.get(code, target.get(DEFAULT)) for code in codes}


def read_target(value: Any) -> int | dict[str, int]:
    """Returns `target_count_per_object` as a number or a mapping, without knowing the objects.

    Raises:
        InputError: see `parse_target`; a file that is missing or holds no mapping.
    """
    if isinstance(value, str) and not value.strip().isdigit():
        value = _read_json(value)
    if not isinstance(value, dict):
        return _count(value, "target_count_per_object")
    if not value:
        raise InputError("target_count_per_object={}: wanted a number for every listed object, or default")
    for code in value:
        if not isinstance(code, str):
            raise InputError(
                f"target_count_per_object has the key {code!r}, read as {type(code).__name__}; wanted a code "
                f"as text: quote it, or write the mapping into a .json file"
            )
    return {code: _count(number, f"target_count_per_object[{code}]") for code, number in value.items()}


def parse_gpus(value: Any) -> str | list[str]:
    """Returns `gpus` as "auto", "gpu" or a list with a token for each worker: a device number, an UUID, or "cpu".

    Raises:
        InputError: something else. Whether a device exists is not looked up here.
    """
    if value in ("auto", "gpu"):
        return value
    items = list(value) if isinstance(value, list | tuple) else [value]
    if not items:
        raise InputError("gpus=[]: wanted at least one device, such as [0,1], [cpu,cpu] or auto")
    return [_device(item) for item in items]


def _quote_hint(value: Any) -> str:
    """Returns how to quote a value that was meant as a code; nothing for other values."""
    if isinstance(value, bool | int | float):
        return f": quote it as it is spelled, for {value} 'object_code_list=[\"{value}\"]'"
    return ""


def _count(value: Any, name: str) -> int:
    """Returns a quota as a whole number above 0; 1e5 is 100000."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    is_digits = isinstance(value, str) and value.strip().isdigit()
    if not (is_number or is_digits) or not float(value).is_integer() or int(value) < 1:
        raise InputError(f"{name}={value!r}: wanted a whole number, 1 or more")
    return int(value)


def _read_json(path: str) -> dict[str, Any]:
    """Returns the mapping in a JSON file; a code that stands there twice is refused."""
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"), object_pairs_hook=_pairs)
    except (OSError, ValueError) as error:
        raise InputError(
            f"target_count_per_object={path!r} cannot be read ({error}): wanted a number, a mapping such as "
            f"{{mug:100,default:50}}, or a JSON file with such a mapping"
        ) from error
    if not isinstance(content, dict):
        raise InputError(f"target_count_per_object={path!r} holds {type(content).__name__}; wanted a mapping")
    return content


def _pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Returns a JSON object as a dict; refuses a name that stands twice."""
    twice = [name for name, count in Counter(name for name, _ in pairs).items() if count > 1]
    if twice:
        raise ValueError(f"{listed(twice)} stands there twice")
    return dict(pairs)


def _refuse_strangers(target: dict[str, int], codes: list[str]) -> None:
    """Refuses a quota for an object that is not in the list: most often a misspelled one."""
    strangers = sorted(set(target) - set(codes) - {DEFAULT})
    if strangers:
        raise InputError(
            f"target_count_per_object names {listed(strangers)}, not in object_code_list"
            f"{hint(strangers[0], codes)}: name listed objects only"
        )


def _device(item: Any) -> str:
    """Returns one device's token."""
    number = item if isinstance(item, int) and not isinstance(item, bool) else None
    if isinstance(item, str) and item.isdigit():
        number = int(item)
    if number is not None and number >= 0:
        return str(number)
    if isinstance(item, str) and (item == "cpu" or item.startswith(("GPU-", "MIG-"))):
        return item
    raise InputError(
        f"gpus has {item!r}: wanted auto, gpu (all GPUs, and no run without one), a device number, an UUID (GPU-... or "
        f"MIG-...), cpu, or a list of them, such as [0,1] or [cpu,cpu]"
    )


def is_folder_name(name: str) -> bool:
    """Whether a text can be the name of a folder, or of a folder below another (parted by /)."""
    return all(is_safe(part) for part in name.split("/"))


def is_safe(part: str) -> bool:
    """Whether a text can be one part of a path anywhere: no separator, control code, leading dot."""
    try:
        size = len(part.encode())
    except UnicodeEncodeError:
        return False
    printable = not any(ord(char) < 32 or ord(char) == 127 or char in "/\\" for char in part)
    return 0 < size <= 200 and part.strip() == part and not part.startswith(".") and printable


def nearest(name: str, choices: Iterable[str]) -> list[str]:
    """Returns the choices that `name` most likely means, the likeliest first; none where none is near."""
    likeness = {choice: _likeness(name.lower(), choice.lower()) for choice in choices}
    near = [choice for choice, score in likeness.items() if score >= LEAST_LIKE]
    return sorted(near, key=lambda choice: -likeness[choice])[:MOST_NAMED]


def hint(name: str, choices: Iterable[str]) -> str:
    """Returns " (nearest: a, b, c)" with the choices most like `name`, or nothing where none is."""
    near = nearest(name, choices)
    return f" (nearest: {', '.join(near)})" if near else ""


def _likeness(name: str, choice: str) -> float:
    """Returns how alike a name is to a choice or to the last part of a dotted one, 0 to 1."""
    last = choice.rpartition(".")[2]
    return max(difflib.SequenceMatcher(None, name, target).ratio() for target in (choice, last))


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
