from __future__ import annotations

import os
import pickle
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from bimangrasp.errors import InputError
from bimangrasp.interop.bimangrasp_results import RELEASED, ReleasedResults, read_results, results_image
from bimangrasp.poses import Poses

JOINTS = ("robot0:FFJ3", "robot0:FFJ2", "robot0:THJ0")
ROOT = ("WRJTx", "WRJTy", "WRJTz", "WRJRx", "WRJRy", "WRJRz")


def qpos(seed: float) -> dict[str, float]:
    return {name: seed + 0.1 * k for k, name in enumerate((*JOINTS, *ROOT[3:], *ROOT[:3]))}


def grasp(seed: float, **more: object) -> dict:
    hands = {
        name: qpos(seed + k) for k, name in enumerate(("qpos_left", "qpos_right", "qpos_left_st", "qpos_right_st"))
    }
    return {"scale": 0.15, **hands, "energy": 2.5, "E_fc": seed} | more


def save(path: Path, content: object) -> str:
    with path.open("wb") as file:
        np.save(file, content)
    return str(path)


def drawn(count: int, starts: bool = True) -> ReleasedResults:
    generator = np.random.default_rng(count)

    def poses() -> Poses:
        turns = Rotation.random(2 * count, rng=generator).as_matrix() if count else np.zeros((0, 3, 3))
        return Poses(
            generator.normal(size=(count, 2, 3)), turns.reshape(count, 2, 3, 3), generator.normal(size=(count, 2, 3))
        )

    energies = {"energy": generator.random(count), "E_fc": generator.random(count)}
    return ReleasedResults(poses(), poses() if starts else None, JOINTS, generator.random(count), energies)


def test_a_file_of_numpys_own_is_read(tmp_path):
    results = read_results(save(tmp_path / "mug.npy", [grasp(0.0), grasp(0.5)]))
    assert results.joint_names == JOINTS and results.energies.keys() == {"energy", "E_fc"}
    assert results.energies["E_fc"].tolist() == [0.0, 0.5] and results.scale.tolist() == [0.15, 0.15]
    for poses, first in ((results.poses, 0), (results.starts, 2)):
        for hand in range(2):
            values = qpos(0.5 + first + hand)
            assert poses.translation[1, hand].tolist() == [values[name] for name in ROOT[:3]]
            assert poses.joints[1, hand].tolist() == [values[name] for name in JOINTS]
            turn = Rotation.from_euler("xyz", [values[name] for name in ROOT[3:]])
            np.testing.assert_allclose(poses.rotation[1, hand], turn.as_matrix(), atol=1e-14)


@pytest.mark.parametrize("starts", [True, False])
def test_what_is_written_reads_back(tmp_path, starts):
    results = drawn(5, starts)
    (tmp_path / "mug.npy").write_bytes(results_image(results))
    found = read_results(str(tmp_path / "mug.npy"))
    assert (found.joint_names, found.unread, found.starts is None) == (JOINTS, (), not starts)
    np.testing.assert_array_equal(found.scale, results.scale)
    for name, values in results.energies.items():
        np.testing.assert_array_equal(found.energies[name], values)
    for one, other in ((found.poses, results.poses), (found.starts, results.starts)):
        if other is not None:
            np.testing.assert_array_equal(one.translation, other.translation)
            np.testing.assert_array_equal(one.joints, other.joints)
            np.testing.assert_allclose(one.rotation, other.rotation, atol=1e-14)


def test_what_is_written_is_what_the_release_reads(tmp_path):
    path = tmp_path / "mug.npy"
    path.write_bytes(results_image(drawn(2)))
    entry = np.load(path, allow_pickle=True)[1]  # as BimanGrasp's visualization.py does
    assert list(entry)[:1] == ["scale"] and set(entry["qpos_left_st"]) == {*JOINTS, *ROOT}
    assert all(type(value) is float for value in entry["qpos_right"].values())
    assert b"numpy.core" in path.read_bytes() and b"numpy._core" not in path.read_bytes()  # NumPy 1 has no _core


def test_writing_again_gives_the_same_bytes(tmp_path):
    for name in ("one.npy", "other.npy"):
        (tmp_path / name).write_bytes(results_image(drawn(3)))
    assert (tmp_path / "one.npy").read_bytes() == (tmp_path / "other.npy").read_bytes()


def test_a_file_without_grasps_has_none(tmp_path):
    for name, content in {"list.npy": [], "objects.npy": np.empty(0, object)}.items():
        results = read_results(save(tmp_path / name, content))
        assert results.poses.rotation.shape == (0, 2, 3, 3) and results.starts is None and not results.joint_names
    (tmp_path / "ours.npy").write_bytes(results_image(drawn(0)))
    assert read_results(str(tmp_path / "ours.npy")).poses.count == 0


def test_numbers_of_numpy_and_arrays_of_one_number_are_numbers(tmp_path):
    more = {"scale": np.float32(0.25), "energy": np.array([3.0], ">f4"), "E_fc": np.array(4), "steps": np.int64(7)}
    results = read_results(save(tmp_path / "mug.npy", [grasp(0.0, **more)]))
    found = {name: values.tolist() for name, values in results.energies.items()}
    assert results.scale.tolist() == [0.25] and found == {"energy": [3.0], "E_fc": [4.0], "steps": [7.0]}


def test_nan_stays_nan(tmp_path):
    entry = grasp(0.0, energy=float("nan"))
    entry["qpos_right"]["robot0:FFJ2"] = entry["qpos_left"]["WRJRx"] = float("nan")
    results = read_results(save(tmp_path / "mug.npy", [entry, grasp(1.0)]))
    assert np.isnan(results.energies["energy"]).tolist() == [True, False]
    assert np.isnan(results.poses.joints[0, 1]).tolist() == [False, True, False]
    assert np.isnan(results.poses.rotation[0, 0]).any() and results.poses.finite.tolist() == [False, True]


def test_what_is_no_number_is_left_out_and_named(tmp_path):
    results = read_results(save(tmp_path / "mug.npy", [grasp(0.0, object_code="mug", contacts=[1, 2], mask=np.eye(2))]))
    assert results.unread == ("object_code", "contacts", "mask")


class Calls:
    """Pickles as a call."""

    def __init__(self, call, *args):
        self.call = call, args

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize(
    ("call", "name"),
    [
        (lambda path: Calls(os.system, f"touch {path}"), "posix.system"),
        (lambda path: Calls(eval, f"open({str(path)!r}, 'w')"), "builtins.eval"),
        (lambda path: Calls(open, str(path), "w"), "open"),
        (lambda path: Calls(getattr, "mug", "upper"), "builtins.getattr"),
        (lambda path: Calls(np.load, str(path)), "numpy.load"),
        (lambda path: Calls(np.save, str(path), 1), "numpy.save"),
        (lambda path: Calls(np.testing.assert_equal, 1, 1), "numpy.testing"),
        (lambda path: Path("mug"), "pathlib"),
        (lambda path: np.random.default_rng(1), "numpy.random"),
    ],
)
def test_whatever_else_a_pickle_names_is_refused_and_not_run(tmp_path, call, name):
    made = tmp_path / "made"
    for entry in (call(made), grasp(0.0, energy=call(made))):
        path = save(tmp_path / "mug.npy", [entry, 1])
        with pytest.raises(InputError, match=name):
            read_results(path)
        assert not made.exists()


def raw(tmp_path: Path, image: bytes, shape: tuple[int, ...] = (1,)) -> str:
    path = tmp_path / "raw.npy"
    with path.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, {"descr": "|O", "fortran_order": False, "shape": shape})
        file.write(image)
    return str(path)


def array_of(entry: bytes) -> bytes:
    """The pickle of an object array with one entry, given as opcodes."""
    return b"cnumpy.core.multiarray\n_reconstruct\n(tR(I1\n(I1\ntcnumpy\ndtype\n(S'O'\ntRI00\n](" + entry + b"etb."


def test_arrays_written_by_hand_are_read(tmp_path):
    for entry, what in {b"I7\n": "int", b"cnumpy\ndtype\n(S'f8'\ntR": "_Dtype"}.items():
        with pytest.raises(InputError, match=f"grasp 0 is a {what}"):
            read_results(raw(tmp_path, array_of(entry)))


@pytest.mark.parametrize(
    "entry",
    [
        b"cnumpy\ndtype\n(S'f8'\ntR}S'code'\nS'O'\nsb",  # state of a type that is no tuple
        b"cnumpy\ndtype\n(S'V8'\ntR",
        b"cnumpy\ndtype\n(S'f8'\ntR(I3\nS'|'\nNS'x'\nNI-1\nI-1\nI0\ntb",  # a type with fields
        b"cnumpy\ndtype\n(S'f8'\ntR(I3\nS'!'\nNNNI-1\nI-1\nI0\ntb",
        b"cnumpy\nndarray\n(I9\ntR",
        b"cnumpy\nndarray\n)\x81",
        b"cnumpy\ndtype\n}S'_make'\nNsb",  # changes what stands for numpy.dtype
        b"cnumpy\ndtype\n(N}S'_make'\nNstb",
        b"cnumpy.core.multiarray\nscalar\n(I1\nC\x01xtR",
        b"cnumpy.core.multiarray\nscalar\n(cnumpy\ndtype\n(S'f8'\ntRC\x04AAAAtR",
        b"cnumpy.core.multiarray\nscalar\n(cnumpy\ndtype\n(S'O'\ntRC\x08AAAAAAAAtR",  # bytes as an object's address
        b"cnumpy.core.multiarray\n_reconstruct\n(tR(I1\n(I1\ntNI00\n]tb",
        b"Pid\n",
        b"]h\x09",
    ],
)
def test_a_pickle_that_lies_about_its_arrays_is_refused(tmp_path, entry):
    with pytest.raises(InputError, match="raw.npy cannot be read"):
        read_results(raw(tmp_path, array_of(entry)))


@pytest.mark.parametrize(
    "image",
    [
        b"",
        b".",
        b"(" * 100,
        b"I7\n.",
        b"].",
        b"cnumpy.core.multiarray\n_reconstruct\n(tR(I1\n(I1\ntcnumpy\ndtype\n(S'O'\ntRI00\nC\x08AAAAAAAAtb.",
    ],
)
def test_a_pickle_of_something_else_is_refused(tmp_path, image):
    with pytest.raises(InputError, match="raw.npy cannot be read"):
        read_results(raw(tmp_path, image))


def test_a_header_of_another_length_is_refused(tmp_path):
    with pytest.raises(InputError, match="its header says 1000000000000 entries"):
        read_results(raw(tmp_path, array_of(b"I7\n"), (10**12,)))


def test_stand_ins_are_not_changed_by_what_was_read(tmp_path):
    with pytest.raises(InputError):
        read_results(raw(tmp_path, b"cnumpy\ndtype\n(N}S'_make'\nNstb."))
    assert read_results(save(tmp_path / "mug.npy", [grasp(0.0)])).poses.count == 1


@pytest.mark.slow
@given(st.floats(0, 1, exclude_max=True))
def test_a_file_that_is_cut_off_is_refused(tmp_path_factory, share):
    folder = tmp_path_factory.mktemp("cut")
    path = save(folder / "mug.npy", [grasp(0.0)])
    image = Path(path).read_bytes()
    Path(path).write_bytes(image[: int(share * len(image))])
    with pytest.raises(InputError, match="cannot be read|is empty"):
        read_results(path)


def without(key: str) -> dict:
    return {name: value for name, value in grasp(0.0).items() if name != key}


@pytest.mark.parametrize(
    ("entries", "words"),
    [
        ([1.5, 2], "grasp 0 is a float; wanted a dict"),
        ([without("qpos_right"), 1], "grasp 0 lacks qpos_right"),
        ([without("scale"), 1], "grasp 0 lacks scale"),
        ([without("qpos_left_st"), 1], "grasp 0 lacks qpos_left_st"),
        ([grasp(0.0), without("E_fc")], "grasp 1 lacks E_fc; wanted the keys of grasp 0"),
        ([grasp(0.0, qpos_left=3.5), 1], "grasp 1 is a int"),
        ([grasp(0.0, qpos_left=3.5)], "grasp 0, qpos_left is a float; wanted a dict"),
        (
            [grasp(0.0, qpos_right={"WRJTx": 1.0})],
            "qpos_right lacks WRJTy, WRJTz, WRJRx, WRJRy, WRJRz and 3 more; wanted the same",
        ),
        ([grasp(0.0, qpos_right=qpos(0.0) | {"robot0:LFJ4": 1.0})], "grasp 0, qpos_right has robot0:LFJ4; wanted the"),
        ([grasp(0.0, qpos_left=qpos(0.0) | {"WRJTx": "far"})], "grasp 0, qpos_left, WRJTx is a str; wanted a number"),
        ([grasp(0.0, scale="large")], "grasp 0, scale is a str"),
        ([grasp(0.0), grasp(1.0, energy=[1])], "grasp 1, energy is a list"),
        ([grasp(0.0, scale=10**400)], "grasp 0, scale is a int"),
    ],
)
def test_dicts_of_another_form_are_refused_by_grasp_and_key(tmp_path, entries, words):
    content = np.empty(len(entries), object)
    content[:] = entries
    with pytest.raises(InputError, match=words):
        read_results(save(tmp_path / "mug.npy", content))


@pytest.mark.parametrize(
    ("row", "hand", "less", "more", "words"),
    [
        (0, "qpos_left", "robot0:RFJ1", {}, "grasp 0, qpos_left lacks robot0:RFJ1; wanted the same"),
        (0, "qpos_right", "robot0:RFJ1", {}, "grasp 0, qpos_right lacks robot0:RFJ1; wanted the same"),
        (1, "qpos_left", "robot0:RFJ1", {}, "grasp 1, qpos_left lacks robot0:RFJ1; wanted the same"),
        (0, "qpos_left", "", {"elbow": 1.0}, "grasp 0, qpos_left has elbow; wanted the same"),
        (0, "qpos_left", "robot0:RFJ1", {"elbow": 1.0}, "qpos_left lacks robot0:RFJ1 and has elbow; wanted the same"),
    ],
)
def test_a_joint_of_one_hand_that_lacks_or_is_not_meant_is_named_alone(tmp_path, row, hand, less, more, words):
    whole = dict.fromkeys((*ROOT, *RELEASED), 0.0)
    entries = [{"scale": 0.15, "qpos_left": dict(whole), "qpos_right": dict(whole)} for _ in range(2)]
    entries[row][hand] = {name: value for name, value in whole.items() if name != less} | more
    with pytest.raises(InputError, match=words):
        read_results(save(tmp_path / "mug.npy", entries))


def test_other_arrays_are_refused_with_what_they_are(tmp_path):
    with pytest.raises(InputError, match="float64 of shape \\(3, 2\\)"):
        read_results(save(tmp_path / "numbers.npy", np.zeros((3, 2))))
    with pytest.raises(InputError, match="of shape \\(\\)"):
        read_results(save(tmp_path / "dict.npy", grasp(0.0)))
    with pytest.raises(InputError, match="is not there"):
        read_results(str(tmp_path / "gone.npy"))
    (tmp_path / "bare.npy").write_bytes(pickle.dumps([grasp(0.0)]))
    with pytest.raises(InputError, match="bare.npy cannot be read"):
        read_results(str(tmp_path / "bare.npy"))
