"""Chooses contact candidates where hands are near the object: one on a link, and one on every finger first."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from bimangrasp.errors import InputError
from bimangrasp.grasp import Grasps
from bimangrasp.hands.description import HandDescription, find_chains
from bimangrasp.hands.model import HandModel
from bimangrasp.objects.model import ObjectModel

FAR = 10.0
"""Taken off the distance of a finger's nearest link, m, so that it goes before all second links."""


class ContactChoice:
    """Chooses the contacts of a batch, without randomness and without waiting for the device.

    Of each link with candidates the one nearest to the object's surface is at hand. The nearest of each finger (the
    palm counts as one) come first, by their distance, then second links of fingers, by theirs. So four contacts of a
    hand with five fingers leave the farthest finger out, and six of a hand with four take two fingers twice.
    """

    def __init__(self, hands: HandModel, obj: ObjectModel, count: int):
        """Takes hands to an object.

        Args:
            hands: both hands.
            obj: the object.
            count: contacts of a hand.

        Raises:
            InputError: a hand has fewer links with candidates than contacts.
        """
        self._hands, self._obj, self._count = hands, obj, count
        tables = [_candidates_by_link(hand) for hand in hands.descriptions]
        links = len(tables[0])
        if count > links:
            raise InputError(
                f"contacts_per_hand={count}, and the hand has contact candidates on {links} links; optimizer.method="
                "momentum takes one on a link: lower contacts_per_hand, or add candidates to the hand"
            )
        self._candidates = _padded(tables[0], tables[1], device=hands.device)
        fingers = _links_by_finger(hands.descriptions[0])
        self._finger_links = _padded(fingers, device=hands.device)[0]

    def __call__(self, grasps: Grasps, object_scale: Float[Tensor, " batch"]) -> Int[Tensor, "batch hand contact"]:
        """Returns the indices of the candidates that grasps take; where a pose is not finite, any."""
        distance, candidate = self._nearest_of_links(grasps, object_scale)
        fingers = distance[:, :, self._finger_links].argmin(dim=-1)
        first = self._finger_links.gather(1, fingers.flatten(0, 1).T).T.view(fingers.shape)
        rank = distance.scatter_add(2, first, torch.full_like(first, -FAR, dtype=distance.dtype))
        chosen = rank.argsort(dim=-1, stable=True)[..., : self._count]
        return candidate.gather(2, chosen)

    def _nearest_of_links(
        self, grasps: Grasps, object_scale: Float[Tensor, " batch"]
    ) -> tuple[Float[Tensor, "batch hand link"], Int[Tensor, "batch hand link"]]:
        """Returns for each link with candidates the least distance to the surface, m, and whose it is."""
        hands = self._hands
        every = torch.arange(hands.candidate_count, device=hands.device).expand(len(object_scale), 2, -1)
        point = hands.contact_points(hands.link_frames(grasps), every).to(object_scale.dtype)
        scale = object_scale[:, None, None]
        distance = (scale * self._obj.grid.distance(point / scale[..., None])).abs()
        table = self._candidates.expand(len(object_scale), -1, -1, -1)
        of_links = distance[:, :, None].expand(-1, -1, table.shape[2], -1).gather(3, table)
        member = of_links.argmin(dim=3, keepdim=True)
        return of_links.gather(3, member)[..., 0], table.gather(3, member)[..., 0]


def _candidates_by_link(hand: HandDescription) -> list[list[int]]:
    """Returns the candidates of each link that has any, in the order of the links."""
    links = hand.candidate_link.tolist()
    return [[number for number, own in enumerate(links) if own == link] for link in sorted(set(links))]


def _links_by_finger(hand: HandDescription) -> list[list[int]]:
    """Returns for each finger with candidates its links, by their place among the links that have any.

    Links of no finger are one more.
    """
    links = sorted(set(hand.candidate_link.tolist()))
    fingers = [set(chain.links) for chain in find_chains(hand)]
    rest = set(links).difference(*fingers)
    groups = [[links.index(link) for link in links if link in finger] for finger in (*fingers, rest)]
    return [group for group in groups if group]


def _padded(*tables: Sequence[Sequence[int]], device: torch.device) -> Int[Tensor, "table row member"]:
    """Returns tables of rows of unlike lengths as one, rows filled up with their first member."""
    longest = max(len(row) for table in tables for row in table)
    filled = [[[*row, *[row[0]] * (longest - len(row))] for row in table] for table in tables]
    return torch.tensor(filled, device=device)
