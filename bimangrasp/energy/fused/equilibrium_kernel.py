"""Computes the residual wrench of all contacts of a sample, with its gradient by the contact points."""

from functools import cache

import warp as wp

from bimangrasp.energy.fused.records import ContactTable, Weights, Wrenches
from bimangrasp.energy.wrench import LEVER, ROUNDS, SMALLEST_RESIDUAL
from bimangrasp.energy_terms import Slot

REACH = wp.constant(wp.float64(LEVER))
FLOOR = wp.constant(wp.float64(SMALLEST_RESIDUAL))
CORRECTIONS = wp.constant(ROUNDS)


@cache
def equilibrium_kernel(contacts: int) -> wp.Kernel:
    """Returns the kernel for so many contacts of both hands together; see `residual_wrench`."""
    Forces = wp.types.matrix(shape=(contacts, 3), dtype=wp.float64)
    half, equal = contacts // 2, wp.constant(wp.float64(1.0 / contacts))

    @wp.kernel(enable_backward=False, module="unique")
    def equilibrium(
        table: ContactTable,
        friction_coefficient: float,
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
                    best = inward - friction * tangent / wp.max(length, FLOOR)
            by_force = best - net
            by_torque = wp.cross(table.point[b, chosen // half, chosen % half], best) / REACH - twist
            squared = wp.length_sq(by_force) + wp.length_sq(by_torque)
            share = -(wp.dot(net, by_force) + wp.dot(twist, by_torque)) / wp.max(squared, FLOOR)
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
        lever = twist / (wp.max(residual, FLOOR) * REACH)
        for i in range(contacts):
            force = wp.vec3d(forces[i, 0], forces[i, 1], forces[i, 2])
            push = wp.float64(weights[Slot.equilibrium]) * wp.cross(force, lever)
            wrenches.closure[b, i // half, i % half] = wrenches.closure[b, i // half, i % half] + wp.vec3(push)

    return equilibrium
