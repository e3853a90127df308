"""Computes the terms of a batch and the gradient of their total by kernels, without autograd."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple
from weakref import WeakKeyDictionary

import torch
import warp as wp
from jaxtyping import Float, Int
from torch import Tensor

from bimangrasp.energy.config import EnergyConfig
from bimangrasp.energy.energies import COINCIDENT_KEYPOINTS, Energies
from bimangrasp.energy.fused import records
from bimangrasp.energy.fused.depth_kernel import depths
from bimangrasp.energy.fused.equilibrium_kernel import equilibrium_kernel
from bimangrasp.energy.fused.penetration_kernels import penetrations, shape_sums
from bimangrasp.energy.fused.point_kernels import contacts_to_object, place_keypoints, push_keypoints
from bimangrasp.energy.fused.sum_kernel import totals
from bimangrasp.energy.fused.tables import DepthTables, HandTables, ObjectTables
from bimangrasp.energy.fused.tree_kernels import gradients, link_frames, shape_frames
from bimangrasp.energy.fused.wrench_kernel import wrench_kernel
from bimangrasp.energy.wrench import FEWEST_CONTACTS
from bimangrasp.energy_terms import ENERGY_TERMS, Slot
from bimangrasp.grasp import LEFT, RIGHT, Grasps
from bimangrasp.hands.model import HandModel
from bimangrasp.objects.model import ObjectModel
from bimangrasp.sampler.mala import Evaluation

wp.init()


class Kernel(NamedTuple):
    """One kernel of an evaluation, recorded with its arguments.

    Attributes:
        part: what it belongs to, for those who measure.
        launch: the recorded launch.
        dims: its dimensions behind the batch's.
    """

    part: str
    launch: wp.Launch
    dims: tuple[int, ...]

    def run(self, rows: int, stream: wp.Stream | None) -> None:
        """Runs it on the first rows of the workspace."""
        self.launch.set_dim((rows, *self.dims))
        self.launch.launch(stream)


class Fused(NamedTuple):
    """What one evaluation leaves in the workspace; the next one writes over it."""

    terms: Energies
    gradient: Float[Tensor, "batch hand dof"]


class FusedEnergies:
    """All terms and the gradient of the total for up to `size` grasps at once: `energies` and its backward pass.

    Everything is allocated here, nothing in a call, and no call waits for the device, so that a CUDA graph can
    record it.

    Attributes:
        kernels: of an evaluation, in order.
        bytes: room of what is allocated for each grasp.
    """

    def __init__(
        self,
        hands: HandTables,
        obj: ObjectTables,
        inside: DepthTables | None,
        config: EnergyConfig,
        size: int,
        contacts: int,
    ):
        """Makes room.

        Args:
            hands: both hands.
            obj: the object.
            inside: what the depth term needs; None where it has no weight.
            config: weights and constants.
            size: the most grasps of a call.
            contacts: of a hand.
        """
        self._hands, self._obj, self._inside, self._config = hands, obj, inside, config
        self.device = hands.tree.parent.device
        self._torch_device = wp.device_to_torch(self.device)
        links, shapes = hands.tree.parent.shape[0], hands.shapes.link.shape[0]
        joints, keypoints = hands.tree.lower.shape[1], hands.keypoints.link.shape[1]
        self.bytes = 0
        self._terms = torch.zeros((len(Energies._fields), size), device=self._torch_device)
        self._gradient = torch.zeros((size, 2, 9 + joints), device=self._torch_device)
        self._frames = self._room(
            records.Frames(),
            exact_rotation=((size, 2, links), wp.mat33d),
            exact_translation=((size, 2, links), wp.vec3d),
            rotation=((size, 2, links), wp.mat33),
            translation=((size, 2, links), wp.vec3),
            shape_rotation=((size, 2, shapes), wp.mat33),
            shape_translation=((size, 2, shapes), wp.vec3),
            bound=((size, 2, shapes), wp.vec3),
        )
        place = (size, 2, contacts)
        self._contacts = self._room(
            records.ContactTable(),
            link=(place, int),
            point=(place, wp.vec3d),
            normal=(place, wp.vec3d),
            distance=(place, float),
            force=(place, wp.vec3),
        )
        place = (size, 2, keypoints)
        self._keypoints = self._room(
            records.KeypointTable(), overlap=(place, float), point=(place, wp.vec3), force=(place, wp.vec3)
        )
        by_shape, by_link = (size, 2, shapes), (size, 2, links)
        self._wrenches = self._room(
            records.Wrenches(),
            object_depth=(by_shape, float),
            object_force=(by_shape, wp.vec3),
            object_moment=(by_shape, wp.vec3),
            inside_depth=(by_shape, float),
            inside_force=(by_shape, wp.vec3),
            inside_moment=(by_shape, wp.vec3),
            hand_depth=(by_shape, float),
            hand_force=(by_shape, wp.vec3),
            hand_moment=(by_shape, wp.vec3),
            closure=((size, 2, contacts), wp.vec3),
            force=(by_link, wp.vec3),
            moment=(by_link, wp.vec3),
        )
        clouds = (obj.cloud, *hands.clouds)
        points, runs = (max(len(getattr(cloud, name)) for cloud in clouds) for name in ("link", "run_first"))
        self._pushes = self._room(
            records.Pushes(),
            shape=((size, 2, points), int),
            depth=((size, 2, points), float),
            force=((size, 2, points), wp.vec3),
            place=((size, 2, points), wp.vec3),
            hit=((size, 2, runs), wp.uint64),
        )
        share = [1.0, 0.0] if config.inter_hand == "right_points" else [0.5, 0.5]
        self._wrenches.hand_share = wp.array(share, dtype=float, device=self.device)
        self._pose = torch.zeros_like(self._gradient)
        self._candidate = torch.zeros((size, 2, contacts), dtype=torch.int64, device=self._torch_device)
        self._scale = torch.ones(size, device=self._torch_device)
        self._streams: dict[int, wp.Stream] = {}
        self.kernels = self._planned(share)

    def _room(self, struct: object, **arrays: tuple[tuple[int, ...], type]) -> object:
        """Fills a struct with arrays of zeros."""
        for name, (shape, dtype) in arrays.items():
            array = wp.zeros(shape, dtype=dtype, device=self.device)
            setattr(struct, name, array)
            self.bytes += array.capacity
        return struct

    def _planned(self, share: list[float]) -> list[Kernel]:
        """Returns the kernels in order."""
        hands, obj, config, frames = self._hands, self._obj, self._config, self._frames
        pose, scale = wp.from_torch(self._pose), wp.from_torch(self._scale)
        candidate, terms = wp.from_torch(self._candidate), wp.from_torch(self._terms)
        weights = records.Weights(*(config.weight(term) for term in ENERGY_TERMS))
        shapes, wrenches, table, keys = hands.shapes, self._wrenches, self._contacts, self._keypoints
        count, contacts, keypoints = shapes.link.shape[0], table.link.shape[2], hands.keypoints.link.shape[1]
        planned: list[Kernel] = []

        def plan(part: str, kernel: wp.Kernel, dims: tuple[int, ...], *inputs: object) -> None:
            whole = (len(self._pose), *dims)
            launch = wp.launch(kernel, whole, list(inputs), device=self.device, record_cmd=True)
            planned.append(Kernel(part, launch, dims))

        def plan_cloud(part: str, cloud: records.Cloud, carrier: int, first: int, tested: int, *sums: wp.array) -> None:
            runs = len(cloud.run_first)
            arguments = (shapes, frames, cloud, carrier, first, scale, self._pushes)
            plan(part, penetrations, (tested, runs), *arguments)
            plan(part, shape_sums, (tested, count), shapes, frames, cloud, first, self._pushes, *sums)

        plan("kinematics", link_frames, (2,), pose, hands.tree, frames)
        plan("kinematics", shape_frames, (2, count), shapes, frames)
        arguments = (candidate, hands.candidates, frames, obj.surface, scale, table)
        plan("contacts to object", contacts_to_object, (2, contacts), *arguments)
        if 2 * contacts >= FEWEST_CONTACTS:
            plan("wrench terms", wrench_kernel(2 * contacts), (), table, weights, terms, wrenches)
        if config.computes(ENERGY_TERMS[Slot.equilibrium]):
            kernel = equilibrium_kernel(2 * contacts)
            plan("wrench terms", kernel, (), table, config.friction, weights, terms, wrenches)
        of_object = (wrenches.object_depth, wrenches.object_force, wrenches.object_moment)
        plan_cloud("object points to hands", obj.cloud, -1, LEFT, 2, *of_object)
        if self._inside:
            sums = (wrenches.inside_depth, wrenches.inside_force, wrenches.inside_moment)
            arguments = (shapes, self._inside.spheres, frames, self._inside.grid, scale)
            plan("hands in object", depths, (2, count), *arguments, *sums)
        of_hand = (wrenches.hand_depth, wrenches.hand_force, wrenches.hand_moment)
        for tested, carrier in ((LEFT, RIGHT), (RIGHT, LEFT)):
            if share[tested]:
                plan_cloud("hand points to hand", hands.clouds[carrier], carrier, tested, 1, *of_hand)
        plan("keypoints", place_keypoints, (2, keypoints), hands.keypoints, frames, keys)
        plan("keypoints", push_keypoints, (2, keypoints), config.keypoint_distance, COINCIDENT_KEYPOINTS, keys)
        tables = (frames, table, keys, wrenches, weights)
        gradient = wp.from_torch(self._gradient)
        arguments = (pose, hands.tree, shapes, hands.keypoints, *tables, gradient)
        plan("gradient and totals", gradients, (2,), *arguments)
        plan("gradient and totals", totals, (), pose, hands.tree, *tables[1:], terms)
        return planned

    def __call__(
        self,
        pose: Float[Tensor, "batch hand dof"],
        candidate: Int[Tensor, "batch hand contact"],
        object_scale: Float[Tensor, " batch"],
    ) -> Fused:
        """Returns terms and gradient of these grasps, at most `size`, as views of the workspace."""
        rows = len(pose)
        self._pose[:rows] = pose
        self._candidate[:rows] = candidate
        self._scale[:rows] = object_scale
        stream = self._stream() if self.device.is_cuda else None
        for kernel in self.kernels:
            kernel.run(rows, stream)
        return Fused(Energies(*self._terms[:, :rows]), self._gradient[:rows])

    def _stream(self) -> wp.Stream:
        """Returns PyTorch's current stream as Warp knows it."""
        current = torch.cuda.current_stream(self._torch_device)
        if current.cuda_stream not in self._streams:
            self._streams[current.cuda_stream] = wp.stream_from_torch(current)
        return self._streams[current.cuda_stream]


class FusedEvaluator:
    """The energies of one batch through the kernels; see `evaluator.Evaluator`."""

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
        inside = DepthTables.of(hands, obj) if config.computes(ENERGY_TERMS[Slot.depth]) else None
        self._energies = FusedEnergies(*_tables_of(hands, obj), inside, config, tile, contacts)
        self._scale = object_scale

    def terms(self, grasps: Grasps, rows: slice) -> Energies:
        """See `Evaluator`."""
        result = self._energies(grasps.pose, grasps.candidate, self._scale[rows])
        return Energies(*(term.clone() for term in result.terms))

    def evaluation(self, pose: Tensor, candidate: Tensor, rows: slice) -> Evaluation:
        """See `Evaluator`."""
        result = self._energies(pose, candidate, self._scale[rows])
        return Evaluation(result.terms.total.clone(), result.gradient.clone())

    @property
    def bytes(self) -> int:
        """Room of an evaluation."""
        return self._energies.bytes

    def parts(self) -> list[tuple[str, Callable[[], None]]]:
        """Returns the kernels of an evaluation with the part each belongs to; they run on what the last one left."""
        return [(kernel.part, kernel.launch.launch) for kernel in self._energies.kernels]


_hand_tables: WeakKeyDictionary[HandModel, HandTables] = WeakKeyDictionary()
_object_tables: WeakKeyDictionary[ObjectModel, ObjectTables] = WeakKeyDictionary()


def _tables_of(hands: HandModel, obj: ObjectModel) -> tuple[HandTables, ObjectTables]:
    """Returns the tables of both models, made once for as long as these live."""
    if hands not in _hand_tables:
        _hand_tables[hands] = HandTables.of(hands)
    if obj not in _object_tables:
        _object_tables[obj] = ObjectTables.of(obj)
    return _hand_tables[hands], _object_tables[obj]
