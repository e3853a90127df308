"""Computes force closure and wrench volume of all contacts of a sample, with their gradient by the contact points."""

from functools import cache

import warp as wp

from bimangrasp.energy.fused.records import ContactTable, Weights, Wrenches
from bimangrasp.energy.wrench import SMALLEST_NORMAL, SMALLEST_SINGULAR_VALUE
from bimangrasp.energy_terms import Slot

MOST_SWEEPS = wp.constant(12)  # six to eight do
ORTHOGONAL = wp.constant(wp.float64(1e-14))  # cosine of two rows that counts as a right angle
FLOOR = wp.constant(wp.float64(SMALLEST_SINGULAR_VALUE))
NORMAL_FLOOR = wp.constant(wp.float64(SMALLEST_NORMAL))

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
