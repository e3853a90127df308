"""Finds how deep points of a cloud are in the hands' shapes, with the forces on these."""

import warp as wp

from bimangrasp.energy.fused.geometry import SQUARED_DISTANCE_FLOOR, Side, cylinder, nearest_face, on_face, rounded_box
from bimangrasp.energy.fused.records import CYLINDER, MESH, Cloud, Frames, Pushes, Shapes

wp.set_module_options({"enable_backward": False})


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
def is_near(shapes: Shapes, frames: Frames, center: wp.vec3, radius: float, b: int, h: int, s: int) -> bool:
    """Whether a shape's bound touches a ball; a far shape costs one test."""
    reach = shapes.bound_extent[h, s]
    away = center - frames.bound[b, h, s]
    far = radius + wp.length(reach)
    if wp.length_sq(away) > far * far:
        return False
    return rounded_box(wp.transpose(frames.shape_rotation[b, h, s]) * away, reach, radius).distance <= 0.0


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


@wp.func
def push_of_point(
    shapes: Shapes,
    frames: Frames,
    cloud: Cloud,
    carrier: Carrier,
    near: wp.uint64,
    b: int,
    h: int,
    n: int,
    pushes: Pushes,
):
    """Writes what a point does to the deepest of the near shapes around it."""
    place = carrier.origin + carrier.turn * (carrier.scale * cloud.point[n])
    deepest = int(-1)
    depth = float(0.0)
    force = wp.vec3(0.0, 0.0, 0.0)
    for s in range(shapes.link.shape[0]):
        if (near & bit_of(s)) != wp.uint64(0):
            reach = shapes.bound_extent[h, s]
            local = wp.transpose(frames.shape_rotation[b, h, s]) * (place - frames.shape_translation[b, h, s])
            off = local - shapes.bound_center[h, s]
            if wp.abs(off[0]) <= reach[0] and wp.abs(off[1]) <= reach[1] and wp.abs(off[2]) <= reach[2]:
                side = side_of_shape(shapes, h, s, local)
                if -side.distance > depth:
                    depth = -side.distance
                    deepest = s
                    force = frames.shape_rotation[b, h, s] * side.gradient
    pushes.shape[b, h, n] = deepest
    if deepest >= 0:
        pushes.depth[b, h, n] = depth
        pushes.force[b, h, n] = force
        pushes.place[b, h, n] = place


@wp.kernel
def penetrations(
    shapes: Shapes,
    frames: Frames,
    cloud: Cloud,
    hand: int,
    first_hand: int,
    object_scale: wp.array(dtype=float),
    pushes: Pushes,
):
    """Finds the deepest shape around every point of a run, for one hand; far shapes and far runs cost one test.

    For a CPU, to which one shape after another, each with all points, is cheaper than points with all shapes. `hand`
    carries the cloud; -1 is the object.
    """
    b, tested, run = wp.tid()
    h = first_hand + tested
    first = cloud.run_first[run]
    carrier = carrier_of(frames, cloud, b, hand, run, object_scale)
    turn, origin, scale = carrier.turn, carrier.origin, carrier.scale
    center = origin + turn * (scale * cloud.run_center[run])
    radius = scale * cloud.run_radius[run]
    hit = wp.uint64(0)
    is_written = int(0)
    for s in range(shapes.link.shape[0]):
        if is_near(shapes, frames, center, radius, b, h, s):
            reach = shapes.bound_extent[h, s]
            inverse = wp.transpose(frames.shape_rotation[b, h, s])
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
                hit = hit | bit_of(s)
    pushes.hit[b, h, run] = hit


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
    """Notes the shapes near each run, for `point_penetrations`: both together are `penetrations` on a GPU."""
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
        push_of_point(shapes, frames, cloud, carrier, near, b, h, n, pushes)


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
