"""Computes the terms of a batch and the gradient of their total by kernels, without autograd."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from weakref import WeakKeyDictionary

import torch
import warp as wp
from jaxtyping import Float, Int
from torch import Tensor

from bimangrasp.energy.config import EnergyConfig
from bimangrasp.energy.energies import COINCIDENT_KEYPOINTS, Energies
from bimangrasp.energy.fused import records
from bimangrasp.energy.fused.branches import Kernel, Program
from bimangrasp.energy.fused.geometry import Grid
from bimangrasp.energy.fused.penetration_kernels import near_shapes, penetrations, point_penetrations, shape_sums
from bimangrasp.energy.fused.point_kernels import contacts_to_object, depths, place_keypoints, push_keypoints
from bimangrasp.energy.fused.tables import HandTables, ObjectTables, couplings_of, grid_of, spheres_of
from bimangrasp.energy.fused.tree_kernels import gather, gradients, link_frames, shape_frames, spread, totals
from bimangrasp.energy.fused.wrench_kernel import equilibrium_kernel, wrench_kernel
from bimangrasp.energy.wrench import FEWEST_CONTACTS
from bimangrasp.energy_terms import ENERGY_TERMS, Slot
from bimangrasp.grasp import LEFT, RIGHT, Grasps
from bimangrasp.hands.model import HandModel
from bimangrasp.objects.model import ObjectModel
from bimangrasp.sampler.mala import Evaluation

wp.init()

CUDA_BLOCK = 32
"""Threads of a block on a GPU: kernels with a thread for a grasp have too few for blocks of Warp's 256 to fill it."""


def has_many_threads(device: wp.Device) -> bool:
    """Whether a thread for a point is better than one for a hand: not on a CPU, which has one of them."""
    return device.is_cuda


class FusedEvaluator:
    """All terms of one batch and the gradient of their total, a tile at a time: `energies` and its backward pass.

    Everything is allocated here, nothing in a call, and no call waits for the device, so that a CUDA graph can
    record it; see `energies.Evaluator`.

    Attributes:
        program: the kernels of an evaluation.
        bytes: room of what is allocated for each grasp.
    """

    is_recordable = True

    def __init__(
        self,
        hands: HandModel,
        obj: ObjectModel,
        object_scale: Float[Tensor, " batch"],
        config: EnergyConfig,
        tile: int,
        contacts: int,
    ):
        """Makes room.

        Args:
            hands: both hands.
            obj: the object.
            object_scale: its size for each grasp of the batch.
            config: weights and constants.
            tile: the most grasps of a call.
            contacts: of a hand.
        """
        self._hands, self._obj = _tables_of(hands, obj)
        has_depth, has_equilibrium = (config.computes(ENERGY_TERMS[slot]) for slot in (Slot.depth, Slot.equilibrium))
        self._spheres = spheres_of(hands) if has_depth else None
        self._grid = grid_of(obj) if has_depth or (has_equilibrium and config.normal_step) else Grid()
        self._object_scale, self._config = object_scale, config
        tree = self._hands.tree
        self.device = tree.parent.device
        self._torch_device = wp.device_to_torch(self.device)
        links, shapes = tree.parent.shape[0], self._hands.shapes.link.shape[0]
        joints, keypoints = tree.lower.shape[1], self._hands.keypoints.link.shape[1]
        self.bytes = 0
        self._terms = torch.zeros((len(Energies._fields), tile), device=self._torch_device)
        self._gradient = torch.zeros((tile, 2, 9 + joints), device=self._torch_device)
        self._frames = self._room(records.Frames, links, shape_rotation=shapes, shape_translation=shapes, bound=shapes)
        self._contacts = self._room(records.ContactTable, contacts)
        self._keypoints = self._room(records.KeypointTable, keypoints)
        self._wrenches = self._room(records.Wrenches, shapes, closure=contacts, force=links, moment=links)
        self._object_pushes = self._room_of_pushes(self._obj.cloud)
        self._hand_pushes = self._room_of_pushes(*self._hands.clouds)
        share = [1.0, 0.0] if config.inter_hand == "right_points" else [0.5, 0.5]
        self._wrenches.hand_share = wp.array(share, dtype=float, device=self.device)
        self._pose = torch.zeros_like(self._gradient)
        self._candidate = torch.zeros((tile, 2, contacts), dtype=torch.int64, device=self._torch_device)
        self._scale = torch.ones(tile, device=self._torch_device)
        self.program = self._planned(share)
        self._couplings = _Couplings.of(hands, self._pose, self._gradient)

    def _room(self, record: Any, length: int, **other_lengths: int) -> object:
        """Returns a record whose arrays (sample, hand, length) are zeros.

        Args:
            record: the kind of record; arrays without those three axes are left out.
            length: of the last axis.
            other_lengths: name of an array -> its length, where it has another one.
        """
        room = record()
        for name, field in record.vars.items():
            if field.type.ndim == 3:
                shape = (len(self._gradient), 2, other_lengths.get(name, length))
                array = wp.zeros(shape, dtype=field.type.dtype, device=self.device)
                setattr(room, name, array)
                self.bytes += array.capacity
        return room

    def _room_of_pushes(self, *clouds: records.Cloud) -> records.Pushes:
        """Returns room for what points of any of these clouds do to hands; for each of them where it has a thread."""
        points, runs = (max(len(getattr(cloud, name)) for cloud in clouds) for name in ("link", "run_first"))
        shapes = self._hands.shapes.link.shape[0]
        if has_many_threads(self.device):
            return self._room(records.Pushes, points, hit=runs, near=0, ball=0)
        return self._room(records.Pushes, 0, near=4 * shapes, ball=shapes)

    def _planned(self, share: list[float]) -> Program:
        """Returns the kernels. Those of a branch write to nothing that another branch of its stage reads or writes."""
        hands, obj, config, frames = self._hands, self._obj, self._config, self._frames
        pose, scale = wp.from_torch(self._pose), wp.from_torch(self._scale)
        candidate, terms = wp.from_torch(self._candidate), wp.from_torch(self._terms)
        weights = records.Weights(*(config.weight(term) for term in ENERGY_TERMS))
        shapes, wrenches, table, keys = hands.shapes, self._wrenches, self._contacts, self._keypoints
        count, contacts, keypoints = shapes.link.shape[0], table.link.shape[2], hands.keypoints.link.shape[1]
        block = {"block_dim": CUDA_BLOCK} if self.device.is_cuda else {}
        program = Program(torch.device(self._torch_device))

        def plan(part: str, kernel: wp.Kernel, dims: tuple[int, ...], *inputs: object) -> None:
            whole = (len(self._pose), *dims)
            launch = wp.launch(kernel, whole, list(inputs), device=self.device, record_cmd=True, **block)
            program.add(Kernel(part, launch, dims))

        def plan_cloud(
            part: str,
            cloud: records.Cloud,
            carrier: int,
            first: int,
            tested: int,
            pushes: records.Pushes,
            *sums: wp.array,
        ) -> None:
            arguments = (shapes, frames, cloud, carrier, first, scale, pushes)
            if has_many_threads(self.device):
                plan(part, near_shapes, (tested, len(cloud.run_first)), *arguments)
                plan(part, point_penetrations, (tested, len(cloud.link)), *arguments)
                plan(part, shape_sums, (tested, count), shapes, frames, cloud, first, pushes, *sums)
            else:
                plan(part, penetrations, (tested,), *arguments, *sums)

        plan("kinematics", link_frames, (2,), pose, hands.tree, frames)
        plan("kinematics", shape_frames, (2, count), shapes, frames)
        program.stage()
        arguments = (candidate, hands.candidates, frames, obj.surface, scale, table)
        plan("contacts to object", contacts_to_object, (2, contacts), *arguments)
        if 2 * contacts >= FEWEST_CONTACTS:
            plan("wrench terms", wrench_kernel(2 * contacts), (), table, weights, terms, wrenches)
        if config.computes(ENERGY_TERMS[Slot.equilibrium]):
            kernel = equilibrium_kernel(2 * contacts)
            arguments = (table, config.friction, config.normal_step, self._grid, scale, weights, terms, wrenches)
            plan("wrench terms", kernel, (), *arguments)
        program.branch()
        of_object = (wrenches.object_depth, wrenches.object_force, wrenches.object_moment)
        plan_cloud("object points to hands", obj.cloud, -1, LEFT, 2, self._object_pushes, *of_object)
        if self._spheres:
            program.branch()
            sums = (wrenches.inside_depth, wrenches.inside_force, wrenches.inside_moment)
            arguments = (shapes, self._spheres, frames, self._grid, scale)
            plan("hands in object", depths, (2, count), *arguments, *sums)
        program.branch()
        of_hand = (wrenches.hand_depth, wrenches.hand_force, wrenches.hand_moment)
        for tested, carrier in ((LEFT, RIGHT), (RIGHT, LEFT)):
            if share[tested]:
                plan_cloud(
                    "hand points to hand", hands.clouds[carrier], carrier, tested, 1, self._hand_pushes, *of_hand
                )
        program.branch()
        plan("keypoints", place_keypoints, (2, keypoints), hands.keypoints, frames, keys)
        plan("keypoints", push_keypoints, (2, keypoints), config.keypoint_distance, COINCIDENT_KEYPOINTS, keys)
        program.stage()
        tables = (frames, table, keys, wrenches, weights)
        gradient = wp.from_torch(self._gradient)
        arguments = (pose, hands.tree, shapes, hands.keypoints, *tables, gradient)
        plan("gradient and totals", gradients, (2,), *arguments)
        program.branch()
        plan("gradient and totals", totals, (), pose, hands.tree, *tables[1:], terms)
        return program

    def terms(self, grasps: Grasps, rows: slice) -> Energies:
        """See `Evaluator`."""
        self._run(grasps.pose, grasps.candidate, rows)
        return Energies(*self._terms[:, : len(grasps)].clone())

    def evaluation(self, pose: Tensor, candidate: Tensor, rows: slice) -> Evaluation:
        """See `Evaluator`."""
        gradient = self._evaluate(pose, candidate, rows)
        return Evaluation(self._terms[Slot.total, : len(pose)].clone(), gradient.clone())

    def evaluate_into(
        self, pose: Tensor, candidate: Tensor, rows: slice, energy: Float[Tensor, " tile"], gradient: Tensor
    ) -> None:
        """Writes what `evaluation` returns into tensors of the caller."""
        by_pose = self._evaluate(pose, candidate, rows)
        energy.copy_(self._terms[Slot.total, : len(pose)])
        gradient.copy_(by_pose)

    def parts(self) -> list[tuple[str, Callable[[], None]]]:
        """Returns the kernels of an evaluation with the part each belongs to; they run on what the last one left."""
        return [(kernel.part, kernel.launch.launch) for kernel in self.program.kernels]

    def _evaluate(self, pose: Tensor, candidate: Tensor, rows: slice) -> Tensor:
        """Leaves the terms of these grasps in the workspace, and returns the gradient by what the sampler moves."""
        if not self._couplings:
            self._run(pose, candidate, rows)
            return self._gradient[: len(pose)]
        self._couplings.spread(pose, self.stream())
        self._run(self._pose[: len(pose)], candidate, rows)
        return self._couplings.gather(len(pose), self.stream())

    def _run(
        self, pose: Float[Tensor, "batch hand dof"], candidate: Int[Tensor, "batch hand contact"], rows: slice
    ) -> None:
        """Leaves terms and gradient of these grasps, at most a tile, in the workspace."""
        count = len(pose)
        self._pose[:count] = pose
        self._candidate[:count] = candidate
        self._scale[:count] = self._object_scale[rows]
        self.program.run(count)

    def stream(self) -> wp.Stream | None:
        """Returns PyTorch's current stream as Warp knows it; None on a CPU."""
        if not self.device.is_cuda:
            return None
        return self.program.known(torch.cuda.current_stream(self._torch_device))


class _Couplings:
    """What an evaluation of coupled hands begins and ends with, on memory of its own."""

    def __init__(self, tables: records.Couplings, coordinates: int, pose: Tensor, gradient: Tensor):
        self._free = pose.new_zeros((*pose.shape[:2], 9 + coordinates))
        self._by_coordinate = torch.zeros_like(self._free)
        device = tables.parent.device
        block = {"block_dim": CUDA_BLOCK} if device.is_cuda else {}

        def recorded(kernel: wp.Kernel, *tensors: Tensor) -> wp.Launch:
            first, last = map(wp.from_torch, tensors)
            arguments = [first, tables, last]
            return wp.launch(kernel, pose.shape[:2], arguments, device=device, record_cmd=True, **block)

        self._spread = recorded(spread, self._free, pose)
        self._gather = recorded(gather, gradient, self._by_coordinate)

    @classmethod
    def of(cls, hands: HandModel, pose: Tensor, gradient: Tensor) -> _Couplings | None:
        """Returns them for a workspace; None where joints are the coordinates."""
        tables = couplings_of(hands, len(pose))
        return cls(tables, hands.coordinate_count, pose, gradient) if tables else None

    def spread(self, free: Tensor, stream: wp.Stream | None) -> None:
        """Leaves the poses whose coordinates are given in the workspace."""
        self._free[: len(free)] = free
        self._spread.set_dim((len(free), 2))
        self._spread.launch(stream)

    def gather(self, count: int, stream: wp.Stream | None) -> Tensor:
        """Returns the gradient by coordinates of what the workspace holds."""
        self._gather.set_dim((count, 2))
        self._gather.launch(stream)
        return self._by_coordinate[:count]


_hand_tables: WeakKeyDictionary[HandModel, HandTables] = WeakKeyDictionary()
_object_tables: WeakKeyDictionary[ObjectModel, ObjectTables] = WeakKeyDictionary()


def _tables_of(hands: HandModel, obj: ObjectModel) -> tuple[HandTables, ObjectTables]:
    """Returns the tables of both models, made once for as long as these live."""
    if hands not in _hand_tables:
        _hand_tables[hands] = HandTables.of(hands)
    if obj not in _object_tables:
        _object_tables[obj] = ObjectTables.of(obj)
    return _hand_tables[hands], _object_tables[obj]
