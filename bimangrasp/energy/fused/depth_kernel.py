"""Finds how deep the hands' inscribed spheres are in the object, with force and moment on their links."""

import warp as wp

from bimangrasp.energy.fused.geometry import Grid, grid_distance
from bimangrasp.energy.fused.records import Frames, Shapes

wp.set_module_options({"enable_backward": False})


@wp.struct
class Spheres:
    """Spheres inside the shapes: (S) first of a shape and how many, (2, K) center in the link and radius."""

    first: wp.array(dtype=int)
    count: wp.array(dtype=int)
    center: wp.array2d(dtype=wp.vec3)
    radius: wp.array2d(dtype=float)


@wp.kernel
def depths(
    shapes: Shapes,
    spheres: Spheres,
    frames: Frames,
    grid: Grid,
    object_scale: wp.array(dtype=float),
    depth: wp.array3d(dtype=float),
    force: wp.array3d(dtype=wp.vec3),
    moment: wp.array3d(dtype=wp.vec3),
):
    """Adds up how deep the spheres of a shape are in the object, with force, and moment about the link's origin."""
    b, h, s = wp.tid()
    link = shapes.link[s]
    turn = frames.rotation[b, h, link]
    scale = object_scale[b]
    deep = float(0.0)
    push = wp.vec3(0.0, 0.0, 0.0)
    twist = wp.vec3(0.0, 0.0, 0.0)
    for k in range(spheres.first[s], spheres.first[s] + spheres.count[s]):
        arm = turn * spheres.center[h, k]
        side = grid_distance((frames.translation[b, h, link] + arm) / scale, grid)
        over = spheres.radius[h, k] - scale * side.distance
        if over > 0.0:
            deep += over
            push -= side.gradient
            twist -= wp.cross(arm, side.gradient)
    depth[b, h, s] = deep
    force[b, h, s] = push
    moment[b, h, s] = twist
