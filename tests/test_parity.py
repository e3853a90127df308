"""Against values recorded from the BimanGrasp release."""

import json
from dataclasses import replace

import numpy as np
import pytest
import quick_conf
import torch

import conf
from benchmarks import parity
from bimangrasp.sampler import mala

OBJECTS = ["Cole_Hardware_Dishtowel_Multicolors", "Curver_Storage_Bin_Black_Small", "Hasbro_Monopoly_Hotels_Game"]
FILES = [*OBJECTS, "converged_Curver_Storage_Bin_Black_Small"]


@pytest.fixture(scope="module")
def hands(shared):
    return parity.release_hands(shared / "data" / "bimangrasp_hands")


@pytest.mark.slow
@pytest.mark.parametrize("name", FILES)
def test_energies_and_gradients_equal_the_recorded_ones(shared, hands, name):
    golden = parity.read_golden(shared / "golden" / f"{name}.npz")
    obj = parity.golden_object(golden, mesh=None)
    rows = parity.compare(golden, hands, obj, quick_conf.load().energy)
    compared = {row.name for row in rows if row.samples}
    assert len(rows) == 18 and (name.startswith("converged") or len(compared) == 18)
    assert compared >= {"E_distance", "E_penetration", "E_self_penetration", "E_joint_limits"}
    missed = [row for row in rows if not row.error <= row.tolerance]
    assert not missed


def test_the_mesh_file_gives_what_the_recorded_arrays_give(shared, hands):
    golden = parity.read_golden(shared / "golden" / f"{OBJECTS[1]}.npz")
    mesh = shared / "data" / "meshdata" / OBJECTS[1] / "coacd" / "decomposed.obj"
    ours, theirs = (parity.golden_object(golden, path).mesh.corners for path in (mesh, None))
    assert torch.equal(ours, theirs)


def test_a_wrong_weight_is_noticed(shared, hands):
    golden = parity.read_golden(shared / "golden" / f"{OBJECTS[2]}.npz")
    config = replace(quick_conf.load().energy, w_pen=126.0)
    rows = parity.compare(golden, hands, parity.golden_object(golden, mesh=None), config)
    assert {row.name for row in rows if row.error > row.tolerance} >= {"E_total"}


@pytest.mark.slow
def test_the_command_prints_a_table_and_fails_on_a_missed_tolerance(shared, capsys, monkeypatch):
    command = ["--hands", str(shared / "data" / "bimangrasp_hands"), "--golden"]
    command.append(str(shared / "golden" / f"{OBJECTS[0]}.npz"))
    assert parity.main(command) == 0
    assert "E_force_closure" in capsys.readouterr().out
    monkeypatch.setattr(parity, "LENGTH", 1e-12)
    assert parity.main(command) == 1
    assert "MISSED" in capsys.readouterr().out


@pytest.mark.parametrize("side", ["left", "right"])
def test_link_frames_equal_the_recorded_ones(shared, hands, side):
    golden = np.load(shared / "golden" / "hands.npz", allow_pickle=False)
    names = json.loads((shared / "golden" / "hands.json").read_text())[side]["fk_link_names"]
    index = ["left", "right"].index(side)
    joints = torch.zeros((4, 2, 22))
    joints[:, index] = torch.as_tensor(golden[f"{side}_fk_joints"])
    frames = hands.frames_from_root(torch.eye(3).expand(4, 2, 3, 3), torch.zeros(4, 2, 3), joints)
    recorded = dict(zip(names, golden[f"{side}_fk_matrices"].swapaxes(0, 1), strict=True))
    for link, name in enumerate(hands.names):
        wanted = recorded.get(f"{name}_child", recorded[name])
        np.testing.assert_allclose(frames.rotation[:, index, link], wanted[:, :3, :3], atol=1e-6)
        np.testing.assert_allclose(frames.translation[:, index, link], wanted[:, :3, 3], atol=1e-6)


@pytest.fixture(scope="module")
def steps(shared):
    return np.load(shared / "golden" / "init_and_steps_Curver.npz", allow_pickle=False)


@pytest.mark.slow
@pytest.mark.parametrize("row", range(4))
def test_single_steps_equal_the_recorded_ones(steps, row):
    def both(name):
        return torch.as_tensor(np.stack([steps[f"step_{side}_{name}"][row] for side in ("left", "right")], axis=-2))

    config = conf.load(["experiment=released"]).optimizer
    k = int(steps["step_k"][row])
    schedule = mala.schedule(config, 1000, dtype=torch.float64)
    now, after = (schedule.at(torch.tensor([step])) for step in (k, k + 1))
    assert float(now.step_size) == pytest.approx(float(steps["step_step_size"][row]), rel=1e-12)
    for ours, recorded in ((now, "proposal"), (after, "accept")):  # kept in float32
        assert float(ours.temperature) == pytest.approx(float(steps[f"step_temperature_{recorded}"][row]), rel=1e-6)
    now, after = (mala.Schedule(*(column.float() for column in one)) for one in (now, after))

    energy = torch.as_tensor(steps["step_E_before"][row])
    point = mala.Point(both("pose_before"), both("idx_before"), energy, both("grad"))
    moment = mala.next_second_moment(mala.State(point, point, both("v_before")[None], torch.tensor([k])), config)
    torch.testing.assert_close(moment[0], both("v_after"), rtol=1e-6, atol=0)

    redrawn = (both("idx_proposed") == both("idx_before")).float()  # 0 where it changed: below any chance
    draws = mala.Draws(both("noise"), redrawn, both("idx_proposed"), torch.as_tensor(steps["step_alpha"][row]))
    position, choice = mala.propose(point, both("v_after")[None], draws, now, config)
    torch.testing.assert_close(position, both("pose_proposed"), atol=1e-6, rtol=0)
    assert torch.equal(choice, both("idx_proposed"))

    proposal = mala.Point(position, choice, torch.as_tensor(steps["step_E_proposed"][row]), both("grad"))
    ratio = mala.proposal_log_ratio(point, proposal, moment, now, config)
    accepted = mala.accepts(point, proposal, ratio, after.temperature, draws.acceptance)
    assert accepted.tolist() == steps["step_accept"][row].tolist()
