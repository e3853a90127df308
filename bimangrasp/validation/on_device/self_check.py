"""Judges recorded grasps on a device, before any other: whether it finds what MuJoCo has found."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import is_dataclass, replace
from typing import Any, NamedTuple, get_type_hints

import numpy as np

from bimangrasp.builtin import ASSET_ROOT, OBJECT_ROOT
from bimangrasp.hand_files.config import HandConfig
from bimangrasp.hand_files.loading import load_hands
from bimangrasp.hand_files.read_hand import quiet_mujoco
from bimangrasp.objects.config import PiecesConfig
from bimangrasp.objects.convex_pieces import convex_pieces
from bimangrasp.validation.config import ProtocolConfig, SimulatorConfig
from bimangrasp.validation.on_device.simulate import DeviceError, device_verdicts
from bimangrasp.validation.scene import GraspPoses, HandPoses, Scene, build_scene
from bimangrasp.validation.simulate import Trial
from bimangrasp.validation.verdict import Pushes, Reason

RECORDED = ASSET_ROOT / "recorded_grasps.npz"
"""Poses, whether each grasp holds, and the settings; benchmarks/make_recorded_grasps.py writes it."""
OBJECT, SCALE = "storage_bin", 0.16
HALF = 32
"""Recorded grasps that hold, and as many that fail."""
LEAST_AGREEMENT = 0.95


class Recorded(NamedTuple):
    """Recorded grasps.

    Attributes:
        scene: of their object, under the protocol that judged them.
        trials: the grasps.
        holds: whether each holds.
    """

    scene: Scene
    trials: list[Trial]
    holds: np.ndarray


def read_recorded(count: int = 2 * HALF) -> Recorded:
    """Returns recorded grasps, half of which hold.

    Args:
        count: how many, at most; an even number.
    """
    with np.load(RECORDED) as file:
        settings, columns = json.loads(str(file["settings"])), {name: file[name] for name in file.files}
    rows = np.concatenate([np.flatnonzero(columns["holds"] == holds)[: count // 2] for holds in (True, False)])
    hands = load_hands(_record(HandConfig, settings["hand"]))
    pieces = convex_pieces(str(OBJECT_ROOT / f"{OBJECT}.obj"), _record(PiecesConfig, settings["pieces"])).pieces
    protocol = _record(ProtocolConfig, settings["validation"])
    with quiet_mujoco():
        scene = build_scene(*hands, [SCALE * piece.vertices for piece in pieces], protocol)
    return Recorded(scene, [_trial(columns, row) for row in rows.tolist()], columns["holds"][rows])


def _record(kind: type, values: dict[str, Any]) -> Any:
    """Returns a dataclass of settings, and those inside it, of what `asdict` made of it."""
    hints = get_type_hints(kind)
    given = {
        name: _record(hints[name], value) if is_dataclass(hints[name]) else value for name, value in values.items()
    }
    return kind(**given)


def _trial(columns: dict[str, np.ndarray], row: int) -> Trial:
    stages = (HandPoses(*(columns[part][row, stage] for part in HandPoses._fields)) for stage in range(3))
    return Trial(GraspPoses(*stages), Pushes(until_lost=True))


def check_device(device: str, settings: SimulatorConfig, on_look: Callable[[], None] = lambda: None) -> float:
    """Returns the share of recorded grasps of which a device finds what MuJoCo has found.

    Args:
        device: as Warp calls it, such as "cuda:0".
        settings: how much is simulated at once, and how many grasps are judged.
        on_look: called now and then.

    Raises:
        DeviceError: it agrees on less than `LEAST_AGREEMENT`, drops contacts, or its simulations diverge.
    """
    recorded = read_recorded(settings.self_check)
    protocol = replace(recorded.scene.protocol, simulator=settings)
    scene = replace(recorded.scene, protocol=protocol)
    verdicts = device_verdicts(scene, recorded.trials, device, on_look)
    diverged = sum(verdict.reason is Reason.SIMULATION_FAILED for verdict in verdicts)
    agreement = float(np.mean([verdict.reason is Reason.HELD for verdict in verdicts] == recorded.holds))
    if diverged or agreement < LEAST_AGREEMENT:
        raise DeviceError(
            f"{device} agrees with MuJoCo on {agreement:.0%} of {len(verdicts)} recorded grasps, and the simulation of "
            f"{diverged} diverged; wanted {LEAST_AGREEMENT:.0%} and none: use validation=bench, and report it with the "
            "versions of mujoco-warp, warp-lang and the driver"
        )
    return agreement
