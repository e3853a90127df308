"""Meshes and hands of a run that was made before are those of its own settings, unless they are typed."""

from __future__ import annotations

import pytest
from omegaconf import OmegaConf

import conf
from bimangrasp.errors import InputError
from conf import sweep
from scale.store.run_folder import RunFolder


@pytest.fixture
def run(tmp_path):
    """The folder of a run over somebody's own meshes and hand."""
    made = conf.load(["object_root=my/meshes", "hand=allegro", "hand.surface_points=16"])
    folder = RunFolder(tmp_path / "kitchen")
    folder.prepare()
    folder.config.write_text(OmegaConf.to_yaml(OmegaConf.structured(made)))
    folder.journal.write_text("")
    return folder


def test_they_are_read_where_they_are_not_typed(run):
    for mode in ("view", "validate", "export"):
        for name in (
            [f"path={run.root}"],
            [f"path={run.final('mug')}"],
            [f"output_root={run.root.parent}", "exp_name=kitchen"],
        ):
            config = conf.load([f"mode={mode}", *name])
            assert (config.object_root, config.hand.name, config.hand.surface_points) == ("my/meshes", "allegro", 16)
    made = conf.load(["mode=scale", f"output_root={run.root.parent}", "exp_name=kitchen"])
    assert (made.object_root, made.hand.name) == ("", "shadow"), "a run is made of what is typed alone"


def test_each_job_of_a_sweep_has_those_of_its_own_run(run, tmp_path):
    words = ["mode=validate", f"output_root={tmp_path}", "exp_name=swept", "seed_base=1,200001"]
    swept = RunFolder(tmp_path / "swept" / "seed_base=1")
    swept.prepare()
    for name in ("config", "journal"):
        getattr(run, name).rename(getattr(swept, name))
    configs = sweep.jobs(words)
    assert [(config.object_root, config.hand.name) for config in configs] == [("my/meshes", "allegro"), ("", "shadow")]


def test_what_is_typed_counts(run):
    here = ["mode=view", f"path={run.root}"]
    config = conf.load([*here, "object_root="])
    assert (config.object_root, config.hand.name) == ("", "allegro")
    config = conf.load([*here, "hand=shadow"])
    assert (config.object_root, config.hand.name) == ("my/meshes", "shadow")
    assert conf.load([*here, "hand.surface_points=32"]).hand.name == "shadow"
    assert conf.load([*here, "experiment=released"]).object_root == "", "an experiment may set either"


def test_a_folder_that_is_no_run_says_nothing(run):
    run.journal.unlink()
    assert conf.load(["mode=view", f"path={run.root}"]).object_root == ""


@pytest.mark.parametrize("content", ["object_root: [", "mode: scale\n", "- 1\n"])
def test_settings_that_cannot_be_read_are_refused_with_what_to_type(run, content):
    run.config.write_text(content)
    with pytest.raises(InputError, match=r"config.yaml does not say hand of its run .*; type hand= as the run had it"):
        conf.load(["mode=view", f"path={run.root}"])
    with pytest.raises(InputError, match=r"does not say object_root of its run"):
        conf.load(["mode=view", f"path={run.root}", "hand=shadow"])
    assert conf.load(["mode=view", f"path={run.root}", "hand=shadow", "object_root=x"]).object_root == "x"
