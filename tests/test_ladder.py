"""Imports run one way, and some things are nowhere in the code."""

from __future__ import annotations

import ast
import importlib
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest
from conftest import CHECKED, UNCHECKED

ROOT = Path(__file__).resolve().parents[1]
FILES = [
    ROOT / "main.py",
    *sorted(path for room in ("bimangrasp", "scale", "conf") for path in (ROOT / room).rglob("*.py")),
]
LADDER = {
    "bimangrasp": {
        "errors": "",
        "ranges": "errors",
        "builtin": "errors",
        "energy_terms": "",
        "grasp": "",
        "poses": "errors",
        "sampler": "ranges",
        "geometry": "errors",
        "objects": "errors ranges builtin geometry",
        "hands": "errors grasp geometry",
        "hand_files": "errors ranges builtin hands",
        "files": "errors energy_terms builtin grasp objects hands",
        "energy": "errors energy_terms ranges builtin grasp sampler objects hands",
        "energy.fused": "energy_terms builtin grasp sampler geometry objects hands energy",
        "config": "ranges sampler objects energy",
        "contact_choice": "errors grasp objects hands",
        "initialization": "grasp geometry objects hands config",
        "synthesis": (
            "grasp poses sampler geometry objects hands energy energy.fused config contact_choice initialization"
        ),
        "interop": "errors poses geometry objects hands",
        "validation": "errors ranges builtin grasp poses geometry hands hand_files files",
        "validation.on_device": "builtin objects hand_files validation",
        "visualization": "errors energy_terms builtin grasp poses objects hands hand_files files",
        "hand_setup": "errors hands hand_files visualization",
        "diagnosis": "errors hands validation",
        "": "files",
    },
    "scale": {
        "errors": "",
        "formatting": "",
        "screen": "formatting",
        "settings": "formatting screen",
        "store": "errors formatting settings",
        "merge": "settings store",
        "engine": "settings store",
        "cluster": "errors settings store engine",
        "state": "formatting settings store merge engine",
        "controller": "errors formatting screen settings store merge engine cluster state",
        "report": "formatting screen settings store merge engine",
        "viewer": "errors formatting screen settings store merge engine",
        "modes": "errors formatting screen settings store engine",
        "": "settings engine controller report viewer modes",
        "command": "errors screen settings store scale",
    },
}
"""Package -> room -> the rooms that it may know, all of which stand above it. A room is a folder, or a module that
stands directly in a package; "" is the package itself, which others know by its name. `scale` may know all of
`bimangrasp`, and not the other way."""
ROOM_SIZE = range(3, 13)


def module(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


KNOWN = {module(path) for path in FILES}


@cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


@cache
def imports(path: Path) -> list[tuple[str, str]]:
    """Returns (module, name) of everything a file imports; name is empty for `import module`."""
    found = []
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.Import):
            found += [(alias.name, "") for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} has a relative import"
            found += [(node.module or "", alias.name) for alias in node.names]
    return found


def modules(path: Path) -> set[str]:
    """Returns the modules that a file imports, `from bimangrasp import poses` told as bimangrasp.poses."""
    return {f"{room}.{name}" if f"{room}.{name}" in KNOWN else room for room, name in imports(path)}


def place(name: str) -> tuple[str, str]:
    """Returns the package and the room of a module."""
    package, _, rest = name.partition(".")
    is_room = (ROOT / package / rest.replace(".", "/")).is_dir()
    return package, rest if is_room or "." not in rest else rest.rpartition(".")[0]


def test_every_file_stands_in_a_room_that_the_ladder_knows():
    found = {place(module(path)) for path in FILES}
    for package, rooms in LADDER.items():
        assert {room for other, room in found if other == package} == set(rooms), "LADDER has other rooms"


def test_a_room_knows_only_rooms_above_it():
    for package, rooms in LADDER.items():
        above = set()
        for room, known in rooms.items():
            assert set(known.split()) <= above, f"{room} may know {set(known.split()) - above}, not above it"
            above.add(room or package)


@pytest.mark.parametrize("path", [path for path in FILES if path.parts[-2] != "conf"], ids=module)
def test_imports_run_down_the_ladder(path):
    package, here = place(module(path))
    for other in modules(path):
        there, room = place(other)
        if there == package and there in LADDER and room != here:
            assert (room or package) in LADDER[package][here].split(), (
                f"{module(path)} imports {other}, which {here} may not know"
            )


def test_rooms_have_few_modules():
    for package, rooms in LADDER.items():
        for room in ["", *rooms]:
            folder = ROOT / package / room.replace(".", "/")
            count = len(list(folder.glob("*.py"))) - 1 if folder.is_dir() and room != "assets" else 3
            assert count in ROOM_SIZE or (room == "" and count <= ROOM_SIZE[-1]), f"{folder} has {count} modules"


def test_shape_checks_find_every_module():
    """A wrong shape is refused in each room that has shapes; the hook names modules, and a name may be wrong."""
    shaped = [path for path in FILES if "bimangrasp" in path.parts and "jaxtyping" in path.read_text(encoding="utf-8")]
    names = {module(path) for path in shaped if UNCHECKED not in path.parts}
    assert names <= set(CHECKED), f"no shape is checked in {names - set(CHECKED)}"
    for name in sorted(names):
        checked = getattr(importlib.import_module(name).__spec__.loader, "__class__", None)
        assert "jaxtyping" in checked.__module__, f"{name} was imported before the hook was there"


def test_no_import_cycle():
    graph = {module(path): modules(path) for path in FILES}
    done: set[str] = set()

    def visit(name: str, path: tuple[str, ...]) -> None:
        assert name not in path, " -> ".join((*path, name))
        if name in done:
            return
        for other in graph.get(name, ()):
            if other != name.split(".")[0]:  # a package runs before its modules; that is no cycle
                visit(other, (*path, name))
        done.add(name)

    for name in graph:
        visit(name, ())


def test_bimangrasp_knows_nothing_of_runs():
    for path in (ROOT / "bimangrasp").rglob("*.py"):
        tops = {name.split(".")[0] for name in modules(path)}
        assert not tops & {"scale", "conf", "main", "hydra", "omegaconf", "rich", "multiprocessing"}, path


def test_mala_knows_no_hands():
    names = modules(ROOT / "bimangrasp" / "sampler" / "mala.py")
    assert not [name for name in names if "hand" in name or "energies" in name or "object" in name]


def test_the_judge_knows_no_optimizer():
    optimizer = {"synthesis", "sampler", "evaluator", "fused", "energies", "mala", "initialization", "wrench"}
    for path in (ROOT / "bimangrasp" / "validation").rglob("*.py"):
        assert not {part for name in modules(path) for part in name.split(".")} & optimizer, path


def test_validation_and_visualization_do_not_know_each_other():
    for room, other in (("validation", "visualization"), ("visualization", "validation")):
        for path in (ROOT / "bimangrasp" / room).rglob("*.py"):
            assert not [name for name in modules(path) if name.startswith(f"bimangrasp.{other}")], path


def test_only_the_worker_makes_grasps():
    for path in (ROOT / "scale").rglob("*.py"):
        if path.name == "synthesizer.py":
            continue
        taken = {name for room, name in imports(path) if room == "bimangrasp.synthesis"}
        assert not taken, f"{path} takes {taken} from synthesis"
        assert ("bimangrasp", "synthesis") not in imports(path), path


def test_hydra_stops_at_main_and_conf():
    for path in (ROOT / "scale").rglob("*.py"):
        assert "hydra" not in {name.split(".")[0] for name in modules(path)}, path


@pytest.mark.slow
@pytest.mark.parametrize("name", ["bimangrasp", "bimangrasp.synthesis", "bimangrasp.files.formats"])
def test_importing_bimangrasp_loads_no_run_and_no_viewer(name):
    code = f"import sys, {name}; print(*sorted({{module.split('.')[0] for module in sys.modules}}))"
    shown = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert not set(shown.stdout.split()) & {"hydra", "omegaconf", "scale", "conf", "rich", "viser", "plotly", "pyglet"}


@pytest.mark.parametrize("path", FILES, ids=module)
def test_forbidden_words(path):
    tree = tree_of(path)
    for node in ast.walk(tree):
        place = f"{path}:{getattr(node, 'lineno', 0)}"
        if isinstance(node, ast.Attribute):
            assert ast.unparse(node) not in ("sys.path", "os.chdir"), place
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "cuda":
            assert node.args or node.keywords, f"{place} takes whatever GPU is current"
        if isinstance(node, ast.ImportFrom):
            assert all(alias.name != "*" for alias in node.names), place
        if isinstance(node, ast.keyword) and node.arg == "allow_pickle":
            assert ast.unparse(node.value) == "False", place
        if isinstance(node, ast.ExceptHandler):
            assert node.type is not None, f"{place} swallows everything"
            assert not (len(node.body) == 1 and isinstance(node.body[0], ast.Pass)), f"{place} swallows"


GRAMMAR = {"one", "found", "told", "promised", "Trade", "Bench", "Maker", "Cast", "Studio"}
"""Words that name a role in a sentence, or this project's history, and never a thing."""


@pytest.mark.parametrize("path", FILES, ids=module)
def test_names_are_of_things(path):
    for node in ast.walk(tree_of(path)):
        names = [getattr(node, kind, None) for kind in ("id", "arg", "attr", "name")]
        assert not GRAMMAR & {name for name in names if isinstance(name, str)}, f"{path}:{getattr(node, 'lineno', 0)}"


@pytest.mark.parametrize("path", [path for path in FILES if path.name != "__init__.py"], ids=module)
def test_a_module_says_first_what_it_does(path):
    first = ast.get_docstring(tree_of(path)).partition(" ")[0]
    assert first.rstrip(",").endswith("s"), f"{path} begins with {first!r}; wanted what the module does"
