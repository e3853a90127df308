"""mode=view: what the page of a run or a file shows is what its files hold, and wrong uses are refused."""

from __future__ import annotations

import hashlib
import json
import threading
import urllib.error
import urllib.request
from dataclasses import asdict
from pathlib import Path

import h5py
import numpy as np
import pytest
import quick_conf
import yaml
from toy_files import grasp_columns, header, shadow_table, write_final, write_run, write_shard

import scale
from bimangrasp.energy_terms import TERMS
from bimangrasp.errors import InputError
from bimangrasp.files.header import RejectsEnding
from bimangrasp.files.schema import VERDICT_FIELDS, reject_fields
from bimangrasp.files.shard_format import rejects_image, verdict_image
from bimangrasp.visualization.gallery import Thumbnail
from bimangrasp.visualization.page import read_page
from bimangrasp.visualization.page_data import unpacked
from bimangrasp.visualization.thumbnails import why_nothing_is_drawn
from scale.settings.schema import Config
from scale.store import shards, verdict_files
from scale.store.run_folder import VALIDATOR, RunFolder
from scale.viewer import gallery as galleries
from scale.viewer import page, thumbnails
from scale.viewer import server as serving


def settings(path: Path, *overrides: str) -> Config:
    config = quick_conf.load("mode=view", "hand.surface_points=16", *overrides)
    config.path = str(path)
    return config


@pytest.fixture
def run(tmp_path) -> Path:
    return write_run(tmp_path / "run")


@pytest.fixture(autouse=True)
def _quickly(monkeypatch):
    """No thumbnails: `test_thumbnails_are_drawn` draws some."""
    monkeypatch.setattr(page, "why_nothing_is_drawn", lambda: "")
    blank = Thumbnail(b"image", 30.0, -20.0)
    monkeypatch.setattr(page, "thumbnails", lambda gallery, processes: (blank,) * len(gallery.exhibits))


def test_every_row_of_a_run_is_on_its_page_with_its_numbers(run):
    report = scale.view(settings(run))
    assert report.path == run / "view" / "index.html" and (report.grasps, report.objects) == (8, 2)
    data = read_page(report.path)
    poses = unpacked(data["poses"])
    found = {}
    for number, row in enumerate(data["grasps"]):
        found[row["source"], row["number"]] = number
        assert row["labels"] == ["accepted"] and row["verdict"] == "not tested"
    assert set(found) == {("final/bowl.h5", i) for i in range(5)} | {("final/storage_bin.h5", i) for i in range(3)}
    for (source, i), number in found.items():
        with h5py.File(run / source) as file:
            shown = data["grasps"][number]
            assert shown["energies"] == {term: float(file[f"energy/{term}"][i]) for term in TERMS}
            assert {name: shown[name] for name in ("seed", "round", "row")} == {
                name: int(file[name][i]) for name in ("seed", "round", "row")
            }
            for stage, group in ((0, "initial"), (2, "hand")):
                np.testing.assert_array_equal(poses[number, stage, :, :3], file[f"{group}/translation"][i])
                np.testing.assert_array_equal(poses[number, stage, :, 7:], file[f"{group}/joints"][i])
            assert np.isnan(poses[number, [1, 3]]).all()
    assert str(report).endswith("open it in a browser")


def test_rows_are_chosen_as_asked(run):
    with h5py.File(run / "final" / "bowl.h5") as file:
        order = np.argsort(file["energy/total"][...]).tolist()

    def rows(*overrides: str) -> list[int]:
        config = settings(run / "final" / "bowl.h5", *overrides)
        data = read_page(scale.view(config).path)
        return [row["number"] for row in data["grasps"]]

    assert rows() == order
    assert rows("view.count=2") == order[:2]
    assert rows("view.count=3", "view.choose=even") == [order[0], order[2], order[4]]
    assert rows("view.count=2", "view.choose=first") == [0, 1]
    assert rows("view.rows=[4,0]") == [4, 0]
    with pytest.raises(InputError, match=r"view.rows has 5; .*bowl.h5 has rows 0 to 4"):
        rows("view.rows=[1,5]")


def test_objects_are_chosen_as_asked(run):
    def codes(*overrides: str) -> set[str]:
        return {row["code"] for row in read_page(scale.view(settings(run, *overrides)).path)["objects"]}

    assert codes() == {"bowl", "storage_bin"}
    assert codes("view.objects=b*") == codes("view.objects=[bowl]") == {"bowl"}
    for asked in ("view.objects=[bowl,mug]", "view.objects=x*"):
        with pytest.raises(InputError, match=r"view.objects has .*; this run has 'bowl', 'storage_bin'"):
            codes(asked)
    with pytest.raises(InputError, match=r"view.objects=\[1\] is out of range"):
        codes("view.objects=[1]")


def test_a_large_run_shows_fewer_of_each_object_and_says_so(run):
    report = scale.view(settings(run, "view.most=8"))
    assert report.grasps == 4 and "at most 2 of each object" in str(report)
    report = scale.view(settings(run, "view.most=1"))
    assert report.grasps == 1 and "1 of 2 objects" in str(report)


def test_the_page_lies_beside_a_file_and_may_be_made_again(run, tmp_path):
    config = settings(run / "final" / "bowl.h5")
    first = scale.view(config)
    assert first.path == run / "final" / "bowl.html"
    assert scale.view(config).size == first.size, "the page of a run that grows is made again and again"
    config.out = str(tmp_path / "mine.html")
    assert scale.view(config).path == tmp_path / "mine.html"
    (tmp_path / "mine.html").write_text("my notes")
    with pytest.raises(InputError, match="is there already and is no page of mode=view"):
        scale.view(config)
    assert (tmp_path / "mine.html").read_text() == "my notes"


def test_what_cannot_be_shown_is_refused(run, tmp_path):
    with pytest.raises(InputError, match="is not there; wanted a grasp file"):
        scale.view(settings(tmp_path / "nowhere"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="has no grasps to show yet"):
        scale.view(settings(tmp_path / "empty"))
    with pytest.raises(InputError, match="leave dry_run out"):
        scale.view(settings(run, "dry_run=true"))
    with h5py.File(run / "final" / "bowl.h5", "r+") as file:
        file.attrs["mesh_sha256"] = np.bytes_("11" * 32)
    with pytest.raises(InputError, match="was made with another mesh of 'bowl'"):
        scale.view(settings(run))
    with h5py.File(run / "final" / "bowl.h5", "r+") as file:
        file.attrs["hand_sha256"] = np.bytes_("11" * 32)
    with pytest.raises(InputError, match="has grasps of other hands"):
        scale.view(settings(run / "final" / "bowl.h5"))


def write_verdicts(run: Path, code: str, rows: int, reasons: list[int]) -> dict:
    """Writes what mode=validate says of a final file and returns its columns."""
    judged = write_final(run / "judged.h5", code, rows, seed=9, is_judged=True)
    columns = {f.name: judged[f.name] for f in VERDICT_FIELDS}
    columns["pose/rotation"] = np.broadcast_to(np.eye(3, dtype=np.float32), columns["pose/rotation"].shape).copy()
    columns["verdict/reason"][:] = reasons
    image = (run / "final" / f"{code}.h5").read_bytes()
    place = RunFolder(run).judgment("bench", code)
    place.parent.mkdir(parents=True)
    place.write_bytes(verdict_image({"grasps_sha256": hashlib.sha256(image).hexdigest()}, columns))
    (run / "judged.h5").unlink()
    return columns


def test_verdicts_of_mode_validate_give_reasons_and_poses(run):
    columns = write_verdicts(run, "bowl", 5, [0, 4, 2, 0, 6])
    data = read_page(scale.view(settings(run)).path)
    poses = unpacked(data["poses"])
    verdicts = {row["number"]: row["verdict"] for row in data["grasps"] if row["source"] == "final/bowl.h5"}
    assert verdicts == {0: "holds", 1: "moved", 2: "penetration", 3: "holds", 4: "lost contact"}
    for number, row in enumerate(data["grasps"]):
        if row["source"] == "final/bowl.h5":
            np.testing.assert_array_equal(poses[number, 1, :, 7:], columns["pose/joints"][row["number"], 0])
            np.testing.assert_array_equal(poses[number, 3, :, 7:], columns["pose/joints"][row["number"], 2])
            assert row["physics"]["withstood pushes"].startswith(
                f"{int((columns['verdict/held'][row['number']] > 0).sum())} of 6"
            )
        else:
            assert row["verdict"] == "not tested" and row["physics"] == {}


def test_verdicts_on_an_earlier_state_of_the_file_are_left_out_with_a_note(run):
    write_verdicts(run, "bowl", 5, [0] * 5)
    write_final(run / "final" / "bowl.h5", "bowl", 5, seed=7)
    report = scale.view(settings(run))
    assert {row["verdict"] for row in read_page(report.path)["grasps"]} == {"not tested"}
    assert any("is about another state of bowl.h5" in note for note in report.notes)


def seal(run: Path, code: str, round_id: int, penetration: list[float], failed: list[int] | None = None) -> Path:
    """Seals a shard whose rows have these depths; some of them failed."""
    columns = grasp_columns(len(penetration), round_id, shadow_table())
    for name in ("energy/force_closure", "energy/distance"):
        columns[name][:] = 0
    columns["energy/penetration"][:] = penetration
    columns["energy/total"][failed or []] = np.nan
    columns["round"][:] = columns["rounds/round"][:] = round_id
    folder = RunFolder(run)
    place = folder.place(0, 0)
    place.mkdir(parents=True, exist_ok=True)
    return shards.seal(folder, place, header(code, shadow_table()), columns)


def test_rounds_that_are_not_merged_say_what_became_of_their_rows(tmp_path):
    run = tmp_path / "run"
    seal(run, "bowl", 0, [0.0, 0.5, 0.0, 0.5], failed=[3])
    (run / "config.yaml").write_text(yaml.safe_dump(asdict(quick_conf.load("filter=energy"))))
    data = read_page(scale.view(settings(run)).path)
    labels = {row["number"]: row["labels"] for row in data["grasps"]}
    assert labels == {
        0: ["accepted", "not merged yet"],
        1: ["energy/penetration"],
        2: ["accepted", "not merged yet"],
        3: ["not_finite"],
    }
    assert all(row["source"].startswith("shards/worker_0_0/bowl.000000.") for row in data["grasps"])
    write_final(run / "final" / "bowl.h5", "bowl", 1, seed=3)  # row 0 of round 0, and the quota is reached
    data = read_page(scale.view(settings(run)).path)
    assert [row["labels"] for row in data["grasps"]] == [
        ["accepted"],
        ["energy/penetration"],
        ["beyond the quota"],
        ["not_finite"],
    ]


def test_rows_that_count_are_not_crowded_out_by_those_that_do_not(tmp_path):
    run = tmp_path / "run"
    seal(run, "bowl", 0, [0.5] * 5 + [0.0] + [0.5] * 5)
    (run / "config.yaml").write_text(yaml.safe_dump(asdict(quick_conf.load("filter=energy"))))
    data = read_page(scale.view(settings(run, "view.count=2")).path)
    assert [row["number"] for row in data["grasps"]] == [5, 0, 10]


def test_grasps_that_do_not_count_and_are_kept_are_shown_with_their_reason(run):
    hand, reasons = shadow_table(), ("not_finite", "energy/penetration", "duplicate")
    columns = grasp_columns(3, 4, hand) | {"reject/reason": np.array([1, 2, 0], np.int32)}
    columns["round"][:] = columns["rounds/round"][:] = 6
    ones = {"rounds/kept": 0, "rounds/rejected": 3}
    columns |= {name: np.array([count], np.int64) for name, count in ones.items()}
    columns |= {"rounds/shard_sha256": np.array([b"0" * 64])}
    wanted = {f.name: columns[f.name] for f in reject_fields(is_judged=False)}
    place = RunFolder(run).rejected("bowl")
    place.parent.mkdir()
    place.write_bytes(rejects_image(header("bowl", hand), RejectsEnding({}, 3, reasons), wanted))
    for path in (run, place):
        data = read_page(scale.view(settings(path)).path)
        labels = {
            row["number"]: row["labels"] for row in data["grasps"] if "rejected" in row["source"] or path == place
        }
        assert labels == {0: ["energy/penetration"], 1: ["duplicate"], 2: ["not_finite"]}
    seal(run, "bowl", 6, [0.0, 0.0, 0.0])
    assert scale.view(settings(run)).grasps == 11, "a row of a shard that another file has is there once"


def test_a_run_that_tests_its_grasps_says_which_wait_for_it(tmp_path):
    run = tmp_path / "run"
    seal(run, "bowl", 0, [0.0, 0.0])
    (run / "config.yaml").write_text(yaml.safe_dump(asdict(quick_conf.load("filter=physics"))))
    data = read_page(scale.view(settings(run)).path)
    assert [row["labels"] for row in data["grasps"]] == [["not tested yet"]] * 2


def test_verdicts_on_rounds_that_are_not_merged_give_reasons_and_poses(tmp_path):
    run = tmp_path / "run"
    shard = seal(run, "bowl", 0, [0.0] * 3)
    (run / "config.yaml").write_text(yaml.safe_dump(asdict(quick_conf.load("filter=physics"))))
    judged = write_final(tmp_path / "judged.h5", "bowl", 3, seed=9, is_judged=True)
    columns = {f.name: judged[f.name] for f in VERDICT_FIELDS}
    columns["pose/rotation"] = np.broadcast_to(np.eye(3, dtype=np.float32), columns["pose/rotation"].shape).copy()
    columns["verdict/reason"][:] = [0, 4, 6]
    about = {"code": "bowl", "round_id": 0, "shard_sha256": hashlib.sha256(shard.read_bytes()).hexdigest()}
    about |= {"acceptance_key": {}, "platform": {}, "judging": {}}
    place = RunFolder(run).place(0, 0, VALIDATOR)
    place.mkdir(parents=True)
    verdict_files.seal(RunFolder(run), place, about, columns)
    data = read_page(scale.view(settings(run)).path)
    found = {row["number"]: (row["labels"], row["verdict"]) for row in data["grasps"]}
    assert found == {
        0: (["accepted", "not merged yet"], "holds"),
        1: (["physics/moved"], "moved"),
        2: (["physics/lost_contact"], "lost contact"),
    }
    numbers = [row["number"] for row in data["grasps"]]
    np.testing.assert_array_equal(unpacked(data["poses"])[:, 1, :, 7:], columns["pose/joints"][numbers, 0])


def test_near_duplicates_are_told_from_rows_that_are_not_compared_yet(tmp_path):
    run = tmp_path / "run"
    seal(run, "bowl", 0, [0.0] * 4)
    dedup = ("dedup.translation=0.1", "dedup.rotation=0.1", "dedup.joints=0.1")
    (run / "config.yaml").write_text(yaml.safe_dump(asdict(quick_conf.load(*dedup))))
    data = read_page(scale.view(settings(run)).path)
    assert [row["labels"] for row in data["grasps"]] == [["not compared yet"]] * 4
    write_final(run / "final" / "bowl.h5", "bowl", 3, seed=0)
    with h5py.File(run / "final" / "bowl.h5", "r+") as file:
        file["row"][...] = [0, 1, 3]
    data = read_page(scale.view(settings(run)).path)
    labels = {row["row"]: row["labels"] for row in data["grasps"]}
    assert labels == {0: ["accepted"], 1: ["accepted"], 2: ["duplicate"], 3: ["accepted"]}


def test_a_damaged_shard_and_missing_settings_are_noted(run):
    seal(run, "bowl", 1, [0.0])
    bad = seal(run, "bowl", 2, [0.0])
    bad.write_bytes(bad.read_bytes()[:-1] + b"x")
    report = scale.view(settings(run))
    assert report.grasps == 9
    assert any("cannot be read and is left out" in note for note in report.notes)
    assert any("does not tell the run's filter" in note for note in report.notes)


def test_a_generated_file_shows_its_failed_rows(tmp_path):
    columns = write_shard(tmp_path / "bowl.h5", "bowl", 3)
    with h5py.File(tmp_path / "bowl.h5", "r+") as file:
        file["hand/joints"][1] = np.nan
    data = read_page(scale.view(settings(tmp_path / "bowl.h5")).path)
    assert {row["number"]: row["labels"] for row in data["grasps"]}[1] == ["not_finite"]
    assert len(columns["row"]) == len(data["grasps"]) == 3
    assert np.isnan(unpacked(data["poses"])[[row["number"] for row in data["grasps"]].index(1), 2]).all()


def test_without_opengl_the_page_says_who_draws(run, monkeypatch):
    monkeypatch.setattr(page, "why_nothing_is_drawn", lambda: "RuntimeError: no EGL")
    report = scale.view(settings(run))
    assert "note: the browser draws the thumbnails, for MuJoCo finds no OpenGL here: RuntimeError: no EGL" in str(
        report
    )
    assert set(read_page(report.path)["thumbnails"]) == {None}


def test_thumbnails_are_drawn(run):
    fault = why_nothing_is_drawn()
    if fault:
        pytest.skip(f"needs OpenGL without a window, and there is none: {fault}")
    config = settings(run / "final" / "storage_bin.h5", "view.rows=[0,2]")
    gallery = galleries.gallery_of(config, galleries.target_of(config))
    images = [one.image for one in thumbnails.thumbnails(gallery, 1)]
    assert len(set(images)) == 2 and all(image[8:12] == b"WEBP" for image in images)


@pytest.fixture
def served(run):
    """served() -> a GET's answer; what is shown is `run`."""
    config = settings(run)
    exhibition = serving.Exhibition(config, galleries.target_of(config))
    server = serving.ThreadingHTTPServer((serving.HOST, 0), serving._handler(exhibition))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield lambda path: urllib.request.urlopen(f"http://{serving.HOST}:{server.server_port}{path}").read().decode()
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_served_page_follows_the_run(run, served):
    assert "connect-src 'self'" in served("/") and '<script id="data" type="application/json">null<' in served("/")
    version, data = served("/version"), json.loads(served("/data"))
    assert len(data["grasps"]) == 8 and served("/version") == version
    seal(run, "bowl", 1, [0.0, 0.0])
    assert served("/version") != version
    assert len(json.loads(served("/data"))["grasps"]) == 10
    with pytest.raises(urllib.error.HTTPError, match="404"):
        served("/elsewhere")


def test_a_port_that_is_taken_and_a_run_that_is_not_there_are_refused(run, tmp_path):
    with serving.ThreadingHTTPServer((serving.HOST, 0), serving.BaseHTTPRequestHandler) as other:
        port = other.server_port
        with pytest.raises(InputError, match=f"port={port} cannot be served"):
            scale.view(settings(run, f"port={port}"))
    with pytest.raises(InputError, match="is not there; wanted the folder of a run"):
        scale.view(settings(tmp_path / "nowhere", "port=1234"))
