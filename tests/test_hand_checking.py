"""`mode=hand`: what it asks, what it writes, what it refuses."""

from __future__ import annotations

import re
import shlex
from dataclasses import replace
from pathlib import Path

import coupled_hands
import numpy as np
import pytest
import quick_conf
from hand_texts import FILES, TEXTS

import conf
import main
import scale
from bimangrasp.errors import InputError
from bimangrasp.hand_files.config import CouplingRule
from bimangrasp.hand_files.loading import load_hands
from bimangrasp.hands.description import mirror
from scale.modes import check_hand
from scale.modes.check_hand import HandReport

TOLD = {"palm_normal": [1.0, 0.0, 0.0], "finger_direction": [0.0, 0.0, 1.0], "side": "right"}
TYPED = ["hand.palm_normal=[1,0,0]", "hand.finger_direction=[0,0,1]", "hand.side=right"]


@pytest.fixture(autouse=True)
def _in_a_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(check_hand, "draw", lambda *_: np.zeros((2, 3, 3), np.uint8))  # tests/test_hand_picture.py
    monkeypatch.chdir(tmp_path)
    Path("right.xml").write_text(TEXTS["allegro"])


def check(out: str = "", **changes: object) -> HandReport:
    """What mode=hand makes of right.xml with these settings of the hand."""
    config = quick_conf.load("mode=hand", "hand.mjcf=right.xml")
    return scale.check_hand(replace(config, out=out, hand=replace(config.hand, **changes)))


def test_a_picture_of_somebody_else_stays(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("shadow.png").write_bytes(b"mine")
    with pytest.raises(InputError, match="shadow.png is there already"):
        scale.check_hand(quick_conf.load("mode=hand", "hand=shadow"))
    assert Path("shadow.png").read_bytes() == b"mine"


@pytest.mark.slow
def test_it_asks_what_the_file_does_not_say_and_writes_no_yaml(capsys, monkeypatch):
    monkeypatch.setattr("sys.argv", ["main.py", "mode=hand", "hand.mjcf=right.xml", "out=mine.yaml"])
    assert main.main() == 2
    shown = capsys.readouterr().out
    for words in ("16 joints", "thumb: thumb_base -> ", "hand.palm_normal", "perhaps [0,0,1]", "perhaps right"):
        assert words in shown
    assert [path.suffix for path in Path("hand").iterdir()] in ([], [".png"])
    line = shown.strip().splitlines()[-1]
    words = shlex.split(line)[2:]
    assert words == ["mode=hand", "hand.mjcf=right.xml", *TYPED, "out=mine.yaml"]
    assert scale.check_hand(conf.load(words)).yaml == Path("hand/mine.yaml")


def test_what_is_given_is_not_asked_again():
    report = check(palm_normal=[1.0, 0.0, 0.0])
    assert [question.key for question in report.questions] == ["hand.finger_direction", "hand.side"]
    assert "'hand.palm_normal=[1,0,0]'" in str(report)


def test_the_guess_of_the_side_follows_the_palm_that_was_given():
    report = check(palm_normal=[-1.0, 0.0, 0.0])
    assert report.questions[-1].guess.value == "left"


@pytest.mark.slow
def test_the_yaml_loads_as_a_hand_and_is_what_was_proposed():
    report = check("my/allegro_v3.yaml", **TOLD)
    assert report.yaml == Path("my/hand/allegro_v3.yaml")
    command = shlex.split(str(report).splitlines()[-1])
    assert command[:3] == ["python", "main.py", "mode=scale"] and command[3:5] == ["--config-dir", "my"]
    loaded = conf.load(command[5:], command[4]).hand
    assert loaded == report.hand
    left, right = load_hands(loaded)
    shipped = load_hands(quick_conf.load("hand=allegro").hand)
    assert np.array_equal(right.candidate_position, shipped[1].candidate_position)
    assert mirror(left).sha256 == right.sha256


@pytest.mark.slow
@pytest.mark.parametrize(
    ("out", "yaml"),
    [("", "hand/right.yaml"), ("a", "a/hand/right.yaml"), ("a/hand", "a/hand/right.yaml")],
)
def test_the_yaml_goes_where_hydra_looks_for_hands(out: str, yaml: str):
    report = check(out, **TOLD)
    assert report.yaml == Path(yaml) and Path(yaml).is_file()
    with pytest.raises(InputError, match=f"{yaml} is there already; move it away"):
        check(out, **TOLD)


def test_a_shipped_hand_is_looked_at_and_nothing_but_its_picture_is_written():
    report = scale.check_hand(quick_conf.load("mode=hand", "hand=shadow"))
    assert report.yaml is None and not report.questions
    assert report.hand.candidates.palmar == quick_conf.load().hand.candidates.palmar
    assert "140 contact candidates on 14 links, 19 penetration keypoints" in str(report)
    assert {path.name for path in Path().iterdir()} <= {"right.xml", "shadow.png", "cache"}


@pytest.mark.slow
def test_directions_are_made_unit_vectors_at_a_right_angle():
    hand = check(palm_normal=[2.0, 0.0, 0.1], finger_direction=[0.0, 0.0, 3.0], side="right").hand
    palm, fingers = np.array(hand.palm_normal), np.array(hand.finger_direction)
    assert palm @ fingers == pytest.approx(0, abs=2e-6)
    assert np.linalg.norm(palm) == pytest.approx(1) and np.linalg.norm(fingers) == pytest.approx(1)
    assert palm @ [2, 0, 0.1] > 2.002 and fingers[2] > 0.99


@pytest.mark.slow
def test_a_palm_normal_against_the_motion_of_the_fingers_is_noted():
    given = TOLD | {"palm_normal": [0.0, 1.0, 0.0]}
    side = check(**(given | {"side": ""})).questions[0].guess.value or "right"
    report = check(**(given | {"side": side}))
    assert "is not where the fingertips go when the joints close, [1,0,0]" in str(report)


@pytest.mark.slow
def test_chosen_links_carry_the_candidates():
    chosen = "+hand.candidates.palmar={index_distal: [], thumb_distal: []}"
    report = scale.check_hand(conf.load(["mode=hand", "hand.mjcf=right.xml", *TYPED, chosen]))
    assert "20 contact candidates on 2 links" in str(report)


REFUSED = {
    "no file": ({"mjcf": ""}, "mode=hand wants the file of a hand: hand.mjcf="),
    "not there": ({"mjcf": "left.xml"}, "'left.xml' is no file"),
    "a left hand as a right one": (
        TOLD | {"side": "left"},
        r"this is a right hand: the thumb.*Set hand.side=right, or.*hand.palm_normal=\[-1.0, 0.0, 0.0\]",
    ),
    "parallel": (TOLD | {"finger_direction": [1.0, 0.0, 0.1]}, "stand at 6 degrees; wanted 90"),
    "no direction": ({"palm_normal": [0.0, 0.0, 0.0]}, "HandConfig.palm_normal=.*not all 0"),
    "no side": ({"side": "both"}, "HandConfig.side='both'.*right or left"),
    "the release": ({"format": "bimangrasp", "name": "release"}, "hand=release has the format 'bimangrasp'"),
    "another hand for the left": (TOLD | {"left_mjcf": FILES["shadow"]}, "23 links, the right hand 17"),
}


@pytest.mark.slow
@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_served_is_refused_and_leaves_no_yaml(case: str):
    changes, words = REFUSED[case]
    with pytest.raises(InputError, match=re.compile(words, re.DOTALL)):
        check(**changes)
    assert not list(Path().rglob("*.yaml"))


@pytest.mark.parametrize(("out", "words"), [("mine.yml", "wanted a .yaml"), ("shadow.yaml", "is one of the package")])
def test_a_name_that_hydra_would_not_find_is_refused(out: str, words: str):
    with pytest.raises(InputError, match=words):
        check(out, **TOLD)


@pytest.mark.slow
def test_a_file_that_is_called_as_a_shipped_hand_gets_another_name():
    Path("right.xml").rename("shadow.xml")
    assert check(mjcf="shadow.xml", **TOLD).yaml == Path("hand/my_shadow.yaml")


def test_an_unfinished_hand_makes_no_grasps():
    with pytest.raises(InputError, match="hand.side=''"):
        load_hands(quick_conf.load("mode=hand", "hand.mjcf=right.xml").hand)


def test_a_yaml_with_the_name_of_a_shipped_one_is_refused():
    Path("hand").mkdir()
    Path("hand/shadow.yaml").write_text("name: shadow")
    with pytest.raises(InputError, match=r"hand/shadow.yaml has the name of a file of the package.*rename it"):
        conf.load(["hand=shadow"], ".")


@pytest.mark.slow
def test_without_opengl_the_yaml_is_written_and_the_report_says_why_there_is_no_picture(monkeypatch):
    def broken(*_: object) -> None:
        raise InputError("no picture can be drawn, there is no OpenGL")

    monkeypatch.setattr(check_hand, "draw", broken)
    report = check(**TOLD)
    assert report.yaml.is_file() and "no picture can be drawn" in str(report)
    assert not list(Path().rglob("*.png"))


def test_couplings_are_listed_with_motors_and_ranges():
    shown = str(scale.check_hand(quick_conf.load("mode=hand", "hand=shadow_coupled")))
    assert "22 joints moved by 18 motors" in shown
    assert len(re.findall(r"^[FMRL]FJ[01] .* shares tendon (FF|MF|RF|LF)$", shown, re.MULTILINE)) == 8
    assert "tendon MF = 0.5 MFJ1 + 0.5 MFJ0, 0.000 to 1.571 rad by a motor" in shown
    assert "orange from each joint to the next that moves with it" in shown


@pytest.mark.parametrize("name", ["shadow", "allegro"])
def test_a_hand_without_couplings_lists_none(name: str):
    shown = str(scale.check_hand(quick_conf.load("mode=hand", f"hand={name}")))
    assert not re.search("coupling|tendon|motor|orange", shown)


INSPIRE = {"palm_normal": [0.0, -1.0, 0.0], "finger_direction": [0.0, 0.0, 1.0], "side": "right"}


def test_a_hand_of_six_motors_goes_from_its_file_to_a_yaml_that_loads():
    Path("right.xml").write_text(coupled_hands.inspire())
    report = check("six_motors.yaml", **INSPIRE)
    shown = str(report)
    assert "12 joints moved by 6 motors" in shown
    assert "thumb_pitch stays within 0.000 to 0.600 rad for what follows it" in shown
    assert "= -0.04545 + 1.064 index_proximal" in shown and "= 1.334 thumb_pitch" in shown
    hand = conf.load(["hand=six_motors"], ".").hand
    assert set(hand.joint_mean) == set(coupled_hands.INSPIRE_MOTORS), "what follows has the mean of its leader"
    right = load_hands(hand)[1]
    assert right.sha256 == report.pair[1].sha256 and len(right.coordinates.free) == 6


def test_couplings_that_are_typed_are_in_the_yaml():
    rules = {
        "index_3": CouplingRule(follows="index_2", polynomial=[0.0, 0.8]),
        "M": CouplingRule(tendon={"middle_2": 1.0, "middle_3": 2.0}),
        "R": CouplingRule(tendon={"ring_2": 1.0, "ring_3": 2.0}, follows="index_1", polynomial=[0.1, 1.0]),
    }
    report = check("mine.yaml", **TOLD, couplings=rules)
    hand = conf.load(["hand=mine"], ".").hand
    assert hand.couplings == rules
    assert load_hands(hand)[1].sha256 == report.pair[1].sha256
    assert "tendon R = 0.3333 ring_2 + 0.6667 ring_3 = 0.03333 + 0.3333 index_1" in str(report)


def test_a_coupling_that_is_removed_is_so_in_the_yaml():
    Path("right.xml").write_text(coupled_hands.ability())
    report = check("freed.yaml", **INSPIRE, couplings={"ring_q2": CouplingRule(coupled=False)})
    right = load_hands(conf.load(["hand=freed"], ".").hand)[1]
    assert len(right.coordinates.free) == 7
    assert len(right.couplings.followers) == 3
    assert str(report).count("stays within 0.000 to 1.828 rad for what follows it") == 3
