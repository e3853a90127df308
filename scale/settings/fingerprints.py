"""Computes the three keys that decide whether a call may go on with a folder: run, object and acceptance key."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import Any

from bimangrasp.errors import InputError
from bimangrasp.validation.config import ProtocolConfig
from scale.settings.schema import FILTERS, PHYSICS, Config

Key = dict[str, Any]

_SECTIONS = ("energy", "optimizer", "initialization", "object")
_TOP = (
    "round_batch_size",
    "num_iterations",
    "contacts_per_hand",
    "tile",
    "curve_stride",
    "threads",
    "seed_base",
)

_AS_BEFORE = {"object.sizes": None, "initialization.follow_size": False}
"""Settings that came later, at the value at which grasps are as before them; then the key is as before, too."""


def run_key(config: Config, hand_sha256: str, algorithm_version: int) -> Key:
    """Returns everything but the mesh that decides the grasps of a round, by the names users type."""
    key: Key = {name: getattr(config, name) for name in _TOP}
    for section in _SECTIONS:
        key |= {f"{section}.{name}": value for name, value in asdict(getattr(config, section)).items()}
    key = {name: value for name, value in key.items() if name not in _AS_BEFORE or value != _AS_BEFORE[name]}
    return key | {"hand.sha256": hand_sha256, "algorithm_version": algorithm_version}


def object_key(mesh_sha256: str) -> Key:
    """Returns what makes two meshes of one code the same object."""
    return {"mesh_sha256": mesh_sha256}


def acceptance_key(config: Config) -> Key:
    """Returns what decides which rows count, but for an object's convex pieces; as files give it back."""
    name = config.filter.name
    used: dict[str, Any] = {"filter": {"name": name} | {term: getattr(config.filter, term) for term in FILTERS[name]}}
    if name == PHYSICS:
        used |= {"validation": _protocol(config.validation), "poses": asdict(config.poses)}
        used |= {"keep_failed": config.keep_failed}  # then all pushes of a grasp that failed one are in its verdict
    if config.dedup.thresholds:
        used |= {"dedup": asdict(config.dedup)}
    return json.loads(json.dumps(dict(_flat(used, ""))))


def _protocol(protocol: ProtocolConfig) -> dict[str, Any]:
    """Returns what of a protocol decides verdicts: of its simulator nothing under MuJoCo, which has no choice."""
    values = asdict(protocol)
    simulator = values.pop("simulator")
    if protocol.simulator.is_on_device:
        values["simulator"] = {name: simulator[name] for name in ("engine", "doubt")}
    return values


def _flat(tree: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    """Yields the leaves of a tree by the names users type."""
    for name, value in tree.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def differences(folder: Mapping[str, Any], call: Mapping[str, Any]) -> list[str]:
    """Returns a phrase for each field in which two keys differ, with both values."""
    names = [name for name in sorted({*folder, *call}) if folder.get(name, _ABSENT) != call.get(name, _ABSENT)]
    return [f"{name}: {_shown(folder, name)} in the folder, {_shown(call, name)} in this call" for name in names]


def check(what: str, folder: Mapping[str, Any], call: Mapping[str, Any], remedy: str) -> None:
    """Refuses a call whose key differs from the folder's; see `refuse`."""
    differing = differences(folder, call)
    if differing:
        raise refuse(what, differing, remedy)


def refuse(what: str, differing: list[str], remedy: str) -> InputError:
    """Returns the error that names each differing field."""
    return InputError(f"{what} was made with other settings:\n  " + "\n  ".join(differing) + f"\n{remedy}")


_ABSENT = object()


def _shown(key: Mapping[str, Any], name: str) -> str:
    return repr(key[name]) if name in key else "absent"
