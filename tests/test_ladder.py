"""Imports run one way, and some things are nowhere in the code."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FILES = [
    ROOT / "main.py",
    *sorted(path for room in ("bimangrasp", "scale", "conf") for path in (ROOT / room).rglob("*.py")),
]
RECORDS = {"SynthesisConfig", "ALGORITHM_VERSION"}
"""What `scale` may take from `synthesis` outside of its worker: names, no work."""
STEPS = [
    ("main",),
    ("conf",),
    ("scale",),
    ("bimangrasp.visualization.animation",),
    ("bimangrasp.frames",),
    ("bimangrasp.validation.summary", "bimangrasp.validation.verdict_file"),
    ("bimangrasp.validation.judging",),
    ("bimangrasp.visualization.page", "bimangrasp.visualization.thumbnails"),
    ("bimangrasp.visualization.page_data",),
    ("bimangrasp.visualization.exhibits", "bimangrasp.visualization.portrait"),
    ("bimangrasp.visualization.stage", "bimangrasp.visualization.meshes"),
    (
        "bimangrasp.synthesis",
        "bimangrasp.validation.simulate",
        "bimangrasp.validation.pose_rule",
        "bimangrasp.dataset",
        "bimangrasp.preparation",
    ),
    ("bimangrasp.validation.penetration", "bimangrasp.validation.metrics", "bimangrasp.grasp_bodies"),
    ("bimangrasp.validation.placing", "bimangrasp.validation.duplicates"),
    ("bimangrasp.validation.scene", "bimangrasp.validation.verdict"),
    ("bimangrasp.validation.protocol", "bimangrasp.validation.nearest_contacts", "bimangrasp.validation.pieces"),
    ("bimangrasp.validation.poses",),
    ("bimangrasp.descent",),
    ("bimangrasp.evaluation",),
    ("bimangrasp.fused.energy",),
    ("bimangrasp.fused.tables", "bimangrasp.fused.wrench_kernel", "bimangrasp.fused.equilibrium_kernel"),
    ("bimangrasp.fused.depth_kernel",),
    ("bimangrasp.fused.kernels",),
    ("bimangrasp.initialization", "bimangrasp.energies", "bimangrasp.mala"),
    ("bimangrasp.normalisation", "bimangrasp.mesh_repair", "bimangrasp.sign_test"),
    ("bimangrasp.hand_model", "bimangrasp.object_model", "bimangrasp.grasp_file", "bimangrasp.row_files"),
    ("bimangrasp.grasp", "bimangrasp.grasp_images"),
    ("bimangrasp.rotation", "bimangrasp.signed_distance", "bimangrasp.wrench", "bimangrasp.equilibrium"),
    ("bimangrasp.visualization.hand_picture", "bimangrasp.hand_proposal"),
    ("bimangrasp.hand_survey", "bimangrasp.hands"),
    ("bimangrasp.left_hand",),
    ("bimangrasp.mjcf_hand",),
    ("bimangrasp.hand_file", "bimangrasp.hand_tree"),
]
"""The ladder, from the top. A room that is not named may import anything that is not above the rooms that use it."""


def module(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(path: Path) -> list[tuple[str, str]]:
    """Returns (module, name) of everything a file imports; name is empty for `import module`."""
    found = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found += [(alias.name, "") for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} has a relative import"
            found += [(node.module or "", alias.name) for alias in node.names]
    return found


def modules(path: Path) -> set[str]:
    """Returns the modules that a file imports, `from bimangrasp import mala` told as bimangrasp.mala."""
    known = {module(file) for file in FILES}
    return {f"{room}.{name}" if f"{room}.{name}" in known else room for room, name in imports(path)}


def step(name: str) -> int | None:
    for height, rooms in enumerate(STEPS):
        if any(name == room or name.startswith(f"{room}.") for room in rooms):
            return height
    return None


@pytest.mark.parametrize("path", FILES, ids=module)
def test_imports_run_down_the_ladder(path):
    here = step(module(path))
    for other in modules(path):
        there = step(other)
        if here is None or there is None or module(path).split(".")[0] == other.split(".")[0] != "bimangrasp":
            continue
        assert there > here, f"{module(path)} imports {other}, which stands beside or above it"


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
    names = modules(ROOT / "bimangrasp" / "mala.py")
    assert not [name for name in names if "hand" in name or "energies" in name or "object" in name]


def test_the_judge_knows_no_optimiser():
    optimiser = {"synthesis", "descent", "evaluation", "fused", "energies", "mala", "initialization", "wrench"}
    for path in (ROOT / "bimangrasp" / "validation").rglob("*.py"):
        assert not {part for name in modules(path) for part in name.split(".")} & optimiser, path


def test_validation_and_visualization_do_not_know_each_other():
    for room, other in (("validation", "visualization"), ("visualization", "validation")):
        for path in (ROOT / "bimangrasp" / room).rglob("*.py"):
            assert not [name for name in modules(path) if name.startswith(f"bimangrasp.{other}")], path


def test_only_the_worker_makes_grasps():
    for path in (ROOT / "scale").rglob("*.py"):
        if path.name == "worker.py":
            continue
        taken = {name for room, name in imports(path) if room == "bimangrasp.synthesis"}
        assert taken <= RECORDS, f"{path} takes {taken - RECORDS} from synthesis"
        assert ("bimangrasp", "synthesis") not in imports(path), path


def test_hydra_stops_at_main_and_conf():
    for path in (ROOT / "scale").rglob("*.py"):
        assert "hydra" not in {name.split(".")[0] for name in modules(path)}, path


@pytest.mark.parametrize("name", ["bimangrasp", "bimangrasp.synthesis", "bimangrasp.grasp_file"])
def test_importing_bimangrasp_loads_no_run_and_no_viewer(name):
    code = f"import sys, {name}; print(*sorted({{module.split('.')[0] for module in sys.modules}}))"
    shown = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert not set(shown.stdout.split()) & {"hydra", "omegaconf", "scale", "conf", "rich", "viser", "plotly", "pyglet"}


@pytest.mark.parametrize("path", FILES, ids=module)
def test_forbidden_words(path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
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
