from dataclasses import replace

import numpy as np
import pytest
import torch
import trimesh
from scene import grasps_near, shadow_hands, slope
from shape_distance import penetration_depth_reference, signed_distance
from tree_product import toy_config

from bimangrasp.geometry.distances import mesh_distance
from bimangrasp.geometry.triangle_mesh import TriangleMesh
from bimangrasp.hand_files.loading import load_hands
from bimangrasp.hands.collision_shapes import (
    penetration_depth,
    rounded_box_distance,
)
from bimangrasp.hands.model import HandModel


def cloud(seed, *shape, spread=0.05):
    return spread * torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.fixture
def toy_hands(tmp_path):
    return HandModel(*load_hands(toy_config(tmp_path)), surface_points=20, dtype=torch.float64)


def closed_form(shape, local):
    """Signed distance to a shape in its own frame, written down plainly."""
    radius, half = shape.size[0], shape.size[1]
    match shape.shape:
        case "capsule":
            axis = np.stack((0 * local[:, 0], 0 * local[:, 1], local[:, 2].clip(-half, half)), axis=1)
            return np.linalg.norm(local - axis, axis=1) - radius
        case "cylinder":
            beyond = np.stack((np.hypot(local[:, 0], local[:, 1]) - radius, np.abs(local[:, 2]) - half), axis=1)
            return np.linalg.norm(beyond.clip(0), axis=1) + beyond.max(axis=1).clip(max=0)
        case "box":
            to_planes = np.abs(local) - shape.size
            outside = np.linalg.norm(local - local.clip(-shape.size, shape.size), axis=1)
            return np.where(outside > 0, outside, to_planes.max(axis=1))
    mesh = trimesh.Trimesh(shape.vertices, shape.faces, process=False)
    distance = -trimesh.proximity.signed_distance(mesh, local)
    return np.sign(distance) * np.sqrt(distance**2 + 1e-8)


@pytest.mark.slow
def test_rounded_box_is_exact_for_capsules_spheres_and_boxes():
    points = cloud(1, 500, 3)
    axis = torch.stack((torch.zeros(500), torch.zeros(500), points[:, 2].clamp(-0.03, 0.03)), dim=1)
    capsule = (points - axis).norm(dim=1) - 0.02
    extent = torch.tensor([0.0, 0.0, 0.03], dtype=torch.float64).expand(500, 3)
    torch.testing.assert_close(rounded_box_distance(points, extent, torch.full((500,), 0.02).double()), capsule)
    sphere = rounded_box_distance(points, torch.zeros_like(extent), torch.full((500,), 0.02).double())
    torch.testing.assert_close(sphere, points.norm(dim=1) - 0.02)
    half = torch.tensor([0.03, 0.05, 0.02], dtype=torch.float64)
    box = trimesh.creation.box(2 * half.numpy())
    theirs = -trimesh.proximity.signed_distance(box, points.numpy())
    ours = rounded_box_distance(points, half.expand(500, 3), torch.zeros(500).double())
    np.testing.assert_allclose(ours, theirs, atol=1e-5)  # as exact as trimesh is


@pytest.mark.parametrize("which", range(5), ids=["box", "sphere", "cylinder", "mesh", "capsule"])
@pytest.mark.parametrize("side", [0, 1], ids=["left", "right"])
def test_a_shape_is_measured_where_its_link_carries_it(tmp_path, which, side):
    pair = [replace(hand, primitives=hand.primitives[which : which + 1]) for hand in load_hands(toy_config(tmp_path))]
    hands = HandModel(*pair, surface_points=1, dtype=torch.float64)
    grasps = grasps_near(hands, 1, seed=2)
    frames = hands.link_frames(grasps)
    shape = pair[side].primitives[0]
    T = np.eye(4)
    T[:3, :3], T[:3, 3] = frames.rotation[0, side, shape.link], frames.translation[0, side, shape.link]
    T = T @ shape.T_link_shape
    points = cloud(2, 1, 1000, 3, spread=0.02) + torch.as_tensor(T[:3, 3])
    local = (points[0].numpy() - T[:3, 3]) @ T[:3, :3]
    exact = closed_form(shape, local)
    assert (exact < 0).sum() > 10
    np.testing.assert_allclose(signed_distance(hands.shapes, frames, points)[0, side], exact, atol=1e-9)


def test_mesh_distance_is_s_times_the_root_of_d_squared_plus_1e_8():
    sphere = trimesh.creation.icosphere(subdivisions=3, radius=0.5)
    mesh = TriangleMesh(sphere.vertices, sphere.faces, dtype=torch.float64)
    points = cloud(3, 300, 3, spread=0.4)
    distance, normal = mesh_distance(mesh, points)
    d = np.abs(trimesh.proximity.signed_distance(sphere, points.numpy()))
    sign = np.where(sphere.contains(points.numpy()), -1, 1)
    np.testing.assert_allclose(distance, sign * np.sqrt(d**2 + 1e-8), atol=1e-12)
    outward = torch.nn.functional.normalize(points, dim=1)
    assert ((normal * outward).sum(1) > 0.9).all()
    torch.testing.assert_close(normal.norm(dim=1), torch.ones(300, dtype=torch.float64))


def test_distance_on_the_surface_has_a_finite_gradient():
    box = trimesh.creation.box((1, 1, 1))
    mesh = TriangleMesh(box.vertices, box.faces, dtype=torch.float64)
    point = torch.tensor([[0.5, 0.1, 0.2]], dtype=torch.float64, requires_grad=True)
    distance, _ = mesh_distance(mesh, point)
    distance.sum().backward()
    assert point.grad.isfinite().all() and abs(distance.item()) == pytest.approx(1e-4)


@pytest.mark.parametrize("which", ["toy", "shadow"])
def test_fast_path_equals_the_reference_in_value_and_gradient(which, toy_hands):
    hands = toy_hands if which == "toy" else shadow_hands()
    grasps = grasps_near(hands, 6, seed=4, distance=0.05)
    points = cloud(5, 6, 300, 3, spread=0.04)
    results = []
    for function in (penetration_depth, penetration_depth_reference):
        translation = grasps.translation.clone().requires_grad_()
        joints = grasps.joints.clone().requires_grad_()
        frames = hands.link_frames(type(grasps)(translation, grasps.rotation, joints, grasps.candidate))
        depth = function(hands.shapes, frames, points)
        results.append((depth, *torch.autograd.grad(depth.sum(), (translation, joints))))
    assert results[0][0].max() > 1e-3
    for fast, plain in zip(*results, strict=True):
        torch.testing.assert_close(fast, plain, rtol=1e-9, atol=1e-12)


def test_penetration_gradient_equals_finite_differences():
    hands = shadow_hands()
    grasps = grasps_near(hands, 8, seed=16, distance=0.05)  # no kink within the step
    points = cloud(7, 8, 300, 3, spread=0.04)

    def depth(pose):
        frames = hands.link_frames(type(grasps).from_pose(pose, grasps.candidate))
        return penetration_depth(hands.shapes, frames, points).sum(-1)

    pose = grasps.pose.requires_grad_()
    (gradient,) = torch.autograd.grad(depth(pose).sum(), pose)
    for seed in range(4):
        direction = cloud(seed, *pose.shape, spread=1)
        measured = slope(depth, pose.detach(), direction, step=1e-8)
        torch.testing.assert_close((gradient * direction).sum(dim=(1, 2)), measured, rtol=1e-4, atol=1e-5)


def test_hands_that_are_nowhere_hold_nothing():
    hands = shadow_hands()
    grasps = grasps_near(hands, 2, seed=8)
    grasps.translation[0] = torch.nan
    depth = penetration_depth(hands.shapes, hands.link_frames(grasps), cloud(9, 2, 100, 3))
    assert (depth[0] == 0).all()


def test_a_point_on_the_surface_counts_as_outside():
    box = trimesh.creation.box((1, 1, 1))
    distance, _ = mesh_distance(
        TriangleMesh(box.vertices, box.faces, dtype=torch.float64), torch.tensor([[0.5, 0.1, 0.2]]).double()
    )
    assert distance.item() == pytest.approx(1e-4)


def test_the_mesh_of_one_hand_is_its_own(tmp_path):
    pair = [replace(hand, primitives=hand.primitives[3:4]) for hand in load_hands(toy_config(tmp_path))]
    assert pair[0].primitives[0].shape == "mesh"
    hands = HandModel(*pair, surface_points=1, dtype=torch.float64)
    frames = hands.link_frames(grasps_near(hands, 4, seed=4))
    cloud = 0.01 * torch.randn((4, 500, 3), generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    for side in (0, 1):
        points = cloud + hands.shapes.frames(frames).translation[:, side]
        alone = penetration_depth(hands.shapes.hand(side), frames.hand(side), points)[:, 0]
        assert (alone > 0).all()
        torch.testing.assert_close(alone, penetration_depth(hands.shapes, frames, points)[:, side])
