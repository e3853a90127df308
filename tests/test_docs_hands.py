"""Every command of docs/hands.md, one after the other."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import quick_conf
import yaml
from documents import PAGES, blocks, commands, keys_of
from hand_texts import TEXTS

import conf
import main
from bimangrasp.hand_files.config import CouplingRule
from bimangrasp.hand_files.loading import load_hands
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
        if "hand=leap" in words:
            continue  # of a file that is not here: tests/test_hand_presets.py
        extra = ["dry_run=true"] if "mode=scale" in words else []
        extra += ["hand_test=2", "num_iterations=2"] if "hand_test=32" in words else []
        monkeypatch.setattr("sys.argv", ["main.py", *words, *extra])
        codes.append(main.main())
    assert codes == [2, 0, 0, 0, 0, 0, 0], capsys.readouterr().err
    shown = capsys.readouterr().out
    assert "bowl: " in shown and " of 2 grasps hold" in shown
    assert "hand/my_hand.yaml: look at it" in shown and "40 contact candidates on 4 links" in shown
    assert {path.name for path in Path("hand").iterdir()} == {
        *("right.png", "my_hand.yaml", "my_hand.png", "tips.yaml", "tips.png")
    }


def test_the_couplings_that_are_shown_are_those_of_a_hand():
    (block,) = blocks(TEXT, "yaml")
    rules = {name: CouplingRule(**rule) for name, rule in yaml.safe_load(block)["couplings"].items()}
    config = quick_conf.load("hand=shadow").hand
    means = {name: mean for name, mean in config.joint_mean.items() if name not in ("THJ0", "LFJ4")}
    right = load_hands(replace(config, couplings=rules, joint_mean=means))[1]
    assert len(right.coordinates.free) == 19 and [tendon.name for tendon in right.couplings.tendons] == ["FF"]
    of_yaml = load_hands(quick_conf.load("hand=shadow_coupled").hand)[1]
    assert right.couplings.tendons[0] == of_yaml.couplings.tendons[0]
    assert f"{len(of_yaml.coordinates.free)} motors" in TEXT


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
