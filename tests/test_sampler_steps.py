"""Steps in kernels against those of PyTorch in float64, which are their oracle, on an energy known in closed form."""

from __future__ import annotations

import importlib
from dataclasses import replace
from itertools import product

import pytest
import quick_conf
import torch

from bimangrasp.sampler import mala, momentum
from bimangrasp.sampler.cuda_graph import Descent

wp = pytest.importorskip("warp", reason="needs NVIDIA Warp")
sampler_steps = importlib.import_module("bimangrasp.energy.fused.sampler_steps")

BATCH, HANDS, SIZES, CONTACTS, CHOICES, STEPS = 77, 2, [3, 6, 5], 4, 9, 40
DOF = sum(SIZES)


def energy(position, choice):
    """A bowl whose middle the choices move; where a sample is far on one side, there is no energy."""
    middle = torch.sin(choice.to(position.dtype)).sum(dim=2, keepdim=True) / 4
    steepness = torch.linspace(0.5, 3, DOF, dtype=position.dtype)
    offset = position - middle
    gradient = steepness * offset
    cost = 5 * (gradient * offset).sum(dim=(1, 2))
    failed = position[:, 0, 0] > 2.2
    gradient = torch.where((position[:, 1, 1] > 2.2)[:, None, None], torch.inf, 10 * gradient)
    return mala.Evaluation(torch.where(failed, torch.nan, cost), gradient)


class Costs:
    """What a step in place asks of an evaluator."""

    device = wp.get_device("cpu")

    def stream(self):
        return None

    def evaluate_into(self, pose, candidate, rows, into_energy, into_gradient):
        for into, values in zip((into_energy, into_gradient), energy(pose, candidate), strict=True):
            into.copy_(values)


TILES = [slice(0, 50), slice(50, BATCH)]


def start(dtype):
    """Poses, of which a tenth fails at once, and choices."""
    generator = torch.Generator().manual_seed(3)
    pose = 1.5 * torch.randn(BATCH, HANDS, DOF, generator=generator).to(dtype)
    return pose, torch.randint(CHOICES, (BATCH, HANDS, CONTACTS), generator=generator)


def draw_single(room, choices, generator, draw=mala.draw):
    """Draws the numbers of float32 for any state: those of float64 are others."""
    narrow = mala.Draws(*(part.float() if part.is_floating_point() else part for part in room))
    for wide, part in zip(room, draw(narrow, choices, generator), strict=True):
        wide.copy_(part)
    return room


def descents(config, monkeypatch):
    """Both ways down: in kernels, and in PyTorch with float64."""
    monkeypatch.setattr(mala, "draw", draw_single)
    made = []
    for dtype in (torch.float32, torch.float64):
        generator = torch.Generator().manual_seed(11)
        if config.method == "momentum":
            plan = momentum.plan(config.momentum, SIZES, STEPS, dtype=dtype)
            state = momentum.init(*start(dtype), energy, plan, config.keep == "best")
            fused = sampler_steps.MomentumStep(Costs(), TILES, config.momentum, plan)
            plain = lambda now, plan=plan: momentum.step(now, energy, config.momentum, plan)  # noqa: E731
        else:
            schedule = mala.schedule(config, STEPS, dtype=dtype)
            state = mala.init(*start(dtype), energy, config)
            constants = (CHOICES, config, schedule, generator)
            fused = sampler_steps.LangevinStep(Costs(), TILES, *constants)
            plain = lambda now, constants=constants: mala.step(now, energy, *constants)  # noqa: E731
        made.append(Descent(state, fused if dtype == torch.float32 else plain, generator, is_recorded=False))
    return made


def same(ours, truth, tolerance):
    """Whether all numbers of two states are equal but for rounding, and NaN and choices exactly."""
    for one, other in zip(ours, truth, strict=True):
        if isinstance(one, tuple):
            same(one, other, tolerance)
        elif one is None:
            assert other is None
        elif one.is_floating_point():
            torch.testing.assert_close(one.double(), other, atol=tolerance, rtol=tolerance, equal_nan=True)
        else:
            assert torch.equal(one, other)


def langevin(**changes):
    """Annealing of which some proposals are accepted and others not."""
    config = quick_conf.load("experiment=released").optimizer
    quick = {"step_size": 0.05, "step_decay_every": 3, "temperature": 20.0, "temperature_decay_every": 4}
    return replace(config, schedule_steps=6000, **{**quick, **changes})


SETTINGS = list(product(("last", "best"), ("batch", "sample"), (False, True)))


@pytest.mark.parametrize("keep, preconditioner, proposal_ratio", SETTINGS)
def test_an_annealed_step_in_kernels_is_the_plain_one(monkeypatch, keep, preconditioner, proposal_ratio):
    config = langevin(keep=keep, preconditioner=preconditioner, proposal_ratio=proposal_ratio)
    config = replace(config, noise_factor=1.0 if proposal_ratio else 0.5)
    ours, truth = descents(config, monkeypatch)
    first = truth.state.point.position.clone()
    failed = truth.state.point.energy.isnan()
    assert 2 < int(failed.sum()) < BATCH / 2, "no sample fails: nothing is tested"
    for _ in range(STEPS):
        ours.advance()
        truth.advance()
        same(ours.state, truth.state, 2e-4)
        assert torch.equal(ours.accepted, truth.accepted)
    share = float(truth.accepted) / (STEPS * BATCH)
    assert 0.2 < share < 0.95, f"{share}: acceptance is not tested"
    assert (truth.state.point.position - first).abs().max() > 0.5
    assert int(ours.state.step) == STEPS
    if keep == "best":
        assert (truth.state.best.energy < truth.state.point.energy).any(), "the best is always the last"


@pytest.mark.parametrize("keep", ["last", "best"])
def test_a_step_with_momentum_in_kernels_is_the_plain_one(monkeypatch, keep):
    config = replace(quick_conf.load().optimizer, method="momentum", keep=keep)
    large = replace(config.momentum, translation_step=0.5, rotation_step=0.3, joint_step=0.7, last_share=0.5)
    ours, truth = descents(replace(config, momentum=large), monkeypatch)
    rose = 0
    for _ in range(STEPS):
        was = truth.state.point.energy.clone()
        ours.advance()
        truth.advance()
        same(ours.state, truth.state, 2e-4)
        assert torch.equal(ours.accepted, truth.accepted)
        rose += int((truth.state.point.energy > was).sum())
    assert rose > 5, "no step goes up: the best is not tested"


def test_a_sample_that_fails_stays_where_it_is(monkeypatch):
    for config in (langevin(temperature=1e9), replace(quick_conf.load().optimizer, method="momentum")):
        with monkeypatch.context() as patched:
            descent, _ = descents(config, patched)
        before = [part.clone() for part in descent.state.point]
        evaluate = Costs.evaluate_into

        def fails(self, pose, candidate, rows, into_energy, into_gradient, evaluate=evaluate):
            evaluate(self, pose, candidate, rows, into_energy, into_gradient)
            if rows.start == 0:
                into_energy[:], into_gradient[:] = 0, 0
                into_energy[3], into_gradient[5, 1, 4] = torch.inf, torch.nan

        monkeypatch.setattr(Costs, "evaluate_into", fails)
        descent.advance()
        monkeypatch.undo()
        assert [row for row in range(50) if descent.state.point.energy[row] != 0] == [3, 5]
        for ours, was in zip(descent.state.point, before, strict=True):
            assert torch.equal(ours[[3, 5]].nan_to_num(-1), was[[3, 5]].nan_to_num(-1))
