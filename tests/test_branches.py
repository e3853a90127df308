"""Kernels side by side: branches need nothing of each other, and streams keep the order of stages."""

import random
from types import SimpleNamespace

import pytest
import torch
from scene import grasps_near
from test_fused import F32, models, settings

branches = pytest.importorskip("bimangrasp.energy.fused.branches")
evaluators = pytest.importorskip("bimangrasp.energy.fused.evaluator")


@pytest.mark.slow
@pytest.mark.parametrize("by_point", [False, True])
def test_any_order_that_keeps_those_of_branches_gives_the_same_bits(by_point, monkeypatch):
    monkeypatch.setattr(evaluators, "has_many_threads", lambda _: by_point)
    energy = settings().energy
    energy.w_depth, energy.w_equilibrium, energy.normal_step = 10.0, 10.0, 0.01
    energy.inter_hand = "symmetric"
    hands, obj = models("shadow", "mug", F32)
    costs = evaluators.FusedEvaluator(hands, obj, torch.full((24,), 0.1), energy, 24, 4)
    assert [len(stage) for stage in costs.program.stages] == [1, 5, 2]
    grasps, elsewhere = grasps_near(hands, 24, 4), grasps_near(hands, 24, 5)

    def results():
        costs.terms(elsewhere, slice(None))  # so that nothing of the last evaluation is left
        return torch.stack(costs.terms(grasps, slice(None))), costs._gradient.clone()

    terms, gradient = results()
    assert (terms != 0).any(dim=1).all()
    stages = costs.program.stages
    for seed in range(12):
        shuffle = random.Random(seed)
        costs.program.stages = [[interleaved(branches_of_stage, shuffle)] for branches_of_stage in stages]
        again, gradient_again = results()
        assert torch.equal(again, terms) and torch.equal(gradient_again, gradient)


def interleaved(branches_of_stage, shuffle):
    """Returns the kernels of a stage in an order that keeps that of each branch."""
    turns = [number for number, branch in enumerate(branches_of_stage) for _ in branch]
    shuffle.shuffle(turns)
    rest = [iter(branch) for branch in branches_of_stage]
    return [next(rest[number]) for number in turns]


class Stream:
    """A stream that knows what has run before its next kernel."""

    def __init__(self, device=None):
        self.done, self.cuda_stream = set(), id(self)

    def wait_event(self, event):
        self.done |= event.done


class Event:
    def record(self, stream):
        self.done = set(stream.done)


class Launch:
    """A kernel that notes what had run before it."""

    def __init__(self, name):
        self.name = name

    def set_dim(self, dim):
        self.dim = dim

    def launch(self, stream):
        self.before, self.stream = set(stream.done), stream
        stream.done.add(self.name)


@pytest.mark.parametrize("is_beside", [False, True])
def test_streams_keep_the_order_of_stages_and_no_other(monkeypatch, is_beside):
    main = Stream()
    fakes = SimpleNamespace(Stream=Stream, Event=Event, current_stream=lambda _: main)
    monkeypatch.setattr(branches, "IS_BESIDE", is_beside)
    monkeypatch.setattr(branches.torch, "cuda", fakes)
    monkeypatch.setattr(branches.wp, "stream_from_torch", lambda stream: stream)
    program, names = branches.Program(torch.device("cuda", 0)), []
    for stage, sizes in enumerate([(2,), (1, 3, 2), (1, 1), (1,)]):
        if stage:
            program.stage()
        for branch, size in enumerate(sizes):
            if branch:
                program.branch()
            for place in range(size):
                names.append((stage, branch, place))
                program.add(branches.Kernel("part", Launch(names[-1]), (2,)))
    for _ in range(2):  # the second time on events and streams that were used
        main.done.clear()
        program.run(7)
        for kernel in program.kernels:
            stage, branch, place = kernel.launch.name
            earlier = {name for name in names if name[0] < stage or name[:2] == (stage, branch) and name[2] < place}
            assert kernel.launch.before >= earlier and kernel.launch.dim == (7, 2)
            assert not is_beside or kernel.launch.before == earlier
        assert main.done == set(names)
        for stream in {kernel.launch.stream for kernel in program.kernels} - {main}:
            stream.done.clear()
