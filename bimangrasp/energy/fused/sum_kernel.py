"""Adds up the terms of each sample, and their weighted total."""

import warp as wp

from bimangrasp.energy.fused.records import ROOT_DOF, ContactTable, KeypointTable, Tree, Weights, Wrenches
from bimangrasp.energy_terms import ENERGY_TERMS, Slot

wp.set_module_options({"enable_backward": False})

TERM_COUNT = wp.constant(len(ENERGY_TERMS))


@wp.kernel
def totals(
    pose: wp.array3d(dtype=float),
    tree: Tree,
    contact_table: ContactTable,
    keypoint_table: KeypointTable,
    wrenches: Wrenches,
    weights: Weights,
    terms: wp.array2d(dtype=float),
):
    """Adds up over the hands what has no kernel of its own to do so, and then all terms with their weights."""
    b = wp.tid()
    distance = float(0.0)
    penetration = float(0.0)
    repelled = float(0.0)
    limits = float(0.0)
    inside = float(0.0)
    for h in range(2):
        for c in range(contact_table.distance.shape[2]):
            distance += contact_table.distance[b, h, c]
        for s in range(wrenches.object_depth.shape[2]):
            penetration += wrenches.object_depth[b, h, s]
            inside += wrenches.inside_depth[b, h, s]
        if wrenches.hand_share[h] != 0.0:
            for s in range(wrenches.object_depth.shape[2]):
                repelled += wrenches.hand_share[h] * wrenches.hand_depth[b, h, s]
        for k in range(keypoint_table.overlap.shape[2]):
            repelled += keypoint_table.overlap[b, h, k]
        for joint in range(tree.lower.shape[1]):
            angle = pose[b, h, ROOT_DOF + joint]
            limits += wp.max(angle - tree.upper[h, joint], 0.0) + wp.max(tree.lower[h, joint] - angle, 0.0)
    terms[Slot.distance, b] = distance
    terms[Slot.penetration, b] = penetration
    terms[Slot.self_penetration, b] = repelled
    terms[Slot.joint_limits, b] = limits
    terms[Slot.depth, b] = inside
    # In the table's order, from the first term on and not from 0: so the roundings are those of one long sum.
    total = weights[0] * terms[0, b]
    for slot in range(1, TERM_COUNT):
        total += weights[slot] * terms[slot, b]
    terms[Slot.total, b] = total
