"""The picture shows hands as they are: marks on the palmar side, left and right apart, nothing cut off."""

from __future__ import annotations

import io
from dataclasses import replace

import numpy as np
import pytest
from coupled_hands import coupled_shadow
from scene import built_in_hands

from bimangrasp.errors import InputError
from bimangrasp.hand_setup.picture import Panel, draw, joined_joints, panels_of, panels_of_frame, png
from bimangrasp.hands.description import frames_at
from bimangrasp.visualization import renderer
from bimangrasp.visualization.renderer import BACKGROUND

LEAST, WIDTH, HEIGHT = 0.02, 120, 150


def seen(panels: list[Panel]) -> np.ndarray:
    try:
        return draw(panels, LEAST, WIDTH * len(panels), HEIGHT).astype(int)
    except InputError as error:
        pytest.skip(str(error))


@pytest.fixture(autouse=True)
def _coarse_shadows(monkeypatch):
    monkeypatch.setattr(renderer, "SHADOW_SIZE", 64)  # without a GPU they take long


def red(picture: np.ndarray) -> np.ndarray:
    """Pixels of candidates and of the x arrow."""
    return (picture[..., 0] > 110) & (picture[..., 1] < 75) & (picture[..., 2] < 75)


def drawn(picture: np.ndarray) -> np.ndarray:
    """All that is no background."""
    return np.abs(picture - 255 * np.array(BACKGROUND)).sum(axis=-1) > 30


def outline(picture: np.ndarray) -> np.ndarray:
    """The hand without the arrows of its frame, which are no mirror images: cut out, 80 x 50 samples of it."""
    gray = drawn(picture) & (np.ptp(picture, axis=-1) < 40)
    rows, columns = (np.flatnonzero(gray.sum(axis=axis) > 3) for axis in (1, 0))
    places = (np.linspace(line[0], line[-1], count).round().astype(int) for line, count in ((rows, 80), (columns, 50)))
    return gray[np.ix_(*places)]


@pytest.fixture(params=["shadow", "allegro"])
def pair(request):
    return built_in_hands(request.param).descriptions


@pytest.mark.slow
def test_candidates_are_seen_from_the_palm_and_not_from_the_back(pair):
    _, right = pair
    palm = Panel(right, right.palm_normal, right.finger_direction)
    picture = seen([palm, palm._replace(back=-right.palm_normal)])
    front, back = (red(half).sum() for half in np.split(picture, 2, axis=1))
    assert front > 60 and back < 0.3 * front


@pytest.mark.slow
def test_the_hands_are_mirror_images_and_stand_in_their_panels(pair):
    bare = [
        replace(one, candidate_link=one.candidate_link[:0], candidate_position=one.candidate_position[:0])
        for one in pair
    ]
    left, right, *_ = np.split(seen(panels_of(*bare)), 4, axis=1)
    for picture in (left, right):
        inside = drawn(picture)
        assert not inside[[0, -1]].any() and not inside[:, [0, -1]].any()
        assert inside.any(axis=1).mean() > 0.7
    ours, theirs = outline(left), outline(right)
    assert (ours == theirs[:, ::-1]).mean() > 0.95
    assert np.abs(left - right).mean() > 3


@pytest.mark.slow
def test_keypoints_are_seen_in_a_hand_of_glass(pair):
    panel = panels_of(*pair)[3]
    blue = [(p[..., 2] - p[..., 0] > 60).sum() for p in (seen([panel]), seen([panel._replace(inside=False)]))]
    assert panel.inside and blue[0] > 300 and blue[0] > 5 * blue[1]


@pytest.mark.slow
def test_joints_that_move_together_are_joined_in_a_panel_of_their_own():
    pair = coupled_shadow().descriptions
    panel = panels_of(*pair)[4]
    orange = [
        ((p[..., 0] - p[..., 2] > 60) & (p[..., 1] - p[..., 2] > 25)).sum()
        for p in (seen([panel]), seen([panel._replace(coupled=False)]))
    ]
    assert panel.coupled and orange[0] > 60 and orange[0] > 5 * orange[1]


def test_free_hands_have_no_panel_for_couplings(pair):
    assert len(panels_of(*pair)) == 4 and joined_joints(pair[1], frames_at(pair[1], pair[1].joint_mean)) == []


def test_rods_go_from_joint_to_joint():
    hand = coupled_shadow().descriptions[1]
    frames = frames_at(hand, hand.joint_mean)
    rods = joined_joints(hand, frames)
    names = [[hand.joint_names[joint] for joint in joints] for joints in hand.coordinates.moved]
    assert len(rods) == sum(len(joints) - 1 for joints in names) and not any("THJ0" in joints for joints in names)
    assert ["FFJ1", "FFJ0", "MFJ2"] in names
    place = {name: frames[link, :3, 3] for name, link in zip(hand.joint_names, hand.joint_link, strict=True)}
    assert any(np.array_equal(rod, np.stack((place["FFJ1"], place["FFJ0"]))) for rod in rods)


@pytest.mark.slow
def test_a_bare_hand_is_seen_along_its_axes(pair):
    along_x, along_y, along_z = np.split(seen(panels_of_frame(pair[1])), 3, axis=1)
    green = [((p[..., 1] - p[..., 0] > 40) & (p[..., 1] - p[..., 2] > 30)).sum() for p in (along_x, along_z)]
    assert min(green) > 5 and all(drawn(p).mean() > 0.05 for p in (along_x, along_y, along_z))


def test_the_png_holds_the_picture():
    picture = np.random.default_rng(0).integers(0, 255, (7, 5, 3)).astype(np.uint8)
    image = pytest.importorskip("PIL.Image").open(io.BytesIO(png(picture)))
    assert np.array_equal(np.asarray(image.convert("RGB")), picture)
