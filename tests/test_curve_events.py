"""`logger=tensorboard`: what TensorBoard reads back is the curve of the shards, and nothing else is changed by it."""

from __future__ import annotations

import errno
import os
import time

import h5py
import numpy as np
import pytest
from stub_rounds import Stub

import scale
from bimangrasp.errors import InputError
from bimangrasp.grasp_fields import TERMS
from scale import curve_events, disk
from scale.run_folder import RunFolder
from scale.worker import Synthesizer


@pytest.fixture
def folder(tmp_path):
    return RunFolder(tmp_path / "experiments" / "logged")


def read_back(path):
    """Tag -> (step, value) of every scalar, by TensorBoard's own reader."""
    event_accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    read = event_accumulator.EventAccumulator(str(path.parent)).Reload()
    return {tag: [(one.step, one.value) for one in read.Scalars(tag)] for tag in read.Tags()["scalars"]}


def wanted(file, round_id):
    """The same from a final file's curve."""
    names = {"acceptance": file["curve/acceptance"][round_id]}
    for i, group in enumerate(("energy_lower_quartile", "energy", "energy_upper_quartile")):
        names |= {f"{group}/{term}": file[f"curve/{term}"][round_id, :, i] for term in TERMS}
    steps = file["curve/step"][round_id].tolist()
    kept = {name: np.isfinite(values) for name, values in names.items()}
    return {
        name: [(step, value) for step, value, good in zip(steps, values.tolist(), kept[name], strict=True) if good]
        for name, values in names.items()
        if kept[name].any()
    }


def in_order(named):
    return {tag: sorted(points) for tag, points in named.items()}


def test_tensorboard_reads_the_curves_of_the_final_file(small_config, folder):
    pytest.importorskip("tensorboard")
    report = scale.run(small_config("logger=tensorboard", exp_name="logged"), maker=Synthesizer)
    with h5py.File(report.paths[0]) as file:
        assert len(file["rounds/round"]) == 2
        for round_id in range(2):
            found = read_back(folder.event_file("storage_bin", round_id))
            assert found == wanted(file, round_id)
            assert [step for step, _ in found["energy/total"]] == [0, 1, 2, 3]
            assert [step for step, _ in found["acceptance"]] == [1, 2, 3]


def test_generated_rounds_are_logged_and_no_file_changes(small_config, folder):
    pytest.importorskip("tensorboard")
    names = {"object_code_list": "[bowl,storage_bin]"}
    logged = scale.generate(small_config("logger=tensorboard", exp_name="logged", **names), maker=Stub())
    plain = scale.generate(small_config(exp_name="plain", **names), maker=Stub())
    assert [p.read_bytes() for p in logged.paths] == [p.read_bytes() for p in plain.paths]
    events = sorted(path.parent.relative_to(folder.events).as_posix() for path in folder.events.rglob("*tfevents*"))
    assert events == ["bowl/000000", "storage_bin/000000"]
    with h5py.File(logged.paths[0]) as file:
        assert in_order(read_back(folder.event_file("bowl", 0))) == in_order(wanted(file, 0))
    assert not RunFolder(plain.run_dir).events.exists()


def test_a_full_disk_costs_the_log_and_not_the_run(small_config, folder, monkeypatch):
    pytest.importorskip("tensorboard")
    replace = disk.replace

    def full(source, target):
        if "tfevents" in target.name:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        replace(source, target)

    monkeypatch.setattr(disk, "replace", full)
    report = scale.run(small_config("logger=tensorboard", exp_name="logged"), maker=Stub())
    assert report.exit_code == 0 and not list(folder.events.rglob("*tfevents*"))
    assert "the curve of round 0 is not logged" in folder.run_log.read_text()


def test_without_a_curve_there_is_nothing_to_log(folder):
    columns = {"curve/step": np.zeros((1, 0), np.int64)}
    curve_events.write_curve(folder, "mug", 0, columns)
    assert not folder.root.exists()


def test_a_missing_package_is_refused_before_anything_starts(small_config, folder, monkeypatch):
    monkeypatch.setattr(curve_events.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"needs the package tensorboard.*pip install 'bimangrasp\[tensorboard\]'"):
        scale.run(small_config("logger=tensorboard", exp_name="logged"), maker=Stub())
    assert not folder.root.exists()


def test_a_curve_costs_the_parent_milliseconds(folder):
    pytest.importorskip("tensorboard")
    draw = np.random.default_rng(0)
    columns = {"curve/step": np.arange(0, 6001, 50)[None], "curve/acceptance": draw.random((1, 121))}
    columns |= {f"curve/{term}": draw.random((1, 121, 3)) for term in TERMS}
    curve_events.write_curve(folder, "mug", 0, columns)
    start = time.process_time()
    curve_events.write_curve(folder, "mug", 1, columns)
    assert time.process_time() - start < 0.2
