from dataclasses import replace

import pytest
import quick_conf
import torch

from bimangrasp.sampler import mala

D, GROUPS = 3, 2
PRECISION = torch.tensor([0.5, 1.0, 2.0], dtype=torch.float64)


def constant(**changes):
    """A sampler that does not anneal and does not switch."""
    config = quick_conf.load().optimizer
    values = {"step_decay": 1.0, "temperature_decay": 1.0, "temperature": 1.0, "switch_probability": 0.0}
    return replace(config, **{**values, **changes})


def gaussian(position, choice):
    """Energy of independent Gaussians about 3."""
    offset = position - 3
    return mala.Evaluation((PRECISION * offset**2).sum(dim=(1, 2)) / 2, PRECISION * offset)


def released(config, steps=60):
    """The released schedule, unsqueezed."""
    return mala.schedule(replace(config, schedule_steps=6000), steps, dtype=torch.float64)


def chain(energy, config, steps, batch=2000, start=2.0, seed=1):
    generator = torch.Generator().manual_seed(seed)
    position = torch.full((batch, GROUPS, D), start, dtype=torch.float64)
    state = mala.init(position, torch.zeros((batch, GROUPS, 2), dtype=torch.int64), energy, config)
    accepted, schedule = [], released(config, steps)
    for _ in range(steps):
        state, taken = mala.step(state, energy, 5, config, schedule, generator)
        accepted.append(taken.double().mean())
    return state, torch.stack(accepted)


@pytest.mark.slow
def test_full_noise_and_the_proposal_ratio_sample_a_gaussian():
    config = constant(noise_factor=1.0, proposal_ratio=True, step_size=0.4, temperature=0.7)
    state, accepted = chain(gaussian, config, 400, batch=8000)
    samples = state.point.position
    torch.testing.assert_close(samples.mean((0, 1)), torch.full((D,), 3.0).double(), atol=0.03, rtol=0)
    torch.testing.assert_close(samples.var((0, 1)), 0.7 / PRECISION, atol=0, rtol=0.05)
    assert 0.5 < accepted[-1] < 0.999


@pytest.mark.slow
def test_without_the_ratio_a_large_step_is_biased():
    config = constant(noise_factor=1.0, proposal_ratio=False, step_size=0.4, temperature=0.7)
    samples = chain(gaussian, config, 400, batch=8000)[0].point.position
    assert ((samples.var((0, 1)) / (0.7 / PRECISION)) - 1).abs().max() > 0.1


@pytest.mark.slow
def test_released_noise_samples_a_hundredth_of_the_variance():
    config = constant(noise_factor=0.1, proposal_ratio=False, step_size=0.002)
    state, _ = chain(gaussian, config, 600, batch=8000, start=2.9)
    expected = 1.0 / (101 * PRECISION)
    torch.testing.assert_close(state.point.position.var((0, 1)), expected, atol=0, rtol=0.05)


def test_tiny_steps_are_nearly_always_accepted():
    assert chain(gaussian, constant(step_size=1e-6), 20, start=1.0)[1].min() > 0.99


def test_a_cold_chain_ends_at_the_minimum():
    config = constant(step_size=0.05, temperature=1e-6)
    torch.testing.assert_close(
        chain(gaussian, config, 400, 50, 0.0)[0].point.position,
        torch.tensor(3.0).double().expand(50, 2, 3),
        atol=0.01,
        rtol=0,
    )


def test_a_rejected_sample_is_bitwise_the_old_one():
    generator = torch.Generator().manual_seed(3)
    config = constant(step_size=0.3, noise_factor=3.0, switch_probability=0.9)
    position = torch.randn((500, GROUPS, D), generator=generator, dtype=torch.float64)
    choice = torch.randint(5, (500, GROUPS, 2), generator=generator)
    before = mala.init(position, choice, gaussian, config)
    after, accepted = mala.step(before, gaussian, 5, config, released(config), generator)
    assert 50 < accepted.sum() < 450
    for old, new in zip(before.point, after.point, strict=True):
        assert torch.equal(new[~accepted], old[~accepted])
        if old.is_floating_point():
            assert not torch.equal(new[accepted], old[accepted])


def failing_where(bad):
    """The Gaussian, with samples made to fail by a NaN energy or an infinite gradient entry."""

    def energy(position, choice):
        value, gradient = gaussian(position, choice)
        value, gradient = value.clone(), gradient.clone()
        value[bad(position, 0)] = torch.nan
        gradient[bad(position, 1), 0, 0] = torch.inf
        return mala.Evaluation(value, gradient)

    return energy


def test_failed_proposals_are_rejected():
    energy = failing_where(lambda position, which: position[:, which, 0] > 3.0)
    state, _ = chain(energy, constant(noise_factor=1.0, step_size=0.1), 50, start=2.0)
    assert (state.point.position[:, :, 0] <= 3.0).all() and state.point.energy.isfinite().all()


def test_from_a_failed_start_any_finite_proposal_is_taken():
    config = constant(noise_factor=1.0, step_size=0.1, temperature=1e-9, keep="best")
    energy = failing_where(lambda position, which: position[:, which, 0] == 0)
    start = torch.zeros((20, GROUPS, D), dtype=torch.float64)
    before = mala.init(start, torch.zeros((20, GROUPS, 1), dtype=torch.int64), energy, config)
    assert before.point.energy.isnan().all() and (before.point.gradient == 0).all()
    after, accepted = mala.step(before, energy, 1, config, released(config), torch.Generator().manual_seed(1))
    assert accepted.all() and after.point.energy.isfinite().all() and after.best.energy.isfinite().all()


def test_failed_samples_are_left_out_of_the_mean():
    config = constant()
    position = torch.randn((10, GROUPS, D), generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    choice = torch.zeros((10, GROUPS, 1), dtype=torch.int64)
    bad = torch.arange(10) < 4
    failing = mala.init(position, choice, failing_where(lambda p, which: bad), config)
    sound = mala.init(position[~bad], choice[~bad], gaussian, config)
    torch.testing.assert_close(mala.next_second_moment(failing, config), mala.next_second_moment(sound, config))
    gradient = gaussian(position[~bad], None).gradient
    torch.testing.assert_close(mala.next_second_moment(sound, config)[0], 0.02 * gradient.square().mean(0))


def test_a_moment_of_its_own_couples_no_samples():
    config = constant(preconditioner="sample")
    position = torch.randn((4, GROUPS, D), generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    state = mala.init(position, torch.zeros((4, GROUPS, 1), dtype=torch.int64), gaussian, config)
    torch.testing.assert_close(mala.next_second_moment(state, config), 0.02 * state.point.gradient.square())


def test_the_best_state_is_kept():
    config = constant(noise_factor=3.0, step_size=0.3, temperature=5.0, keep="best")
    least = []

    def watched(position, choice):
        return gaussian(position, choice)

    generator = torch.Generator().manual_seed(6)
    state = mala.init(torch.full((50, GROUPS, D), 2.0).double(), torch.zeros((50, GROUPS, 1)).long(), watched, config)
    for _ in range(30):
        least.append(state.point.energy)
        state, _ = mala.step(state, watched, 1, config, released(config), generator)
    least.append(state.point.energy)
    assert torch.equal(state.best.energy, torch.stack(least).amin(0))
    torch.testing.assert_close(gaussian(state.best.position, None).energy, state.best.energy)


def test_indices_switch_as_often_as_the_temperature_says():
    config = replace(quick_conf.load().optimizer, step_size=0.1)
    generator = torch.Generator().manual_seed(7)
    choice = torch.full((20000, 1, 1), 4)
    point = mala.Point(torch.zeros((20000, 1, 1)), choice, torch.zeros(20000), torch.zeros((20000, 1, 1)))
    draws = mala.draw(mala.Draws.room(point), 5, generator)
    for cooled, first, chance in ((1.0, 0.5, 0.5), (0.25, 0.5, 0.25), (1.0, 1.0, 0.9)):
        changed = replace(config, temperature_decay=cooled, temperature_decay_every=60, switch_probability=first)
        now = mala.schedule(changed, 60).at(torch.tensor([0 if cooled == 1 else 1]))
        _, switched = mala.propose(point, torch.ones(1, 1, 1), draws, now, changed)
        expected = chance * 4 / 5  # one redraw in five gives the old index
        assert (switched != 4).double().mean().item() == pytest.approx(expected, abs=0.015)


def test_schedule_is_the_released_one_and_squeezes_as_a_whole():
    config = quick_conf.load().optimizer
    double = {"dtype": torch.float64}
    whole = mala.schedule(config, 10_000, **double)
    step = torch.arange(10_001)
    for column, first, decay, every in ((whole.step_size, 0.005, 0.95, 50), (whole.temperature, 18.0, 0.95, 30)):
        torch.testing.assert_close(column, first * decay ** (step // every).double(), rtol=1e-12, atol=0)
    torch.testing.assert_close(whole.switch_chance, 0.5 * (whole.temperature / 18).sqrt(), rtol=1e-12, atol=0)
    for steps, length in ((400, "auto"), (700, 400), (6000, 6000), (8000, "auto")):
        squeezed = mala.schedule(replace(config, schedule_steps=length), steps, **double)
        length = min(steps, 6000) if length == "auto" else length
        for ours, theirs in zip(squeezed, whole, strict=True):
            assert len(ours) == steps + 1
            assert torch.equal(ours[: length + 1], theirs[torch.arange(length + 1) * 6000 // length])


def test_the_temperature_of_acceptance_is_the_next_steps():
    config = constant(
        temperature=1.0, temperature_decay=1e-9, temperature_decay_every=1, step_size=0.5, noise_factor=3.0
    )
    state, accepted = chain(gaussian, config, 1, batch=500)
    rose = (
        state.point.energy
        > mala.init(
            torch.full((500, 2, 3), 2.0).double(), torch.zeros((500, 2, 2)).long(), gaussian, config
        ).point.energy
    )
    assert not rose.any() and not accepted.any()


def test_a_step_proposes_with_its_own_step_size_and_temperature():
    ours = constant(step_decay=0.5, step_decay_every=1, temperature_decay=0.5, temperature_decay_every=1, step_size=0.1)
    seen = []

    def watched(position, choice):
        seen.append(position)
        return gaussian(position, choice)

    start = torch.zeros((20, GROUPS, D), dtype=torch.float64)
    state = mala.init(start, torch.zeros((20, GROUPS, 2), dtype=torch.int64), watched, ours)
    mala.step(state, watched, 5, ours, released(ours), torch.Generator().manual_seed(1))
    draws = mala.draw(mala.Draws.room(state.point), 5, torch.Generator().manual_seed(1))
    moment, now = mala.next_second_moment(state, ours), released(ours).at(torch.tensor([0]))
    assert now.step_size == 0.1 and now.temperature == 1
    assert torch.equal(seen[-1], mala.propose(state.point, moment, draws, now, ours)[0])


def test_a_hopeless_proposal_is_rejected_by_every_number():
    old, worse = (
        mala.Point(torch.zeros(1, 1, 1), torch.zeros(1, 1, 1), torch.tensor([e]), torch.zeros(1, 1, 1))
        for e in (0.0, 1e6)
    )
    assert not mala.accepts(old, worse, torch.zeros(1), torch.tensor([1e-6]), torch.zeros(1)).any()
