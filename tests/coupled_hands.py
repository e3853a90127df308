"""Hands with fewer motors than joints, as texts of our own with the published figures of such hands, and toy trees.

Ranges, multipliers and offsets are those that the makers publish for their hands; shapes and places are rough.
Frame: origin at the wrist, +z along the fingers, -y out of the palm, +x towards the thumb.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch
from hand_texts import TEXTS
from scene import built_in_hands

from bimangrasp.hands.couplings import FIXED, Couplings, Follower, Tendon
from bimangrasp.hands.description import HandDescription, mirror
from bimangrasp.hands.model import HandModel

SPREAD = {"index": 0.03, "middle": 0.01, "ring": -0.01, "pinky": -0.03}
"""Places of the fingers across the palm, m."""

INSPIRE_MOTORS = ("thumb_yaw", "thumb_pitch", *(f"{finger}_proximal" for finger in SPREAD))
INSPIRE_FOLLOWERS = {
    "thumb_intermediate": ("thumb_pitch", 1.334, 0.0),
    "thumb_distal": ("thumb_pitch", 0.667, 0.0),
    **{f"{finger}_intermediate": (f"{finger}_proximal", 1.06399, -0.04545) for finger in SPREAD},
}
ABILITY_MOTORS = ("thumb_q1", "thumb_q2", *(f"{finger}_q1" for finger in SPREAD))
ABILITY_FOLLOWERS = {f"{finger}_q2": (f"{finger}_q1", 1.05851325, 0.72349539) for finger in SPREAD}
"""Joint -> joint that it mimics, multiplier, offset (rad)."""


def _bone(name: str, length: float, radius: float) -> str:
    """A link along z, round at its end."""
    shapes = "".join(
        f'<collision><origin xyz="0 0 {z}"/><geometry>{shape}</geometry></collision>'
        for z, shape in (
            (length / 2, f'<cylinder radius="{radius}" length="{length}"/>'),
            (length, f'<sphere radius="{radius}"/>'),
        )
    )
    return f'<link name="{name}_link">{shapes}</link>'


def _hinge(name: str, parent: str, place: str, axis: str, limits: tuple[float, float], mimic: tuple | None) -> str:
    leader = f'<mimic joint="{mimic[0]}" multiplier="{mimic[1]}" offset="{mimic[2]}"/>' if mimic else ""
    return (
        f'<joint name="{name}" type="revolute"><parent link="{parent}"/><child link="{name}_link"/><origin {place}/>'
        f'<axis xyz="{axis}"/><limit lower="{limits[0]}" upper="{limits[1]}" effort="1" velocity="1"/>{leader}</joint>'
    )


def _urdf(name: str, parts: list[str]) -> str:
    palm = (
        '<link name="palm"><collision><origin xyz="0 0 0.05"/><geometry><box size="0.08 0.025 0.09"/></geometry>'
        "</collision></link>"
    )
    return f'<robot name="{name}">{palm}{"".join(parts)}</robot>'


def inspire() -> str:
    """A URDF with the 12 joints and 6 motors of the Inspire hand (RH56)."""
    limits = {"thumb_intermediate": (0.0, 0.8), "thumb_distal": (0.0, 0.4)}
    parts = [_bone("thumb_yaw", 0.012, 0.009)]
    parts += [_hinge("thumb_yaw", "palm", 'xyz="0.032 -0.012 0.025"', "0 0 -1", (-0.1, 1.3), None)]
    place = 'xyz="0 0 0.012" rpy="0 1.0472 0"'
    parts += [_bone("thumb_pitch", 0.045, 0.008)]
    parts += [_hinge("thumb_pitch", "thumb_yaw_link", place, "0 -1 0", (-0.1, 0.6), None)]
    lengths = {"thumb_intermediate": ("thumb_pitch", 0.045, 0.02), "thumb_distal": ("thumb_intermediate", 0.02, 0.02)}
    for joint, (parent, way, length) in lengths.items():
        parts += [_bone(joint, length, 0.008)]
        mimic = INSPIRE_FOLLOWERS[joint]
        parts += [_hinge(joint, f"{parent}_link", f'xyz="0 0 {way}"', "0 -1 0", limits[joint], mimic)]
    for finger, x in SPREAD.items():
        first, second = f"{finger}_proximal", f"{finger}_intermediate"
        parts += [_bone(first, 0.032, 0.0085), _bone(second, 0.04, 0.0075)]
        parts += [_hinge(first, "palm", f'xyz="{x} 0 0.1"', "1 0 0", (0.0, 1.47), None)]
        mimic = INSPIRE_FOLLOWERS[second]
        parts += [_hinge(second, f"{first}_link", 'xyz="0 0 0.032"', "1 0 0", (-0.04545, 1.56), mimic)]
    return _urdf("inspire", parts)


def ability() -> str:
    """A URDF with the 10 joints and 6 motors of the Ability hand."""
    parts = [_bone("thumb_q1", 0.02, 0.009), _bone("thumb_q2", 0.055, 0.0085)]
    place, axis = 'xyz="0.03 -0.012 0.02" rpy="0 1.3 0"', "-0.96356 0 0.2675"  # about z of the palm
    parts += [_hinge("thumb_q1", "palm", place, axis, (-2.0943951, 0.0), None)]
    parts += [_hinge("thumb_q2", "thumb_q1_link", 'xyz="0 0 0.02"', "0 -1 0", (0.0, 2.0943951), None)]
    for finger, x in SPREAD.items():
        first, second = f"{finger}_q1", f"{finger}_q2"
        parts += [_bone(first, 0.0385, 0.0085), _bone(second, 0.045, 0.0075)]
        parts += [_hinge(first, "palm", f'xyz="{x} 0 0.1"', "1 0 0", (0.0, 2.0943951), None)]
        mimic = ABILITY_FOLLOWERS[second]
        parts += [_hinge(second, f"{first}_link", 'xyz="0 0 0.0385"', "1 0 0", (0.0, 2.6586), mimic)]
    return _urdf("ability", parts)


def shadow_with_tendons() -> str:
    """The built-in Shadow hand with a tendon and its motor for the last two joints of each finger, as in MJCF."""
    tendons = "".join(
        f'<fixed name="{f}"><joint joint="{f}J1" coef="1"/><joint joint="{f}J0" coef="1"/></fixed>'
        for f in ("FF", "MF", "RF", "LF")
    )
    motors = "".join(f'<position tendon="{f}" kp="1"/>' for f in ("FF", "MF", "RF", "LF"))
    return TEXTS["shadow"].replace("</mujoco>", f"<tendon>{tendons}</tendon><actuator>{motors}</actuator></mujoco>")


JOINTS = "abcdefgh"
"""The joints of `toy`, one on the other."""

RANGE = (-0.5, 1.5)
"""Of each of them, rad."""

REFERENCE = {"b": 0.2, "d": -0.1}
"""What MuJoCo calls `ref` of some: equalities count from there."""


def toy(couplings: str) -> str:
    """An MJCF of a chain of eight hinges, with what is given behind the bodies."""
    body = ""
    for name in reversed(JOINTS):
        reference = f'ref="{REFERENCE[name]}"' if name in REFERENCE else ""
        joint = f'<joint name="{name}" axis="1 0 0" range="{RANGE[0]} {RANGE[1]}" {reference}/>'
        body = f'<body name="L{name}" pos="0 0 .1">{joint}<geom size=".01"/>{body}</body>'
    sites = '<site name="s1"/><site name="s2" pos="0 0 1"/>'
    return (
        '<mujoco><compiler angle="radian"/><worldbody><body name="root"><geom size=".01"/>'
        f"{sites}{body}</body></worldbody>{couplings}</mujoco>"
    )


def written(folder: Path, name: str, text: str) -> str:
    """Returns the path of a file with the text."""
    (folder / name).write_text(text)
    return str(folder / name)


def shadow_with(couplings: Couplings, **changes) -> HandDescription:
    right = built_in_hands("shadow").descriptions[1]
    return replace(right, couplings=couplings, **changes)


SHADOW = Couplings(
    (Tendon("FF", (2, 3), (0.4, 0.6)), Tendon("LF", (15, 16), (0.5, 0.5))),
    (
        Follower(7, 6, (0.05, 0.8, 0.1, 0.0, 0.02)),
        Follower(11, 7, (0.0, 0.9, 0.0, 0.0, 0.0)),
        Follower(5, 22, (0.0, 1.0, 0.0, 0.0, 0.0)),
        Follower(21, FIXED, (-0.3, 0.0, 0.0, 0.0, 0.0)),
        Follower(23, 8, (0.3, 0.5, 0.0, 0.0, 0.0)),
    ),
)
"""All kinds in a hand: tendons of which one follows a joint, a chain, a joint that follows a tendon, a fixed one."""


def coupled_shadow(dtype=torch.float64, couplings=SHADOW) -> HandModel:
    right = shadow_with(couplings)
    return HandModel(mirror(right), right, 200, dtype=dtype)


def coordinates(hands: HandModel, count=32, seed=0, beyond=0.1):
    generator = torch.Generator().manual_seed(seed)
    low, high = hands.coordinate_lower - beyond, hands.coordinate_upper + beyond
    uniform = torch.rand((count, 2, hands.coordinate_count), generator=generator, dtype=torch.float64)
    return (low + (high - low) * uniform.to(hands.dtype)).to(hands.dtype)
