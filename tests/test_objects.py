"""Object codes and the meshes they name."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bimangrasp.errors import InputError
from scale.settings.parsing import ObjectEntry, resolve_objects


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A folder of meshes in both layouts, with names that make trouble."""
    folder = tmp_path / "meshes"
    for code in ("sem-Bottle-1", "2026_11_20"):
        (folder / code / "coacd").mkdir(parents=True)
        (folder / code / "coacd" / "decomposed.obj").touch()
    for name in ("mug.obj", "bowl.STL", "große Kiste.ply", "mug.mtl", ".hidden.obj", "notes.txt"):
        (folder / name).touch()
    (folder / "empty folder").mkdir()
    return folder


def codes(entries: list[ObjectEntry]) -> list[str]:
    return [entry.code for entry in entries]


def test_all_is_every_mesh_in_both_layouts_sorted_by_code(root):
    entries = resolve_objects(str(root), "all")
    assert codes(entries) == ["2026_11_20", "bowl", "große Kiste", "mug", "sem-Bottle-1"]
    assert entries[0].path == root / "2026_11_20" / "coacd" / "decomposed.obj"
    assert entries[1].path == root / "bowl.STL"
    assert all(entry.path.is_file() for entry in entries)


def test_a_list_keeps_its_order(root):
    assert codes(resolve_objects(str(root), ["mug", "2026_11_20", "große Kiste"])) == [
        "mug",
        "2026_11_20",
        "große Kiste",
    ]


def test_a_glob_is_sorted_by_code(root):
    assert codes(resolve_objects(str(root), "*[gw]*")) == ["bowl", "große Kiste", "mug"]
    assert codes(resolve_objects(str(root), "mug")) == ["mug"]


def test_a_glob_without_a_match_is_refused(root):
    with pytest.raises(InputError, match="x\\*.*fits no object.*'bowl'"):
        resolve_objects(str(root), "x*")


@pytest.mark.parametrize(
    ("name", "text"),
    [("codes.json", json.dumps(["mug", "bowl"])), ("codes.txt", "# two objects\nmug\n\n  bowl  \n")],
)
def test_a_file_names_the_codes(root, tmp_path, name, text):
    (tmp_path / name).write_text(text)
    assert codes(resolve_objects(str(root), str(tmp_path / name))) == ["mug", "bowl"]


@pytest.mark.parametrize(
    ("name", "text"),
    [("a.json", "[20261120]"), ("a.json", '"mug"'), ("a.json", "{"), ("a.json", "[]"), ("a.txt", "# none")],
)
def test_a_file_without_codes_is_refused(root, tmp_path, name, text):
    (tmp_path / name).write_text(text)
    with pytest.raises(InputError, match="object_code_list"):
        resolve_objects(str(root), str(tmp_path / name))


def test_an_unknown_code_is_refused_with_the_nearest(root):
    with pytest.raises(InputError, match="'mugg'.*nearest: mug"):
        resolve_objects(str(root), ["bowl", "mugg"])


def test_a_code_listed_twice_is_refused(root):
    with pytest.raises(InputError, match="'mug' more than once"):
        resolve_objects(str(root), ["mug", "bowl", "mug"])


@pytest.mark.parametrize("code", ["../mug", "a/b", "a\\b", ".mug", "..", "", " mug", "a\0b", "a\nb", "m" * 201])
def test_a_code_that_cannot_name_a_file_is_refused(root, code):
    with pytest.raises(InputError, match="a code names a file"):
        resolve_objects(str(root), [code])


def test_a_missing_root_is_refused(tmp_path):
    with pytest.raises(InputError, match="object_root=.*nowhere.*is no folder"):
        resolve_objects(str(tmp_path / "nowhere"), "all")


def test_two_meshes_of_one_code_are_refused(root):
    (root / "mug.ply").touch()
    with pytest.raises(InputError, match="'mug' has 2 meshes"):
        resolve_objects(str(root), ["mug"])


def test_the_builtin_objects_are_there():
    assert codes(resolve_objects("", "all")) == ["bottle", "bowl", "box", "mug", "storage_bin"]
