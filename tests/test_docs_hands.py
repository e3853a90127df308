"""Every command of docs/hands.md, one after the other."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import quick_conf
from documents import PAGES, commands, keys_of
from hand_texts import TEXTS

import conf
import main
from conf import groups
from scale.modes import check_hand, paths

TEXT = PAGES["docs/hands.md"]


@pytest.mark.slow
def test_the_commands_lead_from_a_file_to_grasps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(check_hand, "draw", lambda *_: np.zeros((2, 3, 3), np.uint8))
    Path("robot").mkdir()
    Path("robot/right.xml").write_text(TEXTS["allegro"])
    codes = []
    for words in commands(TEXT):
        extra = ["dry_run=true"] if "mode=scale" in words else []
        monkeypatch.setattr("sys.argv", ["main.py", *words, *extra])
        codes.append(main.main())
    assert codes == [2, 0, 0, 0, 0, 0], capsys.readouterr().err
    shown = capsys.readouterr().out
    assert "hand/my_hand.yaml: look at it" in shown and "40 contact candidates on 4 links" in shown
    assert {path.name for path in Path("hand").iterdir()} == {
        *("right.png", "my_hand.yaml", "my_hand.png", "tips.yaml", "tips.png")
    }


def test_every_named_key_exists():
    named = set(re.findall(r"`((?:hand|energy)\.[a-z_]+)", TEXT)) | set(
        re.findall(r"(?<=[ '`+])(hand\.[a-z_]+)=", TEXT)
    )
    assert len(named) > 6
    assert named - {"hand.urdf", "hand.xacro"} <= keys_of(quick_conf.load())


def test_the_names_that_are_taken_are_those_of_the_package():
    assert tuple(groups()["hand"]) == paths.SHIPPED
    assert all(f"`{name}`" in TEXT for name in paths.SHIPPED)


def test_the_numbers_are_those_of_the_code():
    config = quick_conf.load("mode=hand")
    assert f"{config.hand.candidates.per_link} on each link, within {config.hand.candidates.spread_rad:g} rad" in TEXT
    assert f"`energy.keypoint_distance` ({config.energy.keypoint_distance} m)" in TEXT
    assert "more\n  than 500 faces" in TEXT


@pytest.mark.slow
@pytest.mark.parametrize("name", ["shadow", "allegro", "release"])
def test_the_hands_of_the_package_are_listed(name: str):
    assert f"| `hand={name}" in TEXT
    assert conf.load([f"hand={name}"]).hand.name == name
