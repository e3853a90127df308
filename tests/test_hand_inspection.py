"""What a hand's file says by itself, and what is guessed from it."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
import quick_conf
from hand_texts import FILES, TEXTS, TURN, turned, written
from scipy.spatial.transform import Rotation

from bimangrasp.errors import InputError
from bimangrasp.hand_setup.guesses import guess_finger_direction, guess_palm_normal, guess_side
from bimangrasp.hand_setup.inspection import HandInspection, inspect_hand, tip_at

CHAINS = {
    "shadow": [
        *(
            [f"{finger}_{part}" for part in ("knuckle", "proximal", "middle", "distal")]
            for finger in ("ff", "mf", "rf")
        ),
        ["lf_metacarpal", "lf_knuckle", "lf_proximal", "lf_middle", "lf_distal"],
        ["th_base", "th_proximal", "th_hub", "th_middle", "th_distal"],
    ],
    "allegro": [
        [f"{finger}_{part}" for part in ("base", "proximal", "middle", "distal")]
        for finger in ("index", "middle", "ring", "thumb")
    ],
}
TIPS = {"shadow": [0.03105] * 4 + [0.03518], "allegro": [0.0387] * 3 + [0.0543]}
"""m beyond the last joint, along its link: half lengths and radii of the files' last capsules."""


def guesses(inspection: HandInspection) -> tuple[np.ndarray, np.ndarray, str]:
    normal, along = (np.array(json.loads(g(inspection).value)) for g in (guess_palm_normal, guess_finger_direction))
    return normal, along, guess_side(inspection, normal, along).value


@pytest.mark.parametrize("name", FILES)
def test_fingers_run_from_the_palm_to_their_tips(name: str):
    inspection = inspect_hand(FILES[name])
    names = inspection.hand.link_names
    assert names[inspection.palm] == "palm"
    assert [[names[link] for link in chain.links] for chain in inspection.chains] == CHAINS[name]
    assert inspection.thumb == len(inspection.chains) - 1
    joints = [inspection.hand.joint_names[joint] for chain in inspection.chains for joint in chain.joints]
    assert joints == list(inspection.hand.joint_names)
    wanted = np.stack((np.zeros(len(TIPS[name])), np.zeros(len(TIPS[name])), TIPS[name]), axis=1)
    np.testing.assert_allclose(inspection.tips, wanted, atol=2e-5)


@pytest.mark.slow
@pytest.mark.parametrize("name", FILES)
def test_the_guesses_are_what_the_yaml_says(name: str):
    config = quick_conf.load(f"hand={name}").hand
    normal, along, side = guesses(inspect_hand(FILES[name]))
    assert normal.tolist() == config.palm_normal
    assert along.tolist() == config.finger_direction
    assert side == config.side


@pytest.mark.parametrize("name", FILES)
def test_guesses_turn_with_the_frame_of_the_root(name: str, tmp_path: Path):
    config = quick_conf.load(f"hand={name}").hand
    inspection = inspect_hand(written(tmp_path, turned(TEXTS[name])))
    normal, along, side = guesses(inspection)
    assert normal @ TURN.inv().apply(config.palm_normal) > 0.99
    assert along @ TURN.inv().apply(config.finger_direction) > 0.98
    assert side == "right"
    assert inspection.hand.link_names[inspection.palm] == "palm"


@pytest.mark.parametrize("name", FILES)
def test_the_thumb_is_found_without_its_name(name: str, tmp_path: Path):
    text = re.sub(r"\b(thumb|th)_", "extra_", re.sub(r"\bTHJ", "XJ", TEXTS[name]))
    inspection = inspect_hand(written(tmp_path, text))
    assert inspection.thumb == len(inspection.chains) - 1


@pytest.mark.parametrize("name", FILES)
def test_the_mirrored_file_is_a_left_hand(name: str):
    inspection = inspect_hand(FILES[name])
    normal, along, _ = guesses(inspection)
    assert guess_side(inspection, -normal, along).value == "left"


def test_tips_are_where_mujoco_has_them():
    inspection = inspect_hand(FILES["allegro"])
    tip = tip_at(inspection, 1, inspection.frames)
    np.testing.assert_allclose(tip, [0, 0, 0.0007 + 0.0164 + 0.054 + 0.0384 + 0.0387], atol=1e-5)


def jaws(tilt: float = 0.0) -> str:
    """Two fingers that close toward each other, their bases tilted about y."""
    jaw = (
        '<body name="{0}" pos="{1} 0 0"><joint name="{0}" axis="0 {2} 0" range="0 1"/>'
        '<geom type="capsule" pos="0 0 0.04" size="0.01 0.03"/></body>'
    )
    both = jaw.format("a", -0.03, 1) + jaw.format("b", 0.03, -1)
    body = f'<body name="p"><body name="q" euler="0 {tilt} 0">{both}</body></body>'
    return f'<mujoco><compiler angle="radian"/><worldbody>{body}</worldbody></mujoco>'


def test_two_parallel_jaws_hold_what_is_between_them(tmp_path: Path):
    inspection = inspect_hand(written(tmp_path, jaws()))
    assert inspection.thumb is None
    normal, along = guess_palm_normal(inspection), guess_finger_direction(inspection)
    assert normal.value == "[0,0,1]" and "stand around that axis" in normal.reason
    assert along.value == "[1,0,0]" and "chosen" in along.reason
    assert guess_side(inspection, np.array([1.0, 0, 0]), np.array([0, 0, 1.0])).value == ""


@pytest.mark.parametrize("degrees", [1, 21, 24, 40])
def test_a_guess_near_an_axis_of_the_root_snaps_to_it_and_says_so(degrees: float, tmp_path: Path):
    inspection = inspect_hand(written(tmp_path, jaws(np.radians(degrees))))
    guess = guess_palm_normal(inspection)
    if degrees < 22:
        assert guess.value == "[0,0,1]"
        assert f"{degrees} degrees from [{round(np.sin(np.radians(degrees)), 2)},0" in guess.reason
        assert "snapped" in guess.reason
    else:
        expected = [np.sin(np.radians(degrees)), 0, np.cos(np.radians(degrees))]
        np.testing.assert_allclose(json.loads(guess.value), expected, atol=1e-4)
        assert "snapped" not in guess.reason


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("angle", np.linspace(-1.5, 1.5, 7))
@pytest.mark.parametrize("axis", range(3))
def test_the_two_directions_stay_perpendicular(name: str, angle: float, axis: int, tmp_path: Path):
    euler = np.zeros(3)
    euler[axis] = angle
    inside = TEXTS[name].replace("<worldbody>", '<worldbody><body name="b"><body name="t">', 1)
    text = inside.replace("</worldbody>", "</body></body></worldbody>")
    quat = " ".join(map(str, np.roll(Rotation.from_rotvec(euler).as_quat(), 1)))
    inspection = inspect_hand(written(tmp_path, text.replace('name="t"', f'quat="{quat}"')))
    normal, along, _ = guesses(inspection)
    assert abs(normal @ along) < 2e-4
    given = guess_finger_direction(inspection, normal + 0.1)
    assert abs(json.loads(given.value) @ (normal + 0.1)) < 2e-4


TENDON = '<tendon><fixed name="t"><joint joint="index_2" coef="1"/></fixed></tendon></mujoco>'
COUPLED = '<equality><joint joint1="index_2" joint2="index_3"/></equality></mujoco>'
PINNED = '<equality><connect name="pin" body1="index_distal" body2="palm" anchor="0 0 0"/></equality></mujoco>'
ODD = {
    "as it is": (lambda text: text, []),
    "coupled": (lambda text: text.replace("</mujoco>", COUPLED), []),
    "tendon of one joint": (lambda text: text.replace("</mujoco>", TENDON), []),
    "unread": (lambda text: text.replace("</mujoco>", PINNED), ["not read: equality 'pin' is of type connect"]),
    "free": (lambda text: text.replace('<body name="palm">', '<body name="palm"><freejoint/>'), ["free joint"]),
    "floor": (
        lambda text: text.replace("<worldbody>", '<worldbody><geom type="plane" size="1 1 1"/>'),
        ["a floor, are left out"],
    ),
    "table": (
        lambda text: text.replace("<worldbody>", '<worldbody><body name="table"><geom size="1 1 1"/></body>'),
        ["bodies without joints are left out: 'table'"],
    ),
    "bare": (
        lambda text: text.replace(
            '<geom name="ring_base" class="base"/>',
            '<inertial pos="0 0 0" mass="0.001" diaginertia="1e-6 1e-6 1e-6"/>',
        ),
        ["links without collision shapes: ring_base"],
    ),
    "wrist": (
        lambda text: text.replace(
            '<body name="palm">',
            '<body name="arm"><geom size="0.03 0.03 0.03"/><body name="palm"><joint name="wrist" range="-1 1"/>',
        ).replace("</worldbody>", "</body></worldbody>"),
        ["joints above the palm move with the others, and the hand's frame is above them: wrist"],
    ),
    "huge": (lambda text: text.replace('pos="-0.0093 0 -0.0475"', 'pos="-9.3 0 -47"'), ["is the file in meters?"]),
    "idle": (
        lambda text: text.replace(
            '<geom name="ring_tip" class="tip"/>',
            '<geom name="ring_tip" class="tip"/><body name="sensor" pos="0 0 0.02"><inertial pos="0 0 0" mass="0.001" '
            'diaginertia="1e-6 1e-6 1e-6"/><joint name="shutter" range="0 1"/></body>',
        ),
        ["joints that move no shape: shutter", "sensor"],
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("case", ODD)
def test_what_does_not_count_is_said(case: str, tmp_path: Path):
    change, words = ODD[case]
    inspection = inspect_hand(written(tmp_path, change(TEXTS["allegro"])))
    assert bool(inspection.warnings) == bool(words)
    for word in words:
        assert word in "\n".join(inspection.warnings)
    assert len(inspection.chains) == 4


def test_meshes_that_are_simplified_are_named(tmp_path: Path):
    points = np.random.default_rng(0).normal(size=(900, 3))
    points *= 0.012 / np.linalg.norm(points, axis=1, keepdims=True)
    vertices = " ".join(f"{x:.6f}" for x in points.ravel())
    text = TEXTS["allegro"].replace("<worldbody>", f'<asset><mesh name="ball" vertex="{vertices}"/></asset><worldbody>')
    text = text.replace('<geom name="ring_tip" class="tip"/>', '<geom type="mesh" mesh="ball" pos="0 0 0.027"/>')
    inspection = inspect_hand(written(tmp_path, text))
    (warning,) = inspection.warnings
    whole, faces = map(
        int,
        re.search(
            r"simplified, to within 0\.2 mm or 1/500 of their extent: ring_distal \((\d+) to (\d+)\)$", warning
        ).groups(),
    )
    assert whole == 2 * 900 - 4 and faces == max(len(shape.faces) for shape in inspection.hand.primitives) < 600


def twice(text: str) -> str:
    """Two hands in one file, on one base."""
    palm = re.search(r"<worldbody>(.*)</worldbody>", text, re.DOTALL)[1]
    both = "".join(re.sub('(?<= name=")', f"{side}_", palm) for side in ("left", "right"))
    alone = re.sub(r"<contact>.*</contact>", "", text, flags=re.DOTALL)
    return alone.replace(palm, f'<body name="base">{both}</body>')


REFUSED = {
    "unlimited": (
        lambda text: text.replace('range="-0.47 0.47"', 'limited="false"'),
        ["3 of 16 joints have no limits: 'index_0', 'middle_0', 'ring_0'", "range="],
    ),
    "two hands below one base": (lambda text: twice(text), ["joints of two hands", "'left_index_0'", "hand.left_mjcf"]),
    "two trees": (
        lambda text: text.replace(
            "</worldbody>",
            '<body name="o"><body><joint name="x" range="0 1"/><geom size="1 1 1"/></body></body></worldbody>',
        ),
        ["2 separate trees", "'palm'", "'o'"],
    ),
    "no joints": (lambda text: re.sub("<joint [^>]*>", "", text), ["no body has a joint"]),
    "degrees": (
        lambda text: text.replace('angle="radian"', 'angle="degree"'),
        ["no joint turns by more than 1.9 degrees", '<compiler angle="radian"/>'],
    ),
    "slide": (
        lambda text: text.replace('<joint name="index_1"', '<joint type="slide" name="index_1"'),
        ["'index_1'", "slide joint"],
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_one_hand_is_refused(case: str, tmp_path: Path):
    change, words = REFUSED[case]
    with pytest.raises(InputError) as error:
        inspect_hand(written(tmp_path, change(TEXTS["allegro"])))
    for word in ["hand.xml", *words]:
        assert word in str(error.value)
