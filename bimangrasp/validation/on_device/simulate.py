"""Simulates many grasps of one object at once in MuJoCo Warp: every push is a world of its own."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import replace
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from bimangrasp.validation import verdict
from bimangrasp.validation.config import SimulatorConfig
from bimangrasp.validation.on_device.worlds import STATE, FullError, State, Worlds
from bimangrasp.validation.scene import (
    GraspPoses,
    HandPoses,
    Motion,
    Scene,
    coordinates_at,
    interpolate,
    motion_between,
    motion_from_start,
    target_of,
)
from bimangrasp.validation.simulate import Trial, has_ended, simulate_grasp, start_of

MOST_DOUBLINGS = 3
"""Of the room for contacts and constraints, from what the settings say."""
_FREE = -1


class DeviceError(RuntimeError):
    """Simulations on a device cannot be relied upon."""


def simulate_grasps(
    scene: Scene, trials: Sequence[Trial], device: str, on_look: Callable[[], None], pool: Executor
) -> list[verdict.Verdict]:
    """Returns the verdicts of the scene's protocol on grasps; MuJoCo decides those of which the device leaves doubt.

    Verdicts need not repeat, not even on one device: sums of forces depend on the order in which its threads come.

    Args:
        scene: hands, object and protocol.
        trials: the grasps.
        device: as Warp calls it, such as "cuda:0".
        on_look: called now and then as the simulations go on.
        pool: where MuJoCo decides.

    Raises:
        InputError: finite poses that are not those of these hands.
        DeviceError: there is no room for all contacts, though it was doubled several times.
    """
    verdicts = device_verdicts(scene, trials, device, on_look)
    doubtful = [row for row, trial in enumerate(trials) if is_doubtful(scene, trial, verdicts[row])]
    for row, decided in zip(doubtful, pool.map(lambda row: simulate_grasp(scene, *trials[row]), doubtful), strict=True):
        verdicts[row] = decided
        on_look()
    return verdicts


def is_doubtful(scene: Scene, trial: Trial, by_device: verdict.Verdict) -> bool:
    """Returns whether rounding, or undoing slip, might change a verdict that a device has found."""
    protocol = scene.protocol
    if by_device.reason is verdict.Reason.SIMULATION_FAILED:
        return True
    if by_device.reason is verdict.Reason.HELD:
        return not verdict.holds_clearly(by_device, protocol)
    return verdict.fails_narrowly(by_device, trial.pushes.order, protocol.physics)


def device_verdicts(
    scene: Scene, trials: Sequence[Trial], device: str, on_look: Callable[[], None]
) -> list[verdict.Verdict]:
    """Returns what the device alone says; see `simulate_grasps`."""
    starts = [start_of(scene, trial.poses) for trial in trials]
    rows = [row for row, start in enumerate(starts) if start.verdict is None]
    verdicts = {row: start.verdict for row, start in enumerate(starts)}
    room = scene.protocol.simulator
    for doublings in range(MOST_DOUBLINGS + 1):
        larger = replace(room, contacts=room.contacts << doublings, constraints=room.constraints << doublings)
        try:
            ends = _ends([trials[row] for row in rows], scene, larger, device, on_look) if rows else []
        except FullError:
            continue
        for row, of_grasp in zip(rows, ends, strict=True):
            verdicts[row] = verdict.verdict_of(starts[row].penetration, of_grasp, scene.protocol.limits)
        return [verdicts[row] for row in range(len(trials))]
    raise DeviceError(
        f"{device} has no room for all contacts with {larger.contacts} contacts and {larger.constraints} constraints a "
        "world: more of validation.simulator.contacts and constraints, or fewer worlds; or another protocol"
    )


def _ends(
    trials: Sequence[Trial], scene: Scene, room: SimulatorConfig, device: str, on_look: Callable[[], None]
) -> list[dict[int, verdict.PushEnd]]:
    """Returns for each grasp, whose start is allowed, the ends of its pushes in their order."""
    squeezed = [
        _squeezed(scene, [trial.poses for trial in trials[first : first + room.worlds]], room, device, on_look)
        for first in range(0, len(trials), room.worlds)
    ]
    states = {name: np.concatenate([part[name] for part in squeezed]) for name in STATE}
    pushing = _Pushing(scene, [trial.pushes for trial in trials], states)
    worlds = Worlds(scene.slipping_model, min(room.worlds, pushing.waiting), room, device)
    slots = _Slots.empty(worlds.count)
    while pushing.fill(slots, worlds):
        worlds.run(scene.protocol.trial.steps_per_look)
        on_look()
        pushing.look(slots, worlds)
    return pushing.ends()


def _squeezed(
    scene: Scene, poses: Sequence[GraspPoses], room: SimulatorConfig, device: str, on_look: Callable[[], None]
) -> State:
    """Returns the states in which the hands have squeezed the object, grasp by grasp."""
    trial = scene.protocol.trial
    waypoints = [_stacked([getattr(of_grasp, name) for of_grasp in poses]) for name in trial.waypoints]
    worlds = Worlds(scene.slipping_model, len(poses), room, device)
    worlds.write({"qpos": coordinates_at(scene, waypoints[0])} | target_of(scene, waypoints[0])._asdict())
    for start, end in pairwise(waypoints):
        for stage in range(1, trial.stages + 1):
            worlds.write(target_of(scene, interpolate(start, end, stage / trial.stages))._asdict())
            worlds.run(trial.steps_per_stage)
        on_look()
    return worlds.read()


def _stacked(poses: Sequence[HandPoses]) -> HandPoses:
    return HandPoses(*(np.stack(parts) for parts in zip(*poses, strict=True)))


class _Slots(NamedTuple):
    """What each world is used for.

    Attributes:
        grasp, direction: of its push; _FREE for none.
        look: how often it was looked at.
    """

    grasp: Int[np.ndarray, " world"]
    direction: Int[np.ndarray, " world"]
    look: Int[np.ndarray, " world"]

    @classmethod
    def empty(cls, count: int) -> _Slots:
        """Returns slots of which all are free."""
        return cls(np.full(count, _FREE), np.full(count, _FREE), np.zeros(count, int))


class _Pushing:
    """The pushes of some grasps: which wait for a world, and how those ended that do not.

    The first push of each grasp comes first, for it is the likeliest to fail, and then the others need not be made.
    """

    def __init__(self, scene: Scene, pushes: Sequence[verdict.Pushes], squeezed: State) -> None:
        self._scene, self._pushes, self._squeezed = scene, pushes, squeezed
        self._ends: list[dict[int, verdict.PushEnd]] = [{} for _ in pushes]
        places = range(len(verdict.DIRECTIONS))
        self._queue = deque((grasp, made.order[place]) for place in places for grasp, made in enumerate(pushes))

    @property
    def waiting(self) -> int:
        """How many pushes wait for a world."""
        return len(self._queue)

    def fill(self, slots: _Slots, worlds: Worlds) -> bool:
        """Gives free worlds the next pushes; returns whether any world is used."""
        free = np.flatnonzero(slots.grasp == _FREE)
        while self._queue and len(free):
            push = self._queue.popleft()
            if self._is_wanted(*push):
                slots.grasp[free[0]], slots.direction[free[0]] = push
                slots.look[free[0]], free = 0, free[1:]
        begun = np.flatnonzero((slots.grasp != _FREE) & (slots.look == 0))
        if len(begun):
            worlds.write(self._started(worlds.read(), begun, slots))
        return bool((slots.grasp != _FREE).any())

    def _is_wanted(self, grasp: int, direction: int) -> bool:
        """Whether a push may still change what is said of its grasp."""
        order, ends = self._pushes[grasp].order, self._ends[grasp]
        before = [ends[other] for other in order[: order.index(direction)] if other in ends]
        return not (self._pushes[grasp].until_lost and any(self._is_lost(end) for end in before))

    def _is_lost(self, end: verdict.PushEnd) -> bool:
        return verdict.reason_of(end, self._scene.protocol.limits) is not verdict.Reason.HELD

    def _started(self, state: State, changed: np.ndarray, slots: _Slots) -> State:
        """Returns the state in which these worlds begin a push, and the others go on."""
        for name in STATE:
            state[name][changed] = self._squeezed[name][slots.grasp[changed]]
        model, body = self._scene.model, self._scene.object_body
        push = model.body_mass[body] * self._scene.protocol.trial.push_acceleration
        state["xfrc_applied"][changed, body, :3] = push * verdict.DIRECTIONS[slots.direction[changed]]
        self._before = self._object(state)
        return state

    def _object(self, state: State) -> Float[np.ndarray, "world 7"]:
        first = self._scene.object_qpos
        return state["qpos"][:, first : first + 7].astype(np.float64)

    def look(self, slots: _Slots, worlds: Worlds) -> None:
        """Notes the pushes that have ended, and frees their worlds."""
        state = worlds.read()
        at = self._object(state)
        from_start = motion_from_start(at)
        is_finite = np.isfinite(state["qpos"]).all(axis=1) & np.isfinite(state["qvel"]).all(axis=1)
        is_over = has_ended(self._scene.protocol, slots.look, from_start, motion_between(self._before, at))
        slots.look[:] += 1
        self._before = at
        forces = worlds.hand_forces(self._scene)
        for slot in np.flatnonzero((slots.grasp != _FREE) & (is_over | ~is_finite)):
            moved = Motion(*(float(part[slot]) for part in from_start)) if is_finite[slot] else Motion(np.nan, np.nan)
            end = verdict.PushEnd(*moved, forces[slot] if is_finite[slot] else np.zeros(2))
            self._ends[slots.grasp[slot]][int(slots.direction[slot])] = end
            slots.grasp[slot] = _FREE
        for slot in np.flatnonzero(slots.grasp != _FREE):
            if not self._is_wanted(int(slots.grasp[slot]), int(slots.direction[slot])):
                slots.grasp[slot] = _FREE

    def ends(self) -> list[dict[int, verdict.PushEnd]]:
        """Returns the ends of the pushes in their order; under `until_lost` none after the first that was lost."""
        return [self._in_order(pushes, ends) for pushes, ends in zip(self._pushes, self._ends, strict=True)]

    def _in_order(self, pushes: verdict.Pushes, ends: dict[int, verdict.PushEnd]) -> dict[int, verdict.PushEnd]:
        in_order: dict[int, verdict.PushEnd] = {}
        for direction in pushes.order:
            in_order[direction] = ends[direction]
            if pushes.until_lost and self._is_lost(ends[direction]):
                break
        return in_order
