"""The presets for public hand files: each composes, names its file and its source, and fits a hand with such joints."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import quick_conf

import scale
from bimangrasp.errors import InputError
from bimangrasp.hand_files.loading import load_hands
from conf import FOLDER

FILES = {
    "leap": "leap_hand/right_hand.xml",
    "inspire": "RH56DFX-2LR/urdf/inspire_hand_right.urdf",
    "inspire_dex_urdf": "robots/hands/inspire_hand/inspire_hand_right.urdf",
    "ability": "robots/hands/ability_hand/ability_hand_right.urdf",
    "xhand": "assets/robots/xhand/xhand_right.urdf",
}
FREE = {"leap": 16, "inspire": 6, "inspire_dex_urdf": 6, "ability": 6, "xhand": 12}
TRIED = {"inspire", "ability"}
"""With the published file and its meshes."""
presets = pytest.mark.parametrize("name", FILES)


@presets
def test_without_its_file_it_is_refused_with_the_files_name(name: str, tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = quick_conf.load("mode=hand", f"hand={name}")
    for call in (lambda: load_hands(config.hand), lambda: scale.check_hand(config)):
        with pytest.raises(InputError, match=re.escape(f"hand.mjcf={FILES[name]!r} is no file") + ".*give the path"):
            call()


@presets
def test_it_is_whole_and_says_where_it_is_from_and_what_was_tried(name: str):
    hand = quick_conf.load(f"hand={name}").hand
    assert hand.name == name and hand.side == "right" and hand.mjcf == FILES[name]
    assert abs(np.dot(hand.palm_normal, hand.finger_direction)) < 1e-5
    assert np.linalg.norm(hand.palm_normal) == pytest.approx(1) == np.linalg.norm(hand.finger_direction)
    text = " ".join((FOLDER / "hand" / f"{name}.yaml").read_text().replace("\n# ", " ").split())
    assert re.search(r"Source: .*https://github.com/\S+ .*commit [0-9a-f]{40}\.", text)
    assert (
        ("untried with the file itself" in text)
        != ("Tried with the file and the meshes of " in text)
        == (name in TRIED)
    )
    assert "none is shipped" in text
    assert len(hand.joint_mean) == FREE[name], "a mean for each joint that a motor moves"
    for direction in hand.candidates.palmar.values():
        assert np.linalg.norm(direction) == pytest.approx(1, abs=1e-5)
    assert set(hand.keypoints) and all(len(point) == 3 for points in hand.keypoints.values() for point in points)


@presets
def test_a_file_of_another_hand_is_refused_by_the_names_that_do_not_fit(name: str):
    with pytest.raises(InputError, match=r"hand\.(candidates|joint_mean|keypoints|couplings)"):
        load_hands(quick_conf.load(f"hand={name}", "hand.mjcf=allegro_hand/right_hand.xml").hand)


FINGERS = ("index", "mid", "ring", "pinky")


def xhand() -> str:
    """A URDF of rough shapes with the names, axes and limits of the XHand's joints."""

    def part(name: str, parent: str, joint: str, place: str, axis: str, limits: str, along: str) -> str:
        low, high = limits.split()
        return (
            f'<link name="right_hand_{name}"><collision><origin xyz="{along}"/><geometry><sphere radius="0.012"/>'
            f'</geometry></collision></link><joint name="right_hand_{joint}" type="revolute">'
            f'<parent link="right_hand_{parent}"/><child link="right_hand_{name}"/><origin xyz="{place}"/>'
            f'<axis xyz="{axis}"/><limit lower="{low}" upper="{high}" effort="1" velocity="1"/></joint>'
        )

    parts = part("thumb_bend_link", "link", "thumb_bend_joint", "0.01 0.02 0.03", "0 0 -1", "0 1.832", "0 0.014 0")
    parts += part(
        "thumb_rota_link1", "thumb_bend_link", "thumb_rota_joint1", "0.01 0.03 0", "1 0 0", "-0.698 1.745", "0 0.03 0"
    )
    parts += part(
        "thumb_rota_link2", "thumb_rota_link1", "thumb_rota_joint2", "0 0.055 0", "1 0 0", "0 1.745", "0 0.03 0"
    )
    parts += part(
        "index_bend_link", "link", "index_bend_joint", "0.006 0.026 0.09", "-1 0 0", "-0.174 0.174", "0 0 0.01"
    )
    for number, finger in enumerate(FINGERS):
        first, second = (
            ("index_rota_link1", "index_rota_link2") if number == 0 else (f"{finger}_link1", f"{finger}_link2")
        )
        parent, place = (
            ("index_bend_link", "0 0 0.018") if number == 0 else ("link", f"0.006 {0.024 - 0.02 * number} 0.105")
        )
        parts += part(first, parent, f"{finger}_joint1", place, "0 1 0", "0 1.919", "0 0 0.03")
        parts += part(second, first, f"{finger}_joint2", "0 0 0.056", "0 1 0", "0 1.919", "0 0 0.03")
    palm = '<collision><origin xyz="0 0 0.05"/><geometry><box size="0.03 0.08 0.08"/></geometry></collision>'
    return f'<robot name="xhand"><link name="right_hand_link">{palm}</link>{parts}</robot>'


def test_a_preset_and_a_file_make_a_hand(tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("scale.modes.check_hand.draw", lambda *_: np.zeros((2, 3, 3), np.uint8))
    Path("mine.urdf").write_text(xhand())
    report = scale.check_hand(quick_conf.load("mode=hand", "hand=xhand", "hand.mjcf=mine.urdf"))
    assert report.exit_code == 0 and report.yaml is None
    assert not any("fingertips" in line for line in report.warnings)
    right = load_hands(quick_conf.load("hand=xhand", "hand.mjcf=mine.urdf").hand)[1]
    assert right.palm_normal.tolist() == [1, 0, 0] and len(right.candidate_link) == 110
