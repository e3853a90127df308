"""Holds the settings of poses, protocols and near-duplicates; values and sources stand in conf/. Imports no PyTorch."""

from __future__ import annotations

import math
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Annotated, Any

from bimangrasp.builtin import install_command
from bimangrasp.errors import InputError
from bimangrasp.ranges import (
    NOT_NEGATIVE,
    POSITIVE,
    TEXT,
    Checked,
    Rule,
    among,
    at_least,
    between,
    numbers,
    several_of,
)

MUJOCO, MUJOCO_WARP = "mujoco", "mujoco_warp"
STAGES = ("pre_grasp", "grasp", "squeeze")
"""The poses that a hand goes through when it is simulated."""
DISTANCE = Rule(lambda value: value >= 0, "a number, 0 or more")
"""Between grasps that count as one."""
RESIDUAL = Rule(lambda value: value >= 0, "a number, 0 or more; inf for no limit (.inf in a YAML file)")
"""A share of forces."""
OPENINGS = Rule(
    lambda value: len(value) > 0 and all(len(pair) == 2 and all(0 <= x < math.inf for x in pair) for pair in value),
    "a list of pairs [clearance, retreat], each 0 or more, m",
)
"""Ways to open a hand."""


@dataclass
class PoseConfig(Checked):
    """How pre-grasp and squeeze are made of a grasp.

    Attributes:
        rule: "forces" opens the joints as "contacts" does, in the first way that is free, and squeezes with balanced
            forces; "contacts" turns the joints so that each contact moves outward along its normal; "palm" turns every
            joint that closes the hand back by one angle; "none" leaves the joints.
        clearance: how far "contacts" moves each contact, m.
        damping: of that motion, m; contacts that the joints move by less than this a radian hardly count.
        opening: of "palm", rad.
        retreat: how far the hands draw back against their palm normals, m; not of "forces".
        squeeze: the squeeze is grasp + squeeze * (grasp - pre-grasp) on the joints; 1 as in DexGraspBench; not of
            "forces".
        openings: clearance and retreat of "forces", m, in the order in which they are tried.
        free_depth: a pre-grasp is free when no hand stands deeper in the object or the other hand, m.
        friction: coefficient of the cones in which the forces of the squeeze stay.
        evenness: weight of even shares of the contacts against their net wrench.
        total_force: sum of the forces' normal parts over both hands, N.
        closing_damping: of the motion that closes the gaps between contacts and object, m, as `damping`.
        root_compliance: how far a floating root yields to a force on the hand, m/N.
        largest_residual: filter=physics rejects a grasp without a simulation whose forces leave more than this share of
            them as a wrench; infinite rejects none.
    """

    rule: Annotated[str, among("forces", "contacts", "palm", "none")]
    clearance: Annotated[float, NOT_NEGATIVE]
    damping: Annotated[float, POSITIVE]
    opening: Annotated[float, NOT_NEGATIVE]
    retreat: Annotated[float, NOT_NEGATIVE]
    squeeze: Annotated[float, NOT_NEGATIVE]
    openings: Annotated[list[Any], OPENINGS]  # OmegaConf refuses whole numbers in a list of lists of floats
    free_depth: Annotated[float, NOT_NEGATIVE]
    friction: Annotated[float, NOT_NEGATIVE]
    evenness: Annotated[float, POSITIVE]
    total_force: Annotated[float, NOT_NEGATIVE]
    closing_damping: Annotated[float, POSITIVE]
    root_compliance: Annotated[float, NOT_NEGATIVE]
    largest_residual: Annotated[float, RESIDUAL]


@dataclass
class PhysicsConfig(Checked):
    """How MuJoCo integrates and how bodies touch; the integrator is implicitfast, the friction cone elliptic.

    Attributes:
        timestep: s.
        impratio: ratio of frictional to normal constraint impedance.
        noslip_iterations: passes of the solver that undoes slip after the main one.
        noslip: for "all" simulations, or "near": a grasp is simulated without, and again with them where it fails at
            less than these:
        near_displacement: m, of the first push that fails.
        near_rotation: rad, of the same.
        contact_dimensions: 1 without friction, 3 with sliding, 4 with torsional, 6 with rolling friction too.
        friction: sliding, torsional (m) and rolling (m) coefficients of every shape.
        hand_solimp, hand_solref: MuJoCo's impedance (five numbers) and reference (two) of contacts of hand shapes.
    """

    timestep: float
    impratio: float
    noslip_iterations: int
    noslip: Annotated[str, among("all", "near")]
    near_displacement: float
    near_rotation: float
    contact_dimensions: int
    friction: Annotated[list[float], numbers(3)]
    hand_solimp: Annotated[list[float], numbers(5)]
    hand_solref: Annotated[list[float], numbers(2)]


@dataclass
class HandDynamicsConfig(Checked):
    """How hands move: a position actuator on each joint or tendon that is free, the root free or fixed.

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
    weld_solimp: Annotated[list[float], numbers(5)]
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
class TrialConfig(Checked):
    """What is done to a grasp.

    Attributes:
        waypoints: the poses that hands go through, of pre_grasp, grasp, squeeze; they start in the first one.
        stages: steps in which the target moves from one waypoint to the next.
        steps_per_stage: simulation steps after each of them.
        push_acceleration: the push on the object over its mass, m/s2.
        looks: how often the object is looked at while it is pushed.
        steps_per_look: simulation steps before each look.
        rest_displacement, rest_rotation: a push ends early when the object has moved by less than this, m, and turned
            by less than this, rad, since the look before; 0 ends none.
    """

    waypoints: Annotated[list[str], several_of(*STAGES)]
    stages: int
    steps_per_stage: int
    push_acceleration: float
    looks: int
    steps_per_look: int
    rest_displacement: float
    rest_rotation: float


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
class SimulatorConfig(Checked):
    """What simulates, and how much of it at once; all but the first two are of MuJoCo Warp.

    Attributes:
        engine: MUJOCO, on the CPU, or MUJOCO_WARP, on the device of a worker, in single precision and without the
            passes that undo slip; MuJoCo decides what these or rounding might change.
        doubt: share of a limit of displacement or rotation that an object may not come near without such doubt.
        worlds: most simulations at once.
        contacts, constraints: room for the contacts (mean over worlds) and rows of constraints of a world; it is
            doubled where it is too small.
        self_check: how many recorded grasps are judged before any other.
    """

    engine: Annotated[str, among(MUJOCO, MUJOCO_WARP)]
    doubt: Annotated[float, between(0, 1)]
    worlds: Annotated[int, at_least(1)]
    contacts: Annotated[int, at_least(1)]
    constraints: Annotated[int, at_least(1)]
    self_check: Annotated[int, at_least(2)]

    @property
    def is_on_device(self) -> bool:
        """Whether simulations run on the device of a worker."""
        return self.engine == MUJOCO_WARP


@dataclass
class ProtocolConfig(Checked):
    """A protocol: everything that decides a verdict, but for the hands, the object and the poses.

    Attributes:
        name: under which figures are reported.
        simulator: see `SimulatorConfig`.
        object_mass: kg at any size, or null for a mass by density.
        object_density: kg/m3, or null for a given mass.
        physics: see `PhysicsConfig`.
        hand: see `HandDynamicsConfig`.
        trial: see `TrialConfig`.
        limits: see `LimitsConfig`.
    """

    name: Annotated[str, TEXT]
    simulator: SimulatorConfig
    object_mass: float | None
    object_density: float | None
    physics: PhysicsConfig
    hand: HandDynamicsConfig
    trial: TrialConfig
    limits: LimitsConfig

    def __post_init__(self) -> None:
        super().__post_init__()
        if (self.object_mass is None) == (self.object_density is None):
            raise InputError(
                f"protocol {self.name!r} has object_mass={self.object_mass} and object_density={self.object_density}; "
                "give one of them and set the other to null"
            )
        if self.simulator.is_on_device and self.physics.noslip != "near":
            raise InputError(
                f"protocol {self.name!r} has simulator.engine={MUJOCO_WARP} and physics.noslip={self.physics.noslip}: "
                "slip is not undone on a device; set physics.noslip=near, or simulator.engine=mujoco"
            )


def check_installed(protocol: ProtocolConfig) -> None:
    """Refuses a protocol whose simulator is not installed."""
    if protocol.simulator.is_on_device and find_spec(MUJOCO_WARP) is None:
        raise InputError(
            f"validation={protocol.name} simulates in MuJoCo Warp, which is not installed: {install_command('gpu')}, "
            "or validation=bench"
        )


@dataclass(frozen=True)
class DuplicateThresholds(Checked):
    """Two grasps are near-duplicates when for both hands no difference is larger than these.

    Attributes:
        translation: distance of the hands' roots, m.
        rotation: angle of the turn from one root to the other, rad.
        joints: largest difference of a joint, rad.
    """

    translation: Annotated[float, DISTANCE]
    rotation: Annotated[float, DISTANCE]
    joints: Annotated[float, DISTANCE]
