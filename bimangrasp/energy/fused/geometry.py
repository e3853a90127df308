"""Provides functions of one thread: distances with their gradients, rotations and their adjoints."""

from typing import Any

import warp as wp

SQUARED_DISTANCE_FLOOR = wp.constant(1e-8)  # as in geometry/distances.py
SMALLEST_NORM = 1e-8  # as in geometry/rotation.py
TINY = 1.1754943508222875e-38
FARTHEST = wp.constant(1.0e6)  # m; the search wants a bound
TIE = wp.constant(1.0e-6)  # m; triangles this close to the nearest point that was found may be as near, and
LATERAL_TIE = wp.constant(1.0e-3)  # this share of the distance: 3e-7 of it, float32's rounding, is 8e-4 to the side


@wp.struct
class Side:
    """A signed distance and its gradient at a point."""

    distance: float
    gradient: wp.vec3


@wp.func
def sign(x: float) -> float:
    """Returns -1, 0 or 1."""
    if x > 0.0:
        return 1.0
    if x < 0.0:
        return -1.0
    return 0.0


@wp.func
def rounded_box(p: wp.vec3, extent: wp.vec3, radius: float) -> Side:
    """Returns distance and gradient of a box with these half extents, its surface moved out by `radius`."""
    beyond = wp.vec3(wp.abs(p[0]) - extent[0], wp.abs(p[1]) - extent[1], wp.abs(p[2]) - extent[2])
    over = wp.max(beyond, wp.vec3(0.0, 0.0, 0.0))
    outside = wp.length(over)
    side = Side()
    if outside > 0.0:
        side.distance = outside - radius
        side.gradient = wp.vec3(sign(p[0]) * over[0], sign(p[1]) * over[1], sign(p[2]) * over[2]) / outside
        return side
    axis = int(0)
    if beyond[1] > beyond[0]:
        axis = 1
    if beyond[2] > beyond[axis]:
        axis = 2
    side.distance = beyond[axis] - radius
    gradient = wp.vec3(0.0, 0.0, 0.0)
    gradient[axis] = sign(p[axis])
    side.gradient = gradient
    return side


@wp.func
def cylinder(p: wp.vec3, extent: wp.vec3, radius: float) -> Side:
    """Returns distance and gradient of a cylinder about z: a rounded box in the half plane of axis and point."""
    axial = wp.sqrt(p[0] * p[0] + p[1] * p[1])
    flat = rounded_box(wp.vec3(axial, 0.0, p[2]), extent, radius)
    side = Side()
    side.distance = flat.distance
    outward = flat.gradient[0] / wp.max(axial, float(TINY))
    side.gradient = wp.vec3(outward * p[0], outward * p[1], flat.gradient[2])
    return side


@wp.func
def closest_on_triangle(p: Any, a: Any, b: Any, c: Any):
    """Returns the nearest point of a triangle (of its plane where p is over it, else of its edges), and its part.

    The parts are those of the plain `closest_on_triangle`. In float32 or float64, as the points are.
    """
    corners = wp.matrix_from_rows(a, b, c)
    edges = wp.matrix_from_rows(b - a, c - b, a - c)
    normal = wp.cross(edges[0], edges[1])
    squared = wp.dot(normal, normal)
    point = p
    part = int(6)
    is_over = squared > p.dtype(0.0)
    least = p.dtype(wp.inf)
    for k in range(3):
        edge = edges[k]
        offset = p - corners[k]
        is_over = is_over and wp.dot(wp.cross(edge, offset), normal) >= p.dtype(0.0)
        along = wp.dot(offset, edge) / wp.max(wp.dot(edge, edge), p.dtype(TINY))
        on_edge = corners[k] + wp.clamp(along, p.dtype(0.0), p.dtype(1.0)) * edge
        away = wp.length_sq(p - on_edge)
        if away < least:
            least = away
            point = on_edge
            part = k
            if along <= p.dtype(0.0):
                part = 3 + k
            elif along >= p.dtype(1.0):
                part = 3 + (k + 1) % 3
    if is_over:
        point = p - normal * (wp.dot(p - a, normal) / squared)
        part = 6
    return point, part


@wp.func
def winding_number(p: wp.vec3, corners: wp.array2d(dtype=wp.vec3)) -> float:
    """Returns how often the triangles wrap around a point (van Oosterom and Strackee 1983)."""
    total = float(0.0)
    for f in range(corners.shape[0]):
        a = corners[f, 0] - p
        b = corners[f, 1] - p
        c = corners[f, 2] - p
        la = wp.length(a)
        lb = wp.length(b)
        lc = wp.length(c)
        scale = la * lb * lc + wp.dot(a, b) * lc + wp.dot(b, c) * la + wp.dot(c, a) * lb
        total += wp.atan2(wp.dot(a, wp.cross(b, c)), scale)
    return total / (2.0 * wp.pi)


@wp.func
def on_face(p: Any, corners: Any, face: int):
    """Returns the nearest point of one triangle of a table, and its part."""
    point, part = closest_on_triangle(p, corners[face, 0], corners[face, 1], corners[face, 2])
    return point, part


@wp.func
def nearest_face(p: Any, bvh: wp.uint64, corners: Any, first: int) -> int:
    """Returns the nearest triangle of a mesh, -1 where p is not finite.

    Searched in float32; those as near as that can tell are compared in the precision of the point. Where triangles
    lie upon each other or share an edge, several are equally near and may contradict each other on the side. Of those
    the first is taken, as `TriangleMesh` does, and not the one that the search meets first.

    Args:
        p: the point.
        bvh: the mesh that finds the nearest triangle.
        corners: (face, 3) of all meshes, in the precision of the point.
        first: where the mesh's faces begin in the table.
    """
    face = int(-1)
    query = wp.mesh_query_point_no_sign(bvh, wp.vec3(p), FARTHEST)
    if query.result:
        face = query.face
        middle, _ = on_face(p, corners, first + face)
        least = wp.length_sq(p - middle)
        reach = TIE + LATERAL_TIE * float(wp.sqrt(least))
        around = wp.vec3(reach, reach, reach)
        for other in wp.mesh_query_aabb(bvh, wp.vec3(middle) - around, wp.vec3(middle) + around):
            point, _ = on_face(p, corners, first + other)
            squared = wp.length_sq(p - point)
            if squared < least or (squared == least and other < face):
                face = other
                least = squared
    return face


@wp.struct
class Grid:
    """A `DistanceGrid`: first node, width of a cell, and the signed distances at the nodes."""

    low: wp.vec3
    cell: float
    values: wp.array3d(dtype=float)


@wp.func
def grid_distance(p: wp.vec3, grid: Grid) -> Side:
    """Returns what `DistanceGrid.distance` does, and its gradient."""
    place = (p - grid.low) / grid.cell
    node = wp.vec3i()
    share = wp.vec3()
    within = wp.vec3()
    for axis in range(3):
        last = grid.values.shape[axis] - 1
        inside = wp.clamp(place[axis], 0.0, float(last))
        node[axis] = wp.clamp(int(inside), 0, last - 1)  # NaN has no whole number
        share[axis] = inside - float(node[axis])
        within[axis] = wp.where(inside == place[axis], 1.0, 0.0)
    total = float(0.0)
    slope = wp.vec3()
    for i in range(2):
        for j in range(2):
            for k in range(2):
                value = grid.values[node[0] + i, node[1] + j, node[2] + k]
                u = wp.where(i == 1, share[0], 1.0 - share[0])
                v = wp.where(j == 1, share[1], 1.0 - share[1])
                w = wp.where(k == 1, share[2], 1.0 - share[2])
                total += u * v * w * value
                slope += value * wp.vec3(float(2 * i - 1) * v * w, float(2 * j - 1) * u * w, float(2 * k - 1) * u * v)
    beyond = place - wp.vec3(float(node[0]) + share[0], float(node[1]) + share[1], float(node[2]) + share[2])
    away = wp.length(beyond)
    side = Side()
    side.distance = total + grid.cell * away
    side.gradient = wp.cw_mul(slope, within) / grid.cell
    if away > 0.0:
        side.gradient += beyond / away
    return side


@wp.func
def turn_of_normal(p: wp.vec3, step: float, of: wp.vec3, grid: Grid) -> wp.vec3:
    """Returns the gradient of the normal's part along `of`, where `DistanceGrid.normal_turn` has that of the normal."""
    turn = wp.vec3()
    for axis in range(3):
        offset = wp.vec3()
        offset[axis] = step
        ahead = wp.normalize(grid_distance(p + offset, grid).gradient)
        behind = wp.normalize(grid_distance(p - offset, grid).gradient)
        turn[axis] = wp.dot(of, ahead - behind) / (2.0 * step)
    return turn


@wp.func
def unit(v: Any):
    """Returns v over its length, or over the smallest norm."""
    return v / wp.max(wp.length(v), v.dtype(SMALLEST_NORM))


@wp.func
def unit_adjoint(v: wp.vec3, g: wp.vec3) -> wp.vec3:
    """Returns the gradient by v where g is the one by `unit(v)`."""
    length = wp.length(v)
    if length < float(SMALLEST_NORM):
        return g / float(SMALLEST_NORM)
    n = v / length
    return (g - n * wp.dot(n, g)) / length


@wp.func
def rotation(a: Any, b: Any):
    """Returns the matrix of two vectors, as `rot6d_to_matrix`."""
    x = unit(a)
    y = unit(b)
    middle = unit(x + y)
    across = unit(x - y)
    first = unit(middle + across)
    second = unit(middle - across)
    return wp.matrix_from_cols(first, second, unit(wp.cross(first, second)))


@wp.struct
class Pair:
    """Two vectors."""

    a: wp.vec3
    b: wp.vec3


@wp.func
def rotation_adjoint(a: wp.vec3, b: wp.vec3, g1: wp.vec3, g2: wp.vec3, g3: wp.vec3) -> Pair:
    """Returns the gradients by a and b where g1 to g3 are those by the columns of `rotation(a, b)`."""
    x = unit(a)
    y = unit(b)
    middle = unit(x + y)
    across = unit(x - y)
    first = unit(middle + across)
    second = unit(middle - across)
    g = unit_adjoint(wp.cross(first, second), g3)
    plus = unit_adjoint(middle + across, g1 + wp.cross(second, g))
    minus = unit_adjoint(middle - across, g2 + wp.cross(g, first))
    by_sum = unit_adjoint(x + y, plus + minus)
    by_difference = unit_adjoint(x - y, plus - minus)
    gradients = Pair()
    gradients.a = unit_adjoint(a, by_sum + by_difference)
    gradients.b = unit_adjoint(b, by_sum - by_difference)
    return gradients
