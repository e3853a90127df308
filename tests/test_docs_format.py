"""docs/format.md names what files hold, all of it and nothing else."""

import hashlib
import re
from pathlib import Path

import h5py
import quick_conf
from toy_files import write_final

from bimangrasp.files.schema import final_fields, reject_fields
from bimangrasp.hand_files.loading import load_hands

ROOT = Path(__file__).resolve().parents[1]
TEXT = (ROOT / "docs" / "format.md").read_text()
GROUPS = "hand|initial|contact|energy|pose|verdict|rounds|curve|reject"


def tables():
    return "\n".join(line.split(" | ")[0] for line in TEXT.splitlines() if line.startswith("| `"))


def test_every_dataset_of_a_final_file_is_in_a_table_and_no_other():
    listed = set(re.findall(r"`([a-z_]+(?:/[a-z_0-9]+)?)`", tables()))
    assert listed == {f.name for f in final_fields(is_judged=True)} - {"rounds/verdict_sha256"}


def test_every_dataset_that_is_named_exists():
    named = set(re.findall(rf"`((?:{GROUPS})/[a-z_0-9]+)`", TEXT))
    assert named <= {f.name for f in (*final_fields(is_judged=True), *reject_fields(is_judged=True))}
    assert {"reject/reason", "rounds/rejected", "rounds/verdict_sha256"} <= named


def test_every_attribute_is_named(tmp_path):
    write_final(tmp_path / "mug.h5", "mug", 2, is_judged=True)
    section = TEXT.split("## Attributes")[1].split("##")[0]
    named = set(re.findall(r"`([a-z_0-9]+)`", section)) - {"quota", "partial", "barren", "max_rounds"}
    with h5py.File(tmp_path / "mug.h5") as file:
        assert set(file.attrs) - {"quota"} <= named <= set(file.attrs) | {"judging", "couplings"}


def test_the_content_hash_is_made_as_described(tmp_path):
    """From the text alone: a line for each dataset, with name, dtype, shape and hash."""
    write_final(tmp_path / "mug.h5", "mug", 3)
    with h5py.File(tmp_path / "mug.h5") as file:
        lines = [
            f"{f.name} {f.dtype} {file[f.name].shape} {hashlib.sha256(file[f.name][...].tobytes()).hexdigest()}\n"
            for f in final_fields(is_judged=False)
        ]
        assert hashlib.sha256("".join(lines).encode()).hexdigest() == file.attrs["content_sha256"].decode()


def test_the_frames_are_those_of_the_built_in_hand():
    left, right = load_hands(quick_conf.load().hand)
    assert right.palm_normal.tolist() == [0, -1, 0] and left.palm_normal.tolist() == [0, 1, 0]
    assert right.finger_direction.tolist() == left.finger_direction.tolist() == [0, 0, 1]
    for hand in (left, right):
        assert hand.T_parent_link[hand.link_names.index("th_base"), 0, 3] > 0.02
