"""The six energy terms of BimanGrasp, one short function each, and their weighted total."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class EnergyConfig:
    """Weights of the terms and their constants (ALGORITHM of BimanGrasp, RA-L 2024, section III).

    Attributes:
        w_fc, w_dis, w_pen, w_spen, w_joints, w_vew: weights of force closure, contact distance, penetration,
            self-penetration, joint limits and wrench volume in the total.
        keypoint_distance: two penetration keypoints of one hand closer than this cost energy, m.
        inter_hand: "right_points" measures the right hand's surface points against the left hand only,
            "symmetric" takes the mean of both directions.
    """

    w_fc: float
    w_dis: float
    w_pen: float
    w_spen: float
    w_joints: float
    w_vew: float
    keypoint_distance: float
    inter_hand: str
