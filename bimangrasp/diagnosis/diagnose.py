"""Diagnoses a batch of grasps of one object: which causes keep how many of them from holding, by what figures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float

from bimangrasp.diagnosis.causes import ADVICE, Cause, Diagnosis, Finding, HandFigures
from bimangrasp.diagnosis.hand_shape import closing_direction
from bimangrasp.diagnosis.measures import Measures, finger_touch, hand_size, measures_of, object_size
from bimangrasp.hands.model import HandModel
from bimangrasp.validation.config import PoseConfig, ProtocolConfig
from bimangrasp.validation.evaluate import Evaluation
from bimangrasp.validation.pose_rules import ObjectGrasps
from bimangrasp.validation.verdict import Reason

FACING_RAD = np.pi / 2
"""A palm, or the side to which fingers close, that is turned farther from its contacts does not face them."""
FAR = 0.01
"""A contact farther from the object than this does not touch when the hand squeezes, m."""
MANY = 0.5
"""Contacts that do not touch, joints at limits, and torque that motors lack count from this share on."""
COMPARED = 4
"""So many grasps without a cause are compared with those that have it."""
LARGEST_RESIDUAL = 0.3
"""Forces that leave more of themselves as a wrench do not balance (docs/physics.md has the same value)."""
SHOWN_JOINTS = 4
OF_VERDICT = {
    Reason.NOT_FINITE: Cause.NOT_FINITE,
    Reason.SIMULATION_FAILED: Cause.SIMULATION,
    Reason.MOVED: Cause.MOVED,
    Reason.TURNED: Cause.TURNED,
    Reason.LOST_CONTACT: Cause.LOST,
    Reason.UNBALANCED: Cause.BALANCE,
}


@dataclass(frozen=True)
class Batch:
    """Grasps of one object, with everything that was found out about them."""

    hands: HandModel
    grasps: ObjectGrasps
    protocol: ProtocolConfig
    rule: PoseConfig
    evaluation: Evaluation
    measures: Measures
    figures: HandFigures

    @property
    def holds(self) -> Bool[np.ndarray, " grasp"]:
        """Which grasps hold."""
        return self.evaluation.reason == Reason.HELD

    @property
    def lacking_torque(self) -> Float[np.ndarray, " grasp"]:
        """The share of the torques of the squeeze that is beyond the motors' limit; NaN where no forces are known."""
        wanted = np.abs(self.measures.torque)
        given = np.minimum(wanted, self.protocol.hand.force_limit)
        return 1 - given.sum(axis=(1, 2)) / np.maximum(wanted.sum(axis=(1, 2)), 1e-12)


def diagnose(
    code: str,
    hands: HandModel,
    pieces: Sequence[Float[np.ndarray, "_ 3"]],
    grasps: ObjectGrasps,
    evaluation: Evaluation,
    protocol: ProtocolConfig,
    rule: PoseConfig,
) -> Diagnosis:
    """Returns why grasps of an object do not hold.

    Args:
        code: the object.
        hands: both hands, on the CPU.
        pieces: vertices of the object's convex pieces at unit scale, m.
        grasps: what the optimizer made.
        evaluation: the verdicts on them.
        protocol: under which they were simulated.
        rule: that made their poses.
    """
    measures = measures_of(hands, pieces, grasps, protocol, rule)
    figures = _figures(hands, pieces, grasps, evaluation)
    batch = Batch(hands, grasps, protocol, rule, evaluation, measures, figures)
    return Diagnosis(code, len(batch.holds), int(batch.holds.sum()), findings_of(batch), figures)


def findings_of(batch: Batch) -> list[Finding]:
    """Returns the causes of failed grasps, each grasp under the first that applies, and those of most that hold.

    A cause without which grasps fail no less often explains no failure: what failed counts under the next one.
    """
    holds, applies = batch.holds, applies_to(batch)
    order = list(Cause)
    matrix = np.stack([applies[cause] for cause in order])
    explaining = matrix & ~_is_harmless(matrix, holds)[:, None]
    first = np.where(explaining.any(axis=0), explaining.argmax(axis=0), -1)
    findings = []
    for number, cause in enumerate(order):
        failed, held = int((~holds & (first == number)).sum()), int((holds & applies[cause]).sum())
        if failed or held > MANY * len(holds):
            rows = applies[cause] & (~holds if failed else holds)
            measured, advice = _told(batch, cause, rows)
            findings.append(Finding(cause, failed, held, measured, advice or ADVICE[cause]))
    return sorted(findings, key=lambda finding: (-finding.failed, -finding.held))


def _is_harmless(
    applies: Bool[np.ndarray, "cause grasp"], holds: Bool[np.ndarray, " grasp"]
) -> Bool[np.ndarray, " cause"]:
    """Returns the causes without which grasps fail no less often, by at least `COMPARED` grasps that lack them.

    Odds are compared, which do not depend on how many of those that hold and of those that fail were looked at.
    """
    failed_with, held_with = (applies & ~holds).sum(axis=1), (applies & holds).sum(axis=1)
    failed_without, held_without = (~applies & ~holds).sum(axis=1), (~applies & holds).sum(axis=1)
    is_known = failed_without + held_without >= COMPARED
    return is_known & (held_with > 0) & (failed_with * held_without <= failed_without * held_with)


def applies_to(batch: Batch) -> dict[Cause, Bool[np.ndarray, " grasp"]]:
    """Returns cause -> the grasps to which it applies, whether they hold or not."""
    measures, evaluation, figures = batch.measures, batch.evaluation, batch.figures
    limits, reason = batch.protocol.limits, evaluation.reason
    turned_away = np.maximum(measures.palm_angle, measures.closing_angle) > FACING_RAD
    one_sided = measures.opposition < np.pi - 2 * np.arctan(batch.protocol.physics.friction[0])
    too_deep = reason == Reason.PENETRATION
    in_each_other = evaluation.start_penetration[:, 1] > limits.hand_hand_penetration
    by_verdict = {cause: reason == number for number, cause in OF_VERDICT.items()}
    return by_verdict | {
        Cause.PALM: turned_away.any(axis=1),
        Cause.REACH: one_sided.any(axis=1) & (figures.opening < figures.width),
        Cause.CONTACT: (measures.gap > FAR).mean(axis=(1, 2)) > MANY,
        Cause.LIMITS: measures.at_limit.mean(axis=(1, 2)) > MANY,
        Cause.HANDS: too_deep & in_each_other,
        Cause.DEPTH: too_deep & ~in_each_other,
        Cause.BALANCE: by_verdict[Cause.BALANCE] | (measures.residual > LARGEST_RESIDUAL),
        Cause.MOTORS: batch.lacking_torque > MANY,
    }


def _figures(
    hands: HandModel, pieces: Sequence[np.ndarray], grasps: ObjectGrasps, evaluation: Evaluation
) -> HandFigures:
    """Returns sizes of hand and object, at its median scale, and the finger that touches least."""
    reach, opening = hand_size(hands)
    width, extent = object_size(pieces, float(np.median(grasps.object_scale)))
    touch = finger_touch(hands, evaluation)
    weakest = min(touch, key=touch.__getitem__)
    others = [share for name, share in touch.items() if name != weakest]
    mean = float(np.mean(others)) if others else float("nan")
    return HandFigures(reach, opening, width, extent, weakest, touch[weakest], mean)


def _told(batch: Batch, cause: Cause, rows: Bool[np.ndarray, " grasp"]) -> tuple[str, str]:
    """Returns by which figures a cause was found in these grasps, and the settings to try; empty for the usual ones."""
    tell = TELL.get(cause)
    return tell(batch, rows) if tell else (f"the verdict of protocol {batch.protocol.name}", "")


def _tell_palm(batch: Batch, rows: np.ndarray) -> tuple[str, str]:
    given, closing = (np.degrees(getattr(batch.measures, name)[rows]) for name in ("palm_angle", "closing_angle"))
    text = (
        f"the palm normal points {np.median(given.max(axis=1)):.0f} degrees away from its contacts, and the side "
        f"to which the fingers close {np.median(closing.max(axis=1)):.0f} (medians of the worse hand)"
    )
    if all(closing_direction(hand) @ hand.palm_normal >= 0 for hand in batch.hands.descriptions):
        return text, ""
    opposite = {hand.side: ",".join(f"{0.0 - x:g}" for x in hand.palm_normal) for hand in batch.hands.descriptions}
    return (
        f"{text}; the fingers close away from hand.palm_normal",
        f"'hand.palm_normal=[{opposite['right']}]' where the file has the right hand, [{opposite['left']}] where it "
        "has the left one: there the fingers close",
    )


def _tell_reach(batch: Batch, rows: np.ndarray) -> tuple[str, str]:
    figures, share = batch.figures, batch.figures.opening / batch.figures.width
    opposition = np.degrees(np.median(batch.measures.opposition[rows].min(axis=1)))
    text = (
        f"a hand opens {figures.opening:.3f} m and the object is at least {figures.width:.3f} m wide; the contacts of "
        f"a hand span {opposition:.0f} degrees of the surface's directions (median)"
    )
    return text, f"'object.sizes=[{figures.extent * share:.3f}]', whose narrowest side a hand spans, or a larger hand"


def _tell_contact(batch: Batch, rows: np.ndarray) -> tuple[str, str]:
    far = batch.measures.gap[rows] > FAR
    return f"{far.mean():.0%} of the contacts are more than {1000 * FAR:.0f} mm from the object", ""


def _tell_limits(batch: Batch, rows: np.ndarray) -> tuple[str, str]:
    share = batch.measures.at_limit[rows].mean(axis=(0, 1))
    names = np.array(batch.hands.joint_names)
    table = batch.hands.descriptions[0].coordinates
    most = [node for node in np.array(table.free)[np.argsort(-share, kind="stable")] if node < len(names)][
        :SHOWN_JOINTS
    ]
    return f"{share.mean():.0%} of the joints stand at a limit, most often {', '.join(names[most])}", ""


def _tell_depth(batch: Batch, rows: np.ndarray) -> tuple[str, str]:
    depth, limits = 1000 * np.median(batch.evaluation.start_penetration[rows], axis=0), batch.protocol.limits
    return (
        f"hands start {depth[0]:.1f} mm deep in the object and {depth[1]:.1f} mm in each other (medians), where "
        f"{1000 * limits.hand_object_penetration:.0f} and {1000 * limits.hand_hand_penetration:.0f} are allowed"
    ), ""


def _tell_balance(batch: Batch, rows: np.ndarray) -> tuple[str, str]:
    residual = np.median(batch.measures.residual[rows])
    return f"the best forces of the contacts leave {residual:.0%} of themselves as a wrench (median)", ""


def _tell_motors(batch: Batch, rows: np.ndarray) -> tuple[str, str]:
    limit, force = batch.protocol.hand.force_limit, batch.rule.total_force
    asked = float(np.median(np.abs(batch.measures.torque[rows]).max(axis=(1, 2))))
    text = (
        f"the squeeze asks for up to {asked:.2g} N m of a motor (median), of which validation.hand.force_limit="
        f"{limit:g} leaves {1 - np.median(batch.lacking_torque[rows]):.0%} of all motors' torques"
    )
    advice = (
        f"validation.hand.force_limit={asked:.2g} if the motors can do that, or poses.total_force="
        f"{force * min(1.0, limit / asked):.2g} with lighter objects"
    )
    return text, advice


def _tell_motion(batch: Batch, rows: np.ndarray) -> tuple[str, str]:
    limits, ends = batch.protocol.limits, batch.evaluation
    moved, turned = (
        float(np.median(np.nan_to_num(column[rows]).max(axis=1))) for column in (ends.displacement, ends.rotation)
    )
    return (
        f"a push moved the object by {1000 * moved:.0f} mm and turned it by {np.degrees(turned):.0f} degrees, "
        f"where less than {1000 * limits.displacement:.0f} mm and {np.degrees(limits.rotation):.0f} hold (medians)"
    ), ""


TELL = {
    Cause.PALM: _tell_palm,
    Cause.REACH: _tell_reach,
    Cause.CONTACT: _tell_contact,
    Cause.LIMITS: _tell_limits,
    Cause.HANDS: _tell_depth,
    Cause.DEPTH: _tell_depth,
    Cause.BALANCE: _tell_balance,
    Cause.MOTORS: _tell_motors,
    Cause.MOVED: _tell_motion,
    Cause.TURNED: _tell_motion,
    Cause.LOST: _tell_motion,
}
"""Cause -> what tells of it; the others have nothing to measure."""
