from dataclasses import replace

import numpy as np
import pytest
import torch
import trimesh
from scene import POINTS

from bimangrasp.errors import InputError
from bimangrasp.objects.files import check_size, object_scales
from bimangrasp.objects.model import ObjectModel, check_mesh, read_mesh

BALL = trimesh.creation.icosphere(subdivisions=3)

TURNED_SQUARE = trimesh.Trimesh(
    [[0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0]], [[0, 1, 2], [0, 2, 3], [0, 2, 1], [0, 3, 2]], process=False
).apply_transform(trimesh.transformations.rotation_matrix(0.7, [1, 2, 3]))


def saved(folder, mesh, name="mesh.obj"):
    mesh.export(folder / name)
    return str(folder / name)


@pytest.mark.parametrize("ending", ["obj", "stl", "ply", "off", "glb"])
def test_every_format_gives_the_same_solid(tmp_path, ending):
    mesh = read_mesh(saved(tmp_path, BALL, f"ball.{ending}"))
    corners = mesh.vertices[mesh.faces]
    assert mesh.sign == "normal" and len(mesh.faces) == len(BALL.faces)
    volume = np.einsum("fi,fi->", corners[:, 0], np.cross(corners[:, 1], corners[:, 2])) / 6
    assert volume == pytest.approx(BALL.volume, rel=1e-5)


def test_a_mesh_that_is_inside_out_is_turned(tmp_path):
    inverted = BALL.copy()
    inverted.invert()
    obj = ObjectModel.load(saved(tmp_path, inverted), POINTS)
    distance, normal = obj.signed_distance(torch.tensor([[[0.0, 0.0, 0.2]]]), torch.tensor([0.15]))
    assert distance.item() == pytest.approx(0.05, abs=1e-3) and normal[0, 0, 2] > 0.99


@pytest.mark.slow
def test_distance_and_normal_scale_with_the_object(tmp_path):
    obj = ObjectModel.load(saved(tmp_path, BALL), POINTS)
    points = torch.randn(1, 50, 3, generator=torch.Generator().manual_seed(1)).expand(2, 50, 3)
    scale = torch.tensor([0.15, 0.3])
    distance, normal = obj.signed_distance(points * scale[:, None, None], scale)
    torch.testing.assert_close(distance[1], 2 * distance[0])
    torch.testing.assert_close(normal[1], normal[0], atol=1e-4, rtol=1e-4)
    radial = (points[0].norm(dim=-1) - 1) * 0.15
    torch.testing.assert_close(distance[0], radial, atol=2e-3, rtol=0)


def test_surface_points_depend_on_mesh_and_count_alone(tmp_path):
    path = saved(tmp_path, BALL)
    torch.manual_seed(1)
    first = ObjectModel.load(path, POINTS).surface_points
    torch.manual_seed(2)
    assert torch.equal(first, ObjectModel.load(path, POINTS).surface_points)
    assert len(first) == POINTS.surface_points
    torch.testing.assert_close(first.norm(dim=1), torch.ones(len(first)), atol=0.01, rtol=0)
    nearest = torch.cdist(first, first).fill_diagonal_(9).amin(1)
    assert nearest.min() > 0.5 * nearest.mean()  # spread out, not merely random


def test_a_ball_with_a_hole_is_told_apart_by_its_winding_number(tmp_path):
    holed = BALL.copy()
    holed.update_faces(np.arange(len(BALL.faces)) > 3)
    mesh = read_mesh(saved(tmp_path, holed))
    assert mesh.sign == "winding"
    obj = ObjectModel(mesh, POINTS)
    points = torch.tensor([[[0.0, 0, 0.1], [0, 0, 0.2], [0.1, 0, 0], [-0.2, 0, 0]]])
    distance, _ = obj.signed_distance(points, torch.tensor([0.15]))
    assert (distance[0] < 0).tolist() == [True, False, True, False]


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: BALL.submesh([np.flatnonzero(np.abs(BALL.triangles_center[:, 2]) < 0.4)])[0], "not closed"),
        (lambda: trimesh.Trimesh([[0, 0, 0], [1, 0, 0], [0, 1, 0]], [[0, 1, 2], [0, 2, 1]]), "degenerate"),
        (lambda: trimesh.Trimesh([[0, 0, 0], [1, 1, 1], [2, 2, 2]], [[0, 1, 2]]), "degenerate"),
        (lambda: TURNED_SQUARE, "degenerate"),
    ],
)
def test_a_mesh_without_an_inside_is_refused(tmp_path, make, words):
    with pytest.raises(InputError, match=words):
        check_mesh(saved(tmp_path, make(), "open.ply"))


def test_files_that_are_no_mesh_are_refused_by_name(tmp_path):
    cases = {"empty.obj": "", "points.obj": "v 0 0 0\nv 1 0 0\nv 0 1 0\n", "noise.stl": "not a mesh"}
    for name, text in cases.items():
        (tmp_path / name).write_text(text)
        with pytest.raises(InputError, match=name):
            check_mesh(str(tmp_path / name))
    with pytest.raises(InputError, match="not there"):
        check_mesh(str(tmp_path / "gone.obj"))
    (tmp_path / "nan.obj").write_text("v 0 0 0\nv 1 0 0\nv 0 nan 0\nv 0 0 1\nf 1 2 3\nf 1 2 4\nf 2 3 4\nf 1 3 4\n")
    with pytest.raises(InputError, match="vertex 2"):
        check_mesh(str(tmp_path / "nan.obj"))


def test_sizes_that_two_hands_cannot_hold_are_refused_with_the_size(tmp_path):
    report = check_mesh(saved(tmp_path, BALL))
    check_size(report, replace(POINTS, scales=[0.15, 0.17]), "ball")
    with pytest.raises(InputError, match="300 to 340 m across.*millimeters"):
        check_size(report, replace(POINTS, scales=[150.0, 170.0]), "ball")
    with pytest.raises(InputError, match="0.002 to 0.3 m across"):
        check_size(report, replace(POINTS, scales=[0.001, 0.15]), "ball")
    away = BALL.copy()
    away.apply_translation([5, 0, 0])
    with pytest.raises(InputError, match="far from its origin"):
        check_size(check_mesh(saved(tmp_path, away, "away.obj")), POINTS, "away")


def test_metric_sizes_are_the_largest_extents(tmp_path):
    rod = trimesh.creation.box((1.0, 2.0, 5.0))
    report = check_mesh(saved(tmp_path, rod))
    metric = replace(POINTS, sizes=[0.25, 0.5])
    assert object_scales(metric, report.extent) == pytest.approx([0.05, 0.1])
    assert object_scales(POINTS, report.extent) == POINTS.scales
    assert ObjectModel.load(str(tmp_path / "mesh.obj"), POINTS).extent == report.extent == pytest.approx(5.0)
    check_size(report, metric, "rod")
    check_size(report, replace(POINTS, sizes=[0.8]), "rod")
    with pytest.raises(InputError, match=r"object.sizes=\[25.0\].*millimeters"):
        check_size(report, replace(POINTS, sizes=[25.0]), "rod")


def test_vertices_that_no_face_uses_are_no_part_of_the_object(tmp_path):
    stray = trimesh.Trimesh([*BALL.vertices, [3, 0, 0]], BALL.faces, process=False)
    path = saved(tmp_path, stray, "stray.ply")
    assert check_mesh(path).diameter == pytest.approx(12**0.5, rel=1e-3)
    assert np.linalg.norm(ObjectModel.load(path, POINTS).hull, axis=1).max() < 1.01


def test_a_file_that_is_not_utf8_is_read(tmp_path):
    path = saved(tmp_path, BALL)
    (tmp_path / "latin.obj").write_bytes(b"# M\xfcller\n" + (tmp_path / "mesh.obj").read_bytes())
    assert check_mesh(str(tmp_path / "latin.obj")).faces == check_mesh(path).faces


def test_other_meshes_have_other_surface_points(tmp_path):
    turned = trimesh.Trimesh(BALL.vertices, BALL.faces[::-1], process=False)
    first, second = (ObjectModel.load(saved(tmp_path, m, n), POINTS) for m, n in ((BALL, "a.ply"), (turned, "b.ply")))
    assert first.sha256 != second.sha256 and not torch.equal(first.surface_points, second.surface_points)
