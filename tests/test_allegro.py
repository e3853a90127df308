"""The second hand goes the whole way: a round, its verdict, other formats."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest

import scale
from bimangrasp.errors import InputError


@pytest.mark.slow
def test_a_round_of_the_allegro_hand_is_simulated_and_exported(small_config, tmp_path: Path):
    config = small_config("hand=allegro", mode="generate", num_iterations=40)
    report = scale.generate(config)
    assert report.exit_code == 0
    (path,) = (tmp_path / "experiments").rglob("final/*.h5")
    with h5py.File(path) as file:
        assert file["hand/joints"].shape == (4, 2, 16)
        assert list(file.attrs["joint_names"].astype(str))[:2] == ["index_0", "index_1"]
        start, *_, end = file["curve/total"][0, :, 1]
        assert end < 0.7 * start
    quick = ["pieces.convex_tolerance=1", "validation.trial.looks=1", "validation.trial.stages=1"]
    looked_at = small_config("hand=allegro", *quick, mode="validate", path=path)
    assert "storage_bin" in str(scale.validate(looked_at))
    with h5py.File(path.with_suffix(".bench.h5")) as file:
        assert file["verdict/link_distance"].shape == (4, 2, 17)
    scale.export(small_config("hand=allegro", mode="export", format="npz", path=path))
    assert np.load(path.with_suffix(".npz"))["hand_joints"].shape == (4, 2, 16)
    with pytest.raises(InputError, match="index_0.*for the Shadow hands alone.*format=npz takes any hand"):
        scale.export(small_config("hand=allegro", mode="export", format="npy", path=path))
