"""Meshes made ready to be grasped, in every state in which people bring them."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import quick_conf
import trimesh

from bimangrasp.errors import InputError
from bimangrasp.geometry.triangle_mesh import NoSolidError
from bimangrasp.objects import mesh_repair
from bimangrasp.objects.model import read_mesh
from bimangrasp.objects.preparation import as_written, finish_draft, make_draft, obj_image

BALL = trimesh.creation.icosphere(subdivisions=1)
TURN = trimesh.transformations.rotation_matrix(0.7, [1, 2, 3])


BEYOND_PLY = (
    b"ply\nformat ascii 1.0\nelement vertex 3\nproperty float x\nproperty float y\nproperty float z\nelement face 1\n"
    b"property list uchar int vertex_indices\nend_header\n0 0 0\n1 0 0\n0 1 0\n3 0 1 7\n"
)


def settings(*overrides):
    return quick_conf.load(*(f"prepare.{override}" for override in overrides)).prepare


def ready(path, *overrides):
    return finish_draft(make_draft(str(path), settings(*overrides)), settings(*overrides))


def saved(folder: Path, mesh, name="thing.ply") -> Path:
    mesh.export(folder / name)
    return folder / name


def test_what_is_written_is_what_was_tested(tmp_path):
    made = ready(saved(tmp_path, BALL.copy().apply_transform(TURN)))
    (tmp_path / "made.obj").write_bytes(made.image)
    back = read_mesh(str(tmp_path / "made.obj"))
    assert np.array_equal(back.vertices, made.mesh.vertices) and np.array_equal(back.faces, made.mesh.faces)
    assert back.sha256 == made.mesh.sha256 and back.sign == made.mesh.sign == "normal"
    assert made.prepared.volume == pytest.approx(BALL.volume / 1.03**3, rel=0.01) and made.sign.wrong == 0


@pytest.mark.slow
@pytest.mark.parametrize("convention", ["dexgraspnet", "plain", "keep"])
def test_preparing_twice_gives_the_same_bytes(tmp_path, convention):
    first = ready(saved(tmp_path, BALL.copy().apply_translation((3, 0, 0))), f"normalize={convention}")
    (tmp_path / "made.obj").write_bytes(first.image)
    assert ready(tmp_path / "made.obj", f"normalize={convention}").image == first.image


@pytest.mark.parametrize("ending", ["obj", "stl", "ply", "off", "glb"])
def test_every_format_becomes_the_same_object(tmp_path, ending):
    made = ready(saved(tmp_path, BALL, f"ball.{ending}"))
    assert made.prepared[:4] == (42, 80, True, 1)
    assert made.prepared.volume == pytest.approx(BALL.volume / 1.03**3, rel=1e-5)


def test_the_place_takes_the_file_to_the_prepared_mesh(tmp_path):
    made = ready(saved(tmp_path, BALL.copy().apply_scale(40).apply_translation((100, 0, 0))), "normalize=plain")
    np.testing.assert_allclose(made.placement(np.array([[140.0, 0, 0]])), [[0.5, 0, 0]], atol=1e-6)


def test_a_mesh_in_millimeters_is_guessed_and_said(tmp_path):
    path = saved(tmp_path, BALL.copy().apply_scale(100))
    (said,) = ready(path).warnings
    assert "spans 200: its unit may be mm" in said and "prepare.normalize=keep" in said
    kept = ready(path, "normalize=keep", "unit=mm")
    assert max(kept.prepared.extents) == pytest.approx(0.2) and not kept.warnings


@pytest.mark.slow
def test_overlapping_bodies_become_one(tmp_path):
    both = trimesh.util.concatenate([BALL, BALL.copy().apply_translation((1, 0, 0))])
    made = ready(saved(tmp_path, both), "normalize=keep")
    assert made.repairs.joined == 1 and made.prepared.bodies == 1 and made.sign.wrong == 0
    assert made.prepared.volume == pytest.approx(
        trimesh.boolean.union([both.split()[0], both.split()[1]]).volume, rel=1e-6
    )
    assert made.warnings[0].startswith("the prepared mesh had the wrong sign at ")
    assert made.warnings[0].endswith("points until its 2 bodies became 1"), "what would be refused is not advised"
    with pytest.raises(InputError, match=r"wrong sign .* join them \(prepare.interior_faces=remove\)"):
        ready(saved(tmp_path, both), "interior_faces=keep")


def test_what_is_advised_for_wrong_signs_was_tried(tmp_path, monkeypatch):
    small = trimesh.creation.box((0.1, 0.1, 0.1)).apply_translation((0.98, 0, 0))
    path = saved(tmp_path, trimesh.util.concatenate([BALL, small]))
    (said,) = ready(path, "normalize=keep").warnings
    assert said.endswith("until its 2 bodies became 1; prepare.interior_faces=keep leaves them")
    (kept,) = ready(path, "normalize=keep", "interior_faces=keep").warnings
    assert kept.startswith("the prepared mesh has the wrong sign at ")

    def refuse(vertices, faces):
        raise NoSolidError("body 1 of the mesh, with 80 faces", "NotManifold")

    path = saved(tmp_path, trimesh.util.concatenate([BALL, BALL.copy().apply_translation((1, 0, 0))]))
    monkeypatch.setattr(mesh_repair, "outer_surface", refuse)
    with pytest.raises(InputError, match="wrong sign") as refusal:
        ready(path, "normalize=keep", "interior_faces=keep")
    assert "interior_faces" not in str(refusal.value), "the bodies cannot be joined"


def test_bodies_that_do_not_touch_stay(tmp_path):
    both = trimesh.util.concatenate([BALL, BALL.copy().apply_translation((3, 0, 0))])
    made = ready(saved(tmp_path, both.apply_scale(0.3)))
    assert made.prepared.bodies == 2 and made.repairs.joined == 0 and not made.warnings


def test_a_mesh_that_stays_open_is_taken_where_its_inside_is_known(tmp_path):
    fine = trimesh.creation.icosphere(subdivisions=2)
    holed = fine.submesh([np.flatnonzero(fine.triangles_center[:, 2] < 0.9)])[0]
    made = ready(saved(tmp_path, holed))
    assert (
        made.mesh.sign == "winding"
        and not made.prepared.closed
        and "the prepared mesh is open (as is that of the file), with holes of 0.4 of its" in made.warnings[0]
    )
    half = BALL.submesh([np.flatnonzero(BALL.triangles_center[:, 2] < 0.3)])[0]
    with pytest.raises(InputError, match=r"repaired, is not closed.*prepare.surface=pieces.*holes of 0\.\d+"):
        ready(saved(tmp_path, half, "half.ply"), "surface=mesh")


def test_no_advice_is_given_that_is_in_force(tmp_path, monkeypatch):
    half = saved(tmp_path, BALL.submesh([np.flatnonzero(BALL.triangles_center[:, 2] < 0.3)])[0], "half.ply")
    with pytest.raises(InputError, match=r"of its diagonal \(prepare.largest_hole=0.\d+\)$") as refusal:
        ready(half)
    assert "prepare.surface" not in str(refusal.value)
    hole = re.search(r"largest_hole=([\d.]+)", str(refusal.value))[1]
    assert ready(half, f"largest_hole={hole}").prepared.closed, "what is advised helps"

    def refuse(vertices, faces):
        raise NoSolidError("body 1 of the mesh, with 80 faces", "NotManifold")

    monkeypatch.setattr(mesh_repair, "outer_surface", refuse)
    both = saved(tmp_path, trimesh.util.concatenate([BALL, BALL.copy().apply_translation((1, 0, 0))]))
    for surface, advice in (
        ("mesh", r"take its convex pieces \(prepare.surface=pieces\)"),
        ("pieces", "make one closed"),
    ):
        with pytest.raises(
            InputError, match=rf"2 bodies cannot be joined, as body 1 .*NotManifold\); {advice}"
        ) as refusal:
            ready(both, f"surface={surface}")
        assert "interior_faces" not in str(refusal.value)


def test_each_sentence_says_which_mesh_it_is_about(tmp_path, monkeypatch):
    half = BALL.submesh([np.flatnonzero(BALL.triangles_center[:, 2] < 0)])[0]
    fine = trimesh.creation.icosphere(subdivisions=2)
    holed = saved(tmp_path, fine.submesh([np.flatnonzero(fine.triangles_center[:, 2] < 0.9)])[0])
    draft = make_draft(str(holed), settings())
    closed = draft._replace(original=draft.original._replace(closed=True), mesh=draft.mesh._replace(holes=()))
    (said,) = finish_draft(closed, settings()).warnings
    assert said.startswith(
        "the prepared mesh is open (that of the file is closed, with walls of two sides of which one"
    )
    assert "unknown" not in said and "no hole's rim" in said
    alone = trimesh.Trimesh(half.vertices, np.concatenate([half.faces, half.faces[:, ::-1]]), process=False)
    assert not make_draft(str(saved(tmp_path, alone, "alone.obj")), settings()).original.closed, "it encloses nothing"
    monkeypatch.setattr(trimesh.repair, "fix_winding", None)  # which takes a mesh whose bodies touch apart
    assert ready(saved(tmp_path, BALL)).prepared.closed, "a repair opens no closed mesh"


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("points.ply", trimesh.PointCloud(BALL.vertices).export(file_type="ply"), "no face"),
        ("sheet.obj", b"v 0 0 0\nv 1 0 0\nv 1 1 0\nf 1 2 3\n", "degenerate"),
        ("point.obj", b"v 1 1 1\nv 1 1 1\nv 1 1 1\nf 1 2 3\n", "no face|one place"),
        ("nan.obj", b"v nan 0 0\nv 1 0 0\nv 0 1 0\nf 1 2 3\n", "no face that can be used: faces with NaN left out: 1"),
        (
            "beyond.obj",
            b"v 0 0 0\nf 1 2 3\n",
            "beyond.obj is damaged: its faces name vertices that are not there; export",
        ),
        ("below.obj", b"v 0 0 0\nv 1 0 0\nv 0 1 0\nf -1 -2 -9\n", "below.obj is damaged: its faces name vertices"),
        ("beyond.off", b"OFF\n3 1 0\n0 0 0\n1 0 0\n0 1 0\n3 0 1 7\n", "beyond.off is damaged: its faces name vertices"),
        ("beyond.ply", BEYOND_PLY, "beyond.ply is damaged: its faces name vertices that are not there; export"),
        ("noise.stl", b"not a mesh at all", "noise.stl"),
        ("none.ply", b"", "none.ply is empty: copy it again"),
        ("pointer.obj", b"version https://git-lfs.github.com/spec/v1\n", "pointer.obj is a pointer of Git LFS"),
    ],
)
def test_what_is_no_solid_is_refused_by_name(tmp_path, name, content, words):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=words):
        ready(tmp_path / name)


def test_nine_digits_bring_float32_back():
    values = np.random.default_rng(1).normal(scale=1e3, size=(50, 3)).astype(np.float32)
    written = as_written(values.astype(float))
    assert np.array_equal(written.astype(np.float32), values) and np.array_equal(as_written(written), written)
    assert obj_image([(np.eye(3), np.array([[0, 1, 2]]))] * 2) == (
        b"v 1 0 0\nv 0 1 0\nv 0 0 1\nf 1 2 3\nv 1 0 0\nv 0 1 0\nv 0 0 1\nf 4 5 6\n"
    )
