from dataclasses import replace

import pytest
import quick_conf
import torch

from bimangrasp.sampler import mala, momentum
from bimangrasp.sampler.cuda_graph import Descent

SIZES = [3, 6, 4]
DOF = sum(SIZES)


def config(**changes):
    return replace(quick_conf.load().optimizer.momentum, **changes)


def bowl(scale=1.0, center=0.3):
    """Energy of a bowl whose coordinates are unlike, to any factor."""
    steepness = scale * torch.logspace(-0.3, 0.3, DOF, dtype=torch.float64)

    def energy(position, choice):
        offset = position - center
        return mala.Evaluation((steepness * offset**2).sum(dim=(1, 2)) / 2, steepness * offset)

    return energy


def begin(energy, settings, steps, batch=5, keeps_best=False, seed=1):
    generator = torch.Generator().manual_seed(seed)
    position = torch.randn((batch, 2, DOF), generator=generator, dtype=torch.float64)
    plan = momentum.plan(settings, SIZES, steps, dtype=torch.float64)
    choice = torch.zeros((batch, 2, 1), dtype=torch.int64)
    return momentum.init(position, choice, energy, plan, keeps_best), plan


def descend(energy, settings, steps, **options):
    state, plan = begin(energy, settings, steps, **options)
    for _ in range(steps):
        state, _ = momentum.step(state, energy, settings, plan)
    return state


def test_the_bottom_of_a_bowl_is_reached():
    settings = config(translation_step=0.05, rotation_step=0.05, joint_step=0.05, last_share=0.01)
    end = descend(bowl(), settings, 400).point
    torch.testing.assert_close(end.position, torch.full_like(end.position, 0.3), atol=1e-2, rtol=0)


def test_the_first_step_has_the_sizes_of_the_parts_whatever_the_gradient_is():
    settings = config(translation_step=0.001, rotation_step=0.02, joint_step=0.3)
    for scale in (1e-2, 1e3):
        before, plan = begin(bowl(scale), settings, 10)
        after, moved = momentum.step(before, bowl(scale), settings, plan)
        way = after.point.position - before.point.position
        sizes = [part.square().mean(-1).sqrt() for part in way.split(SIZES, dim=-1)]
        for size, wanted in zip(sizes, (0.001, 0.02, 0.3), strict=True):
            torch.testing.assert_close(size, torch.full_like(size, wanted), atol=0, rtol=1e-2)
        assert moved.all()


def test_steps_shrink_to_the_last_share():
    share = momentum.plan(config(last_share=0.02), SIZES, 100).share
    assert share[0] == 1 and share[-1] == pytest.approx(0.02) and (share.diff() < 0).all()
    assert momentum.plan(config(), SIZES, 1).share.tolist() == [1.0]


def test_samples_do_not_see_each_other():
    settings = config()
    whole = descend(bowl(), settings, 30, batch=5).point.position
    state, plan = begin(bowl(), settings, 30, batch=5)
    alone = momentum.State(
        mala.Point(*(column[2:3] for column in state.point)),
        None,
        state.first_moment[2:3],
        state.second_moment[2:3],
        state.step,
    )
    for _ in range(30):
        alone, _ = momentum.step(alone, bowl(), settings, plan)
    assert torch.equal(alone.point.position[0], whole[2])


def test_a_failed_proposal_leaves_its_sample_where_it_was():
    def failing(position, choice):
        value, gradient = bowl()(position, choice)
        return mala.Evaluation(torch.where(torch.arange(len(value)) == 1, torch.nan, value), gradient)

    before, plan = begin(bowl(), config(), 10)
    after, moved = momentum.step(before, failing, config(), plan)
    assert moved.tolist() == [True, False, True, True, True]
    assert torch.equal(after.point.position[1], before.point.position[1])
    assert torch.equal(after.point.energy[1], before.point.energy[1])


def test_the_best_is_kept_and_forgotten_with_its_indices():
    settings = config(translation_step=0.5, rotation_step=0.5, joint_step=0.5, last_share=1.0)
    state, plan = begin(bowl(), settings, 50, keeps_best=True)
    least = state.point.energy
    for _ in range(50):
        state, _ = momentum.step(state, bowl(), settings, plan)
        least = torch.minimum(least, state.point.energy)
    assert torch.equal(state.best.energy, least) and (state.point.energy > least).any()
    other = momentum.with_choice(state, state.point.choice + 1, bowl(2.0))
    assert torch.equal(other.best.energy, other.point.energy) and torch.equal(other.point.choice, other.best.choice)
    torch.testing.assert_close(other.point.energy, 2 * state.point.energy)
    assert torch.equal(other.first_moment, state.first_moment)


def test_steps_in_place_are_the_same_steps():
    settings = config()
    state, plan = begin(bowl(), settings, 20, keeps_best=True)
    asked = []

    def revise(made, now):
        asked.append(made)
        return momentum.with_choice(now, now.point.choice + 3, bowl()) if made == 7 else None

    descent = Descent(state, lambda now: momentum.step(now, bowl(), settings, plan), torch.Generator(), False, revise)
    memory = descent.state.point.choice.data_ptr()
    for made in range(20):
        assert (descent.state.point.choice == (3 if made > 7 else 0)).all()
        descent.advance()
        state, _ = momentum.step(state if made != 7 else revise(7, state), bowl(), settings, plan)
    for present, wanted in zip(descent.state.point, state.point, strict=True):
        assert torch.equal(present, wanted)
    assert descent.state.point.choice.data_ptr() == memory and sorted({*asked}) == list(range(20))
