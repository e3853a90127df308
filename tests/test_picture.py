"""A picture shows both hands and the object, in their colors, as the file has them. In processes of their own, since
MuJoCo binds to OpenGL when it is imported."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from scene import shadow_hands

from bimangrasp import builtin
from bimangrasp.files.formats import final_image
from bimangrasp.files.header import Ending, HandTable, Header
from bimangrasp.files.schema import FINAL_FIELDS, shape_of
from bimangrasp.objects.model import check_mesh
from bimangrasp.visualization.pictures import PROBE

pytestmark = pytest.mark.slow  # its fixture makes and draws a run


ROOT = Path(__file__).resolve().parents[1]
WIDTH, HEIGHT = 96, 80
DRAW = """
import json, sys
from pathlib import Path
import numpy as np
from benchmarks import picture
from bimangrasp.files.scene_export import COLORS
# fewer views than a picture has: without a GPU they take long
search = picture.THOROUGH_SEARCH._replace(azimuths=range(0, 360, 60), elevations=(-8, -32))
source, folder, width, height = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
(grasp,) = picture.grasps_of(source, picture.read_rows(source, None, 1), None, [])
panel, parts = picture.render(grasp, width, height, search)
np.savez(folder / "panel.npz", panel=panel, parts=parts, colors=np.array(COLORS)[:, :3])
arguments = [str(source), "--rows", "1", "0", "--out", str(folder / "two.png"), "--size", str(2 * width), str(height)]
assert picture.main(arguments, search) == 0
print(json.dumps(grasp.source))
"""


def python(folder, code, *arguments):
    environment = {"MUJOCO_GL": "egl", **os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)


def write_toy(path, shift=0.0):
    """Two grasps of the bowl between both palms, the second one of lower energy; its contacts moved by `shift`, m."""
    hands = shadow_hands(torch.float32)
    report = check_mesh(str(builtin.OBJECT_ROOT / "bowl.obj"))
    links = np.array([[hands.names[i] for i in row] for row in hands.candidate_link])
    table = HandTable("shadow", "ab" * 32, hands.joint_names, links, hands.candidate_position.numpy())
    header = Header("bowl", 0, report.sha256, table, {}, {}, {})
    sizes = {"N": 2, "J": hands.joint_count, "C": 4, "R": 1, "P": 1}
    columns = {f.name: np.zeros(shape_of(f, sizes), f.dtype) for f in FINAL_FIELDS}
    columns["hand/rotation"][:] = [[0, 1, 0], [-1, 0, 0], [0, 0, 1]]  # the back of the right hand along +x
    columns["hand/translation"][:] = [[-0.11, 0.0, -0.1], [0.11, 0.0, -0.1]]
    columns["hand/joints"][:] = hands.joint_mean.numpy()
    columns["contact/candidate"][:] = np.arange(0, 40, 10)
    columns["object_scale"][:], columns["energy/total"][:] = 0.16, [2.0, 1.0]
    pose = [torch.as_tensor(columns[f"hand/{name}"]) for name in ("rotation", "translation", "joints")]
    candidate = torch.as_tensor(columns["contact/candidate"]).long()
    columns["contact/point"][:] = hands.contact_points(hands.frames_from_root(*pose), candidate).numpy() + shift
    path.write_bytes(final_image(header, Ending({}, 2, True, "quota"), columns))


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    """The folder with a panel and a PNG of the toy."""
    folder = tmp_path_factory.mktemp("picture")
    probe = python(folder, PROBE)
    if probe.returncode:
        pytest.skip(f"needs OpenGL without a window, and there is none: {probe.stderr.strip().splitlines()[-1]}")
    write_toy(folder / "bowl.h5")
    done = python(folder, DRAW, folder / "bowl.h5", folder, WIDTH, HEIGHT)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == "bowl.h5 row 1", "not the one of lowest energy"
    return folder


def test_both_hands_and_the_object_are_seen_in_their_colors(drawn):
    with np.load(drawn / "panel.npz") as file:
        panel, parts, colors = file["panel"], file["parts"], file["colors"]
    assert panel.shape == (HEIGHT, WIDTH, 3) and parts.shape == (HEIGHT, WIDTH)
    for part, color in enumerate(colors):
        seen = parts == part
        assert seen.mean() > 0.03, f"part {part} has {seen.sum()} pixels"
        light = panel[seen].mean(axis=0)
        likeness = [light @ other / np.linalg.norm(other) for other in colors]
        assert np.argmax(likeness) == part, f"part {part} looks {light}, its color is {color}"
    assert panel[parts == -1].mean() > 235, "the background is not light"


def test_the_grasp_fills_its_panel_and_stays_inside(drawn):
    with np.load(drawn / "panel.npz") as file:
        rows, columns = (np.flatnonzero((file["parts"] >= 0).any(axis=axis)) for axis in (1, 0))
    assert rows[0] > 0 and rows[-1] < HEIGHT - 1 and columns[0] > 0 and columns[-1] < WIDTH - 1
    assert max(np.ptp(rows) / HEIGHT, np.ptp(columns) / WIDTH) > 0.85


def test_the_png_holds_a_panel_for_each_row(drawn):
    image = Image.open(drawn / "two.png")
    pixels = np.asarray(image.convert("RGB"))
    with np.load(drawn / "panel.npz") as file:
        assert np.array_equal(pixels, np.concatenate([file["panel"]] * 2, axis=1))


def test_nothing_else_is_written(drawn):
    assert {path.name for path in drawn.iterdir()} == {"bowl.h5", "panel.npz", "two.png"}


def test_hands_that_are_not_where_the_file_has_its_contacts_are_refused(drawn, tmp_path):
    write_toy(tmp_path / "bowl.h5", shift=1e-3)
    done = python(tmp_path, DRAW, tmp_path / "bowl.h5", tmp_path, WIDTH, HEIGHT)
    assert done.returncode and "does not have its contacts" in done.stderr
