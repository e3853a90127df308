"""Defines the constants of a validation protocol; conf/validation/ has their values and sources."""

from __future__ import annotations

from dataclasses import dataclass

from bimangrasp.errors import InputError
from bimangrasp.validation.sim_poses import GraspPoses


@dataclass
class PhysicsConfig:
    """How MuJoCo integrates and how bodies touch; the integrator is implicitfast, the friction cone elliptic.

    Attributes:
        timestep: s.
        impratio: ratio of frictional to normal constraint impedance.
        noslip_iterations: passes of the solver that undoes slip after the main one.
        contact_dimensions: 1 without friction, 3 with sliding, 4 with torsional, 6 with rolling friction too.
        friction: sliding, torsional (m) and rolling (m) coefficients of every shape.
        hand_solimp, hand_solref: MuJoCo's impedance (five numbers) and reference (two) of contacts of hand shapes.
    """

    timestep: float
    impratio: float
    noslip_iterations: int
    contact_dimensions: int
    friction: list[float]
    hand_solimp: list[float]
    hand_solref: list[float]


@dataclass
class HandDynamicsConfig:
    """How hands move: position actuators on all joints, the root free or fixed.

    Attributes:
        floating: the root is a free body, pulled to its target by a weld; else it is at its target at all times.
        weld_solimp: MuJoCo's impedance of that weld, five numbers.
        weld_torquescale: its torque over its force, m.
        density: of all shapes, kg/m3; a hand description has no masses.
        shapeless_mass, shapeless_inertia: kg and kg m2 of links without shapes.
        kp, kd: gains of the actuators, N m/rad and N m s/rad.
        force_limit: largest torque of an actuator, N m.
        joint_damping: N m s/rad.
        joint_armature: inertia of the drive, kg m2.
        joint_frictionloss: dry friction, N m.
    """

    floating: bool
    weld_solimp: list[float]
    weld_torquescale: float
    density: float
    shapeless_mass: float
    shapeless_inertia: float
    kp: float
    kd: float
    force_limit: float
    joint_damping: float
    joint_armature: float
    joint_frictionloss: float


@dataclass
class TrialConfig:
    """What is done to a grasp.

    Attributes:
        waypoints: the poses that hands go through, of pre_grasp, grasp, squeeze; they start in the first one.
        stages: steps in which the target moves from one waypoint to the next.
        steps_per_stage: simulation steps after each of them.
        push_acceleration: the push on the object over its mass, m/s2.
        looks: how often the object is looked at while it is pushed.
        steps_per_look: simulation steps before each look.
    """

    waypoints: list[str]
    stages: int
    steps_per_stage: int
    push_acceleration: float
    looks: int
    steps_per_look: int


@dataclass
class LimitsConfig:
    """When a grasp fails; a limit that a protocol does not have is infinite.

    Attributes:
        hand_object_penetration, hand_hand_penetration: largest depth at the first waypoint, m.
        total_penetration: largest sum of the depths of hand in object, hand in hand and hand in itself there, m.
        displacement: the object must move less than this, m.
        rotation: the object must turn by less than this, rad.
        touch: a hand must touch the object when a push ends.
        bearing_force: a hand bears load when it presses on the object with more than this in all directions, N.
    """

    hand_object_penetration: float
    hand_hand_penetration: float
    total_penetration: float
    displacement: float
    rotation: float
    touch: bool
    bearing_force: float


@dataclass
class ProtocolConfig:
    """A protocol: everything that decides a verdict, but for the hands, the object and the poses.

    Attributes:
        name: under which figures are reported.
        object_mass: kg at any size, or null for a mass by density.
        object_density: kg/m3, or null for a given mass.
        physics: see `PhysicsConfig`.
        hand: see `HandDynamicsConfig`.
        trial: see `TrialConfig`.
        limits: see `LimitsConfig`.
    """

    name: str
    object_mass: float | None
    object_density: float | None
    physics: PhysicsConfig
    hand: HandDynamicsConfig
    trial: TrialConfig
    limits: LimitsConfig


def check_protocol(protocol: ProtocolConfig) -> None:
    """Refuses a protocol that cannot be simulated.

    Raises:
        InputError: naming the key, its value and what is wanted.
    """
    if (protocol.object_mass is None) == (protocol.object_density is None):
        raise InputError(
            f"protocol {protocol.name!r} has object_mass={protocol.object_mass} and "
            f"object_density={protocol.object_density}; give one of them and set the other to null"
        )
    unknown = [name for name in protocol.trial.waypoints if name not in GraspPoses._fields]
    if unknown or not protocol.trial.waypoints:
        raise InputError(
            f"protocol {protocol.name!r} has trial.waypoints={list(protocol.trial.waypoints)}; wanted at least one of "
            f"{', '.join(GraspPoses._fields)}"
        )
    for name, wanted in (("friction", 3), ("hand_solimp", 5), ("hand_solref", 2)):
        given = list(getattr(protocol.physics, name))
        if len(given) != wanted:
            raise InputError(f"protocol {protocol.name!r} has physics.{name}={given}; wanted {wanted} numbers")
