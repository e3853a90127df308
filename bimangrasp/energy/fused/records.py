"""Declares the records that kernels read and write: hands, object, and the workspace of a batch.

B samples, 2 hands, L links, S shapes a hand, C contacts and K keypoints a hand, N points in R runs. A force is the
gradient of the total by the place of a point that moves with a link; all forces of a link together, with their
moments about its origin, give the gradient by every joint above it in one walk down the tree.
"""

import warp as wp

from bimangrasp.energy_terms import ENERGY_TERMS

BOX, CYLINDER, MESH = wp.constant(0), wp.constant(1), wp.constant(2)
LEAF, GROUP = 4, 8
ROOT_DOF = wp.constant(9)  # translation and rot6d come before the joints

Weights = wp.types.vector(length=len(ENERGY_TERMS), dtype=float)
"""Weights of the terms in the total, by `Slot`."""


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
class Couplings:
    """How joints follow from coordinates, for N nodes of which the joints are the first; see `CoordinateTable`.

    Attributes:
        order, parent, coordinate: (N) see there.
        knots: (2, N, S - 1) with one more, infinity, where there are none.
        polynomial: (2, N, 5 S) the five coefficients of a piece after those of the one before.
        value, slope: (B, 2, N) of each node, and by its coordinate.
    """

    order: wp.array(dtype=int)
    parent: wp.array(dtype=int)
    coordinate: wp.array(dtype=int)
    knots: wp.array3d(dtype=wp.float64)
    polynomial: wp.array3d(dtype=wp.float64)
    value: wp.array3d(dtype=wp.float64)
    slope: wp.array3d(dtype=wp.float64)


@wp.struct
class Shapes:
    """The collision shapes of both hands; see `HandShapes`.

    Attributes:
        link, kind: (S) carrying link; BOX, CYLINDER or MESH.
        rotation, translation: (2, S) pose in the link.
        extent, radius: (2, S).
        bound_center, bound_extent, bound_radius: (2, S) box around the shape, and the ball around that.
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
    bound_radius: wp.array2d(dtype=float)
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

    Runs are in groups, and the points of a run in leaves: consecutive ones of one link.

    Attributes:
        link: (N) link that carries a point; -1: the object.
        point: (N) the points.
        run_of: (N) the run of a point.
        leaf_first, leaf_count, leaf_center, leaf_radius: (R * RUN / LEAF) points of a leaf, and a ball around them; so
            many leaves for each run, the last ones of a short run without points.
        run_first, run_count, run_center, run_radius: (R) points of a run, and a ball around them.
        group_first, group_count, group_center, group_radius: (G) runs of a group, and a ball around all their points.
    """

    link: wp.array(dtype=int)
    point: wp.array(dtype=wp.vec3)
    run_of: wp.array(dtype=int)
    leaf_first: wp.array(dtype=int)
    leaf_count: wp.array(dtype=int)
    leaf_center: wp.array(dtype=wp.vec3)
    leaf_radius: wp.array(dtype=float)
    run_first: wp.array(dtype=int)
    run_count: wp.array(dtype=int)
    run_center: wp.array(dtype=wp.vec3)
    run_radius: wp.array(dtype=float)
    group_first: wp.array(dtype=int)
    group_count: wp.array(dtype=int)
    group_center: wp.array(dtype=wp.vec3)
    group_radius: wp.array(dtype=float)


@wp.struct
class Pushes:
    """What a cloud does to the shapes of the tested hands.

    Attributes:
        shape: (B, 2, N) the deepest shape around a point, -1 for none; written where a shape is near.
        depth: (B, 2, N) how deep, m; it and the others are written where there is a shape.
        force, place: (B, 2, N) gradient of the depth by the shape's place, and where.
        hit: (B, 2, R) bit s % 64 for each shape s that is near a run.
        near, ball: (B, 2, 4 S) and (B, 2, S) the shapes near a group, on CPUs, where the others are empty.
    """

    shape: wp.array3d(dtype=int)
    depth: wp.array3d(dtype=float)
    force: wp.array3d(dtype=wp.vec3)
    place: wp.array3d(dtype=wp.vec3)
    hit: wp.array3d(dtype=wp.uint64)
    near: wp.array3d(dtype=int)
    ball: wp.array3d(dtype=wp.vec4)


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
