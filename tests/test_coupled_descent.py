"""The optimizer on hands with couplings: coordinates in both kernel paths, gradients, starts, whole descents."""

from __future__ import annotations

import importlib
from dataclasses import replace

import pytest
import quick_conf
import torch
from coupled_hands import coordinates, coupled_shadow
from scene import built_in, built_in_hands, energy_config, slope

from bimangrasp import synthesis
from bimangrasp.energy.energies import Energies, PlainEvaluator
from bimangrasp.grasp import Grasps
from bimangrasp.hands.couplings import Couplings
from bimangrasp.hands.description import mirror
from bimangrasp.hands.model import HandModel
from bimangrasp.initialization import first_joints
from bimangrasp.sampler import mala

F32, F64 = torch.float32, torch.float64
BATCH, WHOLE = 8, slice(None)


def freed(hands: HandModel) -> HandModel:
    """The same hands without their couplings: what the kernels computed before there were any."""
    right = replace(hands.descriptions[1], couplings=Couplings())
    free = HandModel(mirror(right), right, 200, dtype=hands.dtype)
    free.surface = hands.surface  # its points are drawn by the hash
    return free


def poses(hands: HandModel, count=BATCH, seed=3, beyond=0.1):
    """Poses in coordinates of which hands touch the object, each other, and the limits of their joints."""
    generator = torch.Generator().manual_seed(seed)
    place = 0.05 * torch.randn((count, 2, 3), generator=generator, dtype=F64)
    turn = torch.randn((count, 2, 6), generator=generator, dtype=F64)
    pose = torch.cat((place, turn, coordinates(hands, count, seed, beyond).double()), dim=-1)
    candidate = torch.randint(hands.candidate_count, (count, 2, 4), generator=generator)
    return pose.float().to(hands.dtype), candidate


def costs_of(hands: HandModel, kernels: str, tile=BATCH, config=None, count=BATCH):
    scale = torch.full((count,), 0.16, dtype=hands.dtype)
    batch = (hands, built_in("mug", hands.dtype), scale, config or energy_config("symmetric"))
    if kernels == "plain":
        return PlainEvaluator(*batch)
    pytest.importorskip("warp", reason="needs NVIDIA Warp")
    return importlib.import_module("bimangrasp.energy.fused.evaluator").FusedEvaluator(*batch, tile, 4)


@pytest.mark.parametrize(("kernels", "dtype"), [("plain", F64), ("plain", F32), ("warp", F32)])
def test_the_energy_is_that_of_all_joints_and_its_gradient_comes_back_to_the_coordinates(kernels, dtype):
    hands = coupled_shadow(dtype)
    pose, candidate = poses(hands)
    evaluation = costs_of(hands, kernels).evaluation(pose, candidate, WHOLE)
    joints = hands.joints_at(pose[..., 9:])
    of_joints = costs_of(freed(hands), kernels).evaluation(torch.cat((pose[..., :9], joints), -1), candidate, WHOLE)
    assert torch.equal(evaluation.energy, of_joints.energy), "no other kernel runs for coupled hands"
    assert torch.equal(evaluation.gradient[..., :9], of_joints.gradient[..., :9])
    by_joint = of_joints.gradient[..., 9:].double()
    expected = (hands.coupled.jacobian(pose[..., 9:].double()).mT @ by_joint[..., None]).squeeze(-1)
    close = {"rtol": 1e-5, "atol": 1e-4} if dtype == F32 else {}
    torch.testing.assert_close(evaluation.gradient[..., 9:].double(), expected, **close)
    assert (evaluation.gradient[..., 9:].abs().amax(dim=(0, 1)) > 1e-3).all(), "a coordinate that moves nothing"


def test_the_gradient_is_that_of_finite_differences():
    """Of the terms that are smooth: object normals and surface points carry no gradient."""
    hands = coupled_shadow()
    config = energy_config()
    for name in ("w_fc", "w_vew"):
        setattr(config, name, 0.0)
    config.w_joints = 3.0
    pose, candidate = poses(hands, 4)
    points = torch.full((4, 2, 1, 3), 9.0, dtype=F64)  # hands that are not in each other

    def total(given):
        from bimangrasp.energy.energies import energies

        grasps = hands.grasps_at(given, candidate)
        scale = torch.full((4,), 0.16, dtype=F64)
        return energies(hands, built_in("mug"), scale, grasps, config, points).total

    given = pose.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(total(given).sum(), given)
    for c in range(9, pose.shape[-1]):
        for hand in (0, 1):
            direction = torch.zeros_like(pose)
            direction[:, hand, c] = 1.0
            measured = slope(total, pose, direction, step=1e-8)
            torch.testing.assert_close(gradient[:, hand, c], measured, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("beyond", [-0.05, 0.3])
def test_limits_are_those_of_all_joints_that_follow(beyond):
    hands = coupled_shadow()
    _, candidate = poses(hands, 16)
    given = coordinates(hands, 16, beyond=beyond)
    grasps = hands.grasps_at(torch.cat((torch.randn((16, 2, 9), dtype=F64), given), -1), candidate)
    cost = costs_of(hands, "plain", count=16).terms(grasps, WHOLE).joint_limits
    if beyond < 0:
        assert cost.max() < 1e-6, "within its range a coordinate costs nothing"
    else:
        over = (grasps.joints - hands.joint_upper).clamp_min(0) + (hands.joint_lower - grasps.joints).clamp_min(0)
        torch.testing.assert_close(cost, over.sum(dim=(1, 2)))
        assert (over[..., 7] > 0).any() and (over[..., 2] > 0).any(), "followers count as well"


@pytest.mark.slow
@pytest.mark.parametrize("tile", [1, 3, BATCH])
def test_the_tile_changes_no_bit(tile):
    hands = coupled_shadow(F32)
    pose, candidate = poses(hands)
    whole = costs_of(hands, "warp").evaluation(pose, candidate, WHOLE)
    small = costs_of(hands, "warp", tile)
    for start in range(0, BATCH, tile):
        rows = slice(start, min(start + tile, BATCH))
        part = small.evaluation(pose[rows], candidate[rows], rows)
        assert torch.equal(part.energy, whole.energy[rows]) and torch.equal(part.gradient, whole.gradient[rows])


def test_terms_take_all_joints_as_they_are():
    hands = coupled_shadow(F32)
    pose, candidate = poses(hands)
    grasps = hands.grasps_at(pose, candidate)
    off = replace(grasps, joints=grasps.joints + 0.05)
    fused, plain = (costs_of(hands, kernels).terms(off, WHOLE) for kernels in ("warp", "plain"))
    for name in Energies._fields:
        torch.testing.assert_close(getattr(fused, name), getattr(plain, name), rtol=1e-2, atol=1e-4)


def test_free_hands_launch_no_further_kernel(monkeypatch):
    wp = pytest.importorskip("warp", reason="needs NVIDIA Warp")
    launched, launch = [], wp.Launch.launch

    def counted(self, *arguments):
        launched.append(self.kernel.key)
        launch(self, *arguments)

    monkeypatch.setattr(wp.Launch, "launch", counted)
    for hands, more in ((built_in_hands("shadow", F32), []), (coupled_shadow(F32), ["spread", "gather"])):
        costs = costs_of(hands, "warp")
        pose, candidate = poses(hands)
        launched.clear()
        costs.evaluation(pose, candidate, WHOLE)
        own = [kernel.launch.kernel.key for kernel in costs.program.kernels]
        assert launched == [*more[:1], *own, *more[1:]]


# ---- starts and whole descents


def on_couplings(hands: HandModel, joints: torch.Tensor) -> float:
    """How far joints are off their couplings, rad."""
    joints = joints.double()
    return float((hands.coupled.joints_at(hands.coupled.coordinates_of(joints)) - joints).abs().max())


def test_first_joints_are_on_the_couplings_and_within_all_limits():
    hands, config = coupled_shadow(F32), quick_conf.load().initialization
    draws = torch.rand((4000, 2, hands.coordinate_count), generator=torch.Generator().manual_seed(0))
    joints = first_joints(hands, draws, config)
    assert joints.shape == (4000, 2, 22) and on_couplings(hands, joints) < 1e-6
    assert (joints >= hands.joint_lower - 1e-5).all() and (joints <= hands.joint_upper + 1e-5).all()
    width = hands.coordinate_upper - hands.coordinate_lower
    spread = hands.coordinates_of(joints).std(dim=0) / width
    assert ((spread > 0.3 * config.joint_spread) & (spread < 1.05 * config.joint_spread)).all()
    narrow = first_joints(hands, draws, replace(config, joint_spread=1e-3))
    inside = (hands.coordinate_mean > hands.coordinate_lower + 0.01) & (
        hands.coordinate_mean < hands.coordinate_upper - 0.01
    )
    middle = hands.coordinates_of(narrow).mean(dim=0)
    torch.testing.assert_close(middle[inside], hands.coordinate_mean[inside], rtol=0, atol=1e-3)
    assert inside.sum() > 10


def settings(**changes):
    loaded = quick_conf.load("round_batch_size=6", "num_iterations=8", "curve_stride=4").synthesis
    loaded.initialization.hull_samples_per_grasp = 10
    return replace(loaded, **changes)


@pytest.mark.parametrize("kernels", ["plain", "warp"])
@pytest.mark.parametrize("method", ["mala", "momentum"])
def test_every_pose_of_a_descent_is_on_the_couplings(method, kernels):
    hands, config = coupled_shadow(F32), settings(kernels=kernels)
    config = replace(config, optimizer=replace(config.optimizer, method=method, keep="best"))
    seen = []

    def watch(step: int, point: mala.Point) -> None:
        seen.append(Grasps.from_pose(point.position.clone(), point.choice).joints)

    result = synthesis.synthesize(hands, built_in("mug", F32), config, 1, watch=watch)
    for joints in (result.grasps.joints, result.initial.joints, *seen):
        assert joints.shape == (6, 2, 22) and on_couplings(hands, joints) < 1e-6
    assert (hands.coordinates_of(seen[-1]) - hands.coordinates_of(seen[0])).abs().amax(dim=(0, 1)).min() > 1e-4
    assert torch.isfinite(result.energies.total).all() and torch.isfinite(result.curve.quartiles).all()


@pytest.mark.slow
@pytest.mark.parametrize("method", ["mala", "momentum"])
def test_both_kernel_paths_make_the_same_first_steps(method):
    hands = coupled_shadow(F32)
    pose, candidate = poses(hands, beyond=-0.01)
    ends = []
    for kernels in ("plain", "warp"):
        config = settings(kernels=kernels, num_iterations=40, round_batch_size=BATCH)
        config = replace(config, optimizer=replace(config.optimizer, method=method))
        scene = synthesis.Scene(hands, built_in("mug", F32), torch.full((BATCH,), 0.16), config)
        start = hands.grasps_at(pose, candidate)
        descent = synthesis.begin(scene, scene.evaluator(), start, torch.Generator().manual_seed(0))
        for _ in range(3):
            descent.advance()
        ends.append(descent.state.point.position)
    assert ends[0].shape[-1] == 9 + hands.coordinate_count
    torch.testing.assert_close(*ends, atol=5e-4, rtol=0)


def test_a_descent_bends_the_fingers_of_a_coupled_hand_to_the_object():
    """It is no worse than the free hand by much: the gradient leads somewhere."""
    config = settings(kernels="warp", num_iterations=60, curve_stride=60)
    result = synthesis.synthesize(coupled_shadow(F32), built_in("mug", F32), config, 1)
    total = result.curve.quartiles[:, Energies._fields.index("total"), 1]
    assert total[-1] < 0.5 * total[0]
