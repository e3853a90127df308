"""Couplings of files and YAMLs, with MuJoCo's own residuals of them as the oracle."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import coupled_hands
import mujoco
import numpy as np
import pytest
import quick_conf
from coupled_hands import JOINTS, toy
from hand_texts import TEXTS

import conf
from bimangrasp.errors import InputError
from bimangrasp.hand_files.config import CouplingRule
from bimangrasp.hand_files.couplings import coupled, placed_on_couplings, read_couplings, rules_of
from bimangrasp.hand_files.loading import load_hands
from bimangrasp.hand_files.read_hand import hand_of, quiet_mujoco
from bimangrasp.hand_files.urdf import unread_mimics
from bimangrasp.hand_setup.inspection import inspect_hand
from bimangrasp.hands.couplings import Couplings
from scale.controller import lifecycle

TENDONS = (
    '<tendon><fixed name="t"><joint joint="a" coef="2"/><joint joint="b" coef="-1"/></fixed>'
    '<fixed name="u"><joint joint="c" coef="1"/><joint joint="d" coef="3"/></fixed>'
    '<fixed name="v"><joint joint="e" coef="4"/></fixed><fixed name="w"><joint joint="f" coef="0.5"/></fixed></tendon>'
)
PULLED = '<actuator><position tendon="t"/></actuator>'
READ = {
    "quartic": '<equality><joint joint1="b" joint2="a" polycoef="0.1 1.2 0.3 0.04 0.005"/></equality>',
    "between references": '<equality><joint joint1="b" joint2="d" polycoef="0.1 0.5 0 0.2 0"/></equality>',
    "constant": '<equality><joint joint1="d" polycoef="0.3"/></equality>',
    "chain": '<equality><joint joint1="c" joint2="b"/><joint joint1="b" joint2="a" polycoef="0 .5"/></equality>',
    "one leads two": '<equality><joint joint1="b" joint2="a"/><joint joint1="c" joint2="a"/></equality>',
    "two of one": '<equality><joint joint1="b" joint2="a"/><joint joint1="b" joint2="c"/></equality>',
    "motor on the follower": (
        '<equality><joint joint1="b" joint2="a" polycoef="0.1 2"/></equality><actuator><position joint="b"/></actuator>'
    ),
    "tendon with a motor": TENDONS + PULLED,
    "two tendons": TENDONS + PULLED + '<equality><tendon tendon1="u" tendon2="t" polycoef=".1 .6 .2"/></equality>',
    "tendons of a joint each": TENDONS + '<equality><tendon tendon1="v" tendon2="w" polycoef=".1 2 .5"/></equality>',
    "a joint by a tendon": TENDONS + PULLED + '<equality><tendon tendon1="v" tendon2="t" polycoef=".1 1"/></equality>',
    "tendon of constant length": TENDONS + '<equality><tendon tendon1="t" polycoef=".3"/></equality>',
    "tendon of one joint, constant": TENDONS + '<equality><tendon tendon1="v" polycoef=".3"/></equality>',
}


def model_of(couplings: str) -> mujoco.MjModel:
    with quiet_mujoco():
        return mujoco.MjSpec.from_string(toy(couplings)).compile()


@pytest.mark.parametrize("kind", READ)
def test_joints_on_what_was_read_leave_mujoco_no_residual(kind: str):
    model = model_of(READ[kind])
    hand = coupled(hand_of(model, "toy"), model, {})
    assert hand.couplings and len(hand.coordinates.free) < len(JOINTS)
    assert not any("equality" in line for line in read_couplings(model, list(JOINTS)).unread)
    table, data = hand.coordinates, mujoco.MjData(model)
    generator = np.random.default_rng(0)
    for beyond in (0.0, 0.2):
        joints = table.joints_at(generator.uniform(table.lower - beyond, table.upper + beyond))
        for name, value in zip(hand.joint_names, joints, strict=True):
            data.joint(name).qpos = value
        mujoco.mj_forward(model, data)
        residual = data.efc_pos[data.efc_type == int(mujoco.mjtConstraint.mjCNSTR_EQUALITY)]
        assert len(residual) == model.neq
        np.testing.assert_allclose(residual, 0, atol=1e-9)
    assert np.ptp(joints) > 0.01, "nothing moves: nothing is tested"


def test_a_broken_reference_would_leave_one():
    model = model_of(READ["between references"])
    rules = read_couplings(model, list(JOINTS)).rules
    assert rules["b"].polynomial[0] == pytest.approx(0.2 + 0.1 + 0.5 * 0.1 + 0.2 * 0.1**3)


def test_a_motor_makes_a_joint_the_leader():
    assert set(read_couplings(model_of(READ["motor on the follower"]), list(JOINTS)).rules) == {"a"}


def test_a_tendon_of_joints_that_lead_each_other_is_one_motor():
    half = '<joint joint="a" coef="0.5"/><joint joint="c" coef="0.5"/>'
    gripper = (
        f'<tendon><fixed name="t">{half}</fixed></tendon><actuator><position tendon="t"/></actuator>'
        '<equality><joint joint1="c" joint2="a"/></equality>'
    )
    found = read_couplings(model_of(gripper), list(JOINTS))
    assert set(found.rules) == {"c"} and not found.unread


WITHOUT_U = TENDONS.replace('<fixed name="u"><joint joint="c" coef="1"/><joint joint="d" coef="3"/></fixed>', "")
UNREAD = {
    "equality 'pin' is of type connect": (
        '<equality><connect name="pin" body1="La" body2="Lc" anchor="0 0 0"/></equality>'
    ),
    "equality 'off' is switched off": '<equality><joint name="off" joint1="b" joint2="a" active="false"/></equality>',
    "'b' follow 'c', but it follows already": (
        '<equality><joint joint1="b" joint2="a"/><joint joint1="b" joint2="c" polycoef="0 0 1"/></equality>'
    ),
    "equality 'sum' keeps 1 a + 1 b + 2 c constant": (
        '<tendon><fixed name="t"><joint joint="a" coef="1"/><joint joint="b" coef="1"/><joint joint="c" coef="2"/>'
        '</fixed></tendon><equality><tendon name="sum" tendon1="t"/></equality>'
    ),
    "tendon 's' runs through sites": '<tendon><spatial name="s"><site site="s1"/><site site="s2"/></spatial></tendon>',
    "tendon 't' is 1 a + -1 b, whose length is limited to -0.001 ... 0.001, and no position actuator": (
        '<tendon><fixed name="t" limited="true" range="-0.001 0.001"><joint joint="a" coef="1"/>'
        '<joint joint="b" coef="-1"/></fixed></tendon>'
    ),
    "tendon 't' is 2 a + -1 b, and no position actuator pulls it": (
        TENDONS + '<actuator><motor tendon="t"/><position tendon="u"/></actuator>'
    ),
    "tendon 't' is 2 a + -1 b, but these joints have actuators of their own": (
        TENDONS + '<actuator><position tendon="t"/><position tendon="u"/><position joint="a"/></actuator>'
    ),
    "tendon 'x' is 1 b + 1 c, but another tendon moves these joints": (
        '<tendon><fixed name="t"><joint joint="a" coef="2"/><joint joint="b" coef="-1"/></fixed><fixed name="x">'
        '<joint joint="b" coef="1"/><joint joint="c" coef="1"/></fixed></tendon>'
        '<actuator><position tendon="t"/><position tendon="x"/></actuator>'
    ),
    "tendon 't' is 2 a + -1 b, of which a joint follows by an equality": (
        WITHOUT_U + PULLED + '<equality><joint joint1="b" joint2="c"/></equality>'
    ),
    "ties tendons 't' and 'u', but motors of their own move joints of 2 a + -1 b": (
        TENDONS + '<equality><tendon tendon1="t" tendon2="u"/></equality>'
        '<actuator><position joint="a"/><position joint="b"/></actuator>'
    ),
    "ties tendons 'v' and 't', but motors of their own move joints of 2 a + -1 b": (
        WITHOUT_U + '<equality><tendon tendon1="v" tendon2="t"/></equality>'
        '<actuator><position joint="a"/><position joint="b"/></actuator>'
    ),
    "tendon 't' is limited to -0.1 ... 0.5; only the limits of its joints count": (
        WITHOUT_U.replace('name="t"', 'name="t" limited="true" range="-0.1 0.5"') + PULLED
    ),
    "the motor of tendon 't' is limited to 0 ... 0.5, its joints to ": (
        WITHOUT_U + '<actuator><position tendon="t" ctrllimited="true" ctrlrange="0 0.5"/></actuator>'
    ),
}


@pytest.mark.parametrize("said", UNREAD)
def test_what_cannot_be_read_is_named(said: str, tmp_path: Path):
    model = model_of(UNREAD[said])
    found = read_couplings(model, list(JOINTS))
    assert len(found.unread) == 1 and said in found.unread[0]
    hand = coupled(hand_of(model, "toy"), model, {})
    assert len(hand.coordinates.free) == len(JOINTS) - sum(not r.tendon for r in found.rules.values()) - sum(
        len(r.tendon) - 1 for r in found.rules.values() if r.tendon
    ), "what is not read moves freely"
    path = coupled_hands.written(tmp_path, "toy.xml", toy(UNREAD[said]))
    assert [line for line in inspect_hand(path).warnings if said in line and "such as +hand.couplings." in line]


@pytest.mark.parametrize(
    ("text", "motors", "followers"),
    [
        (coupled_hands.inspire(), coupled_hands.INSPIRE_MOTORS, coupled_hands.INSPIRE_FOLLOWERS),
        (coupled_hands.ability(), coupled_hands.ABILITY_MOTORS, coupled_hands.ABILITY_FOLLOWERS),
    ],
    ids=["inspire", "ability"],
)
def test_the_mimic_joints_of_hands_follow_by_multiplier_and_offset(tmp_path: Path, text, motors, followers):
    hand = inspect_hand(coupled_hands.written(tmp_path, "hand.urdf", text)).hand
    names, table = hand.joint_names, hand.coordinates
    assert {names[node] for node in table.free} == set(motors) and len(motors) == 6
    joints = table.joints_at(np.random.default_rng(0).uniform(table.lower, table.upper, (50, 6)))
    value = dict(zip(names, joints.T, strict=True))
    for joint, (leader, multiplier, offset) in followers.items():
        np.testing.assert_allclose(value[joint], multiplier * value[leader] + offset, atol=1e-12)
    assert (joints >= hand.joint_lower - 1e-6).all() and (joints <= hand.joint_upper + 1e-6).all()


def test_the_limits_of_followers_narrow_their_leaders(tmp_path: Path):
    hand = inspect_hand(coupled_hands.written(tmp_path, "hand.urdf", coupled_hands.ability())).hand
    place = hand.coordinates.free.tolist().index(hand.joint_names.index("index_q1"))
    assert hand.coordinates.upper[place] == pytest.approx((2.6586 - 0.72349539) / 1.05851325, abs=1e-6)
    assert hand.coordinates.upper[place] < 2.0943951 - 0.2


def test_a_mimic_joint_of_no_hinge_is_named(tmp_path: Path):
    text = coupled_hands.ability().replace('mimic joint="index_q1"', 'mimic joint="nobody"')
    path = Path(coupled_hands.written(tmp_path, "hand.urdf", text))
    assert unread_mimics(path) == ["joint 'index_q2' mimics 'nobody', which is no hinge of the file"]
    assert [line for line in inspect_hand(str(path)).warnings if "'index_q2' mimics 'nobody'" in line]


def test_the_shadow_hand_of_a_file_with_tendons_is_the_one_of_the_yaml(tmp_path: Path):
    path = coupled_hands.written(tmp_path, "hand.xml", coupled_hands.shadow_with_tendons())
    by_file = conf.load(["hand=shadow", f"hand.mjcf={path}"]).hand
    by_yaml = conf.load(["hand=shadow_coupled"]).hand
    pairs = [load_hands(config) for config in (by_file, by_yaml)]
    assert [hand.sha256 for hand in pairs[0]] == [hand.sha256 for hand in pairs[1]]
    right = pairs[0][1]
    assert len(right.coordinates.free) == 18
    for finger, tendon in zip(("FF", "MF", "RF", "LF"), right.couplings.tendons, strict=True):
        assert tendon.name == finger
        assert [right.joint_names[joint] for joint in tendon.joints] == [f"{finger}J1", f"{finger}J0"]


def test_the_built_in_defaults_stay_free():
    assert quick_conf.load().hand.name == "shadow"
    for name in quick_conf.BUILT_IN:
        assert not any(hand.couplings for hand in load_hands(quick_conf.load(f"hand={name}").hand))


FOLLOWS = "+hand.couplings.FFJ0={follows:FFJ1,polynomial:[0.1,0.5]}"


def shadow(*overrides: str) -> Couplings:
    return load_hands(conf.load(["hand=shadow_coupled", *overrides]).hand)[1].couplings


def test_a_yaml_states_changes_and_removes_couplings(tmp_path: Path):
    assert len(shadow().tendons) == 4
    assert [t.name for t in shadow("+hand.couplings.FF.coupled=false").tendons] == ["MF", "RF", "LF"]
    changed = shadow("hand.couplings.FF.tendon.FFJ1=3.0")
    assert changed.tendons[0].coefficients == (0.75, 0.25)
    mine = shadow("+hand.couplings.FF.coupled=false", FOLLOWS, "hand.joint_mean.FFJ0=0.25")
    assert [f.polynomial[:2] for f in mine.followers] == [(0.1, 0.5)] and len(mine.tendons) == 3
    path = coupled_hands.written(tmp_path, "hand.xml", coupled_hands.shadow_with_tendons())
    of_file = ["hand=shadow", f"hand.mjcf={path}"]
    less = load_hands(conf.load([*of_file, "+hand.couplings.MF.coupled=false"]).hand)[1].couplings
    assert [tendon.name for tendon in less.tendons] == ["FF", "RF", "LF"]


WRONG = {
    "ring": (
        ["hand=shadow", FOLLOWS, "+hand.couplings.FFJ1={follows:FFJ0}"],
        r"ring: .*FFJ0.*\+hand.couplings.FFJ",
    ),
    "ring of a tendon": (
        ["hand=shadow_coupled", "+hand.couplings.FF={follows:FFJ0}"],
        r"ring: .*FF -> FFJ0.*\+hand.couplings.FF.coupled=false",
    ),
    "two couplings": (
        ["hand=shadow_coupled", FOLLOWS],
        r"tendon 'FF' and one of its own; .*FF.coupled=false removes it, and .*FFJ0.coupled",
    ),
    "two tendons": (
        ["hand=shadow_coupled", "+hand.couplings.T={tendon:{FFJ0:1,THJ0:1}}"],
        r"'FFJ0' has two couplings: tendon 'T' and tendon 'FF'; .*T.coupled=false removes it, and .*FF.coupled=false",
    ),
    "unknown leader": (["hand=shadow", "+hand.couplings.FFJ0={follows:FFJ9}"], "FFJ9.*Nearest: FFJ"),
    "unknown follower": (["hand=shadow", "+hand.couplings.FFJ9={follows:FFJ0}"], "FFJ9.*Nearest: FFJ"),
    "unknown member": (["hand=shadow", "+hand.couplings.T={tendon:{FFJ0:1,FFJ9:1}}"], "T.tendon names 'FFJ9'"),
    "nothing to remove": (["hand=shadow", "+hand.couplings.T.coupled=false"], "names 'T', which the hand does not"),
    "one member": (["hand=shadow", "+hand.couplings.T={tendon:{FFJ0:1}}"], "wanted two joints or more"),
    "no pull": (["hand=shadow", "+hand.couplings.T={tendon:{FFJ0:1,FFJ1:0}}"], "none with the coefficient 0"),
    "name of a joint": (["hand=shadow", "+hand.couplings.FFJ2={tendon:{FFJ0:1,FFJ1:1}}"], "'FFJ2' is a joint"),
    "six numbers": (["hand=shadow", "+hand.couplings.FFJ0={follows:FFJ1,polynomial:[0,1,0,0,0,1]}"], "up to 5"),
    "says nothing": (["hand=shadow", "+hand.couplings.FFJ0={}"], "FFJ0 says nothing"),
    "never within limits": (
        ["hand=shadow", "+hand.couplings.FFJ0={follows:FFJ1,polynomial:[5]}"],
        r"'FFJ0' never leave all .* within their limits.*\+hand.couplings.FFJ0.coupled=false",
    ),
    "two that are never within limits": (
        [
            "hand=shadow",
            "+hand.couplings.FFJ0={follows:FFJ1,polynomial:[5]}",
            "+hand.couplings.MFJ0={follows:MFJ1,polynomial:[5]}",
        ],
        r"'FFJ0', 'MFJ0' never leave all .*\+hand.couplings.FFJ0.coupled=false.*\+hand.couplings.MFJ0.coupled=false",
    ),
    "a factor without a leader": (
        ["hand=shadow", "+hand.couplings.FFJ0={polynomial:[0.1,0.8]}"],
        r"polynomial is \[0.1, 0.8\] and follows nothing; wanted hand.couplings.FFJ0.follows=",
    ),
    "removal of a joint that a tendon moves": (
        ["hand=shadow_coupled", "+hand.couplings.FFJ0.coupled=false"],
        r"'FFJ0' is coupled by tendon 'FF'; \+hand.couplings.FF.coupled=false removes it",
    ),
    "the other way round": (
        ["hand=shadow", "+hand.couplings.FFJ0={follows:FFJ1,polynomial:[0,-1]}"],
        r"'FFJ1' and 'FFJ0' move together and have no range .* is the sign of the factor right\?",
    ),
    "mean off its coupling": (
        ["hand=shadow", "+hand.couplings.FFJ0={follows:FFJ1}"],
        r"joint_mean of 'FFJ0' is 0 rad.* at 0.6 rad; give it that value: hand.joint_mean.FFJ0=0.6",
    ),
}


def test_numbers_alone_keep_the_leader_of_the_file():
    model = model_of(READ["chain"])
    hand = coupled(hand_of(model, "toy"), model, {"b": CouplingRule(polynomial=[0.05, 0.25])})
    rules = rules_of(hand.couplings, hand.joint_names)
    assert (rules["b"].follows, rules["b"].polynomial) == ("a", [0.05, 0.25])


def test_an_equality_that_is_said_twice_is_one():
    twice = '<joint joint1="c" joint2="b" polycoef="0 0.5"/>' * 2
    found = read_couplings(model_of(f"<equality>{twice}</equality>"), list(JOINTS))
    assert set(found.rules) == {"c"} and found.rules["c"].follows == "b" and not found.unread


def test_a_tendon_over_a_chain_is_the_motor_of_its_leader():
    members = "".join(f'<joint joint="{name}" coef="1"/>' for name in "efg")
    found = read_couplings(
        model_of(
            f'<tendon><fixed name="t">{members}</fixed></tendon><actuator><position tendon="t"/></actuator><equality>'
            '<joint joint1="f" joint2="e" polycoef="0 0.5"/><joint joint1="g" joint2="f" polycoef="0 0.5"/></equality>'
        ),
        list(JOINTS),
    )
    assert set(found.rules) == {"f", "g"} and not found.unread


def test_limits_of_a_left_hand_that_fit_no_coupling_are_refused_with_its_file():
    model = model_of(READ["one leads two"])
    hand = coupled(hand_of(model, "toy"), model, {})
    upper, lower = hand.joint_upper.copy(), hand.joint_lower.copy()
    a, b = hand.joint_names.index("a"), hand.joint_names.index("b")
    lower[a], upper[a], lower[b], upper[b] = 0.0, 0.1, 0.5, 1.0
    with pytest.raises(InputError, match=r"'b' never leave .* change their ranges in hand.left_mjcf='left.xml'"):
        placed_on_couplings(
            replace(hand, joint_lower=lower, joint_upper=upper), hand.joint_mean, "hand.left_mjcf='left.xml'"
        )


def test_what_hydra_cannot_name_is_removed_in_the_yaml():
    text = toy('<equality><joint joint1="f" joint2="e" polycoef="0 -1"/></equality>').replace('"f"', '"robot0:f"')
    with quiet_mujoco():
        model = mujoco.MjSpec.from_string(text).compile()
    hand = hand_of(model, "toy")
    for name in ("e", "robot0:f"):
        hand.joint_lower[hand.joint_names.index(name)] = 0.0
    with pytest.raises(InputError, match=r"a line 'robot0:f': \{coupled: false\} below couplings"):
        coupled(hand, model, {})


def test_a_hand_of_which_nothing_is_free_is_refused():
    fixed = {name: CouplingRule(polynomial=[0.2]) for name in JOINTS}
    with pytest.raises(InputError, match="wanted one at least that is free"):
        coupled(hand_of(model_of(""), "toy"), model_of(""), fixed)


@pytest.mark.parametrize("fault", WRONG)
def test_a_wrong_coupling_is_refused_by_name(fault: str):
    overrides, said = WRONG[fault]
    with pytest.raises(InputError, match=said):
        load_hands(conf.load(overrides).hand)


def test_a_mean_that_takes_a_follower_beyond_its_limit_is_refused():
    config = conf.load(["hand=shadow", "+hand.couplings.FFJ0={follows:FFJ1,polynomial:[1.2,1]}"]).hand
    del config.joint_mean["FFJ0"]
    with pytest.raises(InputError, match=r"puts 'FFJ0' at 1\.8 rad by its coupling.*0 to 1\.571 rad"):
        load_hands(config)


def test_the_hands_of_the_release_take_no_couplings(shared: Path):
    root = shared / "data" / "bimangrasp_hands"
    config = conf.load(["hand=release", f"hand.root={root}", "+hand.couplings.T.coupled=false"]).hand
    with pytest.raises(InputError, match=r"hand\.couplings.*hand=shadow_coupled"):
        load_hands(config)


def test_a_left_file_has_the_right_hands_couplings(tmp_path: Path):
    text = coupled_hands.ability()
    right = coupled_hands.written(tmp_path, "right.urdf", text)
    # the mirror image in the plane x = 0, with each axis turned over
    mirrored = text.replace('xyz="0.03 -0.012 0.02" rpy="0 1.3 0"', 'xyz="-0.03 -0.012 0.02" rpy="0 -1.3 0"')
    mirrored = mirrored.replace('xyz="-0.96356 0 0.2675"', 'xyz="0.96356 0 0.2675"')
    mirrored = mirrored.replace('lower="-2.0943951" upper="0.0"', 'lower="0.0" upper="2.0943951"')
    mirrored = mirrored.replace('xyz="0 -1 0"', 'xyz="0 1 0"')
    for x in coupled_hands.SPREAD.values():
        mirrored = mirrored.replace(f'xyz="{x} 0 0.1"', f'xyz="SIDE{-x} 0 0.1"')
    left = coupled_hands.written(tmp_path, "left.urdf", mirrored.replace("SIDE", ""))
    means = ",".join(f"{name}:{-0.5 if name == 'thumb_q1' else 0.3}" for name in coupled_hands.ABILITY_MOTORS)
    overrides = [
        *("hand=own", f"hand.mjcf={right}", f"hand.left_mjcf={left}", "hand.side=right", "hand.palm_normal=[0,-1,0]"),
        *("hand.finger_direction=[0,0,1]", f"+hand.joint_mean={{{means}}}"),
        "+hand.candidates.palmar.index_q2_link=[0.0,-1.0,0.0]",
    ]
    pair = load_hands(conf.load(["mode=hand", *overrides]).hand)
    assert pair[0].couplings == pair[1].couplings and len(pair[0].couplings.followers) == 4
    assert pair[0].joint_mean.tolist() == pytest.approx(pair[1].joint_mean.tolist())


def test_rules_go_through_names_and_back(tmp_path: Path):
    model = model_of(READ["two tendons"])
    hand = coupled(hand_of(model, "toy"), model, {})
    rules = rules_of(hand.couplings, hand.joint_names)
    assert all(isinstance(rule, CouplingRule) for rule in rules.values())
    free = hand_of(model_of(""), "toy")
    turned = {name: replace(rule, tendon=dict(reversed(rule.tendon.items()))) for name, rule in reversed(rules.items())}
    assert coupled(free, model_of(""), turned).sha256 == hand.sha256, "their order is nothing"
    assert coupled(free, model_of(""), rules).couplings == hand.couplings


def test_a_start_names_what_is_not_read_of_an_own_file_and_nothing_of_those_of_the_package(tmp_path: Path):
    pins = "".join(
        f'<equality><connect name="pin{number}" body1="index_distal" body2="palm" anchor="0 0 0"/></equality>'
        for number in range(3)
    )
    file = tmp_path / "pinned.xml"
    file.write_text(TEXTS["allegro"].replace("</mujoco>", f"{pins}</mujoco>"))
    overrides = ("hand=allegro", "filter=none", f"output_root={tmp_path}")
    [note] = lifecycle.check(quick_conf.load(*overrides, f"hand.mjcf={file}")).notes
    assert "'pin0' is of type connect, and 2 more" in note and str(file) in note and "hand.couplings" in note
    assert not lifecycle.check(quick_conf.load(*overrides)).notes
