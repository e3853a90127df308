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
