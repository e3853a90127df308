"""Where caches go when the user's home cannot be written, or there is none: containers, compute nodes."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from bimangrasp.builtin import use_writable_kernel_cache, user_cache
from bimangrasp.errors import InputError
from scale.settings.mesh_checks import cache_folder

ROOT = Path(__file__).parents[1]


@pytest.fixture(autouse=True)
def _plain(monkeypatch, tmp_path):
    for name in ("XDG_CACHE_HOME", "WARP_CACHE_PATH", "BIMANGRASP_CACHE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))


def test_caches_lie_in_the_home_or_where_the_environment_says(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path / "me"))
    assert user_cache() == tmp_path / "me" / ".cache"
    assert cache_folder() == tmp_path / "me" / ".cache" / "bimangrasp" / "meshes"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert user_cache() == tmp_path / "xdg"


def test_a_user_without_a_home_has_a_temporary_folder(monkeypatch, tmp_path):
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)
    folder = tmp_path / f"cache-{os.getuid()}"
    assert user_cache() == folder and cache_folder().is_relative_to(tmp_path)
    said = use_writable_kernel_cache()
    assert str(folder) in said and "XDG_CACHE_HOME" in said
    assert os.environ["XDG_CACHE_HOME"] == str(folder), "Warp and the workers would take ~ as it stands"
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "of a worker"))
    assert user_cache() == folder and use_writable_kernel_cache() == ""
    monkeypatch.delenv("XDG_CACHE_HOME")  # what monkeypatch did not set it does not take away


@pytest.fixture
def full(monkeypatch):
    """A set of folders that take no byte."""
    folders, real = set(), os.posix_fallocate

    def fallocate(fd, offset, length):
        if any(Path(f"/proc/self/fd/{fd}").readlink().is_relative_to(folder) for folder in folders):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(fd, offset, length)

    monkeypatch.setattr(os, "posix_fallocate", fallocate)
    return folders


def test_a_kernel_cache_without_room_goes_elsewhere_or_is_refused_by_name(monkeypatch, tmp_path, full):
    monkeypatch.setenv("HOME", str(tmp_path / "me"))
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    full.add(tmp_path / "temporary")
    assert use_writable_kernel_cache(1000) == ""
    full.add(tmp_path / "me")
    with pytest.raises(InputError, match=f"{tmp_path}/me/.* nor {tmp_path}/temporary/.*WARP_CACHE_PATH"):
        use_writable_kernel_cache(1000)
    assert "WARP_CACHE_PATH" not in os.environ
    full.remove(tmp_path / "temporary")
    assert "(No space left on device)" in use_writable_kernel_cache(1000)
    monkeypatch.delenv("WARP_CACHE_PATH")


def test_kernels_that_are_there_need_no_more_room(monkeypatch, tmp_path, full):
    monkeypatch.setenv("WARP_CACHE_PATH", str(tmp_path))
    (tmp_path / "below").mkdir()
    (tmp_path / "below" / "kernel").write_bytes(bytes(1000))
    full.add(tmp_path)
    assert use_writable_kernel_cache(1000) == "" and os.environ["WARP_CACHE_PATH"] == str(tmp_path)


def test_a_kernel_cache_that_can_be_written_stays(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path / "me"))
    assert use_writable_kernel_cache() == "" and "WARP_CACHE_PATH" not in os.environ
    monkeypatch.setenv("WARP_CACHE_PATH", str(tmp_path / "kernels"))
    assert use_writable_kernel_cache() == "" and os.environ["WARP_CACHE_PATH"] == str(tmp_path / "kernels")


@pytest.mark.parametrize("name", ["HOME", "WARP_CACHE_PATH"])
def test_a_kernel_cache_that_cannot_be_written_goes_elsewhere_and_is_named(monkeypatch, tmp_path, name):
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv(name, str(tmp_path / "file" / "below"))
    said = use_writable_kernel_cache()
    instead = os.environ["WARP_CACHE_PATH"]
    assert instead.startswith(str(tmp_path)) and "file/below" in said and instead in said
    assert use_writable_kernel_cache() == "", "a worker that starts says it again"
    monkeypatch.delenv("WARP_CACHE_PATH")  # what monkeypatch did not set it does not take away


@pytest.mark.slow
def test_a_run_without_a_home_works_and_says_where_kernels_are(tmp_path):
    pytest.importorskip("warp", reason="needs NVIDIA Warp")
    (tmp_path / "file").write_text("no folder")
    (tmp_path / "tmp").mkdir()
    small = ["num_iterations=1", "target_count_per_object=1", "round_batch_size=2", "gpus=cpu", "filter=none"]
    small += ["object_code_list=[box]", f"output_root={tmp_path}", "kernels=warp", "experiment=null"]
    environment = os.environ | {"HOME": str(tmp_path / "file" / "home"), "TMPDIR": str(tmp_path / "tmp")}
    done = subprocess.run(
        [sys.executable, ROOT / "main.py", *small], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert (
        "cannot be written (Not a directory): compiled kernels are kept in " in done.stdout
        and "Traceback" not in done.stderr
    )
    assert any((tmp_path / "tmp" / f"bimangrasp-kernels-{os.getuid()}").iterdir())
