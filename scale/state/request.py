"""Holds a checked call: settings, objects, quotas, devices, and what makes and tests rounds."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

from bimangrasp.files.header import HandTable, Header
from bimangrasp.objects.files import MeshReport
from bimangrasp.validation.config import DuplicateThresholds
from scale.engine.devices import Device
from scale.engine.interfaces import RoundFactory, VerdictFactory
from scale.settings import fingerprints
from scale.settings.filters import Accept
from scale.settings.fingerprints import Key
from scale.settings.objects import ObjectEntry
from scale.settings.schema import SEED_STRIDE, Config
from scale.store.run_folder import RunFolder


class RunRequest(NamedTuple):
    """A checked call.

    Attributes:
        config: the settings.
        folder: of the run.
        entries: the objects, in order.
        quotas: object code -> rows wanted.
        meshes: object code -> what its mesh holds.
        devices: one per worker.
        factory: of the rounds.
        hand: what files say of the hands.
        run_key, acceptance_key: what an earlier call must have had; the latter but for an object's pieces.
        accept: columns -> mask of rows that count.
        verdict_factory: of the validators; None where no row counts by what a simulator says.
        dedup: which grasps are near-duplicates; None where all count.
        pieces: object code -> sealed file of its convex pieces, and their hash; empty until they are made.
    """

    config: Config
    folder: RunFolder
    entries: list[ObjectEntry]
    quotas: dict[str, int]
    meshes: dict[str, MeshReport]
    devices: list[Device]
    factory: RoundFactory
    hand: HandTable
    run_key: Key
    acceptance_key: Key
    accept: Accept
    verdict_factory: VerdictFactory | None = None
    dedup: DuplicateThresholds | None = None
    pieces: Mapping[str, tuple[Path, str]] = MappingProxyType({})

    @property
    def validators(self) -> int:
        """How many processes simulate: those asked for, or one for each core that no CPU worker needs."""
        if not self.accept.needs_verdict:
            return 0
        busy = sum(device.label == "cpu" for device in self.devices)
        return self.config.validators or max(1, len(os.sched_getaffinity(0)) - busy)

    def acceptance_key_of(self, code: str) -> Key:
        """Returns what decides which rows of an object count."""
        if code not in self.pieces:
            return self.acceptance_key
        _, sha256 = self.pieces[code]
        return self.acceptance_key | {"pieces_sha256": sha256}

    def seed(self, index: int, round_id: int) -> int:
        """Returns the seed of a round of the object with this index: seed_base + 100000 index + round id."""
        return self.config.seed_base + SEED_STRIDE * index + round_id

    def header(self, code: str = "", index: int = 0, mesh_sha256: str = "") -> Header:
        """Returns what an object's files say, but for the platforms; without a code the part that is common."""
        weights = {name: value for name, value in vars(self.config.energy).items() if name.startswith("w_")}
        object_key = fingerprints.object_key(mesh_sha256)
        return Header(code, index, mesh_sha256, self.hand, weights, self.run_key, object_key)
