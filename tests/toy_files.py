"""Grasp files with random content, for the tests of those who read them."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import h5py
import numpy as np
import quick_conf
from scipy.spatial.transform import Rotation
from stub_rounds import made_columns

from bimangrasp import builtin
from bimangrasp.errors import InputError
from bimangrasp.files.formats import final_image, shard_image
from bimangrasp.files.header import Ending, HandTable, Header
from bimangrasp.files.schema import GRASP_FIELDS, VERDICT_FIELDS, round_fields, shape_of
from bimangrasp.hand_files.loading import load_hands
from bimangrasp.objects.model import read_mesh
from scale.engine.synthesizer import Synthesizer
from scale.merge.final_file import dataset_image
from scale.store import shards

PLATFORM = {"device": "cpu"}


@contextmanager
def held(path: Path) -> Iterator[None]:
    """While another process has a file open for writing."""
    hold = "import h5py, sys; file = h5py.File(sys.argv[1], 'r+'); print(1, flush=True); sys.stdin.read()"
    command = [sys.executable, "-c", hold, str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as writer:
        assert writer.stdin is not None and writer.stdout is not None
        writer.stdout.readline()
        yield
        writer.stdin.close()


def shadow_table() -> HandTable:
    """What files say of the built-in hands."""
    config = quick_conf.load()
    return Synthesizer(config.hand, config.synthesis).hand_table()


def grasp_columns(rows: int, seed: int, hand: HandTable) -> dict[str, np.ndarray]:
    """Columns of one round: random, finite, joints within the limits of the built-in hand, proper rotations."""
    draw = np.random.default_rng(seed)
    made = made_columns(seed, rows, nan_share=0.0, J=len(hand.joint_names), C=4)
    for group in ("hand", "initial"):
        turns = Rotation.random(2 * rows, rng=draw).as_matrix()
        made[f"{group}/rotation"] = turns.reshape(rows, 2, 3, 3).astype(np.float32)
        made[f"{group}/translation"] = draw.normal(scale=0.2, size=(rows, 2, 3)).astype(np.float32)
    if hand.name == "shadow":
        right = load_hands(quick_conf.load().hand)[1]
        for group in ("hand", "initial"):
            drawn = draw.uniform(right.joint_lower, right.joint_upper, (rows, 2, len(hand.joint_names)))
            made[f"{group}/joints"] = drawn.astype(np.float32)
    made["contact/candidate"] = draw.integers(0, hand.candidate_link.shape[1], (rows, 2, 4)).astype(np.int32)
    made["object_scale"] = draw.choice([0.15, 0.16, 0.17], rows).astype(np.float32)
    return shards.round_columns(made, seed, 0, rows)


def header(code: str, hand: HandTable) -> Header:
    """The header of a file of a built-in object, or of one that is none."""
    try:
        sha256 = read_mesh(str(builtin.OBJECT_ROOT / f"{code}.obj")).sha256
    except InputError:
        sha256 = "00" * 32
    return Header(code, 0, sha256, hand, {}, {}, {}, (PLATFORM,))


def write_run(folder: Path) -> Path:
    """Writes final files of two built-in objects, with 5 and 3 grasps, and the file that opens both."""
    for seed, (code, rows) in enumerate({"bowl": 5, "storage_bin": 3}.items()):
        write_final(folder / "final" / f"{code}.h5", code, rows, seed)
    write_links(folder)
    return folder


def write_shard(path: Path, code: str, rows: int, seed: int = 0, hand: HandTable | None = None) -> dict:
    """Writes a file as `mode=generate` does and returns its columns."""
    hand = hand or shadow_table()
    columns = grasp_columns(rows, seed, hand)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(shard_image(header(code, hand), columns))
    return columns


def write_final(
    path: Path, code: str, rows: int, seed: int = 0, hand: HandTable | None = None, is_judged: bool = False
) -> dict:
    """Writes a final file and returns its columns; a judged one has random verdicts."""
    hand = hand or shadow_table()
    columns = grasp_columns(rows, seed, hand)
    sizes = {"N": rows, "J": len(hand.joint_names), "C": 4, "R": 1, "P": columns["curve/step"].shape[1]}
    if is_judged:
        sizes["L"] = 5
        draw = np.random.default_rng(seed)
        columns |= {f.name: draw.integers(0, 9, shape_of(f, sizes)).astype(f.dtype) for f in VERDICT_FIELDS}
    counts = {"accepted": rows, "kept": rows, "shard_sha256": b"0" * 64, "verdict_sha256": b"0" * 64}
    for f in round_fields(is_judged):
        if f.name not in columns:
            columns[f.name] = np.array([counts[f.name.removeprefix("rounds/")]], f.dtype)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(final_image(header(code, hand), Ending({}, rows, True, "quota"), columns))
    return columns


def add_column(path: Path, name: str, column: np.ndarray, unit: str = "1") -> None:
    """Adds a column that the format does not know yet."""
    with h5py.File(path, "r+") as file:
        file[name] = column
        file[name].attrs["unit"] = unit


def write_links(folder: Path) -> Path:
    """Writes the `dataset.h5` of a run's folder."""
    links = {path.stem: f"final/{path.name}" for path in (folder / "final").glob("*.h5")}
    (folder / "dataset.h5").write_bytes(dataset_image(links))
    return folder / "dataset.h5"


GRASP_NAMES = sorted(f.name for f in GRASP_FIELDS)
