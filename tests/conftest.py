"""What all tests share: shape checks, one thread, the folder of recorded data, a small run."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from jaxtyping import install_import_hook

ROOT = Path(__file__).resolve().parents[1]
UNCHECKED = "fused"  # Warp's structs are no types
CHECKED = [
    ".".join(path.relative_to(ROOT).with_suffix("").parts)
    for path in sorted((ROOT / "bimangrasp").rglob("*.py"))
    if UNCHECKED not in path.parts and path.name != "__init__.py"
]
install_import_hook(CHECKED, "beartype.beartype")  # before anything imports bimangrasp

import hypothesis  # noqa: E402
import pytest  # noqa: E402

pytest.register_assert_rewrite("engine_laws")
import quick_conf  # noqa: E402
import torch  # noqa: E402

from scale.settings.schema import Config  # noqa: E402

SMALL = {
    "object_code_list": "[storage_bin]",
    "target_count_per_object": 6,
    "round_batch_size": 4,
    "num_iterations": 3,
    "curve_stride": 1,
    "gpus": "[cpu]",
    "hand.surface_points": 64,
    "initialization.hull_samples_per_grasp": 10,
    "object.surface_points": 64,
    "object.surface_samples_per_point": 4,
}

torch.set_num_threads(1)
hypothesis.settings.register_profile("suite", deadline=None, derandomize=True, max_examples=30)
hypothesis.settings.load_profile("suite")


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder with recorded values and real meshes; tests that need it are skipped where it is missing."""
    folder = Path(os.environ.get("BIMANGRASP_SHARED", ROOT.parent / "shared"))
    if not (folder / "golden").is_dir():
        pytest.skip(f"needs the recorded data of ../shared, and {folder} is not there (BIMANGRASP_SHARED names it)")
    return folder


@pytest.fixture
def small_config(tmp_path: Path) -> Callable[..., Config]:
    """A run of seconds: small_config("energy.w_pen=3", seed_base=7, energy__w_dis=1); __ stands for a dot."""

    def build(*overrides: str, **settings: object) -> Config:
        named = {name.replace("__", "."): value for name, value in settings.items()}
        values = (f"{key}={value}" for key, value in (SMALL | named).items())
        return quick_conf.load(*values, *overrides, output_root=tmp_path / "experiments")

    return build


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test reads or writes the person's cache of mesh reports."""
    monkeypatch.setenv("BIMANGRASP_CACHE", str(tmp_path / "cache"))
