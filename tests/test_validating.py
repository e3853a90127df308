"""`mode=validate` from files to verdicts: what it says, what it refuses, what it keeps."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
import quick_conf
import trimesh
from palms import HALF, palms, palms_config, squeeze
from stub_rounds import made_columns
from toy_files import held

import scale
from bimangrasp.errors import InputError
from bimangrasp.files.formats import shard_image
from bimangrasp.files.header import HandTable, Header
from bimangrasp.hand_files.loading import load_hands
from bimangrasp.interop.bimangrasp_results import ReleasedResults, results_image
from bimangrasp.objects import convex_pieces, decomposition
from bimangrasp.objects.model import read_mesh
from bimangrasp.poses import Poses
from bimangrasp.validation.scene import HandPoses
from scale.engine import devices
from scale.engine.synthesizer import Synthesizer
from scale.modes import validate
from scale.settings.schema import Config
from scale.store import convex_pieces as store_pieces
from scale.store import shards

HOLDS, MISSES, DEEP = palms(0.0), palms(0.0, gap=0.02), palms(0.0, gap=-0.028)
NORMAL = np.array([[[-1.0, 0, 0]] * 4, [[1.0, 0, 0]] * 4])


def not_finite() -> HandPoses:
    return HOLDS._replace(joints=np.array([[np.nan], [0.0]]))


class Bench:
    """A folder with meshes and grasp files of the palms."""

    def __init__(self, folder: Path):
        self.folder, self.objects = folder, folder / "objects"
        self.objects.mkdir()
        overrides = ["mode=validate", "validators=1", "poses.rule=contacts"]  # which misses what it does not touch
        self.config = replace(
            quick_conf.load(*overrides, output_root=folder / "experiments"),
            hand=palms_config(folder),
            object_root=str(self.objects),
        )

    @property
    def hand(self) -> HandTable:
        return Synthesizer(self.config.hand, self.config.synthesis).hand_table()

    def mesh(self, code: str, mesh: trimesh.Trimesh | None = None) -> Path:
        """Writes an object, a box of 1 m unless said otherwise."""
        path = self.objects / f"{code}.obj"
        (mesh or trimesh.creation.box((1.0, 1.0, 1.0))).export(path)
        return path

    def columns(self, grasps: list[HandPoses]) -> dict[str, np.ndarray]:
        made = made_columns(1, len(grasps), nan_share=0.0, J=1, C=4)
        for name, part in zip(Poses._fields, zip(*grasps, strict=True), strict=True):
            made[f"hand/{name}"] = np.stack(part).astype("f4")
        made["contact/candidate"] = np.tile(np.arange(4, dtype="i4"), (len(grasps), 2, 1))
        made["contact/normal"] = np.tile(NORMAL, (len(grasps), 1, 1, 1)).astype("f4")
        made["object_scale"] = np.full(len(grasps), 2 * HALF, "f4")
        return made

    def file(self, path: Path, grasps: list[HandPoses], code: str = "box", hand: HandTable | None = None) -> Path:
        """Writes a file with these grasps of an object, a box where there is no mesh yet."""
        if not (self.objects / f"{code}.obj").exists():
            self.mesh(code)
        return self.write(path, self.columns(grasps), code, self.objects / f"{code}.obj", hand)

    def write(
        self, path: Path, made: dict[str, np.ndarray], code: str, mesh: Path, hand: HandTable | None = None
    ) -> Path:
        header = Header(code, 0, read_mesh(str(mesh)).sha256, hand or self.hand, {}, {}, {}, ({},))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(shard_image(header, shards.round_columns(made, 1, 0, 1)))
        return path

    def settings(self, path: Path | str = "", **changes: object) -> Config:
        return replace(self.config, path=str(path), **changes)

    def validate(self, path: Path | str = "", **changes: object) -> validate.ValidationReport:
        return scale.validate(self.settings(path, **changes))

    def refused(self, message: str, path: Path | str = "", **changes: object) -> None:
        with pytest.raises(InputError, match=message):
            self.validate(path, **changes)


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def protocol(name: str) -> dict[str, object]:
    return {"validation": quick_conf.load(f"validation={name}").validation}


@pytest.mark.slow
@pytest.mark.parametrize("name", ["bench", "paper"])
def test_a_file_is_judged_row_by_row(bench, name):
    path = bench.file(bench.folder / "box.h5", [HOLDS, not_finite(), MISSES, DEEP])
    report = bench.validate(path, **protocol(name))
    lost = {"bench": "moved", "paper": "lost_contact"}[name]
    assert report.paths == [bench.folder / f"box.{name}.h5"]
    with h5py.File(report.paths[0]) as file:
        reasons = json.loads(file.attrs["judging"])["reasons"]
        assert [reasons[k] for k in file["verdict/reason"][:]] == ["held", "not_finite", lost, "penetration"]
        assert file["verdict/held"][0].all() and file["verdict/bears_load"][0].all()
        stages = (file[f"pose/{part}"][0] for part in Poses._fields)
        for found, wanted in zip(stages, zip(*squeeze(), strict=True), strict=True):
            np.testing.assert_allclose(found[1], wanted[1], atol=1e-6)
    (row,) = report.objects
    assert (row.code, row.tried, row.held, row.both_hands) == ("box", 4, 1, 1.0)
    assert report.osr == 1.0 and f"protocol {name}: GSR 25.0% (1 of 4 grasps), OSR 100%" in str(report)


@pytest.mark.slow
def test_a_file_is_judged_on_a_device_after_that_was_checked(bench, monkeypatch):
    self_check = pytest.importorskip("bimangrasp.validation.on_device.self_check", reason="pip install -e '.[gpu]'")
    checked = []
    monkeypatch.setattr(self_check, "check_device", lambda device, settings: checked.append((device, settings.worlds)))
    path = bench.file(bench.folder / "box.h5", [HOLDS, not_finite(), MISSES, DEEP])
    warp = quick_conf.load("validation=bench_warp", "validation.simulator.worlds=8").validation
    report = bench.validate(path, validation=warp, gpus=["cpu"])
    assert checked == [("cpu", 8)] and report.paths == [bench.folder / "box.bench_warp.h5"]
    with h5py.File(report.paths[0]) as file:
        reasons = json.loads(file.attrs["judging"])["reasons"]
        assert [reasons[k] for k in file["verdict/reason"][:]] == ["held", "not_finite", "moved", "penetration"]
        assert json.loads(file.attrs["protocol"])["name"] == "bench_warp"
        assert "mujoco-warp" in json.loads(file.attrs["platform"])
    assert "protocol bench_warp: GSR 25.0% (1 of 4 grasps)" in str(report)


@pytest.mark.slow
def test_the_verdicts_say_of_what_they_are(bench):
    path = bench.file(bench.folder / "box.h5", [HOLDS])
    report = bench.validate(path)
    with h5py.File(report.paths[0]) as file:
        said = dict(file.attrs)
    assert said["grasps_sha256"].decode() == hashlib.sha256(path.read_bytes()).hexdigest()
    assert said["mesh_sha256"].decode() == read_mesh(str(bench.objects / "box.obj")).sha256
    assert (said["object_code"], said["hand_name"], said["pieces_source"]) == (b"box", b"palms", b"convex")
    assert json.loads(said["joint_names"]) == ["bend"] and json.loads(said["judging"])["link_names"] == ["root", "palm"]
    assert json.loads(said["hand_sha256"]) == [hand.sha256 for hand in load_hands(bench.config.hand)]
    assert json.loads(said["protocol"])["trial"]["looks"] == 10
    assert json.loads(said["pose_rule"])["rule"] == "contacts"
    assert "mujoco" in json.loads(said["platform"])


@pytest.mark.slow
def test_a_run_has_a_row_for_each_object_and_a_share_of_objects(bench):
    run = bench.folder / "experiments" / "kitchen"
    for code, grasps in {"b": [MISSES, MISSES], "a": [HOLDS, MISSES, HOLDS], "c d": [not_finite()]}.items():
        bench.file(run / "final" / f"{code}.h5", grasps, code)
    report = bench.validate(exp_name="kitchen")
    assert [(one.code, one.held, one.tried) for one in report.objects] == [("a", 2, 3), ("b", 0, 2), ("c d", 0, 1)]
    assert report.osr == pytest.approx(1 / 3)
    assert report.paths == [run / "verdicts" / "bench" / f"{code}.h5" for code in ("a", "b", "c d")]
    shown = str(report).splitlines()
    assert shown[0].split()[:2] == ["object", "GSR"] and shown[1].startswith("a ") and "not_finite 1" in shown[3]
    assert shown[4] == "protocol bench: GSR 33.3% (2 of 6 grasps), OSR 33%"
    assert str(bench.validate(run, exp_name="other")) == str(report), "path= names the same folder"


@pytest.mark.slow
def test_neither_threads_nor_a_second_time_change_a_byte(bench):
    path = bench.file(bench.folder / "box.h5", [HOLDS, not_finite(), MISSES, palms(0.01), DEEP])
    images = [bench.validate(path, validators=threads).paths[0].read_bytes() for threads in (1, 3, 0)]
    assert images[0] == images[1] == images[2]


def test_only_the_caller_prints(bench, capfd):
    bench.validate(bench.file(bench.folder / "box.h5", [HOLDS]))
    assert capfd.readouterr() == ("", "")


@pytest.mark.slow
def test_no_gpu_is_asked_for(bench, monkeypatch):
    def asked(*_: object) -> None:
        raise AssertionError("a GPU was looked for")

    monkeypatch.setattr(devices, "visible_gpus", asked)
    monkeypatch.setattr("torch.cuda.init", asked)
    path = bench.file(bench.folder / "box.h5", [HOLDS])
    report = bench.validate(path, gpus=[7], kernels="warp", filter=quick_conf.load("filter=energy").filter)
    assert report.osr == 1.0


def test_a_file_without_grasps_is_an_object_that_has_none(bench):
    made = {
        name: column if name.startswith("curve/") else column[:0] for name, column in bench.columns([HOLDS]).items()
    }
    path = bench.write(bench.folder / "box.h5", made, "box", bench.mesh("box"))
    report = bench.validate(path)
    assert report.osr == 0.0 and "GSR - (0 of 0 grasps)" in str(report)
    with h5py.File(report.paths[0]) as file:
        assert file["verdict/held"].shape == (0, 6)


def test_grasps_of_another_hand_are_refused_by_both_names(bench):
    path = bench.file(bench.folder / "box.h5", [HOLDS], hand=replace(bench.hand, name="claws"))
    bench.refused("hand 'claws'.*hand=palms", path)
    names = ("bend", "twist")
    path = bench.file(bench.folder / "box.h5", [HOLDS], hand=replace(bench.hand, joint_names=names))
    bench.refused("hand 'palms' with 2 joints.*hand=palms with 1", path)


def test_other_candidates_of_the_hand_are_refused_and_another_rounding_is_not(bench):
    hand = bench.hand
    moved = replace(hand, candidate_position=hand.candidate_position + np.float32(1e-3))
    path = bench.file(bench.folder / "box.h5", [HOLDS], hand=moved)
    bench.refused("other contact candidates of the hand 'palms'", path)
    other = replace(hand, candidate_link=np.full_like(hand.candidate_link, "root"))
    bench.refused("other contact candidates", bench.file(path, [HOLDS], hand=other))
    rounded = replace(hand, sha256="0" * 64, candidate_position=hand.candidate_position + np.float32(1e-7))
    assert bench.validate(bench.file(path, [HOLDS], hand=rounded)).osr == 1.0


def test_another_mesh_is_refused_and_none_too(bench):
    path = bench.file(bench.folder / "box.h5", [HOLDS])
    bench.mesh("box", trimesh.creation.box((1.0, 1.0, 1.1)))
    bench.refused("box.h5 was made with another mesh of 'box'", path)
    (bench.objects / "box.obj").unlink()
    bench.mesh("mug")
    bench.refused("box.h5 has no usable mesh: object 'box' .*'mug'", path)


def test_a_path_that_is_nothing_is_refused(bench):
    bench.refused("gone.h5 is no grasp file and no run folder", bench.folder / "gone.h5")
    bench.refused("set path= to", exp_name="never_run")
    (bench.folder / "experiments" / "begun" / "final").mkdir(parents=True)
    bench.refused("no run folder with final files", exp_name="begun")


@pytest.mark.slow
def test_a_file_that_is_none_is_refused(bench):
    path = bench.file(bench.folder / "box.h5", [HOLDS])
    image = path.read_bytes()
    verdicts = bench.validate(path).paths[0]
    bench.refused("not a bimangrasp-grasps file", verdicts)
    for content, words in {
        b"": "is empty: copy it again, or let the command of its run mend it; wanted a grasp file$",
        b"text": "is not a readable grasp file: it is no HDF5 file; wanted one that is whole$",
        image[: len(image) // 2]: "is damaged: its end is missing; the command of its run mends it, or copy it again$",
        image[:-1]: "is damaged: its end is missing; the command of its run mends it, or copy it again$",
    }.items():
        path.write_bytes(content)
        bench.refused(rf"^\S*box.h5 {words}", path)
    path.write_bytes(image)
    with held(path):
        bench.refused(r"^\S*box.h5 is open elsewhere for writing; wait until that is through", path)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["hand/joints", "contact/candidate", "contact/normal", "object_scale"])
def test_a_file_that_lacks_a_column_or_half_of_it_is_refused(bench, name):
    path = bench.file(bench.folder / "box.h5", [HOLDS, HOLDS])
    with h5py.File(path, "r+") as file:
        half = file[name][:1]
        del file[name]
    lacking = name.rpartition("/")[2]
    bench.refused(f"not a readable grasp file: it lacks {lacking}; wanted one that is whole", path)
    with h5py.File(path, "r+") as file:
        file[name] = half
    bench.refused(f"not a readable grasp file: {name}|not a readable grasp file: .* has shape", path)


def test_a_newer_format_is_refused_as_such(bench):
    path = bench.file(bench.folder / "box.h5", [HOLDS])
    with h5py.File(path, "r+") as file:
        file.attrs["format_version"] = 99
    bench.refused(r"^\S*box.h5 has format version 99.*use the newer program", path)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("contact/candidate", -1, "contact/candidate is not among 0 to 3"),
        ("contact/candidate", 4, "contact/candidate is not among 0 to 3"),
        ("object_scale", 0.0, "object_scale is not a size above 0"),
        ("object_scale", np.nan, "object_scale is not a size above 0"),
        ("hand/rotation", 2.0, "hand/rotation is no proper rotation"),
    ],
)
def test_values_that_no_optimizer_writes_are_refused_with_their_row(bench, name, value, message):
    path = bench.file(bench.folder / "box.h5", [HOLDS, not_finite(), HOLDS])
    with h5py.File(path, "r+") as file:
        file[name][2, ...] = value
    bench.refused(f"box.h5: {message} in 1 of 3 grasps, first in grasp 2", path)


def test_a_rotation_that_is_not_finite_is_counted(bench):
    endless = HOLDS._replace(rotation=np.full((2, 3, 3), np.inf))
    (row,) = bench.validate(bench.file(bench.folder / "box.h5", [endless, HOLDS])).objects
    assert (row.held, row.reasons) == (1, {"not_finite": 1})


def test_a_mirrored_hand_is_refused(bench):
    mirrored = HOLDS._replace(rotation=HOLDS.rotation * np.array([1.0, 1.0, -1.0]))
    bench.refused("no proper rotation in 1 of 2", bench.file(bench.folder / "box.h5", [HOLDS, mirrored]))


def test_nothing_is_simulated_before_every_door_is_passed(bench, monkeypatch):
    run = bench.folder / "experiments" / "kitchen"
    for code in ("a", "b"):
        bench.file(run / "final" / f"{code}.h5", [HOLDS], code)
    (run / "final" / "b.h5").write_bytes(b"damaged")
    monkeypatch.setattr(validate.evaluate, "evaluate_grasps", lambda *_: pytest.fail("it simulates"))
    bench.refused("b.h5 is not a readable grasp file", exp_name="kitchen")
    assert not (run / "verdicts").exists()


def test_a_dry_run_is_refused(bench):
    bench.refused("dry_run=true with mode=validate", bench.file(bench.folder / "box.h5", [HOLDS]), dry_run=True)


def corner() -> trimesh.Trimesh:
    """A square without one of its quarters, 1 m high: not convex."""
    outline = np.array([[0, 0], [1, 0], [1, 1], [0.5, 1], [0.5, 0.5], [0, 0.5]])
    vertices = np.concatenate([np.insert(outline, 2, height, axis=1) for height in (0.0, 1.0)])
    lid = np.array([[6, 7, 10], [6, 10, 11], [7, 8, 10], [8, 9, 10]])
    walls = [[(k, (k + 1) % 6, (k + 1) % 6 + 6), (k, (k + 1) % 6 + 6, k + 6)] for k in range(6)]
    return trimesh.Trimesh(vertices, np.concatenate([lid, lid[:, ::-1] - 6, *walls]))


def test_without_coacd_a_mesh_that_is_not_convex_is_refused(bench, monkeypatch):
    bench.mesh("corner", corner())
    path = bench.file(bench.folder / "corner.h5", [HOLDS], "corner")
    monkeypatch.setattr(decomposition, "find_spec", lambda _: None)
    bench.refused(r"corner.obj is not convex.*pip install -e '.*\[objects\]'", path)
    assert not (bench.folder / "corner.bench.h5").exists()


def test_a_mesh_that_cannot_be_decomposed_is_refused_by_name(bench, monkeypatch):
    bench.mesh("corner", corner())
    path = bench.file(bench.folder / "corner.h5", [HOLDS], "corner")
    (bench.folder / "coacd.py").write_text("raise RuntimeError('no manifold')")
    monkeypatch.setenv("PYTHONPATH", str(bench.folder))
    bench.refused("corner.obj cannot be decomposed.*no manifold", path)


@pytest.fixture
def made(monkeypatch) -> list[str]:
    """The meshes whose pieces are made anew."""
    seen: list[str] = []

    def watched(mesh: str, config: object) -> convex_pieces.Pieces:
        seen.append(Path(mesh).name)
        return convex_pieces.convex_pieces(mesh, config)

    monkeypatch.setattr(store_pieces, "convex_pieces", watched)
    return seen


def cached(bench: Bench) -> Path:
    (file,) = (bench.folder / "cache").rglob("*.npz")
    return file


@pytest.mark.slow
def test_pieces_are_made_once(bench, made):
    path = bench.file(bench.folder / "box.h5", [HOLDS])
    image = bench.validate(path).paths[0].read_bytes()
    assert bench.validate(path).paths[0].read_bytes() == image and made == ["box.obj"]
    bench.validate(path, pieces=replace(bench.config.pieces, seed=2))
    assert made == ["box.obj"] * 2, "other settings, other pieces"


@pytest.mark.slow
@pytest.mark.parametrize("damage", [b"", b"not a zip", None])
def test_damaged_pieces_are_made_again(bench, made, damage):
    path = bench.file(bench.folder / "box.h5", [HOLDS])
    image = bench.validate(path).paths[0].read_bytes()
    file = cached(bench)
    whole = file.read_bytes()
    file.write_bytes(damage if damage is not None else whole[:-30])
    assert bench.validate(path).paths[0].read_bytes() == image
    assert file.read_bytes() == whole and made == ["box.obj"] * 2


@pytest.mark.slow
def test_a_cache_that_cannot_be_written_only_costs_time(bench, made):
    (bench.folder / "cache").write_text("in the way")
    path = bench.file(bench.folder / "box.h5", [HOLDS])
    assert bench.validate(path).osr == bench.validate(path).osr == 1.0
    assert made == ["box.obj"] * 2


@pytest.mark.slow
def test_other_pieces_beside_the_mesh_are_other_pieces(bench):
    mesh = bench.objects / "cut" / "coacd" / "decomposed.obj"
    mesh.parent.mkdir(parents=True)
    given = mesh.with_name("coacd_convex_piece_0.obj")
    for path in (mesh, given):
        trimesh.creation.box((1.0, 1.0, 1.0)).export(path)
    path = bench.write(bench.folder / "cut.h5", bench.columns([HOLDS]), "cut", mesh)
    with h5py.File(bench.validate(path).paths[0]) as file:
        assert file.attrs["pieces_source"] == b"coacd files"
    given.unlink()
    with h5py.File(bench.validate(path).paths[0]) as file:
        assert file.attrs["pieces_source"] == b"convex"


@pytest.fixture
def released(bench: Bench, shared: Path) -> Callable[..., Path]:
    """released(order, count) writes a result file of the release with its joints in this order."""
    root = shared / "data" / "bimangrasp_hands"
    bench.config = replace(
        bench.config,
        hand=replace(quick_conf.load("hand=release").hand, root=str(root), surface_points=64),
        object=replace(bench.config.object, surface_points=64, surface_samples_per_point=4),
    )
    names = load_hands(bench.config.hand)[0].joint_names
    lower, upper = (
        np.stack([getattr(hand, f"joint_{end}") for hand in load_hands(bench.config.hand)])
        for end in ("lower", "upper")
    )
    bench.mesh("box")

    def write(order: list[str] | None = None, count: int = 3, **changes: object) -> Path:
        draw = np.random.default_rng(0)
        order = list(order or names)
        joints = lower + draw.uniform(0.2, 0.8, (count, 2, len(names))) * (upper - lower)
        joints = joints[:, :, [names.index(name) for name in order]]
        translation = np.tile([[-0.3, 0.0, 0.0], [0.3, 0.0, 0.0]], (count, 1, 1))
        poses = Poses(translation, np.tile(np.eye(3), (count, 2, 1, 1)), joints)
        results = ReleasedResults(poses, None, tuple(order), np.full(count, 0.15), {"energy": np.ones(count)})
        path = bench.folder / "box.npy"
        path.write_bytes(results_image(results._replace(**changes)))
        return path

    write.names = names
    return write


@pytest.mark.slow
def test_a_result_file_of_the_release_is_judged(bench, released):
    report = bench.validate(released())
    assert report.paths == [bench.folder / "box.bench.h5"]
    (row,) = report.objects
    assert (row.code, row.tried, row.reasons) == ("box", 3, {"moved": 3})
    with h5py.File(report.paths[0]) as file:
        assert file.attrs["hand_name"] == b"release" and file["pose/joints"].shape == (3, 3, 2, 22)
        assert json.loads(file.attrs["joint_names"]) == list(released.names)


@pytest.mark.slow
def test_joints_of_the_release_go_by_their_names(bench, released):
    with h5py.File(bench.validate(released()).paths[0]) as file:
        joints, displacement = file["pose/joints"][...], file["verdict/displacement"][...]
    turned = sorted(released.names, key=lambda name: hashlib.sha256(name.encode()).hexdigest())
    assert turned != list(released.names)
    with h5py.File(bench.validate(released(turned)).paths[0]) as file:
        np.testing.assert_array_equal(file["pose/joints"][...], joints)
        np.testing.assert_array_equal(file["verdict/displacement"][...], displacement)


@pytest.mark.slow
def test_a_result_with_nan_is_counted(bench, released):
    path = released()
    entries = np.load(path, allow_pickle=True)
    entries[1]["qpos_left"]["WRJTx"] = float("nan")
    np.save(path, entries)
    (row,) = bench.validate(path).objects
    assert row.reasons == {"not_finite": 1, "moved": 2}


@pytest.mark.slow
def test_results_that_cannot_be_used_are_refused(bench, released):
    bench.refused("box.npy has no grasps", released(count=0))
    bench.refused("object_scale is not a size above 0 in 1 of 3", released(scale=np.array([0.15, -1.0, 0.15])))
    path = released()
    bench.refused("cup.npy has no usable mesh: object 'cup'", path.rename(bench.folder / "cup.npy"))
    path.write_bytes(b"no pickle")
    bench.refused("result file .*box.npy", path)


def test_results_of_the_release_want_its_hand(bench):
    bench.mesh("box")
    names = ("robot0:FFJ3",)
    poses = Poses(np.zeros((1, 2, 3)), np.tile(np.eye(3), (1, 2, 1, 1)), np.zeros((1, 2, 1)))
    (bench.folder / "box.npy").write_bytes(results_image(ReleasedResults(poses, None, names, np.full(1, 0.15), {})))
    bench.refused(
        "hand=palms: it lacks bend and has robot0:FFJ3; .*=release",
        bench.folder / "box.npy",
    )
