"""Computes the outer surface of overlapping bodies: cuts away what lies inside another body."""

from __future__ import annotations

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from bimangrasp.builtin import install_command
from bimangrasp.errors import InputError


def outer_surface(vertices: np.ndarray, faces: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns vertices (V, 3) and faces (F, 3) of the boolean union of the closed bodies of a mesh.

    A body is what faces join through common vertices, as the convex pieces of a decomposition are.

    Raises:
        InputError: manifold3d is not there, or a body is not closed.
    """
    try:
        import manifold3d
    except ImportError as error:
        raise InputError(
            f"object.interior_faces=remove needs manifold3d: {install_command('objects')}, or set "
            "object.interior_faces=keep"
        ) from error
    solids = []
    for body in _bodies(vertices, faces):
        corners, corner_index = np.unique(vertices[body].reshape(-1, 3), axis=0, return_inverse=True)
        mesh = manifold3d.Mesh64(corners, corner_index.reshape(-1, 3).astype(np.uint64))
        solid = manifold3d.Manifold(mesh)
        if solid.status() != manifold3d.Error.NoError:
            raise InputError(
                f"object.interior_faces=remove wants closed bodies; body {len(solids)} of the mesh, with {len(body)} "
                f"faces, is none ({solid.status().name}): close it, or set object.interior_faces=keep"
            )
        solids.append(solid)
    union = manifold3d.Manifold.batch_boolean(solids, manifold3d.OpType.Add).to_mesh64()
    return np.asarray(union.vert_properties, np.float64)[:, :3], np.asarray(union.tri_verts, np.int64)


def _bodies(vertices: np.ndarray, faces: np.ndarray) -> list[np.ndarray]:
    """Returns the faces (F, 3) of each body, bodies in the order of their first vertices."""
    ends = np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]]])
    adjacency = coo_array((np.ones(len(ends)), tuple(ends.T)), shape=(len(vertices), len(vertices)))
    count, body = connected_components(adjacency, directed=False)
    body_of_face = body[faces[:, 0]]
    return [faces[body_of_face == number] for number in range(count)]
