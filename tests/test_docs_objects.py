"""docs/objects.md says what is there: its commands are run, its numbers are the code's."""

from __future__ import annotations

import re
from dataclasses import fields
from importlib.util import find_spec

import pytest
import trimesh
from documents import PAGES, commands

import conf
import scale
from bimangrasp.objects import preparation
from bimangrasp.objects.config import CONVENTIONS, PreparationConfig
from scale.modes.prepare_objects import HEADINGS, READY

TEXT = PAGES["docs/objects.md"]
COARSE = ["pieces.resolution=100", "pieces.mcts_nodes=5", "pieces.mcts_iterations=10", "pieces.mcts_max_depth=1"]


@pytest.mark.slow
@pytest.mark.skipif(find_spec("coacd") is None, reason="needs coacd (pip install -e '.[objects]')")
def test_the_commands_do_what_they_say(tmp_path):
    for folder, size in (("my_meshes", 158.0), ("my_cad", 250.0)):
        (tmp_path / folder).mkdir()
        trimesh.creation.box((size, size / 2, size / 2)).export(tmp_path / folder / "box.stl")
    seen = []
    for command in commands(TEXT):
        here = [word.replace("~", str(tmp_path)) for word in command]
        config = conf.load([*here, *COARSE, "gpus=[cpu]", f"output_root={tmp_path}/runs"])
        seen.append(config.mode)
        if config.mode == "objects":
            assert scale.prepare_objects(config).exit_code == 0, command
        else:
            assert "box" in str(scale.plan(config)), command
    assert len(seen) == 9 and set(seen) == {"objects", "scale"}
    assert trimesh.load_mesh(tmp_path / "my_parts/box/coacd/decomposed.obj").extents[0] == pytest.approx(0.25)


def test_the_numbers_are_those_of_the_code():
    points = 2 * preparation.AT_FACES + preparation.IN_BOX + preparation.FAR
    for words in (
        f"at {points} points",
        f"({preparation.STEP:g} of the diagonal)",
        f"refused when {preparation.MAX_WRONG_SHARE:.0%} are".replace("%", " %"),
        f"more\nthan {preparation.LARGEST_UNIT_EXTENT:g} gets a note",
        f"within {preparation.ALREADY:.0%} of a convention".replace("%", " %"),
        "1/1.03 from it",
    ):
        assert words in TEXT, words
    assert pytest.approx(1.03) == 1 / preparation.DEXGRASPNET_RADIUS


def test_all_settings_choices_and_headings_are_described():
    named = set(re.findall(r"`?prepare\.([a-z_]+)", TEXT))
    assert named == {field.name for field in fields(PreparationConfig)}
    table = TEXT.split("| `prepare.normalize` |")[1].split("\n\n")[0]
    assert set(re.findall(r"^\| `([a-z]+)`", table, re.MULTILINE)) == set(CONVENTIONS)
    shown = TEXT.split("## What is printed")[1].split("```")[1]
    assert re.split(r" {2,}", shown.strip().splitlines()[0]) == list(HEADINGS) and READY in shown
