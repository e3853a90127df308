"""Physics as a judge: laws that any simulator must keep, thresholds at their edge, and what must not end a run."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

import mujoco
import numpy as np
import pytest
import torch
from palms import (
    HALF,
    OPEN,
    box,
    gripper,
    palm,
    palms,
    palms_scene,
    protocol,
    shipped_scene,
    squeeze,
    verdict_on,
    verdicts_on,
)
from scene import random_rotation, shadow_hands
from scipy.spatial.transform import Rotation

from bimangrasp.errors import InputError
from bimangrasp.validation import simulate
from bimangrasp.validation.scene import (
    GraspPoses,
    HandPoses,
    build_scene,
    interpolate,
    motion_between,
    set_pose,
)
from bimangrasp.validation.simulate import penetration, simulate_grasp
from bimangrasp.validation.verdict import (
    DIRECTIONS,
    Penetration,
    PushEnd,
    Pushes,
    Reason,
    reason_of,
    too_deep,
    verdict_of,
)

BOTH = pytest.mark.parametrize("name", ["bench", "paper"])
LOST = {"bench": Reason.MOVED, "paper": Reason.LOST_CONTACT}
TURNS = [
    np.array(matrix, dtype=float)
    for matrix in (
        [[0, -1, 0], [1, 0, 0], [0, 0, 1]],
        [[1, 0, 0], [0, 0, -1], [0, 1, 0]],
        [[0, 0, 1], [0, 1, 0], [-1, 0, 0]],
    )
]


def same(first, second) -> bool:
    """Whether two verdicts have the same bits."""
    return all(np.array_equal(a, b, equal_nan=True) for a, b in zip(first, second, strict=True))


def end(displacement: float = 0.0, rotation: float = 0.0, force: float = 1.0) -> PushEnd:
    return PushEnd(displacement, rotation, np.array([force, 0.0]))


@BOTH
def test_pressed_palms_hold_a_box(name):
    verdict = verdict_on(shipped_scene(name), squeeze())
    assert verdict.reason is Reason.HELD
    assert verdict.held.all() and verdict.bears_load.all()
    assert verdict.displacement.max() < 0.01


@BOTH
def test_palms_that_do_not_press_lose_it(name):
    verdict = verdict_on(shipped_scene(name), squeeze(OPEN))
    assert verdict.reason is LOST[name]
    assert not verdict.held[2:].any() and not verdict.bears_load.any()


@BOTH
def test_palms_without_friction_lose_it(name):
    slippery = protocol(name)
    slippery.physics.friction = [0.0, 0.0, 0.0]
    verdict = verdict_on(palms_scene(slippery), squeeze())
    assert verdict.reason is LOST[name]
    assert not verdict.held[2:].any()


def test_one_palm_pushes_the_box_away():
    poses = GraspPoses(*(pose._replace(translation=pose.translation + [[0, 0, 0], [1, 0, 0]]) for pose in squeeze()))
    verdict = verdict_on(shipped_scene("bench"), poses)
    assert verdict.reason is Reason.MOVED
    assert not verdict.held[0] and not verdict.bears_load.any()


@BOTH
def test_one_hand_may_hold_alone_and_the_record_says_which(name):
    away = np.array([[0.0, 0, 0], [1, 0, 0]])
    poses = GraspPoses(*(pose._replace(translation=pose.translation + away) for pose in squeeze()))
    scene = build_scene(gripper("left"), gripper("right"), [box()], protocol(name))
    verdict = verdict_on(scene, poses)
    assert verdict.reason is Reason.HELD
    assert verdict.bears_load.tolist() == [True, False]


@pytest.mark.slow
@BOTH
@pytest.mark.parametrize("bend", [0.1, OPEN])
@pytest.mark.parametrize("turn", TURNS, ids=["about z", "about x", "about y"])
def test_quarter_turns_of_the_hands_turn_the_verdict(name, bend, turn):
    straight = verdict_on(shipped_scene(name), squeeze(bend))
    turned = verdict_on(shipped_scene(name), squeeze(bend, turn))
    there = [int(np.argmax(DIRECTIONS @ (turn @ direction))) for direction in DIRECTIONS]
    assert turned.reason is straight.reason
    assert np.array_equal(turned.held[there], straight.held)
    if bend != OPEN:
        np.testing.assert_allclose(turned.displacement[there], straight.displacement, atol=2e-3)


@pytest.mark.slow
@BOTH
def test_a_mirrored_scene_has_the_mirrored_verdict(name):
    uneven = GraspPoses(palms(OPEN), palms(0.0), palms(0.3)._replace(joints=np.array([[0.3], [0.2]])))
    swapped = uneven._replace(squeeze=palms(0.3)._replace(joints=np.array([[0.2], [0.3]])))
    verdict, mirrored = (verdict_on(shipped_scene(name), poses) for poses in (uneven, swapped))
    assert verdict.reason is mirrored.reason
    assert np.array_equal(verdict.held, mirrored.held[[1, 0, 2, 3, 4, 5]])
    np.testing.assert_allclose(verdict.displacement, mirrored.displacement[[1, 0, 2, 3, 4, 5]], atol=2e-3)


@BOTH
def test_hands_are_where_the_optimizer_has_them(name):
    hands = shadow_hands()
    scene = build_scene(*hands.descriptions, [box()], protocol(name))
    data = mujoco.MjData(scene.model)
    rng = np.random.default_rng(0)
    joints = rng.uniform(hands.joint_lower.numpy(), hands.joint_upper.numpy())
    rotation = np.stack([random_rotation(seed).numpy() for seed in (1, 2)])
    pose = HandPoses(rng.normal(size=(2, 3)), rotation, joints)
    set_pose(scene, data, pose)
    mujoco.mj_kinematics(scene.model, data)
    frames = hands.frames_from_root(*(torch.as_tensor(pose[part])[None] for part in (1, 0, 2)))
    for hand, side in enumerate(("left", "right")):
        for link, link_name in enumerate(hands.names):
            body = data.body(f"{side}/{link_name}")
            np.testing.assert_allclose(body.xpos, frames.translation[0, hand, link], atol=1e-9)
            np.testing.assert_allclose(body.xmat.reshape(3, 3), frames.rotation[0, hand, link], atol=1e-9)
        for number, shape in enumerate(hands.descriptions[hand].primitives):
            rotation, offset = frames.rotation[0, hand, shape.link].numpy(), shape.T_link_shape[:3, 3]
            middle = rotation @ offset + frames.translation[0, hand, shape.link].numpy()
            np.testing.assert_allclose(data.geom(f"{side}/{number}").xpos, middle, atol=1e-9)
        targets = [data.actuator(f"{side}/{joint}").ctrl[0] for joint in hands.joint_names]
        np.testing.assert_array_equal(targets, joints[hand])


def test_pieces_make_one_body():
    whole = shipped_scene("bench")
    upper, lower = ((box() * [1, 1, 0.5]) + [0, 0, side * HALF / 2] for side in (1, -1))
    cut = build_scene(palm("left"), palm("right"), [upper, lower], protocol("bench"))
    np.testing.assert_allclose(cut.model.body_mass[cut.object_body], 0.1, rtol=1e-6)
    np.testing.assert_allclose(
        cut.model.body_inertia[cut.object_body], whole.model.body_inertia[whole.object_body], 1e-5
    )
    np.testing.assert_allclose(cut.model.body_ipos[cut.object_body], 0.0, atol=1e-9)
    assert penetration(cut, palms(0.0, gap=-0.004)).hand_object == pytest.approx(0.004, abs=1e-5)
    assert verdict_on(cut, squeeze()).reason is Reason.HELD


@BOTH
def test_a_free_object_is_pushed_as_its_mass_says(name):
    endless = protocol(name, displacement=np.inf, rotation=np.inf)
    away = palms(0.0, gap=50.0)
    verdict = verdict_on(palms_scene(endless), GraspPoses(away, away, away))
    trial, dt = endless.trial, endless.physics.timestep
    steps = trial.looks * trial.steps_per_look
    assert steps * dt == pytest.approx(2.0)
    way = trial.push_acceleration * dt**2 * steps * (steps + 1) / 2  # a t^2 / 2, in steps of semi-implicit Euler
    np.testing.assert_allclose(verdict.displacement, way, rtol=1e-9)
    np.testing.assert_allclose(verdict.rotation, 0.0, atol=1e-9)


def looked_for(monkeypatch, **rest):
    """The verdict on pressed palms under bench with these limits of rest, and how many looks it took."""
    looks, step, shipped = [], simulate._step, protocol("bench")
    monkeypatch.setattr(simulate, "_step", lambda scene, data, steps: looks.append(steps) or step(scene, data, steps))
    verdict = verdict_on(palms_scene(replace(shipped, trial=replace(shipped.trial, **rest))), squeeze())
    monkeypatch.undo()
    return verdict, looks.count(shipped.trial.steps_per_look)


def test_a_push_ends_when_the_object_rests_and_says_the_same(monkeypatch):
    whole, every_look = looked_for(monkeypatch, rest_displacement=0.0, rest_rotation=0.0)
    early, looks = looked_for(monkeypatch, rest_displacement=1e-4, rest_rotation=1e-3)
    assert every_look == 60 and looks <= 30
    assert early.reason is whole.reason is Reason.HELD and (early.bears_load == whole.bears_load).all()
    np.testing.assert_allclose(early.displacement, whole.displacement, atol=1e-3)
    one_limit, looks = looked_for(monkeypatch, rest_displacement=1e-4, rest_rotation=0.0)
    assert looks == 60 and one_limit.reason is Reason.HELD


def test_an_object_that_creeps_towards_a_limit_is_not_at_rest(monkeypatch):
    shipped = protocol("bench")
    trial = replace(shipped.trial, rest_displacement=1e-3, rest_rotation=1e-2)
    scene = palms_scene(replace(shipped, trial=trial))
    at, looks = [0.0], []

    def creeps(scene, data, steps):
        if steps == trial.steps_per_look:
            looks.append(at[0])
            at[0] += 0.0009

    def state(scene, data):
        return np.array([0.045 + at[0], 0.0, 0.0, 1.0, 0.0, 0.0, 0.0])

    monkeypatch.setattr(simulate, "_step", creeps)
    monkeypatch.setattr(simulate, "object_state", state)
    data = mujoco.MjData(scene.model)
    squeezed = simulate._read_state(scene, data)
    pushed = simulate._push_object(scene, data, squeezed, DIRECTIONS[0])
    assert len(looks) == 6 and reason_of(pushed, scene.protocol.limits) is Reason.MOVED


@pytest.mark.parametrize("angle", [0.0, 1e-4, 0.2, 3.0])
def test_the_motion_between_two_states_has_its_distance_and_angle(angle):
    axis = np.array([2.0, -1.0, 2.0]) / 3
    turn = Rotation.from_rotvec([0.3, 0.5, -0.2])
    first, second = (
        np.concatenate((place, quaternion))
        for place, quaternion in (
            ([0.1, 0.2, 0.3], turn.as_quat(scalar_first=True)),
            ([0.1, 0.2, 0.7], -(Rotation.from_rotvec(angle * axis) * turn).as_quat(scalar_first=True)),
        )
    )
    assert motion_between(first, second) == pytest.approx((0.4, angle), abs=1e-7)


def test_the_object_has_the_mass_that_the_protocol_says():
    for name, mass in (("bench", 0.1), ("paper", 2500 * 0.06**3)):
        scene = shipped_scene(name)
        assert scene.model.body_mass[scene.object_body] == pytest.approx(mass, rel=1e-6)


def test_bench_fails_at_exactly_its_thresholds():
    limits = protocol("bench").limits
    assert (limits.displacement, limits.rotation) == (0.05, np.deg2rad(15))
    assert reason_of(end(0.05), limits) is Reason.MOVED
    assert reason_of(end(math.nextafter(0.05, 0)), limits) is Reason.HELD
    assert reason_of(end(rotation=np.deg2rad(15)), limits) is Reason.TURNED
    assert reason_of(end(rotation=math.nextafter(np.deg2rad(15), 0)), limits) is Reason.HELD
    assert reason_of(end(force=0.0), limits) is Reason.HELD, "bench does not ask who touches"


def test_paper_asks_only_for_a_touch():
    limits = protocol("paper").limits
    assert reason_of(end(100.0, 3.0), limits) is Reason.HELD
    assert reason_of(end(force=0.0), limits) is Reason.LOST_CONTACT


def test_penetration_passes_at_exactly_its_limit():
    bench, paper = protocol("bench").limits, protocol("paper").limits
    assert not too_deep(Penetration(0.01, 0.01, 1.0), bench)
    assert too_deep(Penetration(math.nextafter(0.01, 1), 0.0, 0.0), bench)
    assert too_deep(Penetration(0.0, math.nextafter(0.01, 1), 0.0), bench)
    assert not too_deep(Penetration(0.0005, 0.0005, 0.0005), paper)
    assert too_deep(Penetration(0.0005, 0.0005, 0.00051), paper)


def test_depths_are_those_of_the_scene():
    scene = shipped_scene("bench")
    assert penetration(scene, palms(0.0, gap=-0.004)).hand_object == pytest.approx(0.004, abs=1e-5)
    assert penetration(scene, palms(0.0, gap=0.001)) == Penetration(0.0, 0.0, 0.0)
    through = palms(0.0, gap=-0.032)
    assert penetration(scene, through).hand_hand == pytest.approx(0.004, abs=1e-5)


@BOTH
def test_a_start_inside_the_object_fails_without_simulation(name):
    deep = GraspPoses(*[palms(0.0, gap=-0.011)] * 3)
    verdict = verdict_on(shipped_scene(name), deep)
    assert verdict.reason is Reason.PENETRATION
    assert np.isnan(verdict.displacement).all() and not verdict.held.any()


@pytest.mark.parametrize("part", HandPoses._fields)
@pytest.mark.parametrize("pose", GraspPoses._fields)
def test_a_pose_with_nan_is_a_verdict(pose, part):
    poses = squeeze()
    broken = getattr(getattr(poses, pose), part).copy()
    broken.flat[-1] = np.nan
    poses = poses._replace(**{pose: getattr(poses, pose)._replace(**{part: broken})})
    assert verdict_on(shipped_scene("bench"), poses).reason is Reason.NOT_FINITE


def test_a_simulation_that_blows_up_is_a_verdict(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    wild = protocol("bench")
    wild.hand.kp, wild.hand.force_limit, wild.hand.joint_damping = 1e16, np.inf, 0.0
    verdicts = verdicts_on(palms_scene(wild), [squeeze()] * 2, threads=2)
    assert [verdict.reason for verdict in verdicts] == [Reason.SIMULATION_FAILED] * 2
    assert not list(tmp_path.iterdir()), "MuJoCo writes MUJOCO_LOG.TXT into the current folder"


@pytest.mark.slow
def test_neither_order_nor_threads_change_a_verdict():
    grasps = [squeeze(bend) for bend in (0.1, OPEN, 0.02, 0.05)]
    scene = shipped_scene("bench")
    once = verdicts_on(scene, grasps)
    assert all(itertools.starmap(same, zip(once, verdicts_on(scene, grasps, threads=3), strict=True)))
    backwards = verdicts_on(scene, grasps[::-1])[::-1]
    assert all(itertools.starmap(same, zip(once, backwards, strict=True)))
    assert all(
        same(verdict, verdict_on(palms_scene(protocol("bench")), g)) for verdict, g in zip(once, grasps, strict=True)
    )


def test_a_direction_that_blows_up_fails_alone():
    limits = protocol("bench").limits
    ends = dict(enumerate([end()] * 2 + [PushEnd(np.nan, np.nan, np.zeros(2))] + [end()] * 3))
    verdict = verdict_of(Penetration(0.0, 0.0, 0.0), ends, limits)
    assert verdict.reason is Reason.SIMULATION_FAILED
    assert verdict.held.tolist() == [True, True, False, True, True, True]
    assert verdict_of(verdict.penetration, ends | {0: end(0.06)}, limits).reason is Reason.MOVED, "the first counts"


def test_the_reason_is_that_of_the_push_that_was_tried_first_and_columns_stay_in_place():
    ends = {4: end(0.01), 1: end(rotation=1.0), 0: end(0.07)}
    verdict = verdict_of(Penetration(0.0, 0.0, 0.0), ends, protocol("bench").limits)
    assert verdict.reason is Reason.TURNED
    np.testing.assert_array_equal(verdict.displacement, [0.07, 0.0, np.nan, np.nan, 0.01, np.nan])
    assert verdict.held.tolist() == [False, False, False, False, True, False]
    assert not verdict.bears_load.any(), "not all pushes were tried"


def test_pushes_come_in_their_order_and_end_with_the_first_that_is_lost(monkeypatch):
    pushed = []

    def fake(scene, data, squeezed, direction):
        pushed.append(int(np.argmax(DIRECTIONS @ direction)))
        return end(0.07 if direction[2] < 0 else 0.0)

    monkeypatch.setattr(simulate, "_push_object", fake)
    order = (3, 5, 0, 1, 2, 4)
    scene = palms_scene(protocol("bench"))
    early = simulate_grasp(scene, squeeze(), Pushes(order, until_lost=True))
    every = simulate_grasp(scene, squeeze(), Pushes(order))
    assert pushed == [3, 5, *order]
    assert early.reason is every.reason is Reason.MOVED
    assert np.flatnonzero(every.held).tolist() == [0, 1, 2, 3, 4] and np.flatnonzero(early.held).tolist() == [3]


HOLDS = end()


@pytest.mark.parametrize(
    ("first", "passes"),
    [
        (HOLDS, [0]),
        (end(0.095), [0, 2]),
        (end(0.11), [0]),
        (end(0.055, rotation=0.8), [0]),
        (end(0.0, rotation=0.3), [0, 2]),
        (PushEnd(np.nan, np.nan, np.zeros(2)), [0]),
    ],
    ids=["holds", "moves narrowly", "moves far", "moves narrowly and turns far", "turns narrowly", "blows up"],
)
def test_slip_is_undone_where_it_may_have_decided(monkeypatch, first, passes):
    used = []

    def fake(scene, data, squeezed, direction):
        used.append(scene.model.opt.noslip_iterations)
        return first if used[-1] == 0 and direction[1] > 0 else end()

    monkeypatch.setattr(simulate, "_push_object", fake)
    shipped = protocol("bench")
    near = palms_scene(replace(shipped, physics=replace(shipped.physics, noslip="near")))
    found = simulate_grasp(near, squeeze())
    assert list(dict.fromkeys(used)) == passes
    assert (found.reason is Reason.HELD) == (passes == [0, 2] or first is HOLDS)


def test_both_models_of_a_scene_differ_in_one_number():
    scene = palms_scene(protocol("bench"))
    assert (scene.model.opt.noslip_iterations, scene.slipping_model.opt.noslip_iterations) == (2, 0)
    scene.slipping_model.opt.noslip_iterations = 2
    assert scene.slipping_model.opt.timestep == scene.model.opt.timestep and scene.slipping_model.nv == scene.model.nv


def test_links_that_overlap_by_design_do_not_touch_and_fingers_do():
    left, right = shadow_hands().descriptions
    scene = build_scene(left, right, [box()], protocol("bench"))
    apart = HandPoses(np.array([[-1.0, 0, 0], [1, 0, 0]]), np.stack([np.eye(3)] * 2), np.stack([left.joint_mean] * 2))
    assert penetration(scene, apart) == Penetration(0.0, 0.0, 0.0)
    crossed = apart.joints.copy()
    crossed[1, left.joint_names.index("RFJ3")] = left.joint_lower[left.joint_names.index("RFJ3")]
    crossed[1, left.joint_names.index("MFJ3")] = left.joint_upper[left.joint_names.index("MFJ3")]
    assert penetration(scene, apart._replace(joints=crossed)).self_hand > 0.001
    fingers = {frozenset((f"{side}/rf_distal", f"{side}/lf_distal")) for side in ("left", "right")}
    names = scene.model.body
    touching = {
        frozenset(names(int(body)).name for body in scene.model.geom_bodyid[pair])
        for pairs in scene.self_pairs
        for pair in pairs
    }
    assert fingers <= touching, "in the middle of their ranges these two cross"


def test_poses_of_another_hand_are_refused():
    poses = squeeze()
    wide = poses.grasp._replace(joints=np.zeros((2, 22)))
    with pytest.raises(InputError, match=r"grasp.joints has shape \(2, 22\)"):
        verdict_on(shipped_scene("bench"), poses._replace(grasp=wide))
    skewed = poses.grasp._replace(rotation=2 * poses.grasp.rotation)
    with pytest.raises(InputError, match="grasp.rotation is no proper rotation"):
        verdict_on(shipped_scene("bench"), poses._replace(grasp=skewed))


def test_pieces_that_are_none_are_refused():
    hands = palm("left"), palm("right")
    with pytest.raises(InputError, match="no convex pieces"):
        build_scene(*hands, [], protocol("bench"))
    with pytest.raises(InputError, match="convex piece 1 of the object is flat"):
        build_scene(*hands, [box(), box() * [1, 1, 0]], protocol("bench"))
    with pytest.raises(InputError, match="convex piece 0"):
        build_scene(*hands, [np.full((8, 3), np.nan)], protocol("bench"))


def test_hands_with_other_joints_are_refused():
    with pytest.raises(InputError, match="use the mirror"):
        build_scene(palm("left"), replace(palm("right"), joint_names=("twist",)), [box()], protocol("bench"))


def test_a_protocol_that_cannot_be_simulated_is_refused():
    bench = protocol("bench")
    for section, change, message in (
        (bench, {"object_density": 1.0}, "object_density=1.0"),
        (bench.trial, {"waypoints": ["grasp", "lift"]}, "TrialConfig.waypoints=.*'lift'.*wanted a list of pre_grasp"),
        (bench.physics, {"friction": [1.0]}, "PhysicsConfig.friction=.*wanted 3 numbers"),
    ):
        with pytest.raises(InputError, match=message):
            replace(section, **change)


def test_interpolation_turns_at_constant_speed():
    start, last = palms(0.0), palms(0.2, TURNS[0], gap=0.01)
    middle = interpolate(start, last, 0.5)
    np.testing.assert_allclose(middle.joints, 0.1)
    np.testing.assert_allclose(middle.translation, (start.translation + last.translation) / 2)
    half = start.rotation.swapaxes(-1, -2) @ middle.rotation
    np.testing.assert_allclose(start.rotation @ half @ half, last.rotation, atol=1e-12)
    np.testing.assert_allclose(interpolate(start, last, 1.0).rotation, last.rotation, atol=1e-12)
