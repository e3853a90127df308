"""`mode=objects`: a folder of meshes becomes the meshdata layout, or a list of reasons."""

from __future__ import annotations

import hashlib
import json
import os
import sys
from importlib.util import find_spec
from pathlib import Path

import h5py
import numpy as np
import pytest
import quick_conf
import trimesh

import conf
import main
import scale
from bimangrasp.builtin import OBJECT_ROOT
from bimangrasp.errors import InputError
from bimangrasp.objects import convex_pieces as pieces_room
from bimangrasp.objects.convex_pieces import convex_pieces
from bimangrasp.objects.preparation import make_draft
from scale.modes import paths
from scale.modes.prepare_objects import (
    KEPT,
    LEFT_OUT,
    MESH_NOT_TRIED,
    NOT_TRIED,
    PREPARED,
    READY,
    UNTRIED,
    PreparationReport,
    PreparedObject,
)
from scale.settings.parsing import select_usable

BALL = trimesh.creation.icosphere(subdivisions=1)
BOX = trimesh.creation.box((2, 1, 1))
ACROSS = BOX.copy().apply_transform(trimesh.transformations.rotation_matrix(1.6, [0, 0, 1]))
CROSS = trimesh.util.concatenate([BOX, ACROSS])
COARSE = ["pieces.threshold=0.4", "pieces.resolution=100", "pieces.mcts_nodes=5", "pieces.mcts_iterations=10"]
COARSE += ["pieces.mcts_max_depth=1", "pieces.preprocess_resolution=20", "pieces.largest_distance=0.1"]


@pytest.fixture
def meshes(tmp_path):
    """A folder with two good meshes, one of them with a hole, and one that is none."""
    folder = tmp_path / "meshes"
    folder.mkdir()
    BOX.export(folder / "box.stl")
    BALL.submesh([np.arange(1, len(BALL.faces))])[0].export(folder / "ball.ply")
    (folder / "points.obj").write_text("v 0 0 0\nv 1 0 0\n")
    return folder


def called(folder, *overrides):
    return scale.prepare_objects(conf.load([f"object_root={folder}", "object_code_list=all", *overrides]))


def states(report):
    return {one.code: one.state for one in report.objects}


def tree(folder):
    """Every file below a folder, with its hash and time of change."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {
        str(path.relative_to(folder)): (hashlib.sha256(path.read_bytes()).hexdigest(), path.stat().st_mtime_ns)
        for path in files
    }


def test_a_check_writes_nothing_and_names_each_fault(meshes, tmp_path):
    before = tree(tmp_path / "meshes")
    report = called(meshes)
    assert states(report) == {"ball": READY, "box": READY, "points": LEFT_OUT} and report.exit_code == 3
    assert tree(tmp_path) == {f"meshes/{name}": what for name, what in before.items()}
    ball, box, points = report.objects
    assert ball.repairs == "faces added over holes: 1" and not ball.original.closed and ball.prepared.closed
    assert (box.original.vertices, box.original.faces, box.original.bodies, box.pieces) == (36, 12, 1, 1)
    assert "no face" in points.reason
    text = str(report)
    for words in (
        "would be repaired: faces added over holes: 1",
        "the prepared mesh at object.scales 0.15: 0.238 x 0.119 x 0.119 m, 3.36 l",
    ):
        assert words in text
    assert (
        text.splitlines()[-1] == "3 objects: 2 can be used, 1 cannot be used; only checked, out=<folder> prepares them"
    )


@pytest.mark.slow
def test_what_is_prepared_is_what_a_run_and_a_simulator_read(meshes, tmp_path):
    report = called(meshes, f"out={tmp_path}/out")
    assert states(report) == {"ball": PREPARED, "box": PREPARED, "points": LEFT_OUT} and report.exit_code == 3
    for code in ("ball", "box"):
        mesh = tmp_path / "out" / code / "coacd" / "decomposed.obj"
        found = convex_pieces(str(mesh), quick_conf.load().pieces)
        assert found.source == pieces_room.GIVEN and len(found.pieces) == 1


@pytest.mark.slow
def test_two_steps_on_a_prepared_object_at_a_metric_size(meshes, small_config, tmp_path):
    called(meshes, f"out={tmp_path}/out", "object_code_list=[box]")
    asked = {"mode": "generate", "object_root": tmp_path / "out", "object_code_list": "[box]", "kernels": "plain"}
    sizes = {"object.sizes": "[0.1]", "initialization.follow_size": "true", "num_iterations": 2}
    assert scale.generate(small_config(**asked, **sizes)).exit_code == 0
    (path,) = (tmp_path / "experiments").rglob("final/*.h5")
    with h5py.File(path) as file:
        assert file["object_scale"][...] == pytest.approx(0.1 / (2 / np.sqrt(1.5) / 1.03))
        key = json.loads(file.attrs["run_key"])
        assert key["object.sizes"] == [0.1] and key["initialization.follow_size"] is True


@pytest.mark.slow
def test_the_same_call_again_touches_nothing(meshes, tmp_path):
    first = called(meshes, f"out={tmp_path}/out")
    before = tree(tmp_path)
    again = called(meshes, f"out={tmp_path}/out")
    assert tree(tmp_path) == before and states(again) == {"ball": KEPT, "box": KEPT, "points": LEFT_OUT}
    assert [one._replace(state="") for one in again.objects] == [one._replace(state="") for one in first.objects]


@pytest.mark.slow
def test_equal_meshes_give_equal_bytes_anywhere(meshes, tmp_path):
    called(meshes, f"out={tmp_path}/a")
    copy = tmp_path / "elsewhere"
    copy.mkdir()
    for path in meshes.iterdir():
        (copy / path.name).write_bytes(path.read_bytes())
    called(copy, f"out={tmp_path}/b")
    hashes = [{name: digest for name, (digest, _) in tree(tmp_path / side).items()} for side in "ab"]
    assert hashes[0] == hashes[1] and len(hashes[0]) == 6


@pytest.mark.slow
@pytest.mark.parametrize("lost", ["prepared.json", "decomposed.obj", "coacd_convex_piece_0.obj"])
def test_an_interrupted_call_is_finished(meshes, tmp_path, lost):
    called(meshes, f"out={tmp_path}/out")
    before = {name: digest for name, (digest, _) in tree(tmp_path / "out").items()}
    folder = tmp_path / "out" / "box" / "coacd"
    (folder / "prepared.json").unlink()
    (folder / lost).unlink(missing_ok=True)
    (folder / ".tmp-0123456789abcdef-1").write_bytes(b"half")
    assert states(called(meshes, f"out={tmp_path}/out"))["box"] == PREPARED
    assert {name: digest for name, (digest, _) in tree(tmp_path / "out").items()} == before


@pytest.mark.slow
def test_other_content_is_refused_with_advice(meshes, tmp_path):
    out = tmp_path / "out"
    called(meshes, f"out={out}")
    before = tree(out)
    (meshes / "points.obj").unlink()
    for change in ("prepare.normalize=plain", "pieces.threshold=0.2"):
        report = called(meshes, f"out={out}", change)
        assert states(report)["box"] == LEFT_OUT
        assert f"({change.split('.')[0]} differ); remove it, or set out=" in str(report)
    BALL.export(meshes / "box.stl")
    assert "(source_sha256 differ)" in str(called(meshes, f"out={out}"))
    assert tree(out) == before
    (out / "ball" / "coacd" / "decomposed.obj").write_text("other")
    assert "was changed since it was made" in str(called(meshes, f"out={out}"))
    (out / "ball" / "coacd" / "prepared.json").unlink()
    assert "other content in decomposed.obj" in str(called(meshes, f"out={out}"))


@pytest.mark.slow
def test_the_record_tells_how_to_go_back_to_the_file(meshes, tmp_path):
    called(meshes, f"out={tmp_path}/out", "prepare.normalize=plain")
    record = json.loads((tmp_path / "out" / "box" / "coacd" / "prepared.json").read_text())
    assert record["source"] == "box.stl" and record["prepare"]["normalize"] == "plain"
    prepared = trimesh.load_mesh(tmp_path / "out" / "box" / "coacd" / "decomposed.obj").bounds
    np.testing.assert_allclose(prepared / record["factor"] + record["center"], BOX.bounds, atol=1e-6)
    assert str(tmp_path) not in json.dumps(record)


@pytest.mark.slow
@pytest.mark.skipif(find_spec("coacd") is None, reason="needs coacd (pip install -e '.[objects]')")
@pytest.mark.parametrize("surface", ["mesh", "pieces"])
def test_a_body_that_is_not_convex_is_decomposed(tmp_path, surface):
    (tmp_path / "meshes").mkdir()
    CROSS.export(tmp_path / "meshes" / "cross.glb")
    report = called(
        tmp_path / "meshes", f"out={tmp_path}/out", f"prepare.surface={surface}", *COARSE, "pieces.threshold=0.1"
    )
    (one,) = report.objects
    assert one.state == PREPARED and one.pieces > 1, one.reason
    found = convex_pieces(str(tmp_path / "out/cross/coacd/decomposed.obj"), quick_conf.load().pieces)
    assert len(found.pieces) == one.pieces
    solid = trimesh.boolean.union([BOX, ACROSS])
    assert one.prepared.volume / np.prod(one.prepared.extents) == pytest.approx(
        solid.volume / np.prod(solid.extents), rel=0.1
    )


@pytest.mark.parametrize("surface", ["mesh", "pieces"])
def test_own_pieces_beside_the_mesh_are_measured_and_taken_by_a_run(tmp_path, monkeypatch, surface):
    """CoACD, which remeshes, gives pieces that stick out of the mesh by more than those of a stranger may."""
    (tmp_path / "coacd.py").write_text(
        "class Mesh:\n    def __init__(self, vertices, faces): self.vertices = vertices\n"
        "set_log_level = print\n"
        "def run_coacd(mesh, seed, **settings):\n"
        "    assert seed > 1\n"
        "    return [(1.01 * mesh.vertices[part], None) for part in (slice(8), slice(8, None))]\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setenv("BIMANGRASP_CACHE", str(tmp_path / "cache"))
    (tmp_path / "meshes").mkdir()
    parts = [BOX.copy().apply_translation((x, 0, 0)) for x in (-1.5, 1.5)]
    trimesh.util.concatenate(parts).export(tmp_path / "meshes" / "two.obj")
    asked = (tmp_path / "meshes", f"out={tmp_path}/out", f"prepare.surface={surface}")
    report = called(*asked)
    (one,) = report.objects
    assert (one.state, one.pieces) == (PREPARED, 2), one.reason
    assert one.warnings[0] == "CoACD failed with these settings, its pieces are made with pieces.seed=2"
    assert f"convex pieces and mesh at 0.17: {one.fit.at(0.17)}" in str(report)
    assert 0.003 < one.fit.distance < 0.01 and one.fit.uncovered < 3e-3
    assert called(*asked).objects[0] == one._replace(state=KEPT)
    taken = convex_pieces(str(tmp_path / "out/two/coacd/decomposed.obj"), quick_conf.load().pieces)
    assert taken.source == pieces_room.GIVEN
    if surface == "mesh":
        assert taken.fit == pytest.approx(one.fit, rel=1e-6)
    else:
        assert taken.fit.distance < 3e-4, "the surface is that of the pieces, but for what closes their cracks"


@pytest.mark.slow
@pytest.mark.skipif(find_spec("coacd") is None, reason="needs coacd (pip install -e '.[objects]')")
def test_an_open_shell_gets_a_surface_from_its_pieces(tmp_path):
    (tmp_path / "meshes").mkdir()
    cup = trimesh.creation.cylinder(1, 2, sections=12)
    cup.update_faces(cup.face_normals[:, 2] < 0.9)
    cup.export(tmp_path / "meshes" / "cup.obj")
    as_mesh = ["prepare.surface=mesh", *COARSE]
    assert "prepare.surface=pieces" in called(tmp_path / "meshes", f"out={tmp_path}/out", *as_mesh).objects[0].reason
    checked = called(tmp_path / "meshes", *COARSE).objects[0]
    assert checked.state == UNTRIED and checked.warnings == (NOT_TRIED,) and not checked.prepared.closed
    made = called(tmp_path / "meshes", f"out={tmp_path}/out", *COARSE).objects[0]
    assert made.state == PREPARED and made.prepared.closed and made.pieces > 1, made.reason


def layout(folder, code, meshes, whole):
    place = folder / code / "coacd"
    place.mkdir(parents=True)
    whole.export(place / "decomposed.obj")
    for k, mesh in enumerate(meshes):
        mesh.export(place / f"coacd_convex_piece_{k}.obj")


@pytest.mark.slow
def test_given_pieces_are_moved_with_their_mesh(tmp_path, monkeypatch):
    monkeypatch.setattr(pieces_room, "decomposed", None)  # not asked
    parts = [BOX.copy().apply_translation((x, 5, 0)) for x in (0.0, 2.5)]
    layout(tmp_path / "meshes", "two", parts, trimesh.util.concatenate(parts))
    (checked,) = called(tmp_path / "meshes").objects
    assert checked.pieces == 2
    (one,) = called(tmp_path / "meshes", f"out={tmp_path}/out", "prepare.normalize=plain").objects
    assert one.pieces == 2
    folder = tmp_path / "out" / "two" / "coacd"
    bounds = [trimesh.load_mesh(folder / f"coacd_convex_piece_{k}.obj").bounds for k in (0, 1)]
    np.testing.assert_allclose(bounds[0][0], [-0.5, -0.5 / 4.5, -0.5 / 4.5], atol=1e-6)
    np.testing.assert_allclose(bounds[1][1], [0.5, 0.5 / 4.5, 0.5 / 4.5], atol=1e-6)


def test_given_pieces_that_do_not_fit_are_named_and_made_anew(tmp_path):
    layout(tmp_path / "meshes", "box", [BALL], BOX)
    (one,) = called(tmp_path / "meshes", f"out={tmp_path}/out").objects
    assert one.state == PREPARED and one.pieces == 1
    assert "coacd_convex_piece files are left out, new ones are made" in one.warnings[0]
    piece = trimesh.load_mesh(tmp_path / "out" / "box" / "coacd" / "coacd_convex_piece_0.obj")
    assert len(piece.vertices) == 8


def test_every_unusable_thing_is_named_with_its_reason(tmp_path):
    folder = tmp_path / "meshes"
    (folder / "scan").mkdir(parents=True)
    BALL.export(folder / "scan" / "model.obj")
    BALL.export(folder / "good.obj")
    for name in ("twice.obj", "twice.stl"):
        BALL.export(folder / name)
    (folder / "empty.obj").touch()
    (folder / "part.STEP").touch()
    (folder / "notes.txt").touch()
    Path(os.fsdecode(os.fsencode(folder) + b"/M\xfcller.obj")).write_bytes((folder / "good.obj").read_bytes())
    huge = BALL.copy().apply_scale(3000)
    huge.export(folder / "huge.ply")
    report = called(folder, "prepare.normalize=keep", "object.scales=[0.1]")
    reasons = {one.code.encode(errors="replace").decode(): one.reason for one in report.objects if one.reason}
    assert states(report)["good"] == READY and "notes.txt" not in states(report)
    wanted = {
        "scan": "move the one that is meant to <code>.obj",
        "twice": "2 meshes",
        "empty": "is empty",
        "part.STEP": "convert it to one of .obj",
        "M?ller": "rename the mesh",
        "huge": "is the mesh in millimeters",
    }
    assert set(reasons) == set(wanted) and all(words in reasons[code] for code, words in wanted.items()), reasons
    str(report).encode()  # can be printed


@pytest.mark.slow
def test_the_builtin_choice_stands_for_all_of_another_folder(meshes):
    assert set(states(scale.prepare_objects(conf.load([f"object_root={meshes}"])))) == {"ball", "box", "points"}
    assert [entry.code for entry in select_usable("", conf.load([]).object_code_list)[0]] == ["storage_bin", "bowl"]
    with pytest.raises(InputError, match="'bxo'.*nearest: box"):
        scale.prepare_objects(conf.load([f"object_root={meshes}", "object_code_list=[bxo]"]))


@pytest.mark.slow
def test_wrong_calls_are_refused_at_the_door(meshes, tmp_path, monkeypatch):
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").touch()
    cases = {
        "has no mesh at all": ([f"object_root={tmp_path}/empty"], None),
        "/.. is the folder of the meshes, or in it": ([f"object_root={meshes}", f"out={meshes}/."], None),
        "prepared. is the folder of the meshes, or in it": ([f"object_root={meshes}", f"out={meshes}/prepared"], None),
        "is a file": ([f"object_root={meshes}", f"out={tmp_path}/file"], None),
        r"pip install -e '.*\[objects\]', or set prepare.decompose=false": (
            [f"object_root={meshes}", f"out={tmp_path}/out"],
            lambda module: None if module == "coacd" else object(),
        ),
        "prepare.unit=mm says nothing": (["prepare.unit=mm"], None),
        "prepare.surface=pieces needs": (["prepare.surface=pieces", "prepare.decompose=false"], None),
    }
    for words, (overrides, finder) in cases.items():
        with monkeypatch.context() as patch, pytest.raises(InputError, match=words):
            if finder:
                patch.setattr(paths, "find_spec", finder)
            called("", *overrides) if "=" not in overrides[0] else scale.prepare_objects(conf.load(overrides))
    with monkeypatch.context() as patch:
        patch.setattr(paths, "find_spec", lambda module: None)
        assert called(meshes).exit_code == 3
        off = ["prepare.decompose=false", "prepare.surface=mesh", "prepare.interior_faces=keep"]
        assert states(called(meshes, f"out={tmp_path}/plain", *off))["box"] == PREPARED
    assert [path.name for path in (tmp_path / "plain" / "box" / "coacd").glob("*.obj")] == ["decomposed.obj"]


@pytest.mark.slow
@pytest.mark.skipif(find_spec("coacd") is None, reason="needs coacd (pip install -e '.[objects]')")
def test_a_closed_body_without_volume_is_a_sheet(tmp_path):
    (tmp_path / "meshes").mkdir()
    square = [[0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0]]
    flat = trimesh.Trimesh(square, [[0, 1, 2], [0, 2, 3], [1, 0, 3], [1, 3, 2]], process=False)  # a flat tetrahedron
    flat.export(tmp_path / "meshes" / "flat.obj")
    (one,) = called(tmp_path / "meshes", f"out={tmp_path}/out", *COARSE).objects
    assert one.state == PREPARED and one.original.volume == 0 < one.prepared.volume, one.reason
    assert one.fit.volume_ratio is None


def test_a_check_says_of_a_hollow_body_what_out_will_do_and_of_a_convex_one_nothing(tmp_path):
    (tmp_path / "meshes").mkdir()
    trimesh.boolean.union([BOX, ACROSS]).export(tmp_path / "meshes" / "cross.obj")
    BOX.export(tmp_path / "meshes" / "box.obj")
    box, cross = called(tmp_path / "meshes").objects
    assert box.warnings == () and box.pieces == 1
    assert cross.state == UNTRIED and cross.warnings == (NOT_TRIED,) and cross.prepared.closed and cross.pieces is None


def test_each_figure_says_which_mesh_it_is_of(tmp_path):
    (tmp_path / "meshes").mkdir()
    trimesh.boolean.union([BOX, ACROSS]).export(tmp_path / "meshes" / "cross.obj")
    (tmp_path / "pieces").mkdir()
    layout(tmp_path / "pieces", "cross", [BOX, ACROSS], trimesh.boolean.union([BOX, ACROSS]))
    for folder, setting, words, note in (
        ("meshes", "prepare.surface=pieces", "the file's mesh at object.scales 0.15: ", NOT_TRIED),
        ("meshes", "prepare.surface=mesh", "the prepared mesh at object.scales 0.15: ", MESH_NOT_TRIED),
        ("pieces", "prepare.surface=pieces", "the prepared mesh at object.scales 0.15: ", ""),
    ):
        text = str(called(tmp_path / folder, setting))
        assert text.count("object.scales") == 1 and f"\n    {words}" in text
        assert ("not tried yet" in text) == bool(note) and note in text


def test_the_last_line_says_what_is_in_the_folder():
    made = [PreparedObject(str(k), state) for k, state in enumerate((PREPARED, LEFT_OUT, PREPARED, KEPT))]
    for objects, words in (
        (made, "4 objects: 2 prepared and 1 kept in out, 1 cannot be used"),
        (made[:1], "1 object: 1 prepared in out"),
        (made[1:2], "1 object: 1 cannot be used"),
    ):
        report = PreparationReport(tuple(objects), conf.load([]).object, Path("out"))
        assert str(report).splitlines()[-1] == words


@pytest.mark.slow
def test_sizes_that_hands_cannot_hold_are_named(meshes):
    report = called(meshes, "object.sizes=[0.9]")
    assert "object.sizes=[0.9]" in report.objects[0].reason and report.exit_code == 3
    assert "the prepared mesh at object.sizes 0.4: 0.4 x 0.2 x 0.2 m, 16 l" in str(called(meshes, "object.sizes=[0.4]"))


@pytest.mark.slow
def test_the_command_line_ends_with_three_where_one_falls_short(meshes, tmp_path, monkeypatch, capsys):
    def ended(*overrides):
        monkeypatch.setattr(sys, "argv", ["main.py", "mode=objects", f"object_root={meshes}", *overrides])
        return main.main(), capsys.readouterr().out

    code, shown = ended(f"out={tmp_path}/out", "dry_run=true")
    assert code == 3 and "only checked" in shown and not (tmp_path / "out").exists()
    code, shown = ended(f"out={tmp_path}/out", "object_code_list=[box]")
    assert code == 0 and shown.endswith(f"1 object: 1 prepared in {tmp_path}/out\n")
    assert ended(f"out={meshes}")[0] == 2


def test_the_builtin_objects_need_no_repair():
    config = quick_conf.load().prepare
    assert {str(make_draft(str(path), config).mesh.repairs) for path in OBJECT_ROOT.glob("*.obj")} == {""}
