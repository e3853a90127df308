from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import quick_conf
import trimesh
from scipy.spatial.transform import Rotation

from bimangrasp.errors import InputError
from bimangrasp.hand_files.config import CandidateRule
from bimangrasp.hand_files.loading import load_hands
from bimangrasp.hand_files.tables import place_candidates
from bimangrasp.hands.description import HandDescription, Primitive

NONE = (np.zeros((0, 3)), np.zeros((0, 3), np.int64))
SPREAD = 0.6


def posed(shape: str, size: tuple[float, float, float], mesh: tuple = NONE, link: int = 0) -> Primitive:
    T = np.eye(4)
    T[:3, :3] = Rotation.from_rotvec([0.3, -0.2, 0.5]).as_matrix()
    T[:3, 3] = [0.01, -0.02, 0.03]
    return Primitive(link, shape, T, np.array(size), *mesh)


def wedge() -> tuple[np.ndarray, np.ndarray]:
    mesh = trimesh.convex.convex_hull(np.random.default_rng(0).normal(size=(4000, 3)) * [0.008, 0.004, 0.01])
    return np.array(mesh.vertices), np.array(mesh.faces, np.int64)


SHAPES = {
    "capsule": posed("capsule", (0.01, 0.02, 0.0)),
    "sphere": posed("capsule", (0.01, 0.0, 0.0)),
    "cylinder": posed("cylinder", (0.01, 0.02, 0.0)),
    "box": posed("box", (0.01, 0.02, 0.03)),
    "mesh": posed("mesh", (0.0, 0.0, 0.0), wedge()),
}
DIRECTIONS = {"side": [0.0, -1.0, 0.0], "end": [0.0, 0.0, 1.0], "other end": [0.0, 0.0, -1.0]}


def surface(shape: Primitive, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Closed forms: (n,) distances to the surface and (n, 3) outward normals there, in the shape's frame."""
    a, b, c = shape.size
    axis = np.clip(points[:, 2], -b, b)[:, None] * [0, 0, 1]
    if shape.shape == "capsule":
        outward = points - axis
        radius = np.linalg.norm(outward, axis=1, keepdims=True)
        return np.abs(radius[:, 0] - a), outward / radius
    if shape.shape == "cylinder":
        gaps = np.stack((np.hypot(points[:, 0], points[:, 1]) - a, np.abs(points[:, 2]) - b), axis=1)
        side = np.concatenate((points[:, :2] / a, np.zeros((len(points), 1))), axis=1)
        on_side = np.abs(gaps[:, :1]) < np.abs(gaps[:, 1:])
        return np.abs(gaps.max(axis=1)), np.where(on_side, side, np.sign(points[:, 2:]) * [0, 0, 1])
    if shape.shape == "box":
        mesh = trimesh.creation.box(extents=[2 * a, 2 * b, 2 * c])
    else:
        mesh = trimesh.Trimesh(shape.vertices, shape.faces, process=False)
    _, distance, face = mesh.nearest.on_surface(points)
    return distance, mesh.face_normals[face]


@pytest.mark.slow
@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("name", SHAPES)
def test_candidates_lie_on_the_palmar_surface(name: str, direction: str):
    shape = SHAPES[name]
    T = shape.T_link_shape
    palmar = T[:3, :3] @ np.array(DIRECTIONS[direction])
    rule = CandidateRule(25, SPREAD, {"finger": list(palmar)})
    link, points = place_candidates([shape], ["finger"], rule)
    assert (link == 0).all()
    assert points.shape == (25, 3)
    distance, normal = surface(shape, (points - T[:3, 3]) @ T[:3, :3])
    assert distance.max() < 1e-12
    assert (normal @ np.array(DIRECTIONS[direction])).min() > np.cos(SPREAD) - 1e-9
    gaps = np.linalg.norm(points[:, None] - points[None], axis=-1) + np.eye(25)
    assert gaps.min() > 2e-4


@pytest.mark.parametrize("name", SHAPES)
def test_candidates_are_the_same_every_time(name: str):
    rule = CandidateRule(10, SPREAD, {"finger": [0.0, -1.0, 0.0]})
    first, again = (place_candidates([SHAPES[name]], ["finger"], rule)[1] for _ in range(2))
    assert (first == again).all()


def test_candidates_cover_a_box_face_evenly():
    box = Primitive(0, "box", np.eye(4), np.array([0.03, 0.01, 0.04]), *NONE)
    _, points = place_candidates([box], ["palm"], CandidateRule(12, SPREAD, {"palm": [0.0, -1.0, 0.0]}))
    np.testing.assert_allclose(points[:, 1], -0.01, atol=1e-15)
    dense = np.stack(np.meshgrid(np.linspace(-0.03, 0.03, 30), np.linspace(-0.04, 0.04, 30)), -1).reshape(-1, 2)
    holes = np.linalg.norm(dense[:, None] - points[None, :, [0, 2]], axis=-1).min(axis=1)
    assert holes.max() < 0.018  # twelve squares of 20 mm have half diagonals of 14 mm


def test_of_several_shapes_the_one_that_reaches_farthest_carries_them():
    inner = Primitive(0, "capsule", np.eye(4), np.array([0.01, 0.02, 0.0]), *NONE)
    outer = Primitive(0, "box", np.eye(4), np.array([0.005, 0.012, 0.005]), *NONE)
    for shapes in ([inner, outer], [outer, inner]):
        _, points = place_candidates(shapes, ["finger"], CandidateRule(5, SPREAD, {"finger": [0.0, -1.0, 0.0]}))
        np.testing.assert_allclose(points[:, 1], -0.012, atol=1e-15)


def test_candidates_come_in_link_order_whatever_the_yaml_says():
    shapes = [Primitive(link, "capsule", np.eye(4), np.array([0.01, 0.02, 0.0]), *NONE) for link in range(2)]
    palmar = {"b": [1.0, 0.0, 0.0], "a": [0.0, 1.0, 0.0]}
    link, points = place_candidates(shapes, ["a", "b"], CandidateRule(3, 0.1, palmar))
    assert list(link) == [0, 0, 0, 1, 1, 1]
    assert (points[:3, 1] > 0.009).all()
    assert (points[3:, 0] > 0.009).all()


def test_links_without_shape_and_unknown_links_are_refused():
    shape = Primitive(0, "capsule", np.eye(4), np.array([0.01, 0.02, 0.0]), *NONE)
    with pytest.raises(InputError, match=r"'knuckle', which has no collision geometry.*have one: finger"):
        place_candidates([shape], ["finger", "knuckle"], CandidateRule(3, 0.1, {"knuckle": [1.0, 0.0, 0.0]}))
    with pytest.raises(InputError, match=r"'fingr', which the hand does not have. Nearest: finger"):
        place_candidates([shape], ["finger"], CandidateRule(3, 0.1, {"fingr": [1.0, 0.0, 0.0]}))
    with pytest.raises(InputError, match=r"palmar of 'finger' is \[1.0, 1.0, 0.0\]; wanted .* length 1"):
        place_candidates([shape], ["finger"], CandidateRule(3, 0.1, {"finger": [1.0, 1.0, 0.0]}))


@pytest.mark.slow
@pytest.mark.parametrize("name", quick_conf.BUILT_IN)
def test_every_candidate_of_a_built_in_hand_is_on_the_palmar_side_of_its_link(name: str):
    config = quick_conf.load(f"hand={name}").hand
    hand = load_hands(config)[1]
    links = [hand.link_names.index(link) for link in config.candidates.palmar]
    assert sorted(hand.candidate_link) == sorted(links * config.candidates.per_link)
    for link, palmar in zip(links, config.candidates.palmar.values(), strict=True):
        points = hand.candidate_position[hand.candidate_link == link]
        nearest = []
        for shape in (one for one in hand.primitives if one.link == link):
            T = shape.T_link_shape
            distance, normal = surface(shape, (points - T[:3, 3]) @ T[:3, :3])
            nearest.append((distance, normal @ T[:3, :3].T @ np.array(palmar)))
        distance, cosine = min(nearest, key=lambda found: found[0].max())
        assert distance.max() < 1e-9
        assert cosine.min() > np.cos(config.candidates.spread_rad) - 1e-9


@pytest.fixture(scope="module")
def right() -> HandDescription:
    return load_hands(quick_conf.load().hand)[1]


def test_the_builtin_hand_has_ten_on_each_phalanx_from_end_to_end(right: HandDescription):
    assert right.candidate_position.shape == (140, 3)
    for link in np.unique(right.candidate_link):
        (shape,) = [s for s in right.primitives if s.link == link]
        z = right.candidate_position[right.candidate_link == link][:, 2]
        assert len(z) == 10
        np.testing.assert_allclose([z.min(), z.max()], [0, 2 * shape.size[1]], atol=1e-9)


def test_the_builtin_candidates_are_like_the_recorded_ones(right: HandDescription, shared: Path):
    """Same links, side, radius and reach along the link; angles as wide as nine in ten of theirs."""
    golden = np.load(shared / "golden" / "hands.npz")
    order = json.loads((shared / "golden" / "hands.json").read_text())["right"]["mesh_link_names"]
    theirs_link = [order[link].split(":")[1].removesuffix("_child") for link in golden["right_contact_candidate_link"]]
    ours_link = [right.link_names[link].replace("_", "") for link in right.candidate_link]
    assert sorted(ours_link) == sorted(theirs_link)
    angles = {"ours": [], "theirs": []}
    for name in set(ours_link):
        middle = np.array([-1.0, 0.0]) if name.startswith("th") else np.array([0.0, -1.0])
        for who, links, table in (
            ("ours", ours_link, right.candidate_position),
            ("theirs", theirs_link, golden["right_contact_candidates"]),
        ):
            points = np.array([point for link, point in zip(links, table, strict=True) if link == name])
            radius = np.linalg.norm(points[:, :2], axis=1)
            angles[who].extend(np.arccos(points[:, :2] @ middle / radius))
            if who == "ours":
                mine = points
        assert abs(np.median(np.linalg.norm(mine[:, :2], axis=1)) - np.median(radius)) < 2e-5
        assert abs(mine[:, 2].mean() - points[:, 2].mean()) < 2.5e-3
        assert abs(np.ptp(mine[:, 2]) - np.ptp(points[:, 2])) < 2.5e-3
    assert max(angles["ours"]) <= 0.6 + 1e-9
    assert np.mean(np.array(angles["theirs"]) <= 0.6) >= 0.9
