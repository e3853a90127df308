"""Simulations on a device against MuJoCo, on Warp's CPU device: few worlds, and kernels that are compiled once."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
from palms import OPEN, box, gripper, palms_scene, protocol, squeeze, verdict_on, verdicts_on

from bimangrasp.validation.scene import build_scene
from bimangrasp.validation.simulate import Trial
from bimangrasp.validation.verdict import DIRECTIONS, Penetration, Pushes, Reason, Verdict, verdict_of

pytest.importorskip("mujoco_warp", reason="pip install -e '.[gpu]'")

from bimangrasp.validation.on_device import self_check, simulate
from bimangrasp.validation.on_device.simulate import DeviceError, device_verdicts, is_doubtful, simulate_grasps
from bimangrasp.validation.on_device.worlds import Worlds

LEFT_AWAY = np.array([[1.0, 0, 0], [0, 0, 0]])


def scene(**simulator):
    """Palms and box under bench_warp's protocol, in MuJoCo and on a device."""
    bench = protocol("bench")
    physics = replace(bench.physics, noslip="near")
    few = replace(bench.simulator, **({"engine": "mujoco_warp", "worlds": 4} | simulator))
    return palms_scene(replace(bench, physics=physics, simulator=few))


def away(poses):
    """A grasp without the left hand."""
    return type(poses)(*(pose._replace(translation=pose.translation - LEFT_AWAY) for pose in poses))


def right_away(poses):
    """A grasp without the right hand."""
    there = np.array([[0, 0, 0], [1.0, 0, 0]])
    return type(poses)(*(pose._replace(translation=pose.translation + there) for pose in poses))


def grasps():
    """Some that hold, some that do not, one too deep, one without numbers."""
    inside = squeeze().pre_grasp.translation * [0.1, 1, 1]
    deep = squeeze()._replace(pre_grasp=squeeze().pre_grasp._replace(translation=inside))
    nowhere = squeeze()._replace(grasp=squeeze().grasp._replace(joints=np.full((2, 1), np.nan)))
    return [squeeze(), squeeze(OPEN), away(squeeze()), deep, nowhere, squeeze(0.05)]


def trials(poses, pushes=None):
    return [Trial(one, pushes or Pushes()) for one in poses]


def nothing():
    """Hears that simulations go on."""


def same(first, second):
    return all(np.array_equal(a, b, equal_nan=True) for a, b in zip(first, second, strict=True))


def alike(first, second):
    """Whether two verdicts of a device differ by rounding alone."""
    ends = [np.concatenate((one.displacement, one.rotation)) for one in (first, second)]
    rest = [one._replace(displacement=0, rotation=0) for one in (first, second)]
    return same(*rest) and np.allclose(*ends, rtol=1e-3, atol=1e-5, equal_nan=True)


@pytest.fixture(scope="module")
def found():
    """What the device says of the grasps, all pushes made."""
    return device_verdicts(scene(), trials(grasps()), "cpu", nothing)


@pytest.mark.slow
def test_a_device_finds_what_mujoco_finds(found):
    with_slip = protocol("bench")  # as on the device:
    with_slip.physics.noslip_iterations = 0
    for device, mujoco in zip(found, verdicts_on(palms_scene(with_slip), grasps()), strict=True):
        assert device.reason is mujoco.reason
        assert np.array_equal(device.held, mujoco.held) and np.array_equal(device.bears_load, mujoco.bears_load)
        assert np.array_equal(device.penetration, mujoco.penetration, equal_nan=True)
        assert np.array_equal(np.isnan(device.displacement), np.isnan(mujoco.displacement))
        np.testing.assert_allclose(device.displacement[device.held], mujoco.displacement[mujoco.held], atol=5e-4)
        np.testing.assert_allclose(device.rotation[device.held], mujoco.rotation[mujoco.held], atol=5e-3)
    assert [one.reason for one in found][:5] == [
        Reason.HELD,
        Reason.MOVED,
        Reason.MOVED,
        Reason.PENETRATION,
        Reason.NOT_FINITE,
    ]


@pytest.mark.slow
def test_the_record_says_which_hand_bears_the_load():
    alone = build_scene(gripper("left"), gripper("right"), [box()], scene().protocol)
    verdict = device_verdicts(alone, trials([right_away(squeeze())]), "cpu", nothing)[0]
    assert verdict.reason is Reason.HELD and verdict.bears_load.tolist() == [True, False]


@pytest.mark.slow
def test_it_does_not_matter_which_world_a_push_gets(found):
    few = device_verdicts(scene(), trials(grasps()[::-1]), "cpu", nothing)
    many = replace(
        scene(), protocol=replace(scene().protocol, simulator=replace(scene().protocol.simulator, worlds=50))
    )
    for device, turned, wide in zip(
        found, few[::-1], device_verdicts(many, trials(grasps()), "cpu", nothing), strict=True
    ):
        assert alike(device, turned) and alike(device, wide)


@pytest.mark.slow
def test_until_lost_no_push_is_told_after_the_first_that_was_lost(found):
    order = (4, 0, 1, 2, 3, 5)
    pushed = device_verdicts(scene(), trials(grasps(), Pushes(order, until_lost=True)), "cpu", nothing)
    for device, ended in zip(found, pushed, strict=True):
        lost = [place for place, direction in enumerate(order) if not device.held[direction]]
        told = order[: lost[0] + 1] if lost else order
        if device.reason in (Reason.HELD, Reason.MOVED):
            assert np.flatnonzero(~np.isnan(ended.displacement)).tolist() == sorted(told)
            np.testing.assert_allclose(ended.displacement[list(told)], device.displacement[list(told)], atol=1e-5)
        assert (ended.reason is Reason.HELD) == (device.reason is Reason.HELD)


@pytest.mark.slow
def test_room_that_is_too_small_is_doubled_and_in_the_end_refused(found):
    tight = device_verdicts(scene(contacts=1, constraints=8), trials(grasps()[:2]), "cpu", nothing)
    assert [one.reason for one in tight] == [one.reason for one in found[:2]]
    with pytest.raises(DeviceError, match="no room for all contacts with .* constraints a world: more of"):
        device_verdicts(scene(constraints=1), trials(grasps()[:2]), "cpu", nothing)


@pytest.mark.slow
def test_what_diverges_on_the_device_is_decided_by_mujoco(monkeypatch):
    run, count = Worlds.run, []

    def diverges(worlds, steps):
        run(worlds, steps)
        count.append(steps)
        if len(count) == 25:  # in a push
            state = worlds.read()
            state["qpos"][0] = np.nan
            worlds.write(state)

    monkeypatch.setattr(Worlds, "run", diverges)
    with ThreadPoolExecutor(1) as pool:
        decided = simulate_grasps(scene(), trials([squeeze()]), "cpu", nothing, pool)[0]
    assert same(decided, verdict_on(scene(), squeeze()))
    count.clear()
    assert device_verdicts(scene(), trials([squeeze()]), "cpu", nothing)[0].reason is Reason.SIMULATION_FAILED


def verdict(displacement=0.0, rotation=0.0, direction=2):
    """A verdict with this end of a push."""
    ends = {at: simulate.verdict.PushEnd(0.0, 0.0, np.ones(2)) for at in range(len(DIRECTIONS))}
    ends[direction] = simulate.verdict.PushEnd(displacement, rotation, np.ones(2))
    return verdict_of(Penetration(0.0, 0.0, 0.0), ends, protocol("bench").limits)


@pytest.mark.parametrize(
    "displacement, rotation, doubtful",
    [
        (0.0, 0.0, False),
        (0.039, 0.0, False),
        (0.041, 0.0, True),  # within a fifth of 50 mm
        (0.0, 0.205, False),
        (0.0, 0.215, True),  # of 15 degrees
        (0.06, 0.0, True),  # lost, and narrowly
        (0.06, 0.9, False),  # by far
        (0.2, 0.0, False),
        (np.nan, np.nan, True),
    ],
)
def test_mujoco_decides_near_a_limit(displacement, rotation, doubtful):
    given = Trial(squeeze(), Pushes())
    assert is_doubtful(scene(), given, verdict(displacement, rotation)) is doubtful


def test_a_grasp_too_deep_or_without_numbers_leaves_no_doubt():
    for reason in (Reason.PENETRATION, Reason.NOT_FINITE):
        nothing_tried = simulate.verdict.not_simulated(reason, Penetration(0.02, 0.0, 0.0))
        assert is_doubtful(scene(), Trial(squeeze(), Pushes()), nothing_tried) is False


def test_doubtful_grasps_get_mujocos_verdict_and_no_others(monkeypatch):
    by_device = [verdict(), verdict(0.045), verdict(0.3)]
    monkeypatch.setattr(simulate, "device_verdicts", lambda *_: list(by_device))
    by_mujoco = {0.01: verdict(0.001), 0.02: verdict(0.002), 0.03: verdict(0.003)}
    monkeypatch.setattr(simulate, "simulate_grasp", lambda scene, poses, _: by_mujoco[poses.squeeze.joints[0, 0]])
    poses = [squeeze(0.01), squeeze(0.02), squeeze(0.03)]
    with ThreadPoolExecutor(2) as pool:
        decided = simulate_grasps(scene(), trials(poses), "cpu", nothing, pool)
    assert decided[0] is by_device[0] and decided[2] is by_device[2]
    assert decided[1] is by_mujoco[0.02]


# ---- the recorded grasps


@pytest.mark.slow
def test_mujoco_finds_what_was_recorded():
    recorded = self_check.read_recorded()
    assert len(recorded.trials) == 64 and recorded.holds.sum() == 32
    verdicts = verdicts_on(recorded.scene, [one.poses for one in recorded.trials])
    assert np.array_equal([one.reason is Reason.HELD for one in verdicts], recorded.holds)
    assert not any(
        is_doubtful(recorded.scene, one, found) for one, found in zip(recorded.trials, verdicts, strict=True)
    )


@pytest.mark.slow
def test_a_device_that_agrees_is_taken():
    few = replace(protocol("bench").simulator, self_check=6, worlds=6)
    assert self_check.check_device("cpu", few) == 1.0


def by_device(monkeypatch, wrong=0, diverged=0):
    """Lets the device find what was recorded, but for some."""

    def verdicts(scene, trials, device, on_look):
        holds = self_check.read_recorded(len(trials)).holds.copy()
        holds[:wrong] ^= True
        reasons = [Reason.HELD if one else Reason.MOVED for one in holds]
        reasons[len(reasons) - diverged :] = [Reason.SIMULATION_FAILED] * diverged
        return [Verdict(reason, *(None,) * 5) for reason in reasons]

    monkeypatch.setattr(self_check, "device_verdicts", verdicts)


@pytest.mark.parametrize("wrong, diverged, refused", [(0, 0, False), (3, 0, False), (4, 0, True), (0, 1, True)])
def test_a_device_that_disagrees_or_diverges_is_refused(monkeypatch, wrong, diverged, refused):
    by_device(monkeypatch, wrong, diverged)
    settings = protocol("bench").simulator
    if not refused:
        assert self_check.check_device("cpu", settings) == 1 - wrong / 64
        return
    with pytest.raises(DeviceError, match=r"agrees with MuJoCo on \d+% of 64 recorded grasps.*use validation=bench"):
        self_check.check_device("cpu", settings)


@pytest.mark.slow
def test_a_device_that_drops_contacts_is_refused():
    with pytest.raises(DeviceError, match="no room for all contacts"):
        self_check.check_device("cpu", replace(protocol("bench").simulator, self_check=2, worlds=2, constraints=8))
