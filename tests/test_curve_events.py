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
from scale.controller import optional_outputs
from scale.store import durable_io
from scale.store.run_folder import RunFolder

TAGS = {
    "energy": "total",
    "fc": "force_closure",
    "dis": "distance",
    "pen": "penetration",
    "spen": "self_penetration",
    "joints": "joint_limits",
    "vew": "wrench_volume",
    "depth": "depth",
    "equilibrium": "equilibrium",
}


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
    for i, group in enumerate(("Energy lower quartile", "Energy", "Energy upper quartile")):
        names |= {f"{group}/{tag}": file[f"curve/{term}"][round_id, :, i] for tag, term in TAGS.items()}
    steps = file["curve/step"][round_id].tolist()
    kept = {name: np.isfinite(values) for name, values in names.items()}
    return {
        name: [(step, value) for step, value, good in zip(steps, values.tolist(), kept[name], strict=True) if good]
        for name, values in names.items()
        if kept[name].any()
    }


def in_order(named):
    return {tag: sorted(points) for tag, points in named.items()}


@pytest.mark.slow
def test_tensorboard_reads_the_curves_of_the_final_file_and_a_full_disk_costs_a_log_alone(
    small_config, folder, monkeypatch
):
    pytest.importorskip("tensorboard")
    replace = durable_io.replace

    def full(source, target):
        if target == folder.event_file("storage_bin", 1):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        replace(source, target)

    monkeypatch.setattr(durable_io, "replace", full)
    config = small_config("logger=tensorboard", exp_name="logged", target_count_per_object=9)
    report = scale.run(config, maker=Stub())
    assert report.exit_code == 0
    with h5py.File(report.paths[0]) as file:
        assert len(file["rounds/round"]) == 3
        for round_id in (0, 2):
            found = read_back(folder.event_file("storage_bin", round_id))
            assert in_order(found) == in_order(wanted(file, round_id))
            assert len(found) == 1 + 3 * len(TAGS)
    assert not folder.event_file("storage_bin", 1).exists()
    assert "storage_bin: the curve of round 1 is not logged: [Errno 28]" in folder.run_log.read_text()


def test_without_a_curve_there_is_nothing_to_log(folder):
    columns = {"curve/step": np.zeros((1, 0), np.int64)}
    optional_outputs.write_curve(folder, "mug", 0, columns)
    assert not folder.root.exists()


def test_a_missing_package_is_refused_before_anything_starts(small_config, folder, monkeypatch):
    monkeypatch.setattr(optional_outputs.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"needs the package tensorboard.*pip install -e '.*\[tensorboard\]'"):
        scale.run(small_config("logger=tensorboard", exp_name="logged"), maker=Stub())
    assert not folder.root.exists()


def test_a_curve_costs_the_parent_milliseconds(folder):
    pytest.importorskip("tensorboard")
    draw = np.random.default_rng(0)
    columns = {"curve/step": np.arange(0, 6001, 50)[None], "curve/acceptance": draw.random((1, 121))}
    columns |= {f"curve/{term}": draw.random((1, 121, 3)) for term in TAGS.values()}
    optional_outputs.write_curve(folder, "mug", 0, columns)
    start = time.process_time()
    optional_outputs.write_curve(folder, "mug", 1, columns)
    assert time.process_time() - start < 0.2
