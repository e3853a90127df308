"""Walks the hands' trees: from the root up for poses, from the fingertips down for gradient and totals.

Of coupled hands it takes coordinates to all joints first, and the gradient by joints to the one by coordinates last.
"""

import warp as wp

from bimangrasp.energy.fused import records
from bimangrasp.energy.fused.geometry import rotation, rotation_adjoint
from bimangrasp.energy.fused.records import ROOT_DOF, ContactTable, Couplings, KeypointTable, Tree, Weights, Wrenches
from bimangrasp.energy_terms import ENERGY_TERMS, Slot
from bimangrasp.hands.couplings import DEGREES

wp.set_module_options({"enable_backward": False})

TERM_COUNT, DEGREE_COUNT = wp.constant(len(ENERGY_TERMS)), wp.constant(DEGREES)


@wp.func
def triple(pose: wp.array3d(dtype=float), b: int, h: int, first: int):
    """Returns three coordinates of a pose, in float64."""
    return wp.vec3d(wp.vec3(pose[b, h, first], pose[b, h, first + 1], pose[b, h, first + 2]))


@wp.kernel
def link_frames(pose: wp.array3d(dtype=float), tree: records.Tree, frames: records.Frames):
    """Walks each hand's tree from the root up."""
    b, h = wp.tid()
    for link in range(tree.parent.shape[0]):
        if link == 0:
            frames.exact_translation[b, h, 0] = triple(pose, b, h, 0)
            frames.exact_rotation[b, h, 0] = rotation(triple(pose, b, h, 3), triple(pose, b, h, 6))
        else:
            above = frames.exact_rotation[b, h, tree.parent[link]]
            origin = frames.exact_translation[b, h, tree.parent[link]] + above * tree.translation[h, link]
            turned = above * tree.rotation[h, link]
            joint = tree.joint[link]
            if joint >= 0:
                angle = wp.float64(pose[b, h, ROOT_DOF + joint])
                across = wp.skew(tree.axis[h, link])
                turn = wp.identity(n=3, dtype=wp.float64) + wp.sin(angle) * across
                turned = turned * (turn + (wp.float64(1.0) - wp.cos(angle)) * (across * across))
            frames.exact_translation[b, h, link] = origin
            frames.exact_rotation[b, h, link] = turned
        frames.translation[b, h, link] = wp.vec3(frames.exact_translation[b, h, link])
        frames.rotation[b, h, link] = wp.mat33(frames.exact_rotation[b, h, link])


@wp.kernel
def shape_frames(shapes: records.Shapes, frames: records.Frames):
    """Places each collision shape."""
    b, h, s = wp.tid()
    link = shapes.link[s]
    turn = frames.rotation[b, h, link] * shapes.rotation[h, s]
    place = frames.translation[b, h, link] + frames.rotation[b, h, link] * shapes.translation[h, s]
    frames.shape_rotation[b, h, s] = turn
    frames.shape_translation[b, h, s] = place
    frames.bound[b, h, s] = place + turn * shapes.bound_center[h, s]


@wp.kernel
def gradients(
    pose: wp.array3d(dtype=float),
    tree: records.Tree,
    shapes: records.Shapes,
    keypoints: records.Keypoints,
    frames: records.Frames,
    contact_table: records.ContactTable,
    keypoint_table: records.KeypointTable,
    wrenches: records.Wrenches,
    weights: records.Weights,
    gradient: wp.array3d(dtype=float),
):
    """Gathers the forces on each link and walks the tree from the fingertips down."""
    b, h = wp.tid()
    links = tree.parent.shape[0]
    # All sums below start from nothing; the workspace still holds those of the evaluation before.
    for link in range(links):
        wrenches.force[b, h, link] = wp.vec3(0.0, 0.0, 0.0)
        wrenches.moment[b, h, link] = wp.vec3(0.0, 0.0, 0.0)
    # Shapes: what pushes them out of the object and out of the other hand. A hand that is not tested has no share.
    inter = weights[Slot.self_penetration] * wrenches.hand_share[h]
    for s in range(shapes.link.shape[0]):
        link = shapes.link[s]
        force = weights[Slot.penetration] * wrenches.object_force[b, h, s]
        moment = weights[Slot.penetration] * wrenches.object_moment[b, h, s]
        if weights[Slot.depth] != 0.0:
            force += weights[Slot.depth] * wrenches.inside_force[b, h, s]
            moment += weights[Slot.depth] * wrenches.inside_moment[b, h, s]
        if inter != 0.0:
            force += inter * wrenches.hand_force[b, h, s]
            moment += inter * wrenches.hand_moment[b, h, s]
        wrenches.force[b, h, link] = wrenches.force[b, h, link] + force
        wrenches.moment[b, h, link] = wrenches.moment[b, h, link] + moment
    # Contacts: their distance to the object, and the wrench terms, which are weighted already.
    for c in range(contact_table.link.shape[2]):
        link = contact_table.link[b, h, c]
        force = weights[Slot.distance] * contact_table.force[b, h, c] + wrenches.closure[b, h, c]
        arm = wp.vec3(contact_table.point[b, h, c]) - frames.translation[b, h, link]
        wrenches.force[b, h, link] = wrenches.force[b, h, link] + force
        wrenches.moment[b, h, link] = wrenches.moment[b, h, link] + wp.cross(arm, force)
    # Keypoints: those of the same hand push each other apart.
    for k in range(keypoints.link.shape[1]):
        link = keypoints.link[h, k]
        force = weights[Slot.self_penetration] * keypoint_table.force[b, h, k]
        arm = keypoint_table.point[b, h, k] - frames.translation[b, h, link]
        wrenches.force[b, h, link] = wrenches.force[b, h, link] + force
        wrenches.moment[b, h, link] = wrenches.moment[b, h, link] + wp.cross(arm, force)
    # Parents come before their children, so backwards every link has all that hangs on it before its turn comes. A
    # joint's slope is the moment about its axis; beyond a limit the slope of that term is added. Then the force goes
    # on to the parent, where its lever is longer by the way between the two origins.
    for back in range(1, links):
        link = links - back
        force = wrenches.force[b, h, link]
        moment = wrenches.moment[b, h, link]
        joint = tree.joint[link]
        if joint >= 0:
            angle = pose[b, h, ROOT_DOF + joint]
            slope = wp.dot(frames.rotation[b, h, link] * wp.vec3(tree.axis[h, link]), moment)
            if angle >= tree.upper[h, joint]:
                slope += weights[Slot.joint_limits]
            if angle <= tree.lower[h, joint]:
                slope -= weights[Slot.joint_limits]
            gradient[b, h, ROOT_DOF + joint] = slope
        parent = tree.parent[link]
        arm = frames.translation[b, h, link] - frames.translation[b, h, parent]
        wrenches.force[b, h, parent] = wrenches.force[b, h, parent] + force
        wrenches.moment[b, h, parent] = wrenches.moment[b, h, parent] + moment + wp.cross(arm, force)
    # What arrives at the root moves it. Columns r_k of a rotation turn with dr_k = w x r_k, and the three products
    # m/2 x r_k are gradients by them that amount to the moment m about any axis w.
    turn = frames.rotation[b, h, 0]
    half = 0.5 * wrenches.moment[b, h, 0]
    by_vectors = rotation_adjoint(
        wp.vec3(pose[b, h, 3], pose[b, h, 4], pose[b, h, 5]),
        wp.vec3(pose[b, h, 6], pose[b, h, 7], pose[b, h, 8]),
        wp.cross(half, wp.vec3(turn[0, 0], turn[1, 0], turn[2, 0])),
        wp.cross(half, wp.vec3(turn[0, 1], turn[1, 1], turn[2, 1])),
        wp.cross(half, wp.vec3(turn[0, 2], turn[1, 2], turn[2, 2])),
    )
    for axis in range(3):
        gradient[b, h, axis] = wrenches.force[b, h, 0][axis]
        gradient[b, h, 3 + axis] = by_vectors.a[axis]
        gradient[b, h, 6 + axis] = by_vectors.b[axis]


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


@wp.kernel
def spread(free: wp.array3d(dtype=float), couplings: Couplings, pose: wp.array3d(dtype=float)):
    """Writes the pose whose coordinates are free, and each node's slope; see `CoupledJoints`."""
    b, h = wp.tid()
    for axis in range(ROOT_DOF):
        pose[b, h, axis] = free[b, h, axis]
    joints = pose.shape[2] - ROOT_DOF
    for place in range(couplings.order.shape[0]):
        node = couplings.order[place]
        parent = couplings.parent[node]
        given = wp.float64(free[b, h, ROOT_DOF + couplings.coordinate[node]])
        slope = wp.float64(1.0)
        if parent >= 0:
            given = couplings.value[b, h, parent]
            slope = couplings.slope[b, h, parent]
        first = int(0)
        for knot in range(couplings.knots.shape[2]):
            if given > couplings.knots[h, node, knot]:
                first += DEGREE_COUNT
        value = wp.float64(0.0)
        change = wp.float64(0.0)
        for down in range(DEGREE_COUNT):
            change = change * given + value
            value = value * given + couplings.polynomial[h, node, first + DEGREE_COUNT - 1 - down]
        couplings.value[b, h, node] = value
        couplings.slope[b, h, node] = slope * change
        if node < joints:
            pose[b, h, ROOT_DOF + node] = float(value)


@wp.kernel
def gather(by_joint: wp.array3d(dtype=float), couplings: Couplings, by_coordinate: wp.array3d(dtype=float)):
    """Adds up the gradient by a pose's joints to the one by its coordinates."""
    b, h = wp.tid()
    for axis in range(ROOT_DOF):
        by_coordinate[b, h, axis] = by_joint[b, h, axis]
    for c in range(ROOT_DOF, by_coordinate.shape[2]):
        total = wp.float64(0.0)
        for joint in range(by_joint.shape[2] - ROOT_DOF):
            if couplings.coordinate[joint] == c - ROOT_DOF:
                total += couplings.slope[b, h, joint] * wp.float64(by_joint[b, h, ROOT_DOF + joint])
        by_coordinate[b, h, c] = float(total)
