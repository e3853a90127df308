"""Places contacts, keypoints and inscribed spheres, and measures them against the object and each other."""

import warp as wp

from bimangrasp.energy.fused.geometry import (
    SQUARED_DISTANCE_FLOOR,
    Grid,
    grid_distance,
    nearest_face,
    on_face,
    winding_number,
)
from bimangrasp.energy.fused.records import Candidates, ContactTable, Frames, Keypoints, KeypointTable, Shapes, Surface
from bimangrasp.geometry.distances import SQUARED_NORMAL_FLOOR

wp.set_module_options({"enable_backward": False})


@wp.kernel
def contacts_to_object(
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
