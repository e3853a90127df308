"""Computes rounds with the optimizer inside a worker, and simulates them in MuJoCo inside a validator."""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any

import numpy as np

from bimangrasp.builtin import ASSET_ROOT
from bimangrasp.config import ALGORITHM_VERSION, SynthesisConfig
from bimangrasp.energy_terms import TERMS
from bimangrasp.files.header import HandTable
from bimangrasp.hand_files.config import HandConfig, find_mjcf
from bimangrasp.validation.config import ProtocolConfig
from scale.engine.devices import package_version, platform
from scale.engine.interfaces import RoundJob, RoundResult, ValidationTask
from scale.settings.schema import Config

if TYPE_CHECKING:
    from bimangrasp.hands.description import HandDescription
    from bimangrasp.hands.model import HandModel
    from bimangrasp.objects.model import ObjectModel
    from bimangrasp.synthesis import Synthesis
    from bimangrasp.validation.evaluate import SimulateTogether
    from bimangrasp.validation.scene import Scene
    from bimangrasp.validation.simulate import Trial
    from bimangrasp.validation.verdict import Verdict

SIMULATOR_PACKAGES = ("mujoco-warp", "warp-lang")  # that verdicts on a device depend on besides
UNUSED_POINTS = 1  # on the hands' surfaces, which a simulation does not ask for
CACHED_OBJECTS = 16  # a worker goes from object to object, and comes back only to retry


@dataclass(frozen=True)
class Synthesizer:
    """The maker in earnest. The optimizer is imported where it is used, so that the parent never loads it."""

    hand: HandConfig
    synthesis: SynthesisConfig
    hands: tuple[HandDescription, HandDescription] | None = None

    def portable(self) -> Synthesizer:
        """Returns the same with the hands themselves in place of their files, which other nodes need not have."""
        return replace(self, hands=_hands(self.hand, self.hands))

    @property
    def algorithm_version(self) -> int:
        """That of the optimizer."""
        return ALGORITHM_VERSION

    def hand_table(self) -> HandTable:
        """Returns what files say of the hands, read by MuJoCo alone."""
        from bimangrasp.hands.couplings import coupling_rules
        from bimangrasp.hands.description import pair_sha256

        left, right = _hands(self.hand, self.hands)
        count = max(len(left.candidate_link), len(right.candidate_link))
        links, positions = zip(*(_candidates(hand, count) for hand in (left, right)), strict=True)
        return HandTable(
            self.hand.name,
            pair_sha256(left, right),
            right.joint_names,
            np.stack(links),
            np.stack(positions),
            coupling_rules(right.couplings, right.joint_names),
        )

    def load(self, device: str, threads: int) -> OptimizerRunner:
        """Returns the bench with both hands on the device."""
        from bimangrasp.energy.config import resolve_kernels
        from bimangrasp.hands.model import HandModel
        from bimangrasp.synthesis import set_determinism

        set_determinism(threads)
        kernels = resolve_kernels(self.synthesis.kernels)
        hands = HandModel(*_hands(self.hand, self.hands), self.hand.surface_points, device)
        return OptimizerRunner(hands, self.synthesis, device, platform(device, kernels))


def _hands(
    config: HandConfig, hands: tuple[HandDescription, HandDescription] | None
) -> tuple[HandDescription, HandDescription]:
    """Returns the left and the right hand: those that are given, else those of the files."""
    from bimangrasp.hand_files.loading import load_hands

    return hands or load_hands(config)


def coupling_note(config: HandConfig) -> str:
    """Returns what a person should hear of couplings in the file of a hand of their own that are not read."""
    if config.format != "mjcf" or find_mjcf(config.mjcf).is_relative_to(ASSET_ROOT):
        return ""
    from bimangrasp.hand_files.read_hand import unread_couplings

    unread = unread_couplings(config.mjcf)
    if not unread:
        return ""
    also = f", and {len(unread) - 1} more" if unread[1:] else ""
    return (
        f"not read from {config.mjcf}: {unread[0]}{also}; these joints move by themselves unless hand.couplings states "
        "otherwise (mode=hand names all)"
    )


def _candidates(hand: HandDescription, most: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns the link names and positions of a hand's contact candidates, filled up to `most`."""
    missing = most - len(hand.candidate_link)
    links = [hand.link_names[link] for link in hand.candidate_link] + [""] * missing
    positions = np.pad(hand.candidate_position, ((0, missing), (0, 0)), constant_values=np.nan)
    return np.array(links), positions.astype(np.float32)


class OptimizerRunner:
    """The bench in earnest: both hands on one device, and the objects used last."""

    def __init__(self, hands: Any, synthesis: SynthesisConfig, device: str, platform: dict[str, str]) -> None:
        self.platform = platform
        self._hands, self._synthesis, self._device = hands, synthesis, device
        self._object = lru_cache(CACHED_OBJECTS)(self._load)

    def _load(self, mesh: str, sha256: str) -> ObjectModel:
        from bimangrasp.objects.model import ObjectModel

        loaded = ObjectModel.load(mesh, self._synthesis.object, self._device)
        if loaded.sha256 != sha256:
            raise RuntimeError(f"{mesh} was changed while the run was going: sha256 {loaded.sha256}, not {sha256}")
        return loaded

    def make(self, job: RoundJob, on_step: Callable[[int], None]) -> RoundResult:
        """Returns the grasps of a round."""
        from bimangrasp.synthesis import TrajectoryRecorder, synthesize

        loaded = self._object(job.mesh, job.mesh_sha256)
        settings = replace(self._synthesis, tile=job.tile)
        recorder = TrajectoryRecorder(job.record) if job.record else None
        result = synthesize(self._hands, loaded, settings, job.seed, on_step, recorder)
        trajectory = recorder.trajectory(result, settings.num_iterations) if recorder else None
        return RoundResult(columns_from(result), result.tile_used, trajectory)

    def free(self) -> None:
        """Lets the objects go, and what torch keeps for later."""
        import torch

        self._object.cache_clear()
        gc.collect()
        if self._device != "cpu":
            torch.cuda.empty_cache()


def columns_from(result: Synthesis) -> dict[str, np.ndarray]:
    """Returns what the optimizer made as columns of the grasp file."""
    from bimangrasp.geometry.rotation import rot6d_to_matrix

    columns: dict[str, Any] = {}
    for group, grasps in (("hand", result.grasps), ("initial", result.initial)):
        columns[f"{group}/translation"] = grasps.translation
        columns[f"{group}/rotation"] = rot6d_to_matrix(grasps.rotation.double()).float()  # proper to float32
        columns[f"{group}/joints"] = grasps.joints
    columns["contact/candidate"] = result.grasps.candidate.int()
    columns |= {"contact/point": result.contact_point, "contact/normal": result.contact_normal}
    columns |= {f"energy/{term}": getattr(result.energies, term) for term in TERMS}
    columns |= {f"curve/{term}": result.curve.quartiles[:, i] for i, term in enumerate(TERMS)}
    columns |= {"curve/step": result.curve.step, "curve/acceptance": result.curve.acceptance}
    columns["object_scale"] = result.object_scale
    return {name: value.detach().cpu().numpy() for name, value in columns.items()}


@dataclass(frozen=True)
class Simulator:
    """The judge in earnest: a protocol in a simulator. What simulates is imported where it is used."""

    config: Config
    hands: tuple[HandDescription, HandDescription] | None = None

    def portable(self) -> Simulator:
        """Returns the same with the hands themselves in place of their files, which other nodes need not have."""
        return replace(self, hands=_hands(self.config.hand, self.hands))

    def load(self, device: str, threads: int) -> SimulatorRunner:
        """Returns the bench with both hands; a device has judged recorded grasps before, and DeviceError refuses it."""
        import torch

        from bimangrasp.hands.model import HandModel

        torch.set_num_threads(threads)
        settings = self.config.validation.simulator
        if settings.is_on_device:
            from bimangrasp.validation.on_device.self_check import check_device

            agreement = check_device(device, settings)
            sys.stderr.write(f"{device} agrees with MuJoCo on {agreement:.0%} of the recorded grasps\n")
        return SimulatorRunner(
            self.config, HandModel(*_hands(self.config.hand, self.hands), UNUSED_POINTS), device, threads
        )


class SimulatorRunner:
    """The hands of one validator."""

    def __init__(self, config: Config, hands: HandModel, device: str = "cpu", threads: int = 1) -> None:
        self._config, self._hands, self._device, self._threads = config, hands, device, threads
        self.platform = simulator_platform(config.validation, device)

    @property
    def judging(self) -> dict[str, Any]:
        """How its columns are to be read."""
        from bimangrasp.validation.evaluate import verdict_attributes

        return verdict_attributes(self._hands.names)

    def judge(self, case: ValidationTask, on_row: Callable[[int], None]) -> dict[str, np.ndarray]:
        """Returns what the protocol says of a round's grasps."""
        from bimangrasp.objects.pieces import read_pieces
        from bimangrasp.poses import Poses
        from bimangrasp.validation.evaluate import Simulations, evaluate_grasps, verdict_columns
        from bimangrasp.validation.pose_rules import ObjectGrasps

        poses = Poses(*(case.columns[f"hand/{part}"] for part in Poses._fields))
        grasps = ObjectGrasps(
            poses, *(case.columns[name] for name in ("contact/candidate", "contact/normal", "object_scale"))
        )
        pieces = [piece.vertices for piece in read_pieces(case.pieces).pieces]
        rules = (self._config.validation, self._config.poses)
        simulations = Simulations(
            self._threads, not self._config.keep_failed, self._config.poses.largest_residual, on_row, case.deadly
        )
        if self._config.validation.simulator.is_on_device:
            on_look = partial(on_row, len(poses.joints))  # no row is simulated by itself
            together = simulating_on(self._device, on_look)
            simulations = simulations._replace(on_grasp=lambda _: on_look(), together=together)
        return verdict_columns(evaluate_grasps(self._hands, pieces, grasps, *rules, simulations))


def simulator_platform(protocol: ProtocolConfig, device: str) -> dict[str, str]:
    """Returns what verdicts depend on besides the settings, simulated by this process."""
    if not protocol.simulator.is_on_device:
        return platform("cpu", "none")
    return platform(device, "none") | {name: package_version(name) for name in SIMULATOR_PACKAGES}


def simulating_on(device: str, on_look: Callable[[], None] = lambda: None) -> SimulateTogether:
    """Returns what simulates grasps together on a device.

    Args:
        device: as Warp calls it.
        on_look: called now and then.
    """
    from bimangrasp.validation.on_device.simulate import simulate_grasps  # MuJoCo Warp is an extra

    def together(scene: Scene, trials: Sequence[Trial], pool: Executor) -> list[Verdict]:
        return simulate_grasps(scene, trials, device, on_look, pool)

    return together
