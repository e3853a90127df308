"""Refuses what a cluster cannot serve, before meshes are read; Ray itself is not imported for it."""

from __future__ import annotations

from importlib.util import find_spec

from bimangrasp.builtin import install_command
from bimangrasp.errors import InputError
from scale.settings.parsing import parse_gpus
from scale.settings.schema import Config


def check_cluster(config: Config) -> None:
    """Refuses settings that `engine=ray` has no use for.

    Raises:
        InputError: names the setting and what to do.
    """
    if config.part is not None:
        raise InputError(
            f"part={config.part} with engine=ray: a cluster shares the whole list by itself; leave part out, or leave "
            f"engine out and start each part by itself"
        )
    asked = parse_gpus(config.gpus)
    if isinstance(asked, list) and set(asked) != {"cpu"}:
        raise InputError(
            f"gpus={config.gpus} with engine=ray: device numbers mean nothing on several nodes; wanted auto (the GPUs "
            f"of all nodes, else CPUs), gpu, or a list such as [cpu,cpu]"
        )
    if find_spec("ray") is None:
        raise InputError(f"engine=ray needs Ray: {install_command('ray')}")
    _check_address(config.ray.address)


def _check_address(address: str) -> None:
    if address in ("", "auto"):
        return
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit() or "//" in host:
        raise InputError(
            f"ray.address={address}: wanted host:port as `ray start --head` tells it, auto on a node of the cluster, "
            f"or nothing for a cluster on this machine"
        )
