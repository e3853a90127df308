import numpy as np
import pytest
import torch
import trimesh
from scene import built_in

from bimangrasp.geometry import node_blocks
from bimangrasp.geometry.node_blocks import Frames, signed_distances, squared_distance
from bimangrasp.geometry.triangle_mesh import TriangleMesh, closest_on_triangle

F32, F64 = torch.float32, torch.float64
BOX = trimesh.creation.box((2.0, 1.0, 1.0))
BALL = trimesh.creation.icosphere(subdivisions=2)
TORUS = trimesh.creation.torus(1.0, 0.3, major_sections=24, minor_sections=12)


def with_flat_triangles(mesh):
    """The mesh with a point and two lines as triangles, far outside, where they are the nearest, and inside."""
    spikes = np.array([[3.0, 0, 0], [3, 0, 0], [3, 0, 0], [0, 0, 1.5], [0, 0, 2], [0, 0, 3], [0.9, 0, 0], [1.1, 0, 0]])
    faces = len(mesh.vertices) + np.array([[0, 1, 2], [3, 5, 4], [6, 7, 6]])
    return trimesh.Trimesh(np.concatenate((mesh.vertices, spikes)), [*mesh.faces, *faces], process=False)


MESHES = {
    "box": (BOX, "normal"),
    "torus": (TORUS, "normal"),
    "torus, faces twice": (trimesh.util.concatenate([TORUS, TORUS]), "normal"),
    "box in a box": (trimesh.util.concatenate([BOX, BOX.copy().apply_scale(0.5)]), "winding"),
    "open ball": (trimesh.Trimesh(BALL.vertices, BALL.faces[12:], process=False), "winding"),
    "flat triangles": (with_flat_triangles(TORUS), "winding"),
}


def grid_around(mesh, cells, dtype, device="cpu"):
    """Axes of nodes, of three lengths, symmetric about the mesh, and their spacing."""
    low, high = mesh.corners.amin(dim=(0, 1)).cpu(), mesh.corners.amax(dim=(0, 1)).cpu()
    cell = 1.2 * float((high - low).max()) / cells
    counts = ((high - low) / cell).ceil().long() + torch.tensor([5, 4, 3])
    starts = (low + high - cell * (counts - 1)) / 2
    axes = zip(starts, counts, strict=True)
    return tuple((start + cell * torch.arange(int(count))).to(device, dtype) for start, count in axes), cell


def searched(mesh, axes):
    """The oracle: every node by itself."""
    nodes = torch.cartesian_prod(*axes)
    nearest = mesh.nearest(nodes)
    distance = nearest.sign * torch.linalg.vector_norm(nodes - nearest.point, dim=-1)
    return distance.view([len(axis) for axis in axes])


@pytest.mark.parametrize("dtype", [F32, F64])
@pytest.mark.parametrize("name", MESHES)
def test_every_node_has_the_bits_of_a_search_for_itself(name, dtype):
    """On symmetric meshes many nodes have several nearest triangles, whose distances differ in the last bit."""
    mesh, sign = MESHES[name]
    device = "cuda" if torch.cuda.is_available() else "cpu"
    solid = TriangleMesh(mesh.vertices, mesh.faces, device, F32, sign)
    axes, cell = grid_around(solid, 9, dtype, device)
    values = signed_distances(solid, axes, cell)
    assert torch.equal(values, searched(solid, axes))
    assert (values < 0).any() and (values > 0).any()


@pytest.mark.slow
@pytest.mark.parametrize("code", ["bowl", "mug"])
def test_the_bits_of_a_built_in_object_do_not_depend_on_how_much_is_done_at_once(code, monkeypatch):
    mesh = built_in(code).mesh
    axes, cell = grid_around(mesh, 30, F32)
    expected = searched(mesh, axes)
    assert torch.equal(signed_distances(mesh, axes, cell), expected)
    monkeypatch.setattr(node_blocks, "PAIRS_AT_ONCE", 700)
    assert torch.equal(signed_distances(mesh, axes, cell), expected)


def test_far_from_the_origin_the_bits_are_the_same():
    mesh = TriangleMesh(TORUS.vertices + [5.0, -7.0, 3.0], TORUS.faces)
    axes, cell = grid_around(mesh, 14, F32)
    assert torch.equal(signed_distances(mesh, axes, cell), searched(mesh, axes))


def test_the_distance_in_the_frame_of_a_triangle_is_that_to_the_triangle():
    random = np.random.default_rng(4)
    corners, points = torch.as_tensor(random.normal(size=(300, 3, 3))), torch.as_tensor(random.normal(size=(12, 3)))
    corners[::3, 2] = corners[::3, 0] + 1e-6 * corners[::3, 2]  # slivers
    frames = Frames.of(corners)
    for point in points:
        nearest, _ = closest_on_triangle(point.expand(300, 3), corners)
        exact = (point - nearest).norm(dim=-1)
        measured = squared_distance(frames.lengths(point)[:, None], frames.half, 1e-9)[0].sqrt()
        torch.testing.assert_close(measured, exact, rtol=0, atol=2e-8)


def test_a_triangle_without_area_is_infinitely_far():
    flat = torch.tensor([[[0.0, 0, 0], [1, 0, 0], [2, 0, 0]], [[1.0, 1, 1], [1, 1, 1], [1, 1, 1]]], dtype=F64)
    frames = Frames.of(flat)
    assert squared_distance(frames.lengths(torch.zeros(3, dtype=F64))[:, None], frames.half, 1e-9).isinf().all()
