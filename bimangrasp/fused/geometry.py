"""Functions of one thread: distances with their gradients, rotations and their adjoints. No tensor, no array."""

import warp as wp

SQUARED_DISTANCE_FLOOR = wp.constant(1e-8)  # as in signed_distance.py
SQUARED_NORMAL_FLOOR = wp.constant(1e-16)
SMALLEST_NORM = wp.constant(1e-8)  # as in rotation.py
TINY = wp.constant(1.1754943508222875e-38)
FARTHEST = wp.constant(1.0e6)  # m; the search wants a bound
TIE = wp.constant(1.0e-6)  # m; triangles this close to the nearest point may be as near, in float32


@wp.struct
class Side:
    """A signed distance and its gradient at a point."""

    distance: float
    gradient: wp.vec3


@wp.struct
class OnTriangle:
    """The nearest point of a triangle, and on what part of it that lies (as `closest_on_triangle` counts them)."""

    point: wp.vec3
    part: int


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
    outward = flat.gradient[0] / wp.max(axial, TINY)
    side.gradient = wp.vec3(outward * p[0], outward * p[1], flat.gradient[2])
    return side


@wp.func
def closest_on_triangle(p: wp.vec3, a: wp.vec3, b: wp.vec3, c: wp.vec3) -> OnTriangle:
    """Returns the nearest point of a triangle: of its plane where p is over it, else of its edges."""
    corners = wp.matrix_from_rows(a, b, c)
    edges = wp.matrix_from_rows(b - a, c - b, a - c)
    normal = wp.cross(edges[0], edges[1])
    squared = wp.dot(normal, normal)
    found = OnTriangle()
    is_over = squared > 0.0
    least = float(wp.inf)
    for k in range(3):
        edge = edges[k]
        offset = p - corners[k]
        is_over = is_over and wp.dot(wp.cross(edge, offset), normal) >= 0.0
        along = wp.dot(offset, edge) / wp.max(wp.dot(edge, edge), TINY)
        on_edge = corners[k] + wp.clamp(along, 0.0, 1.0) * edge
        away = wp.length_sq(p - on_edge)
        if away < least:
            least = away
            found.point = on_edge
            found.part = k
            if along <= 0.0:
                found.part = 3 + k
            elif along >= 1.0:
                found.part = 3 + (k + 1) % 3
    if is_over:
        found.point = p - normal * (wp.dot(p - a, normal) / squared)
        found.part = 6
    return found


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
def on_face(p: wp.vec3, corners: wp.array2d(dtype=wp.vec3), face: int) -> OnTriangle:
    """Returns the nearest point of one triangle of a table."""
    return closest_on_triangle(p, corners[face, 0], corners[face, 1], corners[face, 2])


@wp.struct
class Near:
    """The nearest point of a mesh and the side: 1 outside, -1 inside, NaN where the query point is not finite."""

    point: wp.vec3
    sign: float


@wp.func
def nearest(
    p: wp.vec3,
    bvh: wp.uint64,
    corners: wp.array2d(dtype=wp.vec3),
    normals: wp.array2d(dtype=wp.vec3),
    first: int,
    is_open: int,
) -> Near:
    """Returns the nearest point of a mesh and the side of p.

    Where triangles lie upon each other or share an edge, several are equally near and may contradict each other on
    the side. Of those the first is taken, as `TriangleMesh` does, and not the one that the search meets first.

    Args:
        p: the point.
        bvh: the mesh that finds the nearest triangle.
        corners: (face, 3) of all meshes.
        normals: (face, 7) outward at the parts of each triangle.
        first: where the mesh's faces begin in the tables.
        is_open: whether the winding number tells the side, and not the normal.
    """
    near = Near()
    near.point = p
    near.sign = wp.nan
    query = wp.mesh_query_point_no_sign(bvh, p, FARTHEST)
    if query.result:
        face = query.face
        on = on_face(p, corners, first + face)
        least = wp.length_sq(p - on.point)
        around = wp.vec3(TIE, TIE, TIE)
        middle = on.point
        for other in wp.mesh_query_aabb(bvh, middle - around, middle + around):
            one = on_face(p, corners, first + other)
            squared = wp.length_sq(p - one.point)
            if squared < least or (squared == least and other < face):
                face = other
                least = squared
                on = one
        near.point = on.point
        near.sign = 1.0
        if is_open != 0:
            if wp.abs(winding_number(p, corners)) >= 0.5:
                near.sign = -1.0
        elif wp.dot(p - on.point, normals[first + face, on.part]) < 0.0:
            near.sign = -1.0
    return near


@wp.func
def unit(v: wp.vec3) -> wp.vec3:
    """Returns v over its length, or over the smallest norm."""
    return v / wp.max(wp.length(v), SMALLEST_NORM)


@wp.func
def unit_adjoint(v: wp.vec3, g: wp.vec3) -> wp.vec3:
    """Returns the gradient by v where g is the one by `unit(v)`."""
    length = wp.length(v)
    if length < SMALLEST_NORM:
        return g / SMALLEST_NORM
    n = v / length
    return (g - n * wp.dot(n, g)) / length


@wp.func
def rotation(a: wp.vec3, b: wp.vec3) -> wp.mat33:
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
    found = Pair()
    found.a = unit_adjoint(a, by_sum + by_difference)
    found.b = unit_adjoint(b, by_sum - by_difference)
    return found
