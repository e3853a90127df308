"""The fused kernels against plain PyTorch in float64, which is their oracle, on both kinds of hand and of mesh."""

from __future__ import annotations

import importlib
import tempfile
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch
import trimesh
from scene import POINTS, built_in, built_in_hands
from scipy.stats import ks_2samp
from torch.utils._python_dispatch import TorchDispatchMode

import conf
from bimangrasp import synthesis
from bimangrasp.energy.energies import Energies, PlainEvaluator
from bimangrasp.grasp import Grasps
from bimangrasp.hand_files.loading import load_hands
from bimangrasp.hands.model import HandModel
from bimangrasp.objects.model import ObjectModel, read_mesh
from bimangrasp.sampler import mala

F32, F64 = torch.float32, torch.float64
BATCH = 24
wp = pytest.importorskip("warp", reason="needs NVIDIA Warp")
FusedEvaluator = importlib.import_module("bimangrasp.energy.fused.evaluator").FusedEvaluator


def settings(**changes):
    plain = ["experiment=null", "kernels=warp"]
    loaded = conf.load([*plain, f"round_batch_size={BATCH}", "num_iterations=120", "curve_stride=0"])
    loaded.initialization.hull_samples_per_grasp = 10
    return replace(loaded.synthesis, **changes)


def models(hand, obj, dtype, shared=None):
    """Returns hands and object, each made once: their spheres and grids take seconds."""
    hands = release_hands(dtype, shared) if hand == "release" else built_in_hands(hand, dtype)
    return hands, open_ball(dtype) if obj == "open" else built_in(obj, dtype)


@cache
def release_hands(dtype, shared):
    """Returns hands some of whose shapes are meshes."""
    config = conf.load(["hand=release", f"hand.root={shared / 'data' / 'bimangrasp_hands'}"]).hand
    return HandModel(*load_hands(config), 200, dtype=dtype)


@cache
def open_ball(dtype):
    """Returns an object with a hole."""
    ball = trimesh.creation.icosphere(subdivisions=2, radius=0.45)
    ball.update_faces(ball.triangles_center[:, 2] < 0.43)
    with tempfile.TemporaryDirectory() as folder:
        ball.export(f"{folder}/open.obj")
        mesh = read_mesh(f"{folder}/open.obj")
    assert mesh.sign == "winding"
    return ObjectModel(mesh, POINTS, dtype=dtype)


def as_double(grasps):
    return Grasps(grasps.translation.double(), grasps.rotation.double(), grasps.joints.double(), grasps.candidate)


def scattered(grasps, spread=0.03, seed=1):
    """Returns grasps moved at random, so that fingers stand in the object, in the other hand and beyond limits."""
    noise = torch.randn(grasps.pose.shape, generator=torch.Generator().manual_seed(seed))
    noise[..., :3] *= 0.3
    pose = grasps.pose + spread * noise
    pose[::3, 1, :3] = pose[::3, 0, :3] + 0.02  # every third pair of hands stands in one place
    return Grasps.from_pose(pose, grasps.candidate)


def compare(hand, obj, grasps, scale, energy, shared):
    """Returns per term, and for the gradient, the errors of the kernels and of plain float32, relative."""
    size, contacts, rows = len(scale), grasps.candidate.shape[2], slice(None)
    costs = {}
    for name, dtype in (("warp", F32), ("plain", F32), ("exact", F64)):
        hands, thing = models(hand, obj, dtype, shared)
        given = as_double(grasps) if dtype == F64 else grasps
        batch = (hands, thing, scale.to(dtype), energy)
        one = FusedEvaluator(*batch, size, contacts) if name == "warp" else PlainEvaluator(*batch)
        evaluation = one.evaluation(given.pose, given.candidate, rows)
        costs[name] = (*one.terms(given, rows), evaluation.gradient)
        torch.testing.assert_close(costs[name][Energies._fields.index("total")], evaluation.energy, rtol=1e-6, atol=0)
    exact = costs["exact"]

    def error(values, truth):
        truth, values = truth.flatten(1) if truth.ndim > 1 else truth[:, None], values.double()
        values = values.flatten(1) if values.ndim > 1 else values[:, None]
        return ((values - truth).norm(dim=1) / truth.norm(dim=1).clamp_min(1e-3)).numpy()

    names = (*Energies._fields, "gradient")
    return {
        name: (error(ours, truth), error(plain, truth), truth)
        for name, ours, plain, truth in zip(names, costs["warp"], costs["plain"], exact, strict=True)
    }


@pytest.fixture(scope="module")
def descended():
    """A batch near contact, for each hand and object, made once."""
    made = {}

    def grasps(hand, obj, shared=None):
        if (hand, obj) not in made:
            made[hand, obj] = synthesis.synthesize(*models(hand, obj, F32, shared), settings(), 1)
        return made[hand, obj].grasps, made[hand, obj].object_scale

    return grasps


OURS = {"w_depth": 50.0, "w_equilibrium": 10.0}
SCENES = [("shadow", "mug"), ("shadow", "open"), ("release", "bowl")]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("hand", "obj", "inter_hand"),
    [("shadow", "mug", "right_points"), *((hand, obj, "symmetric") for hand, obj in SCENES)],
)
def test_values_and_gradients_on_random_poses(hand, obj, inter_hand, descended, request):
    shared = request.getfixturevalue("shared") if hand == "release" else None
    grasps, scale = descended(hand, obj, shared)
    energy = replace(settings().energy, inter_hand=inter_hand, **OURS)
    found = compare(hand, obj, scattered(grasps), scale, energy, shared)
    for name, (ours, plain, truth) in found.items():
        assert truth.abs().max() > 1e-3, f"{name} is 0 everywhere: nothing is tested"
        assert_close(name, ours, plain)


@pytest.mark.slow
@pytest.mark.parametrize(("hand", "obj"), [*SCENES, ("allegro", "bowl")])
def test_values_and_gradients_near_contact(hand, obj, descended, request):
    shared = request.getfixturevalue("shared") if hand == "release" else None
    grasps, scale = descended(hand, obj, shared)
    deep = replace(settings().energy, **OURS)
    for name, (ours, plain, _) in compare(hand, obj, grasps, scale, deep, shared).items():
        assert_close(name, ours, plain)


@pytest.mark.slow
@pytest.mark.parametrize(("hand", "obj"), [("shadow", "mug"), ("shadow", "open"), ("allegro", "bowl")])
def test_normals_turn_alike_on_one_grid(hand, obj, descended):
    """In float32 both: a difference of normals takes a grid of other rounding for another surface."""
    grasps, scale = descended(hand, obj)
    hands, thing = models(hand, obj, F32)
    gradients = {}
    for step in (0.0, 0.01):
        batch = (hands, thing, scale, replace(settings().energy, **OURS, normal_step=step))
        ways = (FusedEvaluator(*batch, BATCH, 4), PlainEvaluator(*batch))
        gradients[step] = [way.evaluation(grasps.pose, grasps.candidate, slice(None)).gradient for way in ways]
    fused, plain = (with_turn - without for without, with_turn in zip(*gradients.values(), strict=True))
    size = plain.flatten(1).norm(dim=1)
    off = (fused - plain).flatten(1).norm(dim=1) / size
    assert (size > 1e-2).float().mean() > 0.9, "the turn of normals changes nothing: nothing is tested"
    assert off.median() < 1e-4 and (off < 1e-3).float().mean() > 0.9, off.sort().values


def assert_close(name, ours, plain):
    """Asserts 1e-5, but for samples whose float32 points lie so close to a shape's surface that plain is off too."""
    assert (ours <= np.maximum(1e-5, 3 * plain)).all(), (name, ours.max(), plain.max())
    assert (ours <= 1e-5).mean() > 0.9, (name, np.sort(ours)[-5:])
    assert np.median(ours) < 2e-6, (name, np.median(ours))


@pytest.mark.slow
def test_too_few_contacts_give_no_wrench_terms():
    hands, obj = models("shadow", "mug", F32)
    result = synthesis.synthesize(hands, obj, settings(num_iterations=5, contacts_per_hand=2), 1)
    assert (result.energies.force_closure == 0).all() and (result.energies.wrench_volume == 0).all()
    plain = PlainEvaluator(hands, obj, result.object_scale, settings().energy).terms(result.grasps, slice(None))
    torch.testing.assert_close(result.energies.total, plain.total, rtol=1e-4, atol=1e-4)


@pytest.mark.slow
def test_tiles_change_no_bit(descended):
    grasps, scale = descended("shadow", "mug")
    hands, obj = models("shadow", "mug", F32)
    whole = FusedEvaluator(hands, obj, scale, settings().energy, BATCH, 4)
    small = FusedEvaluator(hands, obj, scale, settings().energy, 7, 4)
    expected = whole.evaluation(grasps.pose, grasps.candidate, slice(None))
    for first in range(0, BATCH, 7):
        rows = slice(first, min(first + 7, BATCH))
        found = small.evaluation(grasps.pose[rows], grasps.candidate[rows], rows)
        assert torch.equal(found.energy, expected.energy[rows])
        assert torch.equal(found.gradient, expected.gradient[rows])


@pytest.mark.slow
def test_a_sample_that_fails_harms_no_other(descended):
    grasps, scale = descended("shadow", "mug")
    one = FusedEvaluator(*models("shadow", "mug", F32), scale, settings().energy, BATCH, 4)
    sound = one.evaluation(grasps.pose, grasps.candidate, slice(None))
    pose = grasps.pose.clone()
    pose[3, 1, 4] = torch.nan
    failed = mala.checked(one.evaluation(pose, grasps.candidate, slice(None)))
    assert failed.energy.isnan().nonzero().tolist() == [[3]]
    others = torch.arange(BATCH) != 3
    assert torch.equal(failed.energy[others], sound.energy[others])
    assert torch.equal(failed.gradient[others], sound.gradient[others])


@pytest.mark.slow
def test_both_paths_end_at_the_same_energies():
    """Steps are chaotic, so single grasps differ; their distributions after 200 steps may not."""
    ends = {}
    for kernels in ("warp", "plain"):
        result = synthesis.synthesize(
            *models("shadow", "mug", F32), settings(num_iterations=200, kernels=kernels, round_batch_size=64), 3
        )
        ends[kernels] = result.energies.total.numpy()
    assert ks_2samp(ends["warp"], ends["plain"]).pvalue > 0.01
    assert abs(np.median(ends["warp"]) / np.median(ends["plain"]) - 1) < 0.1


class NoHost(TorchDispatchMode):
    """Refuses what would wait for a device, or has a shape that depends on data; notes what is called."""

    FORBIDDEN = ("_local_scalar_dense", "nonzero", "masked_select", "unique", "is_nonzero", "_to_copy")

    def __init__(self):
        super().__init__()
        self.called = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = str(func)
        assert not any(word in name for word in self.FORBIDDEN), f"{name} waits for the device"
        for indices in args[1:2] if "aten.index." in name or "aten.index_put" in name else ():
            assert all(index is None or index.dtype != torch.bool for index in indices), "a mask has no fixed shape"
        found = func(*args, **(kwargs or {}))
        self.called.append((name, tuple(one.shape for one in args if isinstance(one, torch.Tensor))))
        return found


@pytest.mark.slow
def test_a_step_waits_for_nothing_and_does_the_same_every_time(descended):
    """What a CUDA graph needs of a step; here the step runs as it is."""
    grasps, scale = descended("shadow", "mug")
    for tile in (0, 7):
        config = settings(tile=tile)
        scene = synthesis.Scene(*models("shadow", "mug", F32), scale, config)
        costs = scene.evaluator()
        assert costs.is_recordable and not PlainEvaluator.is_recordable
        descent = synthesis.begin(scene, costs, grasps, torch.Generator().manual_seed(0))
        descent.advance()  # the first step takes its memory
        places = [tensor.data_ptr() for tensor in (*descent.state.point, descent.state.step, descent.accepted)]
        called = []
        for _ in range(3):
            with NoHost() as host:
                descent.advance()
            called.append(host.called)
        assert len(called[0]) > 10 and called[0] == called[1] == called[2]
        now = [tensor.data_ptr() for tensor in (*descent.state.point, descent.state.step, descent.accepted)]
        assert now == places
    for spoiled in (lambda x: x.sum().item(), lambda x: x[x > 0], lambda x: torch.nonzero(x), lambda x: x.double()):
        with pytest.raises(AssertionError), NoHost():
            spoiled(grasps.pose)


@pytest.mark.slow
@pytest.mark.parametrize(("hand", "obj"), [("shadow", "mug"), ("release", "bowl")])
def test_a_thread_for_a_point_gives_the_bits_of_one_for_a_run(hand, obj, descended, monkeypatch, request):
    """As GPUs have it; here on a CPU."""
    shared = request.getfixturevalue("shared") if hand == "release" else None
    grasps, scale = descended(hand, obj, shared)
    grasps = scattered(grasps)
    found = []
    for by_point in (False, True):
        monkeypatch.setattr(f"{FusedEvaluator.__module__}.has_many_threads", lambda _, by_point=by_point: by_point)
        costs = FusedEvaluator(*models(hand, obj, F32, shared), scale, settings().energy, len(scale), 4)
        assert ("point_penetrations" in [one.launch.kernel.key for one in costs.program.kernels]) == by_point
        found.append((*costs.terms(grasps, slice(None)), costs._gradient.clone()))
    for first, second in zip(*found, strict=True):
        assert torch.equal(first, second)


# ---- whole steps; their arithmetic has tests of its own, see test_sampler_steps


def begun(method, kernels, scale, grasps, tile=0):
    """A descent on either kernel path, before its first step."""
    config = settings(tile=tile, kernels=kernels, num_iterations=40)
    config = replace(config, optimizer=replace(config.optimizer, method=method, keep="best"))
    scene = synthesis.Scene(*models("shadow", "mug", F32), scale, config)
    return synthesis.begin(scene, scene.evaluator(), grasps, torch.Generator().manual_seed(0))


@pytest.mark.slow
@pytest.mark.parametrize("method, name", [("momentum", "MomentumStep"), ("mala", "LangevinStep")])
def test_a_step_in_kernels_is_the_plain_one(descended, method, name):
    grasps, scale = descended("shadow", "mug")
    fused, plain = (begun(method, kernels, scale, grasps) for kernels in ("warp", "plain"))
    assert type(fused._step).__name__ == name
    for _ in range(3):  # further on rounding makes them two descents
        fused.advance()
        plain.advance()
    assert torch.equal(fused.state.step, plain.state.step) and torch.equal(fused.accepted, plain.accepted)
    for ours, truth in ((fused.state.point, plain.state.point), (fused.state.best, plain.state.best)):
        torch.testing.assert_close(ours.position, truth.position, atol=2e-4, rtol=0)
        assert torch.equal(ours.choice, truth.choice)
        assert ((ours.energy - truth.energy).abs() <= 1e-3 * truth.energy.abs()).float().mean() > 0.9
    assert (fused.state.point.position - grasps.pose).abs().max() > 1e-3, "nothing moves: nothing is tested"


@pytest.mark.slow
@pytest.mark.parametrize("method", ["momentum", "mala"])
def test_tiles_change_no_bit_of_a_descent(descended, method):
    grasps, scale = descended("shadow", "mug")
    ends = []
    for tile in (0, 7):
        descent = begun(method, "warp", scale, grasps, tile)
        for _ in range(20):
            descent.advance()
        ends.append(descent.state)
    for first, second in zip(ends[0].point, ends[1].point, strict=True):
        assert torch.equal(first, second)


@pytest.mark.slow
@pytest.mark.parametrize("method, most", [("momentum", 28), ("mala", 30)])
def test_a_step_on_a_gpu_is_few_nodes_of_a_graph(descended, monkeypatch, method, most):
    monkeypatch.setattr(f"{FusedEvaluator.__module__}.has_many_threads", lambda device: True)
    grasps, scale = descended("shadow", "mug")
    descent = begun(method, "warp", scale, grasps)
    descent.advance()
    launches, launch = [], wp.Launch.launch
    monkeypatch.setattr(wp.Launch, "launch", lambda *args: launches.append(args[0].kernel.key) or launch(*args))
    with NoHost() as host:
        descent._advance()
    views = ("slice", "view", "select", "alias")
    work = [name for name, _ in host.called if not any(word in name for word in views)]
    assert len(launches) > 12 and len(work) + len(launches) <= most, (work, launches)
