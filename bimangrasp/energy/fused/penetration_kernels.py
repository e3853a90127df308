"""Finds how deep points of a cloud are in the hands' shapes, with the forces on these."""

import warp as wp

from bimangrasp.energy.fused.geometry import SQUARED_DISTANCE_FLOOR, Side, cylinder, nearest_face, on_face, rounded_box
from bimangrasp.energy.fused.records import CYLINDER, LEAF, MESH, Cloud, Frames, Pushes, Shapes
from bimangrasp.geometry.farthest_point_sampling import RUN

wp.set_module_options({"enable_backward": False})

LEAVES = wp.constant(RUN // LEAF)


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


@wp.struct
class Carrier:
    """Where a cloud is: a turn, a place and a scale of its points."""

    turn: wp.mat33
    origin: wp.vec3
    scale: float


@wp.func
def carrier_of(
    frames: Frames, cloud: Cloud, b: int, hand: int, run: int, object_scale: wp.array(dtype=float)
) -> Carrier:
    """Returns what carries a run: a link of `hand`, or the object where that is -1."""
    carrier = Carrier()
    if hand >= 0:
        link = cloud.link[cloud.run_first[run]]
        carrier.turn = frames.rotation[b, hand, link]
        carrier.origin = frames.translation[b, hand, link]
        carrier.scale = 1.0
    else:
        carrier.turn = wp.identity(n=3, dtype=float)
        carrier.origin = wp.vec3(0.0, 0.0, 0.0)
        carrier.scale = object_scale[b]
    return carrier


@wp.func
def bit_of(s: int) -> wp.uint64:
    """Returns the bit that stands for a shape; more than 64 share them."""
    return wp.uint64(1) << wp.uint64(s % 64)


@wp.func
def touches_ball(shapes: Shapes, frames: Frames, center: wp.vec3, radius: float, b: int, h: int, s: int) -> bool:
    """Whether the ball around a shape's bound touches a ball."""
    far = radius + shapes.bound_radius[h, s]
    return wp.length_sq(center - frames.bound[b, h, s]) <= far * far


@wp.func
def is_near(shapes: Shapes, frames: Frames, center: wp.vec3, radius: float, b: int, h: int, s: int) -> bool:
    """Whether a shape's bound touches a ball; a far shape costs one test."""
    if not touches_ball(shapes, frames, center, radius, b, h, s):
        return False
    local = wp.transpose(frames.shape_rotation[b, h, s]) * (center - frames.bound[b, h, s])
    return rounded_box(local, shapes.bound_extent[h, s], radius).distance <= 0.0


@wp.func
def shapes_near_run(
    shapes: Shapes, frames: Frames, cloud: Cloud, carrier: Carrier, b: int, h: int, run: int
) -> wp.uint64:
    """Returns the shapes of a hand whose bounds touch the ball around a run."""
    center = carrier.origin + carrier.turn * (carrier.scale * cloud.run_center[run])
    radius = carrier.scale * cloud.run_radius[run]
    near = wp.uint64(0)
    for s in range(shapes.link.shape[0]):
        if is_near(shapes, frames, center, radius, b, h, s):
            near = near | bit_of(s)
    return near


@wp.struct
class Push:
    """The deepest shape around a point, -1 for none, with depth and the gradient of that by the shape's place."""

    shape: int
    depth: float
    force: wp.vec3


@wp.func
def deeper(push: Push, shapes: Shapes, frames: Frames, place: wp.vec3, b: int, h: int, s: int) -> Push:
    """Returns what a shape does to a point where that is deeper in it than in those before, else the push of these."""
    reach = shapes.bound_extent[h, s]
    local = wp.transpose(frames.shape_rotation[b, h, s]) * (place - frames.shape_translation[b, h, s])
    off = local - shapes.bound_center[h, s]
    if wp.abs(off[0]) <= reach[0] and wp.abs(off[1]) <= reach[1] and wp.abs(off[2]) <= reach[2]:
        side = side_of_shape(shapes, h, s, local)
        if -side.distance > push.depth:
            push.shape = s
            push.depth = -side.distance
            push.force = frames.shape_rotation[b, h, s] * side.gradient
    return push


@wp.func
def sift(
    near: wp.array3d(dtype=int),
    ball: wp.array3d(dtype=wp.vec4),
    b: int,
    h: int,
    first: int,
    last: int,
    center: wp.vec3,
    radius: float,
    kept: int,
) -> int:
    """Returns how many of the shapes near[first:last] touch a ball; near[kept:] begins with them."""
    count = int(0)
    for k in range(first, last):
        s = near[b, h, k]
        other = ball[b, h, s]
        away = wp.vec3(other[0], other[1], other[2]) - center
        far = other[3] + radius
        if wp.length_sq(away) <= far * far:
            near[b, h, kept + count] = s
            count += 1
    return count


@wp.kernel
def penetrations(
    shapes: Shapes,
    frames: Frames,
    cloud: Cloud,
    hand: int,
    first_hand: int,
    object_scale: wp.array(dtype=float),
    pushes: Pushes,
    depth: wp.array3d(dtype=float),
    force: wp.array3d(dtype=wp.vec3),
    moment: wp.array3d(dtype=wp.vec3),
):
    """Adds up what the points of a cloud do to each shape of a hand, for a CPU: from groups to runs, leaves and points.

    Fewer and fewer shapes are near: lists of them follow each other in `near`. `hand` carries the cloud; -1 is the
    object.
    """
    b, tested = wp.tid()
    h = first_hand + tested
    near, ball = pushes.near, pushes.ball
    count = shapes.link.shape[0]
    for s in range(count):
        near[b, h, s] = s
        depth[b, h, s] = 0.0
        force[b, h, s] = wp.vec3(0.0, 0.0, 0.0)
        moment[b, h, s] = wp.vec3(0.0, 0.0, 0.0)
    for group in range(cloud.group_first.shape[0]):
        first_run = cloud.group_first[group]
        carrier = carrier_of(frames, cloud, b, hand, first_run, object_scale)
        turn, origin, scale = carrier.turn, carrier.origin, carrier.scale
        for s in range(count):  # to the cloud's coordinates, where the balls of its parts are
            center = wp.transpose(turn) * (frames.bound[b, h, s] - origin) / scale
            ball[b, h, s] = wp.vec4(center[0], center[1], center[2], shapes.bound_radius[h, s] / scale)
        of_group = count
        of_group += sift(near, ball, b, h, 0, count, cloud.group_center[group], cloud.group_radius[group], count)
        if of_group == count:
            continue
        for run in range(first_run, first_run + cloud.group_count[group]):
            of_run = of_group
            of_run += sift(near, ball, b, h, count, of_group, cloud.run_center[run], cloud.run_radius[run], of_group)
            if of_run == of_group:
                continue
            for leaf in range(run * LEAVES, run * LEAVES + LEAVES):
                of_leaf = of_run
                of_leaf += sift(
                    near, ball, b, h, of_group, of_run, cloud.leaf_center[leaf], cloud.leaf_radius[leaf], of_run
                )
                if of_leaf == of_run:
                    continue
                for n in range(cloud.leaf_first[leaf], cloud.leaf_first[leaf] + cloud.leaf_count[leaf]):
                    place = origin + turn * (scale * cloud.point[n])
                    push = Push(-1, 0.0, wp.vec3(0.0, 0.0, 0.0))
                    for k in range(of_run, of_leaf):
                        push = deeper(push, shapes, frames, place, b, h, near[b, h, k])
                    s = push.shape
                    if s >= 0:
                        arm = place - frames.translation[b, h, shapes.link[s]]
                        depth[b, h, s] = depth[b, h, s] + push.depth
                        force[b, h, s] = force[b, h, s] + push.force
                        moment[b, h, s] = moment[b, h, s] + wp.cross(arm, push.force)


@wp.kernel
def near_shapes(
    shapes: Shapes,
    frames: Frames,
    cloud: Cloud,
    hand: int,
    first_hand: int,
    object_scale: wp.array(dtype=float),
    pushes: Pushes,
):
    """Notes the shapes near each run, for `point_penetrations`: with `shape_sums` they are `penetrations` on a GPU."""
    b, tested, run = wp.tid()
    h = first_hand + tested
    carrier = carrier_of(frames, cloud, b, hand, run, object_scale)
    pushes.hit[b, h, run] = shapes_near_run(shapes, frames, cloud, carrier, b, h, run)


@wp.kernel
def point_penetrations(
    shapes: Shapes,
    frames: Frames,
    cloud: Cloud,
    hand: int,
    first_hand: int,
    object_scale: wp.array(dtype=float),
    pushes: Pushes,
):
    """Finds the deepest shape around every point: a run is as long as a GPU's warp, whose threads go the same way."""
    b, tested, n = wp.tid()
    h = first_hand + tested
    run = cloud.run_of[n]
    near = pushes.hit[b, h, run]
    if near != wp.uint64(0):
        carrier = carrier_of(frames, cloud, b, hand, run, object_scale)
        place = carrier.origin + carrier.turn * (carrier.scale * cloud.point[n])
        push = Push(-1, 0.0, wp.vec3(0.0, 0.0, 0.0))
        for s in range(shapes.link.shape[0]):
            if (near & bit_of(s)) != wp.uint64(0):
                push = deeper(push, shapes, frames, place, b, h, s)
        pushes.shape[b, h, n] = push.shape
        if push.shape >= 0:
            pushes.depth[b, h, n] = push.depth
            pushes.force[b, h, n] = push.force
            pushes.place[b, h, n] = place


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
