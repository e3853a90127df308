from dataclasses import replace

import numpy as np
import pytest
import quick_conf
import torch
import trimesh
from scene import built_in, built_in_hands, shadow_hands, solid

from bimangrasp.geometry.rotation import rot6d_to_matrix, turn_x, turn_z
from bimangrasp.initialization import anchors, feet_of, first_grasps, first_joints, palm_frame, place_hands


def config():
    return quick_conf.load().initialization


def sized(obj, size, count=32, seed=1):
    """Starts that follow the size, and each hand's gap to the object, (batch, hand), m."""
    settings = replace(config(), follow_size=True)
    scale = torch.full((count,), size / obj.extent, dtype=torch.float64)
    grasps = first_grasps(shadow_hands(), obj, scale, 4, settings, torch.Generator().manual_seed(seed))
    frames = shadow_hands().link_frames(grasps)
    gaps = [obj.signed_distance(shadow_hands().surface_points(frames, side), scale)[0].amin(1) for side in (0, 1)]
    return grasps, torch.stack(gaps, dim=1)


def first(count=200, seed=1, code="mug", hand="shadow"):
    scale = torch.full((count,), 0.15, dtype=torch.float64)
    generator = torch.Generator().manual_seed(seed)
    return first_grasps(built_in_hands(hand), built_in(code), scale, 4, config(), generator)


@pytest.mark.slow
def test_anchors_lie_on_the_inflated_hull_and_look_at_the_hull():
    hull = np.array(trimesh.creation.icosphere(subdivisions=3).vertices) * 0.1
    draws = torch.rand((3000, 3), generator=torch.Generator().manual_seed(1))
    points, normals = anchors(hull, 30, draws, 0.2)
    torch.testing.assert_close(points.norm(dim=1), torch.full((30,), 0.3).double(), atol=0.005, rtol=0)
    towards = -torch.nn.functional.normalize(points, dim=1)
    assert ((normals * towards).sum(1) > 0.99).all()
    spread = torch.cdist(points, points).fill_diagonal_(9).amin(1)
    assert spread.min() > 0.06  # 30 points on a sphere of 0.3 m, far from each other


@pytest.mark.slow
@pytest.mark.parametrize("hand", quick_conf.BUILT_IN)
def test_hands_look_at_the_object_from_their_distance(hand):
    grasps = first(hand=hand)
    distance = grasps.translation.norm(dim=-1)
    assert distance.min() > 0.3 and distance.max() < 0.7
    towards = -grasps.translation / distance[..., None]
    canonical = rot6d_to_matrix(grasps.rotation) @ palm_frame(built_in_hands(hand)).mT
    fingers = (canonical @ turn_x(torch.tensor(torch.pi / 3).double()))[..., 2]
    assert ((fingers * towards).sum(-1) > 0.6).all()


def test_the_right_hand_is_half_a_turn_about_z_from_the_left():
    ours = config()
    ours.cone_rad = 0.0
    grasps = first_grasps(
        shadow_hands(), built_in("box"), torch.full((40,), 0.15).double(), 4, ours, torch.Generator().manual_seed(2)
    )
    half_turn = turn_z(torch.tensor(torch.pi).double())
    left, right = torch.nn.functional.normalize(grasps.translation, dim=-1).unbind(1)
    assert ((left @ half_turn.T * right).sum(-1) > 0.98).all()  # distances differ, directions agree


def test_the_palm_frame_of_the_shadow_hands_is_the_released_one():
    frames = palm_frame(shadow_hands())
    torch.testing.assert_close(frames[1], torch.eye(3).double())
    torch.testing.assert_close(frames[0], torch.diag(torch.tensor([-1.0, -1.0, 1.0])).double())


def test_joints_are_a_truncated_normal():
    hands, draws = shadow_hands(), torch.rand((40000, 2, 22), generator=torch.Generator().manual_seed(3))
    joints = first_joints(hands, draws, config())
    lower, upper, mean = hands.joint_lower[1], hands.joint_upper[1], hands.joint_mean[1]
    assert (joints >= lower - 1e-6).all() and (joints <= upper + 1e-6).all()
    spread = 0.1 * (upper - lower)
    a, b = (lower - mean) / spread, (upper - mean) / spread
    normal = torch.distributions.Normal(0.0, 1.0)
    mass = normal.cdf(b) - normal.cdf(a)
    shift = (normal.log_prob(a).exp() - normal.log_prob(b).exp()) / mass
    torch.testing.assert_close(joints[:, 1].mean(0), mean + spread * shift, atol=0.004, rtol=0)


def test_first_grasps_repeat_with_the_seed_and_differ_without():
    a, b, c = first(20, 5), first(20, 5), first(20, 6)
    assert torch.equal(a.pose, b.pose) and torch.equal(a.candidate, b.candidate)
    assert not torch.equal(a.pose, c.pose)
    assert a.candidate.min() >= 0 and a.candidate.max() < shadow_hands().candidate_count


def test_placement_equals_the_recorded_one(shared):
    golden = np.load(shared / "golden" / "init_and_steps_Curver.npz", allow_pickle=False)
    half_turn = torch.tensor([[1.0, 1, 1], [-1, -1, 1]])

    def both(name):
        return torch.as_tensor(np.stack([golden[name.format(side)] for side in ("left", "right")], axis=1))

    points, normals = (torch.as_tensor(golden[f"init_{name}_left"])[:, None] * half_turn for name in "pn")
    draws = torch.as_tensor(np.stack([golden[f"init_uniform_{side}"].T for side in ("left", "right")], axis=1))
    palms = palm_frame(shadow_hands()).float()
    translation, rotation = place_hands(points, normals, draws, palms, config())
    pose = both("init_{}_pose")
    torch.testing.assert_close(translation, pose[..., :3], atol=1e-6, rtol=0)
    torch.testing.assert_close(rotation, rot6d_to_matrix(pose[..., 3:9]), atol=1e-6, rtol=0)


@pytest.mark.parametrize("scale", [0.15, 0.5])
def test_hands_start_outside_the_object(scale):
    obj = solid(trimesh.creation.box((1.2, 1.2, 1.2)))
    sizes = torch.full((30,), scale, dtype=torch.float64)
    grasps = first_grasps(shadow_hands(), obj, sizes, 4, config(), torch.Generator().manual_seed(7))
    distance, _ = obj.signed_distance(grasps.translation, sizes)
    assert (distance > 0.25).all()


def test_all_hands_start_around_the_largest_scale():
    obj = solid(trimesh.creation.box((1.2, 1.2, 1.2)))
    sizes = torch.full((30,), 0.15, dtype=torch.float64)
    sizes[7] = 0.5
    grasps = first_grasps(
        shadow_hands(), obj, sizes, 4, quick_conf.load().initialization, torch.Generator().manual_seed(7)
    )
    distance, _ = obj.signed_distance(grasps.translation, torch.full_like(sizes, 0.5))
    assert (distance > 0.25).all()


def test_hands_draw_their_own_numbers():
    grasps = first_grasps(
        shadow_hands(),
        built_in("box"),
        torch.full((40,), 0.15).double(),
        4,
        quick_conf.load().initialization,
        torch.Generator().manual_seed(2),
    )
    left, right = grasps.translation.norm(dim=-1).unbind(1)
    assert (left - right).abs().max() > 0.03
    assert (grasps.candidate[:, 0] != grasps.candidate[:, 1]).double().mean() > 0.9
    assert (grasps.joints[:, 0] != grasps.joints[:, 1]).double().mean() > 0.9


@pytest.mark.parametrize("shift", [(0, 0, 0.5), (0.5, 0.5, 0.5)], ids=["face", "corner"])
def test_an_origin_on_the_hull_gives_no_dead_start(shift):
    hull = (np.array(trimesh.creation.box((1, 1, 1)).vertices) + shift) * 0.15
    draws = torch.rand((6400, 3), generator=torch.Generator().manual_seed(8))
    points, normals = anchors(hull, 64, draws, 0.2)
    assert points.isfinite().all()
    torch.testing.assert_close(normals.norm(dim=1), torch.ones(64).double())


WEDGE = trimesh.creation.extrude_triangulation([[-1.0, -1], [1, -1], [-1, 1]], [[0, 1, 2]], 0.4)
SHAPES = {
    "ball": trimesh.creation.icosphere(subdivisions=2),
    "rod": trimesh.creation.box((0.2, 0.2, 2)),
    "plate": trimesh.creation.box((2, 2, 0.1)),
    "wedge": WEDGE.apply_translation(-WEDGE.bounds.mean(axis=0)),
    "far from its origin": trimesh.creation.box((1, 1, 1)).apply_translation((0.4, 0.4, 0)),
}


@pytest.mark.slow
@pytest.mark.parametrize("size", [0.03, 0.1, 0.3, 0.8])
@pytest.mark.parametrize("shape", SHAPES)
def test_starts_follow_the_size_and_no_hand_starts_inside(shape, size):
    _, gap = sized(solid(SHAPES[shape]), size)
    share = min(1.0, size / 0.3)
    assert gap.min() > 0.2 * share  # of the points by which the start was placed
    assert gap.max() < 0.3 * share + 0.15  # a hand's nearest point need not be over the object: 0.15 m is its length


def test_as_released_a_hand_can_start_inside_a_large_object():
    obj, size = solid(SHAPES["wedge"]), torch.full((32,), 0.4, dtype=torch.float64)
    grasps = first_grasps(shadow_hands(), obj, size, 4, config(), torch.Generator().manual_seed(1))
    frames = shadow_hands().link_frames(grasps)
    assert obj.signed_distance(shadow_hands().surface_points(frames, 1), size)[0].min() < -0.03


@pytest.mark.slow
def test_above_the_released_size_hands_differ_by_the_object_alone():
    ball = solid(SHAPES["ball"])
    (small, near), (large, far) = sized(ball, 0.3), sized(ball, 0.8)
    assert torch.equal(small.joints, large.joints) and torch.equal(small.candidate, large.candidate)
    torch.testing.assert_close(small.rotation, large.rotation)
    shift = (large.translation - small.translation).norm(dim=-1)
    torch.testing.assert_close(shift, torch.full_like(shift, 0.25), atol=0.01, rtol=0)  # half of 0.8 m - 0.3 m
    torch.testing.assert_close(near, far, atol=0.05, rtol=0)


@pytest.mark.slow
@pytest.mark.parametrize("shape", ["ball", "rod", "plate"])
def test_the_hands_start_on_opposite_sides(shape):
    grasps, _ = sized(solid(SHAPES[shape]), 0.5)
    left, right = grasps.translation.unbind(1)
    assert (left * right).sum(-1).max() < 0
    assert (left - right).norm(dim=-1).min() > 0.6


def test_each_grasp_starts_at_its_own_size():
    obj, settings = solid(SHAPES["ball"]), replace(config(), follow_size=True)
    sizes = torch.tensor([0.02, 0.4], dtype=torch.float64).repeat(16)
    grasps = first_grasps(shadow_hands(), obj, sizes, 4, settings, torch.Generator().manual_seed(3))
    reach = grasps.translation.norm(dim=-1)
    assert reach[0::2].max() < 0.3 < 0.7 < reach[1::2].min()


def test_feet_of_a_ball_are_opposite_and_looked_at_from_outside():
    hull = np.array(trimesh.creation.icosphere(subdivisions=3).vertices) + [0.3, 0, 0]
    draws = torch.rand((1000, 3), generator=torch.Generator().manual_seed(1))
    feet, normals = feet_of(hull, draws[None], 10, 0.2)
    out = feet - torch.tensor([0.3, 0, 0])
    torch.testing.assert_close(out.norm(dim=-1), torch.ones(10, 2).double(), atol=0.02, rtol=0)
    torch.testing.assert_close(out[:, 0], -out[:, 1], atol=0.05, rtol=0)
    assert ((out * normals).sum(-1) < -0.97).all()
