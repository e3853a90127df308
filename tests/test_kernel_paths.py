from __future__ import annotations

import pytest

from bimangrasp import kernel_paths
from bimangrasp.errors import InputError


@pytest.fixture(params=[None, "1.19.0"], ids=["without Warp", "with Warp"])
def installed(request, monkeypatch):
    monkeypatch.setattr(kernel_paths, "_warp_version", lambda: request.param)
    return request.param


def test_auto_takes_the_fastest_path_that_is_installed(installed):
    assert kernel_paths.chosen_path("auto") == ("warp" if installed else "plain")
    assert kernel_paths.resolve_kernels("auto") == ("warp-2 (1.19.0)" if installed else "plain-2")


def test_plain_is_always_there(installed):
    assert kernel_paths.chosen_path("plain") == "plain" and kernel_paths.resolve_kernels("plain") == "plain-2"


def test_a_path_that_is_not_installed_is_refused(monkeypatch):
    monkeypatch.setattr(kernel_paths, "_warp_version", lambda: None)
    with pytest.raises(InputError, match=r"kernels=warp needs .*pip install 'bimangrasp\[fast\]'"):
        kernel_paths.resolve_kernels("warp")


def test_unknown_paths_are_refused(installed):
    with pytest.raises(InputError, match="kernels='triton' is unknown; choose auto, plain, warp"):
        kernel_paths.resolve_kernels("triton")
