from __future__ import annotations

import hashlib
import json
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import quick_conf
import torch
import trimesh
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial import ConvexHull

from bimangrasp import builtin
from bimangrasp.errors import InputError
from bimangrasp.geometry.triangle_mesh import winding_number
from bimangrasp.objects.convex_pieces import convex_pieces, piece_files
from bimangrasp.objects.decomposition import decomposed
from bimangrasp.objects.files import RECORD
from bimangrasp.objects.model import read_mesh
from bimangrasp.objects.pieces import Piece, Pieces, pieces_image, read_pieces, sha256_of

CONFIG = quick_conf.load().pieces
QUICK = replace(CONFIG, threshold=0.05, mcts_iterations=60, mcts_nodes=10, mcts_max_depth=2, resolution=1000)
COARSE = replace(CONFIG, threshold=0.1, mcts_iterations=10, mcts_nodes=4, mcts_max_depth=1, resolution=200)
COARSE = replace(COARSE, largest_distance=0.1)
BALL = trimesh.creation.icosphere(subdivisions=2)


def saved(path: Path, mesh: trimesh.Trimesh) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    mesh.export(path)
    return str(path)


def bin_mesh() -> trimesh.Trimesh:
    """An open box, 1 x 1 x 0.6 m, with walls of 0.1 m, as one closed surface."""
    outer = np.array([[x, y, z] for z in (0.0, 0.6) for y in (0.0, 1.0) for x in (0.0, 1.0)])
    inner = outer * [0.8, 0.8, 0.5 / 0.6] + [0.1, 0.1, 0.1]
    box = [[0, 2, 3, 1], [0, 1, 5, 4], [1, 3, 7, 5], [3, 2, 6, 7], [2, 0, 4, 6]]  # bottom and four sides, outward
    rim = [[4, 5, 13, 12], [5, 7, 15, 13], [7, 6, 14, 15], [6, 4, 12, 14]]
    quads = [*box, *([8 + k for k in reversed(quad)] for quad in box), *rim]
    return trimesh.Trimesh(np.concatenate((outer, inner)), [t for a, b, c, d in quads for t in ((a, b, c), (a, c, d))])


def folded() -> trimesh.Trimesh:
    """An icosahedron with one edge turned: a valley, although every corner lies on the hull."""
    ball = trimesh.creation.icosahedron()
    pair, (p, q) = ball.face_adjacency[0], ball.face_adjacency_unshared[0]
    u, v = np.roll(ball.faces[pair[0]], -list(ball.faces[pair[0]]).index(p))[1:]
    return trimesh.Trimesh(ball.vertices, [*np.delete(ball.faces, pair, axis=0), (q, v, p), (p, u, q)], process=False)


def inside_pieces(points: np.ndarray, pieces: Pieces) -> np.ndarray:
    planes = [ConvexHull(piece.vertices).equations for piece in pieces.pieces]
    return np.any([(points @ plane[:, :3].T + plane[:, 3] <= 0).all(axis=1) for plane in planes], axis=0)


def inside_mesh(points: np.ndarray, path: str) -> np.ndarray:
    mesh = read_mesh(path)
    return (winding_number(torch.as_tensor(points), torch.as_tensor(mesh.vertices[mesh.faces])) > 0.5).numpy()


def draws(path: str, count: int) -> np.ndarray:
    vertices = read_mesh(path).vertices
    return np.random.default_rng(1).uniform(vertices.min(axis=0), vertices.max(axis=0), (count, 3))


def volume(piece: Piece) -> float:
    a, b, c = (piece.vertices[piece.faces[:, k]] for k in range(3))
    return float(np.einsum("fi,fi->", a, np.cross(b, c)) / 6)


def equal(one: Pieces, other: Pieces) -> bool:
    return pieces_image(one) == pieces_image(other)


@pytest.fixture(scope="module")
def decomposed_bin(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Pieces]:
    path = saved(tmp_path_factory.mktemp("bin") / "bin.obj", bin_mesh())
    return path, convex_pieces(path, QUICK)


def test_a_convex_mesh_is_one_piece_with_its_volume(tmp_path):
    pieces = convex_pieces(saved(tmp_path / "ball.obj", BALL), CONFIG)
    assert (pieces.source, len(pieces.pieces), pieces.dropped) == ("convex", 1, 0)
    assert volume(pieces.pieces[0]) == pytest.approx(BALL.volume, rel=1e-6)
    box = convex_pieces(str(builtin.OBJECT_ROOT / "box.obj"), CONFIG)
    mesh = trimesh.load_mesh(str(builtin.OBJECT_ROOT / "box.obj"))
    assert box.source == "convex" and volume(box.pieces[0]) == pytest.approx(mesh.volume, rel=1e-4)


def test_pieces_in_the_folder_of_a_meshs_name_are_its_own(tmp_path):
    ring = trimesh.creation.annulus(0.5, 1.0, 0.4, sections=12)
    path, other = saved(tmp_path / "ring.obj", ring), saved(tmp_path / "ball.obj", BALL)
    for number in range(12):
        sector = [angle * np.pi / 6 for angle in (number, number + 1)]
        corners = [
            (r * np.cos(angle), r * np.sin(angle), z) for r in (0.5, 1.0) for angle in sector for z in (-0.2, 0.2)
        ]
        saved(tmp_path / f"ring/coacd_convex_piece_{number}.obj", trimesh.convex.convex_hull(np.array(corners)))
    pieces = convex_pieces(path, CONFIG)
    assert (pieces.source, len(pieces.pieces)) == ("coacd files", 12)
    assert sum(volume(piece) for piece in pieces.pieces) == pytest.approx(ring.volume, rel=1e-5)
    assert convex_pieces(other, CONFIG).source == "convex"


def test_a_dent_or_a_cavity_is_not_convex(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "coacd", None)
    dented = BALL.copy()
    dented.vertices[0] *= 0.9
    hollow = trimesh.util.concatenate([BALL, trimesh.Trimesh(BALL.vertices * 0.5, BALL.faces[:, ::-1])])
    for name, mesh in {"dented.obj": dented, "hollow.obj": hollow, "folded.obj": folded()}.items():
        with pytest.raises(InputError, match=rf"{name} is not convex .*pip install -e '.*\[objects\]'"):
            convex_pieces(saved(tmp_path / name, mesh), CONFIG)


@pytest.mark.slow
def test_a_bin_of_five_walls_is_its_pieces_but_for_one_percent(decomposed_bin):
    path, pieces = decomposed_bin
    assert pieces.source == "decomposed" and 5 <= len(pieces.pieces) <= 20
    assert sum(volume(piece) for piece in pieces.pieces) == pytest.approx(bin_mesh().volume, rel=0.01)
    points = draws(path, 4000)
    assert (inside_pieces(points, pieces) != inside_mesh(points, path)).mean() < 0.01


@pytest.mark.slow
def test_pieces_of_the_mug_leave_nothing_out_and_its_hollow_open():
    path = str(builtin.OBJECT_ROOT / "mug.obj")
    pieces = decomposed(path, read_mesh(path), COARSE)
    points = draws(path, 1500)
    in_pieces, in_mesh = inside_pieces(points, pieces), inside_mesh(points, path)
    assert in_pieces[in_mesh].mean() > 0.99
    assert in_mesh[in_pieces].mean() > 0.7  # each piece fills the curve of a thin wall
    in_hull = ConvexHull(read_mesh(path).vertices).volume / np.prod(np.ptp(read_mesh(path).vertices, axis=0))
    assert in_pieces.mean() < 0.6 * in_hull


@pytest.mark.slow
def test_every_piece_is_convex_and_outward(decomposed_bin):
    for piece in decomposed_bin[1].pieces:
        assert piece.vertices.dtype == np.float64
        a, b, c = (piece.vertices[piece.faces[:, k]] for k in range(3))
        normal = np.cross(b - a, c - a)
        height = np.einsum("fi,fvi->fv", normal, piece.vertices[None] - a[:, None])
        assert height.max() < 1e-9 and volume(piece) > 0


@pytest.mark.slow
@pytest.mark.slow
def test_decomposing_again_gives_the_same_bytes(decomposed_bin, monkeypatch):
    path, pieces = decomposed_bin
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    assert equal(convex_pieces(path, QUICK), pieces)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("code", "count"),
    [
        ("Cole_Hardware_Dishtowel_Multicolors", 6),
        ("Curver_Storage_Bin_Black_Small", 16),
        ("Hasbro_Monopoly_Hotels_Game", 4),
    ],
)
def test_pieces_of_dexgraspnet_are_taken_in_numeric_order(shared, code, count):
    folder = shared / "data" / "meshdata" / code / "coacd"
    pieces = convex_pieces(str(folder / "decomposed.obj"), CONFIG)
    assert (pieces.source, len(pieces.pieces), pieces.dropped) == ("coacd files", count, 0)
    for number, piece in enumerate(pieces.pieces):
        mesh = read_mesh(str(folder / f"coacd_convex_piece_{number}.obj"))
        assert volume(piece) == pytest.approx(ConvexHull(mesh.vertices).volume, rel=1e-9)
        np.testing.assert_array_equal(piece.vertices.min(axis=0), mesh.vertices.min(axis=0))


@pytest.fixture
def three_parts(tmp_path: Path) -> Path:
    """A mesh of three boxes in a row and its pieces."""
    boxes = [trimesh.creation.box(extents=[0.5, 0.2 + 0.1 * (k == 1), 0.2]) for k in range(3)]
    for k, box in enumerate(boxes):
        box.apply_translation([0.5 * k, 0, 0])
        saved(tmp_path / f"coacd_convex_piece_{k}.obj", box)
    saved(tmp_path / "decomposed.obj", trimesh.util.concatenate(boxes))
    return tmp_path


def test_given_pieces_are_taken(three_parts):
    pieces = convex_pieces(str(three_parts / "decomposed.obj"), CONFIG)
    assert [volume(piece) for piece in pieces.pieces] == pytest.approx([0.02, 0.03, 0.02])


def test_a_gap_in_the_numbers_is_refused(three_parts):
    (three_parts / "coacd_convex_piece_1.obj").unlink()
    with pytest.raises(InputError, match="lacks k = 1"):
        convex_pieces(str(three_parts / "decomposed.obj"), CONFIG)


def test_pieces_that_do_not_fill_the_mesh_are_refused(three_parts):
    (three_parts / "coacd_convex_piece_2.obj").unlink()
    with pytest.raises(InputError, match="do not match"):
        convex_pieces(str(three_parts / "decomposed.obj"), CONFIG)


def test_pieces_of_a_prepared_object_may_be_farther_than_those_of_a_stranger(three_parts):
    wide = trimesh.creation.box(extents=[0.5, 0.31, 0.2]).apply_translation([0.5, 0, 0])
    saved(three_parts / "coacd_convex_piece_1.obj", wide)
    mesh = three_parts / "decomposed.obj"
    with pytest.raises(InputError, match="do not match"):
        convex_pieces(str(mesh), CONFIG)
    names = [mesh.name, *(path.name for path in piece_files(three_parts))]
    hashes = {name: hashlib.sha256((three_parts / name).read_bytes()).hexdigest() for name in names}
    (three_parts / RECORD).write_text(json.dumps({"files": hashes}))
    assert convex_pieces(str(mesh), CONFIG).fit.largest == pytest.approx(0.005, abs=1e-3)
    with pytest.raises(InputError, match=r"pieces.largest_distance=0.001; remove the files"):
        convex_pieces(str(mesh), replace(CONFIG, largest_distance=0.001))
    saved(three_parts / "coacd_convex_piece_1.obj", wide.apply_scale([1, 1.01, 1]))
    with pytest.raises(InputError, match="do not match"):
        convex_pieces(str(mesh), CONFIG)


def test_a_missing_middle_is_seen_although_the_bounds_fit(three_parts):
    shutil.copy(three_parts / "coacd_convex_piece_2.obj", three_parts / "coacd_convex_piece_1.obj")
    mesh = read_mesh(str(three_parts / "decomposed.obj")).vertices
    assert mesh[:, 1].max() == 0.15  # only the middle box is so wide, so widen another
    wide = trimesh.creation.box(extents=[0.5, 0.3, 0.2])
    saved(three_parts / "coacd_convex_piece_0.obj", wide)
    with pytest.raises(InputError, match="do not match"):
        convex_pieces(str(three_parts / "decomposed.obj"), CONFIG)


def test_pieces_beyond_the_mesh_are_refused(three_parts):
    saved(three_parts / "coacd_convex_piece_3.obj", trimesh.creation.box(extents=[0.1, 0.1, 3]))
    with pytest.raises(InputError, match="do not match"):
        convex_pieces(str(three_parts / "decomposed.obj"), CONFIG)


def test_a_piece_that_is_not_convex_is_named(three_parts):
    dented = trimesh.creation.icosphere(subdivisions=2, radius=0.1)
    dented.vertices[0] *= 0.5
    saved(three_parts / "coacd_convex_piece_1.obj", dented)
    with pytest.raises(InputError, match="coacd_convex_piece_1.obj is not convex"):
        convex_pieces(str(three_parts / "decomposed.obj"), CONFIG)


def test_a_flat_piece_is_named_and_a_tiny_one_dropped(three_parts):
    flat = trimesh.Trimesh([[0, 0, 0], [0.1, 0, 0], [0, 0.1, 0]], [[0, 1, 2]], process=False)
    saved(three_parts / "coacd_convex_piece_3.obj", flat)
    with pytest.raises(InputError, match="coacd_convex_piece_3.obj is degenerate"):
        convex_pieces(str(three_parts / "decomposed.obj"), CONFIG)
    saved(three_parts / "coacd_convex_piece_3.obj", trimesh.creation.box(extents=[1e-4, 1e-4, 1e-4]))
    pieces = convex_pieces(str(three_parts / "decomposed.obj"), CONFIG)
    assert (len(pieces.pieces), pieces.dropped) == (3, 1)


def test_bad_meshes_are_refused_at_the_door(tmp_path):
    with pytest.raises(InputError, match="is not there"):
        convex_pieces(str(tmp_path / "gone.obj"), CONFIG)
    with pytest.raises(InputError, match="degenerate"):
        convex_pieces(saved(tmp_path / "flat.ply", trimesh.Trimesh(np.eye(3), [[0, 1, 2]])), CONFIG)


BOXES = Pieces(
    (Piece(np.eye(3), np.array([[0, 1, 2]])), Piece(np.zeros((2, 3)), np.array([[0, 1, 1]]))), "convex", 1, ""
)


def sealed() -> Pieces:
    return BOXES._replace(sha256=sha256_of(BOXES.pieces))


@pytest.mark.slow
def test_a_file_of_pieces_gives_them_back(tmp_path, decomposed_bin):
    for pieces in (decomposed_bin[1], sealed()):
        (tmp_path / "pieces.npz").write_bytes(pieces_image(pieces))
        assert equal(read_pieces(str(tmp_path / "pieces.npz")), pieces)
        assert (tmp_path / "pieces.npz").read_bytes() == pieces_image(pieces)


@pytest.fixture(scope="module")
def image() -> bytes:
    return pieces_image(sealed())


@given(data=st.data())
def test_a_damaged_file_is_refused_or_says_the_same(tmp_path_factory, image, data):
    path = tmp_path_factory.mktemp("damaged") / "pieces.npz"
    position, change = data.draw(st.integers(0, len(image) - 1)), data.draw(st.integers(1, 255))
    path.write_bytes(image[:position] + bytes([image[position] ^ change]) + image[position + 1 :])
    try:
        assert equal(read_pieces(str(path)), sealed())  # a byte that says nothing, such as a date
    except InputError as error:
        assert "damaged" in str(error)


def test_cut_and_foreign_files_are_refused(tmp_path, image):
    path = tmp_path / "pieces.npz"
    for content in (b"", image[:-1], image[: len(image) // 2], b"not a zip", b"\x80\x04."):
        path.write_bytes(content)
        with pytest.raises(InputError, match="pieces.npz are damaged"):
            read_pieces(str(path))
    np.save(tmp_path / "other.npy", np.zeros(3))
    with pytest.raises(InputError, match="damaged"):
        read_pieces(str(tmp_path / "other.npy"))
    path.write_bytes(pieces_image(sealed()._replace(sha256="0" * 64)))
    with pytest.raises(InputError, match="say sha256 0000"):
        read_pieces(str(path))
    with pytest.raises(InputError, match="not there"):
        read_pieces(str(tmp_path / "gone.npz"))
