"""The configuration: composed, typed, in range; every refusal names its key."""

from __future__ import annotations

import copy
import dataclasses
import math
import re
from functools import reduce

import pytest
from omegaconf import OmegaConf

import conf
from bimangrasp.errors import InputError
from conf import sweep
from scale.settings import fingerprints as run_keys
from scale.settings.parsing import is_folder_name
from scale.settings.schema import RULES, Config, check_seeds, check_settings

DEFAULTS = conf.load()
PLAIN = conf.load(["experiment=null", "filter=none"])


def value(config: Config, key: str):
    return reduce(getattr, key.split("."), config)


def test_the_defaults_are_a_small_run_of_grasps_that_hold():
    config = DEFAULTS
    assert (config.mode, config.target_count_per_object) == ("scale", 24)
    assert config.object_code_list == ["storage_bin", "bowl"]
    assert (config.filter.name, config.validation.name) == ("physics", "bench")
    assert config == conf.load(["experiment=firm", "filter=physics"])


def test_without_a_set_of_settings_the_numbers_are_the_released_ones():
    config = PLAIN
    assert (config.round_batch_size, config.num_iterations, config.filter.name) == (16, 400, "none")
    energy, start = config.energy, config.initialization
    assert (energy.w_fc, energy.w_dis, energy.w_pen, energy.w_spen) == (1, 100, 125, 10)
    assert (energy.w_joints, energy.w_vew, energy.keypoint_distance) == (1, 0.5, 0.02)
    assert math.isclose(start.cone_rad, math.pi / 6) and math.isclose(start.tilt_rad, math.pi / 3)


@pytest.mark.slow
def test_the_released_experiment_stays_unsqueezed_when_it_is_cut():
    released = conf.load(["experiment=released"])
    assert (released.num_iterations, released.optimizer.schedule_steps) == (10000, 6000)
    assert released.optimizer == dataclasses.replace(PLAIN.optimizer, schedule_steps=6000)
    assert (released.optimizer.method, released.contacts_per_hand) == ("mala", 4)
    for section in ("energy", "initialization", "object", "hand"):
        assert getattr(released, section) == getattr(PLAIN, section)
    assert conf.load(["experiment=released", "num_iterations=1000"]).optimizer.schedule_steps == 6000


@pytest.mark.slow
def test_the_fast_experiment_is_the_whole_released_descent():
    fast = conf.load(["experiment=fast"])
    assert (fast.num_iterations, fast.optimizer.schedule_steps) == (6000, "auto")
    assert dataclasses.replace(fast, num_iterations=400, filter=PLAIN.filter) == PLAIN


def test_the_firm_experiment_weighs_what_the_release_does_not_have():
    firm, energy = DEFAULTS, PLAIN.energy
    assert energy.w_depth == energy.w_equilibrium == 0 and PLAIN.object.interior_faces == "keep"
    assert firm.energy.w_depth > 0 and firm.energy.w_equilibrium > 0 and firm.object.interior_faces == "remove"
    assert firm.energy.normal_step > energy.normal_step == 0
    assert firm.energy.w_joints > energy.w_joints and firm.poses == PLAIN.poses


@pytest.mark.slow
def test_the_firm_filter_wants_the_terms_that_it_looks_at():
    assert conf.load(["filter=firm"]).filter.name == "firm"
    with pytest.raises(InputError, match=r"filter=firm.*w_depth=0.*experiment=firm"):
        conf.load(["filter=firm", "experiment=null"])


def test_filters_share_their_thresholds():
    assert dataclasses.replace(conf.load(["filter=energy"]).filter, name="none") == PLAIN.filter


@pytest.mark.parametrize("given", [["experiment=null"], ["experiment=firm", "experiment=null"], ["experiment='null'"]])
def test_null_chooses_no_set_of_settings(given):
    assert conf.load(given) == dataclasses.replace(PLAIN, filter=DEFAULTS.filter)


def test_one_round_has_no_filter_but_the_one_that_is_asked_for():
    assert conf.load(["mode=generate"]) == dataclasses.replace(DEFAULTS, mode="generate", filter=PLAIN.filter)
    assert conf.load(["mode=generate", "filter=physics"]).filter == DEFAULTS.filter
    assert conf.load(["filter=energy", "mode=generate"]).filter.name == "energy"


def test_every_rule_has_a_key_and_every_key_a_value():
    assert set(RULES) <= set(conf.key_types())
    for key in conf.key_types():
        value(DEFAULTS, key)


@pytest.mark.parametrize(
    ("typed", "text"),
    [
        ("2026_11_20", "2026_11_20"),
        ("1e5", "1e5"),
        ("007", "007"),
        ("true", "true"),
        ("null", "null"),
        ("Größe 1", "Größe 1"),
        ("'a,b'", "a,b"),
        ("it's", "it's"),
        ("a/b", "a/b"),
    ],
)
def test_text_stays_as_it_is_typed(typed, text):
    (parsed,) = conf.parse([f"exp_name={typed}"])
    assert parsed.value() == text


OVERRIDES = {
    "exp_name=2026_11_20": "2026_11_20",
    "output_root=/tmp/it's": "/tmp/it's",
    'object_code_list=["2026_11_20",a b]': ["2026_11_20", "a b"],
    "target_count_per_object={mug:3,default:1e5}": {"mug": 3, "default": 1e5},
    "gpus=[0,1]": [0, 1],
    "energy.w_pen=150": 150.0,
    "optimizer.schedule_steps=500": 500,
    "max_hours=0.5": 0.5,
    "object.scales=[0.1]": [0.1],
    "object.sizes=[0.25,0.3]": [0.25, 0.3],
}


def test_overrides_are_taken():
    config = conf.load(list(OVERRIDES))
    assert {typed: value(config, typed.partition("=")[0]) for typed in OVERRIDES} == OVERRIDES


@pytest.mark.parametrize(
    ("override", "expected"),
    [("gpus=2", 2), ("gpus=auto", "auto"), ("object_code_list=Cole*", "Cole*"), ('object_code_list="[ab]*"', "[ab]*")],
)
def test_free_forms_are_read(override, expected):
    (parsed,) = conf.parse([override])
    assert parsed.value() == expected


@pytest.mark.parametrize(
    ("override", "meant"),
    [
        ("seed_bas=1", "seed_base"),
        ("w_pen=1", "energy.w_pen"),
        ("enrgy.w_pen=1", "energy.w_pen"),
        ("energy.w_pne=1", "energy.w_pen"),
        ("num_iteration=1", "num_iterations"),
        ("+round_batchsize=1", "round_batch_size"),
        ("hand.candidates.perlink=1", "hand.candidates.per_link"),
    ],
)
def test_a_misspelled_key_is_refused_with_the_nearest(override, meant):
    with pytest.raises(InputError, match=f"no key .*did you mean '{meant}'"):
        conf.load([override])


@pytest.mark.parametrize(("override", "meant"), [("filter=enrgy", "energy"), ("hand=shaddow", "shadow")])
def test_a_misspelled_choice_is_refused_with_the_nearest(override, meant):
    with pytest.raises(InputError, match=f"did you mean '{meant}'.*There are"):
        conf.load([override])


@pytest.mark.slow
@pytest.mark.parametrize(
    "override",
    [
        "num_iterations=1e3",
        "seed_base=true",
        "seed_base=4294967295",
        "max_hours=soon",
        "resume=perhaps",
        "exp_name=../elsewhere",
        "optimizer.schedule_steps=1.5",
        "object.scales=0.15",
        "object.sizes=0.25",
        "target_count_per_object=0",
        "gpus=-1",
        "object_code_list=[mug,1e5]",
        "object_code_list=null",
        "energy=5",
        "~seed_base",
    ],
)
def test_a_bad_value_is_refused_by_its_key(override):
    key = override.lstrip("~").partition("=")[0]
    with pytest.raises(InputError) as error:
        conf.load([override])
    assert key in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("key", "bad"),
    [
        ("num_iterations", 0),
        ("seed_base", -1),
        ("max_rounds", 100_001),
        ("max_rounds", 0),
        ("max_hours", 0.0),
        ("mode", "run"),
        ("verify", "yes"),
        ("threads", 0),
        ("exp_name", ""),
        ("exp_name", ".hidden"),
        ("output_root", ""),
        ("energy.w_pen", math.nan),
        ("energy.w_pen", math.inf),
        ("energy.w_pen", -1.0),
        ("energy.inter_hand", "none"),
        ("optimizer.step_decay", 0.0),
        ("optimizer.schedule_steps", "none"),
        ("optimizer.schedule_steps", 0),
        ("initialization.distance_min", 0.4),
        ("object.scales", []),
        ("object.scales", [0.1, -1.0]),
        ("object.sizes", []),
        ("object.sizes", [0.0]),
        ("hand.palm_normal", [0.0, 0.0, 0.0]),
        ("filter.distance", 0.0),
        ("poses.openings", []),
        ("poses.openings", [[0.01]]),
        ("poses.openings", [[0.01, -0.01]]),
        ("poses.largest_residual", math.nan),
        ("validation.physics.noslip", "far"),
    ],
)
def test_a_value_out_of_range_is_refused_by_its_key(key, bad):
    config = copy.deepcopy(DEFAULTS)
    section, _, name = key.rpartition(".")
    setattr(value(config, section) if section else config, name, bad)
    with pytest.raises(InputError, match=f"{key}={re.escape(repr(bad))}.*wanted"):
        check_settings(config)


def test_openings_may_be_whole_numbers():
    assert conf.load(["poses.openings=[[0.01,0],[0,0]]"]).poses.openings == [[0.01, 0], [0, 0]]


def test_a_code_read_as_a_number_is_told_how_to_quote():
    with pytest.raises(InputError, match=r"object_code_list=2026_11_20.*quote it"):
        conf.load(["object_code_list=2026_11_20"])


@pytest.mark.parametrize("override", ["gpus=0,1", "exp_name=a,b", "energy.w_pen=1,2", "seed_base=range(0,3)"])
def test_several_values_without_multirun_are_refused(override):
    with pytest.raises(InputError, match="brackets.*needs -m"):
        conf.load([override])


@pytest.mark.parametrize("override", ["hydra.run.dir=x", "hydra/launcher=basic", "hydra.mode=MULTIRUN"])
def test_hydras_own_settings_are_fixed(override):
    with pytest.raises(InputError, match="Hydra's own settings"):
        conf.load([override])


@pytest.mark.parametrize("override", ["mode", "object_code_list=[a", "seed_base"])
def test_what_is_no_override_is_refused(override):
    with pytest.raises(InputError, match="wanted key=value"):
        conf.load([override])


@pytest.mark.slow
def test_a_folder_of_ones_own_adds_choices(tmp_path):
    (tmp_path / "experiment").mkdir()
    mine = tmp_path / "experiment" / "mine.yaml"
    mine.write_text("# @package _global_\nnum_iterations: 77\n")
    assert conf.load(["experiment=mine", "filter=none"], tmp_path) == dataclasses.replace(PLAIN, num_iterations=77)
    mine.write_text("# @package _global_\ndefaults:\n  - override /filter: none\nnum_iterations: 77\n")
    assert conf.load(["experiment=mine"], tmp_path) == dataclasses.replace(PLAIN, num_iterations=77)
    mine.write_text("# @package _global_\nnum_iteration: 77\n")
    with pytest.raises(InputError, match="'num_iteration'.*did you mean 'num_iterations'"):
        conf.load(["experiment=mine"], tmp_path)
    mine.write_text("# @package _global_\nexp_name: 2026_11_20\n")
    with pytest.raises(InputError, match="exp_name=20261120.*quote it"):
        conf.load(["experiment=mine"], tmp_path)


def test_a_missing_folder_is_refused(tmp_path):
    with pytest.raises(InputError, match="is no folder"):
        conf.load([], tmp_path / "nowhere")


@pytest.mark.slow
def test_loading_does_not_disturb_hydra_or_the_current_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert conf.load(["hand=release"]) != DEFAULTS
    assert conf.load() == DEFAULTS
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_a_dictconfig_of_the_same_shape_is_the_same():
    config = conf.load(["energy.w_pen=150"])
    assert conf.check(OmegaConf.structured(config)) == config


def test_seeds_stay_below_32_bits():
    check_seeds(2**32 - 1 - 100_000 - 1000, 1, 1000)
    with pytest.raises(InputError, match="seed_base=.*2\\^32.*at most 4294866295"):
        check_seeds(2**32 - 100_000 - 1000, 1, 1000)
    with pytest.raises(InputError, match="fewer objects"):
        check_seeds(0, 50_000, 1000)


@pytest.mark.parametrize("name", ["a", "a b", "a/b", "Größe", "energy.w_pen=100,seed_base=0", "a%20b"])
def test_folder_names(name):
    assert is_folder_name(name)


@pytest.mark.parametrize("name", ["", "/a", "a/", "a//b", "..", "a/../b", ".a", "a\\b", "a\0", "a\n", "\udcff"])
def test_unsafe_folder_names(name):
    assert not is_folder_name(name)


@pytest.mark.slow
def test_the_jobs_of_a_sweep_are_the_product():
    jobs = {job.exp_name: job for job in sweep.jobs(["mode=scale", "seed_base=0,50000000", "energy.w_pen=100,125"])}
    assert len(jobs) == 4
    assert jobs["demo/energy.w_pen=125,seed_base=50000000"].energy.w_pen == 125


def folders(*overrides: str) -> list[str]:
    return [job.exp_name.removeprefix("demo/") for job in sweep.jobs(list(overrides))]


@pytest.mark.slow
def test_swept_parts_are_one_run_of_that_name():
    swept = ["demo/seed_base=7", "seed_base=7,5000000"]
    for exp_name, *others in (["demo"], ["demo", "seed_base=7"], swept):
        jobs = [job for job in sweep.jobs(["part=1/3,2/3,3/3", *others]) if job.seed_base != 5000000]
        assert [(job.exp_name, job.part) for job in jobs] == [(exp_name, f"{number}/3") for number in (1, 2, 3)]
    assert [job.exp_name for job in sweep.jobs(["part=2/3"])] == ["demo/default"]
    with pytest.raises(InputError, match="two jobs of the sweep are the same run"):
        sweep.jobs(["part=1/3,1/3"])


@pytest.mark.slow
def test_a_job_is_named_by_what_decides_its_grasps():
    assert folders("seed_base=0,50000000", "energy.w_pen=1e2") == [
        "energy.w_pen=100,seed_base=0",
        "energy.w_pen=100,seed_base=50000000",
    ]
    assert folders("filter=energy", "experiment=released", "num_iterations=5") == [
        "experiment=released,filter=energy,num_iterations=5"
    ]
    assert folders("object.scales=[0.1,0.2]") == ["object.scales=%5B0.1%2C0.2%5D"]
    assert folders("mode=scale") == ["default"]
    assert folders("experiment=null,firm") == ["experiment=null", "experiment=firm"]


@pytest.mark.slow
def test_a_job_keeps_its_folder_when_quota_devices_and_paths_change():
    other = ["target_count_per_object=7", "gpus=[cpu]", "output_root=/tmp/x", "max_rounds=2000", "hand.root=/x"]
    assert folders("energy.w_pen=100,125", *other) == folders("energy.w_pen=100.0,125.0")


@pytest.mark.slow
def test_a_long_name_ends_in_a_hash():
    sizes = ",".join(f"0.{number}" for number in range(10, 60))
    first, second = folders(f"object.scales=[{sizes}],[{sizes},0.7]")
    assert first != second and len(first) == len(second) == sweep.LONGEST
    assert is_folder_name(f"demo/{first}")


@pytest.mark.parametrize(
    "override",
    [
        "exp_name=a,b",
        "target_count_per_object=1,2",
        "gpus=0,1",
        "object_code_list=mug,bowl",
        "output_root=a,b",
        "mode=scale,generate",
        "max_rounds=10,20",
        "hand.root=a,b",
        "resume=true,false",
    ],
)
def test_only_what_decides_grasps_can_be_swept(override):
    with pytest.raises(InputError, match="cannot be swept"):
        sweep.jobs([override])


@pytest.mark.slow
@pytest.mark.parametrize("override", ["seed_base=0,5", "seed_base=range(0,3000,999)", "seed_base=choice(7,1006)"])
def test_overlapping_seeds_are_refused_with_a_step_that_fits(override):
    with pytest.raises(InputError, match="max_rounds=1000 apart.*step of 1000 or more"):
        sweep.jobs([override])


@pytest.mark.slow
def test_equal_seeds_and_wide_steps_are_fine():
    assert len(sweep.jobs(["seed_base=7", "energy.w_pen=100,125"])) == 2
    assert len(sweep.jobs(["experiment=firm", "seed_base=range(0,3000,1000)", "filter=glob(*)"])) == 12
    assert len(sweep.jobs(["seed_base=0,5", "max_rounds=5"])) == 2


@pytest.mark.slow
def test_two_jobs_that_are_one_run_are_refused():
    with pytest.raises(InputError, match="the same run 'energy.w_pen=100'"):
        sweep.jobs(["energy.w_pen=100,100.0"])


@pytest.mark.slow
def test_a_job_that_does_not_compose_is_refused_before_any_starts():
    with pytest.raises(InputError, match="energy.w_pen=-1"):
        sweep.jobs(["energy.w_pen=100,-1"])


@pytest.mark.slow
def test_settings_that_came_later_are_in_the_run_key_only_where_they_are_used():
    later = {"object.sizes": "[0.25]", "initialization.follow_size": "true"}
    plain = run_keys.run_key(PLAIN, "hand", 2)
    words = ["experiment=null", *(f"{name}={value}" for name, value in later.items())]
    used = run_keys.run_key(conf.load(words), "hand", 2)
    assert set(used) - set(plain) == set(later) and used == plain | {name: used[name] for name in later}
    assert used["object.sizes"] == [0.25] and plain["object.scales"] == [0.15, 0.16, 0.17]
