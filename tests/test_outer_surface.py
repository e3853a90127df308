import builtins

import numpy as np
import pytest
import torch
import trimesh
from scene import POINTS

from bimangrasp.errors import InputError
from bimangrasp.geometry.triangle_mesh import outer_surface
from bimangrasp.objects.model import Mesh, ObjectModel

HALVES = trimesh.util.concatenate(
    [trimesh.creation.box([0.5, 1.0, 1.0]).apply_translation([x, 0.0, 0.0]) for x in (-0.25, 0.25)]
)


def test_the_cut_between_two_halves_goes():
    vertices, faces = outer_surface(np.asarray(HALVES.vertices), np.asarray(HALVES.faces))
    whole = trimesh.Trimesh(vertices, faces)
    assert whole.is_watertight and whole.volume == pytest.approx(1.0) and whole.area == pytest.approx(6.0)


def test_overlapping_balls_have_one_surface():
    ball = trimesh.creation.icosphere(subdivisions=3)
    both = trimesh.util.concatenate([ball, ball.copy().apply_translation([1.0, 0.0, 0.0])])
    union = trimesh.Trimesh(*outer_surface(np.asarray(both.vertices), np.asarray(both.faces)))
    lens = np.pi * (4 + 1) * (2 - 1) ** 2 / 12  # of two unit balls whose centers are 1 apart
    assert union.volume == pytest.approx(2 * 4 / 3 * np.pi - lens, rel=0.02) and union.body_count == 1


@pytest.mark.slow
def test_the_object_is_deepest_in_its_middle_once_the_cut_is_gone():
    from dataclasses import replace

    mesh = Mesh(np.asarray(HALVES.vertices), np.asarray(HALVES.faces), "normal", "halves")
    middle, one = torch.zeros((1, 1, 3)), torch.ones(1)
    for faces, depth in (("keep", 0.0), ("remove", -0.5)):
        obj = ObjectModel(mesh, replace(POINTS, interior_faces=faces))
        assert obj.signed_distance(middle, one)[0].item() == pytest.approx(depth, abs=1e-3)
        assert obj.grid.distance(middle).item() == pytest.approx(depth, abs=0.03)
        cut = (obj.surface_points[:, 0].abs() < 0.01) & (obj.surface_points[:, 1:].abs() < 0.45).all(dim=1)
        assert bool(cut.any()) == (faces == "keep")


def test_an_open_body_is_refused_with_what_to_do():
    box = trimesh.creation.box()
    with pytest.raises(InputError, match="body 0.*interior_faces=keep"):
        outer_surface(np.asarray(box.vertices), np.asarray(box.faces)[1:])


def test_without_manifold3d_the_message_says_what_to_install(monkeypatch):
    original = builtins.__import__

    def missing(name, *rest):
        if name == "manifold3d":
            raise ImportError(name)
        return original(name, *rest)

    monkeypatch.setattr(builtins, "__import__", missing)
    with pytest.raises(InputError, match="pip install manifold3d"):
        outer_surface(np.asarray(HALVES.vertices), np.asarray(HALVES.faces))
