"""Declares the settings of a run as one tree of dataclasses and checks them, each by itself and several together."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from functools import reduce
from operator import getitem
from typing import Annotated, Any

from bimangrasp.config import InitializationConfig, Record, SynthesisConfig
from bimangrasp.energy.config import EnergyConfig
from bimangrasp.energy_terms import filtered_terms
from bimangrasp.errors import InputError
from bimangrasp.hand_files.config import HandConfig
from bimangrasp.objects.config import ObjectConfig, PiecesConfig, PreparationConfig
from bimangrasp.ranges import (
    NOT_NEGATIVE,
    NULL_OR_NOT_NEGATIVE,
    POSITIVE,
    TEXT,
    Checked,
    Rule,
    all_rules,
    among,
    at_least,
    between,
    field_rules,
    refuse_unless,
    whole_between,
)
from bimangrasp.sampler.config import OptimizerConfig
from bimangrasp.validation.config import MUJOCO, DuplicateThresholds, PoseConfig, ProtocolConfig
from scale.settings.parsing import is_folder_name

PHYSICS = "physics"
TENSORBOARD = "tensorboard"
RAY = "ray"
GENERATE = "generate"
FILTERS = {
    "none": (),
    "energy": filtered_terms("energy"),
    "firm": filtered_terms("firm"),
    PHYSICS: (),
}
"""The terms on which each filter has a threshold."""
MODES = ("scale", "generate", "merge", "status", "validate", "export", "import", "report", "view", "hand", "objects")
SEED_STRIDE = 100_000
"""Seeds between two objects, and so the most rounds of one object."""
SEED_LIMIT = 2**32
"""PyTorch's CPU generator keeps 32 bits of a seed."""

FOLDER_NAME = Rule(is_folder_name, "a folder's name: no leading dot, no \\, 200 bytes at most")
SEED = Rule(lambda value: 0 <= value < SEED_LIMIT, "a whole number from 0 to 2^32 - 1")
HOURS = Rule(lambda value: value is None or 0 < value < math.inf, "null or a number of hours above 0")
DIFFERENT_ROWS = Rule(
    lambda value: len(value) > 0 and all(row >= 0 for row in value) and len(set(value)) == len(value),
    "a list of different rows, 0 or more",
)
NULL_OR_ROWS = Rule(
    lambda value: value is None or (len(value) > 0 and min(value) >= 0), "null or a list of row numbers from 0 on"
)


def _are_codes(value: Any) -> bool:
    """Whether a value is a code or a glob, or a list of codes."""
    codes = value if isinstance(value, list) else [value]
    return len(codes) > 0 and all(isinstance(code, str) and code for code in codes)


CODES = Rule(_are_codes, "all, a glob, or a list of codes such as [mug,bowl]; numbers in quotes")


@dataclass
class FilterConfig(Checked):
    """Which grasps count towards the quota.

    Attributes:
        name: of `FILTERS`; a finite grasp is accepted whose terms are all below the thresholds of that filter, and
            under "physics" one that holds in the simulator.
        force_closure, distance, penetration, depth, equilibrium: thresholds on the unweighted terms.
    """

    name: Annotated[str, among(*FILTERS)]
    force_closure: Annotated[float, POSITIVE]
    distance: Annotated[float, POSITIVE]
    penetration: Annotated[float, POSITIVE]
    depth: Annotated[float, POSITIVE]
    equilibrium: Annotated[float, POSITIVE]


@dataclass
class DedupConfig(Checked):
    """Which grasps are near-duplicates of an earlier one; null for all three where none is.

    Attributes:
        translation, rotation, joints: see `DuplicateThresholds`; m, rad, rad.
    """

    translation: Annotated[float | None, NULL_OR_NOT_NEGATIVE]
    rotation: Annotated[float | None, NULL_OR_NOT_NEGATIVE]
    joints: Annotated[float | None, NULL_OR_NOT_NEGATIVE]

    @property
    def thresholds(self) -> DuplicateThresholds | None:
        """The thresholds; None where all grasps count."""
        return None if self.translation is None else DuplicateThresholds(self.translation, self.rotation, self.joints)


@dataclass
class ViewConfig(Checked):
    """Which grasps `mode=view` shows.

    Attributes:
        objects: of a run: "all", a glob, or a list of codes.
        count: of each object, of its final file and as many of its rejected ones.
        most: on a page of a run; fewer of each object are shown where there are many.
        choose: "best" by total energy, "even" over the whole range of it, or "first" in the file.
        rows: these of each file instead; null chooses.
        drawn: so many thumbnails are drawn before the page is opened, and the others by the browser.
    """

    objects: Annotated[Any, CODES]
    count: Annotated[int, at_least(1)]
    most: Annotated[int, at_least(1)]
    choose: Annotated[str, among("best", "even", "first")]
    rows: Annotated[list[int] | None, NULL_OR_ROWS]
    drawn: Annotated[int, at_least(0)]


@dataclass
class RayConfig(Checked):
    """The cluster of `engine=ray`.

    Attributes:
        address: of its head, host:port; "auto" for the one that this machine is a node of; empty for one on this
            machine that is started for the run.
        lease_s: an agent on a node ends itself when its parent has not asked for so long, s.
        scratch: folder on each node for what is under way there; empty for its temporary folder.
    """

    address: str
    lease_s: Annotated[float, between(5, 86400)]
    scratch: str


@dataclass
class Config(Checked):
    """One run. `conf.load` fills it from the YAML files; every number's home is there.

    Attributes:
        mode: what to do, of `MODES`.
        exp_name: name of the run folder below `output_root`.
        output_root: folder of all runs.
        object_root: folder of meshes; empty for the built-in objects.
        object_code_list: a list of codes, "all", a glob, or a JSON or text file with codes.
        part: "i/n": only the objects whose index in the list is i - 1 modulo n, in a folder of their own, as one of n
            machines makes them; `mode=merge` joins the parts. null is all objects.
        target_count_per_object: the quota: a number, a mapping from object code (or "default") to number,
            or a JSON file with such a mapping.
        round_batch_size, num_iterations, contacts_per_hand, tile, curve_stride, kernels: `SynthesisConfig`.
        seed_base: seed of round r of object i is seed_base + 100000 i + r.
        engine: "local", or "ray" for the nodes of a cluster, see `RayConfig`.
        gpus: "auto", "gpu" (all GPUs, and no run without one), a device number, or a list of numbers, UUIDs and "cpu".
        workers_per_gpu: workers on each GPU; while one starts or ends a round, the others use the device.
        threads: CPU threads of each worker.
        max_rounds: most rounds of one object, 1 to 100000.
        max_retries: further attempts at a round that failed before it is skipped.
        max_kills: deaths of its workers by SIGKILL or SIGTERM from outside after which a round is skipped; 0 never.
        max_barren_rounds: consecutive rounds without an accepted grasp that end an object; 0 never.
        retry_skipped: try rounds again that an earlier call skipped, as long as no final file has passed them.
        max_hours: the run stops taking new rounds after this long; null is never.
        startup_timeout_s: a worker that makes no first step within this long of its start, or of getting its
            round, is ended; s.
        heartbeat_timeout_s: the same between two steps, s.
        grace_s: what preemption and max_hours leave for the rounds under way, s.
        disk_wait_s: how long the run waits for room on a full disk before it gives up, s.
        merge_stride: rounds after which a growing final file is written again; 0 writes it once.
        resume: go on with a run folder that has rounds; false refuses one.
        keep_intermediate: keep shards after the merge.
        keep_failed: keep grasps that do not count, with the reason, in files of their own.
        rejected_cap: most rows of such a file.
        allow_mixed_platform: accept devices of different platforms in one run.
        verify: "auto" trusts files that look untouched, "full" reads everything at the start.
        record: make a moving picture of the way to chosen grasps (`mode=generate`).
        frame_stride: steps between two of its frames.
        record_rows: which grasps of the round.
        logger: "none", or "tensorboard", which also gets the energy curve of each round (modes scale and generate).
        path: what `mode=validate` tests, `mode=export` exports and `mode=view` shows: a grasp file or a run folder;
            empty is this run's folder. What `mode=import` imports: a result file of BimanGrasp. Of `mode=report`
            and `mode=status`: a run folder.
        format: of the files that `mode=export` makes.
        out: what `mode=export`, `mode=import`, `mode=report` and `mode=view` make, a file or a folder; empty is a place
            beside `path`, or in the run folder. The YAML that `mode=hand` makes, or the folder for it; it goes into a
            folder `hand` there, where Hydra finds it. Of `mode=objects` the folder of the prepared objects; empty only
            checks.
        validators: how many grasps are simulated at once, by processes under filter=physics and by threads under
            `mode=validate`; 0 is one for each core.
        backlog_s: no more rounds are made while so many wait that validators test for longer than this, s.
        hand_test: how many grasps `mode=hand` makes and tests on each object to say why they fail; 0 makes none.
        dry_run: print the plan and write nothing.
        ray, filter, dedup, view, hand, energy, optimizer, initialization, object, validation, poses, pieces, prepare:
            see there.
    """

    mode: Annotated[str, among(*MODES)]
    exp_name: Annotated[str, FOLDER_NAME]
    output_root: Annotated[str, TEXT]
    object_root: str
    object_code_list: Any
    part: str | None
    target_count_per_object: Any
    round_batch_size: int
    num_iterations: int
    contacts_per_hand: int
    tile: int
    curve_stride: int
    kernels: str
    seed_base: Annotated[int, SEED]
    engine: Annotated[str, among("local", RAY)]
    gpus: Any
    workers_per_gpu: Annotated[int, at_least(1)]
    threads: Annotated[int, at_least(1)]
    max_rounds: Annotated[int, whole_between(1, SEED_STRIDE)]
    max_retries: Annotated[int, at_least(0)]
    max_kills: Annotated[int, at_least(0)]
    max_barren_rounds: Annotated[int, at_least(0)]
    retry_skipped: bool
    max_hours: Annotated[float | None, HOURS]
    startup_timeout_s: Annotated[float, POSITIVE]
    heartbeat_timeout_s: Annotated[float, POSITIVE]
    grace_s: Annotated[float, NOT_NEGATIVE]
    disk_wait_s: Annotated[float, NOT_NEGATIVE]
    merge_stride: Annotated[int, at_least(0)]
    resume: bool
    keep_intermediate: bool
    keep_failed: bool
    rejected_cap: Annotated[int, whole_between(1, 1_000_000)]
    allow_mixed_platform: bool
    verify: Annotated[str, among("auto", "full")]
    record: bool
    frame_stride: Annotated[int, at_least(1)]
    record_rows: Annotated[list[int], DIFFERENT_ROWS]
    logger: Annotated[str, among("none", TENSORBOARD)]
    path: str
    format: Annotated[str, among("npy", "npz", "csv", "parquet", "dexgraspbench")]
    out: str
    hand_test: Annotated[int, at_least(0)]
    validators: Annotated[int, at_least(0)]
    backlog_s: Annotated[float, POSITIVE]
    dry_run: bool
    ray: RayConfig
    filter: FilterConfig
    dedup: DedupConfig
    view: ViewConfig
    hand: HandConfig
    energy: EnergyConfig
    optimizer: OptimizerConfig
    initialization: InitializationConfig
    object: ObjectConfig
    validation: ProtocolConfig
    poses: PoseConfig
    pieces: PiecesConfig
    prepare: PreparationConfig

    @property
    def full_tile(self) -> int:
        """How many grasps are evaluated at once where memory lasts."""
        return self.tile or self.round_batch_size

    @property
    def recording(self) -> Record | None:
        """What to keep of the way to the grasps; None where nothing is asked for."""
        return Record(self.frame_stride, tuple(self.record_rows)) if self.record else None

    @property
    def in_mujoco(self) -> Config:
        """The same with the protocol in MuJoCo, which is the judge of record."""
        simulator = replace(self.validation.simulator, engine=MUJOCO)
        return replace(self, validation=replace(self.validation, simulator=simulator))

    @property
    def synthesis(self) -> SynthesisConfig:
        """The part that decides the grasps of a round."""
        return SynthesisConfig(**{field.name: getattr(self, field.name) for field in fields(SynthesisConfig)})


def as_config(settings: Any) -> Config:
    """Returns the settings as the dataclass, from a DictConfig too."""
    if isinstance(settings, Config):
        return settings
    from omegaconf import OmegaConf  # only callers that have it already bring such an object

    return OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(Config), settings))


RULES = field_rules(SynthesisConfig) | all_rules(Config)
"""Dotted key -> what its value may be; the fields of `SynthesisConfig` are keys at the top."""


def check_settings(config: Config) -> None:
    """Refuses a setting out of its range, and settings that contradict each other.

    Raises:
        InputError: names the keys, their values and what is allowed.
    """
    check_ranges(asdict(config))
    _check_lengths(config)
    _check_dedup(config)
    _check_terms(config)
    _check_preparation(config.prepare)
    check_seeds(config.seed_base, 1, config.max_rounds)


def check_ranges(values: Mapping[str, Any]) -> None:
    """Refuses a value out of the range of its field.

    Args:
        values: the settings as nested mappings.

    Raises:
        InputError: names the key, its value and what is allowed.
    """
    for key, rule in RULES.items():
        refuse_unless(rule, reduce(getitem, key.split("."), values), key)


def _check_lengths(config: Config) -> None:
    """Refuses an empty range of distances from which hands start."""
    start = config.initialization
    if start.distance_min > start.distance_max:
        raise InputError(
            f"initialization.distance_min={start.distance_min!r} is above "
            f"initialization.distance_max={start.distance_max!r}: wanted the smaller first"
        )


def _check_dedup(config: Config) -> None:
    """Refuses thresholds of near-duplicates of which some are missing."""
    given = [value is not None for value in vars(config.dedup).values()]
    if any(given) and not all(given):
        raise InputError(
            f"dedup has {vars(config.dedup)}: wanted numbers for translation (m), rotation and joints (rad), or null "
            f"for all three"
        )


def _check_terms(config: Config) -> None:
    """Refuses a filter on terms that are not computed, and a sampler that accepts nothing."""
    if config.filter.name == "firm" and not (config.energy.w_depth and config.energy.w_equilibrium):
        raise InputError(
            f"filter=firm looks at terms that are not computed without weight: w_depth={config.energy.w_depth!r}, "
            f"w_equilibrium={config.energy.w_equilibrium!r}; wanted both above 0, as experiment=firm has them"
        )
    if config.optimizer.proposal_ratio and not config.optimizer.noise_factor:
        raise InputError(
            "optimizer.noise_factor=0 with optimizer.proposal_ratio=true accepts nothing: proposals without noise have "
            "no density; wanted a factor above 0, such as 1"
        )


def _check_preparation(given: PreparationConfig) -> None:
    """Refuses settings of `mode=objects` that contradict each other."""
    if given.unit != "m" and given.normalize != "keep":
        raise InputError(
            f"prepare.unit={given.unit} says nothing with prepare.normalize={given.normalize}, which sets the size "
            "itself; wanted prepare.normalize=keep with it, or no unit"
        )
    if given.surface == "pieces" and not given.decompose:
        raise InputError(
            "prepare.surface=pieces needs convex pieces; wanted prepare.decompose=true with it, or prepare.surface=mesh"
        )


def check_seeds(seed_base: int, objects: int, max_rounds: int) -> None:
    """Refuses seeds that PyTorch's CPU generator cannot tell apart.

    Args:
        seed_base: seed of round 0 of object 0.
        objects: how many object indices are in use.
        max_rounds: most rounds of one object.

    Raises:
        InputError: the largest seed reaches 2^32.
    """
    largest = seed_base + SEED_STRIDE * objects + max_rounds
    if largest >= SEED_LIMIT:
        room = SEED_LIMIT - 1 - SEED_STRIDE * objects - max_rounds
        advice = f"wanted seed_base at most {room}" if room >= 0 else "wanted fewer objects in one run"
        raise InputError(
            f"seed_base={seed_base} with {objects} objects and max_rounds={max_rounds} gives seeds up to "
            f"{largest}, and they must stay below 2^32: {advice}"
        )
