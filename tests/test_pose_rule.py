"""Pre-grasp and squeeze: where joints and wrists go."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import quick_conf
import torch
from palms import box, palm, palms
from scene import built_in_hands, grasps_near

from bimangrasp.geometry.rotation import rot6d_to_matrix
from bimangrasp.hands.model import HandModel
from bimangrasp.poses import Poses
from bimangrasp.validation import pose_rules as pregrasp
from bimangrasp.validation.piece_surface import PieceSurface
from bimangrasp.validation.pose_rules import ObjectGrasps, stages_of

F64 = torch.float64
CONTACTS = replace(quick_conf.load().poses, rule="contacts", damping=0.005)
DYNAMICS = quick_conf.load().validation.hand


def grasp(count=6, seed=0, hand="shadow"):
    """Grasps with joints in the middle of their ranges, and any unit normals."""
    hands = built_in_hands(hand, F64)
    given = grasps_near(hands, count, seed=seed)
    middle = ((hands.joint_lower + hands.joint_upper) / 2).expand(count, 2, -1)
    normal = torch.randn((count, 2, 4, 3), generator=torch.Generator().manual_seed(seed), dtype=F64)
    normal = normal / normal.norm(dim=-1, keepdim=True)
    return hands, (given.translation, rot6d_to_matrix(given.rotation), middle, given.candidate, normal)


def staged(hands, translation, rotation, joints, candidate, normal, config):
    """The three stages as one table of tensors each, the stage axis behind that of the grasps."""
    given = Poses(translation.numpy(), rotation.numpy(), joints.numpy())
    grasps = ObjectGrasps(given, candidate.numpy(), normal.numpy(), np.ones(len(joints)))
    found = stages_of(hands, grasps, config, DYNAMICS)
    stages = (found.pre_grasps[0], found.grasp, found.squeeze)
    return SimpleNamespace(
        **{name: torch.stack([torch.as_tensor(getattr(s, name)) for s in stages], 1) for name in Poses._fields}
    )


def contacts(hands, translation, rotation, joints, candidate):
    return hands.contact_points(hands.frames_from_root(rotation, translation, joints), candidate)


@pytest.mark.slow
@pytest.mark.parametrize("hand", quick_conf.BUILT_IN)
def test_the_jacobian_is_the_derivative_of_the_contacts(hand):
    hands, (translation, rotation, joints, candidate, _) = grasp(2, hand=hand)
    frames = hands.frames_from_root(rotation, translation, joints)
    link = hands.candidate_link[torch.arange(2)[:, None], candidate]
    ours = pregrasp._jacobian(hands, frames, contacts(hands, translation, rotation, joints, candidate), link)
    exact = torch.autograd.functional.jacobian(lambda q: contacts(hands, translation, rotation, q, candidate), joints)
    for b in range(2):
        for side in range(2):
            torch.testing.assert_close(ours[b, side], exact[b, side, :, :, b, side])
            assert exact[b, side, :, :, b, side].abs().max() > 0.01


def test_contacts_move_outward_by_the_clearance():
    hands, (translation, rotation, joints, candidate, normal) = grasp()
    candidate[:] = torch.tensor([5, 40, 75, 110])  # one on each of four fingers: they move by themselves
    names = [hands.names[link] for link in hands.candidate_link[0, candidate[0, 0]]]
    assert len({name[:2] for name in names}) == 4, names
    config = replace(CONTACTS, clearance=1e-5, damping=1e-9, retreat=0.0)
    found = staged(hands, translation, rotation, joints, candidate, normal, config)
    moved = [
        contacts(hands, found.translation[:, s], found.rotation[:, s], found.joints[:, s], candidate) for s in (0, 1)
    ]
    outward = ((moved[0] - moved[1]) * normal).sum(-1)
    movable = outward > 0.5e-5  # a finger cannot move along its own bones
    torch.testing.assert_close(outward[movable], torch.full_like(outward[movable], 1e-5), rtol=1e-2, atol=0)
    assert movable.float().mean() > 0.9


@pytest.mark.parametrize("rule", ["contacts", "palm", "none"])
def test_the_squeeze_mirrors_the_pre_grasp_and_the_wrist_draws_back(rule):
    hands, given = grasp()
    config = replace(CONTACTS, rule=rule, squeeze=0.5, retreat=0.02)
    found = staged(hands, *given, config)
    assert torch.equal(found.joints[:, 1], given[2]) and torch.equal(found.translation[:, 1], given[0])
    inside = (found.joints[:, 0] > hands.joint_lower) & (found.joints[:, 0] < hands.joint_upper)
    opened = (found.joints[:, 0] - found.joints[:, 1])[inside]
    torch.testing.assert_close((found.joints[:, 2] - found.joints[:, 1])[inside], -opened / 2)
    assert (opened.abs().max() > 0.05) == (rule != "none")
    palm = (given[1] @ hands.palm_normal[..., None]).squeeze(-1)
    torch.testing.assert_close(found.translation[:, 0] - given[0], -0.02 * palm)
    assert torch.equal(found.translation[:, 2], given[0]) and torch.equal(found.rotation[:, 2], given[1])


@pytest.mark.parametrize("hand", quick_conf.BUILT_IN)
def test_the_palm_rule_draws_the_fingers_away_from_what_they_hold(hand):
    hands, (translation, rotation, joints, candidate, normal) = grasp(hand=hand)
    every = torch.arange(hands.candidate_count).expand(len(joints), 2, -1)
    found = staged(hands, translation, rotation, joints, candidate, normal, replace(CONTACTS, rule="palm", retreat=0.0))
    before, after = (contacts(hands, translation, rotation, found.joints[:, s], every) for s in (1, 0))
    palm = (rotation @ hands.palm_normal[..., None]).squeeze(-1)[:, :, None]
    assert ((after - before) * palm).sum(-1).mean() < -0.002
    spreading = ("FFJ3", "MFJ3", "RFJ3", "LFJ3", "index_0", "middle_0", "ring_0")
    spread = [n for n, name in enumerate(hands.joint_names) if name in spreading]
    assert torch.equal(found.joints[:, 0, :, spread], joints[..., spread])


def test_joints_stay_within_their_limits():
    hands, (translation, rotation, joints, candidate, normal) = grasp()
    found = staged(hands, translation, rotation, joints + 5, candidate, normal, replace(CONTACTS, squeeze=30.0))
    assert (found.joints <= hands.joint_upper).all() and (found.joints >= hands.joint_lower).all()


def test_a_hand_of_one_joint_opens():
    hands = HandModel(palm("left"), palm("right"), surface_points=8)
    assert pregrasp.closing_coordinates(hands).tolist() == [[1], [1]]


# ---- rule "forces"

FORCES = replace(quick_conf.load().poses, rule="forces")
MIRROR = np.diag([1.0, -1.0, 1.0])


def forces_on_box(gap=0.0, rule=FORCES, dynamics=DYNAMICS, bend=0.0, hands=None):
    """The stages of two palms on a box, each with one contact, 10 cm from its hinge."""
    hands = hands or HandModel(palm("left"), palm("right"), surface_points=8)
    poses = palms(0.0, gap=gap)
    given = Poses(*(part[None] for part in poses._replace(joints=np.full((2, 1), bend))))
    normal = np.array([[[[-1.0, 0, 0]], [[1.0, 0, 0]]]])
    grasps = ObjectGrasps(given, np.zeros((1, 2, 1), np.int64), normal, np.ones(1))
    return stages_of(hands, grasps, rule, dynamics, PieceSurface([box()]))


def test_the_squeeze_turns_a_joint_by_torque_over_gain():
    """Of 40 N each palm presses with 20, 0.1 m from its hinge: 2 N m at 5 N m/rad."""
    found = forces_on_box()
    np.testing.assert_allclose(found.squeeze.joints, np.full((1, 2, 1), 0.4), atol=1e-6)
    assert found.residual[0] < 1e-6


def test_no_joint_presses_with_more_than_its_actuator_can():
    strong = forces_on_box(rule=replace(FORCES, total_force=200.0))
    np.testing.assert_allclose(strong.squeeze.joints, DYNAMICS.force_limit / DYNAMICS.kp, atol=1e-6)
    unlimited = forces_on_box(rule=replace(FORCES, total_force=200.0), dynamics=replace(DYNAMICS, force_limit=np.inf))
    np.testing.assert_allclose(unlimited.squeeze.joints, 2.0, atol=1e-5)


@pytest.mark.parametrize(("gap", "closed"), [(0.005, 0.005), (-0.004, -0.004), (0.1, 0.03), (-0.02, -0.02)])
def test_the_squeeze_closes_gaps_damped(gap, closed):
    rule = replace(FORCES, total_force=0.0)
    turn = 0.1 * closed / (0.1**2 + rule.closing_damping**2)
    np.testing.assert_allclose(forces_on_box(gap, rule).squeeze.joints, turn, atol=1e-9)


def test_a_floating_root_goes_beyond_as_far_as_it_yields_and_a_fixed_one_stays():
    found = forces_on_box(rule=replace(FORCES, root_compliance=1e-3))
    moved = found.squeeze.translation - found.grasp.translation
    np.testing.assert_allclose(moved, [[[0.02, 0, 0], [-0.02, 0, 0]]], atol=1e-6)
    fixed = forces_on_box(dynamics=replace(DYNAMICS, floating=False))
    assert (fixed.squeeze.translation == fixed.grasp.translation).all()


def test_joints_that_move_no_contact_stay():
    at_root = [replace(palm(side), candidate_link=np.array([0])) for side in ("left", "right")]
    found = forces_on_box(bend=0.2, hands=HandModel(*at_root, surface_points=8))
    np.testing.assert_array_equal(found.squeeze.joints, found.grasp.joints)
    assert np.isfinite(found.squeeze.translation).all()


def test_joints_at_their_limits_press_beyond_them():
    stiff = [replace(palm(side), joint_upper=np.array([0.0])) for side in ("left", "right")]
    found = forces_on_box(hands=HandModel(*stiff, surface_points=8))
    assert (found.grasp.joints == 0).all()
    np.testing.assert_allclose(found.squeeze.joints, 0.4, atol=1e-6)


def test_each_opening_has_its_clearance_and_retreat():
    rule = replace(FORCES, openings=[[0.01, 0.01], [0.0, 0.03]])
    hands, (translation, rotation, joints, candidate, normal) = grasp()
    given = Poses(translation.numpy(), rotation.numpy(), joints.numpy())
    grasps = ObjectGrasps(given, candidate.numpy(), normal.numpy(), np.ones(len(joints)))
    found = stages_of(hands, grasps, rule, DYNAMICS).pre_grasps
    for pre_grasp, (clearance, retreat) in zip(found, rule.openings, strict=True):
        alone = replace(rule, rule="contacts", clearance=clearance, retreat=retreat)
        (wanted,) = stages_of(hands, grasps, alone, DYNAMICS).pre_grasps
        for ours, theirs in zip(pre_grasp, wanted, strict=True):
            np.testing.assert_array_equal(ours, theirs)
    np.testing.assert_array_equal(found[1].joints, given.joints)


def test_without_a_surface_contacts_are_on_it():
    hands = HandModel(palm("left"), palm("right"), surface_points=8)
    given = Poses(*(part[None] for part in palms(0.0)))
    normal = np.array([[[[-1.0, 0, 0]], [[1.0, 0, 0]]]])
    grasps = ObjectGrasps(given, np.zeros((1, 2, 1), np.int64), normal, np.ones(1))
    for ours, theirs in zip(stages_of(hands, grasps, FORCES, DYNAMICS).squeeze, forces_on_box().squeeze, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-9)


def test_mirrored_grasps_have_mirrored_stages():
    hands, (translation, rotation, joints, candidate, normal) = grasp(4)
    shape = box() * [2.0, 1.5, 1.0] + [0.0, 0.01, 0.0]
    other = [1, 0]
    given = Poses(translation.numpy(), rotation.numpy(), joints.numpy() + 0.1 * normal.numpy()[:, :, :1, 0])
    there = Poses(
        given.translation[:, other] @ MIRROR, MIRROR @ given.rotation[:, other] @ MIRROR, given.joints[:, other]
    )
    ours = ObjectGrasps(given, candidate.numpy(), normal.numpy(), np.ones(4))
    mirrored = ObjectGrasps(there, ours.candidate[:, other], ours.normal[:, other] @ MIRROR, np.ones(4))
    found = stages_of(hands, ours, FORCES, DYNAMICS, PieceSurface([shape]))
    reflected = stages_of(hands, mirrored, FORCES, DYNAMICS, PieceSurface([shape @ MIRROR]))
    for one, two in zip((*found.pre_grasps, *found[1:3]), (*reflected.pre_grasps, *reflected[1:3]), strict=True):
        np.testing.assert_allclose(two.translation[:, other] @ MIRROR, one.translation, atol=1e-6)
        np.testing.assert_allclose(MIRROR @ two.rotation[:, other] @ MIRROR, one.rotation, atol=1e-9)
        np.testing.assert_allclose(two.joints[:, other], one.joints, atol=1e-5)
    np.testing.assert_allclose(reflected.residual, found.residual, atol=1e-6)
    assert np.abs(found.squeeze.joints - found.grasp.joints).max() > 0.05


def test_a_grasp_with_nan_keeps_it_and_spoils_no_other():
    hands, (translation, rotation, joints, candidate, normal) = grasp(3)
    broken = joints.clone()
    broken[1, 0] = torch.nan
    ours, theirs = (
        stages_of(
            hands,
            ObjectGrasps(
                Poses(translation.numpy(), rotation.numpy(), values.numpy()),
                candidate.numpy(),
                normal.numpy(),
                np.ones(3),
            ),
            FORCES,
            DYNAMICS,
            PieceSurface([box()]),
        )
        for values in (joints, broken)
    )
    assert np.isnan(theirs.residual[1]) and np.isnan(theirs.squeeze.joints[1]).any()
    np.testing.assert_array_equal(theirs.squeeze.joints[[0, 2]], ours.squeeze.joints[[0, 2]])
