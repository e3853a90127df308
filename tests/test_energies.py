from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import quick_conf
import torch
import trimesh
from scene import (
    POINTS,
    built_in,
    built_in_hands,
    energy_config,
    grasps_near,
    random_rotation,
    shadow_hands,
    slope,
    solid,
)

from bimangrasp.energy.energies import (
    Energies,
    contacts_of,
    energies,
    inter_hand_penetration,
    joint_limits,
    keypoint_penetration,
    object_depth,
)
from bimangrasp.energy.wrench import (
    _balancing_forces,
    _net_wrench,
    force_closure,
    grasp_matrix,
    singular_values,
    wrench_volume,
)
from bimangrasp.geometry.rotation import matrix_to_rot6d, rot6d_to_matrix
from bimangrasp.grasp import Grasps
from bimangrasp.objects.model import Mesh, ObjectModel

M = torch.diag(torch.tensor([1.0, -1.0, 1.0], dtype=torch.float64))
SCALE = torch.tensor([0.15, 0.16, 0.17, 0.15, 0.16, 0.17], dtype=torch.float64)
WAYS = [("shadow", "right_points"), ("shadow", "symmetric"), ("allegro", "symmetric")]
GRASPS = partial(grasps_near, count=6, distance=0.07)


def moved(obj, matrix):
    """The object with its mesh and surface points turned or mirrored."""
    corners = obj.mesh.corners @ matrix.T
    if torch.linalg.det(matrix) < 0:
        corners = corners.flip(1)
    twin = ObjectModel.__new__(ObjectModel)
    twin.mesh = type(obj.mesh)(
        corners.reshape(-1, 3).numpy(), np.arange(3 * len(corners)).reshape(-1, 3), dtype=torch.float64
    )
    twin.surface_points = obj.surface_points @ matrix.T
    twin._grid_cells = POINTS.grid_cells
    return twin


def close(ours, theirs, but=()):
    for name in Energies._fields:
        if name not in but:
            torch.testing.assert_close(getattr(ours, name), getattr(theirs, name), rtol=1e-6, atol=1e-9, msg=name)


@pytest.mark.slow
@pytest.mark.parametrize(("hand", "inter_hand"), WAYS)
def test_turning_hands_and_object_together_changes_no_energy(hand, inter_hand):
    hands, obj, config = built_in_hands(hand), built_in("mug"), energy_config(inter_hand)
    grasps, turn = GRASPS(hands, seed=1), random_rotation(2)
    turned = Grasps(
        grasps.translation @ turn.T,
        matrix_to_rot6d(turn @ rot6d_to_matrix(grasps.rotation)),
        grasps.joints,
        grasps.candidate,
    )
    before = energies(hands, obj, SCALE, grasps, config)
    assert (before.penetration > 0).any() and (before.self_penetration > 0).any()
    close(energies(hands, moved(obj, turn), SCALE, turned, config), before)


def mirrored_scene(hands, obj, grasps):
    R = M @ rot6d_to_matrix(grasps.rotation).flip(1) @ M
    mirrored = Grasps(
        grasps.translation.flip(1) @ M, matrix_to_rot6d(R), grasps.joints.flip(1), grasps.candidate.flip(1)
    )
    return moved(obj, M), mirrored


def crossing_hands(hands):
    """Grasps whose hands overlap in ways that differ with the side that is looked at."""
    grasps = GRASPS(hands, seed=3)
    return Grasps(grasps.translation * 0.3, grasps.rotation, grasps.joints, grasps.candidate)


@pytest.mark.slow
def test_mirroring_the_scene_changes_the_inter_hand_term_alone():
    hands, config = shadow_hands(), energy_config()
    grasps = crossing_hands(hands)
    obj, mirrored = mirrored_scene(hands, built_in("mug"), grasps)
    before = energies(hands, built_in("mug"), SCALE, grasps, config)
    after = energies(hands, obj, SCALE, mirrored, config)
    close(after, before, but=("self_penetration", "total"))
    assert not torch.allclose(after.self_penetration, before.self_penetration, rtol=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("hand", quick_conf.BUILT_IN)
def test_mirroring_the_scene_changes_nothing_where_both_hands_are_measured(hand):
    hands, config = built_in_hands(hand), energy_config("symmetric")
    grasps = crossing_hands(hands)
    obj, mirrored = mirrored_scene(hands, built_in("mug"), grasps)
    close(energies(hands, obj, SCALE, mirrored, config), energies(hands, built_in("mug"), SCALE, grasps, config))


def held_terms(hands, obj, grasps, config):
    """The terms as functions of the poses, with normals and the hands' surface points held where they are."""
    frames = hands.link_frames(grasps)
    normal = contacts_of(hands, obj, SCALE, frames, grasps).normal.flatten(1, 2)
    force = _balancing_forces(hands.contact_points(frames, grasps.candidate).flatten(1, 2), -normal, config.friction)
    points = torch.stack([hands.surface_points(frames, side) for side in (0, 1)], dim=1)

    def all_terms(pose):
        return energies(hands, obj, SCALE, Grasps.from_pose(pose, grasps.candidate), config, points)

    def values(pose):
        now = Grasps.from_pose(pose, grasps.candidate)
        point = contacts_of(hands, obj, SCALE, hands.link_frames(now), now).point.flatten(1, 2)
        return singular_values(grasp_matrix(point, normal))

    def pressing(pose):
        now = Grasps.from_pose(pose, grasps.candidate)
        point = contacts_of(hands, obj, SCALE, hands.link_frames(now), now).point.flatten(1, 2)
        return _net_wrench(point, force)

    terms = {name: (lambda pose, name=name: getattr(all_terms(pose), name)) for name in Energies._fields}
    terms["force_closure"] = lambda pose: force_closure(values(pose))
    terms["wrench_volume"] = lambda pose: wrench_volume(values(pose))
    terms["equilibrium"] = lambda pose: pressing(pose).norm(dim=-1)
    del terms["total"]
    return all_terms, terms


@pytest.mark.slow
@pytest.mark.parametrize(("hand", "inter_hand"), WAYS)
def test_gradients_equal_finite_differences(hand, inter_hand):
    hands, obj = built_in_hands(hand), built_in("mug")
    config = replace(energy_config(inter_hand), w_depth=1.0, w_equilibrium=1.0)
    grasps = GRASPS(hands, seed=12)
    all_terms, terms = held_terms(hands, obj, grasps, config)
    pose = grasps.pose.requires_grad_()
    ours = all_terms(pose)
    directions = torch.randn((3, *pose.shape), generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    for name, term in terms.items():
        (gradient,) = torch.autograd.grad(getattr(ours, name).sum(), pose, retain_graph=True)
        assert gradient.abs().max() > 0, name
        for direction in directions:
            measured = slope(term, pose.detach(), direction, step=1e-8)
            analytic = (gradient * direction).sum(dim=(1, 2))
            torch.testing.assert_close(analytic, measured, rtol=1e-3, atol=2e-5, msg=lambda m, n=name: f"{n}: {m}")


@pytest.mark.slow
def test_distance_is_the_sum_over_the_eight_contacts():
    hands = shadow_hands()
    sphere = solid(trimesh.creation.icosphere(subdivisions=5))
    grasps = GRASPS(hands, seed=7)
    frames = hands.link_frames(grasps)
    radius = hands.contact_points(frames, grasps.candidate).norm(dim=-1)
    exact = (radius - SCALE[:, None, None]).abs().sum(dim=(1, 2))
    torch.testing.assert_close(
        energies(hands, sphere, SCALE, grasps, energy_config()).distance, exact, atol=2e-3, rtol=0
    )


def test_keypoint_pairs_count_twice_and_coincident_ones_not_at_all():
    points = torch.tensor([[[[0.0, 0, 0], [0.015, 0, 0], [0, 0, 0], [1, 0, 0]]]], dtype=torch.float64)
    torch.testing.assert_close(keypoint_penetration(points, 0.02), torch.tensor([2 * 2 * 0.005], dtype=torch.float64))


def test_coincident_keypoints_have_a_finite_gradient():
    points = torch.zeros((1, 1, 2, 3), dtype=torch.float64, requires_grad=True)
    keypoint_penetration(points, 0.02).sum().backward()
    assert points.grad.isfinite().all()


def test_joints_beyond_both_limits_add_up():
    lower, upper = torch.zeros(2, 3), torch.ones(2, 3)
    joints = torch.tensor([[[-0.5, 0.5, 1.25], [0.0, 1.0, 3.0]]])
    torch.testing.assert_close(joint_limits(joints, lower, upper), torch.tensor([0.5 + 0.25 + 2.0]))


def test_too_few_contacts_have_no_wrench_terms():
    hands, obj = shadow_hands(), built_in("mug")
    grasps = GRASPS(hands, seed=8)
    few = Grasps(grasps.translation, grasps.rotation, grasps.joints, grasps.candidate[..., :2])
    terms = energies(hands, obj, SCALE, few, energy_config())
    assert (terms.force_closure == 0).all() and (terms.wrench_volume == 0).all() and (terms.distance > 0).all()


def test_a_pose_that_is_not_finite_fails_alone():
    hands, obj = shadow_hands(), built_in("mug")
    grasps = GRASPS(hands, seed=9)
    spoiled = Grasps(grasps.translation.clone(), grasps.rotation, grasps.joints, grasps.candidate)
    spoiled.translation[1, 0, 2] = torch.nan
    sound, broken = (energies(hands, obj, SCALE, g, energy_config()).total for g in (grasps, spoiled))
    keep = torch.arange(6) != 1
    assert broken[1].isnan() and torch.equal(broken[keep], sound[keep])


def test_unclosed_meshes_are_measured_too():
    ball = trimesh.creation.icosphere(subdivisions=3)
    holed = ObjectModel(Mesh(ball.vertices, ball.faces[4:], "winding", "holed"), POINTS, dtype=torch.float64)
    hands = shadow_hands()
    terms = energies(hands, holed, SCALE, GRASPS(hands, seed=10), energy_config())
    assert terms.total.isfinite().all()


def test_six_contacts_are_enough():
    hands, grasps = shadow_hands(), GRASPS(shadow_hands(), seed=8)
    six = Grasps(grasps.translation, grasps.rotation, grasps.joints, grasps.candidate[..., :3])
    terms = energies(hands, built_in("mug"), SCALE, six, energy_config())
    assert (terms.force_closure > 0).all() and (terms.wrench_volume > 0).all()


def test_the_inter_hand_term_pushes_only_the_hand_that_is_measured():
    hands, grasps = shadow_hands(), GRASPS(shadow_hands(), seed=3)
    pose = grasps.pose * torch.tensor([0.3] * 3 + [1.0] * 28)
    pose = pose.detach().requires_grad_()
    frames = hands.link_frames(Grasps.from_pose(pose, grasps.candidate))
    (gradient,) = torch.autograd.grad(inter_hand_penetration(hands, frames, "right_points").sum(), pose)
    assert (gradient[:, 0] != 0).any() and (gradient[:, 1] == 0).all()


@pytest.mark.slow
def test_every_weight_goes_to_its_term():
    hands, grasps = shadow_hands(), GRASPS(shadow_hands(), seed=6)
    released = {"w_fc": 2.0, "w_dis": 3.0, "w_pen": 5.0, "w_spen": 7.0, "w_joints": 11.0, "w_vew": 13.0}
    weights = released | {"w_depth": 17.0, "w_equilibrium": 19.0}
    *terms, total = energies(hands, built_in("mug"), SCALE, grasps, replace(energy_config(), **weights))
    assert all((term != 0).any() for term in terms)
    torch.testing.assert_close(total, sum(w * t for w, t in zip(weights.values(), terms, strict=True)))


def test_without_weight_our_terms_are_neither_computed_nor_counted():
    hands, obj, grasps = shadow_hands(), built_in("mug"), GRASPS(shadow_hands(), seed=6)
    obj = moved(obj, torch.eye(3, dtype=torch.float64))
    found = energies(hands, obj, SCALE, grasps, energy_config())
    assert (found.depth == 0).all() and (found.equilibrium == 0).all() and "grid" not in vars(obj)


@pytest.mark.slow
def test_the_depth_in_a_ball_is_that_of_balls_in_a_ball():
    """Two balls whose centers are d apart overlap by r + R - d; the grid is off by up to 0.6 mm."""
    hands, grasps = shadow_hands(), GRASPS(shadow_hands(), seed=4)
    ball = solid(trimesh.creation.icosphere(subdivisions=4))
    frames = hands.link_frames(grasps)
    apart = hands.sphere_centers(frames).norm(dim=-1)
    exact = (hands.spheres.radius + SCALE[:, None, None] - apart).clamp_min(0)
    measured = object_depth(hands, ball, SCALE, frames)
    number = (exact > 0).sum(dim=(1, 2))
    assert (number > 10).all()
    assert ((measured - exact.sum(dim=(1, 2))).abs() < 1e-3 * number).all()


@pytest.mark.slow
def test_a_hand_that_touches_has_no_depth():
    """The palm's box stands on a face of a cube: its spheres are inside of it."""
    hands, grasps = shadow_hands(), GRASPS(shadow_hands(), seed=4)
    cube = solid(trimesh.creation.box([1.0, 1.0, 1.0]))
    frames = hands.link_frames(grasps)
    lowest = (hands.sphere_centers(frames)[..., 2] - hands.spheres.radius).amin(dim=(1, 2))
    for gap, touches in ((0.001, False), (-0.001, True)):
        rise = (SCALE / 2 - lowest + gap)[:, None, None] * torch.tensor([0.0, 0.0, 1.0], dtype=torch.float64)
        placed = Grasps(grasps.translation + rise, grasps.rotation, grasps.joints, grasps.candidate)
        placed.translation[..., :2] *= 0.2
        depth = object_depth(hands, cube, SCALE, hands.link_frames(placed))
        assert (not touches and (depth == 0).all()) or (touches and depth.max() < 0.01 and (depth > 0).any())
