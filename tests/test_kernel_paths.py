from __future__ import annotations

from pathlib import Path

import pytest

from bimangrasp import builtin
from bimangrasp.energy import config as backends
from bimangrasp.errors import InputError


@pytest.fixture(params=[None, "1.19.0"], ids=["without Warp", "with Warp"])
def installed(request, monkeypatch):
    monkeypatch.setattr(backends, "_warp_version", lambda: request.param)
    return request.param


def test_auto_takes_the_fastest_path_that_is_installed(installed):
    assert backends.chosen_path("auto") == ("warp" if installed else "plain")
    assert backends.resolve_kernels("auto") == ("warp-2 (1.19.0)" if installed else "plain-2")


def test_plain_is_always_there(installed):
    assert backends.chosen_path("plain") == "plain" and backends.resolve_kernels("plain") == "plain-2"


def test_a_path_that_is_not_installed_is_refused(monkeypatch):
    monkeypatch.setattr(backends, "_warp_version", lambda: None)
    with pytest.raises(InputError, match=r"kernels=warp needs .*: pip install warp-lang, or kernels=plain"):
        backends.resolve_kernels("warp")


def test_unknown_paths_are_refused(installed):
    with pytest.raises(InputError, match="kernels='triton' is unknown; choose auto, plain, warp"):
        backends.resolve_kernels("triton")


def test_an_extra_is_installed_from_the_checkout_and_never_by_a_name_that_anybody_may_register(monkeypatch, tmp_path):
    checkout = Path(builtin.__file__).resolve().parents[1]
    assert builtin.install_command("objects") == f"pip install -e '{checkout}[objects]'"
    monkeypatch.setattr(builtin, "ASSET_ROOT", tmp_path / "bimangrasp" / "assets")
    assert builtin.install_command("objects") == "pip install -e '.[objects]'"


@pytest.mark.parametrize("folder", ["bimangrasp", "scale", "conf", "tests", "benchmarks"])
def test_no_message_names_the_package_to_a_registry(folder):
    named = "pip install " + "'bimangrasp"
    root = Path(builtin.__file__).resolve().parents[1]
    assert not [path for path in (root / folder).rglob("*.py") if named in path.read_text(encoding="utf-8")]
