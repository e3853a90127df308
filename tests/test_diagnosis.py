"""Why a hand holds nothing: what is measured in closed form, and three defects that are named."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import quick_conf
import torch
import trimesh
from scene import shadow_hands
from verdicts import judged

import scale
from bimangrasp.diagnosis.causes import ADVICE, CAUSE_OF_REASON, Cause, Diagnosis, HandFigures
from bimangrasp.diagnosis.diagnose import Batch, applies_to, findings_of
from bimangrasp.diagnosis.hand_shape import closing_direction, reach_and_opening
from bimangrasp.diagnosis.measures import Measures, finger_touch, measures_of, object_size
from bimangrasp.hand_files.loading import load_hands
from bimangrasp.hands.description import HandDescription, mirror, mirror_direction
from bimangrasp.hands.model import HandModel
from bimangrasp.poses import Poses
from bimangrasp.validation.pose_rules import ObjectGrasps, motor_torques
from bimangrasp.validation.verdict import Reason
from scale.modes.diagnose_hand import diagnose_hand
from scale.settings.filters import Accept
from scale.settings.parsing import resolve_objects

RIGHT = shadow_hands().descriptions[1]
FIGURES = HandFigures(0.19, 0.19, 0.16, 0.28, "th_distal", 0.5, 1.0)
COMMAND = ("mode=hand", "hand=shadow", "experiment=firm", "kernels=plain", "object_code_list=[bowl]", "hand_test=8")


def scaled(hand: HandDescription, factor: float) -> HandDescription:
    """A hand of another size."""

    def moved(poses: np.ndarray) -> np.ndarray:
        poses = poses.copy()
        poses[..., :3, 3] *= factor
        return poses

    shapes = [
        replace(s, T_link_shape=moved(s.T_link_shape), size=s.size * factor, vertices=s.vertices * factor)
        for s in hand.primitives
    ]
    positions = {name: getattr(hand, name) * factor for name in ("candidate_position", "keypoint_position")}
    return replace(hand, T_parent_link=moved(hand.T_parent_link), primitives=tuple(shapes), **positions)


# ---- what is measured


@pytest.mark.parametrize("name", quick_conf.BUILT_IN)
def test_fingers_close_to_where_the_palm_looks(name):
    for hand in load_hands(quick_conf.load(f"hand={name}").hand):
        assert closing_direction(hand) @ hand.palm_normal > 0.9
        turned = replace(hand, palm_normal=-hand.palm_normal)
        assert np.array_equal(closing_direction(turned), closing_direction(hand)), "it believes no palm normal"


def test_mirrored_hands_close_to_mirrored_sides_and_are_as_large():
    left = mirror(RIGHT)
    assert np.allclose(closing_direction(left), mirror_direction(closing_direction(RIGHT)), atol=1e-12)
    assert reach_and_opening(left) == pytest.approx(reach_and_opening(RIGHT))


def test_reach_and_opening_are_lengths_of_the_hand():
    reach, opening = reach_and_opening(RIGHT)
    assert 0.15 < reach < 0.22, "from the palm's frame to a fingertip of a human hand"
    assert 0.15 < opening < 0.25, "its span"
    assert reach_and_opening(scaled(RIGHT, 1 / 3)) == pytest.approx((reach / 3, opening / 3))


def test_the_size_of_an_object_is_that_of_its_narrowest_and_longest_side():
    turned = trimesh.creation.box((0.1, 0.2, 0.3)).vertices
    assert object_size([turned], 2.0) == pytest.approx((0.2, 0.6))
    slanted = trimesh.transform_points(turned, trimesh.transformations.rotation_matrix(0.5, [1, 2, 3]))
    assert object_size([slanted], 1.0).width == pytest.approx(0.1)


def posed(hands: HandModel, rows: int) -> ObjectGrasps:
    """Grasps of a box of 10 cm, hands on both sides of it along y, palms toward it."""
    away = -np.stack([hand.palm_normal for hand in hands.descriptions])
    translation = np.tile(0.1 * away, (rows, 1, 1)) - 0.1 * np.array([0, 0, 1.0])
    joints = np.tile(np.stack([hand.joint_mean for hand in hands.descriptions]), (rows, 1, 1))
    poses = Poses(translation, np.tile(np.eye(3), (rows, 2, 1, 1)), joints)
    candidate = np.tile(np.array([5, 35, 65, 95, 125]), (rows, 2, 1))
    normal = np.tile(away[:, None], (rows, 1, 5, 1))
    return ObjectGrasps(poses, candidate, normal, np.ones(rows))


def test_torques_do_the_work_of_the_forces():
    hands, grasps = shadow_hands(), posed(shadow_hands(), 1)
    force = np.random.default_rng(3).normal(size=(1, 10, 3))
    torque = motor_torques(hands, grasps, force)[0]
    candidate = torch.as_tensor(grasps.candidate)
    for joint in range(0, hands.joint_count, 3):
        work = []
        for step in (-1e-6, 1e-6):
            poses = [torch.as_tensor(part).clone() for part in grasps.poses]
            poses[2][:, :, joint] += step
            points = hands.contact_points(hands.frames_from_root(poses[1], poses[0], poses[2]), candidate)
            work.append((points[0] * torch.as_tensor(force).reshape(2, 5, 3)).sum(dim=(1, 2)).numpy())
        assert torque[:, joint] == pytest.approx((work[1] - work[0]) / 2e-6, abs=1e-6)


def test_a_palm_before_a_box_faces_it_and_its_back_does_not():
    config, box = quick_conf.load(*COMMAND), trimesh.creation.box((0.1, 0.1, 0.1)).vertices
    for sign in (1, -1):
        hand = replace(RIGHT, palm_normal=sign * RIGHT.palm_normal)
        hands = HandModel(mirror(hand), hand, 1)
        grasps = posed(HandModel(mirror(RIGHT), RIGHT, 1), 2)
        found = measures_of(hands, [box], grasps, config.validation, config.poses)
        assert (found.closing_angle < 1.0).all()
        assert ((found.palm_angle < np.pi / 2) == (sign == 1)).all()


def test_contacts_on_both_sides_of_an_object_oppose_each_other():
    config, hands, grasps = quick_conf.load(*COMMAND), shadow_hands(), posed(shadow_hands(), 1)
    frames = hands.frames_from_root(*(torch.as_tensor(grasps.poses[part]) for part in (1, 0, 2)))
    points = hands.contact_points(frames, torch.as_tensor(grasps.candidate))[0, 1].numpy()
    grain = trimesh.creation.box((1e-3,) * 3).vertices + (points[0] + points[4]) / 2
    found = measures_of(hands, [grain], grasps, config.validation, config.poses)
    assert found.opposition[0, 1] == pytest.approx(np.pi, abs=0.1), "between finger and thumb"
    assert found.opposition[0, 0] < 1.5, "far from the other hand"
    assert found.gap[0, 1, [0, 4]] == pytest.approx(np.linalg.norm(points[0] - points[4]) / 2, abs=1e-3)


def test_joints_at_either_limit_are_found():
    config, hands, grasps = quick_conf.load(*COMMAND), shadow_hands(), posed(shadow_hands(), 1)
    lower, upper = hands.joint_lower.numpy(), hands.joint_upper.numpy()
    joints = np.stack([(lower + upper) / 2])
    joints[0, 0, 3], joints[0, 1, 5] = lower[0, 3], upper[1, 5] + 0.1
    grasps = grasps._replace(poses=grasps.poses._replace(joints=joints))
    box = trimesh.creation.box((0.1, 0.1, 0.1)).vertices
    found = measures_of(hands, [box], grasps, config.validation, config.poses)
    assert np.argwhere(found.at_limit[0]).tolist() == [[0, 3], [1, 5]]


def test_a_finger_touches_where_any_of_its_links_does():
    hands = shadow_hands()
    distance = np.full((2, 2, len(hands.names)), 0.01)
    distance[0, 1, hands.names.index("ff_middle")] = 0.001
    distance[:, :, hands.names.index("palm")] = -0.001
    touch = finger_touch(hands, judged([Reason.HELD] * 2, link_distance=distance))
    assert touch == {f"{name}_distal": 0.25 if name == "ff" else 0.0 for name in ("ff", "mf", "rf", "lf", "th")}
    distance[:] = np.nan
    assert set(finger_touch(hands, judged([Reason.NOT_FINITE] * 2, link_distance=distance)).values()) == {0.0}


# ---- which cause it is


def batch(reason: list[Reason], figures: HandFigures = FIGURES, verdict: dict | None = None, **measured) -> Batch:
    """Grasps in which nothing is wrong but what is given."""
    config, hands, count = quick_conf.load(*COMMAND), shadow_hands(), len(reason)
    nothing = {
        "palm_angle": np.zeros((count, 2)),
        "closing_angle": np.zeros((count, 2)),
        "opposition": np.full((count, 2), np.pi),
        "gap": np.zeros((count, 2, 5)),
        "at_limit": np.zeros((count, 2, hands.coordinate_count)),
        "residual": np.zeros(count),
        "torque": np.full((count, 2, hands.coordinate_count), 0.1),
    }
    measures = Measures(**nothing | measured)
    evaluation = judged(reason, **verdict or {})
    return Batch(hands, posed(hands, count), config.validation, config.poses, evaluation, measures, figures)


DEFECTS = {
    Cause.PALM: {"palm_angle": np.array([[0.0, 2.0], [0.0, 0.0]])},
    Cause.CONTACT: {"gap": np.array([np.full((2, 5), 0.02), np.zeros((2, 5))])},
    Cause.LIMITS: {"at_limit": np.array([np.ones((2, 22)), np.zeros((2, 22))])},
    Cause.BALANCE: {"residual": np.array([0.5, 0.0])},
    Cause.MOTORS: {"torque": np.array([np.full((2, 22), 30.0), np.full((2, 22), 0.1)])},
}


@pytest.mark.parametrize("cause", DEFECTS)
def test_a_grasp_with_a_defect_counts_under_it_and_another_under_its_verdict(cause):
    findings = findings_of(batch([Reason.MOVED, Reason.MOVED], **DEFECTS[cause]))
    assert [(finding.cause, finding.failed) for finding in findings] == [(cause, 1), (Cause.MOVED, 1)]


def test_the_side_to_which_fingers_close_must_face_the_object_as_well():
    found = applies_to(batch([Reason.MOVED], closing_angle=np.array([[0.0, 2.0]])))
    assert found[Cause.PALM].all()


def test_a_small_hand_that_presses_from_one_side_cannot_reach():
    small, one_side = FIGURES._replace(opening=0.06), np.array([[1.0, 3.1]])
    assert applies_to(batch([Reason.MOVED], small, opposition=one_side))[Cause.REACH].all()
    assert not applies_to(batch([Reason.MOVED], FIGURES, opposition=one_side))[Cause.REACH].any(), "it is large enough"
    assert not applies_to(batch([Reason.MOVED], small))[Cause.REACH].any(), "it holds from both sides"
    [finding] = findings_of(batch([Reason.MOVED], small, opposition=one_side))
    assert f"object.sizes=[{0.28 * 0.06 / 0.16:.3f}]" in finding.advice


@pytest.mark.parametrize(("depths", "cause"), [([0.02, 0.0, 0.0], Cause.DEPTH), ([0.0, 0.02, 0.0], Cause.HANDS)])
def test_what_stands_too_deep_is_told_apart(depths, cause):
    [finding] = findings_of(batch([Reason.PENETRATION], verdict={"start_penetration": np.array([depths])}))
    assert finding.cause is cause
    assert f"{1000 * depths[0]:.1f} mm deep in the object and {1000 * depths[1]:.1f} mm in each" in finding.measured


def test_every_failed_grasp_has_a_cause():
    reasons = [reason for reason in Reason if reason is not Reason.HELD]
    nan = {name: np.full((len(reasons), 6), np.nan) for name in ("displacement", "rotation")}
    findings = findings_of(batch(reasons, verdict=nan, residual=np.full(len(reasons), np.nan)))
    assert sum(finding.failed for finding in findings) == len(reasons)
    assert all(finding.advice and finding.measured for finding in findings)


def test_what_most_grasps_that_hold_have_is_said_and_what_few_have_is_not():
    held = [Reason.HELD] * 2
    assert not findings_of(batch(held, **DEFECTS[Cause.PALM]))
    [finding] = findings_of(batch(held, palm_angle=np.full((2, 2), 2.0)))
    assert (finding.failed, finding.held) == (0, 2)
    text = str(Diagnosis("mug", 2, 2, [finding], FIGURES))
    assert "mug: 2 of 2 grasps hold\n  2 hold all the same: a palm does not face" in text and "too)" not in text


def test_the_palm_normal_to_try_is_the_opposite_of_the_one_in_use():
    hand = replace(RIGHT, palm_normal=-RIGHT.palm_normal)
    given = batch([Reason.MOVED], palm_angle=np.full((1, 2), 2.0))
    [finding] = findings_of(replace(given, hands=HandModel(mirror(hand), hand, 1)))
    assert finding.advice.startswith("'hand.palm_normal=[0,-1,0]' where the file has the right hand, [0,1,0] where")
    [usual] = findings_of(given)
    assert usual.advice == ADVICE[Cause.PALM]


def test_every_reason_of_a_filter_has_a_cause():
    filters = [
        quick_conf.load("experiment=firm", f"filter={name}").filter for name in ("energy", "firm", "physics", "none")
    ]
    assert set(CAUSE_OF_REASON) == {reason for config in filters for reason in Accept(config).reasons}


def causes_of(with_it: str, without: str) -> list[tuple[Cause, int]]:
    """The findings of grasps with palms that look away, and without; h holds, m moved."""
    reasons = [Reason.HELD if letter == "h" else Reason.MOVED for letter in with_it + without]
    angle = np.repeat([2.0, 0.0], [len(with_it), len(without)])
    return [(f.cause, f.failed) for f in findings_of(batch(reasons, palm_angle=np.stack([angle, angle], axis=1)))]


def test_a_cause_without_which_grasps_fail_no_less_often_explains_no_failure():
    assert causes_of("hhhmm", "hhmm") == [(Cause.MOVED, 4)]
    assert causes_of("hhhmm", "hhhhm") == [(Cause.PALM, 2), (Cause.MOVED, 1)], "it fails more often with it"
    assert causes_of("hhhmm", "mmm") == [(Cause.MOVED, 3), (Cause.PALM, 2)], "too few lack it"
    assert causes_of("hhhmm", "") == [(Cause.PALM, 2)], "nothing can be compared"
    assert causes_of("hhhmm" * 3, "hhmm" * 9)[0] == (Cause.MOVED, 24), "whatever the share of each in the sample"


# ---- hands with a defect, from the optimizer to the answer


def answer(hand: HandDescription, *overrides: str) -> Diagnosis:
    config = quick_conf.load(*COMMAND, "num_iterations=200", *overrides)
    objects = resolve_objects(config.object_root, config.object_code_list)
    [found] = diagnose_hand(config, (mirror(hand), hand), objects)
    return found


PUSHED = "validation.trial.push_acceleration=100"
"""Hard enough that a hand with a defect lets go."""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("hand", "cause", "advice"),
    [
        (scaled(RIGHT, 1 / 3), Cause.REACH, "object.sizes="),
        (replace(RIGHT, palm_normal=-RIGHT.palm_normal), Cause.PALM, "hand.palm_normal=[0,-1,0]"),
    ],
    ids=["too small", "palm reversed"],
)
def test_the_defect_of_a_hand_is_named_first(hand, cause, advice):
    found = answer(hand, PUSHED)
    assert found.held < found.tried == 8
    assert found.findings[0].cause is cause and found.findings[0].failed > (found.tried - found.held) / 2
    assert advice in found.findings[0].advice


@pytest.mark.slow
def test_weak_motors_are_named_by_the_command_and_a_sound_hand_has_no_defect(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("scale.modes.check_hand.draw", lambda *_: np.zeros((2, 3, 3), np.uint8))
    weak = quick_conf.load(*COMMAND, "num_iterations=200", "validation.hand.force_limit=0.01")
    report = scale.check_hand(weak)
    [found] = report.diagnoses
    assert found.held < found.tried and found.findings[0].cause is Cause.MOTORS
    assert "of which validation.hand.force_limit=0.01 leaves" in str(report)
    sound = answer(RIGHT)
    assert sound.held > found.held
    assert not {finding.cause for finding in sound.findings} & {Cause.PALM, Cause.REACH, Cause.MOTORS}


@pytest.mark.slow
def test_the_report_of_a_run_that_falls_short_names_the_defect(tmp_path):
    words = ("experiment=firm", "filter=physics", "object_code_list=[bowl]", "gpus=[cpu]", "num_iterations=200")
    config = quick_conf.load(
        "mode=scale", *words, "target_count_per_object=8", "round_batch_size=8", "max_rounds=1",
        "validation.hand.force_limit=0.01", output_root=tmp_path,
    )  # fmt: skip
    assert scale.run(config).exit_code == 3
    head = str(scale.write_report(replace(config, mode="report")))
    assert "measured: the motors are too weak for the squeeze; the squeeze asks for up to" in head
    assert "a hand reaches" in head and "weakest finger" in head
