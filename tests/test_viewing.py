"""mode=view: what the page of a run or a file shows is what its files hold, and wrong uses are refused."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest
import quick_conf
from gallery_toys import unpacked
from html_page import read_page
from toy_files import grasp_columns, header, shadow_table, write_final, write_run, write_shard

import scale
from bimangrasp.energy_terms import TERMS
from bimangrasp.errors import InputError
from bimangrasp.files.formats import rejects_image, verdict_image
from bimangrasp.files.header import RejectsEnding
from bimangrasp.files.schema import VERDICT_FIELDS, reject_fields
from bimangrasp.visualization.page import Thumbnail
from bimangrasp.visualization.pictures import why_nothing_is_drawn
from scale.settings.schema import Config
from scale.store import shards
from scale.store.path_settings import grasp_source
from scale.store.run_folder import RunFolder
from scale.viewer import page
from scale.viewer.gallery import gallery_of
from scale.viewer.page import thumbnails as draw_thumbnails


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
    monkeypatch.setattr(
        page,
        "thumbnails",
        lambda gallery, processes, most: tuple(blank if i < most else None for i in range(len(gallery.grasps))),
    )


@pytest.mark.slow
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


@pytest.mark.slow
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


@pytest.mark.slow
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


@pytest.mark.slow
def test_a_large_page_is_bounded_by_what_the_browser_draws(run):
    report = scale.view(settings(run, "view.drawn=2"))
    drawn = [picture for picture in read_page(report.path)["thumbnails"] if picture]
    assert len(drawn) == 2 and report.grasps > 2
    assert any("the browser draws" in note and "view.drawn" in note for note in report.notes)
    assert not any("view.drawn" in note for note in scale.view(settings(run)).notes)


@pytest.mark.slow
def test_a_large_run_shows_fewer_of_each_object_and_says_so(run):
    report = scale.view(settings(run, "view.most=5"))
    assert report.grasps == 4 and "at most 2 of each object, so" in str(report)
    report = scale.view(settings(run, "view.most=1"))
    assert report.grasps == 1 and "1 of 2 objects" in str(report)


@pytest.mark.slow
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


@pytest.mark.slow
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
    with pytest.raises(InputError, match="bowl.h5 has grasps of the hands 'shadow' with sha256 1111.*hand=shadow with"):
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


@pytest.mark.slow
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


@pytest.mark.slow
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


def write_rejected(run: Path) -> Path:
    """Writes three rejected grasps of the bowl, each for another reason."""
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
    return place


@pytest.mark.slow
def test_grasps_that_do_not_count_and_are_kept_are_shown_with_their_reason(run):
    place = write_rejected(run)
    for path in (run, place):
        data = read_page(scale.view(settings(path)).path)
        labels = {
            row["number"]: row["labels"] for row in data["grasps"] if "rejected" in row["source"] or path == place
        }
        assert labels == {0: ["energy/penetration"], 1: ["duplicate"], 2: ["not_finite"]}
    assert scale.view(settings(run)).grasps == 11


@pytest.mark.slow
def test_rejected_grasps_take_half_of_a_page_at_most(run):
    write_rejected(run)
    report = scale.view(settings(run, "view.most=8"))
    assert report.grasps == 2 + 2 + 2 and "at most 2 of each object and as many rejected ones" in str(report)
    assert scale.view(settings(run, "view.count=1")).grasps == 3
    assert scale.view(settings(run, "view.most=2")).grasps == 2, "the bowl alone"
    assert scale.view(settings(run, "view.rows=[0]")).grasps == 2, "rows are those of the final files"


@pytest.mark.slow
def test_rejected_grasps_alone_are_shown_too(run):
    write_rejected(run)
    shutil.rmtree(run / "final")
    (run / "dataset.h5").unlink()
    assert scale.view(settings(run)).grasps == 3


@pytest.mark.slow
def test_verdicts_on_a_final_file_are_not_taken_for_those_of_rejected_grasps(run):
    write_verdicts(run, "bowl", 5, [0] * 5)
    place = write_rejected(run)
    for path in (run, place):
        report = scale.view(settings(path))
        verdicts = {row["verdict"] for row in read_page(report.path)["grasps"] if "duplicate" in row["labels"]}
        assert verdicts == {"not tested"} and not [note for note in report.notes if "another state" in note]


@pytest.mark.slow
def test_a_damaged_file_of_rejected_grasps_is_noted(run):
    place = write_rejected(run)
    place.write_bytes(place.read_bytes()[:100])
    report = scale.view(settings(run))
    assert report.grasps == 8
    assert any("rejected/bowl.h5 cannot be read and is left out" in note for note in report.notes)


@pytest.mark.slow
def test_a_shard_says_why_its_rows_do_not_count(tmp_path):
    shard = seal(tmp_path / "run", "bowl", 0, [0.0, 0.5, 0.0, 0.5], failed=[3])
    data = read_page(scale.view(settings(shard, "filter=energy")).path)
    labels = {row["number"]: row["labels"] for row in data["grasps"]}
    assert labels == {0: ["accepted"], 1: ["energy/penetration"], 2: ["accepted"], 3: ["not_finite"]}
    data = read_page(scale.view(settings(shard, "filter=physics")).path)
    assert [row["labels"] for row in data["grasps"]] == [["not tested yet"]] * 4


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


@pytest.mark.slow
def test_thumbnails_are_drawn(run):
    fault = why_nothing_is_drawn()
    if fault:
        pytest.skip(f"needs OpenGL without a window, and there is none: {fault}")
    config = settings(run / "final" / "storage_bin.h5", "view.rows=[0,2]")
    gallery = gallery_of(config, grasp_source(config))
    assert draw_thumbnails(gallery, 1, 0) == (None, None) and draw_thumbnails(gallery, 1, 1)[1] is None
    images = [one.image for one in draw_thumbnails(gallery, 1, 600)]
    assert len(set(images)) == 2 and all(image[8:12] == b"WEBP" for image in images)
