"""Kernels for GPUs, on a machine without one: they compile, and no step reads a value or mixes devices."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import pytest
import quick_conf
import torch

from bimangrasp import builtin, synthesis
from bimangrasp.contact_choice import ContactChoice
from bimangrasp.grasp import Grasps
from bimangrasp.hand_files.loading import load_hands
from bimangrasp.hands.model import HandModel
from bimangrasp.objects.model import ObjectModel
from bimangrasp.sampler import mala, momentum
from bimangrasp.sampler.cuda_graph import Descent

wp = pytest.importorskip("warp", reason="needs NVIDIA Warp")
fused = pytest.importorskip("bimangrasp.energy.fused.evaluator")
sampler_kernels = pytest.importorskip("bimangrasp.energy.fused.sampler_kernels")
BATCH = 4


def scene(*overrides, device="cpu"):
    config = quick_conf.load(f"round_batch_size={BATCH}", *overrides)
    hands = HandModel(*load_hands(config.hand), 20, device)
    obj = ObjectModel.load(str(builtin.OBJECT_ROOT / "box.obj"), config.object, device)
    return synthesis.Scene(hands, obj, torch.full((BATCH,), 0.1, device=device), config.synthesis)


def modules(*overrides):
    """The modules of all kernels of an evaluation; those of a GPU alone share one with others."""
    return {kernel.launch.kernel.module for kernel in scene("kernels=warp", *overrides).evaluator().program.kernels}


@pytest.mark.slow
@pytest.mark.parametrize("arch", [80, 90])
def test_all_kernels_compile_for_gpus(tmp_path, monkeypatch, arch):
    both = modules("experiment=firm") | modules("experiment=released") | {sampler_kernels.settle_langevin.module}
    assert len(both) >= 7  # two numbers of contacts have wrench kernels of their own
    for number, module in enumerate(both):
        monkeypatch.setitem(module.options, "block_dim", fused.CUDA_BLOCK)
        (path,) = wp.compile_aot_module(module, arch=arch, module_dir=tmp_path / str(number), use_ptx=False)
        assert path.read_bytes()[:4] == b"\x7fELF", "no machine code"


@pytest.mark.slow
def test_what_does_not_compile_for_gpus_is_seen(tmp_path):
    module = wp.Module("bimangrasp_test_of_the_test", None)

    @wp.func_native("return no_such_function(x);")
    def broken(x: float) -> float: ...

    def uses(values: wp.array(dtype=float)):
        values[0] = broken(values[0])

    kernel = wp.Kernel(uses, module=module)
    with pytest.raises(Exception, match=r"(?i)error|fail"):
        wp.compile_aot_module(kernel.module, arch=80, module_dir=tmp_path, use_ptx=False)


# ---- steps on torch's device without values


def energy_on_meta(pose, choice):
    """Any energy: it has shapes and no values."""
    return mala.Evaluation((pose * choice.sum()).sum(dim=(1, 2)), 2 * pose)


def start():
    """Poses and choices without values."""
    return torch.empty(BATCH, 2, 31, device="meta"), torch.zeros(BATCH, 2, 4, dtype=torch.int64, device="meta")


def descend(state, step):
    generator = torch.Generator()  # none has the device meta; its numbers are not looked at
    descent = Descent(state, lambda now: step(now, generator), generator, is_recorded=False)
    for _ in range(2):
        descent.advance()
    assert descent.accepted.device.type == "meta"


SETTINGS = list(product(("last", "best"), ("batch", "sample"), (False, True)))


@pytest.mark.parametrize("keep, preconditioner, proposal_ratio", SETTINGS)
def test_an_annealed_step_reads_no_value(keep, preconditioner, proposal_ratio):
    config = replace(quick_conf.load("experiment=released").optimizer, keep=keep, preconditioner=preconditioner)
    config = replace(config, proposal_ratio=proposal_ratio)
    schedule = mala.schedule(config, 10, "meta")
    constants = {"energy": energy_on_meta, "choices": 9, "config": config, "schedule": schedule}
    state = mala.init(*start(), energy_on_meta, config)
    descend(state, lambda now, generator: mala.step(now, generator=generator, **constants))


@pytest.mark.parametrize("keeps_best", [False, True])
def test_a_step_with_momentum_reads_no_value(keeps_best):
    config = quick_conf.load().optimizer.momentum
    plan = momentum.plan(config, [3, 6, 22], 10, "meta")
    state = momentum.init(*start(), energy_on_meta, plan, keeps_best)
    descend(state, lambda now, _: momentum.step(now, energy_on_meta, config, plan))


def test_a_choice_of_contacts_reads_no_value():
    on_cpu, on_meta = scene(), scene(device="meta")
    grid = on_cpu.obj.grid
    on_meta.obj.__dict__["grid"] = grid._replace(low=grid.low.to("meta"), values=grid.values.to("meta"))
    pose, candidate = start()
    chosen = ContactChoice(on_meta.hands, on_meta.obj, 5)(Grasps.from_pose(pose, candidate), on_meta.object_scale)
    assert chosen.device.type == "meta" and chosen.shape == (BATCH, 2, 5)


@pytest.mark.parametrize(
    "spoiled",
    [
        lambda pose: pose.sum().item(),
        lambda pose: pose[pose > 0],
        lambda pose: pose + torch.zeros(1, 2, 31),
        lambda pose: bool(pose.any()),
        lambda pose: pose.cpu(),
    ],
)
def test_what_reads_a_value_or_mixes_devices_is_seen(spoiled):
    def energy(pose, choice):
        spoiled(pose)
        return energy_on_meta(pose, choice)

    with pytest.raises((RuntimeError, NotImplementedError)):
        mala.init(*start(), energy, quick_conf.load("experiment=released").optimizer)
