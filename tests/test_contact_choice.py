from dataclasses import replace

import pytest
import torch
from scene import built_in, built_in_hands, grasps_near, shadow_hands

from bimangrasp.contact_choice import ContactChoice
from bimangrasp.errors import InputError
from bimangrasp.grasp import LEFT, RIGHT
from bimangrasp.hands.description import find_chains

SCALE = torch.full((6,), 0.15, dtype=torch.float64)


def setting(name):
    hands, mug = built_in_hands(name), built_in("mug")
    grasps = grasps_near(hands, 6, seed=1)
    every = torch.arange(hands.candidate_count).expand(6, 2, -1)
    point = hands.contact_points(hands.link_frames(grasps), every)
    return hands, mug, grasps, 0.15 * mug.grid.distance(point / 0.15).abs()


@pytest.mark.parametrize(("name", "count", "fingers"), [("shadow", 4, 4), ("shadow", 5, 5), ("allegro", 6, 5)])
def test_contacts_are_on_links_of_their_own_and_on_every_finger_first(name, count, fingers):
    hands, mug, grasps, _ = setting(name)
    chosen = ContactChoice(hands, mug, count)(grasps, SCALE)
    assert chosen.shape == (6, 2, count)
    links = hands.candidate_link[torch.arange(2)[:, None], chosen]
    of_finger = {
        link: number for number, chain in enumerate(find_chains(hands.descriptions[0])) for link in chain.links
    }
    for hand in links.flatten(0, 1).tolist():
        assert len(set(hand)) == count
        assert len({of_finger.get(link, "palm") for link in hand[:fingers]}) == fingers


def test_of_a_finger_the_nearest_candidate_is_taken_and_of_fingers_the_nearest():
    hands, mug, grasps, distance = setting("shadow")
    chosen = ContactChoice(hands, mug, 3)(grasps, SCALE)
    for side in (LEFT, RIGHT):
        links = hands.candidate_link[side].tolist()
        chains = find_chains(hands.descriptions[side])
        of_chain = [[i for i, link in enumerate(links) if link in chain.links] for chain in chains]
        for row in range(6):
            nearest = sorted(
                (float(distance[row, side, members].min()), members[int(distance[row, side, members].argmin())])
                for members in of_chain
            )
            assert chosen[row, side].tolist() == [candidate for _, candidate in nearest[:3]]


def test_a_pose_that_is_not_finite_gets_candidates_too():
    hands, mug, grasps, _ = setting("shadow")
    grasps = replace(grasps, translation=grasps.translation.clone())
    sound = ContactChoice(hands, mug, 5)(grasps, SCALE)
    grasps.translation[2, LEFT] = torch.nan
    chosen = ContactChoice(hands, mug, 5)(grasps, SCALE)
    assert ((chosen >= 0) & (chosen < hands.candidate_count)).all()
    others = torch.arange(6) != 2
    assert torch.equal(chosen[others], sound[others])


def test_more_contacts_than_links_are_refused():
    with pytest.raises(InputError, match="contacts_per_hand=15, and the hand has contact candidates on 14 links"):
        ContactChoice(shadow_hands(), built_in("mug"), 15)
