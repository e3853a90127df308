"""The distance between convex pieces and their mesh: closed forms for boxes, and what it must not see."""

from __future__ import annotations

import numpy as np
import pytest
import trimesh

from bimangrasp.objects import pieces_fit as module
from bimangrasp.objects.mesh_repair import bodies_of
from bimangrasp.objects.model import Mesh
from bimangrasp.objects.pieces import Piece, PiecesFit, hull
from bimangrasp.objects.pieces_fit import joined_pieces, pieces_fit

EXTENTS = np.array([0.6, 0.4, 0.2])
ROUNDING = 2 * module.CRACK
"""Grown pieces have their corners sqrt(3) times as far out as their faces; share of a diagonal."""


def box(extents: np.ndarray, at: tuple[float, float, float] = (0.0, 0.0, 0.0)) -> trimesh.Trimesh:
    return trimesh.creation.box(extents).apply_translation(at)


def fit(solid: trimesh.Trimesh, *parts: trimesh.Trimesh) -> PiecesFit:
    body = Mesh(np.asarray(solid.vertices), np.asarray(solid.faces), "normal", "toy")
    return pieces_fit(body, pieces(*parts))


def pieces(*parts: trimesh.Trimesh) -> list[Piece]:
    return [hull(np.asarray(part.vertices), 0.0) for part in parts]


def test_a_box_is_its_own_piece():
    same = fit(box(EXTENTS), box(EXTENTS))
    assert same.distance < 1e-12 and same.largest < ROUNDING and same.volume_ratio == pytest.approx(1)


@pytest.mark.parametrize("gap", [0.002, -0.002])
def test_a_box_that_is_larger_or_smaller_by_a_gap_is_that_far(gap):
    other = fit(box(EXTENTS), box(EXTENTS + 2 * gap))
    assert other.distance == pytest.approx(abs(gap), abs=ROUNDING)
    assert abs(gap) - ROUNDING <= other.largest <= np.sqrt(3) * abs(gap) + ROUNDING
    assert other.uncovered == pytest.approx(other.largest if gap < 0 else 0, abs=ROUNDING)
    assert other.volume_ratio == pytest.approx(np.prod(EXTENTS + 2 * gap) / np.prod(EXTENTS))


def test_it_grows_with_the_object_and_is_told_at_a_size():
    small, large = (fit(box(EXTENTS * size), box((EXTENTS + 0.1) * size)) for size in (1, 10))
    assert large[:3] == pytest.approx([10 * part for part in small[:3]])
    assert PiecesFit(0.01, 0.02, 0.0, 1.5).at(0.17) == (
        "95 % of the surface within 1.70 mm, all within 3.40 mm, volume x 1.500"
    )
    assert PiecesFit(0.01, 0.02, 0.0, None).at(0.17).endswith("3.40 mm")


def test_a_part_that_no_piece_has_is_missed_and_one_that_only_pieces_have_too():
    halves = [box(EXTENTS, at) for at in ((-0.3, 0.0, 0.0), (0.3, 0.0, 0.0))]
    whole = box(EXTENTS * [2, 1, 1])
    for one in (fit(whole, halves[0]), fit(halves[0], *halves)):
        assert one.largest > 0.5 and one.distance > 0.4
    assert fit(whole, *halves).largest < ROUNDING
    assert fit(whole, halves[0]).uncovered > 0.5 and fit(halves[0], *halves).uncovered < ROUNDING


@pytest.mark.parametrize("crack", [0.0, 1e-5])
def test_cuts_between_pieces_are_no_outer_surface(crack):
    parts = [box(EXTENTS, (sign * (0.3 + crack), 0.0, 0.0)) for sign in (-1, 1)]
    assert fit(box(EXTENTS * [2, 1, 1]), *parts).largest < 2 * crack + ROUNDING


def test_joined_pieces_are_one_body_without_the_crack_between_them():
    parts = pieces(*(box(EXTENTS, (sign * 0.30001, 0.0, 0.0)) for sign in (-1, 1)))
    counts = [bodies_of(*joined_pieces(parts, growth)).max() + 1 for growth in (0.0, 1e-4)]
    assert counts == [2, 1]
    solid = trimesh.Trimesh(*joined_pieces(parts, 1e-4), process=False)
    assert solid.volume == pytest.approx(np.prod(EXTENTS * [2, 1, 1]), rel=0.005)
    np.testing.assert_allclose(solid.bounds[1], [0.60011, 0.2001, 0.1001])


def test_walls_between_overlapping_bodies_are_no_outer_surface():
    parts = [box(EXTENTS, at) for at in ((-0.2, 0.0, 0.0), (0.2, 0.0, 0.0))]
    assert fit(trimesh.util.concatenate(parts), *parts).largest < ROUNDING


def test_the_hollow_of_a_mesh_counts_where_pieces_fill_it():
    ball = trimesh.creation.icosphere(subdivisions=2, radius=0.5)
    hole = trimesh.Trimesh(0.5 * ball.vertices, ball.faces[:, ::-1])
    assert fit(trimesh.util.concatenate([ball, hole]), ball).largest == pytest.approx(0.25, rel=0.1)


def test_an_open_mesh_has_no_volume_to_compare():
    open_box = box(EXTENTS)
    open_box.update_faces(np.arange(10))
    assert fit(open_box, box(EXTENTS)).volume_ratio is None


def test_equal_meshes_are_measured_alike():
    ball = trimesh.creation.icosphere(subdivisions=2)
    cube = box(np.ones(3))
    assert fit(ball, cube) == fit(ball, cube)


def test_without_the_union_nothing_is_measured(monkeypatch):
    monkeypatch.setattr(module, "find_spec", lambda name: None)
    assert fit(box(EXTENTS), box(EXTENTS)) is None
