"""Names the causes why grasps fail, and the settings to try; imports no PyTorch."""

from __future__ import annotations

import math
from enum import Enum
from typing import NamedTuple


class Cause(Enum):
    """Causes in the order in which they are looked for: what comes first explains what comes after it."""

    NOT_FINITE = "the optimization failed"
    PALM = "a palm does not face the object"
    REACH = "fingers cannot reach from one side to the other"
    CONTACT = "fingers do not touch the object"
    LIMITS = "joints stand at their limits"
    HANDS = "the hands are in each other"
    DEPTH = "a hand starts too deep in the object, the other hand or itself"
    BALANCE = "the forces of the contacts cannot balance"
    MOTORS = "the motors are too weak for the squeeze"
    MOVED = "the object moved away when pushed"
    TURNED = "the object turned when pushed"
    LOST = "no hand touched the object at the end of a push"
    SIMULATION = "the simulation diverged"


ADVICE = {
    Cause.NOT_FINITE: "use the preset's step sizes, or make rounds longer (num_iterations)",
    Cause.PALM: "look at hand.palm_normal in the picture of mode=hand; lower initialization.tilt_rad and cone_rad",
    Cause.REACH: "make the objects smaller (object.sizes), or take a larger hand",
    Cause.CONTACT: "raise energy.w_dis or num_iterations; allow other links to touch (hand.candidates.palmar)",
    Cause.LIMITS: "set hand.joint_mean nearer to the middle of these joints' ranges, or raise energy.w_joints",
    Cause.HANDS: "raise energy.w_spen, or make the objects larger (object.sizes)",
    Cause.DEPTH: "raise energy.w_depth, between hands energy.w_spen, or open wider before the grasp (poses.openings)",
    Cause.BALANCE: "raise energy.w_equilibrium, contacts_per_hand or num_iterations",
    Cause.MOTORS: "set validation.hand.force_limit to what the motors can do, or squeeze less (poses.total_force)",
    Cause.MOVED: "squeeze harder (poses.total_force), or raise energy.w_equilibrium and num_iterations",
    Cause.TURNED: "raise contacts_per_hand, so that contacts stand apart, or squeeze harder (poses.total_force)",
    Cause.LOST: "squeeze harder (poses.total_force), or raise energy.w_dis",
    Cause.SIMULATION: "shorten validation.physics.timestep; check the masses and shapes of the hand's file",
}
"""What to try where a run's files tell no more than the cause."""


class Finding(NamedTuple):
    """A cause, as it was found in a batch of grasps.

    Attributes:
        cause: which.
        failed: grasps that failed, and of which this is the first cause that applies.
        held: grasps that hold although it applies: where these are many, it is no defect.
        measured: the figures by which it was found, for people.
        advice: the settings to try.
    """

    cause: Cause
    failed: int
    held: int
    measured: str
    advice: str


class HandFigures(NamedTuple):
    """How large a hand is beside an object, and its weakest finger.

    Attributes:
        reach: largest distance of a contact candidate from the palm, m.
        opening: largest distance between candidates of two fingers, m.
        width: smallest width of the object, over all directions, m.
        extent: largest extent of the object along its axes, m.
        weakest: its weakest finger: the one that touches the object in the fewest grasps.
        weakest_touch: in which share of the grasps of both hands it does.
        other_touch: the mean share of the other fingers; NaN without others.
    """

    reach: float
    opening: float
    width: float
    extent: float
    weakest: str
    weakest_touch: float
    other_touch: float

    @property
    def lines(self) -> list[str]:
        """What they say, for people: sizes, and the weakest finger."""
        others = "" if math.isnan(self.other_touch) else f", the others in {self.other_touch:.0%}"
        return [
            f"a hand reaches {self.reach:.3f} m from its palm and opens {self.opening:.3f} m; "
            f"the object is {self.width:.3f} m wide where it is narrowest, and {self.extent:.3f} m long",
            f"weakest finger: {self.weakest}, touching in {self.weakest_touch:.0%} of the grasps{others}",
        ]


class Diagnosis(NamedTuple):
    """Why a pair of hands holds an object in no more grasps. `str(diagnosis)` is for people.

    Attributes:
        code: the object.
        tried, held: how many grasps there were, and how many of them hold.
        findings: the causes, that of most failed grasps first.
        figures: sizes, and the weakest finger.
    """

    code: str
    tried: int
    held: int
    findings: list[Finding]
    figures: HandFigures

    def __str__(self) -> str:
        lines = [
            f"{self.code}: {self.held} of {self.tried} grasps hold{'' if self.findings else ', nothing stands out'}"
        ]
        for finding in self.findings:
            counted = f"{finding.failed} failed" if finding.failed else f"{finding.held} hold all the same"
            also = f" ({finding.held} that hold have it, too)" if finding.failed and finding.held else ""
            lines += [
                f"  {counted}: {finding.cause.value}{also}",
                f"      {finding.measured}",
                f"      try: {finding.advice}",
            ]
        return "\n".join([*lines, *(f"  {line}" for line in self.figures.lines)])


CAUSE_OF_REASON = {
    "not_finite": Cause.NOT_FINITE,
    "physics/not_finite": Cause.NOT_FINITE,
    "physics/penetration": Cause.DEPTH,
    "physics/simulation_failed": Cause.SIMULATION,
    "physics/moved": Cause.MOVED,
    "physics/turned": Cause.TURNED,
    "physics/lost_contact": Cause.LOST,
    "physics/unbalanced": Cause.BALANCE,
    "energy/force_closure": Cause.BALANCE,
    "energy/distance": Cause.CONTACT,
    "energy/penetration": Cause.DEPTH,
    "energy/depth": Cause.DEPTH,
    "energy/equilibrium": Cause.BALANCE,
}
"""Reject reason of a run -> the cause of which it speaks; near-duplicates have none."""


def cause_of_reason(reason: str) -> Cause | None:
    """Returns the cause of which a run's reject reason speaks; None for near-duplicates."""
    return CAUSE_OF_REASON.get(reason)
