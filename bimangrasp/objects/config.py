"""Holds the settings of objects, of their convex pieces and of their preparation. Imports no PyTorch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from bimangrasp.ranges import NOT_NEGATIVE, NULL_OR_SIZES, POSITIVE, SIZES, Checked, among, at_least, between

UNITS = {"m": 1.0, "cm": 0.01, "mm": 0.001, "in": 0.0254}
"""Length of each unit, m."""


CONVENTIONS = ("dexgraspnet", "plain", "keep")


@dataclass
class ObjectConfig(Checked):
    """How a mesh becomes an object to grasp.

    Attributes:
        scales: sizes by which the unit mesh is multiplied; each grasp draws one of them.
        sizes: largest extents of the object along its axes, m, in place of `scales`; null where these count.
        surface_points: how many points on the surface stand for the object in the penetration term.
        surface_samples_per_point: area-uniform samples per point from which the farthest points are chosen.
        interior_faces: "keep" takes the mesh as it is; "remove" the outer surface of the bodies it is made of, such
            as the convex pieces of a decomposition.
        grid_cells: cells along the longest side of the grid of signed distances, which the depth term reads.
    """

    scales: Annotated[list[float], SIZES]
    sizes: Annotated[list[float] | None, NULL_OR_SIZES]
    surface_points: Annotated[int, at_least(1)]
    surface_samples_per_point: Annotated[int, at_least(1)]
    interior_faces: Annotated[str, among("keep", "remove")]
    grid_cells: Annotated[int, at_least(8)]


@dataclass
class PiecesConfig(Checked):
    """How an object becomes convex pieces. Lengths are shares of the mesh's diagonal.

    Attributes:
        threshold: largest concavity of a piece, in CoACD's unit, in which the mesh spans 2.
        max_convex_hull: most pieces; -1 is any number.
        preprocess_mode: whether CoACD remeshes first, which makes a body thicker: "on", "off", or "auto" (a mesh that
            does not tell inside from outside, such as a sheet; CoACD's own auto is any that cuts itself).
        preprocess_resolution: of that remeshing.
        resolution: samples by which concavity is measured.
        mcts_nodes, mcts_iterations, mcts_max_depth: of the tree search for cutting planes.
        merge: whether pieces are joined whose common hull is within the threshold.
        seed: of CoACD's random numbers.
        convex_tolerance: depth of a face below its convex hull up to which a body counts as convex.
        cover_tolerance: largest gap between the mesh and pieces that are given as files, which may be of another mesh.
        largest_distance: from pieces that were made to the mesh, for 95 % of the surface of either, and of what they
            leave out of it; others are refused, those of fallbacks as well.
        smallest_volume: of a piece, share of the diagonal cubed; smaller ones are dropped.
    """

    threshold: Annotated[float, POSITIVE]
    max_convex_hull: int
    preprocess_mode: Annotated[str, among("auto", "on", "off")]
    preprocess_resolution: int
    resolution: int
    mcts_nodes: int
    mcts_iterations: int
    mcts_max_depth: int
    merge: bool
    seed: int
    convex_tolerance: Annotated[float, NOT_NEGATIVE]
    cover_tolerance: Annotated[float, NOT_NEGATIVE]
    largest_distance: Annotated[float, NOT_NEGATIVE]
    smallest_volume: Annotated[float, NOT_NEGATIVE]


@dataclass
class PreparationConfig(Checked):
    """What `mode=objects` does with meshes.

    Attributes:
        normalize: "dexgraspnet", "plain" or "keep", see `preparation.normalization`.
        unit: of the files, for "keep": m, cm, mm or in.
        largest_hole: holes up to this share of the mesh's diagonal are closed.
        interior_faces: "remove" joins bodies that overlap where the sign is wrong between them, and pieces that become
            the surface; "keep" leaves them.
        surface: of the object: "mesh", or "pieces" for its convex pieces in place of it, as DexGraspNet has it.
        decompose: whether convex pieces are written.
    """

    normalize: Annotated[str, among(*CONVENTIONS)]
    unit: Annotated[str, among(*UNITS)]
    largest_hole: Annotated[float, between(0, 1)]
    interior_faces: Annotated[str, among("keep", "remove")]
    surface: Annotated[str, among("mesh", "pieces")]
    decompose: bool
