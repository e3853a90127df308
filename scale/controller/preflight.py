"""The door: everything that can be refused before a folder is touched or a worker started."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from bimangrasp.energy.backends import resolve_kernels
from bimangrasp.errors import InputError
from scale.controller import recording, tensorboard
from scale.engine.devices import resolve_devices
from scale.engine.interfaces import RoundFactoryOf, VerdictFactoryOf
from scale.engine.synthesizer import Synthesizer
from scale.engine.validator import Simulator
from scale.settings import fingerprints
from scale.settings.consistency import check_seeds, check_settings
from scale.settings.filters import acceptance
from scale.settings.mesh_checks import check_objects
from scale.settings.objects import resolve_objects
from scale.settings.parsing import parse_target
from scale.settings.schema import PHYSICS, TENSORBOARD, Config
from scale.state.request import RunRequest
from scale.state.resume import ELSEWHERE
from scale.store import journal
from scale.store.run_folder import RunFolder


def check(
    settings: Any,
    maker_of: RoundFactoryOf | None = None,
    judge_of: VerdictFactoryOf | None = None,
    remember: bool = True,
    on_progress: Callable[[int, int], None] | None = None,
) -> RunRequest:
    """Returns the call, checked.

    Args:
        settings: a Config, or a DictConfig of the same shape.
        maker_of: gives the maker; the optimizer's where it is left out.
        judge_of: gives what validators simulate with; MuJoCo's where it is left out.
        remember: whether mesh reports may be cached on the disk.
        on_progress: told (done, total) of the mesh checks.

    Raises:
        InputError: names what cannot be used and what to do.
    """
    config = as_config(settings)
    check_settings(config)
    resolve_kernels(config.kernels)
    _check_filter(config)
    recording.check(config)
    if config.logger == TENSORBOARD:
        tensorboard.check_installed()
    entries = resolve_objects(config.object_root, config.object_code_list)
    quotas = parse_target(config.target_count_per_object, [entry.code for entry in entries])
    check_seeds(config.seed_base, len(entries), config.max_rounds)
    folder = RunFolder(f"{config.output_root}/{config.exp_name}")
    maker = (maker_of or Synthesizer)(config.hand, config.synthesis)
    _check_folder(config, folder, maker.algorithm_version)
    devices = resolve_devices(config.gpus)
    hand = maker.hand_table()
    meshes = check_objects(entries, config.object, remember=remember, on_progress=on_progress)
    run_key = fingerprints.run_key(config, hand.sha256, maker.algorithm_version)
    accept_key, accept = fingerprints.acceptance_key(config), acceptance(config.filter)
    judge = (judge_of or Simulator.of)(config) if accept.needs_verdict else None
    parts = (config, folder, entries, quotas, meshes, devices, maker, hand)
    return RunRequest(*parts, run_key, accept_key, accept, judge, config.dedup.thresholds)


def _check_folder(config: Config, folder: RunFolder, algorithm_version: int) -> None:
    """Refuses a run folder whose journal has other settings, before hands and meshes are read.

    `resume` looks at all files again, once the folder is locked; this spares the seconds until then.
    """
    call = json.loads(json.dumps(fingerprints.run_key(config, "", algorithm_version)))
    for event in journal.replay(folder).events:
        if event["event"] == "start":
            known_hand = call | {"hand.sha256": event["run_key"].get("hand.sha256")}
            differing = fingerprints.differences(event["run_key"], known_hand)
            if differing:
                raise fingerprints.refuse(f"the run folder {folder.root}", differing, ELSEWHERE)


def _check_filter(config: Config) -> None:
    """Refuses what is about grasps that count where the mode counts none."""
    if config.filter.name == PHYSICS and config.mode == "generate":
        raise InputError(
            "filter=physics needs mode=scale: mode=generate makes one round and counts nothing; leave the filter away "
            "and test the round's file with mode=validate path=<file>"
        )
    for name, is_asked in (("dedup", config.dedup.thresholds), ("keep_failed=true", config.keep_failed)):
        if is_asked and config.mode == "generate":
            raise InputError(f"{name} needs mode=scale: mode=generate makes one round and counts nothing")


def as_config(settings: Any) -> Config:
    """Returns the settings as the dataclass, from a DictConfig too."""
    if isinstance(settings, Config):
        return settings
    from omegaconf import OmegaConf  # only callers that have it already bring such an object

    return OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(Config), settings))
