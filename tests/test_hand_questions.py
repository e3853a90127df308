"""The questions of `mode=hand`: all at once, each with a line that a shell and Hydra take."""

from __future__ import annotations

import shlex
from dataclasses import replace
from operator import attrgetter
from pathlib import Path

import numpy as np
import odd_hands
import pytest
import quick_conf
import trimesh
from hand_texts import TEXTS

import conf
import scale
from bimangrasp.errors import InputError
from bimangrasp.hand_files.config import CouplingRule
from bimangrasp.hand_files.loading import load_hands
from bimangrasp.hands.description import frames_at, points_of_links
from scale.modes import check_hand
from scale.modes.check_hand import HandReport
from scale.modes.hand_questions import DEFAULTS, hydra_text


@pytest.fixture(autouse=True)
def _in_a_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(check_hand, "draw", lambda *_: np.zeros((2, 3, 3), np.uint8))  # tests/test_hand_picture.py
    monkeypatch.chdir(tmp_path)


def asked(text: str, *overrides: str, file: str = "robot's hand.xml") -> HandReport:
    Path(file).write_text(text)
    return scale.check_hand(conf.load(["mode=hand", f"hand.mjcf={file}", *overrides]))


def lines_of(report: HandReport) -> list[str]:
    """Returns what is to be typed for each question, as a shell reads it."""
    lines = [line.strip() for line in str(report).splitlines()]
    return [shlex.split(line.removesuffix(", for instance"))[1] for line in lines if line.startswith("type ")]


def pasted(report: HandReport) -> HandReport:
    words = shlex.split(str(report).splitlines()[-1])
    assert words[:3] == ["python", "main.py", "mode=hand"]
    return scale.check_hand(conf.load(words[2:]))


TYPED = (
    "+hand.couplings.index_3={follows:index_2,polynomial:[0,0.8]}",
    "+hand.couplings.M={tendon:{middle_2:1,middle_3:2}}",
    "+hand.joint_mean.thumb_0=1.25",
    "+hand.candidates.palmar={index_base: [], index_distal: [], thumb_distal: [1,0,0]}",
    "out=mine.yaml",
)


def test_all_is_asked_at_once_and_the_command_has_what_was_typed():
    report = asked(TEXTS["allegro"], *TYPED)
    keys = ["hand.palm_normal", "hand.finger_direction", "hand.side", "hand.candidates.palmar.index_base"]
    assert [question.key for question in report.questions] == keys and report.exit_code == 2
    assert "does not say 4 things" in str(report)
    done = pasted(report)
    assert done.exit_code == 0 and done.yaml == Path("hand/mine.yaml")
    by_hand = asked(TEXTS["allegro"], *TYPED[:-1], "out=other.yaml", *lines_of(report))
    assert replace(by_hand.hand, name="mine") == done.hand, "each line does the same when it is typed alone"
    assert done.hand.couplings["M"] == CouplingRule(tendon={"middle_2": 1.0, "middle_3": 2.0})
    assert done.hand.couplings["index_3"] == CouplingRule(follows="index_2", polynomial=[0.0, 0.8])
    assert done.hand.joint_mean["thumb_0"] == 1.25
    assert list(done.hand.candidates.palmar) == ["index_base", "index_distal", "thumb_distal"]
    assert load_hands(conf.load(["hand=mine"], ".").hand)[1].sha256 == done.pair[1].sha256


def test_what_is_answered_is_not_asked_again_and_stays_in_the_command():
    report = asked(
        TEXTS["allegro"], "hand.palm_normal=[2,0,0.1]", "hand.side=right", "+hand.couplings.index_3={follows:index_2}"
    )
    assert [question.key for question in report.questions] == ["hand.finger_direction"]
    words = shlex.split(str(report).splitlines()[-1])
    for word in ("hand.palm_normal=[2,0,0.1]", "hand.side=right", "+hand.couplings={index_3:{follows:index_2}}"):
        assert word in words


def test_what_is_not_as_usual_stays_in_the_command(tmp_path: Path):
    usual = conf.load(["hand=own"])
    assert {key: attrgetter(key)(usual) for key in DEFAULTS} == DEFAULTS
    changed = (
        "hand.candidates.per_link=7",
        "hand.candidates.spread_rad=0.4",
        "hand.surface_points=1500",
        "energy.keypoint_distance=0.015",
        "hand_test=4",
        f"object_root={tmp_path}",
        "object_code_list=['a b',mug]",
    )
    for code in ("a b", "mug"):
        trimesh.creation.box((0.1, 0.1, 0.1)).export(tmp_path / f"{code}.obj")
    words = shlex.split(str(asked(TEXTS["allegro"], *changed)).splitlines()[-1])
    again, first = conf.load(words[2:]), conf.load(["mode=hand", "hand.mjcf=robot's hand.xml", *changed])
    told = {"palm_normal", "finger_direction", "side"}
    assert replace(again.hand, **{key: getattr(first.hand, key) for key in told}) == first.hand
    assert again.energy.keypoint_distance == 0.015 and again.hand_test == 4
    assert (again.object_root, again.object_code_list) == (first.object_root, first.object_code_list)
    plain = str(asked(TEXTS["allegro"])).splitlines()[-1]
    assert not any(key in plain for key in (*DEFAULTS, "object_")), plain


@pytest.mark.parametrize(
    "name", ["robot0:FFJ3", "a b", "a,b", "a=b", "k{1}", "[2]", "left-1", "a(b)", "back\\slash", "x/y"]
)
def test_odd_names_go_through_a_shell_and_hydra(name: str):
    (word,) = shlex.split(shlex.quote(f"+hand.joint_mean={hydra_text({name: 0.5})}"))
    assert conf.load(["mode=hand", word]).hand.joint_mean == {name: 0.5}


@pytest.mark.parametrize("text", ["a'b", "a b", "plain", "x,y", "null"])
def test_text_goes_through_hydra(text: str):
    rule = conf.load(["mode=hand", f"+hand.couplings={hydra_text({'j': {'follows': text}})}"]).hand.couplings["j"]
    assert rule.follows == text


def finished(text: str, **changes: object) -> HandReport:
    Path("odd.xml").write_text(text)
    config = quick_conf.load("mode=hand", "hand.mjcf=odd.xml", "out=odd_hand.yaml")
    told = {"palm_normal": [0.0, 0.0, 1.0], "side": "right"} | changes
    return scale.check_hand(replace(config, hand=replace(config.hand, **told)))


def test_of_fingers_around_an_axis_the_palm_looks_along_it_and_a_direction_is_chosen():
    report = asked(odd_hands.claw(), "out=claw.yaml")
    assert report.inspection.thumb is None
    assert [question.guess.value for question in report.questions] == ["[0,0,1]", "[1,0,0]", "right"]
    shown = str(report)
    assert "stand around that axis" in shown and "chosen, as good as any" in shown and "either is true" in shown
    done = pasted(report)
    assert done.exit_code == 0 and not done.warnings
    assert load_hands(conf.load(["hand=claw"], ".").hand)[1].sha256 == done.pair[1].sha256


@pytest.mark.parametrize("degrees", [10, 30, 45, 60])
def test_fingers_that_splay_from_the_axis_have_no_thumb_among_them(degrees: float):
    report = asked(odd_hands.claw(np.radians(degrees)))
    assert report.inspection.thumb is None
    normal, along = (question.guess for question in report.questions[:2])
    assert (normal.value, along.value) == ("[0,0,1]", "[1,0,0]")
    assert "chosen" in along.reason


def test_fingers_around_an_axis_touch_with_the_sides_toward_it():
    right = finished(odd_hands.claw(), finger_direction=[1.0, 0.0, 0.0]).pair[1]
    frames = frames_at(right, np.zeros(9))
    links = right.candidate_link
    assert len(set(links.tolist())) == 10 and len(links) == 100
    points = points_of_links(frames, links, right.candidate_position)
    distance = np.linalg.norm(points[:, :2], axis=1)
    assert (distance[links > 0] < odd_hands.CLAW_RADIUS - 0.006).all()
    assert (points[links == 0, 2] > 0.0119).all()


@pytest.mark.parametrize("axis", [[0.0, 0.0, 1.0], [0.0, 0.1, 1.0]])
def test_a_finger_direction_along_the_palm_normal_is_refused_with_one_to_type(axis: list[float]):
    with pytest.raises(InputError, match=r"any direction across it does: 'hand.finger_direction=\[1,0,0\]'"):
        finished(odd_hands.claw(), finger_direction=axis)


def test_a_joint_that_spreads_a_finger_bends_nothing_and_its_link_gets_no_candidates():
    report = asked(odd_hands.gripper(), "out=gripper.yaml")
    names = report.inspection.hand.link_names
    assert names[report.inspection.chains[report.inspection.thumb].tip] == "f3_distal"
    assert [question.guess.value for question in report.questions] == ["[0,0,1]", "[0,1,0]", "right"]
    done = pasted(report)
    assert "no joint bends f1_knuckle, f2_knuckle, so no contact candidates" in str(done)
    palmar = done.hand.candidates.palmar
    assert set(palmar) == {"base", *(f"f{n}_{part}" for n in (1, 2, 3) for part in ("proximal", "distal"))}
    assert all(palmar[f"f{n}_proximal"] == pytest.approx([0, 0, 1], abs=1e-6) for n in (1, 2, 3))
    assert done.hand.joint_mean["f1_spread"] == 0, "slightly bent, not spread"
    means = {done.hand.joint_mean[f"f{number}_bend"] for number in (1, 2, 3)}
    assert len(means) == 1 and 0 < means.pop() < 1, "the finger that faces the others is bent like them"
    assert len(load_hands(conf.load(["hand=gripper"], ".").hand)[1].coordinates.free) == 4


def test_a_link_that_is_only_spread_is_asked_for_when_it_is_named():
    report = asked(odd_hands.gripper(), "+hand.candidates.palmar={f1_knuckle: [], f1_distal: [], f3_distal: []}")
    question = report.questions[-1]
    assert question.key == "hand.candidates.palmar.f1_knuckle" and question.guess.value == "[0,0,1]"
    assert "+hand.candidates.palmar.f1_knuckle=[0,0,1]" in lines_of(report)
    done = pasted(report)
    assert done.hand.candidates.palmar["f1_knuckle"] == [0, 0, 1]
