"""Measures how closely this code reproduces the BimanGrasp release, against values recorded from it.

    python benchmarks/parity.py --hands <mjcf folder> --golden <file.npz> [--mesh <file.obj>]

prints the largest error of every quantity beside its tolerance and exits with 1 where one is missed. The golden file
holds poses, contact choices, surface points and what the release made of them; float64 columns are compared.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

import conf
from bimangrasp.energy.config import EnergyConfig
from bimangrasp.energy.energies import contacts_of, energies
from bimangrasp.energy_terms import ENERGY_TERMS, TERMS
from bimangrasp.geometry.distances import SQUARED_DISTANCE_FLOOR
from bimangrasp.grasp import Grasps
from bimangrasp.hand_files.loading import load_hands
from bimangrasp.hands.model import HandModel
from bimangrasp.objects.config import ObjectConfig
from bimangrasp.objects.model import Mesh, ObjectModel, read_mesh

LENGTH = 1e-6
"""Tolerance of link frames, contact points and distances, m."""
ENERGY, ENERGY_FLOOR = 1e-4, 1e-6
"""Relative tolerance of an energy, and the absolute error that is always allowed."""
GRADIENT = 1e-3
"""Tolerance of a gradient, as a share of the sample's largest entry."""
ILL_CONDITIONED = 1e-5
"""A contact this close to the surface, m, has a normal that rounding decides; what depends on it is left out."""

SIDES = ("left", "right")


class Row(NamedTuple):
    """One compared quantity: its largest error, what is allowed, in which unit, over how many samples."""

    name: str
    error: float
    tolerance: float
    unit: str
    samples: int


class Golden(NamedTuple):
    """The inputs of a golden file as this code takes them, and the file's arrays."""

    arrays: dict[str, np.ndarray]
    grasps: Grasps
    object_scale: torch.Tensor
    hand_points: torch.Tensor


def read_golden(path: Path, dtype: torch.dtype = torch.float32) -> Golden:
    """Returns a golden file of one object."""
    with np.load(path, allow_pickle=False) as file:
        arrays = dict(file)

    def both(name: str) -> np.ndarray:
        return np.stack([arrays[name.format(side)] for side in SIDES], axis=1)

    pose = torch.as_tensor(both("{}_hand_pose"), dtype=dtype)
    grasps = Grasps.from_pose(pose, torch.as_tensor(both("{}_contact_point_indices")))
    points = torch.as_tensor(arrays["right_surface_points"], dtype=dtype)
    hand_points = torch.stack((torch.full_like(points, torch.nan), points), dim=1)
    return Golden(arrays, grasps, torch.as_tensor(arrays["object_scale"], dtype=dtype), hand_points)


def golden_object(golden: Golden, mesh: Path | None, dtype: torch.dtype = torch.float32) -> ObjectModel:
    """Returns the object of a golden file with the recorded surface points."""
    arrays = golden.arrays
    read = read_mesh(str(mesh)) if mesh else None
    taken = read or Mesh(arrays["object_vertices"], arrays["object_faces"], "normal", str(arrays["object_code"]))
    obj = ObjectModel(taken, ObjectConfig([1.0], None, 1, 1, "keep", 8), dtype=dtype)
    obj.surface_points = torch.as_tensor(arrays["object_surface_points_unit"], dtype=dtype)
    return obj


def release_hands(folder: Path, dtype: torch.dtype = torch.float32) -> HandModel:
    """Returns the hands of a BimanGrasp `mjcf/` folder."""
    config = conf.load(["hand=release", f"hand.root='{folder}'"]).hand
    return HandModel(*load_hands(config), surface_points=1, dtype=dtype)


def compare(golden: Golden, hands: HandModel, obj: ObjectModel, config: EnergyConfig) -> list[Row]:
    """Returns the largest error of contact points, distances, every energy term and every gradient."""
    pose = golden.grasps.pose.clone().requires_grad_()
    grasps = Grasps.from_pose(pose, golden.grasps.candidate)
    contacts = contacts_of(hands, obj, golden.object_scale, hands.link_frames(grasps), grasps)
    terms = energies(hands, obj, golden.object_scale, grasps, config, golden.hand_points)
    rows = _contact_rows(golden.arrays, contacts.point.detach(), contacts.distance.detach())
    ours = {term.name for term in ENERGY_TERMS if term.is_optional}
    for name in (name for name in TERMS if name not in ours):
        value = getattr(terms, name)
        (gradient,) = torch.autograd.grad(value.sum(), pose, retain_graph=True)
        rows += _energy_rows(golden.arrays, name, value.detach().numpy(), gradient.numpy())
    return rows


def _contact_rows(arrays: dict[str, np.ndarray], point: torch.Tensor, distance: torch.Tensor) -> list[Row]:
    """Compares contact points and signed distances; the file's distances are positive inside."""
    rows = []
    for hand, side in enumerate(SIDES):
        error = np.abs(point[:, hand].numpy() - arrays[f"f64_contact_points_{side}"]).max()
        rows.append(Row(f"contact points, {side}", float(error), LENGTH, "m", len(point)))
    for hand, side in enumerate(SIDES):
        error = np.abs(-distance[:, hand].numpy() - arrays[f"f64_contact_distance_{side}"])
        error = np.where(arrays[f"flag_contact_distance_{side}"], 0, error)
        rows.append(Row(f"contact distances, {side}", float(error.max()), LENGTH, "m", len(point)))
    return rows


def _energy_rows(arrays: dict[str, np.ndarray], name: str, value: np.ndarray, gradient: np.ndarray) -> list[Row]:
    """Compares one energy term and its gradient, each on the samples in which it is well-conditioned."""
    wanted = arrays[f"f64_E_{name}"]
    error = ENERGY * np.abs(value - wanted) / np.maximum(ENERGY * np.abs(wanted), ENERGY_FLOOR)
    wanted_gradient = np.stack([arrays[f"f64_grad_{name}_{side}"] for side in SIDES], axis=1)
    largest = np.abs(wanted_gradient).max(axis=(1, 2))
    slope = np.abs(gradient - wanted_gradient).max(axis=(1, 2)) / np.maximum(largest, ENERGY_FLOOR)
    points, contacts = _unflagged_points(arrays), _clear_contacts(arrays)
    all_samples = np.ones_like(points)
    of_points = points if name in ("penetration", "self_penetration", "total") else all_samples
    of_normals = contacts if name in ("force_closure", "wrench_volume", "total") else all_samples
    of_slopes = contacts if name in ("force_closure", "wrench_volume", "distance", "total") else all_samples
    return [
        _row(f"E_{name}", error, ENERGY, of_points & of_normals),
        _row(f"gradient of E_{name}", slope, GRADIENT, of_points & of_slopes),
    ]


def _row(name: str, error: np.ndarray, tolerance: float, keep: np.ndarray) -> Row:
    return Row(name, float(error[keep].max(initial=0)), tolerance, "rel", int(keep.sum()))


def _unflagged_points(arrays: dict[str, np.ndarray]) -> np.ndarray:
    """Returns which samples have no point whose distance to a hand the recording calls ill-conditioned."""
    flags = [name for name in arrays if name.startswith("flag_") and "surface_points" in name]
    flags += [name for name in arrays if name.startswith("flag_hand_sdf_at_object_points")]
    return ~np.any([arrays[name].any(axis=1) for name in flags], axis=0)


def _clear_contacts(arrays: dict[str, np.ndarray]) -> np.ndarray:
    """Returns which samples have no contact so close to the surface, or so placed, that rounding decides its normal.

    The recorded distance is at least 1e-4 of the scale, by the floor under its root: the true one is what is left.
    """
    floor = SQUARED_DISTANCE_FLOOR**0.5 * arrays["object_scale"][:, None]
    keep = np.ones(len(floor), dtype=bool)
    for side in SIDES:
        recorded = arrays[f"f64_contact_distance_{side}"]
        distance = np.sqrt(np.maximum(recorded**2 - floor**2, 0))
        keep &= (distance > ILL_CONDITIONED).all(axis=1) & ~arrays[f"flag_contact_normal_{side}"].any(axis=1)
    return keep


def print_table(rows: list[Row]) -> bool:
    """Prints the rows; returns whether every tolerance is met."""
    print(f"{'quantity':34} {'largest error':>14} {'allowed':>9}  unit  samples")
    for row in rows:
        verdict = "" if row.error <= row.tolerance else "  MISSED"
        verdict = verdict if row.samples else "  not compared: ill-conditioned in every sample"
        print(f"{row.name:34} {row.error:14.2e} {row.tolerance:9.0e}  {row.unit:4}  {row.samples:7d}{verdict}")
    return all(row.error <= row.tolerance for row in rows)


def main(arguments: list[str] | None = None) -> int:
    """Runs the comparison of the command line; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--hands", type=Path, required=True, help="a BimanGrasp mjcf/ folder")
    parser.add_argument("--golden", type=Path, required=True, help="recorded values of one object (.npz)")
    parser.add_argument("--mesh", type=Path, help="the object's mesh; without it the one in the golden file")
    options = parser.parse_args(arguments)
    golden = read_golden(options.golden)
    obj = golden_object(golden, options.mesh)
    rows = compare(golden, release_hands(options.hands), obj, conf.load(["experiment=released"]).energy)
    return 0 if print_table(rows) else 1


if __name__ == "__main__":
    sys.exit(main())
