"""The settings that people write in many forms: object codes, quotas, devices."""

from __future__ import annotations

import json

import pytest

from bimangrasp.errors import InputError
from scale.settings.parsing import parse_gpus, parse_object_codes, parse_target


@pytest.mark.parametrize("value", ["all", "Cole*", "codes.json", ["mug", "a b", "Größe"]])
def test_object_codes_are_taken_as_they_are(value):
    assert parse_object_codes(value) == value


@pytest.mark.parametrize("value", [20261120, [1e5], ["mug", 7], [True], [None]])
def test_a_code_read_as_a_number_is_refused_with_quote_it(value):
    with pytest.raises(InputError, match="object_code_list.*wanted") as error:
        parse_object_codes(value)
    if value != [None]:
        assert "quote it" in str(error.value)


@pytest.mark.parametrize("value", [[], "", None, {}])
def test_an_empty_object_list_is_refused(value):
    with pytest.raises(InputError, match="object_code_list"):
        parse_object_codes(value)


@pytest.mark.parametrize("value", [100000, 1e5, "100000"])
def test_one_quota_holds_for_every_object(value):
    assert parse_target(value, ["mug", "bowl"]) == {"mug": 100000, "bowl": 100000}


@pytest.mark.parametrize("value", [0, -1, 1.5, True, None, "0", [], {}, {"mug": 0, "bowl": 1}, float("nan")])
def test_a_quota_below_one_or_not_whole_is_refused(value):
    with pytest.raises(InputError, match="target_count_per_object"):
        parse_target(value, ["mug", "bowl"])


def test_a_mapping_names_every_listed_object_or_has_a_default():
    assert parse_target({"mug": 3, "bowl": 1e1}, ["mug", "bowl"]) == {"mug": 3, "bowl": 10}
    assert parse_target({"mug": 3, "default": 5}, ["mug", "bowl"]) == {"mug": 3, "bowl": 5}
    with pytest.raises(InputError, match="no number for 'bowl'.*default"):
        parse_target({"mug": 3}, ["mug", "bowl"])


@pytest.mark.parametrize("more", [{}, {"default": 2}])
def test_a_quota_for_an_unlisted_object_is_refused_with_the_nearest(more):
    with pytest.raises(InputError, match="'bowll'.*nearest: bowl"):
        parse_target({"mug": 3, "bowl": 1, "bowll": 3, **more}, ["mug", "bowl"])


def test_a_mapping_with_a_number_as_key_is_refused():
    with pytest.raises(InputError, match="key 7.*quote it"):
        parse_target({7: 3}, ["7"])


def test_a_mapping_may_be_a_json_file(tmp_path):
    path = tmp_path / "quota.json"
    path.write_text(json.dumps({"mug": 3, "default": 4}))
    assert parse_target(str(path), ["mug", "bowl"]) == {"mug": 3, "bowl": 4}


@pytest.mark.parametrize("text", ["[1]", "nonsense", '{"mug": 1, "mug": 2}', '{"mug": "many"}'])
def test_a_bad_json_file_is_refused(tmp_path, text):
    path = tmp_path / "quota.json"
    path.write_text(text)
    with pytest.raises(InputError, match="target_count_per_object"):
        parse_target(str(path), ["mug"])


def test_a_missing_json_file_is_refused():
    with pytest.raises(InputError, match="nowhere.json.*wanted a number"):
        parse_target("nowhere.json", ["mug"])


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("auto", "auto"),
        (2, ["2"]),
        ("cpu", ["cpu"]),
        ([0, 1], ["0", "1"]),
        (["cpu", "cpu"], ["cpu", "cpu"]),
        (["GPU-5c9f", "MIG-1a", "3"], ["GPU-5c9f", "MIG-1a", "3"]),
    ],
)
def test_devices(value, expected):
    assert parse_gpus(value) == expected


@pytest.mark.parametrize("value", [-1, True, 1.0, "cuda:0", [], ["auto"], [0, -2], None, {}])
def test_what_names_no_device_is_refused(value):
    with pytest.raises(InputError, match="gpus.*(wanted)"):
        parse_gpus(value)
