"""The page in a real browser: it loads from a file, draws, bends the hands as HandModel does, and filters."""

from __future__ import annotations

import base64
import io
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from gallery_toys import toy_gallery
from PIL import Image
from scene import shadow_hands

from bimangrasp.files.scene_export import COLORS
from bimangrasp.visualization.page import GRASP, STAGES, page, page_data

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
SIZE = {"width": 1000, "height": 620}
QUIET = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--enable-unsafe-swiftshader",  # WebGL without a GPU
    "--use-angle=swiftshader",
]
LEFT, RIGHT, OBJECT = range(3)
LIKE = 0.04  # angle between two colors, rad, below which one is a shade of the other


@pytest.fixture(scope="module")
def browser():
    api = pytest.importorskip("playwright.sync_api", reason="needs playwright, of the extra `dev`")
    path = next(filter(None, map(shutil.which, BROWSERS)), None)
    if path is None:
        pytest.skip(f"needs a browser, none of {', '.join(BROWSERS)} is there (Debian: apt install chromium)")
    with api.sync_playwright() as driver:
        started = driver.chromium.launch(executable_path=path, args=QUIET)
        yield started
        started.close()


@pytest.fixture(scope="module")
def gallery():
    return toy_gallery()


class Visit:
    """A page that is open, with all that the browser complains of and all that it asks for."""

    def __init__(self, tab, path: Path):
        self.tab, self.complaints, self.requests = tab, [], []
        tab.on("console", lambda said: self.complaints.append(said.text) if said.type == "error" else None)
        tab.on("pageerror", lambda error: self.complaints.append(str(error)))
        tab.on("request", lambda asked: self.requests.append(asked.url))
        tab.goto(path.as_uri())
        tab.wait_for_selector(".card img, .card .blank")

    def cards(self) -> list[int]:
        """The grasps whose cards are seen, from the upper left on."""
        seen = [card for card in self.tab.query_selector_all(".card") if card.is_visible()]
        seen.sort(key=lambda card: (card.bounding_box()["y"], card.bounding_box()["x"]))
        return [int(card.get_attribute("data-grasp")) for card in seen]

    def pick(self, number: int) -> None:
        self.tab.evaluate("number => pick(number)", number)

    def slide(self, value: float) -> None:
        self.tab.evaluate(
            "value => { find('slider').value = value; find('slider').dispatchEvent(new Event('input')); }", value
        )

    def frames(self) -> np.ndarray:
        """(hand, link, 4, 4) as three.js has them."""
        columns = np.array(self.tab.evaluate("scene.frames()"))
        return columns.reshape(*columns.shape[:2], 4, 4).swapaxes(-1, -2)

    def pixels(self) -> np.ndarray:
        """What the canvas shows, without what lies over it."""
        image = Image.open(io.BytesIO(self.tab.locator("#scene").screenshot(style="#legend, #tools { display: none }")))
        return np.asarray(image.convert("RGB"), float) / 255


@pytest.fixture(scope="module")
def opened(browser, gallery, tmp_path_factory):
    """The page, opened once: without a GPU the browser takes seconds to draw it."""
    path = tmp_path_factory.mktemp("page") / "page.html"
    path.write_text(page(page_data(gallery)), encoding="utf-8")
    return Visit(browser.new_page(viewport=SIZE), path)


@pytest.fixture
def visit(opened):
    opened.pick(0)
    yield opened
    assert opened.complaints == []


def shares(pixels: np.ndarray) -> list[float]:
    """How much of a picture has the color of left hand, right hand and object, in whatever light."""
    flat = pixels.reshape(-1, 3)
    flat = flat[np.linalg.norm(flat, axis=1) > 0.1]
    flat = flat / np.linalg.norm(flat, axis=1, keepdims=True)
    colors = np.array(COLORS)[:, :3]
    angles = np.arccos(np.clip(flat @ (colors / np.linalg.norm(colors, axis=1, keepdims=True)).T, -1, 1))
    nearest = angles.argmin(axis=1)
    return [float(((nearest == part) & (angles[:, part] < LIKE)).mean()) for part in range(3)]


@pytest.mark.slow
@pytest.mark.parametrize("width", [420, 1000])
def test_names_that_differ_at_their_end_can_be_told_apart(browser, gallery, tmp_path, width):
    names = [f"sem-Bottle-af3dda1cfe61d0fc9403b0d0536a04af{60 * '_scaled'}_{side}" for side in ("left", "right")]
    shapes = tuple(shape._replace(code=name) for shape, name in zip(gallery.shapes, names, strict=True))
    reasons = ("energy/penetration", "energy/force_closure", "energy/self_penetration")
    grasps = tuple(replace(grasp, labels=reasons) for grasp in gallery.grasps)
    path = tmp_path / "long.html"
    path.write_text(page(page_data(replace(gallery, shapes=shapes, grasps=grasps))), encoding="utf-8")
    tab = browser.new_page(viewport={"width": width, "height": 620})
    Visit(tab, path)
    cut = "nodes => nodes.filter(n => n.scrollWidth > n.clientWidth + 1).length"
    assert tab.eval_on_selector_all(".card, .card .words, .card .name, .card .state, #facts h2", cut) == 0
    ends = "nodes => nodes.map(n => [n.textContent, getComputedStyle(n).textOverflow, getComputedStyle(n).whiteSpace])"
    shown = tab.eval_on_selector_all(".card .name", ends)
    assert [words for words, *_ in shown] == [names[grasp.shape] for grasp in grasps]
    assert {tuple(style) for _, *style in shown} == {("clip", "normal")}
    assert tab.evaluate("document.documentElement.scrollWidth") <= width


@pytest.mark.slow
def test_a_file_shows_object_and_both_hands_and_asks_nothing_of_a_network(visit):
    left, right, body = shares(visit.pixels())
    assert left > 0.01 and right > 0.01 and body > 0.05, (left, right, body)
    visit.tab.click('.card[data-grasp="2"]')
    assert visit.tab.inner_text("#facts h2").startswith("box")
    assert min(shares(visit.pixels())) > 0.01
    assert [url for url in visit.requests if not url.startswith(("file:", "data:"))] == []


@pytest.mark.slow
def test_the_links_are_where_the_hand_model_has_them_at_every_stage(visit, gallery):
    visit.pick(1)
    one = gallery.grasps[1]
    for stage in range(len(STAGES)):
        visit.slide(stage)
        root = (torch.as_tensor(part[stage])[None] for part in (one.stages.rotation, *one.stages[::2]))
        wanted = shadow_hands().frames_from_root(*root)
        found = visit.frames()
        np.testing.assert_allclose(found[..., :3, 3], wanted.translation[0], atol=1e-5)
        np.testing.assert_allclose(found[..., :3, :3], wanted.rotation[0], atol=1e-5)


@pytest.mark.slow
def test_the_slider_stops_at_the_stages_that_are_known_and_moves_between_them(visit):
    visit.pick(1)
    ticks = [tick.inner_text() for tick in visit.tab.query_selector_all("#ticks button")]
    assert ticks == list(STAGES)
    there = visit.frames()
    visit.slide(GRASP - 0.5)
    between = visit.frames()
    visit.slide(GRASP - 1)
    before = visit.frames()
    root = [poses[:, 0, 0, 3] for poses in (before, between, there)]
    np.testing.assert_allclose(root[1], (root[0] + root[2]) / 2, atol=1e-6)
    assert np.abs(root[2] - root[0]).max() > 0.01
    visit.pick(0)
    assert [tick.inner_text() for tick in visit.tab.query_selector_all("#ticks button")] == ["start", "grasp"]


@pytest.mark.slow
def test_fingers_keep_their_length_between_two_stages(visit):
    """They turn about their joints: the distance of a link from its parent is the same everywhere."""
    visit.pick(1)

    def lengths() -> np.ndarray:
        parents = visit.tab.evaluate("data.hands.parent")[1:]
        places = visit.frames()[..., :3, 3]
        return np.linalg.norm(places[:, 1:] - places[:, parents], axis=-1)

    at_grasp = lengths()
    visit.slide(0.37)
    np.testing.assert_allclose(lengths(), at_grasp, atol=1e-6)


@pytest.mark.slow
def test_filters_hide_cards_and_order_sorts_them(visit, gallery):
    tab = visit.tab
    assert visit.cards() == [0, 1, 2, 3, 4]
    tab.select_option("#by-object", "bowl")
    assert visit.cards() == [0, 1] and tab.inner_text("#count") == "2 of 5 shown"
    tab.click("button[type=reset]")
    tab.wait_for_timeout(50)
    assert visit.cards() == [0, 1, 2, 3, 4]
    tab.select_option("#by-label", "energy/penetration")
    assert visit.cards() == [3]
    tab.select_option("#by-label", "")
    tab.select_option("#by-verdict", "holds")
    assert visit.cards() == [1]
    tab.select_option("#by-verdict", "")
    tab.select_option("#order", "up")
    assert visit.cards() == [1, 0, 2, 3, 4], "lowest total energy first, what is not finite last"
    tab.fill("#lowest", "1.5")
    tab.fill("#highest", "5")
    assert visit.cards() == [0, 2]
    tab.select_option("#term", "penetration")
    tab.fill("#lowest", "")
    tab.fill("#highest", "6e-5")
    assert visit.cards() == [2, 4, 1]
    tab.click("button[type=reset]")
    tab.wait_for_timeout(50)
    assert visit.cards() == [0, 1, 2, 3, 4]


@pytest.mark.slow
def test_the_facts_of_the_picked_grasp_are_told(visit, gallery):
    visit.pick(1)
    told = visit.tab.inner_text("#facts")
    for words in ("bowl", "accepted · holds", "final/toy.h5", "101", "5.00e-5", "left and right"):
        assert words in told, words
    visit.pick(4)
    assert "rejected: not finite" in visit.tab.inner_text("#facts")
    assert visit.tab.is_visible("#nothing"), "there is nothing to draw of a failed grasp"


@pytest.mark.slow
def test_dragging_turns_and_the_wheel_zooms(visit):
    def eye() -> np.ndarray:
        return np.array(visit.tab.evaluate("scene.camera.position.clone().sub(scene.controls.target).toArray()"))

    box = visit.tab.locator("#scene").bounding_box()
    middle = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    before = eye()
    visit.tab.mouse.move(*middle)
    visit.tab.mouse.down()
    visit.tab.mouse.move(middle[0] + 120, middle[1], steps=4)
    visit.tab.mouse.up()
    visit.tab.wait_for_timeout(200)
    turned = eye()
    cosine = before @ turned / np.linalg.norm(before) / np.linalg.norm(turned)
    assert cosine < 0.95 and np.linalg.norm(turned) == pytest.approx(np.linalg.norm(before), rel=1e-3)
    visit.tab.mouse.wheel(0, 400)
    visit.tab.wait_for_timeout(200)
    assert abs(np.linalg.norm(eye()) / np.linalg.norm(turned) - 1) > 0.02
    visit.tab.click("#reset")
    np.testing.assert_allclose(eye(), before, rtol=1e-6)


@pytest.mark.slow
def test_thumbnails_that_did_not_come_with_the_page_are_drawn_by_it(visit):
    visit.tab.wait_for_selector('.card[data-grasp="2"] img')
    source = visit.tab.get_attribute('.card[data-grasp="2"] img', "src")
    kind, _, image = source.partition(",")
    assert kind == "data:image/webp;base64"
    image = Image.open(io.BytesIO(base64.b64decode(image)))
    assert image.size == (240, 180) and min(shares(np.asarray(image.convert("RGB"), float) / 255)) > 0.003
    before = visit.frames()
    visit.slide(GRASP)
    assert np.array_equal(before, visit.frames()), "drawing them left the scene as it was"


@pytest.mark.slow
def test_a_phone_sees_the_scene_and_two_columns_of_cards(visit):
    visit.tab.set_viewport_size({"width": 390, "height": 844})
    visit.tab.wait_for_timeout(300)
    scene = visit.tab.locator("#scene").bounding_box()
    assert scene["width"] == 390 and scene["height"] > 250
    assert visit.tab.evaluate("document.documentElement.scrollWidth") <= 390, "it has to be shifted sideways"
    visit.tab.click('.card[data-grasp="3"]')
    assert visit.tab.locator("#scene").bounding_box()["y"] >= -1, "the scene does not come into sight"
    visit.tab.evaluate("window.scrollTo(0, 0)")
    tops = [card.bounding_box()["y"] for card in visit.tab.query_selector_all(".card")]
    assert tops[0] == tops[1] < tops[2]
    visit.tab.set_viewport_size(SIZE)
