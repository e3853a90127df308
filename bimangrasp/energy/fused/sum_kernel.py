"""Adds up the terms of each sample, and their weighted total."""

import warp as wp

from bimangrasp.energy.fused.records import ROOT_DOF, ContactTable, KeypointTable, Tree, Weights, Wrenches

wp.set_module_options({"enable_backward": False})


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
    """Adds up each term over hands, and the terms, in the order of `Energies`; those of the wrench are there."""
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
    terms[1, b] = distance
    terms[2, b] = penetration
    terms[3, b] = repelled
    terms[4, b] = limits
    terms[6, b] = inside
    terms[8, b] = (
        weights.force_closure * terms[0, b]
        + weights.distance * distance
        + weights.penetration * penetration
        + weights.self_penetration * repelled
        + weights.joint_limits * limits
        + weights.wrench_volume * terms[5, b]
        + weights.depth * inside
        + weights.equilibrium * terms[7, b]
    )
