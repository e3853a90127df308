"""Steps in place against steps that return new states."""

import subprocess
import sys
from dataclasses import replace

import pytest
import quick_conf
import torch
from test_mala import GROUPS, D, gaussian, released

from bimangrasp.sampler import cuda_graph, mala
from bimangrasp.sampler.cuda_graph import Descent


class FakeGraph:
    """Stands for a recording: a replay does what the recorded step did."""

    def __init__(self, descent):
        self._descent, self.replays = descent, 0

    def replay(self):
        self._descent._advance()
        self.replays += 1


def start(seed=1):
    config = replace(quick_conf.load().optimizer, keep="best")
    generator = torch.Generator().manual_seed(seed)
    position = torch.randn((50, GROUPS, D), generator=generator, dtype=torch.float64)
    choice = torch.randint(5, (50, GROUPS, 2), generator=generator)
    state, schedule = mala.init(position, choice, gaussian, config), released(config)
    return state, lambda now: mala.step(now, gaussian, 5, config, schedule, generator), generator


def bits(state):
    return [tensor.numpy().tobytes() for tensor in (*state.point, *state.best, state.second_moment, state.step)]


def test_steps_in_place_are_the_steps_of_the_sampler():
    state, step, _ = start()
    accepted = 0
    for _ in range(20):
        state, taken = step(state)
        accepted += int(taken.sum())
    before, step, generator = start()
    untouched = bits(before)
    descent = Descent(before, step, generator, is_recorded=False)
    for _ in range(20):
        descent.advance()
    assert bits(descent.state) == bits(state) and int(descent.accepted) == accepted > 0
    assert bits(before) == untouched, "the start was written over"


def test_a_recording_begins_after_some_steps_and_loses_none(monkeypatch):
    made = []
    monkeypatch.setattr(cuda_graph, "can_record", lambda: True)
    monkeypatch.setattr(Descent, "_recorded", lambda self: made.append(FakeGraph(self)) or made[-1])
    ends = []
    for is_recorded in (False, True):
        descent = Descent(*start(), is_recorded=is_recorded)
        for _ in range(20):
            descent.advance()
        ends.append((bits(descent.state), int(descent.accepted)))
    assert ends[0] == ends[1]
    assert len(made) == 1 and made[0].replays == 17


def test_a_pytorch_that_cannot_record_random_numbers_makes_every_step_as_it_is(monkeypatch):
    monkeypatch.setattr(torch.cuda, "CUDAGraph", object)
    monkeypatch.setattr(Descent, "_recorded", lambda self: pytest.fail("it was recorded"))
    descent = Descent(*start(), is_recorded=True)
    for _ in range(10):
        descent.advance()


CUDA = """
import torch, conf
from bimangrasp import builtin, synthesis
from bimangrasp.hands.model import HandModel
from bimangrasp.hand_files.loading import load_hands
from bimangrasp.objects.model import ObjectModel
from bimangrasp.sampler import cuda_graph

synthesis.set_determinism(1)
config = conf.load(["experiment=null", "round_batch_size=8", "num_iterations=40", "curve_stride=10", "kernels=warp"])
hands = HandModel(*load_hands(config.hand), 200, "cuda")
mug = ObjectModel.load(str(builtin.OBJECT_ROOT / "mug.obj"), config.object, "cuda")
recorded = synthesis.synthesize(hands, mug, config.synthesis, 1)
cuda_graph.EAGER_STEPS = 1000
eager = synthesis.synthesize(hands, mug, config.synthesis, 1)
assert torch.equal(recorded.grasps.pose, eager.grasps.pose)
assert torch.equal(recorded.energies.total, eager.energies.total)
assert torch.equal(recorded.curve.acceptance[1:], eager.curve.acceptance[1:])
"""


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_recorded_step_gives_the_bits_of_an_eager_one():
    pytest.importorskip("warp", reason="needs NVIDIA Warp")
    subprocess.run([sys.executable, "-c", CUDA], check=True)
