"""The table's figures in closed form, and an object that has none."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from palms import gripper, palm
from scene import shadow_hands
from verdicts import judged

from bimangrasp.poses import Poses
from bimangrasp.validation.summary import HEADINGS, cells, fingers, summary_of
from bimangrasp.validation.verdict import Reason

HELD, MOVED, NAN = Reason.HELD, Reason.MOVED, Reason.NOT_FINITE


def test_rates_count_what_was_tried():
    bears = np.array([[True, True], [True, False], [True, True], [True, True]])
    one = summary_of("mug", judged([HELD, HELD, MOVED, NAN], bears_load=bears), palm("left"))
    assert (one.code, one.tried, one.held, one.gsr, one.both_hands) == ("mug", 4, 2, 0.5, 0.5)
    assert one.reasons == {"moved": 1, "not_finite": 1}


def test_reasons_stand_in_the_order_in_which_they_are_looked_for():
    mixed = [Reason.LOST_CONTACT, MOVED, Reason.PENETRATION, MOVED, HELD, Reason.SIMULATION_FAILED, NAN]
    reasons = summary_of("mug", judged(mixed), palm("left")).reasons
    wanted = {"not_finite": 1, "penetration": 1, "simulation_failed": 1, "moved": 2, "lost_contact": 1}
    assert list(reasons.items()) == list(wanted.items())


def test_depths_are_means_of_the_deepest():
    depth = np.array([[0.001, 0.0, 0.004], [0.003, 0.002, 0.0]])
    one = summary_of("mug", judged([MOVED, MOVED], penetration=depth), palm("left"))
    assert (one.pd, one.spd) == (pytest.approx(0.002), pytest.approx(0.003))


def test_links_and_fingers_are_those_of_both_hands():
    distance = np.array([[[0.001, 0.004], [np.inf, -0.001]], [[0.0, 0.001], [0.001, 0.001]]])
    one = summary_of("mug", judged([MOVED, MOVED], link_distance=distance), palm("left"))
    assert one.cln == pytest.approx((2 + 4) / 2)
    assert one.cdc == pytest.approx((0.005 + 0.0) / 2), "the root is no finger"


def test_diversity_is_that_of_the_grasps_that_are_finite():
    one = summary_of("mug", judged([MOVED] * 4), palm("left"))
    assert (one.d, one.unique) == (pytest.approx(1.0), (1, 4, 4))
    wild = judged([MOVED] * 4 + [NAN])
    wild.stages[1].translation[4] = np.nan
    assert summary_of("mug", wild, palm("left"))[5:12] == one[5:12]


@pytest.mark.parametrize("stage", [0, 1, 2])
def test_a_grasp_with_a_stage_that_is_not_finite_is_in_no_mean(stage):
    distance, depth = np.full((3, 2, 2), 0.001), np.full((3, 3), 0.002)
    depth[1], distance[1] = np.nan, np.nan
    wild = judged([HELD, NAN, MOVED], penetration=depth, link_distance=distance)
    stages = [Poses(*(part.copy() for part in wild.stages[0])) for _ in range(3)]
    stages[stage].joints[1] = np.nan
    one = summary_of("mug", wild._replace(stages=tuple(stages)), palm("left"))
    assert (one.pd, one.spd, one.cln, one.cdc) == pytest.approx((0.002, 0.002, 4.0, 0.0))
    assert one.gsr == pytest.approx(1 / 3) and one.unique[1] == 2


@pytest.mark.parametrize("count", [0, 1, 3])
def test_an_object_without_a_finite_grasp_has_a_row(count):
    unknown = {"penetration": np.full((count, 3), np.nan), "link_distance": np.full((count, 2, 2), np.nan)}
    one = summary_of("mug", judged([NAN] * count, **unknown), palm("left"))
    rate = "0.0%" if count else "-"
    failed = f"not_finite {count}" if count else "none"
    assert cells(one) == ("mug", f"{rate} (0/{count})", *["-"] * 7, "0/0/0", failed)


def test_a_row_is_in_the_units_of_its_heading():
    depth = np.array([[0.0012, 0.0, 0.0034]] * 2)
    bears = np.array([[True, True], [True, False]])
    close = np.array([[[0.001], [0.0015]]] * 2) * np.ones(2)
    one = summary_of(
        "mug", judged([HELD, HELD], penetration=depth, bears_load=bears, link_distance=close), palm("left")
    )
    row = dict(zip(HEADINGS, cells(one), strict=True))
    assert (row["object"], row["GSR"], row["both hands"]) == ("mug", "100.0% (2/2)", "50%")
    assert (row["PD mm"], row["SPD mm"], row["CLN"], row["CDC mm"]) == ("1.20", "3.40", "4.0", "0.50")
    assert (row["D"], row["unique"], row["failed by"]) == ("1.000", "1/2/2", "none")


def test_the_shadow_hand_has_five_fingers():
    hand = shadow_hands().descriptions[0]
    number = dict(zip(hand.link_names, fingers(hand).tolist(), strict=True))
    assert number["palm"] == -1 and sorted({*number.values()}) == [-1, 0, 1, 2, 3, 4]
    for name, finger in number.items():
        assert name == "palm" or number[f"{name[:2]}_distal"] == finger


def test_what_is_fixed_to_the_root_is_no_finger():
    assert fingers(gripper("left")).tolist() == [-1, 0]
    padded = replace(
        palm("left"),
        link_names=("root", "mount", "first", "tip", "second"),
        parent=np.array([-1, 0, 1, 2, 1]),
        joint_link=np.array([2, 4]),
    )
    assert fingers(padded).tolist() == [-1, -1, 0, 0, 1]
