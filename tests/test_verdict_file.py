"""The verdict file: what it says, in which units, and that equal input gives equal bytes."""

from __future__ import annotations

import io
import json

import h5py
import numpy as np
import pytest
from verdicts import judged, spread

from bimangrasp.files.formats import image_of, read_verdict, verdict_image
from bimangrasp.files.header import VERDICT_FORMAT, VERSION
from bimangrasp.files.schema import LATER, VERDICT_FIELDS, FormatError
from bimangrasp.poses import Poses
from bimangrasp.validation.config import STAGES
from bimangrasp.validation.evaluate import Evaluation, verdict_attributes, verdict_columns
from bimangrasp.validation.verdict import DIRECTIONS, Reason

ABOUT = {"object_code": "Tasse ü", "protocol": {"name": "bench", "limits": {"touch": False}}, "hand_sha256": ["a", "b"]}
ABOUT["judging"] = verdict_attributes(["palm", "tip"])


def drawn(count: int, seed: int = 0) -> Evaluation:
    """Verdicts in which no two numbers are alike."""
    draw = np.random.default_rng(seed)
    blank = judged([Reason.HELD] * count)
    columns = {
        name: draw.random(part.shape) < 0.5 if part.dtype == bool else draw.normal(size=part.shape)
        for name, part in blank._asdict().items()
        if name not in ("stages", "reason", "opening")
    }
    stages = tuple(Poses(*(draw.normal(size=part.shape) for part in spread(count))) for _ in STAGES)
    reason = draw.integers(len(Reason), size=count).astype(np.int32)
    opening = draw.integers(10, size=count).astype(np.int32)
    return Evaluation(stages=stages, reason=reason, opening=opening, **columns)


def image(found: Evaluation, about: dict) -> bytes:
    return verdict_image(about, verdict_columns(found))


def opened(data: bytes) -> h5py.File:
    return h5py.File(io.BytesIO(data), "r")


@pytest.mark.parametrize("count", [0, 5])
def test_what_is_written_reads_back(count):
    found = drawn(count)
    with opened(image(found, ABOUT)) as file:
        for k, stage in enumerate(found.stages):
            for name, part in stage._asdict().items():
                np.testing.assert_array_equal(file[f"pose/{name}"][:, k], part.astype("f4"))
        for name, column in found._asdict().items():
            if name != "stages":
                stored = file["pose/opening" if name == "opening" else f"verdict/{name}"]
                np.testing.assert_array_equal(stored[...], column.astype(stored.dtype))


def test_every_dataset_says_what_it_is():
    with opened(image(drawn(2), ABOUT)) as file:
        names: list[str] = []
        file.visititems(lambda name, item: names.append(name) if isinstance(item, h5py.Dataset) else None)
        assert sorted(names) == sorted(field.name for field in VERDICT_FIELDS)
        for field in VERDICT_FIELDS:
            said = {name: value.decode() for name, value in file[field.name].attrs.items()}
            assert said == {"unit": field.unit, "frame": field.frame, "description": field.text}
            assert len(field.text) > 8 and field.unit in ("m", "rad", "1") and file[field.name].dtype == field.dtype
        units = {name: file[name].attrs["unit"] for name in ("pose/joints", "verdict/displacement", "verdict/rotation")}
        assert list(units.values()) == [b"rad", b"m", b"rad"]


def test_attributes_tell_how_to_read_the_columns():
    with opened(image(drawn(2), ABOUT)) as file:
        about = file.attrs
        assert (about["format"], about["format_version"]) == (VERDICT_FORMAT.encode(), VERSION)
        judging = json.loads(about["judging"])
        assert judging["stages"] == ["pre_grasp", "grasp", "squeeze"] and judging["link_names"] == ["palm", "tip"]
        reasons = judging["reasons"]
        assert [reasons[reason] for reason in Reason] == [reason.name.lower() for reason in Reason]
        assert reasons[0] == "held"
        np.testing.assert_array_equal(judging["directions"], DIRECTIONS)
        assert about["object_code"].decode() == "Tasse ü"
        assert json.loads(about["protocol"]) == ABOUT["protocol"] and json.loads(about["hand_sha256"]) == ["a", "b"]


def test_equal_input_gives_equal_bytes():
    once = image(drawn(4), ABOUT)
    turned = {name: ABOUT[name] for name in ABOUT} | {"protocol": dict(reversed(ABOUT["protocol"].items()))}
    assert image(drawn(4), turned) == once
    assert image(drawn(4, seed=1), ABOUT) != once
    assert image(drawn(4), ABOUT | {"object_code": "mug"}) != once


def test_what_is_unknown_stays_nan():
    found = drawn(3)
    found.displacement[1] = np.nan
    with opened(image(found, ABOUT)) as file:
        assert np.isnan(file["verdict/displacement"][1]).all() and np.isfinite(file["verdict/displacement"][2]).all()


def test_a_file_of_before_has_no_openings_and_is_read():
    columns = {name: column for name, column in verdict_columns(drawn(3)).items() if name not in LATER}
    before = [field for field in VERDICT_FIELDS if field.name not in LATER]
    about = {"format": VERDICT_FORMAT, "format_version": VERSION}
    _, read = read_verdict(image_of(about, before, columns))
    assert set(read) == set(columns) and len(read) == len(VERDICT_FIELDS) - 2
    with pytest.raises(FormatError, match="bears_load"):
        read_verdict(image_of(about, before[:-1], {field.name: columns[field.name] for field in before[:-1]}))


def test_other_files_are_no_verdicts():
    with pytest.raises(FormatError, match="readable verdict"):
        read_verdict(b"garbage")
    with io.BytesIO() as data:
        with h5py.File(data, "w") as file:
            file.attrs.update({"format": b"bimangrasp-grasps", "format_version": 1})
        with pytest.raises(FormatError, match="not a bimangrasp-verdicts file"):
            read_verdict(data.getvalue())
