"""What CoACD is run with, what takes its place where it fails, and when its pieces are refused."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import quick_conf
import trimesh

from bimangrasp.errors import InputError
from bimangrasp.geometry.triangle_mesh import NoSolidError
from bimangrasp.objects import decomposition as module
from bimangrasp.objects import mesh_repair
from bimangrasp.objects.decomposition import decomposed, fallbacks, too_far
from bimangrasp.objects.model import Mesh
from bimangrasp.objects.pieces import Pieces, PiecesFit, pieces_image

CONFIG = quick_conf.load().pieces
HEAD = """
import numpy as np
set_log_level = lambda level: None
class Mesh:
    def __init__(self, vertices, faces):
        self.vertices = vertices
def run_coacd(mesh, preprocess_mode, preprocess_resolution, seed, **settings):
    whole, near = [(mesh.vertices, None)], [(mesh.vertices[mesh.vertices[:, 0] < 0], None)]
"""
ASSERTION = """
import os, sys
print("coacd.cpp:77: std::vector<std::pair<int, int>> coacd::" + 900 * "x" + ": Assertion `edge.size() == 2' failed.",
      file=sys.stderr, flush=True)
os.kill(os.getpid(), 6)
"""
CRASH = "import os; os.kill(os.getpid(), 6)"


def bar() -> Mesh:
    """A bar of 1 x 0.1 x 0.1 m in ten slices, so that half of its corners make a bar of half the length."""
    solid = trimesh.creation.box((1, 0.1, 0.1)).subdivide().subdivide()
    return Mesh(np.asarray(solid.vertices), np.asarray(solid.faces), "normal", "bar")


def corner() -> Mesh:
    """Two such bars that meet in a corner, which no hull follows."""
    up = trimesh.creation.box((0.1, 1, 0.1)).apply_translation((0.45, 0.45, 0))
    solid = trimesh.boolean.union([trimesh.creation.box((1, 0.1, 0.1)), up])
    solid = solid.subdivide().subdivide()
    return Mesh(np.asarray(solid.vertices), np.asarray(solid.faces), "normal", "corner")


@pytest.fixture
def coacd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A function that puts another program in CoACD's place."""

    def put(native: str) -> None:
        (tmp_path / "coacd.py").write_text(native)
        monkeypatch.setenv("PYTHONPATH", str(tmp_path))

    return put


def test_a_mesh_that_coacd_takes_needs_no_fallback_and_is_not_remeshed(coacd):
    coacd(f"{HEAD}    assert preprocess_mode == 'off' and seed == {CONFIG.seed}\n    return whole")
    pieces = decomposed("bar.obj", bar(), CONFIG)
    assert pieces.fallback == "" and pieces.source == module.DECOMPOSED and pieces.fit.largest < 2e-4


def test_a_sheet_is_remeshed_at_once(coacd):
    coacd(f"{HEAD}    assert preprocess_mode == 'on'\n    return whole")
    assert decomposed("bar.obj", bar()._replace(sign=""), CONFIG).fallback == ""


def test_bodies_that_cut_each_other_are_joined_first_and_a_cavity_stays(coacd):
    wide = replace(CONFIG, largest_distance=1.0)
    turn = trimesh.transformations.rotation_matrix(1, [0, 0, 1])
    across = trimesh.util.concatenate([trimesh.creation.box((1, 0.1, 0.2)), trimesh.creation.box((1, 0.1, 0.1), turn)])
    hole = trimesh.creation.box((0.5, 0.5, 0.5))
    hollow = trimesh.util.concatenate(
        [trimesh.creation.box((1, 1, 1)), trimesh.Trimesh(hole.vertices, hole.faces[:, ::-1])]
    )
    for solid, count in ((across, 24), (hollow, 16)):
        coacd(f"{HEAD}    assert len(mesh.vertices) == {count}, len(mesh.vertices)\n    return whole")
        body = Mesh(np.asarray(solid.vertices), np.asarray(solid.faces), "normal", "")
        assert decomposed("two.obj", body, wide).fallback == ""


@pytest.mark.parametrize(
    ("works", "fallback"),
    [
        (f"seed == {CONFIG.seed + 1}", f"pieces.seed={CONFIG.seed + 1}"),
        ("preprocess_mode == 'on'", "pieces.preprocess_mode=on"),
        ("preprocess_resolution == 100", "pieces.preprocess_mode=on, pieces.preprocess_resolution=100"),
        ("preprocess_resolution == 25", "pieces.preprocess_mode=on, pieces.preprocess_resolution=25"),
    ],
)
@pytest.mark.parametrize("failure", [CRASH, "raise RuntimeError", "return []", "return near"])
@pytest.mark.slow
def test_where_coacd_fails_the_fallback_is_taken_and_named(coacd, works, fallback, failure):
    coacd(f"{HEAD}    if {works}: return whole\n    {failure}")
    pieces = decomposed("bar.obj", bar(), CONFIG)
    assert pieces.fallback == fallback and pieces.fit.uncovered < 2e-4
    assert pieces_image(decomposed("bar.obj", bar(), CONFIG)) == pieces_image(pieces)


def test_a_crash_is_followed_by_the_next_settings(coacd):
    coacd(f"{HEAD}    if preprocess_mode == 'on': return whole\n    {CRASH}")
    assert decomposed("bar.obj", bar(), CONFIG).fallback == "pieces.preprocess_mode=on"


def test_the_settings_are_tried_in_a_fixed_order_none_of_them_twice():
    off = replace(CONFIG, preprocess_mode="off")
    assert [name for name, _ in fallbacks(off)] == [
        "",
        "pieces.seed=2",
        "pieces.preprocess_mode=on",
        "pieces.preprocess_mode=on, pieces.preprocess_resolution=100",
        "pieces.preprocess_mode=on, pieces.preprocess_resolution=25",
    ]
    for start in (off, replace(CONFIG, preprocess_mode="on"), replace(off, preprocess_resolution=1)):
        tried = [repr(settings) for _, settings in fallbacks(start)]
        assert tried[0] == repr(start) and len(set(tried)) == len(tried)


def test_pieces_that_never_follow_the_mesh_are_refused_with_figure_and_advice(coacd):
    coacd(f"{HEAD}    return near")
    with pytest.raises(
        InputError, match=r"it.obj cannot be decomposed: .*leave [\d.e-]+ of it out, more than .*repair"
    ) as no:
        decomposed("it.obj", corner(), CONFIG)
    assert no.value.args[0].count("more than") == 1, "the distances of all six ways, not of the nearest"


def test_pieces_are_too_far_by_what_they_leave_out_and_by_most_of_the_surface():
    body = bar()
    for fit in (PiecesFit(0.2, 0.2, 0.0, 1.0), PiecesFit(0.0, 0.2, 0.2, 1.0)):
        pieces = Pieces((), "", 0, "", fit)
        assert too_far(body, pieces, CONFIG) and not too_far(body, pieces, replace(CONFIG, largest_distance=0.2))
    assert not too_far(body, Pieces((), "", 0, "", PiecesFit(0.0, 0.2, 0.0, 1.0)), CONFIG)
    assert not too_far(body, Pieces((), "", 0, ""), CONFIG)


@pytest.mark.parametrize(
    ("native", "words"),
    [
        ("raise RuntimeError('too hard')", "CoACD ended with 1 and said: RuntimeError: too hard"),
        ("import os; os.kill(os.getpid(), 11)", "CoACD ended with -11 and said: nothing"),
        ("set_log_level = Mesh = lambda *a: None; run_coacd = lambda *a, **k: []", "0 convex pieces"),
        (
            ASSERTION,
            r"said: assertion edge.size\(\) == 2 failed \(5 of 6 ways that were tried\); with the hulls of its",
        ),
    ],
)
def test_a_mesh_that_coacd_cannot_take_is_an_error_with_its_words(coacd, native, words):
    coacd(native)
    with pytest.raises(InputError, match=f"it.obj .*{words}") as refusal:
        decomposed("it.obj", corner(), CONFIG)
    assert len(refusal.value.args[0]) < 500  # a reason that all settings share is told once


def test_a_mesh_that_takes_coacd_for_ever_is_refused(coacd, monkeypatch):
    coacd("while True: pass")
    monkeypatch.setattr(module, "DECOMPOSE_TIMEOUT_S", 0.5)
    with pytest.raises(InputError, match=r"bar.obj is not decomposed after 0.5 s; .* simplify it"):
        decomposed("bar.obj", bar(), CONFIG)


def test_a_mesh_that_takes_coacd_long_is_named_meanwhile_with_what_can_be_set(coacd, monkeypatch, caplog):
    coacd(f"{HEAD}    import time; time.sleep(0.6)\n    return whole")
    monkeypatch.setattr(module, "SAID_EVERY_S", 0.5)
    decomposed("bar.obj", bar(), CONFIG)
    (said, *_) = caplog.messages
    assert "bar.obj: CoACD has worked on it for" in said and "pieces.threshold" in said and "3600 s" in said


def test_where_nothing_of_coacd_follows_the_hulls_of_nearly_convex_bodies_do(coacd):
    coacd(CRASH)
    two = trimesh.util.concatenate([trimesh.creation.box((1, 1, 1)).apply_translation((x, 0, 0)) for x in (0, 2)])
    body = Mesh(np.asarray(two.vertices), np.asarray(two.faces), "normal", "two")
    pieces = decomposed("two.obj", body, CONFIG)
    assert pieces.fallback == module.HULLS and len(pieces.pieces) == 2 and pieces.fit.distance < 2e-4


def test_sheets_among_bodies_keep_none_of_these_from_being_joined(coacd):
    boxes = [trimesh.creation.box((1, 0.8, 0.6)).apply_translation((x, x, 0)) for x in (0, 0.2)]
    square = [[0, 0, 0], [0.1, 0, 0], [0.1, 0.1, 0], [0, 0.1, 0]]
    sheet = trimesh.Trimesh(square, [[0, 1, 2], [0, 2, 3], [2, 1, 0], [3, 2, 0]], process=False)
    solid = trimesh.util.concatenate([*boxes, sheet])
    joined = len(trimesh.boolean.union(boxes).vertices)
    coacd(f"{HEAD}    assert len(mesh.vertices) == {joined}, len(mesh.vertices)\n    return whole")
    body = Mesh(np.asarray(solid.vertices), np.asarray(solid.faces), "normal", "")
    assert decomposed("three.obj", body, replace(CONFIG, largest_distance=1.0)).fallback == ""


def test_why_bodies_could_not_be_joined_stands_in_the_refusal(coacd, monkeypatch):
    coacd(CRASH)

    def refuse(vertices, faces):
        raise NoSolidError("body 1 of the mesh, with 12 faces", "NotManifold")

    monkeypatch.setattr(mesh_repair, "outer_surface", refuse)
    across = trimesh.util.concatenate([trimesh.creation.box((1, 0.1, 0.1)), trimesh.creation.box((0.1, 0.1, 1))])
    body = Mesh(np.asarray(across.vertices), np.asarray(across.faces), "normal", "")
    body = body._replace(
        vertices=np.concatenate([body.vertices, corner().vertices + 2]),
        faces=np.concatenate([body.faces, corner().faces + len(body.vertices)]),
    )
    with pytest.raises(
        InputError, match=r"said: nothing .*joined first, as body 1 of the mesh.*\(NotManifold\); lower"
    ):
        decomposed("boxes.obj", body, CONFIG)


@pytest.mark.parametrize("where", ["here", "in CoACD's process"])
def test_a_full_temporary_folder_is_named_and_nothing_else_is_tried(coacd, monkeypatch, where):
    coacd(f"{HEAD}    raise OSError(28, 'No space left on device')")
    if where == "here":
        monkeypatch.setattr(module.np, "savez", lambda *_, **__: (_ for _ in ()).throw(OSError(28, "No space left")))
    with pytest.raises(InputError, match=rf"bar.obj .* temporary folder {tempfile.gettempdir()} \(No space .*TMPDIR"):
        decomposed("bar.obj", bar(), CONFIG)


def test_a_word_that_coacd_would_take_for_auto_is_refused():
    with pytest.raises(InputError, match="preprocess_mode='of' is out of range: wanted one of auto, on, off"):
        replace(CONFIG, preprocess_mode="of")
