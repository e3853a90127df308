"""All grasps of an object at once: what one grasp says alone, distances in closed form, and what must not end a run."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import quick_conf
from palms import CLOSED, HALF, box, palm, palms, protocol, shipped_scene, squeeze, verdict_on

from bimangrasp.errors import InputError
from bimangrasp.hands.model import HandModel
from bimangrasp.poses import Poses
from bimangrasp.validation import simulate
from bimangrasp.validation.config import PoseConfig
from bimangrasp.validation.evaluate import MAX_LINK_DISTANCE, NO_CHOICE, Evaluation, Simulations, evaluate_grasps
from bimangrasp.validation.pose_rules import NOT_BALANCED, ObjectGrasps
from bimangrasp.validation.scene import HandPoses
from bimangrasp.validation.verdict import DIRECTIONS, Reason

BOTH = pytest.mark.parametrize("name", ["bench", "paper"])
RULE = replace(quick_conf.load().poses, rule="palm", opening=CLOSED, retreat=0.0)
FORCES = replace(quick_conf.load().poses, rule="forces", openings=[[0.0, 0.0], [0.0, 0.002], [0.0, 0.0035]])
MIXED = [palms(0.0), palms(0.0, gap=0.02), palms(0.0, gap=-0.02), palms(0.02), palms(0.0, gap=-0.001)]
"""Grasps that hold, miss the box, and start too deep in it."""


@cache
def hands() -> HandModel:
    """The palms as the optimizer has them."""
    return HandModel(palm("left"), palm("right"), surface_points=8)


def subject(grasps: list[HandPoses], scale: list[float] | None = None) -> ObjectGrasps:
    """These grasps, with the middle of each palm as its contact."""
    poses = Poses(*(np.stack(part) for part in zip(*grasps, strict=True)))
    normal = np.array([[[-1.0, 0, 0]], [[1.0, 0, 0]]])
    count = len(grasps)
    return ObjectGrasps(
        poses,
        np.zeros((count, 2, 1), np.int64),
        np.repeat(normal[None], count, axis=0),
        np.array(scale) if scale else np.ones(count),
    )


def judged(
    given: ObjectGrasps, name: str = "bench", threads: int = 1, rule: PoseConfig = RULE, **limits: object
) -> Evaluation:
    return evaluate_grasps(hands(), [box()], given, protocol(name, **limits), rule, Simulations(threads))


def rows(of: Evaluation, chosen: list[int]) -> Evaluation:
    return Evaluation(tuple(stage.select(np.array(chosen)) for stage in of.stages), *(part[chosen] for part in of[1:]))


def assert_same_bits(first: Evaluation, second: Evaluation) -> None:
    pairs = zip([*first.stages, first[1:]], [*second.stages, second[1:]], strict=True)
    for one, other in pairs:
        for a, b in zip(one, other, strict=True):
            assert a.dtype == b.dtype
            np.testing.assert_array_equal(a, b)


@pytest.mark.slow
@BOTH
def test_a_grasp_is_judged_as_it_is_alone(name):
    found = judged(subject(MIXED), name)
    alone = verdict_on(shipped_scene(name), squeeze())
    assert found.reason[0] == alone.reason == Reason.HELD
    np.testing.assert_array_equal(found.start_penetration[0], alone.penetration)
    for part in ("displacement", "rotation", "held", "bears_load"):
        np.testing.assert_array_equal(getattr(found, part)[0], getattr(alone, part))
    lost = Reason.MOVED if name == "bench" else Reason.LOST_CONTACT
    assert found.reason[:3].tolist() == [Reason.HELD, lost, Reason.PENETRATION]
    assert not found.held[1].all() and np.isnan(found.displacement[2]).all()


def test_the_stages_are_open_on_the_object_and_pressed():
    stages = judged(subject([palms(0.0)])).stages
    for stage, wanted in zip(stages, squeeze(), strict=True):
        for found, part in zip(stage, wanted, strict=True):
            np.testing.assert_allclose(found[0], part, atol=1e-12)


@pytest.mark.slow
def test_links_have_the_distance_of_the_gap():
    gaps = [0.015, 0.003, 0.0, -0.004]
    found = judged(subject([palms(0.0, gap=gap) for gap in gaps])).link_distance
    np.testing.assert_allclose(found[:, :, 1], np.repeat(np.array(gaps)[:, None], 2, axis=1), atol=1e-6)
    assert (found[:, :, 0] == MAX_LINK_DISTANCE).all(), "the root has no shape"


def test_links_are_far_from_where_they_are_looked_for():
    gaps = [MAX_LINK_DISTANCE - 1e-4, MAX_LINK_DISTANCE + 1e-4, 0.5]
    found = judged(subject([palms(0.0, gap=gap) for gap in gaps])).link_distance[:, :, 1]
    assert (found[0] < MAX_LINK_DISTANCE).all() and (found[1:] == MAX_LINK_DISTANCE).all()


def test_the_nearest_of_the_pieces_counts():
    near, inside = box(), 0.8 * box()
    for pieces in ([inside, near], [near, inside]):
        found = evaluate_grasps(
            hands(), pieces, subject([palms(0.0, gap=0.003)]), protocol("bench"), RULE, Simulations()
        )
        np.testing.assert_allclose(found.link_distance[0, :, 1], 0.003, atol=1e-6)


def test_a_small_piece_beside_a_corner_is_found():
    piece = box() / 15 + [-HALF - 0.005, 0.046, 0.046]  # 4 mm beyond two edges of the left plate
    found = evaluate_grasps(
        hands(), [piece], subject([palms(0.0)]), protocol("bench"), RULE, Simulations()
    ).link_distance
    assert found[0, :, 1] == pytest.approx([0.004 * np.sqrt(2), MAX_LINK_DISTANCE], abs=1e-6)


def test_penetration_is_that_of_the_start_and_that_of_the_grasp():
    deep = subject([palms(0.0, gap=-0.004)])
    opened = judged(deep, rule=replace(RULE, rule="none", retreat=0.003))
    np.testing.assert_allclose(opened.start_penetration, [[0.001, 0, 0]], atol=1e-6)
    np.testing.assert_allclose(opened.penetration, [[0.004, 0, 0]], atol=1e-6)
    paper = judged(deep, "paper", rule=replace(RULE, rule="none", retreat=0.003))
    np.testing.assert_allclose(paper.start_penetration, [[0.004, 0, 0]], atol=1e-6)


@pytest.mark.slow
def test_each_grasp_meets_the_object_at_its_own_size():
    grasps = [palms(0.0), palms(0.0), palms(0.0, gap=HALF), palms(0.0, gap=HALF)]
    found = judged(subject(grasps, [1.0, 1.8, 2.0, 1.0]))
    wanted = [Reason.HELD, Reason.PENETRATION, Reason.HELD, Reason.MOVED]
    assert found.reason.tolist() == wanted
    np.testing.assert_allclose(found.penetration[:, 0], [0, 0.8 * HALF, 0, 0], atol=1e-6)


@pytest.mark.slow
@BOTH
@pytest.mark.parametrize("rule", [RULE, FORCES], ids=lambda rule: rule.rule)
def test_neither_threads_nor_order_change_a_bit(name, rule):
    scales = [1.0, 1.0, 1.0, 1.01, 1.0]
    once = judged(subject(MIXED, scales), name, rule=rule)
    assert_same_bits(once, judged(subject(MIXED, scales), name, threads=3, rule=rule))
    order = [3, 0, 4, 2, 1]
    turned = judged(subject([MIXED[k] for k in order], [scales[k] for k in order]), name, rule=rule)
    assert_same_bits(rows(once, order), turned)


@pytest.mark.slow
def test_each_grasp_is_told_as_its_simulation_begins():
    seen: list[int] = []
    evaluate_grasps(hands(), [box()], subject(MIXED), protocol("bench"), RULE, Simulations(on_grasp=seen.append))
    assert seen == [0, 1, 2, 3, 4]


@pytest.mark.slow
def test_a_deadly_grasp_is_not_simulated_and_the_others_do_not_notice():
    seen: list[int] = []
    once = evaluate_grasps(hands(), [box()], subject(MIXED), protocol("bench"), RULE, Simulations())
    found = evaluate_grasps(
        hands(),
        [box()],
        subject(MIXED),
        protocol("bench"),
        RULE,
        Simulations(on_grasp=seen.append, skipped_rows=(1, 3)),
    )
    assert seen == [0, 2, 4] and (found.reason[[1, 3]] == Reason.SIMULATION_FAILED).all()
    assert np.isnan(found.penetration[[1, 3]]).all() and not found.held[[1, 3]].any()
    assert_same_bits(rows(once, [0, 2, 4]), rows(found, [0, 2, 4]))


@pytest.mark.slow
@pytest.mark.parametrize("part", ["translation", "rotation", "joints", "normal"])
def test_a_grasp_with_nan_is_counted_and_the_others_do_not_notice(part):
    rule = replace(RULE, rule="contacts")
    given = subject([MIXED[0], MIXED[0], MIXED[1]])
    broken = {name: np.array(getattr(given.poses, name)) for name in Poses._fields} | {"normal": given.normal.copy()}
    broken[part][1, 1].flat[0] = np.nan
    normal = broken.pop("normal")
    found = judged(given._replace(poses=Poses(**broken), normal=normal), rule=rule)
    assert found.reason.tolist() == [Reason.HELD, Reason.NOT_FINITE, Reason.MOVED]
    for column in (found.start_penetration, found.penetration, found.link_distance, found.displacement):
        assert np.isnan(column[1]).all()
    assert not found.held[1].any() and not found.bears_load[1].any()
    assert_same_bits(rows(found, [0, 2]), rows(judged(given, rule=rule), [0, 2]))


@pytest.mark.parametrize("rule", [RULE, FORCES], ids=lambda rule: rule.rule)
@pytest.mark.parametrize("far", [1e20, 1e38])
def test_a_grasp_at_the_end_of_the_world_is_counted(far, rule):
    lost = palms(0.0)._replace(translation=np.full((2, 3), far))
    found = judged(subject([lost, palms(0.0)]), rule=rule)
    assert found.reason.tolist() == [Reason.SIMULATION_FAILED, Reason.HELD]


def test_a_simulation_that_blows_up_is_counted(monkeypatch):
    step, pushed = simulate._step, []

    def breaks(scene, data, steps):
        """The way to the squeeze works, the third direction does not."""
        step(scene, data, steps)
        direction = data.xfrc_applied[scene.object_body, :3]
        if direction[1] > 0:
            pushed.append(direction.copy())
            data.qpos[scene.object_qpos] = np.nan
            step(scene, data, 1)

    monkeypatch.setattr(simulate, "_step", breaks)
    found = judged(subject([palms(0.0), palms(0.0, gap=-0.02)]))
    assert pushed and found.reason.tolist() == [Reason.SIMULATION_FAILED, Reason.PENETRATION]
    third = int(np.argmax(DIRECTIONS[:, 1]))
    assert np.flatnonzero(np.isnan(found.displacement[0])).tolist() == [third]
    assert np.flatnonzero(~found.held[0]).tolist() == [third]


def test_a_protocol_that_blows_up_is_counted_for_all(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    wild = protocol("bench")
    wild.hand.kp, wild.hand.force_limit, wild.hand.joint_damping = 1e16, np.inf, 0.0
    found = evaluate_grasps(hands(), [box()], subject([palms(0.0)] * 3), wild, RULE, Simulations(2))
    assert found.reason.tolist() == [Reason.SIMULATION_FAILED] * 3
    assert np.isfinite(found.penetration).all() and np.isnan(found.displacement).all()
    assert not list(tmp_path.iterdir()), "MuJoCo writes MUJOCO_LOG.TXT into the current folder"


@pytest.mark.parametrize(
    ("gap", "opening", "depth"),
    [(0.0, 0, 0.0), (0.005, 0, 0.0), (-0.004, 2, 0.0005), (-0.002, 1, 0.0), (-0.02, 2, 0.0165)],
)
def test_the_first_free_opening_is_taken_else_the_least_deep(gap, opening, depth):
    rule = replace(FORCES, free_depth=0.001)
    found = judged(subject([palms(0.0, gap=gap)]), rule=rule, hand_object_penetration=0.0)
    assert found.opening.tolist() == [opening]
    np.testing.assert_allclose(found.start_penetration[0, 0], depth, atol=1e-6)
    pre_grasp, grasp, _ = found.stages
    retreat = np.abs(pre_grasp.translation - grasp.translation)[0, :, 0]
    np.testing.assert_allclose(retreat, rule.openings[opening][1], atol=1e-9)


def test_balanced_forces_hold_and_other_rules_have_neither_opening_nor_residual():
    found = judged(subject([palms(0.0)]), rule=FORCES)
    assert found.reason.tolist() == [Reason.HELD] and found.bears_load.all() and 0 <= found.residual[0] < 1e-6
    other = judged(subject([palms(0.0)]))
    assert other.opening.tolist() == [NO_CHOICE] and other.residual.tolist() == [NOT_BALANCED]


@BOTH
def test_a_simulation_that_ends_with_the_first_lost_push_says_the_same(name):
    given = subject([palms(0.0), palms(0.0, gap=0.02), palms(0.0, gap=-0.02)])
    every = judged(given, name)
    early = evaluate_grasps(hands(), [box()], given, protocol(name), RULE, Simulations(until_lost=True))
    assert early.reason.tolist() == every.reason.tolist() and early.reason[0] == Reason.HELD
    tried = np.isfinite(early.displacement)
    assert tried[0].all() and not tried[2].any() and tried[1].sum() == 1 + early.held[1].sum() < 6
    np.testing.assert_array_equal(early.displacement[tried], every.displacement[tried])
    np.testing.assert_array_equal(early.held[tried], every.held[tried])
    assert_same_bits(rows(early, [0, 2]), rows(every, [0, 2]))


def test_forces_that_cannot_balance_are_not_simulated_where_they_are_rejected():
    sideways = palms(0.0)
    beside = sideways._replace(translation=sideways.translation + [[0, 0, 0], [-4 * HALF, 0, 0]])
    given = subject([palms(0.0), beside])
    every = judged(given, rule=FORCES)
    assert every.residual[1] > 0.5 and every.reason[1] not in (Reason.HELD, Reason.UNBALANCED)
    strict = Simulations(largest_residual=0.3)
    found = evaluate_grasps(hands(), [box()], given, protocol("bench"), FORCES, strict)
    assert found.reason.tolist() == [Reason.HELD, Reason.UNBALANCED]
    assert np.isnan(found.displacement[1]).all() and found.residual[1] == every.residual[1]
    assert_same_bits(rows(found, [0]), rows(every, [0]))


@pytest.mark.parametrize("rule", [RULE, FORCES], ids=lambda rule: rule.rule)
def test_no_grasps_are_no_rows(rule):
    given = subject(MIXED)
    found = judged(ObjectGrasps(given.poses.select(slice(0)), *(part[:0] for part in given[1:])), rule=rule)
    shapes = [part.shape for part in found[1:]]
    assert shapes == [(0,), (0,), (0,), (0, 3), (0, 3), (0, 2, 2), (0, 6), (0, 6), (0, 6), (0, 2)]


def test_grasps_of_another_hand_are_refused():
    skewed = palms(0.0)._replace(rotation=2 * palms(0.0).rotation)
    with pytest.raises(InputError, match="no proper rotation"):
        judged(subject([skewed]))
