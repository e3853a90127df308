"""Hands that are not like ours, as MJCF of our own with published figures: a claw and a three-fingered gripper.

Numbers of joints, ranges and lengths are those that the makers publish; shapes are rough. The palm looks along +z.
"""

from __future__ import annotations

import math

from scipy.spatial.transform import Rotation

CLAW_RADIUS = 0.06
CLAW_SWING = 0.524, 1.32
CLAW_BEND = 1.57
CLAW_LENGTHS = 0.0685, 0.0685, 0.084

GRIPPER_SPREAD = math.pi
GRIPPER_BEND, GRIPPER_TIP = 2.44, 0.785
GRIPPER_FOLLOWS = 1 / 3


def _file(bodies: str, more: str = "") -> str:
    return f'<mujoco><compiler angle="radian"/><worldbody>{bodies}</worldbody>{more}</mujoco>'


def _turned(angle: float, splay: float) -> str:
    """A turn about y, then one about z, as MJCF writes it."""
    x, y, z, w = Rotation.from_euler("yz", [splay, angle]).as_quat()
    return f"{w} {x} {y} {z}"


def claw(splay: float = 0.0) -> str:
    """D'Claw: three fingers around an axis along which they are stretched; each swings aside and bends twice.

    Args:
        splay: angle by which they point away from the axis, rad.
    """
    fingers = ""
    for number in range(3):
        angle = 2 * math.pi * number / 3
        place = f"{CLAW_RADIUS * math.cos(angle):.6f} {CLAW_RADIUS * math.sin(angle):.6f} 0.014"
        low, high = (-CLAW_SWING[0], CLAW_SWING[1]) if number == 0 else (-CLAW_SWING[1], CLAW_SWING[0])
        inner = ""
        for part in (3, 2, 1):
            length = CLAW_LENGTHS[part - 1]
            axis, limits = ("1 0 0", (low, high)) if part == 1 else ("0 1 0", (-CLAW_BEND, CLAW_BEND))
            where = (
                f'pos="{place}" quat="{_turned(angle, splay)}"' if part == 1 else f'pos="0 0 {CLAW_LENGTHS[part - 2]}"'
            )
            inner = (
                f'<body name="f{number}_{part}" {where}><joint name="f{number}_j{part}" axis="{axis}" '
                f'range="{limits[0]} {limits[1]}"/><geom type="capsule" fromto="0 0 0.01 0 0 {length - 0.012}" '
                f'size="0.012"/>{inner}</body>'
            )
        fingers += inner
    return _file(f'<body name="base"><geom type="cylinder" size="0.075 0.012"/>{fingers}</body>')


def gripper() -> str:
    """BarrettHand: two fingers that one motor spreads, a third that faces them, each bent by a motor for two joints."""

    def bends(name: str, where: str) -> str:
        return (
            f'<body name="{name}_proximal" {where}><joint name="{name}_bend" axis="1 0 0" range="0 {GRIPPER_BEND}"/>'
            f'<geom type="capsule" fromto="0 0.01 0 0 0.06 0" size="0.01"/>'
            f'<body name="{name}_distal" pos="0 0.07 0" euler="0.7 0 0"><joint name="{name}_tip" axis="1 0 0" '
            f'range="0 {GRIPPER_TIP}"/><geom type="capsule" fromto="0 0.01 0 0 0.047 0" size="0.009"/></body></body>'
        )

    parts, rules = "", ""
    place = "pos='0 0.05 0'"
    for name, x, limits in (("f1", 0.025, f"{-GRIPPER_SPREAD} 0"), ("f2", -0.025, f"0 {GRIPPER_SPREAD}")):
        parts += (
            f'<body name="{name}_knuckle" pos="{x} 0 0.075"><joint name="{name}_spread" axis="0 0 1" range="{limits}"/>'
            f'<geom type="capsule" fromto="0 0 0 0 0.045 0" size="0.012"/>{bends(name, place)}</body>'
        )
    parts += bends("f3", "pos='0 -0.05 0.075' euler='0 0 3.141592653589793'")
    for name in ("f1", "f2", "f3"):
        rules += f'<joint joint1="{name}_tip" joint2="{name}_bend" polycoef="0 {GRIPPER_FOLLOWS} 0 0 0"/>'
    rules += '<joint joint1="f2_spread" joint2="f1_spread" polycoef="0 -1 0 0 0"/>'
    palm = f'<body name="base"><geom type="cylinder" pos="0 0 0.032" size="0.045 0.032"/>{parts}</body>'
    return _file(palm, f"<equality>{rules}</equality>")
