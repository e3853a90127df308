"""A call is given path= or its run, and what it makes goes where out= says or beside, over nothing else."""

from __future__ import annotations

import pytest
import quick_conf

from bimangrasp.errors import InputError
from scale.store import path_settings
from scale.store.path_settings import given_path, grasp_source


@pytest.mark.slow
def test_without_a_path_it_is_the_folder_of_the_run(tmp_path):
    config = quick_conf.load("exp_name=demo", output_root=tmp_path)
    assert given_path(config) == tmp_path / "demo"
    config.path = str(tmp_path / "other")
    assert given_path(config) == tmp_path / "other"


def test_a_folder_and_its_dataset_are_a_run_and_all_else_is_a_file(tmp_path):
    config = quick_conf.load()
    final = tmp_path / "final" / "bowl.h5"
    final.parent.mkdir()
    final.touch()
    for name in ("", "dataset.h5"):
        config.path = str(tmp_path / name)
        source = grasp_source(config)
        assert source.is_run and source.path == source.folder.root == tmp_path and source.final_files() == [final]
    for path in (final, tmp_path / "gone.h5"):
        config.path = str(path)
        source = grasp_source(config)
        assert not source.is_run and source.path == path and source.folder.root == path.parent
        assert source.final_files() == [], "a file beside a run is not the run"


def test_a_target_is_the_default_or_a_file_or_a_folder_for_it(tmp_path):
    default = tmp_path / "page.html"
    (tmp_path / "there").mkdir()
    assert path_settings.target("", default) == default
    assert path_settings.target(str(tmp_path / "mine.html"), default) == tmp_path / "mine.html"
    assert path_settings.target(str(tmp_path / "there"), default) == tmp_path / "there" / "page.html"


def test_what_is_there_already_stays(tmp_path):
    path = tmp_path / "page.html"
    path_settings.check_free(path)
    path.write_text("notes")
    with pytest.raises(InputError, match="page.html is there already; move it away, or set out= to another place"):
        path_settings.check_free(path)
    with pytest.raises(InputError, match="is there already and is no page of mode=view; move it away"):
        path_settings.check_free(path, "page of mode=view", lambda path: False)
    path_settings.check_free(path, "page of mode=view", lambda path: True)
