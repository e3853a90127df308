"""Pre-grasp and squeeze: where joints and wrists go."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
import quick_conf
import torch
from palms import palm
from scene import built_in_hands, grasps_near

from bimangrasp.geometry.rotation import rot6d_to_matrix
from bimangrasp.hands.model import HandModel
from bimangrasp.poses import Poses
from bimangrasp.validation import pose_rules as pregrasp
from bimangrasp.validation.config import PoseConfig
from bimangrasp.validation.pose_rules import stages_of

F64 = torch.float64
CONTACTS = PoseConfig("contacts", clearance=0.01, damping=0.005, opening=0.1, retreat=0.01, squeeze=1.0)


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
    stages = stages_of(hands, given, candidate.numpy(), normal.numpy(), config)
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
    assert pregrasp.closing_joints(hands).tolist() == [[1], [1]]
