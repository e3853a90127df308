"""Coupled hands in the simulator: its residuals, one motor for each coordinate, and stages that motors can command."""

from __future__ import annotations

from dataclasses import replace

import mujoco
import numpy as np
import pytest
import quick_conf
import torch
import trimesh
from coupled_hands import coordinates, coupled_shadow
from scene import built_in_hands, grasps_near

from bimangrasp.geometry.rotation import rot6d_to_matrix
from bimangrasp.hand_files.loading import load_hands
from bimangrasp.hands.model import HandModel
from bimangrasp.poses import Poses
from bimangrasp.validation.evaluate import Simulations, evaluate_grasps, verdict_columns
from bimangrasp.validation.pose_rules import ObjectGrasps, stages_of
from bimangrasp.validation.scene import (
    GraspPoses,
    HandPoses,
    build_scene,
    coordinates_at,
    interpolate,
    set_pose,
    set_targets,
    target_of,
)
from bimangrasp.validation.simulate import simulate_grasp

F64 = torch.float64
BOX = [trimesh.creation.box((0.08, 0.08, 0.08)).vertices]
BENCH = quick_conf.load("validation=bench")
EQUALITY = int(mujoco.mjtConstraint.mjCNSTR_EQUALITY)
YIELD = 0.02
"""How far a coupling may give way under the squeeze of a grasp, rad."""


def real_hand() -> HandModel:
    return HandModel(*load_hands(quick_conf.load("hand=shadow_coupled").hand), 200, dtype=F64)


def pose_of(hands: HandModel, seed=0, distance=0.3) -> HandPoses:
    """A pose on the couplings, the hands beside the object."""
    joints = hands.joints_at(coordinates(hands, 1, seed, beyond=-0.05))[0].numpy()
    place = np.array([[-distance, 0, 0], [distance, 0, 0]])
    return HandPoses(place, np.stack([np.eye(3)] * 2), joints)


def coupling_residual(model: mujoco.MjModel, data: mujoco.MjData) -> np.ndarray:
    """What MuJoCo finds its equalities between joints and between tendons off."""
    kinds = (int(mujoco.mjtEq.mjEQ_JOINT), int(mujoco.mjtEq.mjEQ_TENDON))
    ours = np.isin(data.efc_id, np.flatnonzero(np.isin(model.eq_type, kinds))) & (data.efc_type == EQUALITY)
    return data.efc_pos[ours]


@pytest.mark.parametrize("hands", [coupled_shadow, real_hand])
def test_a_pose_on_the_couplings_has_no_residual_in_the_scene(hands):
    hands = hands()
    scene = build_scene(*hands.descriptions, BOX, BENCH.validation)
    model, data = scene.model, mujoco.MjData(scene.model)
    for seed in range(3):
        pose = pose_of(hands, seed)
        set_pose(scene, data, pose)
        mujoco.mj_forward(model, data)
        residual = coupling_residual(model, data)
        assert len(residual) == 2 * len(hands.descriptions[0].couplings.followers)
        np.testing.assert_allclose(residual, 0, atol=1e-9)
        for side, name in enumerate(("left", "right")):
            for tendon in hands.descriptions[side].couplings.tendons:
                value = pose.joints[side][list(tendon.joints)] @ tendon.coefficients
                assert data.tendon(f"{name}/{tendon.name}").length == pytest.approx(value, abs=1e-12)


def test_a_pose_off_the_couplings_has_one():
    hands = coupled_shadow()
    scene = build_scene(*hands.descriptions, BOX, BENCH.validation)
    data, pose = mujoco.MjData(scene.model), pose_of(hands)
    pose.joints[0, 7] += 0.1
    set_pose(scene, data, pose)
    mujoco.mj_forward(scene.model, data)
    assert np.abs(coupling_residual(scene.model, data)).max() > 0.05


@pytest.mark.parametrize("hands", [coupled_shadow, real_hand])
def test_each_coordinate_has_one_motor_and_nothing_else_has(hands):
    hands = hands()
    scene = build_scene(*hands.descriptions, BOX, BENCH.validation)
    model, table = scene.model, hands.descriptions[0].coordinates
    assert model.nu == 2 * hands.coordinate_count < 2 * hands.joint_count
    names = [model.actuator(number).name for number in range(model.nu)]
    hand = hands.descriptions[0]
    nodes = [*hand.joint_names, *(tendon.name for tendon in hand.couplings.tendons)]
    assert names == [f"{side}/{nodes[node]}" for side in ("left", "right") for node in table.free]
    data, pose = mujoco.MjData(model), pose_of(hands)
    set_pose(scene, data, pose)
    expected = hands.coordinates_of(torch.as_tensor(pose.joints)[None])[0]
    np.testing.assert_allclose(data.ctrl, expected.flatten(), atol=1e-12)
    mujoco.mj_forward(model, data)
    np.testing.assert_allclose(data.actuator_length, data.ctrl, atol=1e-12)


def test_free_hands_have_a_motor_for_each_joint_and_no_coupling():
    hands = built_in_hands("shadow")
    scene = build_scene(*hands.descriptions, BOX, BENCH.validation)
    assert scene.commands is None and scene.model.nu == 44 and scene.model.ntendon == 0
    assert [scene.model.actuator(n).name for n in range(22)] == [f"left/{name}" for name in hands.joint_names]
    assert (scene.model.actuator_trntype == int(mujoco.mjtTrn.mjTRN_JOINT)).all()


@pytest.mark.slow
def test_motors_take_all_joints_to_a_commanded_pose():
    hands = coupled_shadow()
    scene = build_scene(*hands.descriptions, BOX, BENCH.validation)
    scene.model.opt.disableflags |= int(mujoco.mjtDisableBit.mjDSBL_CONTACT)  # random postures cross their fingers
    data = mujoco.MjData(scene.model)
    start, end = pose_of(hands, 0), pose_of(hands, 5)
    set_pose(scene, data, start)
    for share in np.linspace(0, 1, 40):
        set_targets(scene, data, interpolate(start, end, share))
        mujoco.mj_step(scene.model, data, nstep=20)
        assert np.abs(coupling_residual(scene.model, data)).max() < YIELD
    mujoco.mj_step(scene.model, data, nstep=1000)
    reached = data.qpos[scene.joint_qpos]
    followers = [follower.node for follower in hands.descriptions[0].couplings.followers if follower.node < 22]
    assert np.abs(reached - end.joints)[:, followers].max() < 0.03, "dry friction holds them a little before it"
    assert np.abs(reached - start.joints).max() > 0.1


@pytest.mark.slow
def test_couplings_hardly_yield_to_the_torques_of_a_grasp():
    """With MuJoCo's own defaults they give way by a tenth of a radian and more, and the hand is another one."""
    hands = coupled_shadow()
    scene = build_scene(*hands.descriptions, BOX, BENCH.validation)
    scene.model.opt.disableflags |= int(mujoco.mjtDisableBit.mjDSBL_CONTACT)
    data = mujoco.MjData(scene.model)
    set_pose(scene, data, pose_of(hands))
    for follower in (5, 7, 11):
        data.qfrc_applied[scene.model.jnt_dofadr[scene.model.joint(f"left/{hands.joint_names[follower]}").id]] = -0.5
    mujoco.mj_step(scene.model, data, nstep=500)
    assert 1e-6 < np.abs(coupling_residual(scene.model, data)).max() < 0.01


@pytest.mark.slow
def test_a_device_moves_coupled_hands_as_mujoco_does():
    pytest.importorskip("mujoco_warp", reason="needs MuJoCo Warp")
    from bimangrasp.validation.on_device.worlds import Worlds

    hands = coupled_shadow()
    scene = build_scene(*hands.descriptions, BOX, BENCH.validation)
    model = scene.slipping_model
    model.opt.disableflags |= int(mujoco.mjtDisableBit.mjDSBL_CONTACT)  # fingers that cross would part at random
    ends = pose_of(hands, 0), pose_of(hands, 5)
    several = [HandPoses(*(np.stack([part, part]) for part in pose)) for pose in ends]
    worlds = Worlds(model, 2, quick_conf.load("validation=bench_warp").validation.simulator, "cpu")
    data = mujoco.MjData(model)
    set_pose(scene, data, ends[0])
    worlds.write({"qpos": coordinates_at(scene, several[0])} | target_of(scene, several[0])._asdict())
    for share in (0.5, 1.0):
        worlds.write(target_of(scene, interpolate(*several, share))._asdict())
        worlds.run(10)
        set_targets(scene, data, interpolate(*ends, share))
        mujoco.mj_step(model, data, nstep=10)
    moved = worlds.read()["qpos"]
    assert np.abs(data.qpos - coordinates_at(scene, ends[0])).max() > 0.05
    for world in moved:
        np.testing.assert_allclose(world[scene.joint_qpos], data.qpos[scene.joint_qpos], atol=1e-4)


def grasps_of(hands: HandModel, count=3) -> ObjectGrasps:
    given = grasps_near(hands, count, seed=1)
    generator = torch.Generator().manual_seed(2)
    normal = torch.nn.functional.normalize(torch.randn((count, 2, 4, 3), generator=generator, dtype=F64), dim=-1)
    poses = Poses(given.translation.numpy(), rot6d_to_matrix(given.rotation).numpy(), given.joints.numpy())
    return ObjectGrasps(poses, given.candidate.numpy(), normal.numpy(), np.ones(count))


def off(hands: HandModel, joints: np.ndarray) -> float:
    joints = torch.as_tensor(joints)
    return float((hands.joints_at(hands.coordinates_of(joints)) - joints).abs().max())


@pytest.mark.parametrize("rule", ["contacts", "palm", "none", "forces"])
def test_all_stages_are_on_the_couplings(rule):
    hands = coupled_shadow()
    found = stages_of(hands, grasps_of(hands), replace(BENCH.poses, rule=rule), BENCH.validation.hand)
    for stage in (*found.pre_grasps, found.grasp, found.squeeze):
        assert stage.joints.shape == (3, 2, 22) and off(hands, stage.joints) < 1e-9
    for stage in (*found.pre_grasps, found.grasp):
        lower, upper = hands.joint_lower.numpy() - 1e-6, hands.joint_upper.numpy() + 1e-6
        assert ((stage.joints >= lower) & (stage.joints <= upper)).all()
    if rule != "none":
        assert np.abs(found.squeeze.joints - found.grasp.joints).max() > 1e-3


def test_contacts_move_outward_by_the_clearance_with_the_coordinates_alone():
    hands = real_hand()
    grasps = grasps_of(hands)
    middle = hands.joints_at(((hands.coordinate_lower + hands.coordinate_upper) / 2).expand(3, 2, -1))
    candidate = np.broadcast_to(np.array([5, 40, 75, 110]), (3, 2, 4)).copy()  # one on each of four fingers
    grasps = grasps._replace(poses=grasps.poses._replace(joints=middle.numpy()), candidate=candidate)
    rule = replace(BENCH.poses, rule="contacts", clearance=1e-5, damping=1e-9, retreat=0.0)
    found = stages_of(hands, grasps, rule, BENCH.validation.hand)

    def points(stage: Poses) -> torch.Tensor:
        place, turn, joints = map(torch.as_tensor, stage)
        return hands.contact_points(hands.frames_from_root(turn, place, joints), torch.as_tensor(candidate))

    outward = ((points(found.pre_grasps[0]) - points(found.grasp)).numpy() * grasps.normal).sum(-1)
    movable = outward > 0.5e-5  # a finger cannot move along its own bones
    np.testing.assert_allclose(outward[movable], 1e-5, rtol=1e-2)
    assert movable.mean() > 0.8


@pytest.mark.parametrize("hands", [coupled_shadow, real_hand])
def test_the_press_on_a_motor_is_the_torque_by_its_coordinate(hands):
    """Virtual work: a tendon's motor bears the torques of its joints by their slopes, within its own limit."""
    hands = hands()
    grasps = grasps_of(hands)
    rule = replace(BENCH.poses, rule="forces", closing_damping=1e9)
    weak = replace(BENCH.validation.hand, force_limit=0.02, floating=False)
    strong = replace(weak, force_limit=np.inf)
    found = [stages_of(hands, grasps, rule, hand) for hand in (weak, strong)]
    pressing = [
        hands.coordinates_of(torch.as_tensor(stages.squeeze.joints - stages.grasp.joints)).numpy() * weak.kp
        for stages in found
    ]
    np.testing.assert_allclose(pressing[0], pressing[1].clip(-0.02, 0.02), atol=1e-9)
    stages = found[1]
    place, turn, joints = map(torch.as_tensor, stages.grasp)
    joints = joints.requires_grad_()
    frames = hands.frames_from_root(turn, place, joints)
    points = hands.contact_points(frames, torch.as_tensor(grasps.candidate))
    force = torch.as_tensor(stages.force).reshape(points.shape)
    (torque,) = torch.autograd.grad((points * force).sum(), joints)
    slopes = hands.coupled.jacobian(hands.coordinates_of(joints.detach()))
    np.testing.assert_allclose(pressing[1], (slopes.mT @ torque[..., None]).squeeze(-1), atol=1e-8)


@pytest.mark.slow
def test_verdicts_hold_poses_on_the_couplings_and_simulate_as_one_grasp():
    hands = real_hand()
    grasps, rule = grasps_of(hands, 2), replace(BENCH.poses, rule="contacts")
    judged = evaluate_grasps(hands, BOX, grasps, BENCH.validation, rule, Simulations())
    columns = verdict_columns(judged)
    assert columns["pose/joints"].dtype == np.float32
    for stage in range(3):
        assert off(hands, columns["pose/joints"][:, stage].astype(float)) < 1e-6
    scene = build_scene(*hands.descriptions, BOX, BENCH.validation)
    stages = [HandPoses(*(part[0] for part in stage)) for stage in judged.stages]
    assert int(simulate_grasp(scene, GraspPoses(*stages)).reason) == judged.reason[0]
