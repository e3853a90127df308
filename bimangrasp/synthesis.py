"""Computes a round: from one object and one seed a batch of grasps with their energies."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from bimangrasp.config import Record, SynthesisConfig
from bimangrasp.contact_choice import ContactChoice
from bimangrasp.energy.config import WARP, chosen_path
from bimangrasp.energy.energies import Energies, Evaluator, PlainEvaluator, contacts_of
from bimangrasp.geometry.rotation import matrix_to_rot6d, rot6d_to_matrix
from bimangrasp.grasp import Grasps
from bimangrasp.hands.model import HandModel
from bimangrasp.initialization import first_grasps
from bimangrasp.objects.files import object_scales
from bimangrasp.objects.model import ObjectModel
from bimangrasp.poses import Trajectory
from bimangrasp.sampler import mala, momentum
from bimangrasp.sampler.cuda_graph import Descent

Watch = Callable[[int, mala.Point], None]


class Curve(NamedTuple):
    """How the batch's energies fell.

    Attributes:
        step: steps made at each recorded point.
        acceptance: share of proposals accepted since the point before; NaN at the start.
        quartiles: lower quartile, median and upper quartile of each term of `Energies`, in its order.
    """

    step: Int[Tensor, " point"]
    acceptance: Float[Tensor, " point"]
    quartiles: Float[Tensor, "point term 3"]


class Synthesis(NamedTuple):
    """The result of a round, B grasps.

    Attributes:
        grasps: the result; rotations of unit length. A failed grasp has NaN energies.
        initial: where they started.
        object_scale: the size of each grasp's object.
        contact_point: the chosen contacts on the hands, object's frame, m.
        contact_normal: the object's outward unit normals there.
        energies: all terms.
        curve: how they fell.
        tile_used: how many grasps were evaluated at once.
    """

    grasps: Grasps
    initial: Grasps
    object_scale: Float[Tensor, " batch"]
    contact_point: Float[Tensor, "batch hand contact 3"]
    contact_normal: Float[Tensor, "batch hand contact 3"]
    energies: Energies
    curve: Curve
    tile_used: int


class Scene(NamedTuple):
    """What a batch of grasps is about: both hands, the object at each grasp's size, and how to compute."""

    hands: HandModel
    obj: ObjectModel
    object_scale: Float[Tensor, " batch"]
    config: SynthesisConfig

    def evaluator(self) -> Evaluator:
        """Returns what computes the energies, on the kernel path of the settings."""
        batch = (self.hands, self.obj, self.object_scale, self.config.energy)
        if chosen_path(self.config.kernels) == WARP:
            from bimangrasp.energy.fused.evaluator import FusedEvaluator  # an extra, and slow to load

            return FusedEvaluator(*batch, self.tile, self.config.contacts_per_hand)
        return PlainEvaluator(*batch)

    @property
    def tile(self) -> int:
        """How many grasps are evaluated at once."""
        return min(self.config.tile or len(self.object_scale), len(self.object_scale))

    def tiles(self) -> list[slice]:
        """Returns the rows of each tile."""
        return [slice(start, start + self.tile) for start in range(0, len(self.object_scale), self.tile)]


def synthesize(
    hands: HandModel,
    obj: ObjectModel,
    config: SynthesisConfig,
    seed: int,
    on_step: Callable[[int], None] | None = None,
    watch: Watch | None = None,
) -> Synthesis:
    """Returns a batch of grasps: initialization and `num_iterations` steps of the sampler.

    The batch is coupled (spread of the starting places, mean of squared gradients), so its size is part of what
    decides each grasp. Equal arguments on one platform give equal bits, after `set_determinism`.

    Args:
        hands: both hands, on the device that computes.
        obj: the object, on the same device.
        config: everything else that decides the result.
        seed: of all random numbers, below 2^32.
        on_step: called after each step with the number of steps made.
        watch: called at the start and after each step with the number of steps made and where the batch is, with all
            joints in its positions; the next step may write over that.
    """
    generator = torch.Generator(hands.device).manual_seed(seed)
    sizes = torch.tensor(object_scales(config.object, obj.extent), device=hands.device, dtype=hands.dtype)
    drawn = torch.randint(len(sizes), (config.round_batch_size,), generator=generator, device=hands.device)
    scene = Scene(hands, obj, sizes[drawn], config)
    initial = first_grasps(hands, obj, scene.object_scale, config.contacts_per_hand, config.initialization, generator)
    costs = scene.evaluator()
    descent = begin(scene, costs, initial, generator)
    record = _Recorder(scene, costs)
    for step in range(config.num_iterations + 1):
        if step:
            descent.advance()
        record(step, descent)
        if watch:
            watch(step, _with_all_joints(hands, descent.state.point))
        if step and on_step:
            on_step(step)
    return _finish(scene, costs, initial, descent.state.best or descent.state.point, record.curve())


def _with_all_joints(hands: HandModel, point: mala.Point) -> mala.Point:
    """Returns where a batch is, with joints in the place of coordinates."""
    if not hands.coupled:
        return point
    return point._replace(position=hands.grasps_at(point.position, point.choice).pose)


def begin(scene: Scene, costs: Evaluator, initial: Grasps, generator: torch.Generator) -> Descent:
    """Returns a batch before its first step."""
    config, energy = scene.config.optimizer, grasp_energy(scene, costs)
    run = scene.config.num_iterations, scene.hands.device, scene.hands.dtype
    revise, pose = None, scene.hands.pose_of(initial)
    if config.method == "momentum":
        sizes = [initial.translation.shape[-1], initial.rotation.shape[-1], scene.hands.coordinate_count]
        plan = momentum.plan(config.momentum, sizes, *run)
        state = momentum.init(pose, initial.candidate, energy, plan, config.keep == "best")
        step, revise = _momentum_step(scene, costs, energy, plan), _chooser(scene, energy)
    else:
        schedule = mala.schedule(config, *run)
        state = mala.init(pose, initial.candidate, energy, config)
        step = _langevin_step(scene, costs, energy, schedule, generator)
    return Descent(state, step, generator, costs.is_recordable and scene.hands.device.type == "cuda", revise)


def _langevin_step(
    scene: Scene, costs: Evaluator, energy: mala.Energy, schedule: mala.Schedule, generator: torch.Generator
) -> Callable[[mala.State], tuple[mala.State, Bool[Tensor, " batch"]]]:
    """Returns what makes an annealed step, on the kernel path of the settings."""
    constants = (scene.hands.candidate_count, scene.config.optimizer, schedule, generator)
    if chosen_path(scene.config.kernels) == WARP:
        from bimangrasp.energy.fused.sampler_steps import LangevinStep  # as in `Scene.evaluator`

        return LangevinStep(costs, scene.tiles(), *constants)
    choices, *others = constants
    return lambda state: mala.step(state, energy, choices, *others)


def _momentum_step(
    scene: Scene, costs: Evaluator, energy: mala.Energy, plan: momentum.Plan
) -> Callable[[momentum.State], tuple[momentum.State, Bool[Tensor, " batch"]]]:
    """Returns what makes a step with momentum, on the kernel path of the settings."""
    config = scene.config.optimizer.momentum
    if chosen_path(scene.config.kernels) == WARP:
        from bimangrasp.energy.fused.sampler_steps import MomentumStep  # as in `Scene.evaluator`

        return MomentumStep(costs, scene.tiles(), config, plan)
    return partial(momentum.step, energy=energy, config=config, plan=plan)


def _chooser(scene: Scene, energy: mala.Energy) -> Callable[[int, momentum.State], momentum.State | None]:
    """Returns what chooses the contacts of a batch anew before some steps; see `Descent`."""
    config, steps = scene.config.optimizer.momentum, scene.config.num_iterations
    choice = ContactChoice(scene.hands, scene.obj, scene.config.contacts_per_hand)

    def choose(made: int, state: momentum.State) -> momentum.State | None:
        if made % config.choose_every or made > config.choose_until * steps:
            return None
        point, tiles = state.point, scene.tiles()  # distances of all candidates take more room than an evaluation
        grasps = [scene.hands.grasps_at(point.position[rows], point.choice[rows]) for rows in tiles]
        parts = [choice(part, scene.object_scale[rows]) for part, rows in zip(grasps, tiles, strict=True)]
        return momentum.with_choice(state, torch.cat(parts), energy)

    return choose


def grasp_energy(scene: Scene, costs: Evaluator) -> mala.Energy:
    """Returns the weighted total of a batch of poses, with its gradient, a tile at a time."""

    def energy(pose: Float[Tensor, "batch hand dof"], candidate: Int[Tensor, "batch hand contact"]) -> mala.Evaluation:
        if scene.tile == len(pose):
            return costs.evaluation(pose, candidate, slice(None))
        parts = [costs.evaluation(pose[rows], candidate[rows], rows) for rows in scene.tiles()]
        return mala.Evaluation(*(torch.cat(column) for column in zip(*parts, strict=True)))

    return energy


def set_determinism(threads: int) -> None:
    """Makes this process repeat its bits: deterministic algorithms, no TF32, a fixed number of threads.

    To be called before the first CUDA context is made.
    """
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # what cuBLAS needs for equal bits
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(True)
    torch.utils.deterministic.fill_uninitialized_memory = False
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False


class _Recorder:
    """Collects the curve every `curve_stride` steps and at the end."""

    def __init__(self, scene: Scene, costs: Evaluator):
        self._scene, self._costs = scene, costs
        self._stride, self._last = scene.config.curve_stride, scene.config.num_iterations
        self._steps: list[int] = []
        self._acceptance: list[Tensor] = []
        self._quartiles: list[Tensor] = []
        self._accepted = torch.zeros((), dtype=torch.int64, device=scene.hands.device)
        self._quarters = torch.tensor([0.25, 0.5, 0.75], device=scene.hands.device)  # no copy from the host at a step

    def __call__(self, step: int, descent: Descent) -> None:
        """Adds a point to the curve where it has one at this step."""
        if not self._stride or (step % self._stride and step != self._last):
            return
        point = descent.state.point
        grasps = self._scene.hands.grasps_at(point.position, point.choice)
        terms = torch.stack(_terms(self._scene, self._costs, grasps))
        self._quartiles.append(torch.nanquantile(terms, self._quarters, dim=1).T)
        proposals = (step - (self._steps[-1] if self._steps else 0)) * len(point.energy)
        self._acceptance.append(((descent.accepted - self._accepted).double() / proposals).float())
        self._steps.append(step)
        self._accepted = descent.accepted.clone()

    def curve(self) -> Curve:
        """Returns what was collected."""
        if not self._steps:
            nothing = torch.zeros(0, len(Energies._fields), 3)
            return Curve(torch.zeros(0, dtype=torch.int64), nothing[:, 0, 0], nothing)
        return Curve(torch.tensor(self._steps), torch.stack(self._acceptance), torch.stack(self._quartiles))


def _terms(scene: Scene, costs: Evaluator, grasps: Grasps) -> Energies:
    """Returns all terms without gradient, tile by tile."""
    parts = [costs.terms(grasps.select(rows), rows) for rows in scene.tiles()]
    return Energies(*(torch.cat(column) for column in zip(*parts, strict=True)))


def _finish(scene: Scene, costs: Evaluator, initial: Grasps, end: mala.Point, curve: Curve) -> Synthesis:
    """Returns the result with rotations of unit length, and its energies as they are for what is stored."""
    grasps = _orthonormal(scene.hands.grasps_at(end.position, end.choice))
    failed = end.energy.isnan()
    terms = Energies(*(term.masked_fill(failed, torch.nan) for term in _terms(scene, costs, grasps)))
    with torch.no_grad():
        frames = scene.hands.link_frames(grasps)
        contacts = contacts_of(scene.hands, scene.obj, scene.object_scale, frames, grasps)
    start = _orthonormal(initial)
    point, normal = (column.to(terms.total.dtype) for column in (contacts.point, contacts.normal))
    return Synthesis(grasps, start, scene.object_scale, point, normal, terms, curve, scene.tile)


def _orthonormal(grasps: Grasps) -> Grasps:
    """Returns the same grasps with rotation vectors of unit length."""
    return replace(grasps, rotation=matrix_to_rot6d(rot6d_to_matrix(grasps.rotation)))


class TrajectoryRecorder:
    """Watches a round (`synthesize(watch=...)`) and keeps snapshots; it reads the batch and changes nothing."""

    def __init__(self, record: Record) -> None:
        self._record = record
        self._snapshots: list[tuple[int, Grasps, torch.Tensor]] = []

    def __call__(self, step: int, point: mala.Point) -> None:
        """Keeps what is there at every `stride`-th step."""
        if step % self._record.stride == 0:
            rows = list(self._record.rows)
            grasps = Grasps.from_pose(point.position[rows], point.choice[rows])  # copies: indexed by a list
            self._snapshots.append((step, grasps, point.energy[rows]))

    def trajectory(self, result: Synthesis, steps: int) -> Trajectory:
        """Returns the trajectory of a finished round.

        Args:
            result: of the round.
            steps: how many it had.
        """
        rows = torch.tensor(self._record.rows, device=result.object_scale.device)
        snapshots = [snapshot for snapshot in self._snapshots if snapshot[0] != steps]
        snapshots.append((steps, result.grasps.select(rows), result.energies.total[rows]))
        return Trajectory(
            np.array([step for step, _, _ in snapshots], np.int64),
            np.array(self._record.rows, np.int64),
            _column([grasps.translation for _, grasps, _ in snapshots]),
            _column([rot6d_to_matrix(grasps.rotation.double()) for _, grasps, _ in snapshots]),
            _column([grasps.joints for _, grasps, _ in snapshots]),
            _column([energy for _, _, energy in snapshots]),
            _column(result.object_scale[rows]),
        )


def _column(parts: list[torch.Tensor] | torch.Tensor) -> np.ndarray:
    """Returns tensors as one single-precision array."""
    joined = torch.stack(parts) if isinstance(parts, list) else parts
    return joined.detach().float().cpu().numpy()
