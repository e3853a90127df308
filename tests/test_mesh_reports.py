"""Mesh checks at the door and their cache."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import pytest
from scene import POINTS

from bimangrasp.errors import InputError
from bimangrasp.objects import model
from scale import screen
from scale.settings import mesh_checks
from scale.settings.mesh_checks import cache_folder, check_objects
from scale.settings.parsing import ObjectEntry, resolve_objects

SIZES = replace(POINTS, scales=[0.15, 0.17])


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The meshes that were read, as they come."""
    seen: list[str] = []
    check_mesh = model.check_mesh
    monkeypatch.setattr(model, "check_mesh", lambda path: (seen.append(path), check_mesh(path))[1])
    return seen


def test_a_mesh_is_read_once_and_its_report_is_the_same(reads):
    entries = resolve_objects("", ["mug", "bowl"])
    first = check_objects(entries, SIZES)
    assert list(first) == ["mug", "bowl"]
    assert len(reads) == 2
    assert check_objects(entries, SIZES) == first
    assert len(reads) == 2


def test_a_dry_run_reads_the_cache_and_writes_nothing(reads):
    entries = resolve_objects("", ["mug"])
    check_objects(entries, SIZES, remember=False)
    assert not cache_folder().exists()
    check_objects(entries, SIZES)
    check_objects(entries, SIZES, remember=False)
    assert len(reads) == 2


@pytest.mark.parametrize("damage", [b"", b"{}", b"\xff\xfe", b"0" * 64 + b"\n{}"])
def test_a_broken_report_is_made_again(reads, damage):
    entries = resolve_objects("", ["mug"])
    first = check_objects(entries, SIZES)
    (file,) = cache_folder().rglob("*.json")
    file.write_bytes(damage)
    assert check_objects(entries, SIZES) == first
    assert len(reads) == 2


def test_a_changed_mesh_is_read_again(reads, tmp_path):
    mug, bowl = (entry.path for entry in resolve_objects("", ["mug", "bowl"]))
    path = tmp_path / "thing.obj"
    path.write_bytes(mug.read_bytes())
    first = check_objects([ObjectEntry("thing", path)], SIZES)
    path.write_bytes(bowl.read_bytes())
    assert check_objects([ObjectEntry("thing", path)], SIZES) != first


def test_a_cache_that_cannot_be_written_costs_only_time(monkeypatch, tmp_path):
    (tmp_path / "file").touch()
    monkeypatch.setenv("BIMANGRASP_CACHE", str(tmp_path / "file"))
    assert "mug" in check_objects(resolve_objects("", ["mug"]), SIZES)


def test_every_bad_mesh_is_named_at_once(tmp_path):
    texts = {"nan": "v 0 0 nan\nv 1 0 0\nv 0 1 0\nf 1 2 3\n", "flat": "v 0 0 0\nv 1 0 0\nv 2 0 0\nf 1 2 3\n"}
    for code, text in texts.items():
        (tmp_path / f"{code}.obj").write_text(text)
    with pytest.raises(InputError, match="2 of the objects") as error:
        check_objects(resolve_objects(str(tmp_path), "all"), SIZES)
    assert "nan.obj" in str(error.value) and "flat.obj" in str(error.value)


def test_missing_and_empty_files_are_found_before_any_is_read(tmp_path, reads):
    (tmp_path / "empty.obj").touch()
    entries = [*resolve_objects("", ["mug"]), *resolve_objects(str(tmp_path), "all")]
    with pytest.raises(InputError, match="2 of the objects") as error:
        check_objects([*entries, ObjectEntry("gone", Path("/nowhere/gone.obj"))], SIZES)
    assert "is empty" in str(error.value) and "'gone'" in str(error.value)
    assert not reads


def test_a_long_check_is_not_silent(monkeypatch, capsys):
    monkeypatch.setattr(screen, "FIRST_S", 0.0)
    monkeypatch.setattr(screen, "PLAIN_EVERY_S", 0.0)
    monkeypatch.setattr(mesh_checks, "_check", lambda _: time.sleep(0.2) or "of no use")
    with pytest.raises(InputError):
        check_objects(resolve_objects("", ["mug", "bowl"]), SIZES)
    said = capsys.readouterr().err
    assert "checking meshes, 0 of 2 done, for 0 min 00 s (at mug for 0 min 00 s)\n" in said and "1 of 2 done" in said


def test_a_size_that_makes_no_sense_is_refused():
    with pytest.raises(InputError, match="'mug'"):
        check_objects(resolve_objects("", ["mug"]), replace(POINTS, scales=[150.0]))


@pytest.mark.slow
def test_many_meshes_are_checked_in_other_processes(monkeypatch, capsys):
    monkeypatch.setattr(screen, "FIRST_S", 0.5)
    monkeypatch.setattr(screen, "PLAIN_EVERY_S", 0.2)
    monkeypatch.setattr(mesh_checks, "SERIAL_MESHES", 1)
    entries = [ObjectEntry(f"{entry.code}{i}", entry.path) for i in range(2) for entry in resolve_objects("", "all")]
    reports = check_objects(entries, SIZES, remember=False)
    assert f"checking meshes, 0 of {len(entries)} done" in capsys.readouterr().err, "while its processes start"
    assert reports["mug0"] == reports["mug1"] == check_objects(resolve_objects("", ["mug"]), SIZES)["mug"]
