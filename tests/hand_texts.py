"""The MJCF texts of the built-in hands, as they are and turned, for the tests of those who read hand files."""

from __future__ import annotations

import re
from pathlib import Path

import quick_conf
from scipy.spatial.transform import Rotation

from bimangrasp.builtin import ASSET_ROOT

FILES = {name: f"{name}_hand/right_hand.xml" for name in quick_conf.BUILT_IN}
TEXTS = {name: (ASSET_ROOT / file).read_text() for name, file in FILES.items()}
TURN = Rotation.from_rotvec([0.7, -1.1, 0.4])


def written(folder: Path, text: str) -> str:
    (folder / "hand.xml").write_text(text)
    return str(folder / "hand.xml")


def turned(text: str) -> str:
    """The same hand below a root whose frame is turned: everything in it has other coordinates."""
    x, y, z, w = TURN.inv().as_quat()
    inside = re.search(r"<worldbody>\s*<body name=\"palm\">(.*)</body>\s*</worldbody>", text, re.DOTALL)[1]
    body = f'<body name="base"><body name="palm" quat="{w} {x} {y} {z}">{inside}</body></body>'
    return re.sub(r"<worldbody>.*</worldbody>", lambda _: f"<worldbody>{body}</worldbody>", text, flags=re.DOTALL)
