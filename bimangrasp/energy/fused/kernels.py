"""The kernels of one evaluation, in the order in which they run. Every sum has one thread and one order: no atomics.

B samples, 2 hands, L links, S shapes a hand, C contacts and K keypoints a hand, R runs of points. A force is the
gradient of the total by the place of a point that moves with a link; all forces of a link together, with their
moments about its origin, give the gradient by every joint above it in one walk down the tree.
"""

import warp as wp

from bimangrasp.energy.fused.geometry import (
    SQUARED_DISTANCE_FLOOR,
    Side,
    cylinder,
    nearest_face,
    on_face,
    rotation,
    rotation_adjoint,
    rounded_box,
    winding_number,
)
from bimangrasp.geometry.distances import SQUARED_NORMAL_FLOOR
from bimangrasp.geometry.spatial_order import RUN

wp.set_module_options({"enable_backward": False})

RUN_LENGTH = wp.constant(RUN)
BOX, CYLINDER, MESH = wp.constant(0), wp.constant(1), wp.constant(2)
ROOT_DOF = wp.constant(9)  # translation and rot6d come before the joints


@wp.struct
class Tree:
    """The kinematic trees of both hands.

    Attributes:
        parent, joint: (L) parent and joint of a link, -1 for none.
        rotation, translation: (2, L) pose in the parent; with the axis in float64, as contacts need it.
        axis: (2, L) of the joint.
        lower, upper: (2, J) rad.
    """

    parent: wp.array(dtype=int)
    joint: wp.array(dtype=int)
    rotation: wp.array2d(dtype=wp.mat33d)
    translation: wp.array2d(dtype=wp.vec3d)
    axis: wp.array2d(dtype=wp.vec3d)
    lower: wp.array2d(dtype=float)
    upper: wp.array2d(dtype=float)


@wp.struct
class Shapes:
    """The collision shapes of both hands; see `HandShapes`.

    Attributes:
        link, kind: (S) carrying link; BOX, CYLINDER or MESH.
        rotation, translation: (2, S) pose in the link.
        extent, radius: (2, S).
        bound_center, bound_extent: (2, S) box around the shape.
        bvh, first: (2, S) of mesh shapes: what finds the nearest triangle, and where the triangles begin in
        corners, normals: of all mesh shapes.
    """

    link: wp.array(dtype=int)
    kind: wp.array(dtype=int)
    rotation: wp.array2d(dtype=wp.mat33)
    translation: wp.array2d(dtype=wp.vec3)
    extent: wp.array2d(dtype=wp.vec3)
    radius: wp.array2d(dtype=float)
    bound_center: wp.array2d(dtype=wp.vec3)
    bound_extent: wp.array2d(dtype=wp.vec3)
    bvh: wp.array2d(dtype=wp.uint64)
    first: wp.array2d(dtype=int)
    corners: wp.array2d(dtype=wp.vec3)
    normals: wp.array2d(dtype=wp.vec3)


@wp.struct
class Frames:
    """Poses in the object's frame.

    Attributes:
        exact_rotation, exact_translation: (B, 2, L) of links.
        rotation, translation: the same, rounded.
        shape_rotation, shape_translation: (B, 2, S) of shapes.
        bound: (B, 2, S) centers of the shapes' bounds.
    """

    exact_rotation: wp.array3d(dtype=wp.mat33d)
    exact_translation: wp.array3d(dtype=wp.vec3d)
    rotation: wp.array3d(dtype=wp.mat33)
    translation: wp.array3d(dtype=wp.vec3)
    shape_rotation: wp.array3d(dtype=wp.mat33)
    shape_translation: wp.array3d(dtype=wp.vec3)
    bound: wp.array3d(dtype=wp.vec3)


@wp.struct
class Cloud:
    """Points in runs of close ones, of the object (unit scale) or of one hand (in link coordinates).

    Attributes:
        link: (N) link that carries a point; -1: the object.
        point: (N) the points.
        run_first, run_count: (R) the points of a run, all of one link.
        run_center, run_radius: (R) a ball around them.
    """

    link: wp.array(dtype=int)
    point: wp.array(dtype=wp.vec3)
    run_first: wp.array(dtype=int)
    run_count: wp.array(dtype=int)
    run_center: wp.array(dtype=wp.vec3)
    run_radius: wp.array(dtype=float)


@wp.struct
class Pushes:
    """What a cloud does to the shapes of the tested hands.

    Attributes:
        shape: (B, 2, N) the deepest shape around a point, -1 for none; written where `hit` says so.
        depth: (B, 2, N) how deep, m.
        force, place: (B, 2, N) gradient of the depth by the shape's place, and where.
        hit: (B, 2, R) bit s % 64 for each shape s that holds a point of the run.
    """

    shape: wp.array3d(dtype=int)
    depth: wp.array3d(dtype=float)
    force: wp.array3d(dtype=wp.vec3)
    place: wp.array3d(dtype=wp.vec3)
    hit: wp.array3d(dtype=wp.uint64)


@wp.func
def triple(pose: wp.array3d(dtype=float), b: int, h: int, first: int):
    """Returns three coordinates of a pose, in float64."""
    return wp.vec3d(wp.vec3(pose[b, h, first], pose[b, h, first + 1], pose[b, h, first + 2]))


@wp.kernel
def link_frames(pose: wp.array3d(dtype=float), tree: Tree, frames: Frames):
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
def shape_frames(shapes: Shapes, frames: Frames):
    """Places each collision shape."""
    b, h, s = wp.tid()
    link = shapes.link[s]
    turn = frames.rotation[b, h, link] * shapes.rotation[h, s]
    place = frames.translation[b, h, link] + frames.rotation[b, h, link] * shapes.translation[h, s]
    frames.shape_rotation[b, h, s] = turn
    frames.shape_translation[b, h, s] = place
    frames.bound[b, h, s] = place + turn * shapes.bound_center[h, s]


@wp.func
def side_of_shape(shapes: Shapes, h: int, s: int, p: wp.vec3) -> Side:
    """Returns distance and gradient of a shape at a point in its frame."""
    if shapes.kind[s] == MESH:
        face = nearest_face(p, shapes.bvh[h, s], shapes.corners, shapes.first[h, s])
        side = Side()
        side.distance = wp.nan
        if face >= 0:
            point, part = on_face(p, shapes.corners, shapes.first[h, s] + face)
            offset = p - point
            length = wp.sqrt(wp.length_sq(offset) + SQUARED_DISTANCE_FLOOR)
            outward = wp.dot(offset, shapes.normals[shapes.first[h, s] + face, part])
            toward = wp.where(outward < 0.0, -1.0, 1.0)
            side.distance = toward * length
            side.gradient = toward * offset / length
        return side
    if shapes.kind[s] == CYLINDER:
        return cylinder(p, shapes.extent[h, s], shapes.radius[h, s])
    return rounded_box(p, shapes.extent[h, s], shapes.radius[h, s])


@wp.kernel
def penetrations(
    shapes: Shapes,
    frames: Frames,
    cloud: Cloud,
    carrier: int,
    first_hand: int,
    object_scale: wp.array(dtype=float),
    pushes: Pushes,
):
    """Finds the deepest shape around every point of a run, for one hand; far shapes and far runs cost one test.

    `carrier` is the hand that carries the cloud, -1 for the object.
    """
    b, tested, run = wp.tid()
    h = first_hand + tested
    first = cloud.run_first[run]
    turn = wp.identity(n=3, dtype=float)
    origin = wp.vec3(0.0, 0.0, 0.0)
    scale = float(1.0)
    if carrier >= 0:
        turn = frames.rotation[b, carrier, cloud.link[first]]
        origin = frames.translation[b, carrier, cloud.link[first]]
    else:
        scale = object_scale[b]
    center = origin + turn * (scale * cloud.run_center[run])
    radius = scale * cloud.run_radius[run]
    hit = wp.uint64(0)
    is_written = int(0)
    for s in range(shapes.link.shape[0]):
        reach = shapes.bound_extent[h, s]
        away = center - frames.bound[b, h, s]
        far = radius + wp.length(reach)
        if wp.length_sq(away) <= far * far:
            inverse = wp.transpose(frames.shape_rotation[b, h, s])
            if rounded_box(inverse * away, reach, radius).distance <= 0.0:
                if is_written == 0:
                    is_written = int(1)
                    for n in range(first, first + cloud.run_count[run]):
                        pushes.shape[b, h, n] = -1
                        pushes.depth[b, h, n] = 0.0
                        pushes.place[b, h, n] = origin + turn * (scale * cloud.point[n])
                for n in range(first, first + cloud.run_count[run]):
                    local = inverse * (pushes.place[b, h, n] - frames.shape_translation[b, h, s])
                    off = local - shapes.bound_center[h, s]
                    if wp.abs(off[0]) <= reach[0] and wp.abs(off[1]) <= reach[1] and wp.abs(off[2]) <= reach[2]:
                        side = side_of_shape(shapes, h, s, local)
                        if -side.distance > pushes.depth[b, h, n]:
                            pushes.depth[b, h, n] = -side.distance
                            pushes.shape[b, h, n] = s
                            pushes.force[b, h, n] = frames.shape_rotation[b, h, s] * side.gradient
    if is_written == 1:
        for n in range(first, first + cloud.run_count[run]):
            s = pushes.shape[b, h, n]
            if s >= 0:
                hit = hit | (wp.uint64(1) << wp.uint64(s % 64))
    pushes.hit[b, h, run] = hit


@wp.kernel
def shape_sums(
    shapes: Shapes,
    frames: Frames,
    cloud: Cloud,
    first_hand: int,
    pushes: Pushes,
    depth: wp.array3d(dtype=float),
    force: wp.array3d(dtype=wp.vec3),
    moment: wp.array3d(dtype=wp.vec3),
):
    """Adds up what the points of a cloud do to a shape: depth, force, and moment about the link's origin."""
    b, tested, s = wp.tid()
    h = first_hand + tested
    origin = frames.translation[b, h, shapes.link[s]]
    deep = float(0.0)
    push = wp.vec3(0.0, 0.0, 0.0)
    turn = wp.vec3(0.0, 0.0, 0.0)
    bit = wp.uint64(1) << wp.uint64(s % 64)
    for run in range(cloud.run_first.shape[0]):
        if (pushes.hit[b, h, run] & bit) != wp.uint64(0):
            first = cloud.run_first[run]
            for n in range(first, first + cloud.run_count[run]):
                if pushes.shape[b, h, n] == s:
                    deep += pushes.depth[b, h, n]
                    push += pushes.force[b, h, n]
                    turn += wp.cross(pushes.place[b, h, n] - origin, pushes.force[b, h, n])
    depth[b, h, s] = deep
    force[b, h, s] = push
    moment[b, h, s] = turn


@wp.struct
class Candidates:
    """Contact candidates (2, number) of both hands: link, and position in it."""

    link: wp.array2d(dtype=int)
    position: wp.array2d(dtype=wp.vec3d)


@wp.struct
class Surface:
    """The object's mesh, as large as it is read.

    Attributes:
        bvh: what finds the nearest triangle.
        corners: (F, 3) of its triangles; `exact` the same before rounding.
        normals: (F, 7) outward at the parts of each triangle.
        is_open: whether the winding number tells the side, and not the normal.
    """

    bvh: wp.uint64
    corners: wp.array2d(dtype=wp.vec3)
    exact: wp.array2d(dtype=wp.vec3d)
    normals: wp.array2d(dtype=wp.vec3)
    is_open: int


@wp.struct
class ContactTable:
    """The chosen contacts (B, 2, C): link, point, normal, absolute distance, and its gradient by the point."""

    link: wp.array3d(dtype=int)
    point: wp.array3d(dtype=wp.vec3d)
    normal: wp.array3d(dtype=wp.vec3d)
    distance: wp.array3d(dtype=float)
    force: wp.array3d(dtype=wp.vec3)


@wp.kernel
def contacts(
    candidate: wp.array3d(dtype=wp.int64),
    candidates: Candidates,
    frames: Frames,
    surface: Surface,
    object_scale: wp.array(dtype=float),
    table: ContactTable,
):
    """Places each chosen candidate and asks the object for distance and normal there.

    In float64: close to the surface the normal is the small difference of two places.
    """
    b, h, c = wp.tid()
    chosen = int(candidate[b, h, c])
    link = candidates.link[h, chosen]
    arm = frames.exact_rotation[b, h, link] * candidates.position[h, chosen]
    point = frames.exact_translation[b, h, link] + arm
    scale = wp.float64(object_scale[b])
    place = point / scale
    face = nearest_face(place, surface.bvh, surface.exact, 0)
    side = wp.float64(wp.nan)
    offset = wp.vec3d()
    if face >= 0:
        on_surface, part = on_face(place, surface.exact, face)
        offset = place - on_surface
        side = wp.float64(1.0)
        if surface.is_open != 0:
            if wp.abs(winding_number(wp.vec3(place), surface.corners)) >= 0.5:
                side = wp.float64(-1.0)
        elif wp.dot(offset, wp.vec3d(surface.normals[face, part])) < wp.float64(0.0):
            side = wp.float64(-1.0)
    squared = wp.length_sq(offset)
    length = wp.sqrt(squared + wp.float64(SQUARED_DISTANCE_FLOOR))
    table.link[b, h, c] = link
    table.point[b, h, c] = point
    table.normal[b, h, c] = offset * (side / wp.sqrt(squared + wp.float64(SQUARED_NORMAL_FLOOR)))
    table.distance[b, h, c] = float(wp.abs(side) * length * scale)
    table.force[b, h, c] = wp.vec3(offset / length)


@wp.struct
class Keypoints:
    """Penetration keypoints (2, K) of both hands: link, and position in it."""

    link: wp.array2d(dtype=int)
    position: wp.array2d(dtype=wp.vec3)


@wp.struct
class KeypointTable:
    """Keypoints (B, 2, K): overlap with all others, point, and the gradient of the hand's overlap by it."""

    overlap: wp.array3d(dtype=float)
    point: wp.array3d(dtype=wp.vec3)
    force: wp.array3d(dtype=wp.vec3)


@wp.kernel
def place_keypoints(keypoints: Keypoints, frames: Frames, table: KeypointTable):
    """Places each keypoint."""
    b, h, k = wp.tid()
    link = keypoints.link[h, k]
    table.point[b, h, k] = frames.translation[b, h, link] + frames.rotation[b, h, link] * keypoints.position[h, k]


@wp.kernel
def push_keypoints(least: float, coincident: float, table: KeypointTable):
    """Measures each keypoint against all others of its hand; a pair is seen from both ends."""
    b, h, k = wp.tid()
    point = table.point[b, h, k]
    overlap = float(0.0)
    force = wp.vec3(0.0, 0.0, 0.0)
    for other in range(table.point.shape[2]):
        away = point - table.point[b, h, other]
        squared = wp.length_sq(away)
        if squared < least * least and other != k:
            distance = wp.sqrt(squared)
            if distance >= coincident:
                overlap += least - distance
                force -= 2.0 * away / distance
    table.overlap[b, h, k] = overlap
    table.force[b, h, k] = force


@wp.struct
class Weights:
    """Weights of the terms in the total."""

    force_closure: float
    distance: float
    penetration: float
    self_penetration: float
    joint_limits: float
    wrench_volume: float
    depth: float
    equilibrium: float
    friction: float


@wp.struct
class Wrenches:
    """Forces and moments about the link's origin: (B, 2, S) of shapes by cloud, (B, 2, C) of the wrench terms.

    Attributes:
        object_depth, object_force, object_moment: what the object's points do to the shapes.
        inside_depth, inside_force, inside_moment: what the object's inside does to their spheres, 0 without weight.
        hand_depth, hand_force, hand_moment: what the other hand's points do; only the tested hands count.
        hand_share: (2) factor of each hand's inter-hand depth, 0 where it is not tested.
        closure: (B, 2, C) gradient of the weighted wrench terms by the contact point.
        force, moment: (B, 2, L) all together, weighted.
    """

    object_depth: wp.array3d(dtype=float)
    object_force: wp.array3d(dtype=wp.vec3)
    object_moment: wp.array3d(dtype=wp.vec3)
    inside_depth: wp.array3d(dtype=float)
    inside_force: wp.array3d(dtype=wp.vec3)
    inside_moment: wp.array3d(dtype=wp.vec3)
    hand_depth: wp.array3d(dtype=float)
    hand_force: wp.array3d(dtype=wp.vec3)
    hand_moment: wp.array3d(dtype=wp.vec3)
    hand_share: wp.array(dtype=float)
    closure: wp.array3d(dtype=wp.vec3)
    force: wp.array3d(dtype=wp.vec3)
    moment: wp.array3d(dtype=wp.vec3)


@wp.kernel
def gradients(
    pose: wp.array3d(dtype=float),
    tree: Tree,
    shapes: Shapes,
    keypoints: Keypoints,
    frames: Frames,
    contact_table: ContactTable,
    keypoint_table: KeypointTable,
    wrenches: Wrenches,
    weights: Weights,
    gradient: wp.array3d(dtype=float),
):
    """Gathers the forces on each link and walks the tree from the fingertips down."""
    b, h = wp.tid()
    links = tree.parent.shape[0]
    for link in range(links):
        wrenches.force[b, h, link] = wp.vec3(0.0, 0.0, 0.0)
        wrenches.moment[b, h, link] = wp.vec3(0.0, 0.0, 0.0)
    inter = weights.self_penetration * wrenches.hand_share[h]
    for s in range(shapes.link.shape[0]):
        link = shapes.link[s]
        force = weights.penetration * wrenches.object_force[b, h, s]
        moment = weights.penetration * wrenches.object_moment[b, h, s]
        if weights.depth != 0.0:
            force += weights.depth * wrenches.inside_force[b, h, s]
            moment += weights.depth * wrenches.inside_moment[b, h, s]
        if inter != 0.0:
            force += inter * wrenches.hand_force[b, h, s]
            moment += inter * wrenches.hand_moment[b, h, s]
        wrenches.force[b, h, link] = wrenches.force[b, h, link] + force
        wrenches.moment[b, h, link] = wrenches.moment[b, h, link] + moment
    for c in range(contact_table.link.shape[2]):
        link = contact_table.link[b, h, c]
        force = weights.distance * contact_table.force[b, h, c] + wrenches.closure[b, h, c]
        arm = wp.vec3(contact_table.point[b, h, c]) - frames.translation[b, h, link]
        wrenches.force[b, h, link] = wrenches.force[b, h, link] + force
        wrenches.moment[b, h, link] = wrenches.moment[b, h, link] + wp.cross(arm, force)
    for k in range(keypoints.link.shape[1]):
        link = keypoints.link[h, k]
        force = weights.self_penetration * keypoint_table.force[b, h, k]
        arm = keypoint_table.point[b, h, k] - frames.translation[b, h, link]
        wrenches.force[b, h, link] = wrenches.force[b, h, link] + force
        wrenches.moment[b, h, link] = wrenches.moment[b, h, link] + wp.cross(arm, force)
    for back in range(1, links):
        link = links - back
        force = wrenches.force[b, h, link]
        moment = wrenches.moment[b, h, link]
        joint = tree.joint[link]
        if joint >= 0:
            angle = pose[b, h, ROOT_DOF + joint]
            slope = wp.dot(frames.rotation[b, h, link] * wp.vec3(tree.axis[h, link]), moment)
            if angle >= tree.upper[h, joint]:
                slope += weights.joint_limits
            if angle <= tree.lower[h, joint]:
                slope -= weights.joint_limits
            gradient[b, h, ROOT_DOF + joint] = slope
        parent = tree.parent[link]
        arm = frames.translation[b, h, link] - frames.translation[b, h, parent]
        wrenches.force[b, h, parent] = wrenches.force[b, h, parent] + force
        wrenches.moment[b, h, parent] = wrenches.moment[b, h, parent] + moment + wp.cross(arm, force)
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
