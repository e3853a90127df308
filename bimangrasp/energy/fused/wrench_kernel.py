"""Computes force closure, wrench volume and residual wrench of all contacts of a sample, with their gradients."""

from functools import cache

import warp as wp

from bimangrasp.energy.fused.geometry import Grid, turn_of_normal
from bimangrasp.energy.fused.records import ContactTable, Weights, Wrenches
from bimangrasp.energy.wrench import LEVER, ROUNDS, SMALLEST_NORMAL, SMALLEST_RESIDUAL, SMALLEST_SINGULAR_VALUE
from bimangrasp.energy_terms import Slot

MOST_SWEEPS = wp.constant(12)  # six to eight do
ORTHOGONAL = wp.constant(wp.float64(1e-14))  # cosine of two rows that counts as a right angle
FLOOR = wp.constant(wp.float64(SMALLEST_SINGULAR_VALUE))
NORMAL_FLOOR = wp.constant(wp.float64(SMALLEST_NORMAL))
REACH = wp.constant(wp.float64(LEVER))
RESIDUAL_FLOOR = wp.constant(wp.float64(SMALLEST_RESIDUAL))
CORRECTIONS = wp.constant(ROUNDS)

Square = wp.types.matrix(shape=(6, 6), dtype=wp.float64)
Values = wp.types.vector(length=6, dtype=wp.float64)


@cache
def wrench_kernel(contacts: int) -> wp.Kernel:
    """Returns the kernel for so many contacts of both hands together, at least six.

    One-sided Jacobi (Hestenes 1958) turns the rows of the grasp matrix until they are orthogonal: row k is then
    s_k v_k, the turns are u_k, and the gradient of s_k is u_k v_k^T. In float64, as `singular_values`.
    """
    Wide = wp.types.matrix(shape=(6, contacts), dtype=wp.float64)
    half = contacts // 2

    @wp.func
    def unit_normal(table: ContactTable, b: int, column: int):
        normal = table.normal[b, column // half, column % half]
        return normal / (wp.length(normal) + NORMAL_FLOOR)

    @wp.kernel(enable_backward=False, module="unique")
    def wrench(table: ContactTable, weights: Weights, terms: wp.array2d(dtype=float), wrenches: Wrenches):
        b = wp.tid()
        rows = Wide()
        turns = Square()
        for k in range(6):
            turns[k, k] = wp.float64(1.0)
        for column in range(contacts):
            normal = unit_normal(table, b, column)
            torque = wp.cross(table.point[b, column // half, column % half], normal)
            for axis in range(3):
                rows[axis, column] = normal[axis]
                rows[3 + axis, column] = torque[axis]
        is_turning = int(1)
        sweep = int(0)
        while is_turning == 1 and sweep < MOST_SWEEPS:
            is_turning = int(0)
            sweep += 1
            for p in range(5):
                for q in range(p + 1, 6):
                    alpha = wp.dot(rows[p], rows[p])
                    beta = wp.dot(rows[q], rows[q])
                    gamma = wp.dot(rows[p], rows[q])
                    if wp.abs(gamma) > ORTHOGONAL * wp.sqrt(alpha * beta):
                        is_turning = int(1)
                        zeta = (beta - alpha) / (wp.float64(2.0) * gamma)
                        tangent = wp.float64(1.0) / (wp.abs(zeta) + wp.sqrt(wp.float64(1.0) + zeta * zeta))
                        if zeta < wp.float64(0.0):
                            tangent = -tangent
                        cosine = wp.float64(1.0) / wp.sqrt(wp.float64(1.0) + tangent * tangent)
                        sine = cosine * tangent
                        for column in range(contacts):
                            first = rows[p, column]
                            second = rows[q, column]
                            rows[p, column] = cosine * first - sine * second
                            rows[q, column] = sine * first + cosine * second
                        for k in range(6):
                            first = turns[k, p]
                            second = turns[k, q]
                            turns[k, p] = cosine * first - sine * second
                            turns[k, q] = sine * first + cosine * second
        values = Values()
        largest = int(0)
        smallest = int(0)
        logs = wp.float64(0.0)
        for k in range(6):
            values[k] = wp.length(rows[k])
            logs += wp.log(wp.max(values[k], FLOOR))
            if values[k] > values[largest]:
                largest = k
            if values[k] < values[smallest]:
                smallest = k
        under = values[smallest] + FLOOR
        ratio = values[largest] / under
        volume = wp.exp(-logs / wp.float64(10.0))
        terms[Slot.force_closure, b] = float(wp.log(ratio + wp.float64(1.0)) / wp.float64(10.0))
        terms[Slot.wrench_volume, b] = float(volume)
        slopes = Values()
        by_ratio = wp.float64(weights[Slot.force_closure]) / (wp.float64(10.0) * (ratio + wp.float64(1.0)))
        for k in range(6):
            if values[k] >= FLOOR:
                slopes[k] = -wp.float64(weights[Slot.wrench_volume]) * volume / (wp.float64(10.0) * values[k])
        slopes[largest] = slopes[largest] + by_ratio / under
        slopes[smallest] = slopes[smallest] - by_ratio * ratio / under
        for k in range(6):
            slopes[k] = slopes[k] / wp.max(values[k], wp.float64(1e-300))
        for column in range(contacts):
            by_torque = wp.vec3d()
            for axis in range(3):
                total = wp.float64(0.0)
                for k in range(6):
                    total += slopes[k] * turns[3 + axis, k] * rows[k, column]
                by_torque[axis] = total
            wrenches.closure[b, column // half, column % half] = wp.vec3(
                wp.cross(unit_normal(table, b, column), by_torque)
            )

    return wrench


@cache
def equilibrium_kernel(contacts: int) -> wp.Kernel:
    """Returns the kernel for so many contacts of both hands together; see `residual_wrench`."""
    Forces = wp.types.matrix(shape=(contacts, 3), dtype=wp.float64)
    half, equal = contacts // 2, wp.constant(wp.float64(1.0 / contacts))

    @wp.kernel(enable_backward=False, module="unique")
    def equilibrium(
        table: ContactTable,
        friction_coefficient: float,
        normal_step: float,
        grid: Grid,
        object_scale: wp.array(dtype=float),
        weights: Weights,
        terms: wp.array2d(dtype=float),
        wrenches: Wrenches,
    ):
        b = wp.tid()
        forces = Forces()
        friction = wp.float64(friction_coefficient)
        for i in range(contacts):
            inward = -table.normal[b, i // half, i % half]
            for axis in range(3):
                forces[i, axis] = equal * inward[axis]
        for _round in range(CORRECTIONS):
            net = wp.vec3d()
            twist = wp.vec3d()
            for i in range(contacts):
                force = wp.vec3d(forces[i, 0], forces[i, 1], forces[i, 2])
                net += force
                twist += wp.cross(table.point[b, i // half, i % half], force) / REACH
            least = wp.float64(wp.inf)
            chosen = int(0)
            best = wp.vec3d()
            for i in range(contacts):
                inward = -table.normal[b, i // half, i % half]
                slope = net + wp.cross(twist, table.point[b, i // half, i % half]) / REACH
                along = wp.dot(slope, inward)
                tangent = slope - along * inward
                length = wp.length(tangent)
                if along - friction * length < least:
                    least = along - friction * length
                    chosen = i
                    best = inward - friction * tangent / wp.max(length, RESIDUAL_FLOOR)
            by_force = best - net
            by_torque = wp.cross(table.point[b, chosen // half, chosen % half], best) / REACH - twist
            squared = wp.length_sq(by_force) + wp.length_sq(by_torque)
            share = -(wp.dot(net, by_force) + wp.dot(twist, by_torque)) / wp.max(squared, RESIDUAL_FLOOR)
            share = wp.clamp(share, wp.float64(0.0), wp.float64(1.0))
            forces = (wp.float64(1.0) - share) * forces
            for axis in range(3):
                forces[chosen, axis] = forces[chosen, axis] + share * best[axis]
        net = wp.vec3d()
        twist = wp.vec3d()
        for i in range(contacts):
            force = wp.vec3d(forces[i, 0], forces[i, 1], forces[i, 2])
            net += force
            twist += wp.cross(table.point[b, i // half, i % half], force) / REACH
        residual = wp.sqrt(wp.length_sq(net) + wp.length_sq(twist))
        terms[Slot.equilibrium, b] = float(residual)
        heading = net / wp.max(residual, RESIDUAL_FLOOR)
        lever = twist / (wp.max(residual, RESIDUAL_FLOOR) * REACH)
        scale = object_scale[b]
        for i in range(contacts):
            force = wp.vec3d(forces[i, 0], forces[i, 1], forces[i, 2])
            push = wp.cross(force, lever)
            if normal_step > 0.0:  # the force turns with the normal
                point = table.point[b, i // half, i % half]
                normal = table.normal[b, i // half, i % half]
                by_heading = heading + wp.cross(lever, point)
                by_normal = wp.dot(normal, force) * by_heading - wp.dot(by_heading, normal) * force
                place = wp.vec3(point / wp.float64(scale))
                turn = turn_of_normal(place, normal_step / scale, wp.vec3(by_normal), grid)
                push += wp.vec3d(turn / scale)
            push *= wp.float64(weights[Slot.equilibrium])
            wrenches.closure[b, i // half, i % half] = wrenches.closure[b, i // half, i % half] + wp.vec3(push)

    return equilibrium
