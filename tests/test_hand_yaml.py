"""A hand's YAML says what its config has, whatever names the file has."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import quick_conf

import conf
from bimangrasp.hand_files.config import CandidateRule, HandConfig
from bimangrasp.hand_setup.proposal import hand_yaml


def read(folder: Path, config: HandConfig) -> HandConfig:
    (folder / "hand").mkdir()
    (folder / "hand" / f"{config.name}.yaml").write_text(hand_yaml(config, "hand.xml"))
    return conf.load([f"hand={config.name}"], folder).hand


@pytest.mark.slow
@pytest.mark.parametrize("name", quick_conf.BUILT_IN)
def test_a_shipped_hand_reads_back_as_it_was(name: str, tmp_path: Path):
    config = replace(quick_conf.load(f"hand={name}").hand, name="again")
    assert read(tmp_path, config) == config


def test_odd_names_and_paths_read_back(tmp_path: Path):
    config = HandConfig(
        name="odd",
        format="mjcf",
        mjcf="/a folder/it's #1: ü/hand.xml",
        root="",
        palm_normal=[-1.0, 0.0, 0.0],
        finger_direction=[0.0, 0.6, 0.8],
        joint_mean={"robot0:FFJ3": 0.1, "on": 1.0, "3": -2e-5, "joint 0.0": 0.25},
        candidates=CandidateRule(3, 0.25, {"null": [1.0, 0.0, 0.0], "a/b": [0.0, 1e-7, 1.0]}),
        keypoints={},
        surface_points=7,
        side="left",
        left_mjcf="",
    )
    assert read(tmp_path, config) == config
