"""Palmar sides, means and keypoints that are proposed for a hand of which only the file is known."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import quick_conf
import torch
from hand_texts import FILES, TEXTS, TURN, turned, written
from scene import energy_config
from tree_product import link_frames, points_in_hand, random_joints

from bimangrasp.energy.energies import keypoint_penetration
from bimangrasp.errors import InputError
from bimangrasp.hand_files.config import HandConfig
from bimangrasp.hand_files.loading import load_hands
from bimangrasp.hand_setup.inspection import inspect_hand, tip_at
from bimangrasp.hand_setup.proposal import propose
from bimangrasp.hands.model import HandModel

LEAST = energy_config().keypoint_distance


def own(name: str, **changes: object) -> HandConfig:
    """What a user has said of a shipped hand's file."""
    shipped = quick_conf.load(f"hand={name}").hand
    given = quick_conf.load("mode=hand", f"hand.mjcf={FILES[name]}").hand
    told = {"side": "right", "palm_normal": shipped.palm_normal, "finger_direction": shipped.finger_direction}
    return replace(given, **(told | changes))


@cache
def proposed(name: str) -> HandConfig:
    return propose(inspect_hand(FILES[name]), own(name), LEAST)


@pytest.mark.slow
def test_the_palmar_sides_of_the_shadow_hand_are_those_that_ship():
    ours = dict(proposed("shadow").candidates.palmar)
    assert ours.pop("palm") == [0, -1, 0]  # more than we use
    assert ours == quick_conf.load().hand.candidates.palmar
    candidates = load_hands(proposed("shadow"))[1].candidate_position
    assert len(candidates) == 150


def test_the_shipped_allegro_hand_is_the_proposed_one():
    shipped = quick_conf.load("hand=allegro").hand
    ours = proposed("allegro")
    for name in ("palm_normal", "finger_direction", "keypoints", "candidates"):
        assert getattr(ours, name) == getattr(shipped, name)
    assert ours.joint_mean == pytest.approx(shipped.joint_mean, abs=2e-3)


@pytest.mark.slow
@pytest.mark.parametrize("name", FILES)
def test_a_palmar_side_leads_when_the_finger_closes(name: str):
    """An oracle of its own: turn each finger's joints towards their farther limits, see where its links go."""
    config, hand = proposed(name), load_hands(proposed(name))[1]
    rest = np.clip(0.0, hand.joint_lower, hand.joint_upper)
    far = np.where(hand.joint_upper - rest > rest - hand.joint_lower, hand.joint_upper, hand.joint_lower)
    alike = np.abs(hand.joint_upper + hand.joint_lower - 2 * rest) < 0.1
    frames, moved = link_frames(hand, rest), link_frames(hand, np.where(alike, rest, rest + 0.05 * (far - rest)))
    fingers = [link for link in config.candidates.palmar if link != "palm" and not link.startswith("th")]
    for link in fingers:
        index = hand.link_names.index(link)
        tip = [0.0, 0.0, 0.02, 1.0]
        motion = ((moved[index] - frames[index]) @ tip)[:3]
        side = frames[index][:3, :3] @ config.candidates.palmar[link]
        assert motion @ side > 0.9 * np.linalg.norm(motion)


@pytest.mark.parametrize("name", FILES)
def test_the_proposal_is_the_same_hand_in_a_turned_frame(name: str, tmp_path: Path):
    inspection = inspect_hand(written(tmp_path, turned(TEXTS[name])))
    plain = own(name)
    palm, fingers = (TURN.inv().apply(way).tolist() for way in (plain.palm_normal, plain.finger_direction))
    other = propose(
        inspection, replace(plain, palm_normal=palm, finger_direction=fingers, mjcf=str(inspection.path)), LEAST
    )
    assert other.candidates.palmar.keys() == proposed(name).candidates.palmar.keys()
    for link, side in proposed(name).candidates.palmar.items():
        np.testing.assert_allclose(other.candidates.palmar[link], side, atol=1e-5)
    assert other.joint_mean == pytest.approx(proposed(name).joint_mean, abs=0.05)
    assert other.keypoints.keys() == proposed(name).keypoints.keys()


@pytest.mark.parametrize("name", FILES)
def test_the_open_hand_costs_no_self_penetration_and_a_fist_does(name: str):
    hands = HandModel(*load_hands(proposed(name)), surface_points=1, dtype=torch.float64)

    def energy(joints: torch.Tensor) -> float:
        pose = torch.eye(3).double().expand(1, 2, 3, 3), torch.zeros((1, 2, 3)).double()
        return float(keypoint_penetration(hands.keypoints(hands.frames_from_root(*pose, joints[None])), LEAST))

    assert energy(hands.joint_mean) == 0
    closed = torch.where(hands.joint_upper > -hands.joint_lower, hands.joint_upper, hands.joint_lower)
    assert energy(closed) > 0


@pytest.mark.parametrize("name", FILES)
def test_keypoints_line_each_finger_without_gaps_and_never_fight_their_neighbors(name: str):
    hand = load_hands(proposed(name))[1]
    inspection = inspect_hand(FILES[name])
    for seed in range(5):
        frames = link_frames(hand, random_joints(hand, seed))
        points = points_in_hand(frames, hand.keypoint_link, hand.keypoint_position)
        for chain in inspection.chains:
            shaped = [link for link in chain.links if link in {shape.link for shape in hand.primitives}]
            for first, second in zip(shaped, shaped[1:], strict=False):
                near = points[np.isin(hand.keypoint_link, [first, second])]
                gap = np.linalg.norm(near[:, None] - near[None], axis=-1) + np.eye(len(near))
                assert gap.min() > LEAST
    frames = link_frames(hand, hand.joint_mean)
    points = points_in_hand(frames, hand.keypoint_link, hand.keypoint_position)
    for number, chain in enumerate(inspection.chains):
        mine = points[np.isin(hand.keypoint_link, chain.links)]
        steps = np.linalg.norm(mine[:, None] - mine[None], axis=-1) + np.eye(len(mine))
        assert steps.min(axis=1).max() < 2 * LEAST
        tip = tip_at(inspection, number, frames)
        assert np.linalg.norm(mine - tip, axis=1).min() < 0.013  # the last one: a tip's radius from the end


@pytest.mark.parametrize("name", FILES)
def test_the_thumb_starts_in_front_of_the_palm_and_the_fingers_slightly_bent(name: str):
    hand, inspection = load_hands(proposed(name))[1], inspect_hand(FILES[name])
    tips = np.stack(
        [tip_at(inspection, number, link_frames(hand, hand.joint_mean)) for number in range(len(inspection.chains))]
    )
    rest = np.stack([tip_at(inspection, number, inspection.frames) for number in range(len(tips))])
    forward = tips @ hand.palm_normal
    assert forward[-1] > 0.04
    moved = (tips - rest)[:-1]
    assert (moved @ hand.palm_normal > 0.01).all()
    assert (np.linalg.norm(moved, axis=1) < 0.06).all()


def test_what_the_user_says_stays():
    rule = replace(own("allegro").candidates, per_link=3, palmar={"thumb_distal": [], "index_distal": [0.0, 1.0, 0.0]})
    config = own(
        "allegro", candidates=rule, joint_mean={"index_1": 0.5}, keypoints={"thumb_distal": [[0.0, 0.0, 0.01]]}
    )
    ours = propose(inspect_hand(FILES["allegro"]), config, LEAST)
    assert ours.candidates.palmar == {"thumb_distal": [1.0, 0.0, 0.0], "index_distal": [0.0, 1.0, 0.0]}
    assert (ours.joint_mean["index_1"], ours.joint_mean["middle_1"]) == (0.5, 0.241)
    assert ours.keypoints == {"thumb_distal": [[0.0, 0.0, 0.01]]}
    assert len(load_hands(ours)[1].candidate_link) == 6


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"joint_mean": {"index": 0.0}}, "hand.joint_mean names 'index'"),
        ({"palmar": {"thumb": []}}, "hand.candidates.palmar names 'thumb'"),
        ({"palmar": {"index_base": []}}, "no joint bends the link 'index_base'.*hand.candidates.palmar.index_base="),
    ],
)
def test_names_that_the_hand_does_not_have_are_refused(changes: dict, words: str):
    config = own("allegro")
    if "palmar" in changes:
        changes = {"candidates": replace(config.candidates, palmar=changes["palmar"])}
    with pytest.raises(InputError, match=words):
        propose(inspect_hand(FILES["allegro"]), replace(config, **changes), LEAST)
