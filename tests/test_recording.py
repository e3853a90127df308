"""`mode=generate record=true`: frames of chosen grasps, a moving picture of each, the same grasp file as without."""

from __future__ import annotations

from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace

import h5py
import numpy as np
import pytest
import quick_conf
import torch
from conftest import SMALL
from PIL import Image, ImageSequence
from run_tools import events
from scene import built_in, shadow_hands
from stub_rounds import Stub

import scale
from bimangrasp.config import Record
from bimangrasp.errors import InputError
from bimangrasp.files.scene_export import COLORS
from bimangrasp.geometry.rotation import rot6d_to_matrix
from bimangrasp.poses import read_trajectory, trajectory_image
from bimangrasp.synthesis import TrajectoryRecorder, synthesize
from scale.controller import optional_outputs
from scale.errors import RunError
from scale.settings.parsing import ObjectEntry
from scale.store.run_folder import RunFolder

pytestmark = pytest.mark.slow  # its fixture makes and draws a run


RECORD = ("mode=generate", "record=true", "frame_stride=2", "record_rows=[3,0]")
LOGGER = "tensorboard" if find_spec("tensorboard") else "none"
F32 = torch.float32


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    """(folder, the grasp file's bytes before): a round that is made first without and then with a recording."""
    root = tmp_path_factory.mktemp("recorded")
    small = [f"{key}={value}" for key, value in (SMALL | {"num_iterations": 5}).items()]
    (path,) = scale.generate(quick_conf.load(*small, "mode=generate", output_root=root)).paths
    before = path.read_bytes()
    assert not RunFolder(root / "demo").animations.exists()
    try:
        assert scale.generate(quick_conf.load(*small, *RECORD, f"logger={LOGGER}", output_root=root)).exit_code == 0
    except InputError as error:
        if "cannot draw here" not in str(error):
            raise
        pytest.skip(f"needs OpenGL without a display (libegl1): {error}")
    return RunFolder(root / "demo"), before


def test_a_recorded_round_has_the_bytes_of_one_that_is_not(recorded):
    folder, before = recorded
    assert folder.final("storage_bin").read_bytes() == before
    assert [event["event"] for event in events(folder)].count("done") == 2  # it was made again
    assert list(folder.shard_files()) == []


def test_a_generated_round_is_logged_for_tensorboard(recorded):
    folder, _ = recorded
    event_accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    read = event_accumulator.EventAccumulator(str(folder.event_file("storage_bin", 0).parent)).Reload()
    with h5py.File(folder.final("storage_bin")) as file:
        found = read.Scalars("Energy/energy")
        assert [one.step for one in found] == file["curve/step"][0].tolist() == [0, 1, 2, 3, 4, 5]
        assert [one.value for one in found] == file["curve/total"][0, :, 1].tolist()


def test_frames_begin_and_end_with_the_files_grasps(recorded):
    folder, _ = recorded
    trajectory = read_trajectory(folder.frames("storage_bin"))
    assert trajectory.step.tolist() == [0, 2, 4, 5] and trajectory.row.tolist() == [3, 0]
    with h5py.File(folder.final("storage_bin")) as file:
        for group, frame in (("initial", 0), ("hand", -1)):
            for part in ("translation", "rotation", "joints"):
                wanted = file[f"{group}/{part}"][:][[3, 0]]
                np.testing.assert_allclose(getattr(trajectory, part)[frame], wanted, atol=1e-6)
        np.testing.assert_array_equal(trajectory.energy[-1], file["energy/total"][:][[3, 0]])
        np.testing.assert_array_equal(trajectory.object_scale, file["object_scale"][:][[3, 0]])
        assert not np.allclose(trajectory.translation[0], trajectory.translation[-1])


def test_a_picture_shows_both_hands_and_the_object_in_every_frame(recorded):
    folder, _ = recorded
    for row in (0, 3):
        with Image.open(folder.animation("storage_bin", row)) as file:
            times = [one.info["duration"] for one in ImageSequence.Iterator(file)]
            pictures = [np.asarray(one.convert("RGB")).astype(int) for one in ImageSequence.Iterator(file)]
        assert len(pictures) == 4 and times[-1] > 10 * times[0] and file.info["loop"] == 0
        for picture in pictures:
            shares = [np.mean(_like(picture, color)) for color in COLORS]
            assert min(shares) > 0.002, shares
            paper = np.abs(picture - picture[-1, 0]).max(axis=2) < 12
            assert paper[[0, -1]].all() and paper[:, [0, -1]].all(), "something is cut off at the border"
        assert np.abs(pictures[0] - pictures[-1]).max() > 100
    assert not folder.animation("storage_bin", 1).exists()


def _like(picture: np.ndarray, color: tuple) -> np.ndarray:
    """Pixels of a body's hue, whatever the light: the direction of their color is that of the body's."""
    wanted = np.array(color[:3]) / np.linalg.norm(color[:3])
    length = np.linalg.norm(picture, axis=2)
    angle = np.arccos(np.clip(picture @ wanted / np.maximum(length, 1), -1, 1))
    return (angle < 0.07) & (length > 60)


def test_watching_moves_no_bit_and_frames_are_no_views_and_come_back_from_a_file(tmp_path):
    config = quick_conf.load("round_batch_size=4", "num_iterations=6", "curve_stride=0").synthesis
    config.initialization.hull_samples_per_grasp = 10
    hands, obj = shadow_hands(F32), built_in("mug", F32)
    recorder = TrajectoryRecorder(Record(2, (1,)))
    plain, seen = synthesize(hands, obj, config, 1), synthesize(hands, obj, config, 1, watch=recorder)
    assert torch.equal(plain.grasps.pose, seen.grasps.pose) and torch.equal(plain.energies.total, seen.energies.total)
    trajectory = recorder.trajectory(seen, config.num_iterations)
    assert trajectory.step.tolist() == [0, 2, 4, 6]
    assert len({frame.tobytes() for frame in trajectory.translation}) > 2
    rotation = rot6d_to_matrix(seen.initial.rotation.double())[1].float().numpy()
    np.testing.assert_allclose(trajectory.rotation[0, 0], rotation, atol=1e-6)
    (tmp_path / "a.npz").write_bytes(trajectory_image(trajectory))
    for name, column in vars(read_trajectory(tmp_path / "a.npz")).items():
        np.testing.assert_array_equal(column, getattr(trajectory, name))


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"mode": "scale"}, "record=true needs mode=generate, not mode=scale"),
        ({"record_rows": [1, 4]}, "names row 4, and a round has round_batch_size=4 rows"),
        ({"num_iterations": 10_000, "frame_stride": 3}, "frame_stride=10 or more"),
        ({"record_rows": []}, "record_rows=\\[\\] is out of range"),
        ({"record_rows": [1, 1]}, "a list of different rows"),
        ({"frame_stride": 0}, "frame_stride=0 is out of range"),
    ],
)
def test_what_cannot_be_recorded_is_refused_before_anything_starts(small_config, changes, says, monkeypatch):
    monkeypatch.setattr(optional_outputs, "_in_a_process_of_its_own", lambda *call: None)
    given = small_config(*RECORD)
    with pytest.raises(InputError, match=says):
        config = replace(given, **changes)
        (scale.run if config.mode == "scale" else scale.generate)(config, maker=Stub())
    assert not Path(given.output_root).exists()


def test_a_machine_that_cannot_draw_is_refused_before_anything_starts(small_config, monkeypatch):
    def fail(*call):
        raise RuntimeError("no EGL")

    monkeypatch.setattr(optional_outputs, "_in_a_process_of_its_own", fail)
    config = small_config(*RECORD)
    with pytest.raises(InputError, match=r"cannot draw here \(RuntimeError: no EGL\).*libegl1"):
        scale.generate(config, maker=Stub())
    assert not Path(config.output_root).exists()


def test_a_picture_that_cannot_be_drawn_costs_no_grasps(recorded, monkeypatch):
    folder, before = recorded

    def fail(*call):
        raise RuntimeError("lost the context")

    monkeypatch.setattr(optional_outputs, "_in_a_process_of_its_own", fail)
    entries = [ObjectEntry("storage_bin", Path("x.obj"))]
    request = SimpleNamespace(folder=folder, config=quick_conf.load(), entries=entries)
    with pytest.raises(RunError, match="cannot be drawn .*lost the context.*its grasps are in"):
        optional_outputs.animate(request, print)
    assert folder.final("storage_bin").read_bytes() == before
