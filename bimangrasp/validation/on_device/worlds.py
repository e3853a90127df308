"""Holds many simulations of one model beside each other on a device."""

from __future__ import annotations

from typing import Any

import mujoco
import mujoco_warp as mjw
import numpy as np
import warp as wp
from jaxtyping import Float

from bimangrasp.validation.config import SimulatorConfig
from bimangrasp.validation.scene import Scene

STATE = ("qpos", "qvel", "qacc_warmstart", "ctrl", "mocap_pos", "mocap_quat", "xfrc_applied")
"""What the next step of a world depends on."""
_FLAGS = mjw.OverflowType
FULL = _FLAGS.NEFC | _FLAGS.NJMAX_NNZ | _FLAGS.BROADPHASE | _FLAGS.NARROWPHASE | _FLAGS.CCD
"""Contacts or constraints were dropped; the other flags say that an iteration did not converge."""

State = dict[str, np.ndarray]
"""Fields of `STATE`, each with the world as its first axis."""


class FullError(Exception):
    """There was no room for all contacts or constraints."""


class Worlds:
    """Simulations of one model beside each other on a device."""

    def __init__(self, model: mujoco.MjModel, count: int, room: SimulatorConfig, device: str) -> None:
        self.count, self._device = count, wp.get_device(device)
        with wp.ScopedDevice(self._device):
            self._model = mjw.put_model(model)
            self._model.opt.warn_overflow = 0  # `run` looks at the flags
            self._data = mjw.make_data(model, nworld=count, nconmax=room.contacts, njmax=room.constraints)
        self._graphs: dict[int, Any] = {}

    def read(self) -> State:
        """Returns the state of all worlds, each field with the world as its first axis."""
        return {name: getattr(self._data, name).numpy().copy() for name in STATE}

    def write(self, state: State) -> None:
        """Sets the state of all worlds, or those fields of it that are given."""
        for name, values in state.items():
            array = getattr(self._data, name)
            array.assign(np.ascontiguousarray(values, np.float32).reshape(array.numpy().shape))

    def run(self, steps: int) -> None:
        """Simulates so many steps of all worlds; raises FullError where a buffer was too small."""
        self._data.overflow.zero_()
        with wp.ScopedDevice(self._device):
            if not self._device.is_cuda:
                self._step(steps)
            else:
                wp.capture_launch(self._recorded(steps))
        if (self._data.overflow.numpy() & int(FULL)).any():
            raise FullError

    def _recorded(self, steps: int) -> Any:
        """Returns the graph of so many steps. A step before it loads the kernels, which a recording cannot."""
        if steps not in self._graphs:
            before = self.read()
            self._step(1)
            self.write(before)
            self._data.overflow.zero_()
            with wp.ScopedCapture(self._device) as capture:
                self._step(steps)
            self._graphs[steps] = capture.graph
        return self._graphs[steps]

    def _step(self, steps: int) -> None:
        for _ in range(steps):
            mjw.step(self._model, self._data)

    def hand_forces(self, scene: Scene) -> Float[np.ndarray, "world hand"]:
        """Returns the normal force of each hand on the object in the last step, N."""
        contact, rows = self._data.contact, self._data.efc.force.numpy()
        count = int(self._data.nacon.numpy()[0])
        pair, world = contact.geom.numpy()[:count], contact.worldid.numpy()[:count]
        row = contact.efc_address.numpy()[:count, 0]
        is_bearing = (row >= 0) & np.isin(pair, scene.object_geoms).any(axis=1)
        force = np.where(is_bearing, rows[world, np.maximum(row, 0)], 0.0)
        forces = np.zeros((self.count, 2))
        for hand, geoms in enumerate(scene.hand_geoms):
            of_hand = is_bearing & np.isin(pair, geoms).any(axis=1)
            np.add.at(forces[:, hand], world[of_hand], force[of_hand])
        return forces
