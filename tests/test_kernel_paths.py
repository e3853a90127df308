from __future__ import annotations

import pytest

from bimangrasp.energy import backends
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
    with pytest.raises(InputError, match=r"kernels=warp needs .*pip install 'bimangrasp\[fast\]'"):
        backends.resolve_kernels("warp")


def test_unknown_paths_are_refused(installed):
    with pytest.raises(InputError, match="kernels='triton' is unknown; choose auto, plain, warp"):
        backends.resolve_kernels("triton")
