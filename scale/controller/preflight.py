"""Checks a call before a folder is touched or a worker started, and returns it as a `RunRequest`."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

from bimangrasp.energy.backends import resolve_kernels
from bimangrasp.errors import InputError
from scale.controller import optional_outputs
from scale.engine.devices import resolve_devices
from scale.engine.interfaces import RoundFactoryOf, VerdictFactoryOf
from scale.engine.synthesizer import Synthesizer
from scale.engine.validator import Simulator
from scale.settings import fingerprints
from scale.settings.filters import acceptance
from scale.settings.mesh_checks import check_objects
from scale.settings.objects import resolve_objects
from scale.settings.parsing import parse_target
from scale.settings.schema import GENERATE, Config, as_config, check_seeds, check_settings
from scale.state.request import RunRequest
from scale.state.resume import ELSEWHERE, used_before
from scale.store import journal
from scale.store.events import CallStarted
from scale.store.run_folder import RunFolder


def check(
    settings: Any,
    factory_of: RoundFactoryOf | None = None,
    verdict_factory_of: VerdictFactoryOf | None = None,
    remember: bool = True,
) -> RunRequest:
    """Returns the call, checked.

    Args:
        settings: a Config, or a DictConfig of the same shape.
        factory_of: gives what makes rounds; the optimizer where it is left out.
        verdict_factory_of: gives what tests rounds; MuJoCo where it is left out.
        remember: whether mesh reports may be cached on the disk.

    Raises:
        InputError: names what cannot be used and what to do.
    """
    config = as_config(settings)
    check_settings(config)
    resolve_kernels(config.kernels)
    if config.mode == GENERATE:
        config = _for_one_round(config)
    optional_outputs.check(config)
    entries = resolve_objects(config.object_root, config.object_code_list)
    quotas = parse_target(config.target_count_per_object, [entry.code for entry in entries])
    check_seeds(config.seed_base, len(entries), config.max_rounds)
    folder = RunFolder(f"{config.output_root}/{config.exp_name}")
    factory = (factory_of or Synthesizer)(config.hand, config.synthesis)
    _check_folder(config, folder, factory.algorithm_version)
    devices = resolve_devices(config.gpus)
    hand = factory.hand_table()
    meshes = check_objects(entries, config.object, remember=remember)
    accept = acceptance(config.filter)
    return RunRequest(
        config=config,
        folder=folder,
        entries=entries,
        quotas=quotas,
        meshes=meshes,
        devices=devices,
        factory=factory,
        hand=hand,
        run_key=fingerprints.run_key(config, hand.sha256, factory.algorithm_version),
        acceptance_key=fingerprints.acceptance_key(config),
        accept=accept,
        verdict_factory=(verdict_factory_of or Simulator.of)(config) if accept.needs_verdict else None,
        dedup=config.dedup.thresholds,
    )


def _check_folder(config: Config, folder: RunFolder, algorithm_version: int) -> None:
    """Refuses a run folder whose journal has other settings, or anything for `resume=false`, before meshes are read.

    `resume` looks at all files again, once the folder is locked; this spares the seconds until then.
    """
    call = json.loads(json.dumps(fingerprints.run_key(config, "", algorithm_version)))
    events = journal.replay(folder).events
    if events and not config.resume:
        raise used_before(folder)
    for event in events:
        if isinstance(event, CallStarted):
            known_hand = call | {"hand.sha256": event.run_key.get("hand.sha256")}
            differing = fingerprints.differences(event.run_key, known_hand)
            if differing:
                raise fingerprints.refuse(f"the run folder {folder.root}", differing, ELSEWHERE)


def _for_one_round(config: Config) -> Config:
    """Returns the settings of `mode=generate`: a run that ends after one round of each object.

    Raises:
        InputError: a setting about grasps that count; here every finite one does.
    """
    chosen = {
        f"filter={config.filter.name}": config.filter.name != "none",
        "dedup": config.dedup.thresholds is not None,
        "keep_failed=true": config.keep_failed,
    }
    for name, is_chosen in chosen.items():
        if is_chosen:
            raise InputError(
                f"{name} needs mode=scale: mode=generate makes one round of each object and keeps every finite grasp; "
                f"leave it away and test the grasps with mode=validate exp_name={config.exp_name}"
            )
    return replace(config, max_rounds=1, target_count_per_object=config.round_batch_size)
